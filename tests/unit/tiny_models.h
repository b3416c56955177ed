/* Tiny Hugging Face folders with goldens from transformers, opened for tests: model, weights, one packed batch of the golden's documents.
 */
#ifndef ESPL_TESTS_TINY_MODELS_H
#define ESPL_TESTS_TINY_MODELS_H

#include "io/safetensors/safetensors.h"
#include "src/core/buffer.h"
#include "src/model/tape.h"
#include "src/train/feed/streams.h"
#include "src/train/weights/weights.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TINY_MOST_TOKENS = 256, TINY_POSITIONS = 40 };

/* Those of this tree: decoders first, which can generate. */
static const char *const tiny_names[] = {
    "tiny-gpt2",          "tiny-llama",      "tiny-llama3", "tiny-bert-class", "tiny-bert-mlm", "tiny-distilbert-class",
    "tiny-roberta-class", "tiny-gpt2-class", "tiny-t5",     "tiny-t5-gated"};
enum { N_TINY = sizeof tiny_names / sizeof tiny_names[0], N_TINY_DECODERS = 3 };

typedef struct tiny {
    espl_model *model;
    void *weights, *gradients, *act, *work;
    espl_tape tape;
    espl_sample sample; /* of the golden's documents */
    espl_streams streams;
    espl_batch batch; /* the main stream's */
    json_t *golden;
    espl_safetensors *tensors; /* golden.safetensors */
} tiny;

/* Folder of a golden model of this tree; static memory. */
static inline const char *tiny_folder(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/tests/goldens/models/%s", ESPL_SOURCE_DIR, name);
    return path;
}

/* Integers or floats of the golden as the sample has them; nothing where there are none. */
static inline int64_t tiny_copy(const tiny *t, const char *name, void *to, espl_dtype dtype) {
    const espl_tensor_file *from = espl_safetensors_find(t->tensors, name);
    if (from == NULL)
        return 0;
    espl_dtype_convert(to, dtype, from->data, from->dtype, (size_t)from->shape[0]);
    return from->shape[0];
}

static inline void tiny_number(int32_t n_segments, const int32_t *segments, int32_t *positions) {
    for (int32_t s = 0; s < n_segments; s++)
        for (int32_t i = segments[s]; i < segments[s + 1]; i++)
            positions[i] = i - segments[s];
}

/* A decoder's targets are the next tokens. */
static inline void tiny_shift(espl_sample *s) {
    for (int32_t g = 0; g < s->n_segments; g++)
        for (int32_t i = s->segments[g]; i < s->segments[g + 1]; i++)
            s->targets[i] = i + 1 < s->segments[g + 1] ? s->ids[i + 1] : -1;
}

/* Documents that lie one after another: ids [n], segments [s + 1]. */
static inline void tiny_read_packed(tiny *t) {
    espl_sample *s = &t->sample;
    s->n = tiny_copy(t, "ids", s->ids, ESPL_I32);
    s->n_segments = (int32_t)tiny_copy(t, "segments", s->segments, ESPL_I32) - 1;
    s->source.n = tiny_copy(t, "source_ids", s->source.ids, ESPL_I32);
    tiny_copy(t, "types", s->types, ESPL_I32);
    tiny_copy(t, "labels", s->labels, ESPL_I32);
    tiny_copy(t, "weights", s->label_weights, ESPL_F32);
    if (tiny_copy(t, "source_segments", s->source.segments, ESPL_I32) > 0)
        tiny_number(s->n_segments, s->source.segments, s->source.positions);
    if (tiny_copy(t, "targets", s->targets, ESPL_I32) == 0)
        tiny_shift(s);
}

/* Rows with padding, which is left out: input_ids, attention_mask [rows, length]. */
static inline void tiny_read_padded(tiny *t) {
    const espl_tensor_file *ids = espl_safetensors_find(t->tensors, "input_ids"),
                           *attention = espl_safetensors_find(t->tensors, "attention_mask");
    const int64_t *id = ids->data, *mask = attention->data;
    int64_t rows = ids->shape[0], length = ids->shape[1];
    espl_sample *s = &t->sample;
    for (int64_t row = 0; row < rows; row++) {
        s->segments[row] = (int32_t)s->n;
        for (int64_t i = 0; i < length && mask[row * length + i]; i++)
            s->ids[s->n++] = (int32_t)id[row * length + i];
    }
    s->n_segments = (int32_t)rows;
    s->segments[rows] = (int32_t)s->n;
    tiny_shift(s);
}

/* What the sum of losses is divided by. */
static inline double tiny_weight(const tiny *t) {
    const espl_batch *rows = espl_tape_stream(&t->streams.main, t->model->rows[t->model->n_rows - 1].attrs.stream);
    double weight = 0.0;
    for (int64_t i = 0; i < rows->n; i++)
        weight += rows->targets[i] < 0 ? 0.0 : rows->weights != NULL ? (double)rows->weights[i] : 1.0;
    return weight;
}

static inline void tiny_fill(tiny *t) {
    espl_streams_fill(t->model, &t->sample, &(espl_batch){0}, &t->streams);
    espl_batch common = {.loss_scale = (float)(1.0 / tiny_weight(t))};
    espl_streams_fill(t->model, &t->sample, &common, &t->streams);
    t->batch = t->streams.main;
}

static inline espl_status tiny_read_batch(tiny *t) {
    espl_room room = {.tokens = TINY_MOST_TOKENS, .source_tokens = TINY_MOST_TOKENS, .sequences = 8};
    ESPL_TRY(espl_sample_make(&room, &t->sample));
    for (int64_t s = 0; s < room.sequences; s++)
        t->sample.label_weights[s] = 1.0f;
    if (espl_safetensors_find(t->tensors, "ids") != NULL)
        tiny_read_packed(t);
    else
        tiny_read_padded(t);
    tiny_number(t->sample.n_segments, t->sample.segments, t->sample.positions);
    tiny_fill(t);
    return ESPL_OK;
}

/* Model and weights alone; NULL: all of it is trained. */
static inline espl_status tiny_open_weights(const char *folder, const espl_kernels *kernels, const espl_model_options *options, tiny *t) {
    memset(t, 0, sizeof *t);
    ESPL_TRY(espl_weights_model(folder, options != NULL ? options : &(espl_model_options){0}, &t->model));
    const int64_t positions = espl_model_positions(t->model);
    ESPL_TRY(espl_model_reach(t->model, positions < TINY_POSITIONS ? positions : TINY_POSITIONS));
    size_t flat = (size_t)espl_model_flat_size(t->model, 1);
    t->weights = espl_calloc(1, espl_model_weights_bytes(t->model, 1, kernels->real));
    t->gradients = espl_calloc(flat, espl_dtype_size(kernels->stat));
    espl_weights weights = {.flat = t->weights, .real = kernels->real, .owner = espl_owner_alone};
    ESPL_TRY(espl_weights_read(t->model, folder, 0, &weights));
    char *path = espl_format("%s/golden.json", folder);
    t->golden = json_load_file(path, 0, NULL);
    free(path);
    return ESPL_OK;
}

/* The golden's batch, and a tape bound and ready to run. */
static inline espl_status tiny_open_with(const char *folder, const espl_kernels *kernels, espl_use use, int recompute,
                                         const espl_model_options *options, tiny *t) {
    ESPL_TRY(tiny_open_weights(folder, kernels, options, t));
    char *path = espl_format("%s/golden.safetensors", folder);
    espl_status status = espl_safetensors_open(path, &t->tensors);
    free(path);
    ESPL_TRY(status);
    ESPL_TRY(tiny_read_batch(t));
    espl_room room = {.tokens = t->sample.n, .source_tokens = t->sample.source.n, .sequences = t->sample.n_segments};
    espl_capacity capacity[ESPL_N_STREAMS];
    espl_streams_capacity(t->model, &room, capacity);
    espl_tape_make(t->model, kernels, use, recompute, t->model->n_phases - 1, capacity, 2, &t->tape);
    t->act = espl_calloc(1, t->tape.act_bytes);
    t->work = espl_calloc(1, t->tape.work_bytes);
    espl_places places = {.weights = t->weights, .gradients = t->gradients, .ranks = 1, .act = t->act, .work = t->work};
    espl_tape_bind(&t->tape, &places);
    return ESPL_OK;
}

static inline espl_status tiny_open(const char *folder, const espl_kernels *kernels, espl_use use, int recompute, tiny *t) {
    return tiny_open_with(folder, kernels, use, recompute, NULL, t);
}

/* Gives row i of the model's soft prompt the embedding of ids[i]. */
static inline void tiny_fill_prompt(tiny *t, const espl_kernels *kernels, const int32_t *ids) {
    size_t real = espl_dtype_size(kernels->real), width = (size_t)t->model->dims.width * real;
    for (int i = 0; i < t->model->n_params; i++) {
        const espl_param *p = &t->model->params[i];
        for (int64_t row = 0; p->role == ESPL_ROLE_PROMPT && row < p->shape[0]; row++)
            memcpy((char *)t->weights + (size_t)espl_model_place(t->model, i, 1) * real + (size_t)row * width,
                   (char *)t->weights + (size_t)espl_model_place(t->model, p->adapts, 1) * real + (size_t)ids[row] * width, width);
    }
}

/* The prefix of the model gets random numbers. */
static inline void tiny_fill_prefix(tiny *t, const espl_kernels *kernels) {
    int param = 0;
    while (t->model->params[param].role != ESPL_ROLE_PREFIX)
        param++;
    size_t n = (size_t)t->model->params[param].numel;
    float *values = espl_malloc(n * sizeof *values);
    espl_model_init_range(t->model, param, 7, 0, (int64_t)n, values);
    espl_dtype_convert((char *)t->weights + espl_model_weights_at(t->model, param, 1, kernels->real), kernels->real, values, ESPL_F32, n);
    free(values);
}

static inline double tiny_at(const void *base, espl_dtype dtype, int64_t i) {
    return dtype == ESPL_F64 ? ((const double *)base)[i] : (double)((const float *)base)[i];
}

/* Mean loss of the batch as the last run left it. */
static inline double tiny_loss(const tiny *t) {
    double sum = 0.0;
    const espl_batch *rows = espl_tape_stream(&t->batch, t->tape.lives[t->tape.loss].stream);
    for (int64_t i = 0; i < rows->n; i++)
        sum += tiny_at(espl_tape_buffer(&t->tape, t->tape.loss), t->tape.kernels->stat, i);
    return sum * (double)t->batch.loss_scale;
}

/* Where a parameter starts in the flat space of one rank, in elements. */
static inline int64_t tiny_start(const tiny *t, const espl_param *p) { return espl_model_place(t->model, (int)(p - t->model->params), 1); }

static inline double tiny_gradient(const tiny *t, const espl_param *p, int64_t i) {
    return tiny_at(t->gradients, t->tape.kernels->stat, tiny_start(t, p) + i);
}

static inline void tiny_close(tiny *t) {
    json_decref(t->golden);
    espl_sample_free(&t->sample);
    espl_safetensors_close(&t->tensors);
    espl_tape_free(&t->tape);
    espl_model_free(&t->model);
    free(t->weights);
    free(t->gradients);
    free(t->act);
    free(t->work);
}

#endif
