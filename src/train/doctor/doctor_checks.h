/* What the checks of the doctor share: whom they look at, and how they say what they found. */
#ifndef ESPL_TRAIN_DOCTOR_CHECKS_H
#define ESPL_TRAIN_DOCTOR_CHECKS_H

#include "src/train/doctor/doctor.h"

/* Of the cores; the same for all ranks of a host but for the last two. */
typedef struct espl__doctor_cores {
    int on_host; /* that any rank of this host may run on */
    int mine;    /* that this rank may run on */
    int sharers; /* ranks that may run on just these, itself included */
} espl__doctor_cores;

typedef struct espl__doctor {
    espl_comm *comm;
    const espl_ranks *ranks;
    const espl_config *config;
    const espl_doctor_options *options;
    const char *check; /* the name of the present one */
    int threads;       /* that a run would use on this rank */
    espl__doctor_cores cores;
    espl_findings *findings;
} espl__doctor;

/* Local. Adds a finding of the present check; `advice` says what to do, "" where there is nothing to do. */
void espl__doctor_say(espl__doctor *d, espl_finding_level level, const char *advice, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Local. A small file's text ("" when it cannot be read), to be freed; its first number, or `otherwise`. */
char *espl__doctor_text(const char *path);
double espl__doctor_number(const char *path, double otherwise);

/* Local. A variable of the environment; NULL also when it is empty. */
const char *espl__doctor_variable(const char *name);

/* The checks; those of the job are collective. */
void espl__check_mpi(espl__doctor *d);
void espl__check_scheduler(espl__doctor *d);
void espl__check_device(espl__doctor *d);
void espl__check_cores(espl__doctor *d);
void espl__check_host_cores(espl__doctor *d);
void espl__check_numa(espl__doctor *d);
void espl__check_memory(espl__doctor *d);
void espl__check_limits(espl__doctor *d);
void espl__check_shared_memory(espl__doctor *d);
void espl__check_environment(espl__doctor *d);
void espl__check_files(espl__doctor *d);

/* Collective. Whether all hosts see the folder's files, and how far their clocks are apart. */
espl_status espl__check_shared_folder(espl__doctor *d);
espl_status espl__check_clocks(espl__doctor *d);

#endif
