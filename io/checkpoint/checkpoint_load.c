#include "io/checkpoint/checkpoint.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "io/checkpoint/shard.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>

/* Collective. Rank 0 reads, all parse: one file opened instead of thousands, and all see the same. */
static espl_status share_manifest(espl_comm *comm, const char *path, espl_manifest **manifest) {
    bool root = espl_comm_ranks(comm)->rank == 0;
    espl_buffer text = {0};
    espl_status status = root ? espl_manifest_load_text(path, &text) : ESPL_OK;
    char *where = espl_format("%s/%s", path, ESPL_MANIFEST_NAME);
    ESPL_TRY_DONE(espl_comm_agree(comm, status, "reading a manifest"));
    int64_t size = (int64_t)text.size;
    ESPL_TRY_DONE(espl_comm_bcast(comm, &size, sizeof size, 0));
    if (!root) {
        espl_buffer_reserve(&text, (size_t)size);
        text.size = (size_t)size;
        text.data[size] = '\0';
    }
    ESPL_TRY_DONE(espl_comm_bcast(comm, text.data, (size_t)size, 0));
    ESPL_TRY_DONE(espl_manifest_parse(text.data, (size_t)size, where, manifest));
done:
    free(where);
    espl_buffer_free(&text);
    return status;
}

/* ---- Finding */

static bool is_shard(const espl_manifest_file *file) { return strncmp(file->name, "shard-", 6) == 0; }

/* Collective. The ranks share the files among them. The index is for readers from outside and not checked. */
static espl_status check_candidate(espl_comm *comm, const char *path) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_manifest *manifest = NULL;
    espl_shards *shards;
    espl_status status = ESPL_OK;
    ESPL_TRY(share_manifest(comm, path, &manifest));
    espl_shards_open(path, manifest, &shards);
    for (int64_t i = ranks->rank; i < manifest->n_files && status == ESPL_OK; i += ranks->size)
        if (is_shard(&manifest->files[i]))
            status = espl_shards_check_file(shards, i);
    espl_shards_close(&shards);
    espl_manifest_free(&manifest);
    return espl_comm_agree(comm, status, "verifying a checkpoint");
}

/* Collective. Rank 0's list of paths, one after the other, becomes everyone's. */
static espl_status share_list(espl_comm *comm, const char *folder, espl_buffer *paths) {
    espl_committed *list = NULL;
    size_t n = 0;
    espl_status status = ESPL_OK;
    if (espl_comm_ranks(comm)->rank == 0)
        status = espl_checkpoint_list(folder, &list, &n);
    for (size_t i = 0; i < n; i++)
        espl_buffer_append(paths, list[i].path, strlen(list[i].path) + 1);
    espl_checkpoint_list_free(list, n);
    ESPL_TRY(espl_comm_agree(comm, status, "listing checkpoints"));
    int64_t size = (int64_t)paths->size;
    ESPL_TRY(espl_comm_bcast(comm, &size, sizeof size, 0));
    espl_buffer_reserve(paths, (size_t)size - paths->size);
    paths->size = (size_t)size;
    return size > 0 ? espl_comm_bcast(comm, paths->data, (size_t)size, 0) : ESPL_OK;
}

static espl_status find_newest(espl_comm *comm, const char *folder, char **found) {
    espl_buffer paths = {0};
    int skipped = 0;
    espl_status status = share_list(comm, folder, &paths);
    for (size_t at = 0; status == ESPL_OK && at < paths.size && *found == NULL; at += strlen(paths.data + at) + 1) {
        if (check_candidate(comm, paths.data + at) == ESPL_OK) {
            *found = espl_strdup(paths.data + at);
            break;
        }
        skipped++;
        if (espl_comm_ranks(comm)->rank == 0)
            ESPL_WARN("checkpoint %s is skipped: %s", paths.data + at, espl_status_message());
        espl_status_clear();
    }
    espl_buffer_free(&paths);
    ESPL_TRY(status);
    if (*found == NULL && skipped > 0)
        ESPL_FAIL(
            ESPL_ERR_DATA,
            "%s: none of %d checkpoints verifies (the warnings say why); to start from the beginning, move them away or do not resume",
            folder, skipped);
    return ESPL_OK;
}

espl_status espl_checkpoint_find(espl_comm *comm, const char *folder, const char *path, char **found) {
    *found = NULL;
    if (path == NULL)
        return find_newest(comm, folder, found);
    ESPL_TRY(check_candidate(comm, path));
    *found = espl_strdup(path);
    return ESPL_OK;
}

/* ---- Loading */

static void print_shape(int n_dims, const int64_t *shape, char text[128]) {
    size_t n = (size_t)snprintf(text, 128, "[");
    for (int d = 0; d < n_dims; d++)
        n += (size_t)snprintf(text + n, 128 - n, d > 0 ? ", %lld" : "%lld", (long long)shape[d]);
    snprintf(text + n, 128 - n, "]");
}

static espl_status match(const char *path, const espl_manifest *manifest, const espl_state_tensor *want,
                         const espl_manifest_tensor **found) {
    const espl_manifest_tensor *t = espl_manifest_find(manifest, want->group, want->name);
    char has[128], expected[128];
    if (t == NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s is not in this checkpoint; was it written with another model or optimizer?", path,
                  want->group, want->name);
    print_shape(t->n_dims, t->shape, has);
    print_shape(want->n_dims, want->shape, expected);
    if (strcmp(has, expected) != 0 || t->dtype != want->dtype)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s is %s of %s, expected %s of %s", path, want->group, want->name, has,
                  espl_dtype_name(t->dtype), expected, espl_dtype_name(want->dtype));
    *found = t;
    return ESPL_OK;
}

/* Through the host, in bounded pieces. */
static espl_status read_far(espl_shards *shards, const espl_manifest_tensor *t, const espl_state_tensor *want,
                            const espl_state_memory *memory) {
    enum { PIECE_BYTES = 16 << 20 };
    const int64_t size = (int64_t)espl_dtype_size(want->dtype), piece = PIECE_BYTES / size;
    const int64_t room = want->end - want->begin < piece ? want->end - want->begin : piece;
    char *buffer = espl_malloc((size_t)(room * size));
    espl_status status = ESPL_OK;
    for (int64_t at = want->begin; at < want->end; at += piece) {
        int64_t end = want->end - at < piece ? want->end : at + piece;
        ESPL_TRY_DONE(espl_shards_read(shards, t, at, end, buffer));
        ESPL_TRY_DONE(memory->write(memory->context, (char *)want->data + (at - want->begin) * size, buffer, (size_t)((end - at) * size)));
    }
done:
    free(buffer);
    return status;
}

static espl_status read_tensors(const char *path, const espl_manifest *manifest, const espl_state_memory *memory,
                                const espl_state_tensor *tensors, int64_t n) {
    espl_shards *shards;
    espl_status status = ESPL_OK;
    espl_shards_open(path, manifest, &shards);
    for (int64_t i = 0; i < n; i++) {
        const espl_manifest_tensor *t = NULL;
        ESPL_TRY_DONE(match(path, manifest, &tensors[i], &t));
        if (tensors[i].begin == tensors[i].end)
            continue;
        if (memory != NULL)
            ESPL_TRY_DONE(read_far(shards, t, &tensors[i], memory));
        else
            ESPL_TRY_DONE(espl_shards_read(shards, t, tensors[i].begin, tensors[i].end, tensors[i].data));
    }
done:
    espl_shards_close(&shards);
    return status;
}

espl_status espl_checkpoint_load(espl_comm *comm, const char *path, const espl_state_memory *memory, const espl_state_tensor *tensors,
                                 int64_t n, json_t **record) {
    espl_manifest *manifest = NULL;
    *record = NULL;
    ESPL_TRY(share_manifest(comm, path, &manifest));
    espl_status status = read_tensors(path, manifest, memory, tensors, n);
    status = espl_comm_agree(comm, status, "loading a checkpoint");
    if (status == ESPL_OK)
        *record = json_incref(manifest->record);
    espl_manifest_free(&manifest);
    return status;
}
