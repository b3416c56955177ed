#include "io/checkpoint/manifest.h"

#include "io/fsio.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define FORMAT_START "{\"format\": \"espalier checkpoint\", \"version\": "

enum { MAX_MANIFEST_BYTES = 1 << 30 };

int64_t espl_manifest_count(int n_dims, const int64_t *shape) {
    int64_t count = 1;
    for (int d = 0; d < n_dims; d++)
        if (shape[d] < 0 || __builtin_mul_overflow(count, shape[d], &count) || count > INT64_MAX / 16)
            return -1;
    return count;
}

int64_t espl_manifest_pieces(int64_t bytes) { return bytes / ESPL_PIECE_BYTES + (bytes % ESPL_PIECE_BYTES != 0); }

static int compare_names(const char *group, const char *name, const espl_manifest_tensor *b) {
    int order = strcmp(group, b->group);
    return order != 0 ? order : strcmp(name, b->name);
}

static int by_name(const void *a, const void *b) {
    const espl_manifest_tensor *x = a;
    return compare_names(x->group, x->name, b);
}

void espl_manifest_sort(espl_manifest *manifest) {
    if (manifest->n_tensors > 1)
        qsort(manifest->tensors, (size_t)manifest->n_tensors, sizeof *manifest->tensors, by_name);
}

const espl_manifest_tensor *espl_manifest_find(const espl_manifest *manifest, const char *group, const char *name) {
    int64_t low = 0, high = manifest->n_tensors;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        int order = compare_names(group, name, &manifest->tensors[middle]);
        if (order == 0)
            return &manifest->tensors[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

void espl_manifest_free(espl_manifest **manifest) {
    espl_manifest *m = *manifest;
    *manifest = NULL;
    if (m == NULL)
        return;
    for (int64_t i = 0; i < m->n_files; i++)
        free(m->files[i].name);
    for (int64_t i = 0; i < m->n_tensors; i++) {
        free(m->tensors[i].group);
        free(m->tensors[i].name);
        free(m->tensors[i].ranges);
    }
    free(m->files);
    free(m->tensors);
    json_decref(m->record);
    free(m);
}

/* ---- Writing */

static json_t *hex(uint64_t value) { return json_sprintf("%016" PRIx64, value); }

static json_t *print_file(const espl_manifest_file *file) {
    return json_pack("{s:s, s:I, s:o, s:[I,I,o]}", "name", file->name, "bytes", (json_int_t)file->bytes, "xxh3", hex(file->xxh3),
                     "checksums", (json_int_t)file->sums_offset, (json_int_t)file->n_sums, hex(file->sums_xxh3));
}

static json_t *print_tensor(const espl_manifest_tensor *tensor) {
    json_t *shape = json_array(), *ranges = json_array();
    for (int d = 0; d < tensor->n_dims; d++)
        json_array_append_new(shape, json_integer(tensor->shape[d]));
    for (int64_t i = 0; i < tensor->n_ranges; i++) {
        const espl_manifest_range *r = &tensor->ranges[i];
        json_array_append_new(ranges, json_pack("[I,I,I,I,I]", (json_int_t)r->file, (json_int_t)r->begin, (json_int_t)r->end,
                                                (json_int_t)r->offset, (json_int_t)r->piece));
    }
    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "group", tensor->group, "name", tensor->name, "dtype", espl_dtype_name(tensor->dtype),
                     "shape", shape, "ranges", ranges);
}

static int append_to_buffer(const char *bytes, size_t n, void *buffer) {
    espl_buffer_append(buffer, bytes, n);
    return 0;
}

static void print_header(const char *rest, size_t n, char header[128]) {
    snprintf(header, 128, FORMAT_START "%d, \"xxh3\": \"%016" PRIx64 "\",\n", ESPL_MANIFEST_VERSION, (uint64_t)XXH3_64bits(rest, n));
}

void espl_manifest_print(const espl_manifest *m, espl_buffer *text) {
    json_t *files = json_array(), *tensors = json_array();
    for (int64_t i = 0; i < m->n_files; i++)
        json_array_append_new(files, print_file(&m->files[i]));
    for (int64_t i = 0; i < m->n_tensors; i++)
        json_array_append_new(tensors, print_tensor(&m->tensors[i]));
    json_t *root =
        json_pack("{s:I, s:I, s:o, s:o, s:o, s:O}", "step", (json_int_t)m->step, "attempt", (json_int_t)m->attempt, "rating",
                  isnan(m->rating) ? json_null() : json_real(m->rating), "files", files, "tensors", tensors, "record", m->record);
    ESPL_ASSERT(root != NULL, "a manifest that JSON cannot hold: a name is not UTF-8");
    espl_buffer rest = {0};
    json_dump_callback(root, append_to_buffer, &rest, 0);
    espl_buffer_append(&rest, "\n", 1);
    char header[128];
    print_header(rest.data + 1, rest.size - 1, header); /* without its brace, which opens the header line */
    espl_buffer_append(text, header, strlen(header));
    espl_buffer_append(text, rest.data + 1, rest.size - 1);
    espl_buffer_free(&rest);
    json_decref(root);
}

espl_status espl_manifest_write(const char *folder, const espl_manifest *manifest) {
    espl_buffer text = {0};
    char *path = espl_format("%s/%s", folder, ESPL_MANIFEST_NAME);
    espl_manifest_print(manifest, &text);
    espl_status status = espl_fs_write_file(path, text.data, text.size);
    espl_buffer_free(&text);
    free(path);
    return status;
}

/* ---- Reading */

static espl_status parse_hex(const char *text, const char *where, uint64_t *value) {
    char *end = NULL;
    *value = strtoull(text, &end, 16);
    if (strlen(text) != 16 || *end != '\0')
        ESPL_FAIL(ESPL_ERR_DATA, "%s: checksum \"%.20s\", expected 16 hexadecimal digits", where, text);
    return ESPL_OK;
}

static espl_status parse_file(const json_t *json, const char *where, espl_manifest_file *file) {
    json_error_t error;
    const char *name, *whole, *sums;
    json_int_t bytes, offset, n_sums;
    if (json_unpack_ex((json_t *)json, &error, 0, "{s:s, s:I, s:s, s:[I,I,s]}", "name", &name, "bytes", &bytes, "xxh3", &whole, "checksums",
                       &offset, &n_sums, &sums) != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: files: %s", where, error.text);
    if (name[0] == '\0' || name[0] == '.' || strchr(name, '/') != NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: file name \"%s\", expected a plain name in the same folder", where, name);
    if (bytes < 0 || offset < 0 || n_sums < 0 || offset > bytes || n_sums > (bytes - offset) / 8)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s: checksums lie outside of its %lld bytes", where, name, (long long)bytes);
    *file = (espl_manifest_file){.name = espl_strdup(name), .bytes = bytes, .sums_offset = offset, .n_sums = n_sums};
    ESPL_TRY(parse_hex(whole, where, &file->xxh3));
    ESPL_TRY(parse_hex(sums, where, &file->sums_xxh3));
    return ESPL_OK;
}

static espl_status parse_files(const json_t *json, const char *where, espl_manifest *m) {
    size_t n = json_array_size(json);
    m->files = espl_calloc(n, sizeof *m->files);
    for (size_t i = 0; i < n; i++) {
        m->n_files++;
        ESPL_TRY(parse_file(json_array_get(json, i), where, &m->files[i]));
    }
    return ESPL_OK;
}

static bool dtype_of(const char *name, espl_dtype *dtype) {
    for (int d = 0; d < ESPL_N_DTYPES; d++)
        if (strcmp(espl_dtype_name((espl_dtype)d), name) == 0) {
            *dtype = (espl_dtype)d;
            return true;
        }
    return false;
}

static espl_status parse_shape(const json_t *json, const char *where, espl_manifest_tensor *tensor) {
    size_t n = json_array_size(json);
    if (!json_is_array(json) || n > ESPL_MAX_DIMS)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s: %zu dimensions, expected at most %d", where, tensor->name, n, ESPL_MAX_DIMS);
    tensor->n_dims = (int)n;
    for (size_t d = 0; d < n; d++)
        tensor->shape[d] = json_is_integer(json_array_get(json, d)) ? json_integer_value(json_array_get(json, d)) : -1;
    tensor->count = espl_manifest_count(tensor->n_dims, tensor->shape);
    if (tensor->count < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s: its shape is none", where, tensor->name);
    return ESPL_OK;
}

/* A range must continue the tensor where the one before ended, and lie within its file and the file's checksums. */
static espl_status check_range(const espl_manifest *m, const espl_manifest_tensor *tensor, const espl_manifest_range *r, int64_t cursor,
                               const char *where) {
    if (r->begin != cursor || r->end <= r->begin || r->end > tensor->count)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: range [%lld, %lld), expected one from %lld within %lld elements", where, tensor->group,
                  tensor->name, (long long)r->begin, (long long)r->end, (long long)cursor, (long long)tensor->count);
    if (r->file < 0 || r->file >= m->n_files)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: file number %lld of %lld", where, tensor->group, tensor->name, (long long)r->file,
                  (long long)m->n_files);
    const espl_manifest_file *file = &m->files[r->file];
    int64_t bytes = (r->end - r->begin) * (int64_t)espl_dtype_size(tensor->dtype), pieces = espl_manifest_pieces(bytes);
    if (r->offset < 0 || r->offset > file->bytes || bytes > file->bytes - r->offset)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: %lld bytes at %lld lie outside of %s", where, tensor->group, tensor->name,
                  (long long)bytes, (long long)r->offset, file->name);
    if (r->piece < 0 || r->piece > file->n_sums || pieces > file->n_sums - r->piece)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: its checksums lie outside of those of %s", where, tensor->group, tensor->name,
                  file->name);
    return ESPL_OK;
}

static espl_status parse_ranges(const json_t *json, const char *where, const espl_manifest *m, espl_manifest_tensor *tensor) {
    size_t n = json_array_size(json);
    int64_t cursor = 0;
    tensor->ranges = espl_calloc(n, sizeof *tensor->ranges);
    tensor->n_ranges = (int64_t)n;
    for (size_t i = 0; i < n; i++) {
        json_error_t error;
        json_int_t v[5];
        if (json_unpack_ex(json_array_get(json, i), &error, 0, "[I,I,I,I,I]", &v[0], &v[1], &v[2], &v[3], &v[4]) != 0)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: range %zu: %s", where, tensor->group, tensor->name, i, error.text);
        tensor->ranges[i] = (espl_manifest_range){.file = v[0], .begin = v[1], .end = v[2], .offset = v[3], .piece = v[4]};
        ESPL_TRY(check_range(m, tensor, &tensor->ranges[i], cursor, where));
        cursor = tensor->ranges[i].end;
    }
    if (cursor != tensor->count)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: ranges end at %lld of %lld elements", where, tensor->group, tensor->name,
                  (long long)cursor, (long long)tensor->count);
    return ESPL_OK;
}

static espl_status parse_tensor(const json_t *json, const char *where, const espl_manifest *m, espl_manifest_tensor *tensor) {
    json_error_t error;
    const char *group, *name, *dtype;
    json_t *shape, *ranges;
    if (json_unpack_ex((json_t *)json, &error, 0, "{s:s, s:s, s:s, s:o, s:o}", "group", &group, "name", &name, "dtype", &dtype, "shape",
                       &shape, "ranges", &ranges) != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensors: %s", where, error.text);
    tensor->group = espl_strdup(group);
    tensor->name = espl_strdup(name);
    if (!dtype_of(dtype, &tensor->dtype))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s: unknown dtype \"%s\"", where, group, name, dtype);
    ESPL_TRY(parse_shape(shape, where, tensor));
    ESPL_TRY(parse_ranges(ranges, where, m, tensor));
    return ESPL_OK;
}

static espl_status parse_tensors(const json_t *json, const char *where, espl_manifest *m) {
    size_t n = json_array_size(json);
    m->tensors = espl_calloc(n, sizeof *m->tensors);
    for (size_t i = 0; i < n; i++) {
        espl_manifest_tensor *tensor = &m->tensors[i];
        m->n_tensors++;
        ESPL_TRY(parse_tensor(json_array_get(json, i), where, m, tensor));
        if (i > 0 && by_name(tensor - 1, tensor) >= 0)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s stands out of order or twice", where, tensor->group, tensor->name);
    }
    return ESPL_OK;
}

static espl_status parse_root(json_t *root, const char *where, espl_manifest *m) {
    json_error_t error;
    json_t *files, *tensors, *loss, *record;
    json_int_t step, attempt;
    if (json_unpack_ex(root, &error, 0, "{s:I, s:I, s:o, s:o, s:o, s:o}", "step", &step, "attempt", &attempt, "rating", &loss, "files",
                       &files, "tensors", &tensors, "record", &record) != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s", where, error.text);
    if (step < 0 || attempt < 0 || !json_is_array(files) || !json_is_array(tensors) || !json_is_object(record))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: step, attempt, files, tensors or record is not of its kind", where);
    m->step = step;
    m->attempt = attempt;
    m->rating = json_is_number(loss) ? json_number_value(loss) : NAN;
    m->record = json_incref(record);
    ESPL_TRY(parse_files(files, where, m));
    ESPL_TRY(parse_tensors(tensors, where, m));
    return ESPL_OK;
}

/* The first line is compared whole with what it should be, so every bit of the file is covered. */
static espl_status check_header(const char *text, size_t size, const char *where) {
    size_t start = strlen(FORMAT_START);
    if (size < start || memcmp(text, FORMAT_START, start) != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: not a checkpoint manifest, or its first bytes are damaged", where);
    long version = strtol(text + start, NULL, 10);
    if (version != ESPL_MANIFEST_VERSION)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: format version %ld, this program reads version %d; use the release that wrote it", where, version,
                  ESPL_MANIFEST_VERSION);
    const char *newline = memchr(text, '\n', size);
    char header[128];
    size_t length = newline == NULL ? 0 : (size_t)(newline - text) + 1;
    print_header(text + length, size - length, header);
    if (length != strlen(header) || memcmp(header, text, length) != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: torn or altered: its checksum does not match", where);
    return ESPL_OK;
}

espl_status espl_manifest_parse(const char *text, size_t size, const char *where, espl_manifest **manifest) {
    espl_status status = ESPL_OK;
    json_error_t error;
    json_t *root = NULL;
    espl_manifest *m = espl_calloc(1, sizeof *m);
    ESPL_TRY_DONE(check_header(text, size, where));
    root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s:%d: %s", where, error.line, error.text);
    ESPL_TRY_DONE(parse_root(root, where, m));
done:
    json_decref(root);
    if (status != ESPL_OK)
        espl_manifest_free(&m);
    *manifest = m;
    return status;
}

espl_status espl_manifest_load_text(const char *folder, espl_buffer *text) {
    char *path = espl_format("%s/%s", folder, ESPL_MANIFEST_NAME);
    espl_status status = espl_fs_read_file(path, MAX_MANIFEST_BYTES, text);
    free(path);
    return status;
}

espl_status espl_manifest_read(const char *folder, espl_manifest **manifest) {
    espl_status status = ESPL_OK;
    espl_buffer text = {0};
    *manifest = NULL;
    ESPL_TRY_DONE(espl_manifest_load_text(folder, &text));
    char *where = espl_format("%s/%s", folder, ESPL_MANIFEST_NAME);
    status = espl_manifest_parse(text.data, text.size, where, manifest);
    free(where);
done:
    espl_buffer_free(&text);
    return status;
}
