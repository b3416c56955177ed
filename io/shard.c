#include "io/shard.h"

#include "io/fsio.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { GAP_BYTES = 1 << 16, WRITE_BYTES = 8 << 20 };

/* Bytes that go to a known place of the file; what lies between such places was written by HDF5. */
typedef struct region {
    int64_t offset, bytes;
    const char *data;
    bool is_sums; /* not a range's */
} region;

static int64_t range_bytes(const espl_shard_range *r) { return (r->end - r->begin) * (int64_t)espl_dtype_size(r->tensor->dtype); }

/* Numbers the pieces of all ranges; returns how many there are. */
static int64_t number_pieces(espl_shard_range *ranges, int64_t n) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        ranges[i].piece = total;
        total += espl_manifest_pieces(range_bytes(&ranges[i]));
    }
    return total;
}

/* The one pass over the data; the checksum of a whole range is that of its pieces' checksums. */
static uint64_t sum_range(const espl_shard_range *r, uint64_t *sums) {
    int64_t bytes = range_bytes(r), n = 0;
    for (int64_t at = 0; at < bytes; at += ESPL_PIECE_BYTES)
        sums[n++] = XXH3_64bits((const char *)r->data + at, bytes - at < ESPL_PIECE_BYTES ? (size_t)(bytes - at) : ESPL_PIECE_BYTES);
    return XXH3_64bits(sums, (size_t)n * sizeof *sums);
}

static espl_status describe_range(espl_h5_id dataset, const espl_shard_range *r, uint64_t sum) {
    const espl_state_tensor *t = r->tensor;
    char text[20];
    snprintf(text, sizeof text, "%016" PRIx64, sum);
    ESPL_TRY(espl_h5_set_text(dataset, "dtype", espl_dtype_name(t->dtype)));
    ESPL_TRY(espl_h5_set_numbers(dataset, "shape", t->shape, t->n_dims));
    ESPL_TRY(espl_h5_set_number(dataset, "begin", r->begin));
    ESPL_TRY(espl_h5_set_number(dataset, "end", r->end));
    ESPL_TRY(espl_h5_set_number(dataset, "piece", r->piece));
    ESPL_TRY(espl_h5_set_text(dataset, "xxh3", text));
    return ESPL_OK;
}

static espl_status lay_range(espl_h5_id file, espl_shard_range *r, uint64_t sum) {
    espl_h5_id dataset = -1;
    espl_status status = ESPL_OK;
    char *name = espl_format("/%s/%s", r->tensor->group, r->tensor->name);
    int64_t count = r->end - r->begin;
    ESPL_TRY_DONE(espl_h5_dataset(file, name, r->tensor->dtype, 1, &count, &dataset));
    ESPL_TRY_DONE(describe_range(dataset, r, sum));
    ESPL_TRY_DONE(espl_h5_offset(dataset, &r->offset));
done:
    free(name);
    if (status != ESPL_OK)
        return status; /* a file given up closes its datasets itself */
    return espl_h5_dataset_close(&dataset);
}

static espl_status lay_sums(espl_h5_id file, espl_manifest_file *out) {
    espl_h5_id dataset = -1;
    if (out->n_sums == 0)
        return ESPL_OK;
    ESPL_TRY(espl_h5_dataset(file, "/checksums", ESPL_H5_U64, 1, &out->n_sums, &dataset));
    ESPL_TRY(espl_h5_offset(dataset, &out->sums_offset));
    return espl_h5_dataset_close(&dataset);
}

/* HDF5's part: the whole file but for the bytes of its datasets. `wholes` are the ranges' checksums, which stand in attributes. */
static espl_status lay_out(const char *path, int64_t step, int64_t attempt, espl_shard_range *ranges, int64_t n, const uint64_t *wholes,
                           espl_manifest_file *out) {
    espl_h5_id file = -1;
    espl_status status = ESPL_OK;
    espl_h5_lock();
    ESPL_TRY_DONE(espl_h5_create(path, &file));
    ESPL_TRY_DONE(espl_h5_set_text(file, "format", "espalier shard"));
    ESPL_TRY_DONE(espl_h5_set_number(file, "step", step));
    ESPL_TRY_DONE(espl_h5_set_number(file, "attempt", attempt));
    ESPL_TRY_DONE(lay_sums(file, out));
    for (int64_t i = 0; i < n; i++)
        ESPL_TRY_DONE(lay_range(file, &ranges[i], wholes[i]));
    ESPL_TRY_DONE(espl_h5_close(&file, path));
done:
    espl_h5_discard(&file);
    espl_h5_unlock();
    return status;
}

espl_status espl__shard_hash(int fd, const char *path, int64_t from, int64_t to, struct XXH3_state_s *state) {
    char bytes[GAP_BYTES];
    while (from < to) {
        size_t n = to - from < GAP_BYTES ? (size_t)(to - from) : GAP_BYTES;
        ESPL_TRY(espl_fs_read(fd, bytes, n, from, path));
        XXH3_64bits_update(state, bytes, n);
        from += (int64_t)n;
    }
    return ESPL_OK;
}

static espl_status write_region(int direct, int fd, const char *path, const region *r) {
    for (int64_t at = 0; at < r->bytes; at += WRITE_BYTES) {
        size_t n = r->bytes - at < WRITE_BYTES ? (size_t)(r->bytes - at) : WRITE_BYTES;
        ESPL_TRY(espl_fs_write_direct(direct, fd, r->data + at, n, r->offset + at, path));
    }
    return ESPL_OK;
}

static int by_offset(const void *a, const void *b) {
    int64_t x = ((const region *)a)->offset, y = ((const region *)b)->offset;
    return (x > y) - (x < y);
}

static region *make_regions(const espl_shard_range *ranges, int64_t n, const uint64_t *sums, const espl_manifest_file *file) {
    region *regions = espl_calloc((size_t)n + 1, sizeof *regions);
    for (int64_t i = 0; i < n; i++)
        regions[i] = (region){ranges[i].offset, range_bytes(&ranges[i]), ranges[i].data, false};
    regions[n] = (region){file->sums_offset, file->n_sums * 8, (const char *)sums, true};
    qsort(regions, (size_t)n + 1, sizeof *regions, by_offset);
    return regions;
}

/* What HDF5 wrote is read back, the pieces' checksums are taken from memory. */
static espl_status sum_rest(int fd, const char *path, const region *regions, int64_t n, espl_manifest_file *out) {
    int64_t cursor = 0;
    espl_status status = ESPL_OK;
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    for (int64_t i = 0; i < n; i++) {
        ESPL_TRY_DONE(espl__shard_hash(fd, path, cursor, regions[i].offset, state));
        if (regions[i].is_sums)
            XXH3_64bits_update(state, regions[i].data, (size_t)regions[i].bytes);
        cursor = regions[i].offset + regions[i].bytes;
    }
    ESPL_TRY_DONE(espl__shard_hash(fd, path, cursor, out->bytes, state));
    out->xxh3 = XXH3_64bits_digest(state);
done:
    XXH3_freeState(state);
    return status;
}

static espl_status fill_in(const char *path, const region *regions, int64_t n, espl_manifest_file *out) {
    int fd = -1, direct = -1;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_fs_open_update(path, &fd));
    ESPL_TRY_DONE(espl_fs_open_direct(path, &direct));
    ESPL_TRY_DONE(espl_fs_size(fd, &out->bytes, path));
    for (int64_t i = 0; i < n; i++)
        ESPL_TRY_DONE(write_region(direct, fd, path, &regions[i]));
    ESPL_TRY_DONE(espl_fs_close(&direct, path));
    ESPL_TRY_DONE(sum_rest(fd, path, regions, n, out));
    ESPL_TRY_DONE(espl_fs_sync(fd, path));
    ESPL_TRY_DONE(espl_fs_close(&fd, path));
done:
    espl_fs_discard(&direct);
    espl_fs_discard(&fd);
    return status;
}

espl_status espl_shard_write(const char *path, int64_t step, int64_t attempt, espl_shard_range *ranges, int64_t n,
                             espl_manifest_file *file) {
    espl_status status = ESPL_OK;
    region *regions = NULL;
    file->sums_offset = 0;
    file->n_sums = number_pieces(ranges, n);
    uint64_t *sums = espl_calloc((size_t)file->n_sums, sizeof *sums), *wholes = espl_calloc((size_t)n, sizeof *wholes);
    for (int64_t i = 0; i < n; i++)
        wholes[i] = sum_range(&ranges[i], sums + ranges[i].piece);
    file->sums_xxh3 = XXH3_64bits(sums, (size_t)file->n_sums * sizeof *sums);
    ESPL_TRY_DONE(lay_out(path, step, attempt, ranges, n, wholes, file));
    regions = make_regions(ranges, n, sums, file);
    ESPL_TRY_DONE(fill_in(path, regions, n + 1, file));
done:
    free(regions);
    free(wholes);
    free(sums);
    return status;
}
