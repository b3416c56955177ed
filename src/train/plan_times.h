/* What a step takes in seconds, and what a long run keeps of its time, by a model of device, network and failures. */
#ifndef ESPL_TRAIN_PLAN_TIMES_H
#define ESPL_TRAIN_PLAN_TIMES_H

#include "src/plan/failures.h"
#include "src/plan/network.h"
#include "src/plan/pace.h"
#include "src/plan/timeline.h"
#include "src/train/memory/memory.h"

#include <jansson.h>
#include <stdio.h>

/* What a run of one rank took, by its metrics.jsonl: seconds of a micro-batch, and of a step's update. Takes the place of the device's
 * rates; what differs between calls stays as these say. */
typedef struct espl_measured {
    double compute, data, update;
    double cores;   /* it computed with; compute 0: there is none */
    int64_t tokens; /* of a micro-batch */
} espl_measured;

typedef struct espl_times_request {
    const espl_network *network; /* NULL: of one rank alone */
    espl_pace pace;
    double pace_cores; /* that the pace was measured with; 0 of a GPU, which no rank shares */
    espl_measured measured;
    espl_unevenness uneven;
    double write;     /* bytes a second that all ranks together write to the file system, and read from it */
    double host_mtbf; /* seconds between failures of a host */
    double restart;   /* seconds from a failure until the program runs again */
    double cores;     /* of a host */
} espl_times_request;

typedef struct espl_times {
    espl_net_job job;
    espl_step_times step; /* mean over simulated steps */
    double late;          /* seconds that 95 % of steps stay under */
    double tokens;        /* of a step */
    double flops;         /* of a step, of all ranks */
    double checkpoint;    /* bytes */
    espl_failures failures;
    double young, daly, interval; /* seconds of work between saves; interval: Daly's, or as long as a save is being written */
    double goodput;               /* by the formula */
    espl_failure_costs costs;     /* simulated */
} espl_times;

/* Local. Times of a blueprint made for job->ranks ranks whose micro-batches hold `amount`. Errors: usage, when the network says nothing of
 * such a job, or micro-batches were measured of another size. */
espl_status espl_times_make(const espl_blueprint *blueprint, const espl_amount *amount, const espl_net_job *job,
                            const espl_times_request *request, espl_times *times);

/* Local. Those of one job, for people. */
void espl_times_print(const espl_times *times, const espl_times_request *request, FILE *out);

/* Local. A line of a table over ranks; NULL: its head. `first`: the row that efficiency is a share of. `memory`: bytes of a rank, `wire`:
 * that it sends in a step. */
void espl_times_print_row(const espl_times *times, const espl_times *first, double memory, double wire, FILE *out);

/* Local. One job's as JSON. The caller frees. */
json_t *espl_times_to_json(const espl_times *times);

#endif
