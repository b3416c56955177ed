/* Weights in and out: Hugging Face folders, random initialisation, export. */
#ifndef ESPL_TRAIN_WEIGHTS_H
#define ESPL_TRAIN_WEIGHTS_H

#include "io/safetensors/safetensors.h"
#include "kernels/engine.h"
#include "src/config/config.h"
#include "src/model/model.h"
#include "src/plan/ownership.h"

/* Where weights go; borrowed. */
typedef struct espl_weights {
    void *flat; /* compute weights, real: the flat space, or where they are cut (ownership.h) what this rank keeps of it */
    espl_dtype real;
    float *master; /* this rank's fp32 master weights, NULL in fp32 */
    espl_owner owner;
    const espl_engine *engine; /* whose memory they lie in; NULL: plain memory */
    const bool *wanted;        /* [n_params] which parameters are read or initialised; NULL: all */
    uint64_t *hashes;          /* [n_params] out: of the values of each that was, as its file has them; NULL: not asked for */
} espl_weights;

/* Local. Whether this config starts from pretrained weights. Errors: usage, when it asks for weights that are not there. */
espl_status espl_weights_pretrained(const espl_config *config, bool *pretrained);

/* Local. espl_model_make, for which the files of weights in the folder `path` tell what config.json leaves open. */
espl_status espl_weights_model(const char *path, const espl_model_options *options, espl_model **model);

/* Local. Reads all parameters from the safetensors of `folder`, mapped and converted once. Names may lack the family's prefix; a tied head
 * may be absent. What the files lack of a new head is initialised from `seed`; that, and what of them is not used, is said in a line each.
 * Errors: data, for a missing tensor, another shape, a non-finite value. */
espl_status espl_weights_read(const espl_model *model, const char *folder, uint64_t seed, const espl_weights *weights);

/* Local. Takes what a checkpoint holds of the weights, whatever their format and whichever ranks wrote it, and nothing else of it; held
 * [n_params] tells what that is. Each piece is checked as it is read. Errors: data, for a tensor that is not the model's, another shape, a
 * damaged file; io. */
espl_status espl_weights_from_checkpoint(const espl_model *model, const char *path, const espl_weights *weights, bool *held);

/* Local. Takes one tensor of a file for a parameter. Errors: data, for another shape or a non-finite value; `folder` is for messages. */
espl_status espl_weights_take(const espl_model *model, int param, const espl_tensor_file *tensor, const char *folder,
                              const espl_weights *weights);

/* Local. Random initialisation, a pure function of the seed. */
espl_status espl_weights_init(const espl_model *model, uint64_t seed, const espl_weights *weights);

/* Local. Copies this rank's master weights, rounded, into the flat space (bf16; nothing to do in fp32). */
espl_status espl_weights_from_master(const espl_model *model, const espl_weights *weights);

typedef struct espl_export_options {
    const char *base; /* where the frozen weights lie now; "": where the record says */
    espl_dtype dtype; /* of the weights written */
    bool adapter;     /* what a method has added, alone, instead of the model */
} espl_export_options;

/* Local. Writes a Hugging Face folder from the weights of a checkpoint: safetensors, config.json as it was (with the new dtype), and the
 * companions (tokenizer) of its run. What the checkpoint left frozen is read from its base, low-rank updates are merged. Whatever model was
 * exported to `folder` before is replaced file by file; a base model's folder is refused. */
espl_status espl_weights_export(const char *checkpoint, const espl_export_options *options, const char *folder);

/* Local. The same from an adapter in PEFT's layout, whose updates are merged into its base (peft_folder.h). */
espl_status espl_weights_merge(const char *adapter, const espl_export_options *options, const char *folder);

#endif
