#include "io/fsio.h"
#include "io/tokens_internal.h"
#include "src/core/buffer.h"
#include "src/core/log.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

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
    struct timespec began;
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
    espl_encoding encoding;
    espl_buffer ids, documents; /* not yet written */
    int64_t ids_written, documents_written;
    double last_report;
} build_worker;

static double seconds_since(const struct timespec *began) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - began->tv_sec) + 1e-9 * (double)(now.tv_nsec - began->tv_nsec);
}

static espl_status flush_one(espl_buffer *buffer, int fd, int64_t *written, const char *name) {
    ESPL_TRY(espl_fs_write(fd, buffer->data, buffer->size, *written, name));
    *written += (int64_t)buffer->size;
    buffer->size = 0;
    return ESPL_OK;
}

static espl_status flush(build_worker *worker, size_t from) {
    const espl_part_files *files = &worker->job->parts->files[worker->thread];
    if (worker->ids.size >= from)
        ESPL_TRY(flush_one(&worker->ids, files->ids, &worker->ids_written, files->name));
    if (worker->documents.size >= from)
        ESPL_TRY(flush_one(&worker->documents, files->documents, &worker->documents_written, files->name));
    return ESPL_OK;
}

static espl_status append_ids(build_worker *worker, const espl_document *document) {
    int64_t n = worker->encoding.n, vocabulary = espl_tokenizer_size(worker->job->tokenizer);
    size_t width = (size_t)worker->job->parts->width;
    espl_buffer_reserve(&worker->ids, (size_t)n * width);
    char *to = worker->ids.data + worker->ids.size;
    for (int64_t i = 0; i < n; i++) {
        int32_t id = worker->encoding.ids[i];
        if (id < 0 || id >= vocabulary)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: byte %lld: the tokenizer gave id %d, expected one below its size %lld", document->path,
                      (long long)document->offset, id, (long long)vocabulary);
        if (width == 2)
            ((uint16_t *)to)[i] = (uint16_t)id;
        else
            ((uint32_t *)to)[i] = (uint32_t)id;
    }
    worker->ids.size += (size_t)n * width;
    return ESPL_OK;
}

/* Some tokenizers close a text themselves; a second end would be a document of its own. */
static void append_eos(const espl_tokens_recipe *recipe, espl_encoding *encoding) {
    if (!recipe->append_eos || encoding->ids[encoding->n - 1] == recipe->eos)
        return;
    if (encoding->n == encoding->capacity) {
        encoding->capacity++;
        encoding->ids = espl_realloc(encoding->ids, (size_t)encoding->capacity * sizeof *encoding->ids);
    }
    encoding->ids[encoding->n++] = recipe->eos;
}

static espl_status add_document(build_worker *worker, const espl_document *document, espl_share_tokens *result) {
    build_job *job = worker->job;
    worker->encoding.n = 0;
    ESPL_TRY(espl_tokenizer_encode(job->tokenizer, document->text, document->size, true, &worker->encoding));
    int64_t n = worker->encoding.n;
    if (n == 0)
        return ESPL_OK;
    append_eos(job->recipe, &worker->encoding);
    n = worker->encoding.n;
    ESPL_TRY(append_ids(worker, document));
    espl_buffer_append(&worker->documents, &n, sizeof n);
    result->n_tokens += n;
    result->n_documents++;
    result->n_bytes += (int64_t)document->size;
    return flush(worker, FLUSH_BYTES);
}

/* Thread 0 speaks, as it is the one that owns comm. */
static void report(build_worker *worker) {
    build_job *job = worker->job;
    double now = seconds_since(&job->began);
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
            ESPL_TRY(add_document(worker, &document, result));
        atomic_fetch_add(&worker->job->tokens_done, result->n_tokens - tokens);
        report(worker);
    }
    result->n_skipped = espl_reader_skipped(reader);
    return ESPL_OK;
}

static espl_status build_share(build_worker *worker, int64_t share) {
    build_job *job = worker->job;
    espl_share_tokens *result = &job->parts->shares[share];
    espl_reader_options options = {
        .text_field = job->recipe->text_field, .unit = (espl_read_unit)job->recipe->document, .skip_bad = job->recipe->skip_bad};
    espl_reader *reader;
    *result = (espl_share_tokens){.thread = worker->thread,
                                  .ids_at = worker->ids_written + (int64_t)worker->ids.size,
                                  .documents_at = worker->documents_written + (int64_t)worker->documents.size};
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
    espl_encoding_free(&worker->encoding);
    espl_buffer_free(&worker->ids);
    espl_buffer_free(&worker->documents);
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
        parts->files[t] = (espl_part_files){.ids = -1, .documents = -1};
    for (int t = 0; t < parts->n_threads; t++) {
        parts->files[t].name = espl_format("%s-%d", prefix, t);
        ESPL_TRY(open_nameless(parts->files[t].name, &parts->files[t].ids));
        ESPL_TRY(open_nameless(parts->files[t].name, &parts->files[t].documents));
    }
    return ESPL_OK;
}

static void sum_shares(espl_parts *parts) {
    for (int64_t i = 0; i < parts->n_shares; i++) {
        parts->n_tokens += parts->shares[i].n_tokens;
        parts->n_documents += parts->shares[i].n_documents;
        parts->n_bytes += parts->shares[i].n_bytes;
        parts->n_skipped += parts->shares[i].n_skipped;
    }
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
    *parts = (espl_parts){.width = espl_tokenizer_size(tokenizer) <= UINT16_MAX + 1 ? 2 : 4, .n_shares = n};
    if (n == 0)
        return ESPL_OK;
    parts->n_threads = count_threads(espl_comm_ranks(comm), recipe->threads, n);
    parts->shares = espl_calloc((size_t)n, sizeof *parts->shares);
    ESPL_TRY(open_files(parts, prefix));
    for (int64_t i = 0; i < n; i++)
        job.bytes += shares[i].end - shares[i].begin;
    clock_gettime(CLOCK_MONOTONIC, &job.began);
    run_workers(&job, parts->n_threads);
    if (job.status != ESPL_OK)
        espl_status_fail(job.status, __FILE__, __LINE__, "%s", job.message);
    free(job.message);
    sum_shares(parts);
    return job.status;
}

void espl__parts_free(espl_parts *parts) {
    for (int t = 0; t < parts->n_threads && parts->files != NULL; t++) {
        espl_fs_close(&parts->files[t].ids, parts->files[t].name);
        espl_fs_close(&parts->files[t].documents, parts->files[t].name);
        free(parts->files[t].name);
    }
    free(parts->files);
    free(parts->shares);
    *parts = (espl_parts){0};
}
