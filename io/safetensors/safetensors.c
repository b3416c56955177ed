#include "io/safetensors/safetensors_set.h"

#include "io/fsio.h"
#include "src/core/buffer.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MAX_INDEX = 256 << 20 };

/* Maps a file as the last of set->mappings. */
static espl_status map_file(espl_safetensors *set, const char *path) {
    int fd = -1;
    int64_t bytes = 0;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_fs_open_read(path, &fd));
    ESPL_TRY_DONE(espl_fs_size(fd, &bytes, path));
    if (bytes == 0)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: the file is empty", path);
    void *base = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot map %lld bytes: %s", path, (long long)bytes, strerror(errno));
    set->mappings = espl_realloc(set->mappings, (size_t)(set->n_mappings + 1) * sizeof *set->mappings);
    set->mappings[set->n_mappings++] = (espl__mapping){.base = base, .bytes = (size_t)bytes};
done:
    espl_fs_close(&fd, path);
    return status;
}

static espl_status add_file(espl_safetensors *set, const char *path) {
    ESPL_TRY(map_file(set, path));
    const espl__mapping *mapping = &set->mappings[set->n_mappings - 1];
    return espl__safetensors_parse(set, path, mapping->base, mapping->bytes);
}

/* The index is the authority: of a shard's tensors those stay that the index places there. */
static void drop_others(espl_safetensors *set, int64_t first, const json_t *weight_map, const char *file) {
    int64_t kept = first;
    for (int64_t i = first; i < set->n_tensors; i++) {
        const char *place = json_string_value(json_object_get(weight_map, set->tensors[i].name));
        if (place != NULL && strcmp(place, file) == 0)
            set->tensors[kept++] = set->tensors[i];
        else
            free((char *)set->tensors[i].name);
    }
    set->n_tensors = kept;
}

static espl_status add_shard(espl_safetensors *set, const char *folder, const char *file, const json_t *weight_map) {
    espl_status status = ESPL_OK;
    char *path = espl_format("%s/%s", folder, file);
    int64_t first = set->n_tensors;
    if (!espl_fs_is_file(path))
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: the index names the file '%s', which is missing; fetch it", folder, file);
    ESPL_TRY_DONE(add_file(set, path));
    drop_others(set, first, weight_map, file);
done:
    free(path);
    return status;
}

static espl_status read_index(const char *path, json_t **index) {
    espl_buffer text = {0};
    espl_status status = ESPL_OK;
    json_error_t error;
    ESPL_TRY_DONE(espl_fs_read_file(path, MAX_INDEX, &text));
    *index = json_loadb(text.size > 0 ? text.data : "", text.size, JSON_REJECT_DUPLICATES, &error);
    if (*index == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s:%d: %s", path, error.line, error.text);
    if (!json_is_object(json_object_get(*index, "weight_map")))
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: 'weight_map' must be an object: tensor name to file name", path);
done:
    espl_buffer_free(&text);
    return status;
}

static bool listed(const espl_safetensors *set, const char *name) {
    for (int64_t i = 0; i < set->n_unread; i++)
        if (strcmp(set->unread[i].name, name) == 0)
            return true;
    return false;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const espl_tensor_file *)a)->name, ((const espl_tensor_file *)b)->name);
}

static void sort_tensors(espl_safetensors *set) {
    if (set->n_tensors > 0)
        qsort(set->tensors, (size_t)set->n_tensors, sizeof *set->tensors, by_name);
}

static espl_status check_all_found(const espl_safetensors *set, const json_t *weight_map) {
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)weight_map, name, file) {
        if (espl_safetensors_find(set, name) == NULL && !listed(set, name))
            ESPL_FAIL(ESPL_ERR_DATA, "%s: the index places tensor '%s' in '%s', which does not have it", set->path, name,
                      json_string_value(file));
    }
    return ESPL_OK;
}

/* A shard is a file of the folder: no path that leads elsewhere. */
static espl_status check_file_name(const espl_safetensors *set, const char *name, const json_t *file) {
    const char *text = json_string_value(file);
    if (text == NULL || text[0] == '\0' || text[0] == '.' || strchr(text, '/') != NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s: 'weight_map' gives tensor '%s' no plain file name", set->path, ESPL__SAFETENSORS_INDEX, name);
    return ESPL_OK;
}

static espl_status add_shards(espl_safetensors *set, const json_t *weight_map, json_t *seen) {
    const char *name;
    json_t *file;
    json_object_foreach((json_t *)weight_map, name, file) {
        ESPL_TRY(check_file_name(set, name, file));
        if (json_object_get(seen, json_string_value(file)) != NULL)
            continue;
        json_object_set_new(seen, json_string_value(file), json_true());
        ESPL_TRY(add_shard(set, set->path, json_string_value(file), weight_map));
    }
    sort_tensors(set);
    return check_all_found(set, weight_map);
}

static espl_status add_indexed(espl_safetensors *set, const char *index_path) {
    json_t *index = NULL, *seen = json_object();
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(read_index(index_path, &index));
    ESPL_TRY_DONE(add_shards(set, json_object_get(index, "weight_map"), seen));
done:
    json_decref(index);
    json_decref(seen);
    return status;
}

static espl_status open_folder(espl_safetensors *set) {
    espl_status status = ESPL_OK;
    char *single = espl_format("%s/%s", set->path, ESPL__SAFETENSORS_FILE),
         *index = espl_format("%s/%s", set->path, ESPL__SAFETENSORS_INDEX);
    if (espl_fs_is_file(single))
        ESPL_TRY_DONE(add_file(set, single));
    else if (espl_fs_is_file(index))
        ESPL_TRY_DONE(add_indexed(set, index));
    else
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: neither %s nor %s is here; a model folder needs one of them", set->path, ESPL__SAFETENSORS_FILE,
                       ESPL__SAFETENSORS_INDEX);
done:
    free(single);
    free(index);
    return status;
}

espl_status espl_safetensors_open(const char *path, espl_safetensors **opened) {
    espl_safetensors *set = espl_calloc(1, sizeof *set);
    espl_status status = ESPL_OK;
    *opened = NULL;
    set->path = espl_strdup(path);
    ESPL_TRY_DONE(espl_fs_is_folder(path) ? open_folder(set) : add_file(set, path));
    sort_tensors(set);
    *opened = set;
    set = NULL;
done:
    espl_safetensors_close(&set);
    return status;
}

bool espl_safetensors_exist(const char *folder) {
    char *single = espl_format("%s/%s", folder, ESPL__SAFETENSORS_FILE), *index = espl_format("%s/%s", folder, ESPL__SAFETENSORS_INDEX);
    bool exist = espl_fs_is_file(single) || espl_fs_is_file(index);
    free(single);
    free(index);
    return exist;
}

int64_t espl_safetensors_count(const espl_safetensors *set) { return set->n_tensors; }

const espl_tensor_file *espl_safetensors_at(const espl_safetensors *set, int64_t i) {
    ESPL_ASSERT(i >= 0 && i < set->n_tensors, "tensor %lld of %lld", (long long)i, (long long)set->n_tensors);
    return &set->tensors[i];
}

const espl_tensor_file *espl_safetensors_find(const espl_safetensors *set, const char *name) {
    espl_tensor_file key = {.name = name};
    return set->n_tensors > 0 ? bsearch(&key, set->tensors, (size_t)set->n_tensors, sizeof key, by_name) : NULL;
}

espl_status espl_safetensors_require(const espl_safetensors *set, const char *name, const espl_tensor_file **tensor) {
    *tensor = espl_safetensors_find(set, name);
    for (int64_t i = 0; *tensor == NULL && i < set->n_unread; i++)
        if (strcmp(set->unread[i].name, name) == 0)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s' has %s; F64, F32, F16, BF16, I64, I32 and U8 of up to %d dimensions are read",
                      set->path, name, set->unread[i].form, ESPL_MAX_DIMS);
    if (*tensor == NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s' is missing", set->path, name);
    return ESPL_OK;
}

static void free_unread(espl_safetensors *set) {
    for (int64_t i = 0; i < set->n_unread; i++) {
        free(set->unread[i].name);
        free(set->unread[i].form);
    }
    free(set->unread);
}

void espl_safetensors_close(espl_safetensors **address) {
    espl_safetensors *set = *address;
    *address = NULL;
    if (set == NULL)
        return;
    for (int64_t i = 0; i < set->n_tensors; i++)
        free((char *)set->tensors[i].name);
    free(set->tensors);
    free_unread(set);
    for (int64_t i = 0; i < set->n_copies; i++)
        free(set->copies[i]);
    free(set->copies);
    for (int64_t i = 0; i < set->n_mappings; i++)
        munmap(set->mappings[i].base, set->mappings[i].bytes);
    free(set->mappings);
    free(set->path);
    free(set);
}
