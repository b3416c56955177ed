/* Tiny Hugging Face folders with goldens from transformers, opened for tests: model, weights, one packed batch of the golden's documents.
 */
#ifndef ESPL_TESTS_TINY_MODELS_H
#define ESPL_TESTS_TINY_MODELS_H

#include "io/safetensors.h"
#include "src/core/buffer.h"
#include "src/model/tape.h"
#include "src/train/weights.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TINY_MOST_TOKENS = 256, TINY_POSITIONS = 40 };

static const char *const tiny_names[] = {"tiny-gpt2", "tiny-llama", "tiny-llama3"};
enum { N_TINY = sizeof tiny_names / sizeof tiny_names[0] };

typedef struct tiny {
    espl_model *model;
    void *weights, *gradients, *act, *work;
    espl_tape tape;
    int32_t ids[TINY_MOST_TOKENS], positions[TINY_MOST_TOKENS], targets[TINY_MOST_TOKENS], segments[8];
    espl_batch batch;
    json_t *golden;
    espl_safetensors *tensors; /* golden.safetensors */
} tiny;

/* Folder of a golden model of this tree; static memory. */
static inline const char *tiny_folder(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/tests/goldens/models/%s", ESPL_SOURCE_DIR, name);
    return path;
}

static inline void tiny_add_token(tiny *t, int32_t *n, int32_t position, int64_t id) {
    t->ids[*n] = (int32_t)id;
    t->positions[*n] = position;
    t->targets[*n] = -1;
    if (position > 0)
        t->targets[*n - 1] = (int32_t)id;
    ++*n;
}

/* Documents that lie one after another: ids [n], segments [s + 1]. */
static inline int32_t tiny_read_packed(tiny *t, const espl_tensor_file *ids, const espl_tensor_file *segments) {
    const int64_t *id = ids->data, *offset = segments->data;
    int32_t n = 0;
    for (int64_t s = 0; s + 1 < segments->shape[0]; s++) {
        t->segments[s] = n;
        for (int64_t i = offset[s]; i < offset[s + 1]; i++)
            tiny_add_token(t, &n, (int32_t)(i - offset[s]), id[i]);
    }
    t->batch.n_segments = (int32_t)segments->shape[0] - 1;
    return n;
}

/* Rows with padding, which is left out: input_ids, attention_mask [rows, length]. */
static inline int32_t tiny_read_padded(tiny *t, const espl_tensor_file *ids, const espl_tensor_file *attention) {
    const int64_t *id = ids->data, *mask = attention->data;
    int64_t rows = ids->shape[0], length = ids->shape[1];
    int32_t n = 0;
    for (int64_t row = 0; row < rows; row++) {
        t->segments[row] = n;
        for (int64_t i = 0; i < length && mask[row * length + i]; i++)
            tiny_add_token(t, &n, (int32_t)i, id[row * length + i]);
    }
    t->batch.n_segments = (int32_t)rows;
    return n;
}

static inline void tiny_read_batch(tiny *t) {
    const espl_tensor_file *packed = espl_safetensors_find(t->tensors, "ids");
    int32_t targets = 0, n = packed != NULL ? tiny_read_packed(t, packed, espl_safetensors_find(t->tensors, "segments"))
                                            : tiny_read_padded(t, espl_safetensors_find(t->tensors, "input_ids"),
                                                               espl_safetensors_find(t->tensors, "attention_mask"));
    t->segments[t->batch.n_segments] = n;
    for (int32_t i = 0; i < n; i++)
        targets += t->targets[i] >= 0;
    t->batch = (espl_batch){.n = n,
                            .n_segments = t->batch.n_segments,
                            .segments = t->segments,
                            .ids = t->ids,
                            .positions = t->positions,
                            .targets = t->targets,
                            .loss_scale = 1.0f / (float)targets};
}

/* Model and weights alone. */
static inline espl_status tiny_open_weights(const char *folder, const espl_kernels *kernels, tiny *t) {
    memset(t, 0, sizeof *t);
    ESPL_TRY(espl_model_make(folder, &(espl_model_options){0}, &t->model));
    ESPL_TRY(espl_model_reach(t->model, TINY_POSITIONS));
    size_t flat = (size_t)espl_model_flat_size(t->model, 1);
    t->weights = espl_calloc(flat, espl_dtype_size(kernels->real));
    t->gradients = espl_calloc(flat, espl_dtype_size(kernels->stat));
    espl_weights weights = {.flat = t->weights, .real = kernels->real, .owner = {.ranks = 1}};
    ESPL_TRY(espl_weights_read(t->model, folder, &weights));
    char *path = espl_format("%s/golden.json", folder);
    t->golden = json_load_file(path, 0, NULL);
    free(path);
    return ESPL_OK;
}

/* The golden's batch, and a tape bound and ready to run. */
static inline espl_status tiny_open(const char *folder, const espl_kernels *kernels, espl_use use, int recompute, tiny *t) {
    ESPL_TRY(tiny_open_weights(folder, kernels, t));
    char *path = espl_format("%s/golden.safetensors", folder);
    espl_status status = espl_safetensors_open(path, &t->tensors);
    free(path);
    ESPL_TRY(status);
    tiny_read_batch(t);
    espl_capacity capacity[ESPL_N_STREAMS] = {{t->batch.n, t->batch.n_segments}};
    espl_tape_make(t->model, kernels, use, recompute, capacity, 2, &t->tape);
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

/* Where a parameter starts in the flat space of one rank, in elements. */
static inline int64_t tiny_start(const tiny *t, const espl_param *p) { return espl_model_bucket_start(t->model, p->bucket, 1) + p->offset; }

static inline double tiny_gradient(const tiny *t, const espl_param *p, int64_t i) {
    return tiny_at(t->gradients, t->tape.kernels->stat, tiny_start(t, p) + i);
}

static inline void tiny_close(tiny *t) {
    json_decref(t->golden);
    espl_safetensors_close(&t->tensors);
    espl_tape_free(&t->tape);
    espl_model_free(&t->model);
    free(t->weights);
    free(t->gradients);
    free(t->act);
    free(t->work);
}

#endif
