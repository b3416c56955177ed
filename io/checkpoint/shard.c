#include "io/checkpoint/shard.h"

#include "io/background.h"
#include "io/fsio.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { GAP_BYTES = 1 << 16 };

/* Bytes that go to a known place of the file, at most ESPL_SHARD_WRITE; what lies between such places was written by HDF5. */
typedef struct region {
    int64_t offset, bytes;
    const char *data;
    bool is_sums; /* not of a range */
} region;

int64_t espl_shard_range_bytes(const espl_shard_range *r) { return (r->end - r->begin) * (int64_t)espl_dtype_size(r->tensor->dtype); }

/* Numbers the pieces of all ranges; returns how many there are. */
static int64_t number_pieces(espl_shard_range *ranges, int64_t n) {
    int64_t total = 0;
    for (int64_t i = 0; i < n; i++) {
        ranges[i].piece = total;
        total += espl_manifest_pieces(espl_shard_range_bytes(&ranges[i]));
    }
    return total;
}

typedef struct summing {
    const espl_shard_range *ranges;
    uint64_t *sums, *wholes;
} summing;

/* The one pass over the data; the checksum of a whole range is that of its pieces' checksums. */
static uint64_t sum_range(const espl_shard_range *r, uint64_t *sums) {
    int64_t bytes = espl_shard_range_bytes(r), n = 0;
    for (int64_t at = 0; at < bytes; at += ESPL_PIECE_BYTES)
        sums[n++] = XXH3_64bits((const char *)r->data + at, bytes - at < ESPL_PIECE_BYTES ? (size_t)(bytes - at) : ESPL_PIECE_BYTES);
    return XXH3_64bits(sums, (size_t)n * sizeof *sums);
}

static espl_status sum_one(void *context, int lane, int64_t i) {
    const summing *s = context;
    (void)lane;
    s->wholes[i] = sum_range(&s->ranges[i], s->sums + s->ranges[i].piece);
    return ESPL_OK;
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

static int by_offset(const void *a, const void *b) {
    int64_t x = ((const region *)a)->offset, y = ((const region *)b)->offset;
    return (x > y) - (x < y);
}

static int64_t count_regions(int64_t bytes) { return (bytes + ESPL_SHARD_WRITE - 1) / ESPL_SHARD_WRITE; }

static region *cut(region *to, int64_t offset, int64_t bytes, const char *data, bool is_sums) {
    for (int64_t at = 0; at < bytes; at += ESPL_SHARD_WRITE)
        *to++ = (region){offset + at, bytes - at < ESPL_SHARD_WRITE ? bytes - at : ESPL_SHARD_WRITE, data + at, is_sums};
    return to;
}

static region *make_regions(const espl_shard_range *ranges, int64_t n, const uint64_t *sums, const espl_manifest_file *file,
                            int64_t *count) {
    *count = count_regions(file->n_sums * 8);
    for (int64_t i = 0; i < n; i++)
        *count += count_regions(espl_shard_range_bytes(&ranges[i]));
    region *regions = espl_calloc((size_t)*count, sizeof *regions);
    region *next = cut(regions, file->sums_offset, file->n_sums * 8, (const char *)sums, true);
    for (int64_t i = 0; i < n; i++)
        next = cut(next, ranges[i].offset, espl_shard_range_bytes(&ranges[i]), ranges[i].data, false);
    qsort(regions, (size_t)*count, sizeof *regions, by_offset);
    return regions;
}

/* A shard whose bytes are being written: the file is open twice. */
typedef struct filling {
    const char *path;
    int fd, direct;
    const espl_shard_means *means;
    const region *regions;
    int64_t n;
} filling;

static bool wants_stage(const filling *f, const region *r) {
    return f->means->stage != NULL && f->direct >= 0 && r->bytes >= ESPL_FS_DIRECT && r->offset % ESPL_FS_BLOCK == 0 &&
           (uintptr_t)r->data % ESPL_FS_BLOCK != 0;
}

static espl_status write_region(void *context, int lane, int64_t i) {
    const filling *f = context;
    const region *r = &f->regions[i];
    const char *from = r->data;
    if (wants_stage(f, r))
        from = memcpy(f->means->stage + (int64_t)lane * ESPL_SHARD_WRITE, from, (size_t)r->bytes);
    return espl_fs_write_direct(f->direct, f->fd, from, (size_t)r->bytes, r->offset, f->path);
}

/* What HDF5 wrote is read back, the pieces' checksums are taken from memory. */
static espl_status sum_rest(const filling *f, espl_manifest_file *out) {
    int64_t cursor = 0;
    espl_status status = ESPL_OK;
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    for (const region *r = f->regions; r < f->regions + f->n; r++) {
        ESPL_TRY_DONE(espl__shard_hash(f->fd, f->path, cursor, r->offset, state));
        if (r->is_sums)
            XXH3_64bits_update(state, r->data, (size_t)r->bytes);
        cursor = r->offset + r->bytes;
    }
    ESPL_TRY_DONE(espl__shard_hash(f->fd, f->path, cursor, out->bytes, state));
    out->xxh3 = XXH3_64bits_digest(state);
done:
    XXH3_freeState(state);
    return status;
}

static espl_status fill_in(filling *f, espl_manifest_file *out) {
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_fs_open_update(f->path, &f->fd));
    ESPL_TRY_DONE(espl_fs_open_direct(f->path, &f->direct));
    ESPL_TRY_DONE(espl_fs_size(f->fd, &out->bytes, f->path));
    ESPL_TRY_DONE(espl_background_each(f->means->lanes, f->n, write_region, f));
    ESPL_TRY_DONE(espl_fs_close(&f->direct, f->path));
    ESPL_TRY_DONE(sum_rest(f, out));
    ESPL_TRY_DONE(espl_fs_sync(f->fd, f->path));
    ESPL_TRY_DONE(espl_fs_close(&f->fd, f->path));
done:
    espl_fs_discard(&f->direct);
    espl_fs_discard(&f->fd);
    return status;
}

espl_status espl_shard_write(const char *path, int64_t step, int64_t attempt, espl_shard_range *ranges, int64_t n,
                             const espl_shard_means *means, espl_manifest_file *file) {
    espl_status status = ESPL_OK;
    filling f = {.path = path, .fd = -1, .direct = -1, .means = means};
    region *regions = NULL;
    file->sums_offset = 0;
    file->n_sums = number_pieces(ranges, n);
    uint64_t *sums = espl_calloc((size_t)file->n_sums, sizeof *sums), *wholes = espl_calloc((size_t)n, sizeof *wholes);
    summing s = {ranges, sums, wholes};
    ESPL_TRY_DONE(espl_background_each(means->lanes, n, sum_one, &s));
    file->sums_xxh3 = XXH3_64bits(sums, (size_t)file->n_sums * sizeof *sums);
    ESPL_TRY_DONE(lay_out(path, step, attempt, ranges, n, wholes, file));
    f.regions = regions = make_regions(ranges, n, sums, file, &f.n);
    ESPL_TRY_DONE(fill_in(&f, file));
done:
    free(regions);
    free(wholes);
    free(sums);
    return status;
}
