/* Ranks as threads of one test: comm.h implemented here, in the place of the library's, so that one process can save on three ranks
 * and load on four. Include once, in the test's source. `ranks_run(n, body, context)` runs body(comm, context) on n ranks. */
#ifndef ESPL_TESTS_THREAD_RANKS_H
#define ESPL_TESTS_THREAD_RANKS_H

#include "comm/comm.h"
#include "src/core/buffer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS_MOST = 8 };

typedef struct ranks_post { /* one message under way from a rank to another */
    const void *data;
    size_t bytes;
} ranks_post;

typedef struct ranks_world {
    int size;
    pthread_barrier_t barrier;
    const void *shared[RANKS_MOST];
    espl_status statuses[RANKS_MOST];
    char messages[RANKS_MOST][2048];
    pthread_mutex_t mutex;
    pthread_cond_t moved;
    ranks_post posts[RANKS_MOST][RANKS_MOST]; /* [from][to] */
} ranks_world;

struct espl_comm {
    espl_ranks ranks;
    ranks_world *world;
    void (*body)(espl_comm *comm, void *context);
    void *context;
};

const espl_ranks *espl_comm_ranks(const espl_comm *comm) { return &comm->ranks; }

static void ranks_meet(espl_comm *comm) { pthread_barrier_wait(&comm->world->barrier); }

espl_status espl_comm_barrier(espl_comm *comm) {
    ranks_meet(comm);
    return ESPL_OK;
}

espl_status espl_comm_agree(espl_comm *comm, espl_status mine, const char *where) {
    ranks_world *w = comm->world;
    espl_status worst = ESPL_OK;
    (void)where;
    w->statuses[comm->ranks.rank] = mine;
    snprintf(w->messages[comm->ranks.rank], sizeof w->messages[0], "%s", mine != ESPL_OK ? espl_status_message() : "");
    ranks_meet(comm);
    for (int r = w->size - 1; r >= 0; r--)
        if (w->statuses[r] != ESPL_OK) {
            worst = w->statuses[r];
            espl_status_fail(worst, __FILE__, __LINE__, "rank %d: %s", r, w->messages[r]);
        }
    ranks_meet(comm);
    return worst;
}

espl_status espl_comm_allgather(espl_comm *comm, const void *mine, size_t bytes, void *all) {
    ranks_world *w = comm->world;
    w->shared[comm->ranks.rank] = mine;
    ranks_meet(comm);
    for (int r = 0; r < w->size; r++)
        memcpy((char *)all + (size_t)r * bytes, w->shared[r], bytes);
    ranks_meet(comm);
    return ESPL_OK;
}

espl_status espl_comm_allreduce_i64(espl_comm *comm, int64_t *values, size_t n, espl_reduce how) {
    int64_t *all = espl_malloc(n * sizeof *all * (size_t)comm->world->size);
    espl_comm_allgather(comm, values, n * sizeof *values, all);
    for (int r = 0; r < comm->world->size; r++)
        for (size_t i = 0; i < n; i++) {
            int64_t x = all[(size_t)r * n + i];
            if (r == 0)
                values[i] = x;
            else
                values[i] = how == ESPL_SUM ? values[i] + x : (how == ESPL_MAX) == (x > values[i]) ? x : values[i];
        }
    free(all);
    return ESPL_OK;
}

espl_status espl_comm_bcast(espl_comm *comm, void *data, size_t bytes, int root) {
    ranks_world *w = comm->world;
    w->shared[comm->ranks.rank] = data;
    ranks_meet(comm);
    if (comm->ranks.rank != root && bytes > 0)
        memcpy(data, w->shared[root], bytes);
    ranks_meet(comm);
    return ESPL_OK;
}

espl_status espl_comm_send(espl_comm *comm, const void *data, size_t bytes, int to, int tag) {
    ranks_world *w = comm->world;
    ranks_post *post = &w->posts[comm->ranks.rank][to];
    (void)tag;
    pthread_mutex_lock(&w->mutex);
    *post = (ranks_post){data, bytes};
    pthread_cond_broadcast(&w->moved);
    while (post->data != NULL)
        pthread_cond_wait(&w->moved, &w->mutex);
    pthread_mutex_unlock(&w->mutex);
    return ESPL_OK;
}

espl_status espl_comm_recv(espl_comm *comm, void *data, size_t bytes, int from, int tag) {
    ranks_world *w = comm->world;
    ranks_post *post = &w->posts[from][comm->ranks.rank];
    (void)tag;
    pthread_mutex_lock(&w->mutex);
    while (post->data == NULL)
        pthread_cond_wait(&w->moved, &w->mutex);
    ESPL_ASSERT(post->bytes == bytes, "rank %d sent %zu bytes, %zu expected", from, post->bytes, bytes);
    memcpy(data, post->data, bytes);
    post->data = NULL;
    pthread_cond_broadcast(&w->moved);
    pthread_mutex_unlock(&w->mutex);
    return ESPL_OK;
}

static void *ranks_thread(void *argument) {
    espl_comm *comm = argument;
    comm->body(comm, comm->context);
    return NULL;
}

/* `per_node` ranks stand on a node. */
static void ranks_run(int size, int per_node, void (*body)(espl_comm *comm, void *context), void *context) {
    ranks_world world = {.size = size, .mutex = PTHREAD_MUTEX_INITIALIZER, .moved = PTHREAD_COND_INITIALIZER};
    espl_comm comms[RANKS_MOST];
    pthread_t threads[RANKS_MOST];
    pthread_barrier_init(&world.barrier, NULL, (unsigned)size);
    for (int r = 0; r < size; r++) {
        int node = r / per_node, left = size - node * per_node;
        comms[r] = (espl_comm){.world = &world, .body = body, .context = context};
        comms[r].ranks = (espl_ranks){.rank = r, .size = size, .node_rank = r % per_node, .node = node, .host = "thread"};
        comms[r].ranks.node_size = left < per_node ? left : per_node;
        comms[r].ranks.n_nodes = (size + per_node - 1) / per_node;
    }
    for (int r = 1; r < size; r++)
        ESPL_ASSERT(pthread_create(&threads[r], NULL, ranks_thread, &comms[r]) == 0, "no thread for rank %d", r);
    body(&comms[0], context);
    for (int r = 1; r < size; r++)
        pthread_join(threads[r], NULL);
    pthread_barrier_destroy(&world.barrier);
}

#endif
