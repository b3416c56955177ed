/* `espalier plan`: what a run will take, printed before it is queued. Needs neither data, ranks nor a GPU. */
#ifndef ESPL_TRAIN_PLAN_REPORT_H
#define ESPL_TRAIN_PLAN_REPORT_H

#include "src/config/config.h"
#include "src/train/plan_times.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct espl_plan_request {
    const char *device;        /* "cpu", "cuda", "emu"; NULL: run.device, and the CPU when that is auto */
    int ranks, ranks_per_node; /* ranks_per_node 0: all on one */
    int threads;               /* of a rank; 0: the cores of this machine, shared by the ranks of a node */
    double peak;               /* flops a second of one rank; 0: measured here */
    bool timed;                /* also times, by the next */
    espl_times_request times;  /* pace.peak 0: that of this machine's CPU */
    bool tensors;              /* also list every tensor */
    bool json;
} espl_plan_request;

/* Local. Prints the plan of a config. Errors: those of opening the model; usage, when the reduction does not fit the ranks. */
espl_status espl_plan_print(const espl_config *config, const espl_plan_request *request, FILE *out);

#endif
