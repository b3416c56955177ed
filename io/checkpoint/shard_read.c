#include "io/checkpoint/shard.h"

#include "io/fsio.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_OPEN = 128 };

typedef struct open_file {
    int fd;         /* -1: not open */
    uint64_t *sums; /* NULL: not read yet */
    char *path;
} open_file;

struct espl_shards {
    const espl_manifest *manifest;
    open_file *files;
    int n_open;
    char *piece; /* for the pieces that are read in part */
};

void espl_shards_open(const char *folder, const espl_manifest *manifest, espl_shards **shards) {
    espl_shards *s = espl_calloc(1, sizeof *s);
    s->manifest = manifest;
    s->files = espl_calloc((size_t)manifest->n_files, sizeof *s->files);
    s->piece = espl_malloc(ESPL_PIECE_BYTES);
    for (int64_t i = 0; i < manifest->n_files; i++)
        s->files[i] = (open_file){.fd = -1, .path = espl_format("%s/%s", folder, manifest->files[i].name)};
    *shards = s;
}

static void close_all(espl_shards *s) {
    for (int64_t i = 0; i < s->manifest->n_files; i++)
        espl_fs_discard(&s->files[i].fd);
    s->n_open = 0;
}

void espl_shards_close(espl_shards **shards) {
    espl_shards *s = *shards;
    *shards = NULL;
    if (s == NULL)
        return;
    close_all(s);
    for (int64_t i = 0; i < s->manifest->n_files; i++) {
        free(s->files[i].sums);
        free(s->files[i].path);
    }
    free(s->files);
    free(s->piece);
    free(s);
}

/* A job of thousands of writers must not run out of descriptors. */
static espl_status open_one(espl_shards *s, int64_t i) {
    open_file *file = &s->files[i];
    int64_t bytes = 0, expected = s->manifest->files[i].bytes;
    if (file->fd >= 0)
        return ESPL_OK;
    if (s->n_open == MAX_OPEN)
        close_all(s);
    ESPL_TRY(espl_fs_open_read(file->path, &file->fd));
    s->n_open++;
    ESPL_TRY(espl_fs_size(file->fd, &bytes, file->path));
    if (bytes != expected)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %lld bytes, expected %lld", file->path, (long long)bytes, (long long)expected);
    return ESPL_OK;
}

static espl_status read_sums(espl_shards *s, int64_t i) {
    open_file *file = &s->files[i];
    const espl_manifest_file *said = &s->manifest->files[i];
    if (file->sums != NULL)
        return ESPL_OK;
    uint64_t *sums = espl_malloc((size_t)said->n_sums * sizeof *sums);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_fs_read(file->fd, sums, (size_t)said->n_sums * sizeof *sums, said->sums_offset, file->path));
    if (XXH3_64bits(sums, (size_t)said->n_sums * sizeof *sums) != said->sums_xxh3)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: dataset /checksums is damaged: its own checksum does not match", file->path);
    file->sums = sums;
    sums = NULL;
done:
    free(sums);
    return status;
}

/* Bytes [first, last) of a range, which are its piece k. */
static espl_status read_piece(espl_shards *s, const espl_manifest_tensor *t, const espl_manifest_range *r, int64_t k, int64_t first,
                              int64_t last, char *to) {
    const open_file *file = &s->files[r->file];
    int64_t size = (int64_t)espl_dtype_size(t->dtype);
    ESPL_TRY(espl_fs_read(file->fd, to, (size_t)(last - first), r->offset + first, file->path));
    if (XXH3_64bits(to, (size_t)(last - first)) != file->sums[r->piece + k])
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tensor %s/%s is damaged within elements [%lld, %lld): checksum does not match", file->path, t->group,
                  t->name, (long long)(r->begin + first / size), (long long)(r->begin + last / size));
    return ESPL_OK;
}

/* Bytes [begin, end) of a range, which pieces need not be aligned to; whole pieces are read in place. `to` NULL: only checks. */
static espl_status read_bytes(espl_shards *s, const espl_manifest_tensor *t, const espl_manifest_range *r, int64_t begin, int64_t end,
                              char *to) {
    int64_t all = (r->end - r->begin) * (int64_t)espl_dtype_size(t->dtype);
    for (int64_t k = begin / ESPL_PIECE_BYTES; k * ESPL_PIECE_BYTES < end; k++) {
        int64_t first = k * ESPL_PIECE_BYTES, last = all - first < ESPL_PIECE_BYTES ? all : first + ESPL_PIECE_BYTES;
        int64_t from = begin > first ? begin : first, until = end < last ? end : last;
        char *piece = to != NULL && from == first && until == last ? to + (first - begin) : s->piece;
        ESPL_TRY(read_piece(s, t, r, k, first, last, piece));
        if (to != NULL && piece == s->piece)
            memcpy(to + (from - begin), piece + (from - first), (size_t)(until - from));
    }
    return ESPL_OK;
}

espl_status espl_shards_read(espl_shards *s, const espl_manifest_tensor *t, int64_t begin, int64_t end, void *to) {
    int64_t size = (int64_t)espl_dtype_size(t->dtype);
    ESPL_ASSERT(begin >= 0 && begin <= end && end <= t->count, "tensor %s: elements [%lld, %lld) of %lld", t->name, (long long)begin,
                (long long)end, (long long)t->count);
    for (int64_t i = 0; i < t->n_ranges; i++) {
        const espl_manifest_range *r = &t->ranges[i];
        int64_t from = begin > r->begin ? begin : r->begin, until = end < r->end ? end : r->end;
        if (from >= until)
            continue;
        ESPL_TRY(open_one(s, r->file));
        ESPL_TRY(read_sums(s, r->file));
        ESPL_TRY(read_bytes(s, t, r, (from - r->begin) * size, (until - r->begin) * size, (char *)to + (from - begin) * size));
    }
    return ESPL_OK;
}

/* ---- Checking a whole file */

typedef struct span {
    const espl_manifest_tensor *tensor;
    const espl_manifest_range *range;
} span;

static int by_offset(const void *a, const void *b) {
    int64_t x = ((const span *)a)->range->offset, y = ((const span *)b)->range->offset;
    return (x > y) - (x < y);
}

/* The ranges that lie in file i, in the file's order. */
static span *spans_of(const espl_manifest *m, int64_t i, int64_t *n) {
    size_t capacity = 0;
    span *spans = NULL;
    *n = 0;
    for (int64_t k = 0; k < m->n_tensors; k++)
        for (int64_t j = 0; j < m->tensors[k].n_ranges; j++) {
            const espl_manifest_tensor *t = &m->tensors[k];
            if (t->ranges[j].file != i)
                continue;
            if ((size_t)*n == capacity) {
                capacity = 2 * capacity + 16;
                spans = espl_realloc(spans, capacity * sizeof *spans);
            }
            spans[(*n)++] = (span){t, &t->ranges[j]};
        }
    if (*n > 1)
        qsort(spans, (size_t)*n, sizeof *spans, by_offset);
    return spans;
}

/* One walk through the file: ranges against the checksums of their pieces, all else into the file's. */
static espl_status walk_file(espl_shards *s, int64_t i, const span *spans, int64_t n, XXH3_state_t *state) {
    const open_file *file = &s->files[i];
    int64_t cursor = 0;
    for (int64_t k = 0; k < n; k++) {
        const espl_manifest_range *r = spans[k].range;
        int64_t bytes = (r->end - r->begin) * (int64_t)espl_dtype_size(spans[k].tensor->dtype);
        ESPL_TRY(espl__shard_hash(file->fd, file->path, cursor, r->offset, state));
        ESPL_TRY(read_bytes(s, spans[k].tensor, r, 0, bytes, NULL));
        cursor = r->offset + bytes;
    }
    return espl__shard_hash(file->fd, file->path, cursor, s->manifest->files[i].bytes, state);
}

espl_status espl_shards_check_file(espl_shards *s, int64_t i) {
    espl_status status = ESPL_OK;
    int64_t n;
    ESPL_TRY(open_one(s, i));
    ESPL_TRY(read_sums(s, i));
    span *spans = spans_of(s->manifest, i, &n);
    XXH3_state_t *state = XXH3_createState();
    XXH3_64bits_reset(state);
    ESPL_TRY_DONE(walk_file(s, i, spans, n, state));
    if (XXH3_64bits_digest(state) != s->manifest->files[i].xxh3)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: damaged outside of its tensors: the file's checksum does not match", s->files[i].path);
done:
    XXH3_freeState(state);
    free(spans);
    return status;
}
