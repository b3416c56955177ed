/* Bulk operations of a device under a comm: how the ranks find each other there, and how it ends. */
#include "comm/transport.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct identities {
    char of[2][ESPL_BULK_IDENTITY]; /* by team; made by its first rank */
} identities;

static espl_status make_identities(const espl_bulk_calls *calls, const espl_bulk_team teams[2], identities *mine) {
    for (int t = 0; t < 2; t++)
        if (teams[t].rank == 0 && teams[t].size > 1)
            ESPL_TRY(calls->identity(mine->of[t]));
    return ESPL_OK;
}

/* All get those of all teams, and take those of their own. */
static espl_status find_teams(espl_comm *comm, const espl_bulk_calls *calls, espl_bulk_team teams[2]) {
    const espl_ranks *r = &comm->ranks;
    identities mine = {0}, *all = espl_malloc((size_t)r->size * sizeof *all);
    teams[0] = (espl_bulk_team){.rank = r->place, .size = r->group_size};
    teams[1] = (espl_bulk_team){.rank = r->group, .size = r->n_groups};
    espl_status status = espl_comm_agree(comm, make_identities(calls, teams, &mine), "bulk operations: an identity");
    if (status == ESPL_OK)
        status = espl_comm_allgather(comm, &mine, sizeof mine, all);
    if (status == ESPL_OK) {
        memcpy(teams[0].identity, all[r->group * r->group_size].of[0], ESPL_BULK_IDENTITY);
        memcpy(teams[1].identity, all[r->place].of[1], ESPL_BULK_IDENTITY);
    }
    free(all);
    return status;
}

static espl_status too_late(const espl_comm *comm, const espl_bulk_calls *calls, double seconds) {
    ESPL_FAIL(ESPL_ERR_IO,
              "rank %d of %d waited %.0f s for %s to find the other ranks, and MPI says that they are there: the network between the nodes "
              "does not let it through (NCCL_DEBUG=INFO says more, NCCL_SOCKET_IFNAME chooses the interface)",
              comm->ranks.rank, comm->ranks.size, seconds, calls->version());
}

/* The library cannot tell the others of a rank that has failed, MPI can: they vote on how far they are, again and again, and all leave as
 * soon as one must. */
static espl_status find_all(espl_comm *comm, const espl_bulk_calls *calls, espl_bulk *bulk, double seconds) {
    enum { ALL_HERE, LOOKING, FAILED };
    int64_t vote = LOOKING;
    espl_status status = ESPL_OK;
    for (double start = espl_now(); vote == LOOKING;) {
        bool all = false;
        status = calls->joined(bulk, &all);
        if (status == ESPL_OK && !all && espl_now() - start > seconds)
            status = too_late(comm, calls, seconds);
        vote = status != ESPL_OK ? FAILED : all ? ALL_HERE : LOOKING;
        ESPL_TRY(espl_comm_allreduce_i64(comm, &vote, 1, ESPL_MAX));
        if (vote == LOOKING)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    return vote == FAILED ? espl_comm_agree(comm, status, "bulk operations: finding each other") : ESPL_OK;
}

espl_status espl_comm_use_bulk(espl_comm *comm, const espl_bulk_calls *calls, void *device, double seconds) {
    espl_bulk_team teams[2];
    espl_bulk *bulk = NULL;
    ESPL_ASSERT(comm->bulk == NULL, "bulk operations are a device's already");
    if (comm->ranks.size == 1)
        return ESPL_OK;
    ESPL_TRY(find_teams(comm, calls, teams));
    espl_status status = calls->open(device, teams, &bulk);
    ESPL_TRY_DONE(espl_comm_agree(comm, status, "bulk operations: opening"));
    ESPL_TRY_DONE(find_all(comm, calls, bulk, seconds));
    comm->bulk_calls = calls;
    comm->bulk = bulk;
    return ESPL_OK;
done:
    calls->close(&bulk);
    return status;
}

void espl_comm_end_bulk(espl_comm *comm) {
    espl_bulk *bulk = atomic_exchange(&comm->bulk, NULL);
    if (bulk == NULL)
        return;
    comm->bytes_sent += comm->bulk_calls->bytes_sent(bulk);
    comm->bulk_calls->close(&bulk);
}

espl__seconds_of_bulk espl__bulk_seconds(const espl_comm *comm) {
    double busy = 0, waiting = 0;
    if (comm->bulk != NULL && comm->bulk_calls->timings(comm->bulk, &busy, &waiting) != ESPL_OK)
        espl_status_clear(); /* the next operation fails and tells */
    return (espl__seconds_of_bulk){.busy = busy / 1000, .waiting = waiting / 1000};
}
