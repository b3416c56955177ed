/* One rank without MPI: every collective is the identity. */
#include "comm/transport.h"

#include <string.h>
#include <unistd.h>

static void self_close(espl_comm *comm) { (void)comm; }

static void self_abort(int code) { _exit(code); }

static espl_status self_allreduce(espl_comm *comm, int64_t *values, size_t n, espl_reduce how) {
    (void)comm, (void)values, (void)n, (void)how;
    return ESPL_OK;
}

static espl_status self_bcast(espl_comm *comm, void *data, size_t bytes, int root) {
    (void)comm, (void)data, (void)bytes, (void)root;
    return ESPL_OK;
}

static espl_status self_allgather(espl_comm *comm, const void *mine, size_t bytes, void *all) {
    (void)comm;
    memmove(all, mine, bytes);
    return ESPL_OK;
}

static espl_status self_nothing(espl_comm *comm) {
    (void)comm;
    return ESPL_OK;
}

static espl_status self_send(espl_comm *comm, const void *data, size_t bytes, int to, int tag) {
    (void)comm, (void)data, (void)bytes;
    ESPL_ASSERT(0, "one rank sends a message to rank %d (tag %d)", to, tag);
    return ESPL_ERR_BUG;
}

static espl_status self_recv(espl_comm *comm, void *data, size_t bytes, int from, int tag) {
    (void)comm, (void)data, (void)bytes;
    ESPL_ASSERT(0, "one rank waits for a message of rank %d (tag %d)", from, tag);
    return ESPL_ERR_BUG;
}

static espl_status self_reduce_scatter(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request) {
    (void)comm, (void)data, (void)stage, (void)n, (void)tree;
    *request = -1;
    return ESPL_OK;
}

static espl_status self_exchange(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request) {
    (void)comm, (void)exchange, (void)data, (void)n;
    *request = -1;
    return ESPL_OK;
}

static espl_status self_allgather_start(espl_comm *comm, void *data, size_t bytes, espl_request *request) {
    (void)comm, (void)data, (void)bytes;
    *request = -1;
    return ESPL_OK;
}

static espl_status self_wait(espl_comm *comm, espl_request request) {
    (void)comm;
    ESPL_ASSERT(request == -1, "one rank has no request %d", request);
    return ESPL_OK;
}

static const espl__transport self_transport = {
    .close = self_close,
    .abort = self_abort,
    .allreduce_i64 = self_allreduce,
    .bcast = self_bcast,
    .allgather = self_allgather,
    .barrier = self_nothing,
    .send = self_send,
    .recv = self_recv,
    .reduce_scatter_start = self_reduce_scatter,
    .exchange_start = self_exchange,
    .allgather_start = self_allgather_start,
    .progress = self_nothing,
    .wait = self_wait,
};

void espl__self_open(espl_comm *comm) {
    comm->transport = &self_transport;
    comm->ranks.rank = 0; /* a launcher may have counted otherwise */
    comm->ranks.size = comm->ranks.node_size = comm->ranks.n_nodes = 1;
}
