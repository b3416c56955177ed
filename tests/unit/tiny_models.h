/* Tiny Hugging Face folders with goldens from transformers, opened for tests: model, weights, one packed batch of the golden's texts. */
#ifndef ESPL_TESTS_TINY_MODELS_H
#define ESPL_TESTS_TINY_MODELS_H

#include "io/safetensors.h"
#include "src/core/buffer.h"
#include "src/model/tape.h"
#include "src/train/weights.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { TINY_MOST_TOKENS = 256 };

typedef struct tiny {
    espl_model *model;
    void *weights, *gradients, *act, *work;
    espl_tape tape;
    int32_t ids[TINY_MOST_TOKENS], positions[TINY_MOST_TOKENS], targets[TINY_MOST_TOKENS], segments[8];
    espl_batch batch;
    json_t *golden;
} tiny;

/* Folder of a tiny model, or NULL when the shared data are not there; static memory. */
static inline const char *tiny_folder(const char *name) {
    static char path[4096];
    const char *shared = getenv("ESPL_SHARED_DATA");
    snprintf(path, sizeof path, "%s/models/tiny/%s", shared != NULL ? shared : ESPL_SOURCE_DIR "/../shared/data", name);
    FILE *file = fopen(espl_format("%s/config.json", path), "r");
    if (file == NULL)
        return NULL;
    fclose(file);
    return path;
}

/* Packs the golden's padded rows: each sequence a segment, targets the next token, the rows' padding left out. */
static inline void tiny_pack(tiny *t, const espl_safetensors *golden) {
    const int64_t *ids = espl_safetensors_find(golden, "input_ids")->data, *mask = espl_safetensors_find(golden, "attention_mask")->data;
    const espl_tensor_file *shape = espl_safetensors_find(golden, "input_ids");
    int32_t n = 0, targets = 0;
    for (int64_t row = 0; row < shape->shape[0]; row++) {
        t->segments[row] = n;
        for (int64_t i = 0; i < shape->shape[1] && mask[row * shape->shape[1] + i]; i++) {
            t->ids[n] = (int32_t)ids[row * shape->shape[1] + i];
            t->positions[n] = (int32_t)i;
            t->targets[n] = -1;
            if (i > 0) {
                t->targets[n - 1] = t->ids[n];
                targets++;
            }
            n++;
        }
    }
    t->segments[shape->shape[0]] = n;
    t->batch = (espl_batch){.n = n, .n_segments = (int32_t)shape->shape[0], .segments = t->segments, .ids = t->ids, .positions = t->positions,
                            .targets = t->targets, .loss_scale = 1.0f / (float)targets};
}

static inline espl_status tiny_open(const char *folder, const espl_kernels *kernels, int recompute, tiny *t) {
    espl_safetensors *golden = NULL;
    char *path = espl_format("%s/golden.safetensors", folder);
    memset(t, 0, sizeof *t);
    ESPL_TRY(espl_model_make(folder, 0.0, &t->model));
    ESPL_TRY(espl_model_reach(t->model, 64));
    size_t flat = (size_t)espl_model_flat_size(t->model, 1);
    t->weights = espl_calloc(flat, espl_dtype_size(kernels->real));
    t->gradients = espl_calloc(flat, espl_dtype_size(kernels->stat));
    espl_weights weights = {.flat = t->weights, .real = kernels->real, .owner = {.ranks = 1}};
    ESPL_TRY(espl_weights_read(t->model, folder, &weights));
    ESPL_TRY(espl_safetensors_open(path, &golden));
    tiny_pack(t, golden);
    espl_safetensors_close(&golden);
    free(path);
    path = espl_format("%s/golden.json", folder);
    t->golden = json_load_file(path, 0, NULL);
    free(path);
    espl_tape_make(t->model, kernels, ESPL_USE_TRAIN, recompute, t->batch.n, 2, &t->tape);
    t->act = espl_calloc(1, t->tape.act_bytes);
    t->work = espl_calloc(1, t->tape.work_bytes);
    espl_places places = {.weights = t->weights, .gradients = t->gradients, .ranks = 1, .act = t->act, .work = t->work};
    espl_tape_bind(&t->tape, &places);
    return ESPL_OK;
}

static inline double tiny_at(const void *base, espl_dtype dtype, int64_t i) {
    return dtype == ESPL_F64 ? ((const double *)base)[i] : (double)((const float *)base)[i];
}

/* Mean loss of the batch as the last run left it. */
static inline double tiny_loss(const tiny *t) {
    double sum = 0.0;
    for (int64_t i = 0; i < t->batch.n; i++)
        sum += tiny_at(espl_tape_buffer(&t->tape, t->tape.loss), t->tape.kernels->stat, i);
    return sum * (double)t->batch.loss_scale;
}

static inline void tiny_close(tiny *t) {
    json_decref(t->golden);
    espl_tape_free(&t->tape);
    espl_model_free(&t->model);
    free(t->weights);
    free(t->gradients);
    free(t->act);
    free(t->work);
}

#endif
