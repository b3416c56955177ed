#include "src/train/weights/adapter.h"

#include "src/core/buffer.h"
#include "src/model/low_rank.h"
#include "src/train/weights/base.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- In a record. */

static json_t *list_of(const espl_strings *strings) {
    json_t *list = json_array();
    for (int64_t i = 0; i < strings->n; i++)
        json_array_append_new(list, json_string(strings->items[i]));
    return list;
}

static espl_strings strings_of(const json_t *list) {
    espl_strings strings = {.n = (int64_t)json_array_size(list)};
    strings.items = espl_calloc((size_t)strings.n + 1, sizeof *strings.items);
    for (int64_t i = 0; i < strings.n; i++) {
        const char *item = json_string_value(json_array_get(list, (size_t)i));
        strings.items[i] = espl_strdup(item != NULL ? item : "");
    }
    return strings;
}

static void free_strings(espl_strings *strings) {
    for (int64_t i = 0; i < strings->n; i++)
        free(strings->items[i]);
    free(strings->items);
}

static json_t *describe_bottleneck(const espl_bottleneck_options *options) {
    return json_pack("{s:s, s:I, s:s, s:s}", "method", "bottleneck", "bottleneck", (json_int_t)options->width, "bottleneck_activation",
                     espl_config_choice("tune", "bottleneck_activation", options->activation), "bottleneck_at",
                     espl_config_choice("tune", "bottleneck_at", options->mlp_only ? ESPL_BOTTLENECK_AT_MLP : ESPL_BOTTLENECK_AT_BOTH));
}

static json_t *describe_lora(const espl_config *config) {
    return json_pack("{s:s, s:I, s:f, s:f, s:b, s:o, s:o, s:o}", "method", espl_config_choice("tune", "method", config->tune_method),
                     "rank", (json_int_t)config->tune_rank, "alpha", config->tune_alpha, "dropout", config->tune_dropout, "rank_stabilised",
                     config->tune_rank_stabilised, "targets", list_of(&config->tune_targets), "ranks", list_of(&config->tune_ranks),
                     "alphas", list_of(&config->tune_alphas));
}

json_t *espl_adapter_describe(const espl_config *config) {
    espl_model_options options = espl_model_options_of(config);
    if (options.prompt.length > 0)
        return json_pack("{s:s, s:I}", "method", espl_config_choice("tune", "method", config->tune_method), "prompt_length",
                         (json_int_t)options.prompt.length);
    return options.lora.rank > 0 ? describe_lora(config) : options.bottleneck.width > 0 ? describe_bottleneck(&options.bottleneck) : NULL;
}

/* What a record says of a method; zeroed: none. */
typedef struct adapter {
    espl_lora_options lora; /* its lists are those below */
    espl_strings targets, ranks, alphas;
    espl_bottleneck_options bottleneck;
    espl_prompt_options prompt;
} adapter;

static espl_status read_bottleneck(const json_t *about, const char *path, espl_bottleneck_options *options) {
    json_int_t width = 0;
    const char *activation, *at;
    int which = -1, where = -1;
    if (json_unpack((json_t *)(uintptr_t)about, "{s:I, s:s, s:s}", "bottleneck", &width, "bottleneck_activation", &activation,
                    "bottleneck_at", &at) == 0) {
        which = espl_config_choice_of("tune", "bottleneck_activation", activation);
        where = espl_config_choice_of("tune", "bottleneck_at", at);
    }
    if (width < 1 || which < 0 || where < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: what its record says of the adapters cannot be read", path);
    *options = (espl_bottleneck_options){.width = width, .activation = which, .mlp_only = where == ESPL_BOTTLENECK_AT_MLP};
    return ESPL_OK;
}

static espl_status read_lora(const json_t *about, const char *path, adapter *out) {
    espl_lora_options *lora = &out->lora;
    json_int_t rank;
    json_t *targets;
    int stabilised;
    const char *method = json_string_value(json_object_get(about, "method"));
    if (json_unpack((json_t *)(uintptr_t)about, "{s:I, s:F, s:F, s:b, s:o}", "rank", &rank, "alpha", &lora->alpha, "dropout",
                    &lora->dropout, "rank_stabilised", &stabilised, "targets", &targets) != 0 ||
        !json_is_array(targets))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: what its record says of the adapter cannot be read", path);
    lora->rank = rank;
    lora->rank_stabilised = stabilised;
    lora->magnitudes = method != NULL && strcmp(method, "dora") == 0;
    out->targets = strings_of(targets);
    out->ranks = strings_of(json_object_get(about, "ranks"));
    out->alphas = strings_of(json_object_get(about, "alphas"));
    lora->targets = out->targets.items;
    lora->n_targets = out->targets.n;
    lora->ranks = out->ranks.items;
    lora->n_ranks = out->ranks.n;
    lora->alphas = out->alphas.items;
    lora->n_alphas = out->alphas.n;
    return ESPL_OK;
}

static espl_status read_prompt(const json_t *about, const char *path, bool prefix, espl_prompt_options *options) {
    options->prefix = prefix;
    options->length = (int64_t)json_integer_value(json_object_get(about, "prompt_length"));
    if (options->length < 1)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: what its record says of the %s cannot be read", path, prefix ? "prefix" : "soft prompt");
    return ESPL_OK;
}

static espl_status read_record(const json_t *record, const char *path, adapter *out) {
    const json_t *about = json_object_get(record, "adapter");
    const char *method = json_string_value(json_object_get(about, "method"));
    if (about == NULL)
        return ESPL_OK;
    bool prefix = method != NULL && strcmp(method, "prefix") == 0;
    if (prefix || (method != NULL && strcmp(method, "prompt") == 0))
        return read_prompt(about, path, prefix, &out->prompt);
    return method != NULL && strcmp(method, "bottleneck") == 0 ? read_bottleneck(about, path, &out->bottleneck)
                                                               : read_lora(about, path, out);
}

espl_status espl_adapter_model(const json_t *record, const char *path, espl_model **model) {
    json_t *config = json_object_get(record, "model_config");
    adapter updates = {0};
    if (!json_is_object(config))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: the record holds no model_config", path);
    espl_model_options options = {0};
    espl_status status = read_record(record, path, &updates);
    if (status == ESPL_OK)
        status = espl_base_held(record, path, &options);
    options.lora = updates.lora;
    options.bottleneck = updates.bottleneck;
    options.prompt = updates.prompt;
    if (status == ESPL_OK)
        status = espl_model_make_json(config, path, &options, model);
    free((void *)(uintptr_t)options.train);
    free_strings(&updates.targets);
    free_strings(&updates.ranks);
    free_strings(&updates.alphas);
    return status;
}

/* Dropout may change in the middle of a run. */
static const char *const settled[] = {
    "method",        "targets",      "rank", "ranks", "alpha", "alphas", "rank_stabilised", "bottleneck", "bottleneck_activation",
    "bottleneck_at", "prompt_length"};

static espl_status compare(const json_t *about, const char *path, const json_t *own) {
    for (size_t i = 0; i < sizeof settled / sizeof *settled; i++) {
        json_t *theirs = json_object_get(about, settled[i]), *ours = json_object_get(own, settled[i]);
        if (theirs == NULL || json_equal(theirs, ours))
            continue;
        char *was = json_dumps(theirs, JSON_ENCODE_ANY), *is = json_dumps(ours, JSON_ENCODE_ANY);
        espl_status status = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__,
                                              "%s: its tune.%s is %s, this run's is %s; set it as it was", path, settled[i], was, is);
        free(was);
        free(is);
        return status;
    }
    return ESPL_OK;
}

static const char *method_of(const json_t *about) { return about != NULL ? json_string_value(json_object_get(about, "method")) : "full"; }

espl_status espl_adapter_check(const json_t *record, const char *path, const espl_config *config) {
    const json_t *about = json_object_get(record, "adapter");
    json_t *own = espl_adapter_describe(config);
    espl_status status = ESPL_OK;
    if ((about == NULL) != (own == NULL))
        status = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__,
                                  "%s: its tune.method is %s, this run's is %s; set it as it was, or export it and start from model.path",
                                  path, method_of(about), method_of(own));
    else if (own != NULL)
        status = compare(about, path, own);
    json_decref(own);
    return status;
}

/* ---- Merging. */

static espl_tensor_out *find(const espl_collection *all, const char *name) {
    for (int64_t i = 0; i < all->n; i++)
        if (strcmp(all->items[i].name, name) == 0)
            return &all->items[i];
    return NULL;
}

static float *as_floats(const espl_tensor_out *tensor, espl_dtype dtype) {
    size_t n = (size_t)(tensor->shape[0] * (tensor->n_dims > 1 ? tensor->shape[1] : 1));
    float *values = espl_malloc(n * sizeof *values);
    espl_dtype_convert(values, ESPL_F32, tensor->data, dtype, n);
    return values;
}

/* W[o][i], or W[i][o], += scale sum over r of B[o][r] A[r][i] */
static void add_product(const espl_tensor_out *a, const espl_tensor_out *b, espl_dtype dtype, float scale, bool out_in, float *w) {
    int64_t outputs = b->shape[0], rank = b->shape[1], inputs = a->shape[1];
    float *down = as_floats(a, dtype), *up = as_floats(b, dtype);
    for (int64_t o = 0; o < outputs; o++)
        for (int64_t i = 0; i < inputs; i++) {
            double sum = 0.0;
            for (int64_t r = 0; r < rank; r++)
                sum += (double)up[o * rank + r] * (double)down[r * inputs + i];
            w[out_in ? o * inputs + i : i * outputs + o] += (float)((double)scale * sum);
        }
    free(down);
    free(up);
}

/* W's rows, of an output each, get the lengths m. */
static void set_lengths(const float *m, int64_t outputs, int64_t inputs, bool out_in, float *w) {
    for (int64_t o = 0; o < outputs; o++) {
        double squares = 0.0;
        for (int64_t i = 0; i < inputs; i++) {
            double x = (double)w[out_in ? o * inputs + i : i * outputs + o];
            squares += x * x;
        }
        for (int64_t i = 0; i < inputs; i++)
            w[out_in ? o * inputs + i : i * outputs + o] *= (float)((double)m[o] / sqrt(squares));
    }
}

static void take_out(espl_collection *all, espl_tensor_out *tensor) {
    memmove(tensor, tensor + 1, (size_t)(all->items + all->n - tensor - 1) * sizeof *tensor);
    all->n--;
}

static void merge(const espl_model *model, const espl_param *p, const espl_collection *all, espl_tensor_out *matrix) {
    bool out_in = model->family->weight_layout == ESPL_OUT_IN;
    const espl_tensor_out *a = find(all, model->params[p->lora_a].name), *b = find(all, model->params[p->lora_b].name);
    float *w = as_floats(matrix, all->dtype);
    add_product(a, b, all->dtype, espl_lora_scale(model, p->lora_a), out_in, w);
    if (p->magnitude >= 0) {
        float *m = as_floats(find(all, model->params[p->magnitude].name), all->dtype);
        set_lengths(m, b->shape[0], a->shape[1], out_in, w);
        free(m);
    }
    espl_dtype_convert((void *)(uintptr_t)matrix->data, all->dtype, w, ESPL_F32, (size_t)p->numel);
    free(w);
}

void espl_adapter_merge(const espl_model *model, espl_collection *all) {
    for (int i = 0; i < model->n_params; i++) {
        const espl_param *p = &model->params[i];
        if (p->lora_a >= 0)
            merge(model, p, all, find(all, p->name));
    }
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].adapts >= 0)
            take_out(all, find(all, model->params[i].name));
}

/* ---- As an adapter. */

static json_t *target_modules(const espl_model *model) {
    json_t *modules = json_array();
    for (int i = 0; i < model->n_params; i++) {
        const espl_param *p = &model->params[i];
        if (p->lora_a >= 0)
            json_array_append_new(modules, json_stringn(p->name, strlen(p->name) - strlen(".weight")));
    }
    return modules;
}

/* Modules that are trained whole: PEFT saves them beside the updates. */
static json_t *saved_modules(const espl_model *model, const espl_collection *trained) {
    json_t *modules = json_array();
    char last[ESPL_MAX_NAME] = "";
    for (int i = 0; i < model->n_params; i++) {
        const espl_param *p = &model->params[i];
        if (p->adapts >= 0 || find(trained, p->name) == NULL)
            continue;
        int length = (int)(strrchr(p->name, '.') - p->name);
        if (strncmp(last, p->name, (size_t)length) == 0 && last[length] == '\0')
            continue;
        snprintf(last, sizeof last, "%.*s", length, p->name);
        json_array_append_new(modules, json_string(last));
    }
    return modules;
}

/* What differs from the rank or alpha of the rest, by module. */
static json_t *pattern_of(const espl_model *model, bool alpha) {
    json_t *pattern = json_object();
    for (int i = 0; i < model->n_params; i++) {
        const espl_param *p = &model->params[i];
        if (p->lora_a < 0)
            continue;
        const espl_param *a = &model->params[p->lora_a];
        char *module = espl_format("%.*s", (int)(strlen(p->name) - strlen(".weight")), p->name);
        if (alpha ? a->alpha != model->lora.alpha : a->shape[0] != model->lora.rank)
            json_object_set_new(pattern, module, alpha ? json_real(a->alpha) : json_integer((json_int_t)a->shape[0]));
        free(module);
    }
    return pattern;
}

static const char *task_of(const espl_model *model) {
    switch (model->head->head) {
    case ESPL_HEAD_LM: return "CAUSAL_LM";
    case ESPL_HEAD_CLASSIFICATION: return "SEQ_CLS";
    case ESPL_HEAD_SEQ2SEQ: return "SEQ_2_SEQ_LM";
    default: return NULL;
    }
}

/* No library's layout: the method's words, and names of tensors that are those of the base with what was added. */
static json_t *bottleneck_config(const espl_model *model, const char *base) {
    json_t *config = describe_bottleneck(&model->bottleneck);
    json_object_set_new(config, "base_model_name_or_path", json_string(base));
    json_object_set_new(config, "architecture", json_string(model->head->architecture));
    return config;
}

/* peft.PromptTuningConfig, or peft.PrefixTuningConfig, whose sizes are those of keys and values. */
static json_t *prompt_config(const espl_model *model, const espl_collection *trained, const char *base) {
    const espl_dims *d = &model->dims;
    bool prefix = model->prompt.prefix, pair = prefix && d->source_layers > 0;
    json_t *saved = saved_modules(model, trained);
    json_t *config =
        json_pack("{s:s, s:s, s:s?, s:b, s:I, s:I, s:i, s:I, s:i}", "peft_type", prefix ? "PREFIX_TUNING" : "PROMPT_TUNING",
                  "base_model_name_or_path", base, "task_type", task_of(model), "inference_mode", 1, "num_virtual_tokens",
                  (json_int_t)model->prompt.length, "token_dim", prefix ? (json_int_t)d->kv_heads * d->head_dim : (json_int_t)d->width,
                  "num_transformer_submodules", pair ? 2 : 1, "num_layers", pair ? (json_int_t)d->source_layers : (json_int_t)d->layers,
                  "num_attention_heads", prefix ? (int)d->kv_heads : (int)d->heads);
    json_object_set_new(config, prefix ? "prefix_projection" : "prompt_tuning_init", prefix ? json_false() : json_string("RANDOM"));
    json_object_set_new(config, "modules_to_save", json_array_size(saved) > 0 ? saved : json_null());
    if (json_array_size(saved) == 0)
        json_decref(saved);
    return config;
}

static json_t *lora_config(const espl_model *model, const espl_collection *trained, const char *base) {
    const espl_lora_options *lora = &model->lora;
    json_t *saved = saved_modules(model, trained), *config;
    const char *task = task_of(model);
    config = json_pack("{s:s, s:s, s:s?, s:I, s:f, s:f, s:b, s:s, s:b, s:b, s:b, s:o}", "peft_type", "LORA", "base_model_name_or_path",
                       base, "task_type", task, "r", (json_int_t)lora->rank, "lora_alpha", lora->alpha, "lora_dropout", lora->dropout,
                       "use_rslora", lora->rank_stabilised, "bias", "none", "fan_in_fan_out", model->family->weight_layout == ESPL_IN_OUT,
                       "init_lora_weights", 1, "inference_mode", 1, "target_modules", target_modules(model));
    json_object_set_new(config, "modules_to_save", json_array_size(saved) > 0 ? saved : json_null());
    json_object_set_new(config, "use_dora", json_boolean(lora->magnitudes));
    json_object_set_new(config, "rank_pattern", pattern_of(model, false));
    json_object_set_new(config, "alpha_pattern", pattern_of(model, true));
    if (json_array_size(saved) == 0)
        json_decref(saved);
    return config;
}

static espl_status write_config(json_t *config, const char *folder) {
    char *path = espl_format("%s/adapter_config.json", folder);
    espl_status status = ESPL_OK;
    if (json_dump_file(config, path, JSON_INDENT(2)) != 0)
        status = espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "%s: cannot be written: %s", path, strerror(errno));
    free(path);
    return status;
}

/* PEFT wraps modules to update them, but not for a prompt, which is no part of the model. */
static const char *prefix_of(const espl_model *model, const char *name) {
    if (model->prompt.length > 0)
        return strcmp(name, "prompt_embeddings") == 0 ? "" : "base_model.";
    return model->lora.rank > 0 ? "base_model.model." : "";
}

static espl_status write_tensors(const espl_model *model, const espl_collection *trained, const char *folder) {
    char *path = espl_format("%s/adapter_model.safetensors", folder);
    espl_tensor_out *items = espl_calloc((size_t)trained->n + 1, sizeof *items);
    for (int64_t i = 0; i < trained->n; i++) {
        items[i] = trained->items[i];
        items[i].name = espl_format("%s%s", prefix_of(model, trained->items[i].name), trained->items[i].name);
    }
    espl_status status = espl_safetensors_write_file(path, items, trained->n);
    for (int64_t i = 0; i < trained->n; i++)
        free((void *)(uintptr_t)items[i].name);
    free(items);
    free(path);
    return status;
}

espl_status espl_adapter_write(const espl_model *model, const espl_collection *trained, const char *base, const char *folder) {
    json_t *config = model->lora.rank > 0       ? lora_config(model, trained, base)
                     : model->prompt.length > 0 ? prompt_config(model, trained, base)
                                                : bottleneck_config(model, base);
    espl_status status = write_tensors(model, trained, folder);
    if (status == ESPL_OK)
        status = write_config(config, folder);
    json_decref(config);
    return status;
}
