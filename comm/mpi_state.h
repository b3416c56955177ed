/* What the two files over MPI share. */
#ifndef ESPL_COMM_MPI_STATE_H
#define ESPL_COMM_MPI_STATE_H

#include "comm/transport.h"

#include <mpi.h>
#include <stdbool.h>

enum { ESPL__MESSAGE_BYTES = 1 << 30 }; /* MPI counts are int: longer messages go in pieces of this size */

typedef enum espl__bulk_kind { ESPL__BULK_FREE, ESPL__BULK_RING, ESPL__BULK_TREE, ESPL__BULK_EXCHANGE, ESPL__BULK_GATHER } espl__bulk_kind;

/* What a bulk operation is doing: its own kind over the ranks of a group; then a sum the same over the groups, of the shard alone; and what
 * it left with each of them spread to the others. */
typedef enum espl__bulk_level { ESPL__BULK_INSIDE, ESPL__BULK_ACROSS, ESPL__BULK_SPREAD } espl__bulk_level;

/* Ranks that work together: first, first + stride, ...; `rank` is our place among them. */
typedef struct espl__team {
    int rank, size, first, stride;
} espl__team;

/* One bulk operation: `requests` are the messages of its present step; what is said of ranks is of its present team. */
typedef struct espl__bulk {
    espl__bulk_kind kind;
    espl__bulk_level level;
    espl__team team;
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

/* The transport's bulk operations; each is collective or local as that of comm.h which it serves. */
espl_status espl__mpi_reduce_scatter_start(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request);
espl_status espl__mpi_exchange_start(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request);
espl_status espl__mpi_allgather_start(espl_comm *comm, void *data, size_t bytes, espl_request *request);
espl_status espl__mpi_progress(espl_comm *comm);
espl_status espl__mpi_wait(espl_comm *comm, espl_request request);

#define ESPL__MPI(call) ESPL_TRY(espl__mpi_check((call), #call))

#endif
