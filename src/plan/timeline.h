/* A step as a list of events: when calls end, buckets are complete, sums and gathers run, and what of them nothing else hides.
 *
 * The order is that of src/train/step.c. Micro-batches follow each other; in the last one a bucket's sum begins when the bucket is complete
 * and the sum before it is done (where gradients are cut, in every micro-batch). All sums are waited for; where every rank updates
 * everything, the sums are then gathered. Ranks agree. Then bucket after bucket is updated, and its weights leave while the next one is,
 * and while the next step computes what comes before their first use; so a step begins with the gathers of the one before it under way.
 * Where weights are cut, they are gathered for each use instead, while what comes before it is computed.
 * Local, all. */
#ifndef ESPL_PLAN_TIMELINE_H
#define ESPL_PLAN_TIMELINE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct espl_event {
    double seconds;
    int bucket;     /* complete behind this; -1: none */
    double exposed; /* seconds of gathering weights that this waits for */
    double fetch;   /* seconds of gathering weights for later that begins before this; 0: none does */
    double next;    /* the same of the first weights of the step's next micro-batch */
    bool arrives;   /* what was fetched before is waited for before this */
} espl_event;

typedef struct espl_bucket_times {
    double sum, gather, update; /* seconds; 0: takes no part */
    int first;                  /* event that uses what is gathered of its weights first */
} espl_bucket_times;

typedef struct espl_timeline {
    const espl_event *events; /* of a micro-batch; borrowed */
    int n_events;
    int64_t micro_batches;            /* of a rank */
    double data, merge;               /* seconds before and behind each micro-batch: reading it; adding it to others (tree) */
    const espl_bucket_times *buckets; /* borrowed */
    int n_buckets;
    bool hidden;     /* sums and gathers run beside compute; else they take its place */
    bool replicated; /* the sums are gathered, before the update, and not the weights */
    bool ahead;      /* what micro-batches expose comes ahead (`next`), but that of a step's first */
    bool flows;      /* sums in every micro-batch, each after the one before it is done (run.sharding: gradients) */
    double agree;    /* seconds */
} espl_timeline;

/* Seconds; they add up to `step`. waits: sums that nothing hid; gathers: the same of what is gathered. */
typedef struct espl_step_times {
    double data, compute, waits, agree, update, gathers, step;
    double sums, all_gathers; /* how long sums and gathers took, hidden or not */
} espl_step_times;

/* A step in which compute takes `slowest` times as long as planned: that of the slowest rank, for which all others wait. */
espl_step_times espl_timeline_step(const espl_timeline *timeline, double slowest);

/* How ranks differ from step to step: normally distributed with deviation `jitter`, as a share; and with a chance of `stragglers` a rank
 * takes twice as long. */
typedef struct espl_unevenness {
    double jitter, stragglers;
    uint64_t seed;
} espl_unevenness;

/* The factor of the slowest of `ranks` ranks in a step; at least that of the mean rank, 1. Pure: the same for the same arguments. */
double espl_unevenness_slowest(const espl_unevenness *uneven, int64_t step, int ranks);

/* Mean over `steps` simulated steps; *late: seconds that 95 % of them stay under. steps at most 10,000. */
espl_step_times espl_timeline_simulate(const espl_timeline *timeline, const espl_unevenness *uneven, int ranks, int steps, double *late);

#endif
