/* The header of one safetensors file: everything in it is checked before a pointer is made from it. */
#include "io/safetensors/safetensors_set.h"

#include "src/core/buffer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH_BYTES = 8, MAX_HEADER = 100 * 1000 * 1000 }; /* the reference reader's limit */

typedef struct known_dtype {
    const char *name;
    espl_dtype dtype; /* ESPL_N_DTYPES: known to the format, not read here */
    int bits;
} known_dtype;

static const known_dtype known_dtypes[] = {
    {"F32", ESPL_F32, 32},
    {"BF16", ESPL_BF16, 16},
    {"F16", ESPL_F16, 16},
    {"F64", ESPL_F64, 64},
    {"I64", ESPL_I64, 64},
    {"I32", ESPL_I32, 32},
    {"U8", ESPL_U8, 8},
    {"BOOL", ESPL_N_DTYPES, 8},
    {"I8", ESPL_N_DTYPES, 8},
    {"I16", ESPL_N_DTYPES, 16},
    {"U16", ESPL_N_DTYPES, 16},
    {"U32", ESPL_N_DTYPES, 32},
    {"U64", ESPL_N_DTYPES, 64},
    {"C64", ESPL_N_DTYPES, 64},
    {"F8_E4M3", ESPL_N_DTYPES, 8},
    {"F8_E5M2", ESPL_N_DTYPES, 8},
    {"F8_E8M0", ESPL_N_DTYPES, 8},
    {"F6_E2M3", ESPL_N_DTYPES, 6},
    {"F6_E3M2", ESPL_N_DTYPES, 6},
    {"F4", ESPL_N_DTYPES, 4},
};
enum { N_KNOWN = sizeof known_dtypes / sizeof known_dtypes[0] };

const char *espl__safetensors_dtype_name(espl_dtype dtype) {
    for (int i = 0; i < N_KNOWN; i++)
        if (known_dtypes[i].dtype == dtype && dtype != ESPL_N_DTYPES)
            return known_dtypes[i].name;
    return NULL;
}

static const known_dtype *find_dtype(const char *name) {
    for (int i = 0; i < N_KNOWN; i++)
        if (strcmp(known_dtypes[i].name, name) == 0)
            return &known_dtypes[i];
    return NULL;
}

/* One tensor of the header; strings borrowed from the JSON. */
typedef struct entry {
    const char *name, *dtype_name;
    const known_dtype *dtype; /* NULL: the format has grown since */
    size_t n_dims;
    int64_t shape[ESPL_MAX_DIMS];
    int64_t n_elements;
    int64_t begin, end; /* in the data, which starts after the header */
} entry;

typedef struct header {
    const char *file;
    json_t *json;
    const char *data;
    int64_t data_bytes;
    entry *entries;
    size_t n;
} header;

static espl_status parse_json(header *h, const char *bytes, size_t size) {
    if (size < LENGTH_BYTES)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %zu bytes are too few for a safetensors file", h->file, size);
    uint64_t length = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | (unsigned char)bytes[i];
    if (length > MAX_HEADER)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: a header of %llu bytes (at most %d are allowed): this is not a safetensors file", h->file,
                  (unsigned long long)length, MAX_HEADER);
    if (length > size - LENGTH_BYTES)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: truncated: the header has %llu bytes, the file has %zu in all; fetch it again", h->file,
                  (unsigned long long)length, size);
    json_error_t error;
    h->json = json_loadb(bytes + LENGTH_BYTES, length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(h->json))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: the header is no JSON object: %s (byte %d)", h->file, h->json == NULL ? error.text : "another type",
                  h->json == NULL ? error.position : 0);
    h->data = bytes + LENGTH_BYTES + length;
    h->data_bytes = (int64_t)(size - LENGTH_BYTES - length);
    return ESPL_OK;
}

static espl_status parse_shape(const header *h, const json_t *shape, entry *e) {
    if (!json_is_array(shape))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s': 'shape' must be a list of integers", h->file, e->name);
    e->n_dims = json_array_size(shape);
    e->n_elements = 1;
    for (size_t i = 0; i < e->n_dims; i++) {
        const json_t *dim = json_array_get(shape, i);
        int64_t n = json_is_integer(dim) ? json_integer_value(dim) : -1;
        if (n < 0 || __builtin_mul_overflow(e->n_elements, n, &e->n_elements))
            ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s': entry %zu of 'shape' is no size, or the product is too big", h->file, e->name, i);
        if (i < ESPL_MAX_DIMS)
            e->shape[i] = n;
    }
    return ESPL_OK;
}

static espl_status parse_offsets(const header *h, const json_t *offsets, entry *e) {
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s': 'data_offsets' must be two integers", h->file, e->name);
    e->begin = json_integer_value(begin);
    e->end = json_integer_value(end);
    if (e->begin < 0 || e->end < e->begin)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s': data_offsets [%lld, %lld] are no range", h->file, e->name, (long long)e->begin,
                  (long long)e->end);
    if (e->end > h->data_bytes)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: truncated: tensor '%s' ends at byte %lld of the data, the file has %lld; fetch it again", h->file,
                  e->name, (long long)e->end, (long long)h->data_bytes);
    return ESPL_OK;
}

static espl_status check_bytes(const header *h, const entry *e) {
    int64_t bits = 0;
    if (e->dtype == NULL)
        return ESPL_OK;
    int overflow = __builtin_mul_overflow(e->n_elements, (int64_t)e->dtype->bits, &bits);
    if (overflow || bits % 8 != 0 || bits / 8 != e->end - e->begin)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s': %lld elements of %s do not make its %lld bytes", h->file, e->name,
                  (long long)e->n_elements, e->dtype_name, (long long)(e->end - e->begin));
    return ESPL_OK;
}

static espl_status parse_entry(const header *h, const char *name, const json_t *value, entry *e) {
    *e = (entry){.name = name, .dtype_name = json_string_value(json_object_get(value, "dtype"))};
    if (e->dtype_name == NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s': 'dtype' must be a string", h->file, name);
    e->dtype = find_dtype(e->dtype_name);
    ESPL_TRY(parse_shape(h, json_object_get(value, "shape"), e));
    ESPL_TRY(parse_offsets(h, json_object_get(value, "data_offsets"), e));
    return check_bytes(h, e);
}

static espl_status parse_entries(header *h) {
    const char *name;
    json_t *value;
    h->entries = espl_calloc(json_object_size(h->json), sizeof *h->entries);
    json_object_foreach(h->json, name, value) {
        if (strcmp(name, "__metadata__") != 0)
            ESPL_TRY(parse_entry(h, name, value, &h->entries[h->n++]));
    }
    return ESPL_OK;
}

static int by_offset(const void *a, const void *b) {
    const entry *x = a, *y = b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin) : (x->end > y->end) - (x->end < y->end);
}

/* The format wants the data tiled exactly: bytes that no tensor owns could hide anything. */
static espl_status check_tiling(const header *h) {
    int64_t at = 0;
    for (size_t i = 0; i < h->n; i++) {
        const entry *e = &h->entries[i];
        if (e->begin != at)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor '%s' starts at byte %lld of the data, but the one before it ('%s') ends at %lld: %s",
                      h->file, e->name, (long long)e->begin, i > 0 ? h->entries[i - 1].name : "the start", (long long)at,
                      e->begin < at ? "they overlap" : "there is a hole");
        at = e->end;
    }
    if (at != h->data_bytes)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %lld bytes follow the last tensor", h->file, (long long)(h->data_bytes - at));
    return ESPL_OK;
}

static void add_unread(espl_safetensors *set, const entry *e) {
    set->unread = espl_realloc(set->unread, (size_t)(set->n_unread + 1) * sizeof *set->unread);
    char *form = e->n_dims > ESPL_MAX_DIMS ? espl_format("%zu dimensions", e->n_dims) : espl_format("dtype %s", e->dtype_name);
    set->unread[set->n_unread++] = (espl__unread){.name = espl_strdup(e->name), .form = form};
}

static const void *aligned_data(espl_safetensors *set, const char *data, size_t bytes, size_t alignment) {
    if ((uintptr_t)data % alignment == 0)
        return data;
    void *copy = memcpy(espl_malloc(bytes), data, bytes);
    set->copies = espl_realloc(set->copies, (size_t)(set->n_copies + 1) * sizeof *set->copies);
    set->copies[set->n_copies++] = copy;
    return copy;
}

static void add_tensor(espl_safetensors *set, const header *h, const entry *e) {
    size_t bytes = (size_t)(e->end - e->begin);
    espl_tensor_file *tensor = &set->tensors[set->n_tensors++];
    *tensor = (espl_tensor_file){.name = espl_strdup(e->name), .dtype = e->dtype->dtype, .n_dims = (int)e->n_dims, .bytes = bytes};
    memcpy(tensor->shape, e->shape, sizeof e->shape);
    tensor->data = aligned_data(set, h->data + e->begin, bytes, espl_dtype_size(e->dtype->dtype));
}

static void add_all(espl_safetensors *set, const header *h) {
    set->tensors = espl_realloc(set->tensors, ((size_t)set->n_tensors + h->n) * sizeof *set->tensors);
    for (size_t i = 0; i < h->n; i++) {
        const entry *e = &h->entries[i];
        if (e->dtype == NULL || e->dtype->dtype == ESPL_N_DTYPES || e->n_dims > ESPL_MAX_DIMS)
            add_unread(set, e);
        else
            add_tensor(set, h, e);
    }
}

espl_status espl__safetensors_parse(espl_safetensors *set, const char *file, const char *bytes, size_t size) {
    header h = {.file = file};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(parse_json(&h, bytes, size));
    ESPL_TRY_DONE(parse_entries(&h));
    qsort(h.entries, h.n, sizeof *h.entries, by_offset);
    ESPL_TRY_DONE(check_tiling(&h));
    add_all(set, &h);
done:
    free(h.entries);
    json_decref(h.json);
    return status;
}
