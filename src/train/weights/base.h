/* The base of a run that trains a part of its model: the frozen parameters, which checkpoints do not hold.
 *
 * A checkpoint's record says where they came from (a folder, or the seed of random weights) and their digest; whoever opens the
 * checkpoint reads them from there and compares. A base may be a checkpoint itself, with a base of its own. */
#ifndef ESPL_TRAIN_BASE_H
#define ESPL_TRAIN_BASE_H

#include "comm/comm.h"
#include "src/train/weights/weights.h"

#include <jansson.h>

/* Local. Where a config's base comes from (model.checkpoint, model.path or nothing) and what it is, for a checkpoint's record: {path,
 * init_seed, digest}, and where it is held quantised {held, trained}: how, and which of the model's own parameters are trained; NULL when
 * nothing is frozen. The caller owns it. */
json_t *espl_base_describe(const espl_config *config, const espl_model *model, const uint64_t *hashes);

/* Local. Sets in `options` how a checkpoint's record, which `path` names in messages, has its base held; the caller frees options->train,
 * whose names are the record's. Errors: data. */
espl_status espl_base_held(const json_t *record, const char *path, espl_model_options *options);

/* Local. Whether a run's base (as described; NULL: none) is that of the checkpoint `record`, which `path` names in messages. Errors: usage,
 * when it is another. */
espl_status espl_base_check(const json_t *record, const char *path, const json_t *own);

/* Collective. Makes the files of a checkpoint, of its base, and of that one's, known to all ranks (espl_files_share); "": of nothing. What
 * is wrong with them is left to whoever reads them. Errors: those of communication alone. */
espl_status espl_base_share(espl_comm *comm, const char *path);

/* Local. All weights of a checkpoint (`weights->wanted` says which of them): those that it holds, the rest from the base that its record
 * names, or from `instead` (a Hugging Face folder or a checkpoint; NULL or "": that of the record). Updates that neither has start anew
 * from `seed`. Errors: data and usage as espl_weights_read and espl_weights_from_checkpoint; usage, for another base than the checkpoint's.
 */
espl_status espl_base_weights(const espl_model *model, const char *path, const char *instead, uint64_t seed, const espl_weights *weights);

#endif
