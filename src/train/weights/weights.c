#include "src/train/weights/weights.h"

#include "io/checkpoint/checkpoint.h"
#include "io/safetensors/safetensors.h"
#include "src/core/buffer.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

espl_status espl_weights_pretrained(const espl_config *config, bool *pretrained) {
    bool there = config->model_path[0] != '\0' && espl_safetensors_exist(config->model_path);
    if (config->model_path[0] == '\0' && config->model_config[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "neither model.path nor model.config is set: a Hugging Face folder, or a config.json to start from scratch, is needed");
    if (config->model_init == ESPL_INIT_PRETRAINED && !there)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model.init is pretrained, but the folder holds no model.safetensors or model.safetensors.index.json",
                  config->model_path[0] != '\0' ? config->model_path : "model.path");
    *pretrained = there && config->model_init != ESPL_INIT_RANDOM;
    return ESPL_OK;
}

/* Whether they hold a head of its own is asked for the few families whose config.json does not tell; a folder without weights leaves it
 * open. */
static espl_status own_head_of(const char *path, espl_own_head *own_head) {
    espl_safetensors *set = NULL;
    *own_head = ESPL_OWN_HEAD_UNKNOWN;
    if (!espl_safetensors_exist(path))
        return ESPL_OK;
    ESPL_TRY(espl_safetensors_open(path, &set));
    *own_head = espl_safetensors_find(set, "lm_head.weight") != NULL ? ESPL_OWN_HEAD_STORED : ESPL_OWN_HEAD_ABSENT;
    espl_safetensors_close(&set);
    return ESPL_OK;
}

espl_status espl_weights_model(const char *path, const espl_model_options *options, espl_model **model) {
    espl_model_options own = *options;
    ESPL_TRY(own_head_of(path, &own.own_head));
    return espl_model_make(path, &own, model);
}

/* ---- Placing a range of a parameter. */

/* Quantised here, straight to where it stays when the host can write there. */
static espl_status place_quantised(const espl_model *model, const espl_weights *w, int param, const void *data, espl_dtype dtype) {
    espl_quant quant = espl_model_quant(model, param);
    char *to = (char *)w->flat + espl_owner_weights_at(model, &w->owner, param, w->real);
    if (w->engine == NULL || !w->engine->calls->remote) {
        espl_quantise(&quant, 0, data, dtype, to);
        return ESPL_OK;
    }
    size_t bytes = espl_quant_bytes(&quant);
    void *quantised = espl_malloc(bytes);
    espl_quantise(&quant, 0, data, dtype, quantised);
    espl_status status = w->engine->calls->write(w->engine->device, to, quantised, bytes);
    free(quantised);
    return status;
}

static espl_status place(const espl_model *model, const espl_weights *w, const espl_segment *mine, int param, const void *data,
                         espl_dtype dtype) {
    const espl_param *p = &model->params[param];
    if (w->hashes != NULL)
        w->hashes[param] = XXH3_64bits_withSeed(data, (size_t)p->numel * espl_dtype_size(dtype), XXH3_64bits(p->name, strlen(p->name)));
    if (p->quant != ESPL_QUANT_NONE)
        return place_quantised(model, w, param, data, dtype);
    const bool cut = w->owner.cut && !p->frozen;
    const void *own = (const char *)data + (size_t)mine->begin * espl_dtype_size(dtype);
    const size_t n = mine->end > mine->begin ? (size_t)(mine->end - mine->begin) : 0;
    if (cut && n > 0)
        ESPL_TRY(espl_engine_put(w->engine, (char *)w->flat + (size_t)mine->weight * espl_dtype_size(w->real), w->real, own, dtype, n));
    if (!cut)
        ESPL_TRY(espl_engine_put(w->engine, (char *)w->flat + espl_owner_weights_at(model, &w->owner, param, w->real), w->real, data, dtype,
                                 (size_t)p->numel));
    return w->master != NULL && n > 0 ? espl_engine_put(w->engine, w->master + mine->state, ESPL_F32, own, dtype, n) : ESPL_OK;
}

static bool is_wanted(const espl_weights *w, int param) { return w->wanted == NULL || w->wanted[param]; }

/* ---- From safetensors. */

/* Files of a bare model lack the prefix. */
static const espl_tensor_file *find_name(const espl_safetensors *set, const espl_model *model, const char *name) {
    const espl_tensor_file *found = espl_safetensors_find(set, name);
    size_t prefix = strlen(model->family->prefix);
    if (found == NULL && strncmp(name, model->family->prefix, prefix) == 0)
        found = espl_safetensors_find(set, name + prefix);
    return found;
}

/* The first BERTs call the weight and bias of a LayerNorm gamma and beta. */
static const espl_tensor_file *find_tensor(const espl_safetensors *set, const espl_model *model, const espl_param *p) {
    const espl_tensor_file *found = find_name(set, model, p->name);
    const char *norm = strstr(p->name, "LayerNorm.");
    if (found != NULL || norm == NULL)
        return found;
    norm += strlen("LayerNorm.");
    char *old = espl_format("%.*s%s", (int)(norm - p->name), p->name, strcmp(norm, "weight") == 0 ? "gamma" : "beta");
    found = find_name(set, model, old);
    free(old);
    return found;
}

static void describe_shape(const int64_t *shape, int n, char text[64]) {
    int used = snprintf(text, 64, "[");
    for (int i = 0; i < n && used < 60; i++)
        used += snprintf(text + used, (size_t)(64 - used), "%s%lld", i > 0 ? ", " : "", (long long)shape[i]);
    snprintf(text + used, (size_t)(64 - used), "]");
}

static espl_status check_shape(const espl_tensor_file *t, const espl_param *p, const char *folder) {
    bool same = t->n_dims == p->n_dims && t->shape[0] == p->shape[0] && (p->n_dims < 2 || t->shape[1] == p->shape[1]);
    char found[64], wanted[64];
    if (same)
        return ESPL_OK;
    describe_shape(t->shape, t->n_dims, found);
    describe_shape(p->shape, p->n_dims, wanted);
    ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s' has shape %s, but config.json makes it %s", folder, t->name, found, wanted);
}

static bool all_finite(const void *data, espl_dtype dtype, int64_t n) {
    float block[1024];
    size_t size = espl_dtype_size(dtype);
    for (int64_t at = 0; at < n; at += 1024) {
        int64_t count = n - at < 1024 ? n - at : 1024;
        float sum = 0.0f; /* of x - x: 0 unless one is NaN or infinite */
        espl_dtype_convert(block, ESPL_F32, (const char *)data + (size_t)at * size, dtype, (size_t)count);
        for (int64_t i = 0; i < count; i++)
            sum += block[i] - block[i];
        if (!(sum == 0.0f))
            return false;
    }
    return true;
}

static espl_status take(const espl_model *model, int param, const espl_tensor_file *t, const char *folder, const espl_segment *mine,
                        const espl_weights *weights) {
    const espl_param *p = &model->params[param];
    ESPL_TRY(check_shape(t, p, folder));
    if (!all_finite(t->data, t->dtype, p->numel))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s' holds a NaN or an infinity; training from it cannot work", folder, t->name);
    return place(model, weights, mine, param, t->data, t->dtype);
}

static espl_status init_param(const espl_model *model, int param, uint64_t seed, const espl_segment *mine, const espl_weights *weights) {
    int64_t n = model->params[param].numel;
    float *whole = espl_malloc((size_t)n * sizeof *whole);
    espl_model_init_range(model, param, seed, 0, n, whole);
    espl_status status = place(model, weights, mine, param, whole, ESPL_F32);
    free(whole);
    return status;
}

/* What is read from where. */
typedef struct reading {
    const espl_model *model;
    const char *folder;
    const espl_weights *weights;
    uint64_t seed;
    espl_safetensors *set;
    bool *used;          /* [tensors of the set] */
    espl_buffer missing; /* names of a head's parameters that the files lack */
    int n_missing;
} reading;

static void mark_used(reading *r, const espl_tensor_file *tensor) {
    for (int64_t i = 0; i < espl_safetensors_count(r->set); i++)
        r->used[i] = r->used[i] || espl_safetensors_at(r->set, i) == tensor;
}

static espl_status read_param(reading *r, int param, const espl_segment *mine) {
    const espl_param *p = &r->model->params[param];
    const espl_tensor_file *t = find_tensor(r->set, r->model, p);
    if (t == NULL && p->adapts >= 0)
        return init_param(r->model, param, r->seed, mine, r->weights);
    if (t == NULL && p->frozen && p->head)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: holds no '%s', which then starts from random values, but tune.train leaves it frozen; add head to it", r->folder,
                  p->name);
    if (t == NULL && p->head && r->model->new_head) {
        espl_buffer_printf(&r->missing, "%s%s", r->n_missing++ > 0 ? ", " : "", p->name);
        return init_param(r->model, param, r->seed, mine, r->weights);
    }
    if (t == NULL)
        ESPL_TRY(espl_safetensors_require(r->set, p->name, &t)); /* says which file and why */
    mark_used(r, t);
    return take(r->model, param, t, r->folder, mine, r->weights);
}

static void report(const reading *r) {
    enum { NAMED = 6 };
    int64_t count = espl_safetensors_count(r->set), unused = 0;
    espl_buffer names = {0};
    if (r->n_missing > 0)
        ESPL_INFO("%s: holds no weights for %d tensors of the head, which start anew: %s", r->folder, r->n_missing, r->missing.data);
    for (int64_t i = 0; i < count && r->weights->wanted == NULL; i++)
        if (!r->used[i] && unused++ < NAMED)
            espl_buffer_printf(&names, "%s%s", unused > 1 ? ", " : "", espl_safetensors_at(r->set, i)->name);
    if (unused > 0)
        ESPL_INFO("%s: %lld of %lld tensors are not this model's and are left alone: %s%s", r->folder, (long long)unused, (long long)count,
                  names.data, unused > NAMED ? ", ..." : "");
    espl_buffer_free(&names);
}

espl_status espl_weights_read(const espl_model *model, const char *folder, uint64_t seed, const espl_weights *weights) {
    reading r = {.model = model, .folder = folder, .weights = weights, .seed = seed};
    espl_segment *segments = NULL;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_safetensors_open(folder, &r.set));
    r.used = espl_calloc((size_t)espl_safetensors_count(r.set) + 1, sizeof *r.used);
    espl_owner_updates(model, &weights->owner, &segments);
    for (int i = 0; i < model->n_params; i++)
        if (is_wanted(weights, i))
            ESPL_TRY_DONE(read_param(&r, i, &segments[i]));
    report(&r);
done:
    espl_buffer_free(&r.missing);
    espl_safetensors_close(&r.set);
    free(r.used);
    free(segments);
    return status;
}

espl_status espl_weights_take(const espl_model *model, int param, const espl_tensor_file *tensor, const char *folder,
                              const espl_weights *weights) {
    espl_segment *segments;
    espl_owner_updates(model, &weights->owner, &segments);
    espl_status status = take(model, param, tensor, folder, &segments[param], weights);
    free(segments);
    return status;
}

/* ---- From a checkpoint. */

typedef struct taking {
    const espl_model *model;
    const espl_weights *weights;
    const espl_segment *segments;
    const char *path;
    bool *held; /* [n_params] */
} taking;

static espl_status take_tensor(const espl_tensor_out *t, void *context) {
    const taking *k = context;
    int i = 0;
    while (i < k->model->n_params && strcmp(k->model->params[i].name, t->name) != 0)
        i++;
    if (i == k->model->n_params)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: holds a tensor '%s', which this model has not; export it and start from that by model.path", k->path,
                  t->name);
    k->held[i] = true;
    if (!is_wanted(k->weights, i))
        return ESPL_OK;
    const espl_tensor_file tensor = {.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims, .shape = {t->shape[0], t->shape[1]}};
    ESPL_TRY(check_shape(&tensor, &k->model->params[i], k->path));
    return place(k->model, k->weights, &k->segments[i], i, t->data, t->dtype);
}

espl_status espl_weights_from_checkpoint(const espl_model *model, const char *path, const espl_weights *weights, bool *held) {
    espl_segment *segments;
    espl_owner_updates(model, &weights->owner, &segments);
    memset(held, 0, (size_t)model->n_params * sizeof *held);
    taking k = {.model = model, .weights = weights, .segments = segments, .path = path, .held = held};
    espl_status status = espl_checkpoint_visit(path, "model", take_tensor, &k);
    free(segments);
    return status;
}

/* ---- Random. */

espl_status espl_weights_init(const espl_model *model, uint64_t seed, const espl_weights *weights) {
    espl_segment *segments;
    espl_status status = ESPL_OK;
    espl_owner_updates(model, &weights->owner, &segments);
    for (int i = 0; i < model->n_params && status == ESPL_OK; i++)
        if (is_wanted(weights, i))
            status = init_param(model, i, seed, &segments[i], weights);
    free(segments);
    return status;
}

espl_status espl_weights_from_master(const espl_model *model, const espl_weights *weights) {
    espl_segment *segments;
    espl_status status = ESPL_OK;
    if (weights->master == NULL)
        return ESPL_OK;
    int n = espl_owner_updates(model, &weights->owner, &segments);
    for (int i = 0; i < n && status == ESPL_OK; i++)
        status = espl_engine_convert(weights->engine, (char *)weights->flat + (size_t)segments[i].weight * espl_dtype_size(weights->real),
                                     weights->real, weights->master + segments[i].state, ESPL_F32,
                                     (size_t)(segments[i].end - segments[i].begin));
    free(segments);
    return status;
}
