#include "io/checkpoint/shard.h"

#include "io/fsio.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_BOXES = 2 * ESPL_MAX_DIMS - 1 };

/* Where in the tensor the walk stands: leading indices are fixed, the rest is being cut. */
typedef struct cut {
    int n_dims;
    const int64_t *shape;
    int64_t at[ESPL_MAX_DIMS];
    espl_h5_box *boxes;
    int64_t n, source;
} cut;

static int64_t elements_after(const cut *c, int d) {
    int64_t n = 1;
    for (int k = d + 1; k < c->n_dims; k++)
        n *= c->shape[k];
    return n;
}

/* Rows [first, last) of dimension d, whole in all later ones. */
static void emit(cut *c, int d, int64_t first, int64_t last) {
    espl_h5_box *box = &c->boxes[c->n++];
    memset(box, 0, sizeof *box);
    box->begin = c->source;
    for (int k = 0; k < c->n_dims; k++) {
        box->at[k] = k < d ? c->at[k] : k == d ? first : 0;
        box->size[k] = k < d ? 1 : k == d ? last - first : c->shape[k];
    }
    c->source += (last - first) * elements_after(c, d);
}

/* A part of a first row, whole rows, a part of a last row; the parts are cut again one dimension deeper. */
static void cut_dimension(cut *c, int d, int64_t begin, int64_t end) {
    int64_t row = elements_after(c, d), first = begin / row, last = end / row;
    if (begin % row != 0) {
        int64_t stop = end < (first + 1) * row ? end : (first + 1) * row;
        c->at[d] = first;
        cut_dimension(c, d + 1, begin - first * row, stop - first * row);
        if (stop == end)
            return;
        first++;
    }
    if (first < last)
        emit(c, d, first, last);
    if (end % row != 0) {
        c->at[d] = last;
        cut_dimension(c, d + 1, 0, end - last * row);
    }
}

int64_t espl_shard_boxes(int n_dims, const int64_t *shape, int64_t begin, int64_t end, espl_h5_box boxes[MAX_BOXES]) {
    static const int64_t one = 1;
    cut c = {.n_dims = n_dims > 0 ? n_dims : 1, .shape = n_dims > 0 ? shape : &one, .boxes = boxes};
    if (begin < end)
        cut_dimension(&c, 0, begin, end);
    return c.n;
}

static espl_status add_tensor(espl_h5_id file, const espl_manifest *manifest, const espl_manifest_tensor *t) {
    espl_status status = ESPL_OK;
    espl_h5_id dataset = -1;
    int64_t n = 0;
    char *name = espl_format("/%s/%s", t->group, t->name);
    espl_h5_box *boxes = espl_calloc((size_t)t->n_ranges * MAX_BOXES, sizeof *boxes);
    for (int64_t i = 0; i < t->n_ranges; i++) {
        const espl_manifest_range *r = &t->ranges[i];
        int64_t added = espl_shard_boxes(t->n_dims, t->shape, r->begin, r->end, boxes + n);
        for (espl_h5_box *box = boxes + n; box < boxes + n + added; box++) {
            box->file = manifest->files[r->file].name;
            box->dataset = name;
            box->n_source = r->end - r->begin;
        }
        n += added;
    }
    ESPL_TRY_DONE(espl_h5_virtual(file, name, t->dtype, t->n_dims, t->shape, boxes, n, &dataset));
    ESPL_TRY_DONE(espl_h5_set_text(dataset, "dtype", espl_dtype_name(t->dtype)));
    ESPL_TRY_DONE(espl_h5_dataset_close(&dataset));
done:
    free(boxes);
    free(name);
    return status;
}

/* The record as attributes, for people with h5dump: texts as they are, the rest as JSON. What no attribute can hold is in the manifest. */
static espl_status add_record(espl_h5_id file, json_t *record) {
    const size_t most = 60000;
    const char *key;
    json_t *value;
    json_object_foreach(record, key, value) {
        char *name = espl_format("record.%s", key);
        char *text = json_is_string(value) ? espl_strdup(json_string_value(value)) : json_dumps(value, JSON_ENCODE_ANY | JSON_INDENT(1));
        espl_status status = text != NULL && strlen(text) < most ? espl_h5_set_text(file, name, text) : ESPL_OK;
        free(name);
        free(text);
        ESPL_TRY(status);
    }
    return ESPL_OK;
}

static espl_status make_image(const espl_manifest *manifest, espl_buffer *image) {
    espl_status status = ESPL_OK;
    espl_h5_id file = -1;
    espl_h5_lock();
    ESPL_TRY_DONE(espl_h5_create(NULL, &file));
    ESPL_TRY_DONE(espl_h5_set_text(file, "format", "espalier index"));
    ESPL_TRY_DONE(espl_h5_set_number(file, "step", manifest->step));
    ESPL_TRY_DONE(add_record(file, manifest->record));
    for (int64_t i = 0; i < manifest->n_tensors; i++)
        ESPL_TRY_DONE(add_tensor(file, manifest, &manifest->tensors[i]));
    ESPL_TRY_DONE(espl_h5_image(file, image));
    ESPL_TRY_DONE(espl_h5_close(&file, "memory"));
done:
    espl_h5_discard(&file);
    espl_h5_unlock();
    return status;
}

espl_status espl_shard_write_index(const char *folder, const espl_manifest *manifest, espl_manifest_file *file) {
    espl_status status = ESPL_OK;
    espl_buffer image = {0};
    char *path = espl_format("%s/%s", folder, file->name);
    ESPL_TRY_DONE(make_image(manifest, &image));
    ESPL_TRY_DONE(espl_fs_write_file(path, image.data, image.size));
    file->bytes = (int64_t)image.size;
    file->xxh3 = XXH3_64bits(image.data, image.size);
    file->sums_xxh3 = XXH3_64bits(NULL, 0);
done:
    free(path);
    espl_buffer_free(&image);
    return status;
}
