/* The gradient reducer: sums gradients over micro-batches and ranks while backward still runs.
 *
 * A step, on every rank:
 *
 *     for i = 0 .. n_local-1:  espl_reducer_begin(i);  forward and backward;  espl_reducer_done(i)
 *     in the backward of the last one, as soon as a bucket's gradients are complete: espl_reducer_merge(bucket), then
 *     espl_reducer_start(bucket); between ops: espl_comm_progress
 *     espl_reducer_finish: this rank's shard of each bucket holds the sum over all micro-batches of all ranks
 *
 * fast: backward assigns in micro-batch 0 and adds in the later ones (espl_reducer_accumulates says which); start begins the sum over
 * ranks. tree: backward assigns in every micro-batch. Node [a, b) of the tree over the global micro-batch index [0, n_local * ranks) is [a,
 * mid) + [mid, b), mid = a + (b - a) / 2. Ranks are a power of two, so a rank's micro-batches are exactly one node, and the bits of the
 * result are the same for every such number. Finished left siblings wait on a stack of at most ceil(log2(n_local)) copies of the gradients;
 * the merges of the last micro-batch happen bucket by bucket, so they overlap, too. They are kernels alone, so a device can record them
 * with the tape and start the sums afterwards. narrow: as fast, but what travels is bf16: each rank's sum over its micro-batches is rounded
 * once for each other rank's shard, and the owner of the shard adds in fp32; sums that are handed out (replicated) travel in fp32. One rank
 * sends nothing, rounds nothing and (fast) copies nothing.
 *
 * sharded: a rank keeps no gradients but its shards. The i-th micro-batches of all ranks are summed while backward runs, bucket by bucket:
 *
 *     for i = 0 .. n_local-1:  espl_reducer_begin(i);  forward;  espl_reducer_settle;  backward;  espl_reducer_done(i)
 *     in every backward, as soon as a bucket is complete: espl_reducer_start(bucket), which first settles the one before it
 *
 * Buckets may then share memory (espl_reducer_place). fast adds up the shards of the rounds; tree takes them for leaves of the same tree as
 * above, which they are when rank r of R has micro-batches r, r + R, r + 2 R, ... and n_local is a power of two, too: a round's sum is a
 * node then, and the stack has shards.
 *
 * Where the ranks of the comm are in groups, shards are those of a group's ranks, all groups have the same, and sums go over the whole job.
 * Memory is planned: make runs once with a measuring arena, without a comm. */
#ifndef ESPL_COMM_REDUCER_H
#define ESPL_COMM_REDUCER_H

#include "comm/comm.h"
#include "comm/sharding.h"
#include "src/core/arena.h"

#include <stdbool.h>

typedef struct espl_reducer_plan {
    const espl_bucket *buckets; /* borrowed for the reducer's life; at most ESPL_MAX_REQUESTS */
    int64_t n_buckets;
    int rank, size;  /* in a group of the comm (espl_comm_group): whose ranks have shards */
    int64_t n_local; /* micro-batches of a step on this rank */
    bool tree;
    bool narrow;     /* what travels is bf16; not of a tree */
    int64_t chunk;   /* narrow: elements, of all shards together, that are under way at a time; 0: espl_reducer_chunk */
    bool replicated; /* every rank gets the whole sum, not its shard alone */
    bool sharded;    /* no rank keeps more than its shards; not replicated */
    /* Kernels, handed in because comm knows none: to += from, to = from, and those of espl_exchange. */
    void (*add)(float *to, const float *from, int64_t n);
    void (*copy)(void *to, const void *from, size_t bytes);
    espl_parts_round *round_parts;
    espl_parts_add *add_parts;
} espl_reducer_plan;

/* What narrow sums of so many ranks have under way at a time: a stage of 64 MiB for up to 64 ranks, whose messages are of 16 MiB .. 512
 * KiB; of more 1 MiB a rank, or what the largest bucket takes, so that messages do not become shorter. */
enum { ESPL_REDUCER_CHUNK = 1 << 24, ESPL_REDUCER_MESSAGE = 1 << 18 };

static inline int64_t espl_reducer_chunk(int ranks) {
    const int64_t least = (int64_t)ranks * ESPL_REDUCER_MESSAGE;
    return least > ESPL_REDUCER_CHUNK ? least : ESPL_REDUCER_CHUNK;
}

typedef struct espl_reducer espl_reducer;

/* Local. Takes stack and staging from `arena`. While measuring, comm and gradients are NULL and the reducer can only be freed.
 * gradients: the flat buffer that buckets index. Errors: usage, for a tree over a number of ranks that is no power of two. */
espl_status espl_reducer_make(const espl_reducer_plan *plan, espl_comm *comm, float *gradients, espl_arena *arena, espl_reducer **reducer);

/* Local, between steps. Which buckets [n_buckets] take part from now on; the gradients of the others are neither summed nor moved. All do
 * at first. */
void espl_reducer_use(espl_reducer *reducer, const bool *buckets);

/* Local, between steps, of one that is sharded. Where each bucket's gradients are written, and the stage of its sum, in bytes from
 * `gradients`; borrowed until the next call. */
void espl_reducer_place(espl_reducer *reducer, const size_t *gradients, const size_t *stages);

/* Local. Whether the backward of micro-batch i adds to the gradients (else it assigns). */
bool espl_reducer_accumulates(const espl_reducer *reducer, int64_t i);

/* Local. Micro-batch i = 0, 1, ... of the step begins; 0 begins a step. */
void espl_reducer_begin(espl_reducer *reducer, int64_t i);

/* Collective, of one that is sharded. Waits for the bucket that is under way, if any, and adds its shard to the sums: its memory is free.
 */
espl_status espl_reducer_settle(espl_reducer *reducer);

/* Local, in the last micro-batch, not sharded. All gradients of the bucket are there: adds what waits on the stack to them. */
void espl_reducer_merge(espl_reducer *reducer, int64_t bucket);

/* Collective, in the same order on all ranks, after the bucket's merge: starts the sum over ranks. Sharded: in every micro-batch. */
espl_status espl_reducer_start(espl_reducer *reducer, int64_t bucket);

/* Local. Micro-batch i has finished its backward. */
void espl_reducer_done(espl_reducer *reducer, int64_t i);

/* Collective. Waits for all buckets, every one of which has been started, but for those that take no part. */
espl_status espl_reducer_finish(espl_reducer *reducer);

/* Local. Where the sums are after finish: the flat buffer that buckets index; sharded, the rank's shards alone, each at its bucket's offset
 * / size. */
float *espl_reducer_sums(const espl_reducer *reducer);

/* Local. Seconds since make in which sums were under way behind other work, and seconds spent in finish with nothing else to do. */
void espl_reducer_overlap(const espl_reducer *reducer, double *hidden, double *waited);

/* Local. Takes the address, nulls it, accepts NULL. The arena's memory stays the arena's. */
void espl_reducer_free(espl_reducer **reducer);

/* ---- Spreading updated weights. */

typedef struct espl_gather espl_gather;

/* Local. For weights of `element` bytes laid out as the buckets say; borrowed. */
void espl_gather_make(espl_comm *comm, const espl_bucket *buckets, int64_t n_buckets, void *weights, size_t element, espl_gather **gather);

/* Collective, in the same order on all ranks. This rank's shard of the bucket is up to date: starts spreading it. */
espl_status espl_gather_start(espl_gather *gather, int64_t bucket);

/* Collective. Waits until all of one bucket is there; a bucket that was not started is. */
espl_status espl_gather_wait(espl_gather *gather, int64_t bucket);

/* Collective. Waits for all buckets. */
espl_status espl_gather_finish(espl_gather *gather);

/* Local. Takes the address, nulls it, accepts NULL. */
void espl_gather_free(espl_gather **gather);

/* ---- Weights of which each rank keeps its shards alone: brought together where they are used. */

typedef struct espl_fetcher espl_fetcher;

typedef struct espl_fetcher_plan {
    const espl_bucket *buckets; /* borrowed */
    int64_t n_buckets;
    const void *shards; /* this rank's, each at its bucket's offset / size; borrowed */
    size_t element;     /* bytes */
    void (*copy)(void *to, const void *from, size_t bytes);
} espl_fetcher_plan;

/* Local. */
void espl_fetcher_make(espl_comm *comm, const espl_fetcher_plan *plan, espl_fetcher **fetcher);

/* Collective, in the same order on all ranks. Starts to bring a whole bucket to `to`. */
espl_status espl_fetcher_start(espl_fetcher *fetcher, int64_t bucket, void *to);

/* Collective. Waits until that bucket is there. */
espl_status espl_fetcher_wait(espl_fetcher *fetcher, int64_t bucket);

/* Local. Takes the address, nulls it, accepts NULL. */
void espl_fetcher_free(espl_fetcher **fetcher);

#endif
