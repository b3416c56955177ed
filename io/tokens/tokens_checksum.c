#include "io/fsio.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <xxhash.h>

enum { CHUNK_BYTES = 1 << 20, BEAT_CHUNKS = 256 };

static int64_t set_chunks(const espl_store_set *set) { return (set->n * set->width + CHUNK_BYTES - 1) / CHUNK_BYTES; }

static espl_status hash_chunk(int fd, const char *path, const espl_store_layout *layout, int64_t chunk, void *memory, int64_t *hash) {
    const espl_store_set *set = layout->sets;
    while (chunk >= set_chunks(set))
        chunk -= set_chunks(set++);
    int64_t left = set->n * set->width - chunk * CHUNK_BYTES;
    size_t n = left < CHUNK_BYTES ? (size_t)left : (size_t)CHUNK_BYTES;
    ESPL_TRY(espl_fs_read(fd, memory, n, set->offset + chunk * CHUNK_BYTES, path));
    *hash = (int64_t)XXH3_64bits(memory, n);
    return ESPL_OK;
}

/* Fills hashes [begin, end). */
static espl_status hash_chunks(espl_comm *comm, const char *path, const espl_store_layout *layout, int64_t begin, int64_t end,
                               int64_t *hashes) {
    espl_status status = ESPL_OK;
    int fd = -1;
    void *memory = espl_malloc(CHUNK_BYTES);
    ESPL_TRY_DONE(espl_fs_open_read(path, &fd));
    for (int64_t c = begin; c < end; c++) {
        if (comm != NULL && c % BEAT_CHUNKS == 0)
            espl_comm_beat(comm, 0, "checking tokens");
        ESPL_TRY_DONE(hash_chunk(fd, path, layout, c, memory, &hashes[c]));
    }
done:
    espl_fs_close(&fd, path);
    free(memory);
    return status;
}

static espl_status hash_all(espl_comm *comm, const char *path, const espl_store_layout *layout, int64_t n, int64_t *hashes) {
    if (comm == NULL)
        return hash_chunks(comm, path, layout, 0, n, hashes);
    const espl_ranks *ranks = espl_comm_ranks(comm);
    int64_t begin = n * ranks->rank / ranks->size, end = n * (ranks->rank + 1) / ranks->size;
    ESPL_TRY(espl_comm_agree(comm, hash_chunks(comm, path, layout, begin, end, hashes), "checking tokens"));
    return espl_comm_allreduce_i64(comm, hashes, (size_t)n, ESPL_SUM);
}

espl_status espl__store_checksums(espl_comm *comm, const char *path, espl_store_layout *layout) {
    int64_t n = 0, at = 0;
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        n += set_chunks(&layout->sets[i]);
    int64_t *hashes = espl_calloc((size_t)n + 1, sizeof *hashes);
    espl_status status = hash_all(comm, path, layout, n, hashes);
    for (int i = 0; i < ESPL_STORE_SETS; i++) {
        int64_t chunks = set_chunks(&layout->sets[i]);
        layout->sets[i].checksum = XXH3_64bits(hashes + at, (size_t)chunks * sizeof *hashes);
        at += chunks;
    }
    free(hashes);
    return status;
}

espl_status espl__store_verify(espl_comm *comm, const char *path, const espl_store_layout *layout) {
    espl_store_layout found = *layout;
    ESPL_TRY(espl__store_checksums(comm, path, &found));
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        if (layout->sets[i].n > 0 && found.sets[i].checksum != layout->sets[i].checksum)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: dataset %s is damaged: its checksum is %016llx, expected %016llx", path, espl_store_rows[i].name,
                      (unsigned long long)found.sets[i].checksum, (unsigned long long)layout->sets[i].checksum);
    return ESPL_OK;
}
