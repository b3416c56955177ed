#include "io/checkpoint/checkpoint.h"

#include "io/checkpoint/manifest.h"
#include "io/checkpoint/shard.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static espl_status visit_tensor(espl_shards *shards, const espl_manifest_tensor *t, espl_tensor_visit *visit, void *context) {
    espl_status status = ESPL_OK;
    void *data = espl_malloc((size_t)t->count * espl_dtype_size(t->dtype));
    espl_tensor_out out = {.name = t->name, .dtype = t->dtype, .n_dims = t->n_dims, .data = data};
    memcpy(out.shape, t->shape, sizeof out.shape);
    ESPL_TRY_DONE(espl_shards_read(shards, t, 0, t->count, data));
    ESPL_TRY_DONE(visit(&out, context));
done:
    free(data);
    return status;
}

espl_status espl_checkpoint_visit(const char *path, const char *group, espl_tensor_visit *visit, void *context) {
    espl_manifest *manifest = NULL;
    espl_shards *shards;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_manifest_read(path, &manifest));
    espl_shards_open(path, manifest, &shards);
    for (int64_t i = 0; i < manifest->n_tensors; i++)
        if (strcmp(manifest->tensors[i].group, group) == 0)
            ESPL_TRY_DONE(visit_tensor(shards, &manifest->tensors[i], visit, context));
done:
    espl_shards_close(&shards);
    espl_manifest_free(&manifest);
    return status;
}

espl_status espl_checkpoint_verify(const char *path) {
    espl_manifest *manifest = NULL;
    espl_shards *shards;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_manifest_read(path, &manifest));
    espl_shards_open(path, manifest, &shards);
    for (int64_t i = 0; i < manifest->n_files; i++)
        ESPL_TRY_DONE(espl_shards_check_file(shards, i));
done:
    espl_shards_close(&shards);
    espl_manifest_free(&manifest);
    return status;
}

/* Names end in NUL and shapes in -1, so that no two lists of tensors give the same bytes. */
static espl_status digest_tensor(const espl_tensor_out *t, void *context) {
    XXH3_state_t *state = context;
    static const int64_t end = -1;
    XXH3_64bits_update(state, t->name, strlen(t->name) + 1);
    XXH3_64bits_update(state, t->shape, (size_t)t->n_dims * sizeof *t->shape);
    XXH3_64bits_update(state, &end, sizeof end);
    XXH3_64bits_update(state, t->data, (size_t)espl_manifest_count(t->n_dims, t->shape) * espl_dtype_size(t->dtype));
    return ESPL_OK;
}

espl_status espl_checkpoint_digest(const char *path, uint64_t *digest) {
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    espl_status status = espl_checkpoint_visit(path, "model", digest_tensor, state);
    *digest = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return status;
}

espl_status espl_checkpoint_record(const char *path, json_t **record) {
    espl_manifest *manifest = NULL;
    *record = NULL;
    ESPL_TRY(espl_manifest_read(path, &manifest));
    *record = json_incref(manifest->record);
    espl_manifest_free(&manifest);
    return ESPL_OK;
}
