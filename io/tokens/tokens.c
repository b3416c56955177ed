#include "io/tokens/tokens.h"

#include "io/fsio.h"
#include "io/share_files.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/job_files.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static espl_status map_file(const char *path, espl_tokens *tokens) {
    espl_status status = ESPL_OK;
    int64_t bytes = 0;
    int fd = -1;
    ESPL_TRY_DONE(espl_fs_open_read(path, &fd));
    ESPL_TRY_DONE(espl_fs_size(fd, &bytes, path));
    void *mapping = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: %lld bytes cannot be mapped: %s", path, (long long)bytes, strerror(errno));
    tokens->mapping = mapping;
    tokens->mapping_bytes = (size_t)bytes;
done:
    espl_fs_close(&fd, path);
    return status;
}

static const void *set_at(const espl_tokens *tokens, const espl_store_set *set) {
    return set->n > 0 ? (const char *)tokens->mapping + set->offset : NULL;
}

static espl_status check_ends(const espl_tokens *tokens, const char *path) {
    int64_t first = tokens->documents[0], last = tokens->documents[tokens->n_documents];
    if (first != 0 || last != tokens->n_tokens)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: documents reach from token %lld to %lld, expected 0 to %lld", path, (long long)first, (long long)last,
                  (long long)tokens->n_tokens);
    return ESPL_OK;
}

static espl_status check_labels(const espl_tokens *tokens, const char *path) {
    for (int64_t d = 0; d < tokens->n_documents && tokens->labels != NULL; d++)
        if (tokens->labels[d] < 0 || tokens->labels[d] >= tokens->names.n)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: document %lld has label %d, expected one of %lld", path, (long long)d, tokens->labels[d],
                      (long long)tokens->names.n);
    return ESPL_OK;
}

/* A source and a target of one token at least. */
static espl_status check_split(const espl_tokens *tokens, const char *path) {
    for (int64_t d = 0; d < tokens->n_documents && tokens->split != NULL; d++)
        if (tokens->split[d] < 1 || tokens->split[d] >= tokens->documents[d + 1] - tokens->documents[d])
            ESPL_FAIL(ESPL_ERR_DATA, "%s: document %lld of %lld tokens is split at %d, expected a place within", path, (long long)d,
                      (long long)(tokens->documents[d + 1] - tokens->documents[d]), tokens->split[d]);
    return ESPL_OK;
}

/* A store may come from elsewhere, with checksums that are right and contents that are not. */
static espl_status check_contents(const espl_tokens *tokens, const char *path) {
    for (int64_t d = 0; d < tokens->n_documents; d++)
        if (tokens->documents[d + 1] < tokens->documents[d])
            ESPL_FAIL(ESPL_ERR_DATA, "%s: document %lld ends before it begins", path, (long long)d);
    int64_t largest = 0;
    for (int64_t t = 0; t < tokens->n_tokens; t++) {
        int64_t id = tokens->ids16 != NULL ? tokens->ids16[t] : tokens->ids32[t];
        largest = id > largest ? id : largest;
    }
    if (largest >= tokens->vocabulary)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: holds id %lld, expected ids below its vocabulary %lld", path, (long long)largest,
                  (long long)tokens->vocabulary);
    ESPL_TRY(check_labels(tokens, path));
    return check_split(tokens, path);
}

static espl_status bind_sets(const espl_store_layout *layout, const char *path, espl_tokens *tokens) {
    const espl_store_set *sets = layout->sets, *ids = &sets[ESPL_STORE_IDS], *names = &sets[ESPL_STORE_NAMES];
    tokens->n_tokens = ids->n;
    tokens->n_documents = sets[ESPL_STORE_DOCUMENTS].n - 1;
    tokens->vocabulary = layout->vocabulary;
    tokens->key = layout->key;
    tokens->documents = set_at(tokens, &sets[ESPL_STORE_DOCUMENTS]);
    tokens->ids16 = ids->width == 2 ? set_at(tokens, ids) : NULL;
    tokens->ids32 = ids->width == 4 ? set_at(tokens, ids) : NULL;
    tokens->mask = set_at(tokens, &sets[ESPL_STORE_MASK]);
    tokens->types = set_at(tokens, &sets[ESPL_STORE_TYPES]);
    tokens->words = set_at(tokens, &sets[ESPL_STORE_WORDS]);
    tokens->labels = set_at(tokens, &sets[ESPL_STORE_LABELS]);
    tokens->split = set_at(tokens, &sets[ESPL_STORE_SPLIT]);
    tokens->hashes = set_at(tokens, &sets[ESPL_STORE_HASHES]);
    tokens->n_bytes = *(const int64_t *)set_at(tokens, &sets[ESPL_STORE_BYTES]);
    const int64_t *cut = set_at(tokens, &sets[ESPL_STORE_CUT]);
    tokens->n_cut = cut != NULL ? cut[0] : 0;
    tokens->n_lost = cut != NULL ? cut[1] : 0;
    tokens->n_left_out = cut != NULL && sets[ESPL_STORE_CUT].n > 2 ? cut[2] : 0;
    if (names->n > 0 && !espl_labels_unpack(set_at(tokens, names), (size_t)names->n, &tokens->names))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: names does not end in a NUL, expected one behind each label", path);
    return ESPL_OK;
}

static espl_status open_inspected(const char *path, const espl_store_layout *layout, bool verify, espl_tokens *tokens) {
    espl_status status = ESPL_OK;
    if (verify)
        ESPL_TRY(espl__store_verify(NULL, path, layout));
    ESPL_TRY(map_file(path, tokens));
    ESPL_TRY_DONE(bind_sets(layout, path, tokens));
    ESPL_TRY_DONE(check_ends(tokens, path));
    if (verify)
        ESPL_TRY_DONE(check_contents(tokens, path));
done:
    if (status != ESPL_OK)
        espl_tokens_close(tokens);
    return status;
}

espl_status espl_tokens_open(const char *path, bool verify, espl_tokens *tokens) {
    espl_store_layout layout;
    *tokens = (espl_tokens){0};
    ESPL_TRY(espl__store_inspect(path, &layout));
    return open_inspected(path, &layout, verify, tokens);
}

espl_status espl__store_share(espl_comm *comm, const char *path, espl_store_layout *layout) {
    *layout = (espl_store_layout){0};
    espl_status status = espl_comm_ranks(comm)->rank == 0 ? espl__store_inspect(path, layout) : ESPL_OK;
    ESPL_TRY(espl_comm_agree(comm, status, "opening the token store"));
    ESPL_TRY(espl_comm_bcast(comm, layout, sizeof *layout, 0));
    return espl_files_share(comm, &path, 1);
}

espl_status espl_tokens_open_all(espl_comm *comm, const char *path, espl_tokens *tokens) {
    espl_store_layout layout;
    *tokens = (espl_tokens){0};
    ESPL_TRY(espl__store_share(comm, path, &layout));
    espl_status status = open_inspected(path, &layout, false, tokens);
    espl_job_files_drop(path);
    return espl_comm_agree(comm, status, "opening the token store");
}

void espl_tokens_close(espl_tokens *tokens) {
    if (tokens->mapping != NULL)
        munmap(tokens->mapping, tokens->mapping_bytes);
    espl_labels_free(&tokens->names);
    *tokens = (espl_tokens){0};
}
