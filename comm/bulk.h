/* Bulk operations over memory of a device: what NCCL does, in the place of MPI's. A backend brings the table; espl_comm_use_bulk puts it
 * under espl_comm_reduce_scatter_start, _allgather_start, _progress and _wait. Nothing here waits on the host: an operation starts behind
 * what is enqueued on the compute stream (or behind a mark, device.h), and `wait` makes the compute stream wait for it. */
#ifndef ESPL_COMM_BULK_H
#define ESPL_COMM_BULK_H

#include "comm/comm.h"

#include <stdbool.h>

enum { ESPL_BULK_IDENTITY = 128 };

typedef struct espl_bulk espl_bulk;

/* Ranks that work together: those of a group, or those in one place of all groups (espl_comm_group). */
typedef struct espl_bulk_team {
    char identity[ESPL_BULK_IDENTITY];
    int rank, size; /* our place among them */
} espl_bulk_team;

typedef struct espl_bulk_calls {
    const char *(*version)(void); /* "NCCL 2.32.3" */
    /* Local, on the first rank of a team. Bytes by which its ranks will find each other. */
    espl_status (*identity)(void *identity);
    /* Local. Begins to look for the other ranks, and waits for none. `device`: an open espl_device; teams[0]: the ranks of a group,
     * teams[1]: those in our place of all groups; one of size 1 has no work. Errors: io, with what the library said. */
    espl_status (*open)(void *device, const espl_bulk_team teams[2], espl_bulk **bulk);
    /* Local. Whether all have found each other. Operations only then. Errors: io. */
    espl_status (*joined)(espl_bulk *bulk, bool *all);
    /* Operations: collective. Their memory, of the device, stays where it is until the bulk is closed. */
    espl_status (*reduce_scatter_start)(espl_bulk *bulk, float *data, float *stage, size_t n, int tree, espl_request *request);
    espl_status (*exchange_start)(espl_bulk *bulk, const espl_exchange *exchange, float *data, size_t n, espl_request *request);
    espl_status (*allgather_start)(espl_bulk *bulk, void *data, size_t bytes, espl_request *request);
    espl_status (*progress)(espl_bulk *bulk); /* Local. Errors: io, when the library found one: the operation, and the rank it knows of */
    espl_status (*wait)(espl_bulk *bulk, espl_request request);
    /* Local. Since opening: milliseconds operations took, and milliseconds of them in which compute was waiting. Those not known to be
     * done are not in it yet: nothing is waited for. */
    espl_status (*timings)(espl_bulk *bulk, double *busy_ms, double *exposed_ms);
    int64_t (*bytes_sent)(const espl_bulk *bulk); /* Local. Since opening */
    /* Callable from the watchdog's thread: what was begun last, in words; and the end, without the other ranks. */
    void (*describe)(const espl_bulk *bulk, char *text, size_t room);
    void (*abort)(espl_bulk *bulk);
    void (*close)(espl_bulk **bulk);
} espl_bulk_calls;

/* Collective. From now on bulk operations of `comm` are those of the table (borrowed), on memory of `device`. One rank needs none and goes
 * on as before. Errors: io, the same on all ranks: when one fails, at once; when they have not found each other after `seconds`. */
espl_status espl_comm_use_bulk(espl_comm *comm, const espl_bulk_calls *calls, void *device, double seconds);

/* Collective when the job is healthy. Ends that, before the device is closed; espl_comm_close does it, too. */
void espl_comm_end_bulk(espl_comm *comm);

#endif
