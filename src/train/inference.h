/* A model opened for use without training: from a run folder, a checkpoint or a Hugging Face folder. */
#ifndef ESPL_TRAIN_INFERENCE_H
#define ESPL_TRAIN_INFERENCE_H

#include "io/tokenizer/tokenizer.h"
#include "src/config/config.h"
#include "src/core/arena.h"
#include "src/model/model.h"

typedef struct espl_inference {
    espl_model *model;
    espl_tokenizer *tokenizer;
    const espl_kernels *kernels;
    espl_arena arena;
    void *weights; /* the flat space, one rank */
    int threads;
} espl_inference;

/* Local. Opens `path`; run.dtype, run.threads and data.tokenizer come from the config. A run folder means its newest checkpoint.
 * `positions` > 0: the longest sequence; 0: the model's own. Errors: data, usage. */
espl_status espl_inference_open(const char *path, const espl_config *config, int64_t positions, espl_inference *inference);

/* Local. Closes and zeroes; accepts one that failed to open. */
void espl_inference_close(espl_inference *inference);

#endif
