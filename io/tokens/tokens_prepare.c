#include "io/fsio.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/job_files.h"
#include "src/core/log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SHARE_BYTES = 4 << 20, /* of input that a thread tokenises at a time */
    STALE_SECONDS = 3600   /* after which an unfinished store is nobody's any more: one being written changes all the time */
};

/* This rank's shares: a range of all, so that parts in the order of ranks are the input in order. Cut by bytes. */
static void take_shares(const espl_ranks *ranks, const espl_share *shares, int64_t n, int64_t *first, int64_t *last) {
    int64_t total = 0, before = 0;
    for (int64_t i = 0; i < n; i++)
        total += shares[i].end - shares[i].begin;
    *first = *last = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t bytes = shares[i].end - shares[i].begin;
        int64_t rank = (int64_t)((__int128)(before + bytes / 2) * ranks->size / (total > 0 ? total : 1));
        *first += rank < ranks->rank;
        *last += rank <= ranks->rank;
        before += bytes;
    }
}

static espl_status tokenise(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                            const char *prefix, espl_parts *parts) {
    espl_share *shares = NULL;
    int64_t n, first, last;
    ESPL_TRY(espl_inputs_cut(inputs, (espl_read_unit)recipe->document, SHARE_BYTES, &shares, &n));
    take_shares(espl_comm_ranks(comm), shares, n, &first, &last);
    espl_status status = espl__parts_build(comm, tokenizer, recipe, inputs, shares + first, last - first, prefix, parts);
    free(shares);
    return status;
}

/* A number that no other job writing to this cache has: all ranks need the same one. */
static espl_status make_tag(espl_comm *comm, uint64_t *tag) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *tag = (uint64_t)now.tv_sec << 32 ^ (uint64_t)now.tv_nsec ^ (uint64_t)getpid() << 40;
    return espl_comm_bcast(comm, tag, sizeof *tag, 0);
}

static espl_status report(espl_comm *comm, const espl_parts *parts, double began, const char *path) {
    int64_t sums[] = {parts->sum.n_tokens, parts->sum.n_documents, parts->sum.n_skipped, parts->sum.n_bytes};
    ESPL_TRY(espl_comm_allreduce_i64(comm, sums, 4, ESPL_SUM));
    if (sums[2] > 0 && espl_comm_ranks(comm)->rank == 0)
        ESPL_WARN("%lld bad records skipped of %lld", (long long)sums[2], (long long)(sums[1] + sums[2]));
    ESPL_INFO("tokenised %lld documents, %lld tokens from %.1f MB of text in %.1f s: %s", (long long)sums[1], (long long)sums[0],
              1e-6 * (double)sums[3], espl_now() - began, path);
    return ESPL_OK;
}

static espl_status check_not_empty(espl_comm *comm, const espl_parts *parts, const espl_tokens_recipe *recipe) {
    int64_t documents = parts->sum.n_documents;
    ESPL_TRY(espl_comm_allreduce_i64(comm, &documents, 1, ESPL_SUM));
    if (documents == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s%s: no document with text in it, at least one is expected", recipe->paths[0],
                  recipe->n_paths > 1 ? " ..." : "");
    return ESPL_OK;
}

static espl_status build(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                         uint64_t key, const char *path) {
    espl_parts parts = {0};
    uint64_t tag;
    const double began = espl_now();
    ESPL_TRY(make_tag(comm, &tag));
    char *prefix = espl_format("%s.part-%llx-%d", path, (unsigned long long)tag, espl_comm_ranks(comm)->rank);
    espl_status status = espl_comm_agree(comm, tokenise(comm, tokenizer, recipe, inputs, prefix, &parts), "tokenising");
    if (status == ESPL_OK)
        status = check_not_empty(comm, &parts, recipe);
    if (status == ESPL_OK)
        status = espl__store_write(comm, &parts, recipe->labels, key, espl_tokenizer_size(tokenizer), path, tag);
    if (status == ESPL_OK)
        status = report(comm, &parts, began, path);
    espl__parts_free(&parts);
    free(prefix);
    return status;
}

/* ---- The cache. */

/* Rank 0: removes what an interrupted job left of this store. */
static void remove_leftovers(const char *cache, const char *name) {
    char **names = NULL;
    size_t n = 0;
    if (espl_fs_list(cache, &names, &n) != ESPL_OK)
        espl_status_clear();
    for (size_t i = 0; i < n; i++) {
        struct stat found;
        char *path = espl_format("%s/%s", cache, names[i]);
        bool leftover = strncmp(names[i], name, strlen(name)) == 0 && strlen(names[i]) > strlen(name);
        if (leftover && stat(path, &found) == 0 && time(NULL) - found.st_mtime > STALE_SECONDS) {
            ESPL_INFO("%s: left behind by an interrupted job, removed", path);
            if (espl_fs_unlink(path) != ESPL_OK)
                espl_status_clear();
        }
        free(path);
    }
    espl_fs_free_names(names, n);
}

static espl_status inspect_and_verify(espl_comm *comm, const char *path, uint64_t key) {
    espl_store_layout layout;
    ESPL_TRY(espl__store_share(comm, path, &layout));
    espl_status status = ESPL_OK;
    if (layout.key != key)
        status = espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s: made of something else than its name says", path);
    else
        status = espl__store_verify(comm, path, &layout);
    espl_job_files_drop(path);
    return status;
}

/* Whether the store is there and whole. */
static espl_status find_store(espl_comm *comm, const char *path, uint64_t key, bool *usable) {
    int64_t there = espl_comm_ranks(comm)->rank == 0 && espl_fs_is_file(path);
    ESPL_TRY(espl_comm_bcast(comm, &there, sizeof there, 0));
    *usable = false;
    if (!there)
        return ESPL_OK;
    if (inspect_and_verify(comm, path, key) == ESPL_OK) {
        *usable = true;
        return ESPL_OK;
    }
    ESPL_INFO("the tokens in the cache cannot be used and are made again: %s", espl_status_message());
    espl_status_clear();
    return ESPL_OK;
}

static espl_status prepare_cache(espl_comm *comm, const char *cache, const char *name) {
    espl_status status = ESPL_OK;
    if (espl_comm_ranks(comm)->rank == 0) {
        status = espl_fs_make_folders(cache);
        if (status == ESPL_OK)
            remove_leftovers(cache, name);
    }
    return espl_comm_agree(comm, status, "opening the token cache");
}

static espl_status prepare_text(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe,
                                const espl_inputs *inputs, char **path) {
    espl_status status = ESPL_OK;
    uint64_t key = 0;
    bool usable = false;
    char *name = NULL, *file = NULL;
    ESPL_TRY(espl__recipe_check(tokenizer, recipe));
    ESPL_TRY(espl__store_key(comm, tokenizer, recipe, inputs, &key));
    name = espl_format("tokens-%016llx.h5", (unsigned long long)key);
    file = espl_format("%s/%s", recipe->cache, name);
    ESPL_TRY_DONE(prepare_cache(comm, recipe->cache, name));
    ESPL_TRY_DONE(find_store(comm, file, key, &usable));
    if (!usable)
        ESPL_TRY_DONE(build(comm, tokenizer, recipe, inputs, key, file));
    *path = file;
    file = NULL;
done:
    free(name);
    free(file);
    return status;
}

/* ---- Stores that the user brings. */

static espl_status check_store(const espl_tokenizer *tokenizer, const espl_input *input, json_t *files) {
    const char *path = input->path;
    espl_tokens tokens;
    ESPL_TRY(espl_tokens_open(path, true, &tokens));
    int64_t vocabulary = tokens.vocabulary;
    if (files != NULL)
        json_array_append_new(files, json_pack("{s:s, s:I, s:o}", "path", path, "bytes", (json_int_t)input->bytes, "key",
                                               json_sprintf("%016llx", (unsigned long long)tokens.key)));
    espl_tokens_close(&tokens);
    if (tokenizer != NULL && vocabulary > espl_tokenizer_size(tokenizer))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: made with a vocabulary of %lld, expected at most the tokenizer's %lld", path, (long long)vocabulary,
                  (long long)espl_tokenizer_size(tokenizer));
    return ESPL_OK;
}

static espl_status prepare_store(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe,
                                 const espl_inputs *inputs, char **path) {
    espl_status status = ESPL_OK;
    if (inputs->n != 1)
        ESPL_FAIL(ESPL_ERR_DATA, "%s and %lld other files, expected one token store", inputs->items[0].path, (long long)inputs->n - 1);
    if (espl_comm_ranks(comm)->rank == 0)
        status = check_store(tokenizer, &inputs->items[0], recipe->files);
    ESPL_TRY(espl_comm_agree(comm, status, "opening the token store"));
    *path = espl_strdup(inputs->items[0].path);
    return ESPL_OK;
}

/* Of class folders only those that were asked for. */
static espl_status keep_labels(const espl_labels *labels, espl_inputs *inputs) {
    int64_t n = inputs->n;
    espl_labels_keep(labels, inputs);
    if (inputs->n == 0)
        ESPL_FAIL(ESPL_ERR_DATA, "none of %lld files lies in a folder that data.labels names", (long long)n);
    return ESPL_OK;
}

static espl_status find_inputs(espl_comm *comm, const espl_tokens_recipe *recipe, espl_inputs *inputs, bool *stores) {
    ESPL_TRY(espl_inputs_share(comm, recipe->paths, recipe->n_paths, (espl_read_format)recipe->format, inputs));
    if (recipe->some_labels && recipe->format == ESPL_READ_FOLDERS)
        ESPL_TRY(keep_labels(recipe->labels, inputs));
    int64_t n_stores = 0;
    for (int64_t i = 0; i < inputs->n; i++)
        n_stores += inputs->items[i].format == ESPL_READ_TOKENS;
    *stores = n_stores > 0;
    if (inputs->n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "no data is named, expected files, folders or globs");
    if (n_stores != 0 && n_stores != inputs->n)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: token stores (.h5) and text files together, expected one kind", inputs->items[0].path);
    return ESPL_OK;
}

espl_status espl_tokens_prepare(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, char **path) {
    espl_inputs inputs = {0};
    bool stores = false;
    *path = NULL;
    espl_status status = find_inputs(comm, recipe, &inputs, &stores);
    if (status == ESPL_OK)
        status = stores ? prepare_store(comm, tokenizer, recipe, &inputs, path) : prepare_text(comm, tokenizer, recipe, &inputs, path);
    espl_inputs_free(&inputs);
    return status;
}
