/* Agreement: ranks that may disagree about success take the same branch. */
#include "comm/transport.h"

#include <string.h>

/* Worst last. A stop is a wish, not a failure, so any failure outweighs it. */
static const espl_status by_severity[] = {ESPL_OK,          ESPL_STOPPED, ESPL_ERR_USAGE, ESPL_ERR_DATA,
                                          ESPL_ERR_NUMERIC, ESPL_ERR_IO,  ESPL_ERR_BUG};

static int severity_of(espl_status status) {
    for (int i = 0; i < (int)(sizeof by_severity / sizeof by_severity[0]); i++)
        if (by_severity[i] == status)
            return i;
    ESPL_ASSERT(0, "status %d is none of ours", (int)status);
    return 0;
}

/* The message of `root` reaches everyone; only root's own frames belong to it. */
static espl_status share_message(espl_comm *comm, espl_status worst, int root, const char *where) {
    char message[ESPL_MESSAGE_BYTES];
    strncpy(message, espl_status_message(), sizeof message - 1);
    message[sizeof message - 1] = '\0';
    ESPL_TRY(espl_comm_bcast(comm, message, sizeof message, root));
    if (comm->ranks.rank != root)
        return espl_status_fail(worst, __FILE__, __LINE__, "rank %d: %s", root, message);
    espl_status_set_message("rank %d: %s", root, message);
    return espl_status_frame(worst, __FILE__, __LINE__, where);
}

espl_status espl_comm_agree(espl_comm *comm, espl_status mine, const char *where) {
    if (comm->ranks.size == 1)
        return mine;
    espl_comm_point(comm, where);
    int64_t size = comm->ranks.size;
    int64_t vote = severity_of(mine) * size + (size - 1 - comm->ranks.rank); /* the maximum is the lowest rank of the worst */
    ESPL_TRY(espl_comm_allreduce_i64(comm, &vote, 1, ESPL_MAX));
    espl_status worst = by_severity[vote / size];
    if (worst == ESPL_OK)
        return ESPL_OK;
    return share_message(comm, worst, (int)(size - 1 - vote % size), where);
}
