/* What an implementation of espl_comm fills in: one table of functions. comm.c checks arguments, counts and dispatches. */
#ifndef ESPL_COMM_TRANSPORT_H
#define ESPL_COMM_TRANSPORT_H

#include "comm/board.h"
#include "comm/bulk.h"

typedef struct espl__watchdog espl__watchdog;

typedef struct espl__transport {
    void (*close)(espl_comm *comm);
    void (*abort)(int code); /* ends the job; callable from any thread */
    espl_status (*allreduce_i64)(espl_comm *comm, int64_t *values, size_t n, espl_reduce how);
    espl_status (*bcast)(espl_comm *comm, void *data, size_t bytes, int root);
    espl_status (*allgather)(espl_comm *comm, const void *mine, size_t bytes, void *all);
    espl_status (*barrier)(espl_comm *comm);
    espl_status (*send)(espl_comm *comm, const void *data, size_t bytes, int to, int tag);
    espl_status (*recv)(espl_comm *comm, void *data, size_t bytes, int from, int tag);
    espl_status (*reduce_scatter_start)(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request);
    espl_status (*exchange_start)(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request);
    espl_status (*allgather_start)(espl_comm *comm, void *data, size_t bytes, espl_request *request);
    espl_status (*progress)(espl_comm *comm);
    espl_status (*wait)(espl_comm *comm, espl_request request);
} espl__transport;

struct espl_comm {
    const espl__transport *transport;
    espl_ranks ranks;
    void *state; /* the transport's own */
    double wait_seconds, busy_seconds;
    int64_t bytes_sent;       /* in bulk operations; counted by the transport */
    espl__watchdog *watchdog; /* NULL: not watched */
    espl__place *board;       /* [node_size] of the node's ranks; NULL: they share no memory, or there is one */
    const espl_bulk_calls *bulk_calls;
    _Atomic(espl_bulk *) bulk; /* NULL: bulk operations are the transport's; the watchdog reads it */
};

/* Local. Makes the one-rank comm; never fails. */
void espl__self_open(espl_comm *comm);

/* Collective. Initialises MPI and fills ranks, transport and state. */
espl_status espl__mpi_open(espl_comm *comm);

typedef struct espl__seconds_of_bulk {
    double busy, waiting;
} espl__seconds_of_bulk;

/* Local. Since espl_comm_use_bulk, by the device's clock; zero without. */
espl__seconds_of_bulk espl__bulk_seconds(const espl_comm *comm);

/* Local. Watches the opening of the ranks, until it is stopped: ends the process, with a line, when that takes longer. 0: not started. */
espl_status espl__watchdog_start(espl_comm *comm, double seconds);

/* Local. Stops the thread and frees; takes the address, nulls it, accepts NULL. */
void espl__watchdog_stop(espl__watchdog **watchdog);

#endif
