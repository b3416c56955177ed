#include "launch/artifact.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "io/checkpoint/manifest.h"
#include "io/safetensors/safetensors.h"

#include <stdlib.h>
#include <string.h>

static bool ends_in(const char *path, const char *end) {
    size_t n = strlen(path), m = strlen(end);
    return n > m && strcmp(path + n - m, end) == 0;
}

static bool holds(const char *folder, const char *name) {
    char *path = espl_format("%s/%s", folder, name);
    bool found = espl_fs_is_file(path);
    free(path);
    return found;
}

static bool holds_checkpoints(const char *folder) {
    espl_committed *list = NULL;
    size_t n = 0;
    if (espl_checkpoint_list(folder, &list, &n) != ESPL_OK)
        espl_status_clear();
    espl_checkpoint_list_free(list, n);
    return n > 0;
}

static espl_status find_folder(const char *path, espl_artifact *kind, char **at) {
    char *below = espl_format("%s/checkpoints", path);
    const char *open = path;
    espl_status status = ESPL_OK;
    if (holds(path, ESPL_MANIFEST_NAME))
        *kind = ESPL_ARTIFACT_CHECKPOINT;
    else if (espl_safetensors_exist(path))
        *kind = ESPL_ARTIFACT_MODEL;
    else if (holds_checkpoints(path))
        *kind = ESPL_ARTIFACT_RUN;
    else if (holds_checkpoints(below)) {
        *kind = ESPL_ARTIFACT_RUN;
        open = below;
    } else
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: neither a checkpoint nor a run folder with one nor a Hugging Face folder", path);
    *at = espl_strdup(open);
done:
    free(below);
    return status;
}

espl_status espl_artifact_find(const char *path, espl_artifact *kind, char **at) {
    bool present = false;
    *at = NULL;
    ESPL_TRY(espl_fs_present(path, &present));
    if (!present)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: there is nothing at this path", path);
    if (espl_fs_is_folder(path))
        return find_folder(path, kind, at);
    if (ends_in(path, ".safetensors"))
        *kind = ESPL_ARTIFACT_MODEL;
    else if (ends_in(path, ".h5"))
        *kind = ESPL_ARTIFACT_TOKENS;
    else
        ESPL_FAIL(ESPL_ERR_DATA, "%s: expected a folder, a .safetensors file or a token store (.h5)", path);
    *at = espl_strdup(path);
    return ESPL_OK;
}
