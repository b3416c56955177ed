/* The tape log: a line for every call of the first steps, for finding where two runs part.
 *
 * run.debug_tape writes tape-RANK.jsonl into the run folder: step, micro-batch, call, op, and for each tensor that the call wrote its
 * shape, largest magnitude and checksum (XXH3 of its bytes). Nothing in a line depends on time or place, so `diff` of two files shows the
 * first op that differs. */
#ifndef ESPL_TRAIN_TAPE_LOG_H
#define ESPL_TRAIN_TAPE_LOG_H

#include "kernels/engine.h"
#include "src/model/tape.h"

typedef struct espl_tape_log espl_tape_log;

enum { ESPL_TAPE_LOG_STEPS = 3 };

/* Local. Opens run_dir/tape-RANK.jsonl anew, for tensors on the engine's device (borrowed). Errors: io. */
espl_status espl_tape_log_open(const char *run_dir, int rank, const espl_engine *engine, espl_tape_log **log);

/* Local. Writes the line of a call that has just run; nothing after ESPL_TAPE_LOG_STEPS steps of this process. NULL log: nothing.
 * Errors: those of reading a device, which finds here what a kernel failed with. */
espl_status espl_tape_log_call(espl_tape_log *log, const espl_tape *tape, int call, const espl_batch *batch);

/* Local. Closes; takes the address, nulls it, accepts NULL. */
void espl_tape_log_close(espl_tape_log **log);

#endif
