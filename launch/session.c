#include "launch/session.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int rank_of_session = -1; /* -1: no session was opened */
static bool told;

espl_status espl_session_run(int use_mpi, espl_session_body *body, void *context) {
    espl_comm *comm = NULL;
    ESPL_TRY(espl_comm_open(&comm, use_mpi));
    rank_of_session = espl_comm_ranks(comm)->rank;
    espl_status status = body(comm, context);
    if (status != ESPL_OK) {
        espl_status_frame(status, __FILE__, __LINE__, "body");
        espl_session_tell(status); /* now: a launcher ends all ranks when the first one leaves with a failure */
    }
    espl_comm_close(&comm);
    return status;
}

typedef struct on_ranks {
    espl_session_body *body;
    void *context;
} on_ranks;

static espl_status run_on_ranks(void *job) {
    const on_ranks *it = job;
    return espl_session_run(0, it->body, it->context);
}

espl_status espl_session_verb(const espl_usage *usage, int argc, char **argv, espl_words *operands, espl_session_body *body,
                              void *context) {
    return espl_options_run(usage, argc, argv, operands, run_on_ranks, &(on_ranks){.body = body, .context = context});
}

/* FNV-1a, cut to 62 bits so that its negative is an int64 too. */
static int64_t hash_of_message(void) {
    uint64_t hash = 0xCBF29CE484222325u;
    for (const char *c = espl_status_message(); *c != '\0'; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001B3u;
    return (int64_t)(hash >> 2);
}

espl_status espl_session_agree(espl_comm *comm, espl_status mine, const char *where) {
    int64_t hash = mine == ESPL_OK ? 0 : hash_of_message();
    int64_t ends[4] = {hash, -hash, mine, -(int64_t)mine}; /* largest, and smallest as the largest negative */
    ESPL_TRY(espl_comm_allreduce_i64(comm, ends, 4, ESPL_MAX));
    if (ends[0] == -ends[1] && ends[2] == -ends[3])
        return mine;
    return espl_comm_agree(comm, mine, where);
}

/* Whether this process tells the job's failure: rank 0, or one that failed before its ranks were open. */
static bool speaks(espl_status status) {
    if (rank_of_session >= 0)
        return rank_of_session == 0;
    return status != ESPL_ERR_USAGE || espl_comm_launched_rank() == 0; /* a command line is the same on all ranks */
}

void espl_session_tell(espl_status status) {
    if (told)
        return;
    told = true;
    const char *trace = getenv("ESPL_TRACE");
    if (trace != NULL && strcmp(trace, "0") != 0)
        espl_status_print_trail(stderr);
    else if (!speaks(status) && rank_of_session < 0)
        sleep(1); /* rank 0 tells the same, and the launcher ends it as soon as we leave */
    else if (speaks(status) && espl_status_message()[0] != '\0')
        fprintf(stderr, "espalier: %s\n", espl_status_message());
}
