#include "src/train/base.h"

#include "io/safetensors.h"
#include "src/core/buffer.h"

#include <inttypes.h>
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
    char *path = pretrained ? realpath(config->model_path, NULL) : NULL;
    json_t *base = json_pack("{s:s, s:I, s:o}", "path", path != NULL ? path : "", "init_seed", (json_int_t)config->run_init_seed, "digest",
                             json_sprintf("%016" PRIx64, digest_of(model, NULL, hashes)));
    free(path);
    return base;
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
    return compare(base, path, json_string_value(json_object_get(own, "digest")));
}

static bool any(const bool *which, int n) {
    for (int i = 0; i < n; i++)
        if (which[i])
            return true;
    return false;
}

espl_status espl_base_read(const json_t *record, const char *path, const char *instead, const espl_model *model, espl_weights *weights) {
    const json_t *base = json_object_get(record, "base");
    const char *folder = instead != NULL && instead[0] != '\0' ? instead : json_string_value(json_object_get(base, "path"));
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(base, "init_seed"));
    espl_status status = ESPL_OK;
    if (!any(weights->wanted, model->n_params))
        return ESPL_OK;
    if (base == NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: it lacks tensors of the model, and its record names no base that has them", path);
    char found[17];
    if (folder != NULL && folder[0] != '\0' && !espl_safetensors_exist(folder))
        ESPL_FAIL(ESPL_ERR_DATA,
                  "%s: what it trained is a part of the model in %s, which holds no safetensors (any more); say where it is now by --base "
                  "(export) or model.path",
                  path, folder);
    uint64_t *hashes = weights->hashes = espl_calloc((size_t)model->n_params, sizeof *hashes);
    if (folder != NULL && folder[0] != '\0')
        status = espl_weights_read(model, folder, seed, weights);
    else
        status = espl_weights_init(model, seed, weights);
    snprintf(found, sizeof found, "%016" PRIx64, digest_of(model, weights->wanted, hashes));
    if (status == ESPL_OK)
        status = compare(base, path, found);
    weights->hashes = NULL;
    free(hashes);
    return status;
}
