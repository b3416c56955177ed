/* What checkpoints hold: the weights that are trained, and what the optimizer's rule keeps for them. */
#ifndef ESPL_TRAIN_STATE_LIST_H
#define ESPL_TRAIN_STATE_LIST_H

#include "io/checkpoint/checkpoint.h"
#include "src/train/memory/memory.h"

/* Local. The tensors of a checkpoint with this rank's ranges of them: group "model", and one group for each of the rule's states, under the
 * names of the parameters; what stands for whole blocks of elements under its bucket's, bucket-N, because parameters share blocks. With
 * `memory` their data lie there; NULL leaves them out, as a plan does. The ranges are what the rank keeps, and reads; or what it saves:
 * of several groups of ranks (run.shard_group) one saves a tensor, and all about as many bytes. The caller frees *list, which holds the
 * names of buckets, too. Returns their number. */
int64_t espl_state_list(const espl_blueprint *blueprint, const espl_memory *memory, bool saved, espl_state_tensor **list);

#endif
