/* `espalier doctor`: looks at what a run will need of the machine, and says in plain words what is wrong and what to do.
 *
 * A check is a row of doctor.c: a function that looks at one thing and says what it found. Each rank makes those of ranks, one rank a host
 * those of hosts, rank 0 those of the job; what several say alike is one finding. */
#ifndef ESPL_TRAIN_DOCTOR_H
#define ESPL_TRAIN_DOCTOR_H

#include "comm/comm.h"
#include "src/config/config.h"
#include "src/train/machine/walltime.h"

#include <stdbool.h>
#include <stdio.h>

/* FINE: a fact. POOR: a run works, but slowly or not as it is meant to. FAILS: a run will not work. */
typedef enum espl_finding_level { ESPL_FINE, ESPL_POOR, ESPL_FAILS } espl_finding_level;

typedef struct espl_finding {
    espl_finding_level level;
    char *check, *text, *advice; /* advice: "" where there is none */
    int ranks;                   /* that found it */
    char host[64];               /* of the first of them */
} espl_finding;

typedef struct espl_findings {
    espl_finding *items;
    int n;
} espl_findings;

typedef struct espl_doctor_options {
    const char *folder;   /* whose file system is looked at; need not exist */
    espl_job_end job_end; /* rank 0 */
} espl_doctor_options;

/* Collective. All checks, in their order; on rank 0 what all ranks found, elsewhere nothing. Errors: those of communication alone. */
espl_status espl_doctor_examine(espl_comm *comm, const espl_config *config, const espl_doctor_options *options, espl_findings *findings);

/* Local. How many findings are of a level. */
int espl_findings_count(const espl_findings *findings, espl_finding_level level);

/* Local. A line a finding with its advice below, or one JSON object. `n_ranks`: of the job. */
void espl_findings_print(const espl_findings *findings, int n_ranks, FILE *out);
void espl_findings_print_json(const espl_findings *findings, FILE *out);

/* Local. Frees and zeroes. */
void espl_findings_free(espl_findings *findings);

#endif
