#include "src/train/weights/base.h"

#include "io/checkpoint/checkpoint.h"
#include "io/safetensors/safetensors.h"
#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/job_files.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Of the parameters that were read, whatever their order. */
static uint64_t digest_of(const espl_model *model, const bool *which, const uint64_t *hashes) {
    uint64_t digest = 0;
    for (int i = 0; i < model->n_params; i++)
        if (which != NULL ? which[i] : model->params[i].frozen)
            digest += hashes[i];
    return digest;
}

json_t *espl_base_describe(const espl_config *config, const espl_model *model, const uint64_t *hashes) {
    bool pretrained = false;
    if (model->frozen_numel == 0 || espl_weights_pretrained(config, &pretrained) != ESPL_OK)
        return NULL;
    const char *from = config->model_checkpoint[0] != '\0' ? config->model_checkpoint : pretrained ? config->model_path : NULL;
    char *path = from != NULL ? realpath(from, NULL) : NULL;
    json_t *base = json_pack("{s:s, s:I, s:o}", "path", path != NULL ? path : "", "init_seed", (json_int_t)config->run_init_seed, "digest",
                             json_sprintf("%016" PRIx64, digest_of(model, NULL, hashes)));
    free(path);
    if (model->quant != ESPL_QUANT_NONE) {
        json_t *trained = json_array();
        for (int i = 0; i < model->n_params; i++)
            if (!model->params[i].frozen && model->params[i].adapts < 0)
                json_array_append_new(trained, json_string(model->params[i].name));
        json_object_set_new(base, "held", json_string(espl_quant_name(model->quant)));
        json_object_set_new(base, "trained", trained);
    }
    return base;
}

static const char *held_as(const json_t *base) {
    const char *held = json_string_value(json_object_get(base, "held"));
    return held != NULL ? held : espl_quant_name(ESPL_QUANT_NONE);
}

espl_status espl_base_held(const json_t *record, const char *path, espl_model_options *options) {
    const json_t *base = json_object_get(record, "base"), *trained = json_object_get(base, "trained");
    options->quant = espl_quant_format(held_as(base));
    if (options->quant < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: its base was held as '%s', which this program does not know", path, held_as(base));
    if (options->quant == ESPL_QUANT_NONE)
        return ESPL_OK;
    options->n_train = (int64_t)json_array_size(trained);
    char **names = espl_calloc((size_t)options->n_train + 1, sizeof *names);
    for (int64_t i = 0; i < options->n_train; i++) {
        const char *name = json_string_value(json_array_get(trained, (size_t)i));
        names[i] = (char *)(uintptr_t)(name != NULL ? name : "");
    }
    options->train = names;
    return ESPL_OK;
}

static espl_status compare_held(const json_t *base, const char *path, int quant) {
    if (strcmp(held_as(base), espl_quant_name(quant)) != 0)
        ESPL_FAIL(
            ESPL_ERR_USAGE,
            "%s: what it trained stands on a base that was held as %s, here it is held as %s; set tune.base and tune.double_quantise as "
            "they were, or export it and start from model.path",
            path, held_as(base), espl_quant_name(quant));
    return ESPL_OK;
}

static espl_status compare(const json_t *base, const char *path, const char *found) {
    const char *expected = json_string_value(json_object_get(base, "digest")), *from = json_string_value(json_object_get(base, "path"));
    if (expected == NULL || strcmp(expected, found) != 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: what it trained stands on another base: the frozen weights have digest %s, its own had %s and came from %s; set "
                  "model.path to that folder as it was",
                  path, found, expected != NULL ? expected : "none", from != NULL && from[0] != '\0' ? from : "random initialisation");
    return ESPL_OK;
}

espl_status espl_base_check(const json_t *record, const char *path, const json_t *own) {
    const json_t *base = json_object_get(record, "base");
    if (base == NULL && own == NULL)
        return ESPL_OK;
    if (base == NULL || own == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: the checkpoint holds %s, this run trains %s; set tune.train as it was, or export it and start from model.path", path,
                  base == NULL ? "all parameters" : "a part of the parameters", own == NULL ? "all" : "a part");
    ESPL_TRY(compare_held(base, path, espl_quant_format(held_as(own))));
    return compare(base, path, json_string_value(json_object_get(own, "digest")));
}

/* ---- Reading it. */

static bool is_checkpoint(const char *folder) {
    char *manifest = espl_format("%s/manifest.json", folder);
    bool there = espl_file_is_there(manifest);
    free(manifest);
    return there;
}

/* Of a checkpoint; "" where there is none. */
static void find_base(const char *path, char base[PATH_MAX]) {
    json_t *record = NULL;
    if (!is_checkpoint(path) || espl_checkpoint_record(path, &record) != ESPL_OK)
        espl_status_clear();
    const char *found = json_string_value(json_object_get(json_object_get(record, "base"), "path"));
    snprintf(base, PATH_MAX, "%s", found != NULL ? found : "");
    json_decref(record);
}

espl_status espl_base_share(espl_comm *comm, const char *path) {
    enum { MOST = 64 }; /* bases of bases: records may lead in circles */
    char at[PATH_MAX] = "", base[PATH_MAX] = "";
    snprintf(at, sizeof at, "%s", path);
    for (int i = 0; i < MOST && at[0] != '\0'; i++) {
        ESPL_TRY(espl_files_share(comm, (const char *const[]){at}, 1));
        find_base(at, base);
        memcpy(at, base, sizeof at);
        ESPL_TRY(espl_comm_bcast(comm, at, sizeof at, 0));
    }
    return ESPL_OK;
}

static espl_status read_folder(const espl_model *model, const char *path, const char *folder, uint64_t seed, const espl_weights *weights) {
    if (folder == NULL || folder[0] == '\0')
        return espl_weights_init(model, seed, weights);
    if (is_checkpoint(folder))
        return espl_base_weights(model, folder, NULL, seed, weights);
    if (!espl_safetensors_exist(folder))
        ESPL_FAIL(ESPL_ERR_DATA,
                  "%s: what it trained is a part of the model in %s, which holds no safetensors (any more); say where it is now by --base "
                  "(export) or model.path",
                  path, folder);
    return espl_weights_read(model, folder, seed, weights);
}

/* Those that `weights` wants, which are all that the checkpoint lacks, because the digest is of all. */
static espl_status read_base(const espl_model *model, const char *path, const json_t *base, const char *instead, espl_weights *weights) {
    const char *folder = instead != NULL && instead[0] != '\0' ? instead : json_string_value(json_object_get(base, "path"));
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(base, "init_seed"));
    uint64_t *hashes = espl_calloc((size_t)model->n_params, sizeof *hashes), *asked = weights->hashes;
    char found[17];
    weights->hashes = hashes;
    espl_status status = compare_held(base, path, model->quant);
    if (status == ESPL_OK)
        status = read_folder(model, path, folder, seed, weights);
    snprintf(found, sizeof found, "%016" PRIx64, digest_of(model, weights->wanted, hashes));
    if (status == ESPL_OK)
        status = compare(base, path, found);
    for (int i = 0; i < model->n_params && asked != NULL; i++)
        if (weights->wanted[i])
            asked[i] = hashes[i];
    free(hashes);
    return status;
}

/* Marks what is neither in the checkpoint nor an update that starts anew; how many there are. */
static int mark_absent(const espl_model *model, const bool *held, bool *absent) {
    int n = 0;
    for (int i = 0; i < model->n_params; i++)
        n += absent[i] = !held[i] && model->params[i].adapts < 0;
    return n;
}

/* Marks wanted updates that the checkpoint does not hold. */
static void mark_new(const espl_model *model, const bool *held, const bool *wanted, bool *new) {
    for (int i = 0; i < model->n_params; i++)
        new[i] = !held[i] && model->params[i].adapts >= 0 && (wanted == NULL || wanted[i]);
}

static espl_status complete(const espl_model *model, const char *path, const json_t *record, const char *instead, uint64_t seed,
                            const bool *held, const espl_weights *weights) {
    const json_t *base = json_object_get(record, "base");
    bool *which = espl_calloc((size_t)model->n_params, sizeof *which);
    espl_weights rest = *weights;
    espl_status status = ESPL_OK;
    rest.wanted = which;
    mark_new(model, held, weights->wanted, which);
    ESPL_TRY_DONE(espl_weights_init(model, seed, &rest));
    if (mark_absent(model, held, which) == 0)
        goto done;
    if (base == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: it lacks tensors of the model, and its record names no base that has them", path);
    ESPL_TRY_DONE(read_base(model, path, base, instead, &rest));
done:
    free(which);
    return status;
}

espl_status espl_base_weights(const espl_model *model, const char *path, const char *instead, uint64_t seed, const espl_weights *weights) {
    bool *held = espl_calloc((size_t)model->n_params, sizeof *held);
    json_t *record = NULL;
    espl_status status = espl_checkpoint_record(path, &record);
    if (status == ESPL_OK)
        status = espl_weights_from_checkpoint(model, path, weights, held);
    if (status == ESPL_OK)
        status = complete(model, path, record, instead, seed, held, weights);
    json_decref(record);
    free(held);
    return status;
}
