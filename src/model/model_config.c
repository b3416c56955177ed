#include "src/model/model_config.h"

#include "src/core/buffer.h"
#include "src/core/job_files.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const espl_family *const families[] = {&espl_family_gpt2,       &espl_family_llama,   &espl_family_mistral, &espl_family_bert,
                                              &espl_family_distilbert, &espl_family_roberta, &espl_family_t5};
enum { N_FAMILIES = sizeof families / sizeof families[0] };

static espl_status find_family(const json_t *config, const char *path, const espl_family **family) {
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (type == NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: key 'model_type' is missing; a Hugging Face config.json is expected", path);
    for (int i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i]->model_type, type) == 0) {
            *family = families[i];
            return ESPL_OK;
        }
    espl_buffer known = {0};
    for (int i = 0; i < N_FAMILIES; i++)
        espl_buffer_printf(&known, "%s%s", i > 0 ? ", " : "", families[i]->model_type);
    espl_status status =
        espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s: model_type '%s' is not supported; known: %s", path, type, known.data);
    espl_buffer_free(&known);
    return status;
}

/* The value under the first of the keys "a|b" that is there and not null; *key is the last one looked at. */
static const json_t *look_up(const json_t *config, const char *alternatives, char key[64]) {
    const json_t *value = NULL;
    for (const char *at = alternatives; value == NULL && *at != '\0';) {
        size_t n = strcspn(at, "|");
        snprintf(key, 64, "%.*s", (int)n, at);
        value = json_object_get(config, key);
        if (json_is_null(value))
            value = NULL;
        at += n + (at[n] == '|');
    }
    return value;
}

static espl_status store_key(const espl_key_row *row, const json_t *value, const char *key, const char *path, espl_dims *dims) {
    void *field = (char *)dims + row->offset;
    if (row->type == ESPL_KEY_BOOL) {
        if (!json_is_boolean(value))
            ESPL_FAIL(ESPL_ERR_DATA, "%s: key '%s' must be true or false", path, key);
        *(bool *)field = json_is_true(value);
        return ESPL_OK;
    }
    if (json_is_array(value) && json_array_size(value) > 0) /* several end tokens: the first closes documents */
        value = json_array_get(value, 0);
    if (row->type == ESPL_KEY_F32) {
        if (!json_is_number(value))
            ESPL_FAIL(ESPL_ERR_DATA, "%s: key '%s' must be a number", path, key);
        *(float *)field = (float)json_number_value(value);
        return ESPL_OK;
    }
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number > INT_MAX)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: key '%s' must be a whole number from 0 to %d", path, key, INT_MAX);
    if (row->type == ESPL_KEY_I64)
        *(int64_t *)field = number;
    else
        *(int32_t *)field = (int32_t)number;
    return ESPL_OK;
}

static espl_status read_keys(const espl_family *family, const json_t *config, const char *path, espl_dims *dims) {
    for (size_t i = 0; i < family->n_keys; i++) {
        char key[64] = "";
        const json_t *value = look_up(config, family->keys[i].key, key);
        if (value != NULL)
            ESPL_TRY(store_key(&family->keys[i], value, key, path, dims));
        else if (family->keys[i].required)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: key '%s' is missing; model_type %s needs it", path, key, family->model_type);
    }
    return ESPL_OK;
}

espl_status espl__model_config_activation(const char *name, const char *path, espl_dims *dims) {
    static const struct {
        const char *name;
        int kind;
    } names[] = {{"gelu_new", ESPL_ACT_GELU_TANH},  {"gelu_pytorch_tanh", ESPL_ACT_GELU_TANH},
                 {"gelu_fast", ESPL_ACT_GELU_TANH}, {"gelu", ESPL_ACT_GELU},
                 {"relu", ESPL_ACT_RELU},           {"silu", ESPL_ACT_SILU},
                 {"swish", ESPL_ACT_SILU},          {"tanh", ESPL_ACT_TANH}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i].name, name) == 0) {
            dims->activation = names[i].kind;
            return ESPL_OK;
        }
    ESPL_FAIL(ESPL_ERR_DATA, "%s: activation '%s' is not supported; known: gelu, gelu_new, relu, silu, tanh", path, name);
}

static espl_status read_activation(const json_t *config, const char *path, espl_dims *dims) {
    char key[64];
    const char *name = json_string_value(look_up(config, "hidden_act|activation_function|activation", key));
    return name == NULL ? ESPL_OK : espl__model_config_activation(name, path, dims);
}

espl_status espl__model_config_equal_heads(espl_dims *dims, const char *path) {
    if (dims->width % dims->heads != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: width %lld does not divide by %d heads", path, (long long)dims->width, dims->heads);
    dims->head_dim = (int32_t)(dims->width / dims->heads);
    dims->kv_heads = dims->heads;
    dims->attention_scale = 1.0f / sqrtf((float)dims->head_dim);
    return ESPL_OK;
}

/* Two where nothing is said, as transformers has it. */
static void read_labels(const json_t *config, espl_dims *dims) {
    const json_t *names = json_object_get(config, "id2label"), *number = json_object_get(config, "num_labels");
    dims->labels = json_object_size(names) > 0 ? (int64_t)json_object_size(names)
                   : json_is_integer(number)   ? json_integer_value(number)
                                               : 2;
}

/* Far above any model there is, and low enough that no product of two overflows and the tables stay small. */
static espl_status check_sizes(const espl_dims *d, const char *path) {
    const struct {
        const char *what;
        int64_t value, most;
    } sizes[] = {{"layers", d->layers, 4096},
                 {"labels", d->labels, 1 << 20},
                 {"width", d->width, 1 << 20},
                 {"feed-forward width", d->ffn, 1 << 24},
                 {"vocabulary", d->vocab, 1 << 26},
                 {"positions", d->positions, 1 << 26},
                 {"heads", d->heads, 1 << 16},
                 {"head size", d->head_dim, 1 << 12},
                 {"key and value heads", d->kv_heads, 1 << 16}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %lld as the number of %s; 1 to %lld is expected", path, (long long)sizes[i].value, sizes[i].what,
                      (long long)sizes[i].most);
    if (d->source_layers < 0 || d->source_layers > 4096 || d->types < 0 || d->types > 1 << 16)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %lld encoder layers and %lld token types; at most 4096 and 65536 are expected", path,
                  (long long)d->source_layers, (long long)d->types);
    if (d->vocab < 2)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: a vocabulary of one token cannot be modelled", path);
    return ESPL_OK;
}

espl_status espl__model_config_parse(const json_t *config, const char *path, const espl_family **family, espl_dims *dims) {
    if (!json_is_object(config))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: a JSON object is expected", path);
    ESPL_TRY(find_family(config, path, family));
    *dims = (*family)->defaults;
    ESPL_TRY(read_keys(*family, config, path, dims));
    ESPL_TRY(read_activation(config, path, dims));
    read_labels(config, dims);
    if (dims->heads < 1)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: no attention heads; at least one is expected", path);
    ESPL_TRY((*family)->finish(dims, config, path));
    return check_sizes(dims, path);
}

/* ---- The head. */

static const char *const head_names[ESPL_N_HEADS] = {"auto", "lm", "mlm", "classification", "seq2seq"};

static const espl_head_table *head_of_architecture(const json_t *config, const espl_family *family) {
    const json_t *names = json_object_get(config, "architectures");
    for (size_t i = 0; i < json_array_size(names); i++)
        for (size_t h = 0; h < family->n_heads; h++) {
            const char *name = json_string_value(json_array_get(names, i));
            if (name != NULL && strcmp(name, family->heads[h].architecture) == 0)
                return &family->heads[h];
        }
    return NULL;
}

espl_status espl__model_config_head(const json_t *config, const char *path, const espl_family *family, espl_head wanted,
                                    const espl_head_table **head) {
    const espl_head_table *named = head_of_architecture(config, family);
    if (wanted == ESPL_HEAD_AUTO) {
        *head = named != NULL ? named : family->heads;
        return ESPL_OK;
    }
    for (size_t h = 0; h < family->n_heads; h++)
        if (family->heads[h].head == wanted) {
            *head = &family->heads[h];
            return ESPL_OK;
        }
    espl_buffer known = {0};
    for (size_t h = 0; h < family->n_heads; h++)
        espl_buffer_printf(&known, "%s%s", h > 0 ? ", " : "", head_names[family->heads[h].head]);
    espl_status status = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__, "%s: a %s model has no head for %s; it can be: %s", path,
                                          family->model_type, head_names[wanted], known.data);
    espl_buffer_free(&known);
    return status;
}

static json_t *label_names(const espl_model_options *options) {
    json_t *names = json_object();
    for (int64_t i = 0; i < options->n_labels; i++) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)i);
        json_object_set_new(names, key, json_string(options->labels[i]));
    }
    return names;
}

static json_t *label_numbers(const espl_model_options *options) {
    json_t *numbers = json_object();
    for (int64_t i = 0; i < options->n_labels; i++)
        json_object_set_new(numbers, options->labels[i], json_integer(i));
    return numbers;
}

static void settle_head(json_t *config, espl_model *model) {
    const espl_head_table *named = head_of_architecture(config, model->family);
    model->new_head = named == NULL || named != model->head;
    if (model->new_head)
        json_object_set_new(config, "architectures", json_pack("[s]", model->head->architecture));
    if (model->head->head == ESPL_HEAD_CLASSIFICATION && json_object_get(config, "problem_type") == NULL)
        json_object_set_new(config, "problem_type", json_string("single_label_classification"));
}

/* An old T5 says by an untied head that nothing is scaled; where the two part, both are said. */
static void settle_tie(json_t *config, espl_model *model, espl_own_head own_head) {
    bool tied = own_head == ESPL_OWN_HEAD_ABSENT;
    if (!model->family->head_from_files || own_head == ESPL_OWN_HEAD_UNKNOWN || tied == model->dims.tied)
        return;
    model->dims.tied = tied;
    json_object_set_new(config, "scale_decoder_outputs", json_boolean(model->dims.logits_scale != 1.0f));
    json_object_set_new(config, "tie_word_embeddings", json_boolean(tied));
}

/* A classifier's numbers mean what its own config.json says; "LABEL_0" is what transformers writes where nobody has named them. */
static espl_status check_labels(const espl_model *model, const char *path, const espl_model_options *options) {
    const json_t *names = json_object_get(model->config, "id2label");
    if (model->head->head != ESPL_HEAD_CLASSIFICATION || model->new_head || options->n_labels == 0 || !json_is_object(names))
        return ESPL_OK;
    bool same = (int64_t)json_object_size(names) == options->n_labels;
    for (int64_t i = 0; i < options->n_labels && same; i++) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)i);
        const char *name = json_string_value(json_object_get(names, key));
        same = name != NULL && (strcmp(name, options->labels[i]) == 0 || strncmp(name, "LABEL_", 6) == 0);
    }
    if (!same)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: this classifier has %zu labels in id2label, the data have %lld, or others, or in another order; set data.labels as "
                  "the model has them, or start from a base model",
                  path, json_object_size(names), (long long)options->n_labels);
    return ESPL_OK;
}

espl_status espl__model_config_settle(espl_model *model, const char *path, const espl_model_options *options) {
    json_t *config = json_deep_copy(model->config);
    settle_head(config, model);
    settle_tie(config, model, options->own_head);
    if (model->head->head == ESPL_HEAD_CLASSIFICATION && options->n_labels > 0) {
        model->dims.labels = options->n_labels;
        json_object_del(config, "num_labels");
        json_object_set_new(config, "id2label", label_names(options));
        json_object_set_new(config, "label2id", label_numbers(options));
    }
    espl_status status = check_labels(model, path, options);
    json_decref(model->config);
    model->config = config;
    return status;
}

espl_status espl__model_config_load(const char *path, json_t **config) {
    *config = NULL;
    char *file = espl_format("%s%s", path, espl_file_is_folder(path) ? "/config.json" : "");
    json_error_t error;
    espl_buffer text = {0};
    espl_status status = ESPL_OK;
    int failed = espl_file_read(file, &text);
    if (failed != 0)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: cannot be opened: %s; a Hugging Face config.json is expected", file, strerror(failed));
    *config = json_loadb(text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (*config == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s:%d: %s; a Hugging Face config.json is expected", file, error.line > 0 ? error.line : 1,
                       error.text);
done:
    espl_buffer_free(&text);
    free(file);
    return status;
}
