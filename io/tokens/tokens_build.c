#include "io/fsio.h"
#include "io/tokens/tokens_internal.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/log.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { FLUSH_BYTES = 1 << 20, REPORT_SECONDS = 5 };

/* What the threads of a rank share. Each takes the next share of the input until none is left or an earlier one has failed. */
typedef struct build_job {
    espl_comm *comm;
    const espl_tokenizer *tokenizer;
    const espl_tokens_recipe *recipe;
    const espl_inputs *inputs;
    const espl_share *shares;
    espl_parts *parts;
    int64_t bytes; /* of all shares */
    double began;
    atomic_llong next_share, bytes_done, tokens_done;
    pthread_mutex_t lock; /* of what follows */
    int64_t failed_share; /* n_shares: none */
    espl_status status;
    char *message;
} build_job;

typedef struct build_worker {
    build_job *job;
    int thread;
    pthread_t id;
    espl_document_tokens made;
    espl_buffer sets[ESPL_STORE_SETS]; /* not yet written */
    int64_t written[ESPL_STORE_SETS];
    double last_report;
} build_worker;

static espl_status flush_one(espl_buffer *buffer, int fd, int64_t *written, const char *name) {
    ESPL_TRY(espl_fs_write(fd, buffer->data, buffer->size, *written, name));
    *written += (int64_t)buffer->size;
    buffer->size = 0;
    return ESPL_OK;
}

static espl_status flush(build_worker *worker, size_t from) {
    const espl_part_files *files = &worker->job->parts->files[worker->thread];
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        if (worker->sets[i].size >= from)
            ESPL_TRY(flush_one(&worker->sets[i], files->of[i], &worker->written[i], files->name));
    return ESPL_OK;
}

static espl_status append_ids(build_worker *worker, const espl_document *document) {
    const espl_encoding *tokens = &worker->made.tokens;
    int64_t n = tokens->n, vocabulary = espl_tokenizer_size(worker->job->tokenizer);
    size_t width = (size_t)worker->job->parts->widths[ESPL_STORE_IDS];
    espl_buffer *ids = &worker->sets[ESPL_STORE_IDS];
    espl_buffer_reserve(ids, (size_t)n * width);
    char *to = ids->data + ids->size;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = tokens->ids[i];
        if (id < 0 || id >= vocabulary)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: byte %lld: the tokenizer gave id %d, expected one below its size %lld", document->path,
                      (long long)document->offset, id, (long long)vocabulary);
        if (width == 2)
            ((uint16_t *)to)[i] = (uint16_t)id;
        else
            ((uint32_t *)to)[i] = (uint32_t)id;
    }
    ids->size += (size_t)n * width;
    return ESPL_OK;
}

static void append_rest(build_worker *worker) {
    const espl_document_tokens *made = &worker->made;
    const int64_t *widths = worker->job->parts->widths;
    espl_buffer *sets = worker->sets;
    if (widths[ESPL_STORE_MASK] > 0)
        espl_buffer_append(&sets[ESPL_STORE_MASK], made->mask.data, made->mask.size);
    if (widths[ESPL_STORE_TYPES] > 0)
        espl_buffer_append(&sets[ESPL_STORE_TYPES], made->tokens.types, (size_t)made->tokens.n);
    if (widths[ESPL_STORE_WORDS] > 0)
        espl_buffer_append(&sets[ESPL_STORE_WORDS], made->tokens.words, (size_t)made->tokens.n);
    espl_buffer_append(&sets[ESPL_STORE_DOCUMENTS], made->lengths, (size_t)made->n * sizeof *made->lengths);
    for (int64_t i = 0; i < made->n; i++) {
        espl_buffer_append(&sets[ESPL_STORE_HASHES], &made->hash, sizeof made->hash);
        if (widths[ESPL_STORE_LABELS] > 0)
            espl_buffer_append(&sets[ESPL_STORE_LABELS], &made->label, sizeof made->label);
        if (widths[ESPL_STORE_SPLIT] > 0)
            espl_buffer_append(&sets[ESPL_STORE_SPLIT], &made->split, sizeof made->split);
    }
}

static espl_status add_document(build_worker *worker, espl_reader *reader, const espl_document *document, espl_share_tokens *result) {
    build_job *job = worker->job;
    espl_document_tokens *made = &worker->made;
    char *problem;
    ESPL_TRY(espl__document_tokenise(job->tokenizer, job->recipe, document, made, &problem));
    if (problem != NULL) {
        espl_status status = espl_reader_reject(reader, problem);
        free(problem);
        return status;
    }
    result->n_cut += made->n_lost > 0;
    result->n_lost += made->n_lost;
    result->n_left_out += made->left_out;
    if (made->n == 0)
        return ESPL_OK;
    ESPL_TRY(append_ids(worker, document));
    append_rest(worker);
    result->n_tokens += made->tokens.n;
    result->n_documents += made->n;
    result->n_bytes += made->n_bytes;
    result->n_typed += made->typed;
    return flush(worker, FLUSH_BYTES);
}

/* Thread 0 speaks, as it is the one that owns comm. */
static void report(build_worker *worker) {
    build_job *job = worker->job;
    double now = espl_now() - job->began;
    if (worker->thread != 0)
        return;
    espl_comm_beat(job->comm, 0, "tokenising");
    if (now - worker->last_report < REPORT_SECONDS)
        return;
    worker->last_report = now;
    double done = (double)atomic_load(&job->bytes_done), tokens = (double)atomic_load(&job->tokens_done);
    ESPL_INFO("tokenising: %.0f %% of this rank's %.1f MB, %.2f M tokens, %.2f M tokens/s", 100 * done / (double)job->bytes,
              1e-6 * (double)job->bytes, 1e-6 * tokens, 1e-6 * tokens / now);
}

static espl_status read_documents(build_worker *worker, espl_reader *reader, espl_share_tokens *result) {
    espl_document document;
    bool found = true;
    while (found) {
        int64_t tokens = result->n_tokens;
        ESPL_TRY(espl_reader_next(reader, &document, &found));
        if (found)
            ESPL_TRY(add_document(worker, reader, &document, result));
        atomic_fetch_add(&worker->job->tokens_done, result->n_tokens - tokens);
        report(worker);
    }
    result->n_skipped = espl_reader_skipped(reader);
    return ESPL_OK;
}

static espl_status build_share(build_worker *worker, int64_t share) {
    build_job *job = worker->job;
    espl_share_tokens *result = &job->parts->shares[share];
    espl_reader_options options = espl_tokens_reading(job->recipe);
    espl_reader *reader;
    *result = (espl_share_tokens){.thread = worker->thread};
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        result->at[i] = worker->written[i] + (int64_t)worker->sets[i].size;
    ESPL_TRY(espl_reader_open(job->inputs, &job->shares[share], &options, &reader));
    espl_status status = read_documents(worker, reader, result);
    espl_reader_close(&reader);
    atomic_fetch_add(&job->bytes_done, job->shares[share].end - job->shares[share].begin);
    return status;
}

/* The failure of the earliest share is told, whichever thread was first: the same message every time. */
static void note_failure(build_job *job, int64_t share, espl_status status) {
    pthread_mutex_lock(&job->lock);
    if (share < job->failed_share) {
        job->failed_share = share;
        job->status = status;
        free(job->message);
        job->message = espl_strdup(espl_status_message());
    }
    pthread_mutex_unlock(&job->lock);
}

static bool has_failed_before(build_job *job, int64_t share) {
    pthread_mutex_lock(&job->lock);
    bool failed = job->failed_share < share;
    pthread_mutex_unlock(&job->lock);
    return failed;
}

static void *work(void *argument) {
    build_worker *worker = argument;
    build_job *job = worker->job;
    int64_t n = job->parts->n_shares, share = 0;
    espl_status status = ESPL_OK;
    while (status == ESPL_OK && (share = atomic_fetch_add(&job->next_share, 1)) < n && !has_failed_before(job, share))
        status = build_share(worker, share);
    if (status == ESPL_OK)
        status = flush(worker, 1);
    if (status != ESPL_OK)
        note_failure(job, share < n ? share : n - 1, status);
    espl__document_free(&worker->made);
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        espl_buffer_free(&worker->sets[i]);
    return NULL;
}

static void run_workers(build_job *job, int n_threads) {
    build_worker *workers = espl_calloc((size_t)n_threads, sizeof *workers);
    int started = 1;
    for (int t = 0; t < n_threads; t++)
        workers[t] = (build_worker){.job = job, .thread = t};
    while (started < n_threads && pthread_create(&workers[started].id, NULL, work, &workers[started]) == 0)
        started++;
    work(&workers[0]);
    for (int t = 1; t < started; t++)
        pthread_join(workers[t].id, NULL);
    free(workers);
}

static int count_threads(const espl_ranks *ranks, int wanted, int64_t n_shares) {
    cpu_set_t cores;
    int n = wanted;
    if (n == 0 && sched_getaffinity(0, sizeof cores, &cores) == 0)
        n = CPU_COUNT(&cores) / ranks->node_size;
    n = n < n_shares ? n : (int)n_shares;
    return n > 1 ? n : 1;
}

/* Opened and at once without a name: nothing is left behind, however the program ends. */
static espl_status open_nameless(const char *name, int *fd) {
    ESPL_TRY(espl_fs_open_write(name, fd));
    ESPL_TRY(espl_fs_close(fd, name));
    ESPL_TRY(espl_fs_open_update(name, fd));
    return espl_fs_unlink(name);
}

static espl_status open_files(espl_parts *parts, const char *prefix) {
    parts->files = espl_calloc((size_t)parts->n_threads, sizeof *parts->files);
    for (int t = 0; t < parts->n_threads; t++)
        memset(parts->files[t].of, 0xFF, sizeof parts->files[t].of);
    for (int t = 0; t < parts->n_threads; t++) {
        parts->files[t].name = espl_format("%s-%d", prefix, t);
        for (int i = 0; i < ESPL_STORE_SETS; i++)
            if (parts->widths[i] > 0)
                ESPL_TRY(open_nameless(parts->files[t].name, &parts->files[t].of[i]));
    }
    return ESPL_OK;
}

static void sum_shares(espl_parts *parts) {
    espl_share_tokens *sum = &parts->sum;
    for (int64_t i = 0; i < parts->n_shares; i++) {
        const espl_share_tokens *share = &parts->shares[i];
        sum->n_tokens += share->n_tokens;
        sum->n_documents += share->n_documents;
        sum->n_bytes += share->n_bytes;
        sum->n_skipped += share->n_skipped;
        sum->n_cut += share->n_cut;
        sum->n_lost += share->n_lost;
        sum->n_left_out += share->n_left_out;
        sum->n_typed += share->n_typed;
    }
}

static void choose_widths(const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, int64_t widths[ESPL_STORE_SETS]) {
    bool makes[ESPL_STORE_SETS];
    espl__recipe_sets(recipe, makes);
    for (int i = 0; i < ESPL_STORE_SETS; i++)
        widths[i] = makes[i] ? espl_store_rows[i].max_width : 0;
    if (espl_tokenizer_size(tokenizer) <= UINT16_MAX + 1)
        widths[ESPL_STORE_IDS] = 2;
}

espl_status espl__parts_build(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, const espl_inputs *inputs,
                              const espl_share *shares, int64_t n, const char *prefix, espl_parts *parts) {
    build_job job = {.comm = comm,
                     .tokenizer = tokenizer,
                     .recipe = recipe,
                     .inputs = inputs,
                     .shares = shares,
                     .parts = parts,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .failed_share = n};
    *parts = (espl_parts){.n_shares = n};
    choose_widths(tokenizer, recipe, parts->widths);
    if (n == 0)
        return ESPL_OK;
    parts->n_threads = count_threads(espl_comm_ranks(comm), recipe->threads, n);
    parts->shares = espl_calloc((size_t)n, sizeof *parts->shares);
    ESPL_TRY(open_files(parts, prefix));
    for (int64_t i = 0; i < n; i++)
        job.bytes += shares[i].end - shares[i].begin;
    job.began = espl_now();
    run_workers(&job, parts->n_threads);
    if (job.status != ESPL_OK)
        espl_status_fail(job.status, __FILE__, __LINE__, "%s", job.message);
    free(job.message);
    sum_shares(parts);
    return job.status;
}

void espl__parts_free(espl_parts *parts) {
    for (int t = 0; t < parts->n_threads && parts->files != NULL; t++) {
        for (int i = 0; i < ESPL_STORE_SETS; i++)
            espl_fs_close(&parts->files[t].of[i], parts->files[t].name);
        free(parts->files[t].name);
    }
    free(parts->files);
    free(parts->shares);
    *parts = (espl_parts){0};
}
