/* Bulk operations by NCCL, on the communication stream: part of the backend libraries (kernels/cuda/CMakeLists.txt).
 *
 * The communicator is non-blocking: every call of NCCL may return before it is done, and is asked after until it is, so that a rank that
 * never comes is a message after a deadline and not a hang. Once an operation is on the stream the host goes on; what fails later is found
 * by `progress`, by whoever waits for the device (espl__cuda_while_waiting), or by the watchdog.
 *   fast    ncclReduceScatter in place
 *   tree    every rank sends shard q to rank q; each adds the parts of its own shard in the order of the fixed binary tree
 *   exchange  every rank rounds its parts to bf16 and sends that of shard q to rank q; each adds those of its own shard in the order of the
 *           ranks, piece after piece: ncclReduceScatter in bf16 would round each partial sum
 *   gather  ncclAllGather in place
 * Over several groups of ranks each group has a communicator, and so have the ranks in one place of all groups: a sum goes on from the one
 * to the other, with ncclAllReduce (fast), or as the same tree and ncclAllGather. */
#include "kernels/cuda/entries.h"
#include "kernels/cuda/parts.h"
#include "kernels/cuda/tree_sum.h"

#include "comm/bulk.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <nccl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(ncclUniqueId) <= ESPL_BULK_IDENTITY, "NCCL's identity has grown");
_Static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 18, 0), "NCCL 2.18 or newer is needed");

/* An operation may take so long to be put on the stream: the first between two ranks makes their connection. */
#define LAUNCH_SECONDS 120.0
#define CLOSE_SECONDS 10.0

typedef enum state { UNUSED, UNDER_WAY, WAITED_FOR } state;

/* From start to done on the communication stream; compute waited for it from idle to awake. */
typedef struct operation {
    state state;
    cudaEvent_t start, done, idle, awake;
} operation;

/* A communicator; comm NULL: not yet, or one rank alone. */
typedef struct team {
    ncclComm_t comm;
    int rank, size;
} team;

typedef struct registered {
    const team *team;
    char *data;
    size_t bytes;
    void *handle;
} registered;

struct espl_bulk {
    espl_device *device;
    espl_bulk_team asked[2]; /* bulk.h */
    team inside, across;     /* of a group; of those in our place of all groups */
    team *now;               /* of what was begun last */
    atomic_bool aborted;
    bool whole;                 /* all ranks are in it, and nothing has failed */
    _Atomic(const char *) name; /* of what was begun last; the watchdog reads these three */
    _Atomic size_t bytes;
    atomic_long number;
    operation operations[ESPL_MAX_REQUESTS];
    registered *registered;
    int n_registered;
    double busy_ms, exposed_ms;
    int64_t bytes_sent;
};

static const char *bulk_name(void) {
    static char name[32];
    int version = 0;
    ncclGetVersion(&version);
    snprintf(name, sizeof name, "NCCL %d.%d.%d", version / 10000, version / 100 % 100, version % 100);
    return name;
}

const char *espl__cuda_bulk_version(void) { return bulk_name(); }

/* ---- What is under way, and failures. */

static void begin(espl_bulk *bulk, const char *name, size_t bytes) {
    atomic_store(&bulk->name, name);
    atomic_store(&bulk->bytes, bytes);
    atomic_fetch_add(&bulk->number, 1);
}

static void nccl_describe(const espl_bulk *bulk, char *text, size_t room) {
    const size_t bytes = atomic_load(&bulk->bytes);
    snprintf(text, room, bytes > 0 ? "%s of %.3f MiB, number %ld of NCCL's operations" : "%s", atomic_load(&bulk->name),
             (double)bytes / 1048576.0, atomic_load(&bulk->number));
}

static espl_status fail(espl_bulk *bulk, ncclResult_t error) {
    const char *more = ncclGetLastError(bulk->now->comm);
    char what[160];
    nccl_describe(bulk, what, sizeof what);
    bulk->whole = false;
    ESPL_FAIL(ESPL_ERR_IO,
              "NCCL failed on rank %d of %d in %s: %s%s%s; the job cannot go on, see the messages of other ranks (NCCL_DEBUG=INFO says "
              "more)",
              bulk->now->rank, bulk->now->size, what, ncclGetErrorString(error), more != NULL && more[0] != '\0' ? ": " : "",
              more != NULL ? more : "");
}

static espl_status check_aborted(const espl_bulk *bulk) {
    if (atomic_load(&bulk->aborted))
        ESPL_FAIL(ESPL_ERR_IO, "NCCL was ended by the watchdog in %s", atomic_load(&bulk->name));
    return ESPL_OK;
}

/* Asks until the call whose result is `result` is done, or the time is over. */
static ncclResult_t ask(espl_bulk *bulk, ncclResult_t result, double seconds) {
    const double until = espl_now() + seconds;
    while (result == ncclInProgress && !atomic_load(&bulk->aborted) && espl_now() < until) {
        sched_yield();
        ncclResult_t asked = ncclCommGetAsyncError(bulk->now->comm, &result);
        if (asked != ncclSuccess)
            result = asked;
    }
    return result;
}

static espl_status settle(espl_bulk *bulk, ncclResult_t result) {
    result = ask(bulk, result, LAUNCH_SECONDS);
    ESPL_TRY(check_aborted(bulk));
    if (result == ncclInProgress) {
        bulk->whole = false;
        ESPL_FAIL(ESPL_ERR_IO,
                  "rank %d of %d waited %.0f s for the other ranks in NCCL's %s; a rank hangs, or the network (NCCL_DEBUG=INFO)",
                  bulk->now->rank, bulk->now->size, LAUNCH_SECONDS, atomic_load(&bulk->name));
    }
    return result == ncclSuccess ? ESPL_OK : fail(bulk, result);
}

/* How a communicator is. Not for the watchdog's thread: the call ends launches, too, and is made for one thread at a time. */
static espl_status ask_once(espl_bulk *bulk, team *team, ncclResult_t *result) {
    ESPL_TRY(check_aborted(bulk));
    ncclResult_t asked = ncclCommGetAsyncError(team->comm, result);
    if (asked != ncclSuccess)
        *result = asked;
    if (*result == ncclSuccess || *result == ncclInProgress)
        return ESPL_OK;
    bulk->now = team;
    return fail(bulk, *result);
}

static espl_status nccl_progress(espl_bulk *bulk) {
    ncclResult_t result = ncclSuccess;
    if (bulk->across.comm != NULL)
        ESPL_TRY(ask_once(bulk, &bulk->across, &result));
    return ask_once(bulk, &bulk->inside, &result);
}

static espl_status look(void *state) { return nccl_progress(state); }

/* ---- Opening and closing. */

static espl_status nccl_identity(void *identity) {
    ncclUniqueId id;
    ncclResult_t error = ncclGetUniqueId(&id);
    if (error != ncclSuccess)
        ESPL_FAIL(ESPL_ERR_IO, "NCCL cannot begin: %s: %s (NCCL_SOCKET_IFNAME chooses the network interface)", ncclGetErrorString(error),
                  ncclGetLastError(NULL));
    memset(identity, 0, ESPL_BULK_IDENTITY);
    memcpy(identity, &id, sizeof id);
    return ESPL_OK;
}

static void nccl_abort(espl_bulk *bulk) {
    if (atomic_exchange(&bulk->aborted, true))
        return;
    if (bulk->inside.comm != NULL)
        ncclCommAbort(bulk->inside.comm);
    if (bulk->across.comm != NULL)
        ncclCommAbort(bulk->across.comm);
}

static void forget_registered(espl_bulk *bulk) {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 19, 0)
    for (int i = 0; i < bulk->n_registered; i++)
        if (bulk->whole)
            ncclCommDeregister(bulk->registered[i].team->comm, bulk->registered[i].handle);
#endif
    free(bulk->registered);
}

static bool finalize(espl_bulk *bulk, team *team) {
    bulk->now = team;
    if (team->comm == NULL)
        return true;
    if (ask(bulk, ncclCommFinalize(team->comm), CLOSE_SECONDS) != ncclSuccess)
        return false;
    ncclCommDestroy(team->comm);
    team->comm = NULL;
    return true;
}

/* In peace with all ranks; a communicator that has failed, or whose ranks do not come, is torn down alone. */
static void leave(espl_bulk *bulk) {
    if (!bulk->whole || !finalize(bulk, &bulk->across) || !finalize(bulk, &bulk->inside))
        nccl_abort(bulk);
}

static void nccl_close(espl_bulk **address) {
    espl_bulk *bulk = *address;
    *address = NULL;
    if (bulk == NULL)
        return;
    espl__cuda_while_waiting(bulk->device, NULL, NULL);
    forget_registered(bulk);
    if (!atomic_load(&bulk->aborted))
        leave(bulk);
    for (int i = 0; i < ESPL_MAX_REQUESTS; i++) {
        cudaEvent_t events[] = {bulk->operations[i].start, bulk->operations[i].done, bulk->operations[i].idle, bulk->operations[i].awake};
        for (int e = 0; e < 4; e++)
            if (events[e] != NULL)
                cudaEventDestroy(events[e]);
    }
    free(bulk);
}

static espl_status join(espl_bulk *bulk, team *team, const espl_bulk_team *asked) {
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    memcpy(&id, asked->identity, sizeof id);
    *team = (struct team){.rank = asked->rank, .size = asked->size};
    bulk->now = team;
    ncclResult_t result = ncclCommInitRankConfig(&team->comm, team->size, id, team->rank, &config);
    return result == ncclSuccess || result == ncclInProgress ? ESPL_OK : fail(bulk, result);
}

static espl_status nccl_open(void *device, const espl_bulk_team teams[2], espl_bulk **opened) {
    espl_bulk *bulk = espl_calloc(1, sizeof *bulk);
    *bulk = (espl_bulk){.device = device, .name = "start", .asked = {teams[0], teams[1]}};
    *opened = bulk;
    espl_status status = join(bulk, &bulk->inside, &bulk->asked[0]);
    if (status != ESPL_OK)
        nccl_close(opened);
    return status;
}

/* One communicator after the other. */
static espl_status nccl_joined(espl_bulk *bulk, bool *all) {
    ncclResult_t result = ncclInProgress;
    *all = false;
    ESPL_TRY(ask_once(bulk, bulk->now, &result));
    if (result == ncclInProgress)
        return ESPL_OK;
    if (bulk->now == &bulk->inside && bulk->asked[1].size > 1)
        return join(bulk, &bulk->across, &bulk->asked[1]);
    *all = bulk->whole = true;
    espl__cuda_while_waiting(bulk->device, look, bulk);
    return ESPL_OK;
}

/* ---- Times. What is done is counted and its place is free; nothing is waited for. */

static espl_status count_done(espl_bulk *bulk, operation *o) {
    float busy, exposed;
    if (o->state != WAITED_FOR || !espl__cuda_reached(o->awake))
        return ESPL_OK;
    ESPL__CUDA(cudaEventElapsedTime(&busy, o->start, o->done));
    ESPL__CUDA(cudaEventElapsedTime(&exposed, o->idle, o->awake));
    bulk->busy_ms += (double)busy;
    bulk->exposed_ms += (double)exposed;
    o->state = UNUSED;
    return ESPL_OK;
}

static espl_status nccl_timings(espl_bulk *bulk, double *busy_ms, double *exposed_ms) {
    for (int i = 0; i < ESPL_MAX_REQUESTS; i++)
        ESPL_TRY(count_done(bulk, &bulk->operations[i]));
    *busy_ms = bulk->busy_ms;
    *exposed_ms = bulk->exposed_ms;
    return ESPL_OK;
}

/* ---- Operations. */

/* A place nobody uses; else one whose time is not counted yet is taken, and its time is lost. */
static espl_request free_place(espl_bulk *bulk) {
    espl_request uncounted = -1;
    for (int i = 0; i < ESPL_MAX_REQUESTS; i++) {
        if (bulk->operations[i].state == UNUSED)
            return i;
        if (bulk->operations[i].state == WAITED_FOR)
            uncounted = i;
    }
    ESPL_ASSERT(uncounted >= 0, "more than %d bulk operations under way", ESPL_MAX_REQUESTS);
    return uncounted;
}

static espl_status make_events(operation *o) {
    if (o->start != NULL)
        return ESPL_OK;
    ESPL__CUDA(cudaEventCreate(&o->start));
    ESPL__CUDA(cudaEventCreate(&o->done));
    ESPL__CUDA(cudaEventCreate(&o->idle));
    ESPL__CUDA(cudaEventCreate(&o->awake));
    return ESPL_OK;
}

/* Memory that NCCL knows can be sent from and received into without a copy. The same arrays come again every step, so they are registered
 * when they are first seen, and given back before the device frees them. */
static espl_status know(espl_bulk *bulk, team *team, void *data, size_t bytes) {
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 19, 0)
    for (int i = 0; i < bulk->n_registered; i++)
        if (bulk->registered[i].team == team && bulk->registered[i].data == (char *)data && bulk->registered[i].bytes == bytes)
            return ESPL_OK;
    void *handle = NULL;
    ESPL_TRY(check_aborted(bulk));
    begin(bulk, "registering memory", bytes);
    bulk->now = team;
    ESPL_TRY(settle(bulk, ncclCommRegister(team->comm, data, bytes, &handle)));
    bulk->registered = espl_realloc(bulk->registered, (size_t)(bulk->n_registered + 1) * sizeof *bulk->registered);
    bulk->registered[bulk->n_registered++] = (registered){.team = team, .data = data, .bytes = bytes, .handle = handle};
#else
    (void)bulk, (void)team, (void)data, (void)bytes;
#endif
    return ESPL_OK;
}

/* Of the group. */
static espl_status start(espl_bulk *bulk, const char *name, size_t bytes, espl_request *request) {
    ESPL_TRY(check_aborted(bulk));
    *request = -1;
    bulk->now = &bulk->inside;
    begin(bulk, name, bytes);
    int place = free_place(bulk);
    operation *o = &bulk->operations[place];
    ESPL_TRY(count_done(bulk, o));
    ESPL_TRY(make_events(o));
    ESPL_TRY(espl__cuda_follow(bulk->device, bulk->device->communication));
    ESPL__CUDA(cudaEventRecord(o->start, bulk->device->communication));
    o->state = UNDER_WAY;
    *request = place;
    return ESPL_OK;
}

static espl_status finish_start(espl_bulk *bulk, espl_request request) {
    ESPL__CUDA(cudaEventRecord(bulk->operations[request].done, bulk->device->communication));
    return ESPL_OK;
}

static void count_sent(espl_bulk *bulk, size_t bytes_to_each) { bulk->bytes_sent += (int64_t)bytes_to_each * (bulk->now->size - 1); }

/* n elements at out + q * stride to every other rank q, and as many from it to in + q * stride. */
typedef struct swap {
    const void *out;
    void *in;
    size_t stride, n;
    ncclDataType_t type;
    size_t element;
} swap;

static ncclResult_t swap_parts(espl_bulk *bulk, const swap *s) {
    const team *t = bulk->now;
    ncclResult_t error = ncclGroupStart();
    for (int i = 1; i < t->size && error == ncclSuccess; i++) {
        const int to = (t->rank + i) % t->size, from = (t->rank + t->size - i) % t->size;
        const char *out = (const char *)s->out + (size_t)to * s->stride * s->element;
        char *in = (char *)s->in + (size_t)from * s->stride * s->element;
        error = ncclSend(out, s->n, s->type, to, t->comm, bulk->device->communication);
        if (error == ncclSuccess)
            error = ncclRecv(in, s->n, s->type, from, t->comm, bulk->device->communication);
    }
    count_sent(bulk, s->n * s->element);
    ncclResult_t ended = ncclGroupEnd();
    return error == ncclSuccess ? ended : error;
}

static float *own_shard(const espl_bulk *bulk, float *data, size_t shard) { return data + (size_t)bulk->now->rank * shard; }

static espl_status tree_sum(espl_bulk *bulk, float *data, float *stage, size_t shard) {
    const swap s = {data, stage, shard, shard, ncclFloat32, sizeof *data};
    ESPL_TRY(settle(bulk, swap_parts(bulk, &s)));
    espl__cuda_tree_sum(own_shard(bulk, data, shard), stage, (int64_t)shard, bulk->now->rank, bulk->now->size, bulk->device->communication);
    return ESPL_OK;
}

static espl_status fast_sum(espl_bulk *bulk, float *data, size_t shard) {
    count_sent(bulk, shard * sizeof *data);
    return settle(bulk, ncclReduceScatter(data, own_shard(bulk, data, shard), shard, ncclFloat32, ncclSum, bulk->now->comm,
                                          bulk->device->communication));
}

static espl_status gather_shards(espl_bulk *bulk, void *data, size_t shard) {
    const char *own = (const char *)data + (size_t)bulk->now->rank * shard;
    count_sent(bulk, shard);
    return settle(bulk, ncclAllGather(own, data, shard, ncclUint8, bulk->now->comm, bulk->device->communication));
}

/* The sum over the groups, of n elements that each rank in our place has the group's sum of. What an all-reduce sends depends on the
 * library; counted is what a ring does. */
static espl_status sum_across(espl_bulk *bulk, float *data, float *stage, size_t n, int tree) {
    const size_t shard = n / (size_t)bulk->across.size;
    bulk->now = &bulk->across;
    if (tree) {
        ESPL_TRY(tree_sum(bulk, data, stage, shard));
        return gather_shards(bulk, data, shard * sizeof *data);
    }
    count_sent(bulk, 2 * shard * sizeof *data);
    return settle(bulk, ncclAllReduce(data, data, n, ncclFloat32, ncclSum, bulk->now->comm, bulk->device->communication));
}

static espl_status know_sum(espl_bulk *bulk, team *team, float *data, float *stage, size_t n, int tree) {
    ESPL_TRY(know(bulk, team, data, n * sizeof *data));
    return tree ? know(bulk, team, stage, n * sizeof *stage) : ESPL_OK;
}

static espl_status nccl_reduce_scatter_start(espl_bulk *bulk, float *data, float *stage, size_t n, int tree, espl_request *request) {
    const size_t shard = n / (size_t)bulk->inside.size;
    const bool groups = bulk->across.comm != NULL;
    *request = -1;
    ESPL_TRY(know_sum(bulk, &bulk->inside, data, stage, n, tree));
    if (groups)
        ESPL_TRY(know_sum(bulk, &bulk->across, data, stage, n, tree));
    ESPL_TRY(start(bulk, tree ? "tree reduce-scatter" : "reduce-scatter", n * sizeof *data, request));
    ESPL_TRY(tree ? tree_sum(bulk, data, stage, shard) : fast_sum(bulk, data, shard));
    if (groups)
        ESPL_TRY(sum_across(bulk, data + (size_t)bulk->inside.rank * shard, stage, shard, tree));
    return finish_start(bulk, *request);
}

static espl_status exchange_piece(espl_bulk *bulk, const espl_exchange *exchange, float *data, int64_t shard, int64_t at) {
    const int64_t piece = exchange->piece, n = shard - at < piece ? shard - at : piece;
    espl_rank_parts parts = {exchange->outgoing, piece, n, bulk->inside.rank, bulk->inside.size};
    const swap s = {exchange->outgoing, exchange->incoming, (size_t)piece, (size_t)n, ncclBfloat16, sizeof(espl_bf16)};
    espl__cuda_round_parts_on(&parts, data + at, shard, bulk->device->communication);
    ESPL_TRY(settle(bulk, swap_parts(bulk, &s)));
    parts.data = exchange->incoming;
    espl__cuda_add_parts_on(data + bulk->inside.rank * shard + at, &parts, bulk->device->communication);
    return ESPL_OK;
}

/* The stage is free for the next piece, and the next exchange, by the order of the stream. */
static espl_status nccl_exchange_start(espl_bulk *bulk, const espl_exchange *exchange, float *data, size_t n, espl_request *request) {
    const int64_t shard = (int64_t)n / bulk->inside.size;
    const size_t stage = (size_t)exchange->piece * (size_t)bulk->inside.size * sizeof(espl_bf16);
    *request = -1;
    ESPL_TRY(know(bulk, &bulk->inside, exchange->outgoing, stage));
    ESPL_TRY(know(bulk, &bulk->inside, exchange->incoming, stage));
    ESPL_TRY(start(bulk, "bf16 reduce-scatter", n * sizeof(espl_bf16), request));
    for (int64_t at = 0; at < shard; at += exchange->piece)
        ESPL_TRY(exchange_piece(bulk, exchange, data, shard, at));
    return finish_start(bulk, *request);
}

static espl_status nccl_allgather_start(espl_bulk *bulk, void *data, size_t bytes, espl_request *request) {
    *request = -1;
    ESPL_TRY(know(bulk, &bulk->inside, data, bytes));
    ESPL_TRY(start(bulk, "all-gather", bytes, request));
    ESPL_TRY(gather_shards(bulk, data, bytes / (size_t)bulk->inside.size));
    return finish_start(bulk, *request);
}

static espl_status nccl_wait(espl_bulk *bulk, espl_request request) {
    if (request < 0)
        return ESPL_OK;
    operation *o = &bulk->operations[request];
    ESPL_ASSERT(o->state == UNDER_WAY, "request %d is not under way", request);
    ESPL__CUDA(cudaEventRecord(o->idle, bulk->device->compute));
    ESPL__CUDA(cudaStreamWaitEvent(bulk->device->compute, o->done, 0));
    ESPL__CUDA(cudaEventRecord(o->awake, bulk->device->compute));
    o->state = WAITED_FOR;
    return nccl_progress(bulk);
}

static int64_t nccl_bytes_sent(const espl_bulk *bulk) { return bulk->bytes_sent; }

const espl_bulk_calls espl__cuda_bulk = {
    .version = bulk_name,
    .identity = nccl_identity,
    .open = nccl_open,
    .joined = nccl_joined,
    .reduce_scatter_start = nccl_reduce_scatter_start,
    .exchange_start = nccl_exchange_start,
    .allgather_start = nccl_allgather_start,
    .progress = nccl_progress,
    .wait = nccl_wait,
    .timings = nccl_timings,
    .bytes_sent = nccl_bytes_sent,
    .describe = nccl_describe,
    .abort = nccl_abort,
    .close = nccl_close,
};
