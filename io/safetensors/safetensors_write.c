/* Writing weights: which tensor goes to which shard, the headers, the index. */
#include "io/safetensors/safetensors_set.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_ALIGN = 8 };

typedef struct shard {
    const espl_tensor_out **tensors; /* big elements first, so that each is aligned to its size */
    int64_t n;
    size_t bytes;
    char *file;
} shard;

static size_t bytes_of(const espl_tensor_out *tensor) {
    size_t n = espl_dtype_size(tensor->dtype);
    for (int i = 0; i < tensor->n_dims; i++)
        n *= (size_t)tensor->shape[i];
    return n;
}

static int by_size_then_name(const void *a, const void *b) {
    const espl_tensor_out *x = *(const espl_tensor_out *const *)a, *y = *(const espl_tensor_out *const *)b;
    size_t m = espl_dtype_size(x->dtype), n = espl_dtype_size(y->dtype);
    return m != n ? (m < n) - (m > n) : strcmp(x->name, y->name);
}

static json_t *describe(const espl_tensor_out *tensor, size_t begin) {
    json_t *shape = json_array();
    for (int i = 0; i < tensor->n_dims; i++)
        json_array_append_new(shape, json_integer(tensor->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", espl__safetensors_dtype_name(tensor->dtype), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)begin + (json_int_t)bytes_of(tensor));
}

static espl_status put_name(json_t *object, const char *name, json_t *value) {
    if (json_object_get(object, name) != NULL) {
        json_decref(value);
        ESPL_FAIL(ESPL_ERR_DATA, "tensor '%s' is written twice", name);
    }
    if (value == NULL || json_object_set_new(object, name, value) != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "tensor name '%s' is no UTF-8 text", name);
    return ESPL_OK;
}

/* The length, then the JSON, filled with spaces to a multiple of DATA_ALIGN. */
static void append_header(espl_buffer *text, const json_t *json) {
    char *dump = json_dumps(json, JSON_COMPACT);
    size_t used = strlen(dump), length = (used + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
    unsigned char little[8];
    for (int i = 0; i < 8; i++)
        little[i] = (unsigned char)((uint64_t)length >> 8 * i);
    espl_buffer_append(text, little, sizeof little);
    espl_buffer_append(text, dump, used);
    espl_buffer_append(text, "        ", length - used);
    free(dump);
}

static espl_status make_header(const shard *s, espl_buffer *text) {
    json_t *json = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    espl_status status = ESPL_OK;
    size_t at = 0;
    for (int64_t i = 0; i < s->n; i++) {
        ESPL_TRY_DONE(put_name(json, s->tensors[i]->name, describe(s->tensors[i], at)));
        at += bytes_of(s->tensors[i]);
    }
    append_header(text, json);
done:
    json_decref(json);
    return status;
}

static espl_status write_contents(const shard *s, const espl_buffer *header, int fd, const char *path) {
    int64_t at = (int64_t)header->size;
    ESPL_TRY(espl_fs_write(fd, header->data, header->size, 0, path));
    for (int64_t i = 0; i < s->n; i++) {
        ESPL_TRY(espl_fs_write(fd, s->tensors[i]->data, bytes_of(s->tensors[i]), at, path));
        at += (int64_t)bytes_of(s->tensors[i]);
    }
    return espl_fs_sync(fd, path);
}

static espl_status write_temporary(const shard *s, const espl_buffer *header, const char *path) {
    int fd = -1;
    ESPL_TRY(espl_fs_open_write(path, &fd));
    espl_status status = write_contents(s, header, fd, path);
    espl_status closed = espl_fs_close(&fd, path);
    return status != ESPL_OK ? status : closed;
}

static espl_status write_shard(const shard *s, const char *path) {
    espl_buffer header = {0};
    char *temporary = espl_format("%s.tmp", path);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(make_header(s, &header));
    status = write_temporary(s, &header, temporary);
    if (status == ESPL_OK)
        status = espl_fs_rename(temporary, path);
    if (status != ESPL_OK)
        espl_fs_unlink(temporary);
done:
    espl_buffer_free(&header);
    free(temporary);
    return status;
}

static void sort_shard(shard *s) {
    if (s->n > 0)
        qsort(s->tensors, (size_t)s->n, sizeof *s->tensors, by_size_then_name);
}

/* Cuts the list, in its order, where the next tensor would not fit; fills `shards` (room for n + 1), whose lists lie in `list`. */
static int64_t cut_shards(const espl_tensor_out *tensors, int64_t n, size_t limit, shard *shards, const espl_tensor_out **list) {
    int64_t n_shards = 1;
    shards[0] = (shard){.tensors = list};
    for (int64_t i = 0; i < n; i++) {
        shard *s = &shards[n_shards - 1];
        size_t bytes = bytes_of(&tensors[i]);
        if (limit > 0 && s->n > 0 && s->bytes + bytes > limit) {
            s = &shards[n_shards++];
            *s = (shard){.tensors = list + i};
        }
        s->tensors[s->n++] = &tensors[i];
        s->bytes += bytes;
    }
    for (int64_t i = 0; i < n_shards; i++)
        sort_shard(&shards[i]);
    return n_shards;
}

static espl_status write_index(const char *folder, const shard *shards, int64_t n) {
    json_t *map = json_object();
    json_int_t total = 0;
    char *path = espl_format("%s/%s", folder, ESPL__SAFETENSORS_INDEX), *text = NULL;
    espl_status status = ESPL_OK;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t k = 0; k < shards[i].n; k++)
            ESPL_TRY_DONE(put_name(map, shards[i].tensors[k]->name, json_string(shards[i].file)));
        total += (json_int_t)shards[i].bytes;
    }
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", total, "weight_map", map);
    text = json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS);
    json_decref(index);
    status = espl_fs_write_file(path, text, strlen(text));
done:
    json_decref(map);
    free(text);
    free(path);
    return status;
}

static espl_status write_shards(const char *folder, shard *shards, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        shards[i].file = n == 1 ? espl_strdup(ESPL__SAFETENSORS_FILE)
                                : espl_format("model-%05lld-of-%05lld.safetensors", (long long)i + 1, (long long)n);
        char *path = espl_format("%s/%s", folder, shards[i].file);
        espl_status status = write_shard(&shards[i], path);
        free(path);
        ESPL_TRY(status);
    }
    return n > 1 ? write_index(folder, shards, n) : ESPL_OK;
}

/* Readers prefer the single file, so what an earlier export left in the other form must not stay. */
static espl_status remove_other_form(const char *folder, bool single) {
    char *path = espl_format("%s/%s", folder, single ? ESPL__SAFETENSORS_INDEX : ESPL__SAFETENSORS_FILE);
    espl_status status = espl_fs_unlink(path);
    free(path);
    return status;
}

espl_status espl_safetensors_write(const char *folder, const espl_tensor_out *tensors, int64_t n, size_t shard_bytes) {
    shard *shards = espl_calloc((size_t)n + 1, sizeof *shards);
    const espl_tensor_out **list = espl_malloc((size_t)n * sizeof *list);
    espl_status status = ESPL_OK;
    int64_t n_shards = cut_shards(tensors, n, shard_bytes, shards, list);
    ESPL_TRY_DONE(write_shards(folder, shards, n_shards));
    ESPL_TRY_DONE(remove_other_form(folder, n_shards == 1));
done:
    for (int64_t i = 0; i < n_shards; i++)
        free(shards[i].file);
    free(shards);
    free(list);
    return status;
}

espl_status espl_safetensors_write_file(const char *path, const espl_tensor_out *tensors, int64_t n) {
    const espl_tensor_out **list = espl_malloc((size_t)n * sizeof *list);
    shard all = {.tensors = list};
    cut_shards(tensors, n, 0, &all, list);
    espl_status status = write_shard(&all, path);
    free(list);
    return status;
}
