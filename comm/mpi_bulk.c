/* Bulk operations over MPI: sums and gathers of big arrays that go on under compute.
 *
 * Each is made of steps of nonblocking messages; espl_comm_progress tests them and starts the next step. Open MPI's own
 * nonblocking reduce-scatter funnels everything through rank 0, so the sums are ours:
 *   ring    step s: rank r sends shard r-s-1 to r+1, receives shard r-s-2 from r-1 and adds it; after size-1 steps shard r is
 *           complete. n (size-1)/size elements a rank, the least possible, and n/size of staging (Patarasuk & Yuan 2009).
 *   tree    every rank sends shard q to rank q at once; when all parts of its own shard are there, a rank adds them in the
 *           order of the fixed binary tree over ranks. The same traffic, n of staging.
 *   exchange  every rank sends its part of shard q, rounded to bf16, to rank q; each adds the parts of its own shard in the order of the
 *           ranks. Half the traffic; in pieces, so that the stage stays small. A ring would round each partial sum anew.
 *   gather  every rank sends its shard to all others at once.
 *
 * Over several groups of ranks a sum has three levels: within the group; of the shard that this leaves with a rank, the same among the
 * ranks in its place of all groups; and a gather of what that leaves with each of them. A stage is used by one level after the other. */
#include "comm/mpi_state.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <sched.h>
#include <string.h>

enum { TAGS = 30000 }; /* below the tag limit that MPI guarantees */

static void add_to(float *restrict to, const float *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

static MPI_Request *next_request(espl__bulk *bulk) {
    if (bulk->n_requests == bulk->room) {
        bulk->room = bulk->room == 0 ? 8 : 2 * bulk->room; /* kept: after the first step of a run nothing is allocated */
        bulk->requests = espl_realloc(bulk->requests, (size_t)bulk->room * sizeof(MPI_Request));
    }
    bulk->requests[bulk->n_requests] = MPI_REQUEST_NULL;
    return &bulk->requests[bulk->n_requests++];
}

static int message_at(size_t bytes, size_t at) {
    size_t left = bytes - at;
    return (int)(left < ESPL__MESSAGE_BYTES ? left : ESPL__MESSAGE_BYTES);
}

/* The i-th partner, 1 .. size - 1, to send to and to receive from: in rotated order, so that no rank is everybody's first. */
static int partner_to(const espl__team *team, int i) { return (team->rank + i) % team->size; }
static int partner_from(const espl__team *team, int i) { return (team->rank + team->size - i) % team->size; }

static int job_rank(const espl__team *team, int rank) { return team->first + rank * team->stride; }

static espl_status post_send(espl_comm *comm, espl__bulk *bulk, const void *data, size_t bytes, int to) {
    espl__mpi *mpi = comm->state;
    for (size_t at = 0; at < bytes; at += ESPL__MESSAGE_BYTES)
        ESPL__MPI(MPI_Isend((const char *)data + at, message_at(bytes, at), MPI_BYTE, job_rank(&bulk->team, to), bulk->tag, mpi->bulk,
                            next_request(bulk)));
    comm->bytes_sent += (int64_t)bytes;
    return ESPL_OK;
}

static espl_status post_receive(espl_comm *comm, espl__bulk *bulk, void *data, size_t bytes, int from) {
    espl__mpi *mpi = comm->state;
    for (size_t at = 0; at < bytes; at += ESPL__MESSAGE_BYTES)
        ESPL__MPI(MPI_Irecv((char *)data + at, message_at(bytes, at), MPI_BYTE, job_rank(&bulk->team, from), bulk->tag, mpi->bulk,
                            next_request(bulk)));
    return ESPL_OK;
}

static char *shard_of(char *base, const espl__bulk *bulk, int rank) { return base + (size_t)rank * bulk->shard; }

/* The shard that rank r receives in step `step` of the ring; it sends the one before. */
static int ring_shard(const espl__team *team, int step) { return (team->rank - step - 2 + 2 * team->size) % team->size; }

static espl_status ring_step(espl_comm *comm, espl__bulk *bulk) {
    const espl__team *team = &bulk->team;
    const char *shard = shard_of(bulk->data, bulk, ring_shard(team, bulk->step - 1));
    ESPL_TRY(post_receive(comm, bulk, bulk->stage, bulk->shard, partner_from(team, 1)));
    return post_send(comm, bulk, shard, bulk->shard, partner_to(team, 1));
}

static espl_status ring_finish_step(espl_comm *comm, espl__bulk *bulk) {
    char *target = shard_of(bulk->data, bulk, ring_shard(&bulk->team, bulk->step));
    add_to((float *)target, (const float *)bulk->stage, bulk->shard / sizeof(float));
    bulk->step++;
    bulk->done = bulk->step == bulk->team.size - 1;
    return bulk->done ? ESPL_OK : ring_step(comm, bulk);
}

/* Where the part of rank q of our shard lies: ours never left data. */
static float *tree_part(const espl__bulk *bulk, int q) {
    return (float *)shard_of(q == bulk->team.rank ? bulk->data : bulk->stage, bulk, q);
}

/* node [q, q + 2 stride) = [q, q + stride) + [q + stride, q + 2 stride), in the place of its left child; in blocks that stay in cache. */
static espl_status tree_finish(espl_comm *comm, espl__bulk *bulk) {
    enum { BLOCK = 1024 };
    const int size = bulk->team.size;
    const size_t n = bulk->shard / sizeof(float);
    float *mine = tree_part(bulk, bulk->team.rank), *root = tree_part(bulk, 0);
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t m = n - at < BLOCK ? n - at : BLOCK;
        for (int stride = 1; stride < size; stride *= 2)
            for (int q = 0; q < size; q += 2 * stride)
                add_to(tree_part(bulk, q) + at, tree_part(bulk, q + stride) + at, m);
        if (root != mine)
            memcpy(mine + at, root + at, m * sizeof(float));
    }
    (void)comm;
    bulk->done = true;
    return ESPL_OK;
}

static espl_status tree_start(espl_comm *comm, espl__bulk *bulk) {
    const espl__team *team = &bulk->team;
    for (int i = 1; i < team->size; i++) {
        int from = partner_from(team, i);
        ESPL_TRY(post_receive(comm, bulk, shard_of(bulk->stage, bulk, from), bulk->shard, from));
    }
    for (int i = 1; i < team->size; i++) {
        int to = partner_to(team, i);
        ESPL_TRY(post_send(comm, bulk, shard_of(bulk->data, bulk, to), bulk->shard, to));
    }
    return ESPL_OK;
}

static espl_rank_parts exchange_parts(const espl__bulk *bulk, espl_bf16 *stage) {
    const int64_t piece = bulk->exchange->piece, left = (int64_t)(bulk->shard / sizeof(float)) - bulk->at;
    return (espl_rank_parts){
        .data = stage, .stride = piece, .n = left < piece ? left : piece, .rank = bulk->team.rank, .size = bulk->team.size};
}

static espl_status exchange_piece(espl_comm *comm, espl__bulk *bulk) {
    const espl_exchange *exchange = bulk->exchange;
    const espl__team *team = &bulk->team;
    const espl_rank_parts parts = exchange_parts(bulk, exchange->outgoing);
    const size_t bytes = (size_t)parts.n * sizeof(espl_bf16);
    exchange->round(&parts, (const float *)bulk->data + bulk->at, (int64_t)(bulk->shard / sizeof(float)));
    for (int i = 1; i < team->size; i++) {
        int from = partner_from(team, i);
        ESPL_TRY(post_receive(comm, bulk, exchange->incoming + from * exchange->piece, bytes, from));
    }
    for (int i = 1; i < team->size; i++) {
        int to = partner_to(team, i);
        ESPL_TRY(post_send(comm, bulk, exchange->outgoing + to * exchange->piece, bytes, to));
    }
    return ESPL_OK;
}

static void exchange_add(espl__bulk *bulk) {
    const espl_rank_parts parts = exchange_parts(bulk, bulk->exchange->incoming);
    bulk->exchange->add((float *)shard_of(bulk->data, bulk, bulk->team.rank) + bulk->at, &parts);
    bulk->at += parts.n;
}

/* All exchanges share one stage, so they take turns, in the order in which all ranks start them. */
static espl_status exchange_step(espl_comm *comm, espl__bulk *bulk) {
    espl__mpi *mpi = comm->state;
    if (bulk->turn != mpi->n_exchanged)
        return ESPL_OK;
    if (bulk->step++ > 0)
        exchange_add(bulk);
    bulk->done = bulk->at == (int64_t)(bulk->shard / sizeof(float));
    if (!bulk->done)
        return exchange_piece(comm, bulk);
    mpi->n_exchanged++;
    return ESPL_OK;
}

static espl_status exchange_start(espl_comm *comm, espl__bulk *bulk) {
    espl__mpi *mpi = comm->state;
    bulk->turn = mpi->n_exchanges++;
    return exchange_step(comm, bulk);
}

static espl_status gather_start(espl_comm *comm, espl__bulk *bulk) {
    const espl__team *team = &bulk->team;
    for (int i = 1; i < team->size; i++) {
        int from = partner_from(team, i);
        ESPL_TRY(post_receive(comm, bulk, shard_of(bulk->data, bulk, from), bulk->shard, from));
    }
    for (int i = 1; i < team->size; i++)
        ESPL_TRY(post_send(comm, bulk, shard_of(bulk->data, bulk, team->rank), bulk->shard, partner_to(team, i)));
    return ESPL_OK;
}

static espl_status gather_finish(espl_comm *comm, espl__bulk *bulk) {
    (void)comm;
    bulk->done = true;
    return ESPL_OK;
}

static const struct {
    espl_status (*start)(espl_comm *comm, espl__bulk *bulk);
    espl_status (*finish_step)(espl_comm *comm, espl__bulk *bulk);
} kinds[] = {
    [ESPL__BULK_RING] = {ring_step, ring_finish_step},
    [ESPL__BULK_TREE] = {tree_start, tree_finish},
    [ESPL__BULK_EXCHANGE] = {exchange_start, exchange_step},
    [ESPL__BULK_GATHER] = {gather_start, gather_finish},
};

/* ---- Levels. */

static espl__team team_of(const espl_ranks *ranks, espl__bulk_level level) {
    if (level == ESPL__BULK_INSIDE)
        return (espl__team){.rank = ranks->place, .size = ranks->group_size, .first = ranks->group * ranks->group_size, .stride = 1};
    return (espl__team){.rank = ranks->group, .size = ranks->n_groups, .first = ranks->place, .stride = ranks->group_size};
}

static espl_status begin_level(espl_comm *comm, espl__bulk *bulk, espl__bulk_level level) {
    bulk->level = level;
    bulk->team = team_of(&comm->ranks, level);
    bulk->step = 0;
    bulk->done = false;
    return kinds[bulk->kind].start(comm, bulk);
}

/* A level is done: the next begins, if there is one. */
static espl_status end_level(espl_comm *comm, espl__bulk *bulk) {
    const int groups = comm->ranks.n_groups;
    if (groups == 1 || bulk->level == ESPL__BULK_SPREAD || (bulk->level == ESPL__BULK_INSIDE && bulk->kind == ESPL__BULK_GATHER))
        return ESPL_OK;
    if (bulk->level == ESPL__BULK_INSIDE) {
        bulk->data = shard_of(bulk->data, bulk, bulk->team.rank);
        bulk->shard /= (size_t)groups;
        return begin_level(comm, bulk, ESPL__BULK_ACROSS);
    }
    bulk->kind = ESPL__BULK_GATHER;
    return begin_level(comm, bulk, ESPL__BULK_SPREAD);
}

/* ---- Operations. */

static espl_request free_slot(const espl__mpi *mpi) {
    for (int i = 0; i < ESPL_MAX_REQUESTS; i++)
        if (mpi->bulks[i].kind == ESPL__BULK_FREE)
            return i;
    ESPL_ASSERT(0, "more than %d bulk operations under way", ESPL_MAX_REQUESTS);
    return -1;
}

/* `what`: its kind, data, shard and what the kind needs besides. */
static espl_status bulk_start(espl_comm *comm, const espl__bulk *what, espl_request *request) {
    espl__mpi *mpi = comm->state;
    *request = -1;
    if (comm->ranks.size == 1 || what->shard == 0)
        return ESPL_OK;
    *request = free_slot(mpi);
    espl__bulk *bulk = &mpi->bulks[*request];
    MPI_Request *requests = bulk->requests;
    int room = bulk->room;
    *bulk = *what;
    bulk->requests = requests;
    bulk->room = room;
    bulk->tag = mpi->n_started++ % TAGS;
    if (mpi->n_under_way++ == 0)
        mpi->busy_since = espl_now();
    return begin_level(comm, bulk, ESPL__BULK_INSIDE);
}

espl_status espl__mpi_reduce_scatter_start(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request) {
    const espl__bulk what = {.kind = tree ? ESPL__BULK_TREE : ESPL__BULK_RING,
                             .data = (char *)data,
                             .stage = (char *)stage,
                             .shard = n / (size_t)comm->ranks.group_size * sizeof(float)};
    return bulk_start(comm, &what, request);
}

espl_status espl__mpi_exchange_start(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request) {
    const espl__bulk what = {.kind = ESPL__BULK_EXCHANGE,
                             .data = (char *)data,
                             .exchange = exchange,
                             .shard = n / (size_t)comm->ranks.group_size * sizeof(float)};
    return bulk_start(comm, &what, request);
}

espl_status espl__mpi_allgather_start(espl_comm *comm, void *data, size_t bytes, espl_request *request) {
    const espl__bulk what = {.kind = ESPL__BULK_GATHER, .data = data, .shard = bytes / (size_t)comm->ranks.group_size};
    return bulk_start(comm, &what, request);
}

static void count_done(espl_comm *comm) {
    espl__mpi *mpi = comm->state;
    if (--mpi->n_under_way == 0)
        comm->busy_seconds += espl_now() - mpi->busy_since;
}

static espl_status advance(espl_comm *comm, espl__bulk *bulk) {
    int arrived;
    ESPL__MPI(MPI_Testall(bulk->n_requests, bulk->requests, &arrived, MPI_STATUSES_IGNORE));
    if (!arrived)
        return ESPL_OK;
    bulk->n_requests = 0;
    ESPL_TRY(kinds[bulk->kind].finish_step(comm, bulk));
    if (bulk->done)
        ESPL_TRY(end_level(comm, bulk));
    if (bulk->done)
        count_done(comm);
    return ESPL_OK;
}

espl_status espl__mpi_progress(espl_comm *comm) {
    espl__mpi *mpi = comm->state;
    for (int i = 0; i < ESPL_MAX_REQUESTS && mpi->n_under_way > 0; i++)
        if (mpi->bulks[i].kind != ESPL__BULK_FREE && !mpi->bulks[i].done)
            ESPL_TRY(advance(comm, &mpi->bulks[i]));
    return ESPL_OK;
}

espl_status espl__mpi_wait(espl_comm *comm, espl_request request) {
    espl__mpi *mpi = comm->state;
    if (request < 0)
        return ESPL_OK;
    espl__bulk *bulk = &mpi->bulks[request];
    ESPL_ASSERT(bulk->kind != ESPL__BULK_FREE, "request %d is not under way", request);
    while (!bulk->done) {
        ESPL_TRY(espl__mpi_progress(comm)); /* all of them: another rank may wait for a part of ours */
        sched_yield();
    }
    bulk->kind = ESPL__BULK_FREE;
    return ESPL_OK;
}
