/* Bulk operations of a device under a comm: how the ranks find each other there, and how it ends. */
#include "comm/transport.h"

#include <stdatomic.h>

/* Ranks have agreed that all are there, so what this waits for is the network between them. */
#define OPEN_SECONDS 120.0

static espl_status find_each_other(espl_comm *comm, const espl_bulk_calls *calls, void *identity) {
    espl_status status = comm->ranks.rank == 0 ? calls->identity(identity) : ESPL_OK;
    ESPL_TRY(espl_comm_agree(comm, status, "bulk operations: finding each other"));
    return espl_comm_bcast(comm, identity, ESPL_BULK_IDENTITY, 0);
}

espl_status espl_comm_use_bulk(espl_comm *comm, const espl_bulk_calls *calls, void *device) {
    char identity[ESPL_BULK_IDENTITY] = {0};
    const espl_ranks *ranks = &comm->ranks;
    espl_bulk *bulk = NULL;
    ESPL_ASSERT(comm->bulk == NULL, "bulk operations are a device's already");
    if (ranks->size == 1)
        return ESPL_OK;
    ESPL_TRY(find_each_other(comm, calls, identity));
    espl_status status = calls->open(device, identity, ranks->rank, ranks->size, OPEN_SECONDS, &bulk);
    status = espl_comm_agree(comm, status, "bulk operations: opening");
    if (status != ESPL_OK) {
        calls->close(&bulk);
        return espl_status_frame(status, __FILE__, __LINE__, "espl_comm_agree");
    }
    comm->bulk_calls = calls;
    comm->bulk = bulk;
    return ESPL_OK;
}

void espl_comm_end_bulk(espl_comm *comm) {
    espl_bulk *bulk = atomic_exchange(&comm->bulk, NULL);
    if (bulk != NULL)
        comm->bulk_calls->close(&bulk);
}

espl__seconds_of_bulk espl__bulk_seconds(const espl_comm *comm) {
    double busy = 0, waiting = 0;
    if (comm->bulk != NULL && comm->bulk_calls->timings(comm->bulk, &busy, &waiting) != ESPL_OK)
        espl_status_clear(); /* the next operation fails and tells */
    return (espl__seconds_of_bulk){.busy = busy / 1000, .waiting = waiting / 1000};
}
