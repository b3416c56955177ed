#include "src/train/weights/weights.h"

#include "io/checkpoint/checkpoint.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/train/weights/adapter.h"
#include "src/train/weights/base.h"
#include "src/train/weights/companions.h"
#include "src/train/weights/model_card.h"
#include "src/train/weights/peft_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- Tensors, in the format of the export. */

/* Quantised values as the run multiplied with them, in `room`, which moves on. */
static void *expand(const espl_model *model, int param, const void *quantised, espl_dtype dtype, char **room) {
    espl_quant quant = espl_model_quant(model, param);
    size_t n = (size_t)model->params[param].numel;
    float *values = espl_malloc(n * sizeof *values);
    void *to = *room;
    espl_dequantise(&quant, 0, quantised, values);
    espl_dtype_convert(to, dtype, values, ESPL_F32, n);
    free(values);
    *room += n * espl_dtype_size(dtype);
    return to;
}

static size_t expanded_bytes(const espl_model *model, espl_dtype dtype) {
    size_t bytes = 0;
    for (int i = 0; i < model->n_params; i++)
        bytes += model->params[i].quant != ESPL_QUANT_NONE ? (size_t)model->params[i].numel * espl_dtype_size(dtype) : 0;
    return bytes;
}

/* For the weights as the model has them, and behind them for what is expanded. */
static espl_weights make_room(const espl_model *model, espl_collection *all) {
    all->flat = espl_calloc(1, espl_model_weights_bytes(model, 1, all->dtype) + expanded_bytes(model, all->dtype));
    all->items = espl_calloc((size_t)model->n_params, sizeof *all->items);
    return (espl_weights){.flat = all->flat, .real = all->dtype, .owner = espl_owner_alone};
}

/* All, or those that are held. */
static void list(const espl_model *model, const bool *held, espl_collection *all) {
    char *room = (char *)all->flat + espl_model_weights_bytes(model, 1, all->dtype);
    for (int i = 0; i < model->n_params; i++) {
        const espl_param *p = &model->params[i];
        if (held != NULL && !held[i])
            continue;
        void *data = (char *)all->flat + espl_model_weights_at(model, i, 1, all->dtype);
        if (p->quant != ESPL_QUANT_NONE)
            data = expand(model, i, data, all->dtype, &room);
        all->items[all->n++] =
            (espl_tensor_out){.name = p->name, .dtype = all->dtype, .n_dims = p->n_dims, .shape = {p->shape[0], p->shape[1]}, .data = data};
    }
}

/* Those of the whole model, or those that the checkpoint itself holds. */
static espl_status collect(const espl_model *model, const char *checkpoint, const espl_export_options *options, espl_collection *all) {
    bool *held = espl_calloc((size_t)model->n_params, sizeof *held);
    const espl_weights weights = make_room(model, all);
    espl_status status = options->adapter ? espl_weights_from_checkpoint(model, checkpoint, &weights, held)
                                          : espl_base_weights(model, checkpoint, options->base, 0, &weights);
    list(model, options->adapter ? held : NULL, all);
    free(held);
    return status;
}

/* ---- Files beside them. */

/* config.json as it was read, with the format that the weights now have under the key that it used. */
static espl_status write_config(const espl_model *model, espl_dtype dtype, const char *folder) {
    json_t *config = json_deep_copy(model->config);
    char *path = espl_format("%s/config.json", folder);
    const char *key = json_object_get(config, "torch_dtype") != NULL ? "torch_dtype" : "dtype";
    json_object_set_new(config, key, json_string(dtype == ESPL_BF16 ? "bfloat16" : "float32"));
    espl_status status = ESPL_OK;
    if (json_dump_file(config, path, JSON_INDENT(2) | JSON_PRESERVE_ORDER) != 0)
        status = espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "%s: cannot be written: %s", path, strerror(errno));
    json_decref(config);
    free(path);
    return status;
}

static espl_status write_provenance(const json_t *record, const char *checkpoint, const char *folder) {
    json_t *about = json_deep_copy(record);
    char *path = espl_format("%s/espalier.json", folder);
    json_object_del(about, "model_config");
    json_object_set_new(about, "checkpoint", json_string(checkpoint));
    espl_status status = ESPL_OK;
    if (json_dump_file(about, path, JSON_INDENT(2)) != 0)
        status = espl_status_fail(ESPL_ERR_IO, __FILE__, __LINE__, "%s: cannot be written: %s", path, strerror(errno));
    json_decref(about);
    free(path);
    return status;
}

/* ---- The whole. */

/* A folder that holds a model without espalier.json was not made by an export: it is somebody's base model. */
static espl_status check_target(const char *folder) {
    struct stat info;
    char *config = espl_format("%s/config.json", folder), *mark = espl_format("%s/espalier.json", folder);
    bool foreign = stat(config, &info) == 0 && stat(mark, &info) != 0;
    free(config);
    free(mark);
    if (foreign)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: holds a model that was not exported from here; give a new folder", folder);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        ESPL_FAIL(ESPL_ERR_IO, "%s: the folder cannot be made: %s", folder, strerror(errno));
    return ESPL_OK;
}

/* A prompt is no part of the model that it was trained for. */
static espl_status check_prompt(const char *path, const espl_model *model) {
    if (model->prompt.length > 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: a %s model has no place for the %s; export it by --adapter, or evaluate and generate with it as it is", path,
                  model->family->model_type, model->prompt.prefix ? "prefix of tune.method: prefix" : "soft prompt of tune.method: prompt");
    return ESPL_OK;
}

/* Whether the method has what is asked for. */
static espl_status check_method(const char *checkpoint, const espl_model *model, bool adapter) {
    if (adapter && !espl_model_is_adapted(model))
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: it was trained with tune.method: full, so there is no adapter; export the model", checkpoint);
    if (!adapter && model->bottleneck.width > 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: a %s model has no place for the adapters of tune.method: bottleneck; export them by --adapter, or evaluate and "
                  "generate from the run itself",
                  checkpoint, model->family->model_type);
    return adapter ? ESPL_OK : check_prompt(checkpoint, model);
}

/* The whole model: updates are merged. */
static espl_status write_model(const espl_export_options *options, const espl_model *model, espl_collection *all, const char *folder) {
    const size_t shard_bytes = (size_t)5 << 30;
    espl_adapter_merge(model, all);
    ESPL_TRY(espl_safetensors_write(folder, all->items, all->n, shard_bytes));
    return write_config(model, options->dtype, folder);
}

static espl_status write_adapter(const json_t *record, const espl_model *model, const espl_collection *trained, const char *folder) {
    const char *base = json_string_value(json_object_get(json_object_get(record, "base"), "path"));
    return espl_adapter_write(model, trained, base != NULL ? base : "", folder);
}

espl_status espl_weights_export(const char *checkpoint, const espl_export_options *options, const char *folder) {
    espl_collection all = {.dtype = options->dtype};
    espl_model *model = NULL;
    json_t *record = NULL;
    char *companions = espl_companions_of(checkpoint);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_checkpoint_record(checkpoint, &record));
    ESPL_TRY_DONE(espl_adapter_model(record, checkpoint, &model));
    ESPL_TRY_DONE(check_method(checkpoint, model, options->adapter));
    ESPL_TRY_DONE(check_target(folder));
    ESPL_TRY_DONE(collect(model, checkpoint, options, &all));
    ESPL_TRY_DONE(write_provenance(record, checkpoint, folder));
    ESPL_TRY_DONE(options->adapter ? write_adapter(record, model, &all, folder) : write_model(options, model, &all, folder));
    ESPL_TRY_DONE(espl_model_card_write(record, options->adapter, folder));
    if (companions != NULL)
        ESPL_TRY_DONE(espl_companions_copy(companions, "", folder));
    else
        ESPL_WARN("%s: no tokenizer lies beside this checkpoint's folder, so none is exported", checkpoint);
done:
    free(companions);
    json_decref(record);
    free(all.items);
    free(all.flat);
    espl_model_free(&model);
    return status;
}

espl_status espl_weights_merge(const char *adapter, const espl_export_options *options, const char *folder) {
    const espl_strings no_labels = {0};
    espl_collection all = {.dtype = options->dtype};
    espl_model *model = NULL;
    char *base = NULL;
    json_t *about = NULL;
    espl_status status = ESPL_OK;
    if (options->adapter)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: it is an adapter already; leave --adapter out to merge it into its base", adapter);
    ESPL_TRY_DONE(check_target(folder));
    ESPL_TRY_DONE(espl_peft_model(adapter, options->base, &no_labels, &model, &base));
    ESPL_TRY_DONE(check_prompt(adapter, model));
    const espl_weights weights = make_room(model, &all);
    ESPL_TRY_DONE(espl_weights_read(model, base, 0, &weights));
    ESPL_TRY_DONE(espl_peft_weights(model, adapter, &weights));
    list(model, NULL, &all);
    about = json_pack("{s:{s:s}}", "base", "path", base);
    ESPL_TRY_DONE(write_provenance(about, adapter, folder));
    ESPL_TRY_DONE(write_model(options, model, &all, folder));
    ESPL_TRY_DONE(espl_companions_copy(base, "", folder));
done:
    json_decref(about);
    free(base);
    free(all.items);
    free(all.flat);
    espl_model_free(&model);
    return status;
}
