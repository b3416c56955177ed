/* A verb on ranks: opens them, runs the verb's body, closes them, and decides who speaks when it failed.
 *
 * Whatever a rank reads from the world (config, files) it reads inside the body, after the ranks are open, and agrees on it:
 * a rank that fails before has nobody to tell. */
#ifndef ESPL_LAUNCH_SESSION_H
#define ESPL_LAUNCH_SESSION_H

#include "comm/comm.h"
#include "launch/options.h"

/* Collective. The work of a verb; returns a status that all ranks have agreed on. */
typedef espl_status espl_session_body(espl_comm *comm, void *context);

/* Collective. Opens the job's ranks (use_mpi as in espl_comm_open), runs the body and closes. */
espl_status espl_session_run(int use_mpi, espl_session_body *body, void *context);

/* Collective. A whole verb on ranks: espl_options_run of the body. */
espl_status espl_session_verb(const espl_usage *usage, int argc, char **argv, espl_words *operands, espl_session_body *body, void *context);

/* Collective. espl_comm_agree, but a failure that all ranks met with the same message keeps it, without "rank 0:" in front. */
espl_status espl_session_agree(espl_comm *comm, espl_status mine, const char *where);

/* Local. Prints the failure once, in one line, from one process: rank 0, or each one that failed before its ranks were open.
 * With ESPL_TRACE every process prints its trail. espl_session_run calls it while the ranks are still open. */
void espl_session_tell(espl_status status);

#endif
