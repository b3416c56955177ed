#include "src/train/weights/peft_folder.h"

#include "io/fsio.h"
#include "io/safetensors/safetensors.h"
#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/job_files.h"
#include "src/model/low_rank.h"

#include <ctype.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char PREFIX[] = "base_model.model.", PROMPT_PREFIX[] = "base_model.", CONFIG[] = "adapter_config.json",
                  TENSORS[] = "adapter_model.safetensors";

static bool has(const char *folder, const char *name) {
    char *path = espl_format("%s/%s", folder, name);
    bool there = espl_fs_is_file(path);
    free(path);
    return there;
}

bool espl_peft_is(const char *folder) { return has(folder, CONFIG) && !espl_safetensors_exist(folder); }

/* ---- What is not known here. */

/* Keys of peft.LoraConfig, PromptTuningConfig and PrefixTuningConfig that are read, or that change nothing of an adapter that is made (a
 * prefix is in its file as its projection has made it). */
static const char *const known[] = {"peft_type",
                                    "peft_version",
                                    "auto_mapping",
                                    "base_model_name_or_path",
                                    "revision",
                                    "task_type",
                                    "inference_mode",
                                    "r",
                                    "target_modules",
                                    "lora_alpha",
                                    "lora_dropout",
                                    "fan_in_fan_out",
                                    "bias",
                                    "use_rslora",
                                    "rank_pattern",
                                    "alpha_pattern",
                                    "modules_to_save",
                                    "layers_to_transform",
                                    "layers_pattern",
                                    "exclude_modules",
                                    "init_lora_weights",
                                    "loftq_config",
                                    "eva_config",
                                    "runtime_config",
                                    "megatron_core",
                                    "qalora_group_size",
                                    "use_dora",
                                    "num_virtual_tokens",
                                    "token_dim",
                                    "num_transformer_submodules",
                                    "num_layers",
                                    "num_attention_heads",
                                    "prompt_tuning_init",
                                    "prompt_tuning_init_text",
                                    "tokenizer_name_or_path",
                                    "tokenizer_kwargs",
                                    "encoder_hidden_size",
                                    "prefix_projection",
                                    "init_weights"};

static bool is_known(const char *key) {
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(key, known[i]) == 0)
            return true;
    return false;
}

static bool is_nothing(const json_t *value) {
    return value == NULL || json_is_null(value) || json_is_false(value) || (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

static espl_status refuse(const char *folder, const char *key, const json_t *value, const char *instead) {
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    espl_status status = espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s/%s: %s is %s, %s", folder, CONFIG, key,
                                          text != NULL ? text : "nothing", instead);
    free(text);
    return status;
}

static bool is(const json_t *about, const char *key, const char *value) {
    const char *own = json_string_value(json_object_get(about, key));
    return own != NULL && strcmp(own, value) == 0;
}

static bool is_prefix(const json_t *about) { return is(about, "peft_type", "PREFIX_TUNING"); }
static bool is_prompt(const json_t *about) { return is(about, "peft_type", "PROMPT_TUNING") || is_prefix(about); }

static espl_status check_stacks(const char *folder, const json_t *about) {
    json_t *stacks = json_object_get(about, "num_transformer_submodules");
    bool pair = is_prefix(about) && is(about, "task_type", "SEQ_2_SEQ_LM");
    if (is_prompt(about) && json_integer_value(stacks) != (pair ? 2 : 1))
        return refuse(folder, "num_transformer_submodules", stacks,
                      pair ? "only 2 is read of a prefix for an encoder-decoder, as PEFT has it"
                           : "only 1 is read: what is there for others is never used");
    return ESPL_OK;
}

static espl_status check_known(const char *folder, json_t *about) {
    const char *key;
    json_t *value, *type = json_object_get(about, "peft_type"), *bias = json_object_get(about, "bias"),
                   *init = json_object_get(about, "init_lora_weights");
    if (!is_prompt(about) && !is(about, "peft_type", "LORA"))
        return refuse(folder, "peft_type", type, "only LORA, PROMPT_TUNING and PREFIX_TUNING are read");
    ESPL_TRY(check_stacks(folder, about));
    if (json_is_string(bias) && strcmp(json_string_value(bias), "none") != 0)
        return refuse(folder, "bias", bias, "biases beside updates are not known; only none is read");
    if (json_is_string(init) && strcmp(json_string_value(init), "gaussian") != 0 && strcmp(json_string_value(init), "orthogonal") != 0 &&
        strcmp(json_string_value(init), "eva") != 0)
        return refuse(folder, "init_lora_weights", init,
                      "which changes the base; have PEFT convert it to an adapter of the base as it was");
    json_object_foreach(about, key, value) if (!is_known(key) && !is_nothing(value)) return refuse(folder, key, value,
                                                                                                   "which is not known");
    return ESPL_OK;
}

static espl_status load(const char *folder, json_t **about) {
    json_error_t error;
    char *path = espl_format("%s/%s", folder, CONFIG);
    espl_status status = ESPL_OK;
    espl_buffer text = {0};
    *about = NULL;
    int failed = espl_file_read(path, &text);
    if (failed != 0)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: not an adapter's config: %s", path, strerror(failed));
    *about = json_loadb(text.data, text.size, 0, &error);
    if (!json_is_object(*about))
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: not an adapter's config: line %d: %s", path, error.line, error.text);
    ESPL_TRY_DONE(check_known(folder, *about));
done:
    espl_buffer_free(&text);
    free(path);
    return status;
}

/* ---- As keys of a config. */

/* PEFT has a pattern for the end of a module's name; names, with or without ^ and \., are read as such. */
static espl_status name_of(const char *folder, const char *key, const char *pattern, espl_buffer *name) {
    name->size = 0;
    for (const char *at = pattern + (pattern[0] == '^'); *at != '\0'; at++) {
        at += at[0] == '\\' && at[1] == '.';
        if (!isalnum((unsigned char)*at) && *at != '_' && *at != '.')
            ESPL_FAIL(ESPL_ERR_DATA, "%s/%s: %s has a pattern '%s'; only names, or ends of them, are read", folder, CONFIG, key, pattern);
        espl_buffer_append(name, at, 1);
    }
    return ESPL_OK;
}

/* {"q_proj": 4} becomes ["q_proj=4"] */
static espl_status numbers_of(const char *folder, const json_t *about, const char *key, json_t *list) {
    const char *pattern;
    json_t *number;
    espl_buffer name = {0};
    espl_status status = ESPL_OK;
    json_object_foreach(json_object_get(about, key), pattern, number) {
        if (status == ESPL_OK)
            status = name_of(folder, key, pattern, &name);
        if (status == ESPL_OK)
            json_array_append_new(list, json_sprintf("%.*s=%.17g", (int)name.size, name.data, json_number_value(number)));
    }
    espl_buffer_free(&name);
    return status;
}

static espl_status open_tensors(const char *folder, espl_safetensors **set) {
    char *path = espl_format("%s/%s", folder, TENSORS);
    espl_status status = ESPL_OK;
    if (!espl_fs_is_file(path))
        status =
            espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s: the adapter's tensors are not there; only safetensors are read", path);
    else
        status = espl_safetensors_open(path, set);
    free(path);
    return status;
}

/* The name of a tensor as the model has it. */
static const char *own_name(const espl_tensor_file *tensor) {
    size_t prefix = strlen(PREFIX);
    if (strncmp(tensor->name, PREFIX, prefix) == 0)
        return tensor->name + prefix;
    prefix = strlen(PROMPT_PREFIX);
    return strncmp(tensor->name, PROMPT_PREFIX, prefix) == 0 ? tensor->name + prefix : tensor->name;
}

/* Which modules have updates, and what else is in the file. */
static void list_tensors(const espl_safetensors *set, json_t *targets, json_t *whole) {
    static const char END[] = ".lora_A.weight";
    for (int64_t i = 0; i < espl_safetensors_count(set); i++) {
        const char *name = own_name(espl_safetensors_at(set, i));
        size_t length = strlen(name), end = strlen(END);
        if (length > end && strcmp(name + length - end, END) == 0)
            json_array_append_new(targets, json_sprintf("%.*s", (int)(length - end), name));
        else if (strstr(name, ".lora_") == NULL && strcmp(name, "prompt_embeddings") != 0)
            json_array_append_new(whole, json_string(name));
    }
}

/* A list of names stays one; where PEFT chose by other means, the tensors say which were chosen. */
static bool is_list(const json_t *about) {
    return json_is_array(json_object_get(about, "target_modules")) && is_nothing(json_object_get(about, "exclude_modules")) &&
           is_nothing(json_object_get(about, "layers_to_transform"));
}

static json_t *or_null(const json_t *about, const char *key) {
    json_t *value = json_object_get(about, key);
    return value != NULL ? json_incref(value) : json_null();
}

static espl_status lora_keys(const char *folder, const json_t *about, json_t *targets, json_t *tune) {
    json_t *ranks = json_array(), *alphas = json_array();
    json_object_set_new(tune, "ranks", ranks);
    json_object_set_new(tune, "alphas", alphas);
    json_object_set_new(tune, "method", json_string(json_is_true(json_object_get(about, "use_dora")) ? "dora" : "lora"));
    json_object_set_new(tune, "rank", or_null(about, "r"));
    json_object_set_new(tune, "alpha", or_null(about, "lora_alpha"));
    json_object_set_new(tune, "dropout", json_real(json_number_value(json_object_get(about, "lora_dropout"))));
    json_object_set_new(tune, "rank_stabilised", json_boolean(json_is_true(json_object_get(about, "use_rslora"))));
    json_object_set(tune, "targets", is_list(about) ? json_object_get(about, "target_modules") : targets);
    ESPL_TRY(numbers_of(folder, about, "rank_pattern", ranks));
    return numbers_of(folder, about, "alpha_pattern", alphas);
}

/* tune.* of an adapter. */
static espl_status tune_of(const char *folder, const json_t *about, bool with_train, json_t *tune) {
    json_t *targets = json_array(), *whole = json_array();
    espl_safetensors *set = NULL;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(open_tensors(folder, &set));
    list_tensors(set, targets, whole);
    if (is_prompt(about)) {
        json_object_set_new(tune, "method", json_string(is_prefix(about) ? "prefix" : "prompt"));
        json_object_set_new(tune, "prompt_length", or_null(about, "num_virtual_tokens"));
    } else {
        ESPL_TRY_DONE(lora_keys(folder, about, targets, tune));
    }
    if (with_train)
        json_object_set(tune, "train", whole);
done:
    espl_safetensors_close(&set);
    json_decref(targets);
    json_decref(whole);
    return status;
}

/* JSON is YAML: values are checked as if they stood in a config. */
static espl_status read_keys(espl_config *config, const char *folder, const json_t *keys) {
    char *text = json_dumps(keys, JSON_INDENT(1)), *name = espl_format("%s/%s", folder, CONFIG);
    espl_status status = espl_config_read_text(config, text, strlen(text), name);
    free(text);
    free(name);
    return status;
}

espl_status espl_peft_settle(espl_config *config) {
    const char *folder = config->model_adapter;
    json_t *about = NULL, *keys = json_object();
    espl_status status = ESPL_OK;
    if (folder[0] == '\0')
        goto done;
    ESPL_TRY_DONE(load(folder, &about));
    const char *base = json_string_value(json_object_get(about, "base_model_name_or_path"));
    if (config->model_path[0] == '\0' && config->model_config[0] == '\0' && base != NULL)
        json_object_set_new(keys, "model", json_pack("{s:s}", "path", base));
    if (config->tune_method == ESPL_TUNE_FULL) {
        json_t *tune = json_object();
        json_object_set_new(keys, "tune", tune);
        ESPL_TRY_DONE(tune_of(folder, about, config->tune_train.n == 0, tune));
    }
    ESPL_TRY_DONE(read_keys(config, folder, keys));
done:
    json_decref(about);
    json_decref(keys);
    return status;
}

/* ---- Its model. */

/* A config of nothing but the adapter. */
static espl_status config_of(const char *folder, const char *base, espl_config *config) {
    json_t *keys = json_pack("{s:{s:s, s:s}}", "model", "adapter", folder, "path", base);
    espl_config_make(config);
    espl_status status = read_keys(config, folder, keys);
    json_decref(keys);
    return status == ESPL_OK ? espl_peft_settle(config) : status;
}

static const espl_param *find_param(const espl_model *model, const char *name) {
    for (int i = 0; i < model->n_params; i++)
        if (strcmp(model->params[i].name, name) == 0)
            return &model->params[i];
    return NULL;
}

static espl_status compare(const char *folder, const espl_model *own, const espl_model *theirs) {
    if (own->prompt.length != theirs->prompt.length || own->prompt.prefix != theirs->prompt.prefix)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: the adapter has a %s of %lld tokens, the config a %s of %lld; leave tune.method out to take what it has", folder,
                  theirs->prompt.prefix ? "prefix" : "soft prompt", (long long)theirs->prompt.length,
                  own->prompt.prefix ? "prefix" : "soft prompt", (long long)own->prompt.length);
    for (int i = 0; i < own->n_params; i++) {
        const espl_param *p = &own->params[i], *q = find_param(theirs, p->name);
        if (p->adapts >= 0 || q == NULL)
            continue;
        if ((p->magnitude >= 0) != (q->magnitude >= 0) && p->lora_a >= 0 && q->lora_a >= 0)
            ESPL_FAIL(ESPL_ERR_USAGE,
                      "%s: the adapter is of tune.method: %s, the config asks for %s; leave tune.method out to take what it has", folder,
                      q->magnitude >= 0 ? "dora" : "lora", p->magnitude >= 0 ? "dora" : "lora");
        if ((p->lora_a >= 0) != (q->lora_a >= 0))
            ESPL_FAIL(ESPL_ERR_USAGE,
                      "%s: the adapter has %s update of '%s', tune.targets asks for %s; leave tune.method out to take what it has", folder,
                      q->lora_a >= 0 ? "an" : "no", p->name, q->lora_a >= 0 ? "none" : "one");
        if (p->lora_a < 0)
            continue;
        const espl_param *a = &own->params[p->lora_a], *b = &theirs->params[q->lora_a];
        if (a->shape[0] != b->shape[0] || espl_lora_scale(own, p->lora_a) != espl_lora_scale(theirs, q->lora_a))
            ESPL_FAIL(
                ESPL_ERR_USAGE,
                "%s: the adapter's update of '%s' has rank %lld, alpha %g, times %g, the config's rank %lld, alpha %g, times %g; leave "
                "tune.method out to take what it has",
                folder, p->name, (long long)b->shape[0], b->alpha, (double)espl_lora_scale(theirs, q->lora_a), (long long)a->shape[0],
                a->alpha, (double)espl_lora_scale(own, p->lora_a));
    }
    return ESPL_OK;
}

static espl_status check_layout(const espl_model *model, const char *folder) {
    json_t *about = NULL;
    espl_status status = load(folder, &about);
    json_t *turned = json_object_get(about, "fan_in_fan_out");
    if (status == ESPL_OK && turned != NULL && json_is_true(turned) != (model->family->weight_layout == ESPL_IN_OUT))
        status = refuse(folder, "fan_in_fan_out", turned, "but the weights of this model lie the other way round");
    json_decref(about);
    return status;
}

espl_status espl_peft_check(const espl_model *model, const char *folder) {
    espl_config config;
    espl_model *theirs = NULL;
    espl_status status = check_layout(model, folder);
    if (status != ESPL_OK)
        return status;
    ESPL_TRY_DONE(config_of(folder, "", &config));
    espl_model_options options = espl_model_options_of(&config);
    options.head = model->head->head;
    options.n_train = 0;
    ESPL_TRY_DONE(espl_model_make_json(model->config, folder, &options, &theirs));
    ESPL_TRY_DONE(compare(folder, model, theirs));
done:
    espl_model_free(&theirs);
    espl_config_free(&config);
    return status;
}

static espl_head head_of(const json_t *about) {
    const char *task = json_string_value(json_object_get(about, "task_type"));
    task = task != NULL ? task : "";
    return strcmp(task, "CAUSAL_LM") == 0      ? ESPL_HEAD_LM
           : strcmp(task, "SEQ_CLS") == 0      ? ESPL_HEAD_CLASSIFICATION
           : strcmp(task, "SEQ_2_SEQ_LM") == 0 ? ESPL_HEAD_SEQ2SEQ
                                               : ESPL_HEAD_AUTO;
}

espl_status espl_peft_model(const char *folder, const char *base, const espl_strings *labels, espl_model **model, char **found) {
    espl_config config;
    json_t *about = NULL;
    espl_status status = ESPL_OK;
    *found = NULL;
    ESPL_TRY_DONE(config_of(folder, base, &config));
    ESPL_TRY_DONE(load(folder, &about));
    if (!espl_safetensors_exist(config.model_path))
        ESPL_FAIL_DONE(ESPL_ERR_DATA,
                       "%s: an adapter of the model '%s', which is no folder with safetensors here; set model.path to it (export: --base)",
                       folder, config.model_path);
    espl_model_options options = espl_model_options_of(&config);
    options.head = head_of(about);
    options.labels = labels->items;
    options.n_labels = labels->n;
    options.lora.dropout = 0.0;
    ESPL_TRY_DONE(espl_weights_model(config.model_path, &options, model));
    ESPL_TRY_DONE(check_layout(*model, folder));
    *found = espl_strdup(config.model_path);
done:
    json_decref(about);
    espl_config_free(&config);
    return status;
}

espl_status espl_peft_share(espl_comm *comm, const char *folder, const char *base) {
    char found[PATH_MAX] = "";
    espl_config config;
    ESPL_TRY(espl_files_share(comm, &folder, 1));
    if (config_of(folder, base, &config) != ESPL_OK)
        espl_status_clear();
    snprintf(found, sizeof found, "%s", config.model_path);
    espl_config_free(&config);
    ESPL_TRY(espl_comm_bcast(comm, found, sizeof found, 0));
    return espl_files_share(comm, (const char *const[]){found}, 1);
}

/* ---- Its tensors. */

/* An adapter of a bare model lacks the family's prefix. */
static int param_of(const espl_model *model, const char *name) {
    size_t prefix = strlen(model->family->prefix);
    for (int i = 0; i < model->n_params; i++) {
        const char *full = model->params[i].name;
        if (strcmp(full, name) == 0 || (strncmp(full, model->family->prefix, prefix) == 0 && strcmp(full + prefix, name) == 0))
            return i;
    }
    return -1;
}

static espl_status take_all(const espl_model *model, const char *folder, const espl_safetensors *set, const espl_weights *weights,
                            bool *taken) {
    for (int64_t i = 0; i < espl_safetensors_count(set); i++) {
        const espl_tensor_file *t = espl_safetensors_at(set, i);
        int param = param_of(model, own_name(t));
        if (param < 0 || model->params[param].frozen)
            ESPL_FAIL(ESPL_ERR_DATA, "%s/%s: holds '%s', which %s", folder, TENSORS, t->name,
                      param < 0 ? "this model has not" : "is not trained here; add it to tune.train");
        ESPL_TRY(espl_weights_take(model, param, t, folder, weights));
        taken[param] = true;
    }
    return ESPL_OK;
}

espl_status espl_peft_weights(const espl_model *model, const char *folder, const espl_weights *weights) {
    bool *taken = espl_calloc((size_t)model->n_params, sizeof *taken);
    espl_safetensors *set = NULL;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(open_tensors(folder, &set));
    ESPL_TRY_DONE(take_all(model, folder, set, weights, taken));
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].adapts >= 0 && !taken[i])
            ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s/%s: holds no '%s%s'", folder, TENSORS, model->prompt.length > 0 ? "" : PREFIX,
                           model->params[i].name);
done:
    espl_safetensors_close(&set);
    free(taken);
    return status;
}
