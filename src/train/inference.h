/* A model opened for use without training: from a run folder, a checkpoint or a Hugging Face folder. */
#ifndef ESPL_TRAIN_INFERENCE_H
#define ESPL_TRAIN_INFERENCE_H

#include "comm/comm.h"
#include "io/tokenizer/tokenizer.h"
#include "kernels/engine.h"
#include "src/config/config.h"
#include "src/core/arena.h"
#include "src/model/model.h"

typedef struct espl_inference {
    espl_model *model;
    espl_tokenizer *tokenizer;
    char *folder;              /* where chat template and generation_config.json are looked for; "": nowhere */
    const espl_engine *engine; /* borrowed */
    espl_arena arena;
    void *weights; /* the flat space, one rank, on the engine's device */
    float *rope;   /* the model's table there; NULL where kernels can read the model's own */
    int threads;
    int64_t positions; /* tokens of the longest sequence, a prompt not counted */
    int64_t step;      /* of the checkpoint; -1: none */
} espl_inference;

/* Tokens of the longest sequence: `least` (0: as many as the model has positions); `all`: no fewer than it has positions. */
typedef struct espl_inference_reach {
    int64_t least;
    bool all;
} espl_inference_reach;

/* Collective. Opens `path` on every rank, for the kernels of the engine; data.tokenizer comes from the config. A run folder means its
 * newest checkpoint; an adapter in PEFT's layout comes with its base (model.path, or the one that it names), a Hugging Face folder with
 * model.adapter, where that is set. The files are read once for all ranks. Errors, the same on all ranks: data, usage. */
espl_status espl_inference_open(espl_comm *comm, const char *path, const espl_config *config, const espl_engine *engine,
                                espl_inference_reach reach, int threads, espl_inference *inference);

/* Local. Closes and zeroes; accepts one that failed to open. */
void espl_inference_close(espl_inference *inference);

#endif
