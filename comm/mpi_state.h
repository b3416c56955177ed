/* What the two files over MPI share. */
#ifndef ESPL_COMM_MPI_STATE_H
#define ESPL_COMM_MPI_STATE_H

#include "comm/transport.h"

#include <mpi.h>
#include <stdbool.h>

enum { ESPL__MESSAGE_BYTES = 1 << 30 }; /* MPI counts are int: longer messages go in pieces of this size */

typedef enum espl__bulk_kind { ESPL__BULK_FREE, ESPL__BULK_RING, ESPL__BULK_TREE, ESPL__BULK_EXCHANGE, ESPL__BULK_GATHER } espl__bulk_kind;

/* One bulk operation: `requests` are the messages of its present step. */
typedef struct espl__bulk {
    espl__bulk_kind kind;
    bool done;
    int tag, step;
    char *data, *stage;
    size_t shard; /* bytes that a rank keeps */
    const espl_exchange *exchange;
    int64_t turn, at; /* of exchanges: its number among them; elements of the shard that are done */
    MPI_Request *requests;
    int n_requests, room;
} espl__bulk;

typedef struct espl__mpi {
    MPI_Comm world; /* ours, for collectives and messages */
    MPI_Comm bulk;  /* ours, for bulk operations: their tags cannot meet others */
    MPI_Win board;  /* of comm->board; MPI_WIN_NULL: none */
    int n_started;  /* bulk operations so far: the same on all ranks, so it makes the tag */
    int n_under_way;
    int64_t n_exchanges, n_exchanged; /* started, done */
    double busy_since;                /* while n_under_way > 0 */
    espl__bulk bulks[ESPL_MAX_REQUESTS];
} espl__mpi;

/* Local. Turns an MPI error into a status. */
espl_status espl__mpi_check(int code, const char *call);

espl_status espl__mpi_reduce_scatter_start(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request);
espl_status espl__mpi_exchange_start(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request);
espl_status espl__mpi_allgather_start(espl_comm *comm, void *data, size_t bytes, espl_request *request);
espl_status espl__mpi_progress(espl_comm *comm);
espl_status espl__mpi_wait(espl_comm *comm, espl_request request);

#define ESPL__MPI(call) ESPL_TRY(espl__mpi_check((call), #call))

#endif
