/* Adapters in PEFT's layout as something to start from: adapter_config.json, adapter_model.safetensors, and a base that they name.
 * adapter.h writes them. */
#ifndef ESPL_TRAIN_PEFT_FOLDER_H
#define ESPL_TRAIN_PEFT_FOLDER_H

#include "comm/comm.h"
#include "src/config/config.h"
#include "src/model/model.h"
#include "src/train/weights/weights.h"

/* Local. Whether a folder holds an adapter, and no whole model. */
bool espl_peft_is(const char *folder);

/* Local. Where model.adapter is set: takes what the config leaves open from the adapter: its base as model.path, and with tune.method: full
 * all of tune.*; what the config has of tune.* is compared by espl_peft_check. Errors: data, for files that cannot be read, and for
 * anything in adapter_config.json that is not known here. */
espl_status espl_peft_settle(espl_config *config);

/* Local. Whether the updates of a model are those of the adapter in `folder`. Errors: usage, naming a matrix and what differs. */
espl_status espl_peft_check(const espl_model *model, const char *folder);

/* Collective. Makes the files of an adapter, and of the base that espl_peft_model takes for it, known to all ranks (espl_files_share). What
 * is wrong with them is left to whoever reads them. Errors: those of communication alone. */
espl_status espl_peft_share(espl_comm *comm, const char *folder, const char *base);

/* Local. The model of an adapter on its base: `base`, or where that is "" the one that the adapter names. *found is the folder of the base;
 * the caller owns it. Labels as in espl_model_options. Errors: as espl_peft_settle and espl_weights_model. */
espl_status espl_peft_model(const char *folder, const char *base, const espl_strings *labels, espl_model **model, char **found);

/* Local. Reads the adapter's tensors over what `weights` has: all updates, and what else the adapter holds, which must be trained. Errors:
 * data, for a missing tensor, one that is not the model's, another shape, a non-finite value. */
espl_status espl_peft_weights(const espl_model *model, const char *folder, const espl_weights *weights);

#endif
