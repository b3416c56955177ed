#include "comm/reducer.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 40 }; /* of the stack: more micro-batches than 2^40 are none */

struct espl_reducer {
    espl_reducer_plan plan;
    espl_comm *comm;
    float *gradients;
    float *stack[MAX_DEPTH]; /* finished left siblings, each as long as the gradients, or as this rank's shards of them */
    int max_depth, depth;
    const size_t *places, *stages; /* sharded: [n_buckets] bytes */
    int64_t pending;               /* sharded: the bucket whose sum is under way, -1 none, and the leaf that its shard is */
    int pending_depth, pending_merges;
    float *stage;          /* where the parts of other ranks arrive */
    int64_t stage_divisor; /* a bucket's staging starts at offset / stage_divisor */
    espl_exchange exchange;
    int64_t micro; /* the one under way; -1 between steps */
    int64_t n_started, n_used;
    espl_request *requests;            /* [n_buckets] */
    bool *started, *used;              /* [n_buckets] */
    bool timed;                        /* the first bucket of the step was started */
    double busy_before, waited_before; /* the comm's clocks when the first bucket of the step was started */
    double hidden, waited;
};

/* How many nodes of the tree over [0, m) end with leaf i: how many merges its arrival allows. */
static int merges_after(int64_t m, int64_t i) {
    int64_t a = 0, b = m;
    int merges = 0;
    while (b - a > 1) {
        int64_t mid = a + (b - a) / 2;
        if (i >= mid) {
            a = mid;
            merges++;
        } else {
            b = mid;
            merges = 0;
        }
    }
    return merges;
}

/* How many of these leaf i makes; of a chain each but the first ends the node of those before it. */
static int leaf_merges(const espl_reducer_plan *plan, int64_t i) { return plan->tree ? merges_after(plan->n_local, i) : i > 0; }

/* Sharded, the last leaf comes onto the stack like the others. */
static int deepest_stack(const espl_reducer_plan *plan) {
    int deepest = plan->sharded, depth = 0;
    for (int64_t i = 0; plan->tree && i + 1 < plan->n_local; i++) {
        depth += 1 - leaf_merges(plan, i);
        deepest = depth > deepest ? depth : deepest;
    }
    ESPL_ASSERT(deepest <= MAX_DEPTH, "a stack of %d", deepest);
    return deepest;
}

/* Of a shard, at a time: whole units, at least one, and no more than the largest bucket has. */
static int64_t exchange_piece(const espl_reducer_plan *plan) {
    const int64_t chunk = plan->chunk > 0 ? plan->chunk : espl_reducer_chunk(plan->size);
    int64_t piece = chunk / plan->size / ESPL_SHARD_UNIT * ESPL_SHARD_UNIT, largest = ESPL_SHARD_UNIT;
    for (int64_t i = 0; i < plan->n_buckets; i++)
        if (plan->buckets[i].n / plan->size > largest)
            largest = plan->buckets[i].n / plan->size;
    piece = piece > ESPL_SHARD_UNIT ? piece : ESPL_SHARD_UNIT;
    return piece < largest ? piece : largest;
}

static void take_exchange(espl_reducer *reducer, espl_arena *arena) {
    const espl_reducer_plan *plan = &reducer->plan;
    espl_exchange *exchange = &reducer->exchange;
    exchange->piece = exchange_piece(plan);
    exchange->round = plan->round_parts;
    exchange->add = plan->add_parts;
    const size_t bytes = (size_t)exchange->piece * (size_t)plan->size * sizeof(espl_bf16);
    exchange->outgoing = espl_arena_take(arena, bytes);
    exchange->incoming = espl_arena_take(arena, bytes);
}

/* A bucket's place on the stack is free once the bucket is merged, so a tree needs staging of its own only when there is no stack. */
static void take_memory(espl_reducer *reducer, espl_arena *arena) {
    const espl_reducer_plan *plan = &reducer->plan;
    const size_t bytes = (size_t)espl_shard_extent(plan->buckets, plan->n_buckets) * sizeof(float);
    if (plan->narrow && plan->size > 1)
        take_exchange(reducer, arena);
    if (plan->narrow && !plan->sharded)
        return;
    reducer->max_depth = deepest_stack(plan);
    reducer->stage_divisor = plan->tree ? 1 : plan->size;
    for (int i = 0; i < reducer->max_depth; i++)
        reducer->stack[i] = espl_arena_take(arena, plan->sharded ? bytes / (size_t)plan->size : bytes);
    if (plan->sharded)
        return;
    if (plan->size > 1 && reducer->max_depth == 0)
        reducer->stage = espl_arena_take(arena, bytes / (size_t)reducer->stage_divisor);
    else
        reducer->stage = reducer->stack[0];
}

static espl_status check_plan(const espl_reducer_plan *plan) {
    ESPL_ASSERT(plan->n_buckets <= ESPL_MAX_REQUESTS, "%lld buckets", (long long)plan->n_buckets);
    ESPL_ASSERT(!(plan->narrow && plan->tree), "a tree in bf16");
    ESPL_ASSERT(!(plan->sharded && plan->replicated), "shards alone, and all of them");
    ESPL_ASSERT(!(plan->sharded && plan->tree && (plan->n_local & (plan->n_local - 1)) != 0), "a tree over %lld rounds",
                (long long)plan->n_local);
    ESPL_ASSERT(plan->n_local > 0, "%lld micro-batches a rank", (long long)plan->n_local);
    for (int64_t i = 0; i < plan->n_buckets; i++)
        ESPL_ASSERT(plan->buckets[i].n == espl_shard_pad(plan->buckets[i].n, plan->size) && plan->buckets[i].offset % plan->size == 0,
                    "bucket %lld (%lld elements at %lld) does not shard over %d ranks", (long long)i, (long long)plan->buckets[i].n,
                    (long long)plan->buckets[i].offset, plan->size);
    if (plan->tree && (plan->size & (plan->size - 1)) != 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.reduction: tree needs 1, 2, 4, 8, ... ranks, not %d; start another number, or set run.reduction: fast", plan->size);
    return ESPL_OK;
}

espl_status espl_reducer_make(const espl_reducer_plan *plan, espl_comm *comm, float *gradients, espl_arena *arena, espl_reducer **made) {
    *made = NULL;
    ESPL_TRY(check_plan(plan));
    espl_reducer *reducer = espl_calloc(1, sizeof *reducer);
    reducer->plan = *plan;
    reducer->comm = comm;
    reducer->gradients = gradients;
    reducer->micro = reducer->pending = -1;
    reducer->requests = espl_calloc((size_t)plan->n_buckets, sizeof *reducer->requests);
    reducer->started = espl_calloc((size_t)plan->n_buckets, sizeof *reducer->started);
    reducer->used = espl_malloc((size_t)plan->n_buckets * sizeof *reducer->used);
    reducer->n_used = plan->n_buckets;
    for (int64_t b = 0; b < plan->n_buckets; b++)
        reducer->used[b] = true;
    take_memory(reducer, arena);
    *made = reducer;
    return ESPL_OK;
}

void espl_reducer_use(espl_reducer *reducer, const bool *buckets) {
    ESPL_ASSERT(reducer->micro == -1, "the buckets change during micro-batch %lld", (long long)reducer->micro);
    reducer->n_used = 0;
    for (int64_t b = 0; b < reducer->plan.n_buckets; b++)
        reducer->n_used += reducer->used[b] = buckets[b];
}

void espl_reducer_place(espl_reducer *reducer, const size_t *gradients, const size_t *stages) {
    ESPL_ASSERT(reducer->micro == -1 && reducer->plan.sharded, "buckets move during micro-batch %lld", (long long)reducer->micro);
    reducer->places = gradients;
    reducer->stages = stages;
}

bool espl_reducer_accumulates(const espl_reducer *reducer, int64_t i) { return !reducer->plan.tree && !reducer->plan.sharded && i > 0; }

void espl_reducer_begin(espl_reducer *reducer, int64_t i) {
    ESPL_ASSERT(i == reducer->micro + 1 && i < reducer->plan.n_local, "micro-batch %lld after %lld of %lld", (long long)i,
                (long long)reducer->micro, (long long)reducer->plan.n_local);
    reducer->micro = i;
}

static void add_bucket(espl_reducer *reducer, float *to, const float *from, const espl_bucket *bucket) {
    reducer->plan.add(to + bucket->offset, from + bucket->offset, bucket->n);
}

/* The last leaf ends every open node: the whole stack is merged into it, from the top. */
static void merge_stack(espl_reducer *reducer, const espl_bucket *bucket) {
    for (int i = reducer->depth - 1; i >= 0; i--)
        add_bucket(reducer, reducer->gradients, reducer->stack[i], bucket);
}

void espl_reducer_merge(espl_reducer *reducer, int64_t b) {
    ESPL_ASSERT(reducer->micro == reducer->plan.n_local - 1 && !reducer->plan.sharded, "bucket %lld is merged in micro-batch %lld",
                (long long)b, (long long)reducer->micro);
    merge_stack(reducer, &reducer->plan.buckets[b]);
}

static espl_status start_sum(espl_reducer *reducer, const espl_bucket *bucket, float *data, float *stage, espl_request *request) {
    if (reducer->plan.narrow)
        return espl_comm_exchange_start(reducer->comm, &reducer->exchange, data, (size_t)bucket->n, request);
    return espl_comm_reduce_scatter_start(reducer->comm, data, stage, (size_t)bucket->n, reducer->plan.tree, request);
}

/* A leaf that ends no node waits on the stack; else it joins its left sibling there, and that node its own, as far as nodes end. `at`, n:
 * where its bucket is in each of the stack's copies. */
static void push_leaf(espl_reducer *reducer, const float *leaf, int64_t at, int64_t n, int depth, int merges) {
    int top = depth - 1;
    if (merges == 0)
        reducer->plan.copy(reducer->stack[top + 1] + at, leaf, (size_t)n * sizeof *leaf);
    else
        reducer->plan.add(reducer->stack[top] + at, leaf, n);
    for (int i = 1; i < merges; i++, top--)
        reducer->plan.add(reducer->stack[top - 1] + at, reducer->stack[top] + at, n);
}

static float *sharded_data(const espl_reducer *reducer, int64_t b) { return (float *)((char *)reducer->gradients + reducer->places[b]); }

espl_status espl_reducer_settle(espl_reducer *reducer) {
    const espl_reducer_plan *plan = &reducer->plan;
    const int64_t b = reducer->pending;
    if (b < 0)
        return ESPL_OK;
    const int64_t shard = plan->buckets[b].n / plan->size;
    reducer->pending = -1;
    ESPL_TRY(espl_comm_wait(reducer->comm, reducer->requests[b]));
    push_leaf(reducer, sharded_data(reducer, b) + plan->rank * shard, plan->buckets[b].offset / plan->size, shard, reducer->pending_depth,
              reducer->pending_merges);
    return ESPL_OK;
}

static espl_status start_sharded(espl_reducer *reducer, int64_t b) {
    ESPL_TRY(espl_reducer_settle(reducer));
    reducer->pending = b;
    reducer->pending_depth = reducer->depth;
    reducer->pending_merges = leaf_merges(&reducer->plan, reducer->micro);
    return start_sum(reducer, &reducer->plan.buckets[b], sharded_data(reducer, b),
                     (float *)((char *)reducer->gradients + reducer->stages[b]), &reducer->requests[b]);
}

espl_status espl_reducer_start(espl_reducer *reducer, int64_t b) {
    const espl_reducer_plan *plan = &reducer->plan;
    const espl_bucket *bucket = &plan->buckets[b];
    ESPL_ASSERT((plan->sharded || reducer->micro == plan->n_local - 1) && reducer->used[b] && !reducer->started[b],
                "bucket %lld is summed in micro-batch %lld", (long long)b, (long long)reducer->micro);
    if (!reducer->timed) {
        reducer->timed = true;
        reducer->busy_before = espl_comm_busy_seconds(reducer->comm);
        reducer->waited_before = espl_comm_wait_seconds(reducer->comm);
    }
    reducer->n_started++;
    reducer->started[b] = true;
    if (plan->sharded)
        return start_sharded(reducer, b);
    float *stage = reducer->stage != NULL ? reducer->stage + bucket->offset / reducer->stage_divisor : NULL;
    return start_sum(reducer, bucket, reducer->gradients + bucket->offset, stage, &reducer->requests[b]);
}

static void check_all_started(const espl_reducer *reducer) {
    ESPL_ASSERT(reducer->n_started == reducer->n_used, "%lld of %lld buckets are started", (long long)reducer->n_started,
                (long long)reducer->n_used);
}

static void none_started(espl_reducer *reducer) {
    reducer->n_started = 0;
    memset(reducer->started, 0, (size_t)reducer->plan.n_buckets * sizeof *reducer->started);
}

void espl_reducer_done(espl_reducer *reducer, int64_t i) {
    const espl_reducer_plan *plan = &reducer->plan;
    ESPL_ASSERT(i == reducer->micro, "micro-batch %lld is done during %lld", (long long)i, (long long)reducer->micro);
    if (i == plan->n_local - 1 || (!plan->tree && !plan->sharded))
        return;
    const int merges = leaf_merges(plan, i);
    for (int64_t b = 0; b < plan->n_buckets && !plan->sharded; b++)
        if (reducer->used[b])
            push_leaf(reducer, reducer->gradients + plan->buckets[b].offset, plan->buckets[b].offset, plan->buckets[b].n, reducer->depth,
                      merges);
    reducer->depth += 1 - merges;
    if (plan->sharded) {
        check_all_started(reducer);
        none_started(reducer);
    }
}

static espl_status wait_all(espl_reducer *reducer) {
    for (int64_t b = 0; b < reducer->plan.n_buckets; b++)
        if (reducer->used[b])
            ESPL_TRY(espl_comm_wait(reducer->comm, reducer->requests[b]));
    return ESPL_OK;
}

static espl_status gather_all(espl_reducer *reducer) {
    for (int64_t b = 0; b < reducer->plan.n_buckets; b++) {
        const espl_bucket *bucket = &reducer->plan.buckets[b];
        if (!reducer->used[b])
            continue;
        ESPL_TRY(espl_comm_allgather_start(reducer->comm, reducer->gradients + bucket->offset, (size_t)bucket->n * sizeof(float),
                                           &reducer->requests[b]));
    }
    return wait_all(reducer);
}

static void end_step(espl_reducer *reducer) {
    double busy = espl_comm_busy_seconds(reducer->comm) - reducer->busy_before;
    double waited = espl_comm_wait_seconds(reducer->comm) - reducer->waited_before;
    reducer->hidden += busy > waited ? busy - waited : 0;
    reducer->waited += waited;
    reducer->micro = -1;
    reducer->depth = 0;
    reducer->timed = false;
    none_started(reducer);
}

espl_status espl_reducer_finish(espl_reducer *reducer) {
    check_all_started(reducer);
    espl_comm_point(reducer->comm, "sum of gradients over ranks");
    ESPL_TRY(reducer->plan.sharded ? espl_reducer_settle(reducer) : wait_all(reducer));
    if (reducer->plan.replicated)
        ESPL_TRY(gather_all(reducer));
    end_step(reducer);
    return ESPL_OK;
}

float *espl_reducer_sums(const espl_reducer *reducer) { return reducer->plan.sharded ? reducer->stack[0] : reducer->gradients; }

void espl_reducer_overlap(const espl_reducer *reducer, double *hidden, double *waited) {
    *hidden = reducer->hidden;
    *waited = reducer->waited;
}

void espl_reducer_free(espl_reducer **address) {
    espl_reducer *reducer = *address;
    *address = NULL;
    if (reducer == NULL)
        return;
    free(reducer->requests);
    free(reducer->started);
    free(reducer->used);
    free(reducer);
}
