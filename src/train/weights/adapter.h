/* What methods have added to a model, in files: in a checkpoint's record, merged into the matrices of an export, and by itself. */
#ifndef ESPL_TRAIN_ADAPTER_H
#define ESPL_TRAIN_ADAPTER_H

#include "io/safetensors/safetensors.h"
#include "src/config/config.h"
#include "src/model/model.h"

/* Tensors of an export. */
typedef struct espl_collection {
    espl_tensor_out *items; /* owned, but for names (the model's) and data (in flat) */
    int64_t n;
    void *flat;       /* owned: the weights */
    espl_dtype dtype; /* of all of them */
} espl_collection;

/* Local. For a checkpoint's record, keys of `tune`: {method: lora, rank, alpha, dropout, rank_stabilised, targets, ranks, alphas} or
 * {method: bottleneck, bottleneck, bottleneck_activation, bottleneck_at} or {method: prompt or prefix, prompt_length}; NULL where the
 * model's own parameters are trained. The caller owns it. */
json_t *espl_adapter_describe(const espl_config *config);

/* Local. The model of a checkpoint's record, with what its method has added. Errors: data. */
espl_status espl_adapter_model(const json_t *record, const char *path, espl_model **model);

/* Local. Whether the updates of a checkpoint are those that the config asks for. Errors: usage, naming the key that differs. */
espl_status espl_adapter_check(const json_t *record, const char *path, const espl_config *config);

/* Local. Adds scale B A to every matrix W of the collection that has an A and B there, and with magnitudes gives its rows those lengths;
 * the updates are then taken out. `model` has them. */
void espl_adapter_merge(const espl_model *model, espl_collection *all);

/* Local. Writes what was trained by itself: adapter_model.safetensors and adapter_config.json, of LoRA, soft prompts and prefixes in
 * PEFT's layout, of bottleneck adapters with the tensors' own names and what the record says. `base`: the folder or name for
 * base_model_name_or_path. Errors: io. */
espl_status espl_adapter_write(const espl_model *model, const espl_collection *trained, const char *base, const char *folder);

#endif
