#include "src/eval/kv_decoder.h"

#include "src/core/arena.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

struct espl_decoder {
    const espl_engine *engine;
    const espl_model *model;
    espl_tape tape;
    espl_arena arena, host; /* tensors on the device; lists of a pass on the host */
    int rows;
    int64_t capacity, tokens;
    size_t row_bytes;          /* of one row of one layer's cache */
    char *cache, *spare;       /* [layers, rows, capacity, 2 G d]; the spare takes reordered rows, then they swap */
    char *act, *work, *hidden; /* hidden: [rows, D] gathered */
    char *logits;              /* [rows, V] real */
    espl_attrs head;
    const void *head_weight;
    /* on the host: tokens of each row; the batch of one pass; logits brought from a remote device */
    int32_t *length, *segments, *positions, *targets, *pass_rows, *pass_lengths;
    char *brought;
    /* of an encoder-decoder: the encoder's batch, and which of its segments a cache row sees */
    int64_t source_tokens;
    espl_batch source;
    int32_t *source_ids, *source_positions, *source_segments, *source_of_row, *pass_sources;
};

static size_t head_work(const espl_decoder *d, int threads) {
    return d->engine->kernels->work_bytes(ESPL_OP_LINEAR, &d->head, d->rows, threads, 0);
}

static void layout(espl_decoder *d, int threads) {
    size_t rows = (size_t)d->rows, real = espl_dtype_size(d->engine->kernels->real), layers = (size_t)d->model->dims.layers;
    size_t work = head_work(d, threads) > d->tape.work_bytes ? head_work(d, threads) : d->tape.work_bytes;
    size_t tokens = (size_t)d->tokens * sizeof(int32_t), logits = rows * (size_t)d->model->dims.vocab * real;
    d->work = espl_arena_take(&d->arena, work);
    d->cache = espl_arena_take(&d->arena, layers * rows * d->row_bytes);
    d->spare = espl_arena_take(&d->arena, rows > 1 ? layers * rows * d->row_bytes : 0);
    d->act = espl_arena_take(&d->arena, d->tape.act_bytes);
    d->hidden = espl_arena_take(&d->arena, rows * (size_t)d->model->dims.width * real);
    d->logits = espl_arena_take(&d->arena, logits);
    d->length = espl_arena_take(&d->host, rows * sizeof(int32_t));
    d->segments = espl_arena_take(&d->host, (rows + 1) * sizeof(int32_t));
    d->positions = espl_arena_take(&d->host, tokens);
    d->targets = espl_arena_take(&d->host, tokens);
    d->pass_rows = espl_arena_take(&d->host, rows * sizeof(int32_t));
    d->pass_lengths = espl_arena_take(&d->host, rows * sizeof(int32_t));
    d->brought = d->engine->calls->remote ? espl_arena_take(&d->host, logits) : NULL;
    d->source_ids = espl_arena_take(&d->host, (size_t)d->source_tokens * sizeof(int32_t));
    d->source_positions = espl_arena_take(&d->host, (size_t)d->source_tokens * sizeof(int32_t));
    d->source_segments = espl_arena_take(&d->host, (rows + 1) * sizeof(int32_t));
    d->source_of_row = espl_arena_take(&d->host, rows * sizeof(int32_t));
    d->pass_sources = espl_arena_take(&d->host, rows * sizeof(int32_t));
}

static void find_head(espl_decoder *d, const void *weights) {
    const espl_model *m = d->model;
    const espl_row *loss = &m->rows[m->n_rows - 1];
    const espl_param *p = &m->params[loss->param[0]];
    d->head = (espl_attrs){.n_in = loss->attrs.n_in, .n_out = loss->attrs.vocab, .layout = ESPL_OUT_IN, .scale = loss->attrs.scale};
    d->head_weight =
        (const char *)weights + (size_t)(espl_model_bucket_start(m, p->bucket, 1) + p->offset) * espl_dtype_size(d->engine->kernels->real);
}

static espl_status take_memory(espl_decoder *d, const espl_decoder_use *use, const espl_capacity capacity[ESPL_N_STREAMS]) {
    const espl_engine *e = d->engine;
    layout(d, use->threads);
    ESPL_TRY(espl_engine_take(e, &d->arena, "GENERATE", d->arena.used));
    ESPL_TRY(espl_arena_bind(&d->host, "GENERATE on the host", d->host.used));
    layout(d, use->threads);
    for (int64_t i = 0; i < d->tokens; i++)
        d->targets[i] = -1;
    espl_places places = {.weights = (void *)(uintptr_t)use->weights, .ranks = 1, .act = d->act, .work = d->work, .rope = use->rope};
    espl_tape_bind(&d->tape, &places);
    return e->calls->reserve(e->device, capacity);
}

espl_status espl_decoder_make(const espl_decoder_use *use, int rows, int64_t capacity, int64_t tokens, espl_decoder **decoder) {
    const espl_kernels *kernels = use->engine->kernels;
    const espl_dims *dims = &use->model->dims;
    espl_decoder *d = espl_calloc(1, sizeof *d);
    if (tokens < rows)
        tokens = rows;
    *d = (espl_decoder){.engine = use->engine,
                        .model = use->model,
                        .rows = rows,
                        .capacity = capacity,
                        .tokens = tokens,
                        .source_tokens = use->source_tokens,
                        .arena = espl_arena_measure("GENERATE"),
                        .host = espl_arena_measure("GENERATE on the host"),
                        .row_bytes = (size_t)(2 * capacity * dims->kv_heads * dims->head_dim) * espl_dtype_size(kernels->real)};
    const espl_capacity planned[ESPL_N_STREAMS] = {
        [ESPL_STREAM_MAIN] = {tokens, rows, 0}, [ESPL_STREAM_SOURCE] = {use->source_tokens, use->source_tokens > 0 ? rows : 0, 0}};
    espl_tape_make(use->model, kernels, ESPL_USE_GENERATE, 0, planned, use->threads, &d->tape);
    find_head(d, use->weights);
    espl_status status = take_memory(d, use, planned);
    if (status != ESPL_OK)
        espl_decoder_free(&d);
    *decoder = d;
    return status;
}

void espl_decoder_free(espl_decoder **decoder) {
    espl_decoder *d = *decoder;
    if (d == NULL)
        return;
    espl_tape_free(&d->tape);
    espl_engine_give_back(d->engine, &d->arena);
    espl_arena_free(&d->host);
    free(d);
    *decoder = NULL;
}

void espl_decoder_clear(espl_decoder *decoder, int row) { decoder->length[row] = 0; }

void espl_decoder_reorder(espl_decoder *d, int n, const int32_t *source) {
    int32_t *lengths = d->pass_lengths;
    size_t token_bytes = d->row_bytes / (size_t)d->capacity;
    bool same = true;
    for (int r = 0; r < n; r++)
        same = same && source[r] == r;
    if (same)
        return;
    for (int r = 0; r < d->rows; r++)
        lengths[r] = d->length[r < n ? source[r] : r];
    for (int64_t layer = 0; layer < d->model->dims.layers; layer++)
        for (int r = 0; r < d->rows; r++) {
            size_t base = (size_t)(layer * d->rows) * d->row_bytes, from = (size_t)(r < n ? source[r] : r);
            d->engine->kernels->copy(d->spare + base + (size_t)r * d->row_bytes, d->cache + base + from * d->row_bytes,
                                     (size_t)lengths[r] * token_bytes);
        }
    memcpy(d->length, lengths, (size_t)d->rows * sizeof *lengths);
    char *cache = d->cache;
    d->cache = d->spare;
    d->spare = cache;
}

static espl_cache cache_of(const espl_decoder *d) {
    return (espl_cache){.data = d->cache, .rows = d->rows, .capacity = d->capacity, .row = d->pass_rows, .length = d->pass_lengths};
}

static espl_batch batch_of(const espl_decoder *d, int64_t n, int32_t n_segments, const int32_t *ids, const espl_cache *cache) {
    return (espl_batch){.n = n,
                        .n_segments = n_segments,
                        .segments = d->segments,
                        .ids = ids,
                        .positions = d->positions,
                        .targets = d->targets,
                        .cache = cache,
                        .source = d->source_tokens > 0 ? &d->source : NULL,
                        .source_segment = d->pass_sources};
}

espl_status espl_decoder_encode(espl_decoder *d, int n, int rows_each, const int32_t *counts, const int32_t *ids) {
    int32_t at = 0;
    for (int s = 0; s < n; s++) {
        d->source_segments[s] = at;
        if (at + counts[s] > d->source_tokens)
            ESPL_FAIL(ESPL_ERR_USAGE, "%d sources of more than the %lld tokens that were planned", n, (long long)d->source_tokens);
        for (int32_t i = 0; i < counts[s]; i++, at++)
            d->source_positions[at] = i;
        for (int r = 0; r < rows_each; r++)
            d->source_of_row[s * rows_each + r] = s;
    }
    d->source_segments[n] = at;
    memcpy(d->source_ids, ids, (size_t)at * sizeof *ids);
    d->source =
        (espl_batch){.n = at, .n_segments = n, .segments = d->source_segments, .ids = d->source_ids, .positions = d->source_positions};
    d->segments[0] = 0;
    espl_cache cache = cache_of(d);
    espl_batch batch = batch_of(d, 0, 0, d->source_ids, &cache);
    ESPL_TRY(d->engine->calls->begin(d->engine->device, &batch));
    return espl_tape_encode(&d->tape, &batch);
}

/* One pass: `n` sequences whose tokens fit the plan. Leaves the last hidden value of sequence s in hidden row s. */
static espl_status pass(espl_decoder *d, int n, const int32_t *rows, const int32_t *counts, const int32_t *ids) {
    int32_t at = 0;
    for (int s = 0; s < n; s++) {
        d->segments[s] = at;
        d->pass_rows[s] = rows[s];
        d->pass_lengths[s] = d->length[rows[s]];
        d->pass_sources[s] = d->source_of_row[rows[s]];
        for (int32_t i = 0; i < counts[s]; i++)
            d->positions[at++] = d->length[rows[s]] + i;
    }
    d->segments[n] = at;
    espl_cache cache = cache_of(d);
    espl_batch batch = batch_of(d, at, n, ids, &cache);
    ESPL_TRY(d->engine->calls->begin(d->engine->device, &batch));
    ESPL_TRY(espl_tape_run(&d->tape, &batch, true, NULL));
    size_t bytes = (size_t)d->model->dims.width * espl_dtype_size(d->engine->kernels->real);
    const char *hidden = espl_tape_buffer(&d->tape, d->tape.hidden);
    for (int s = 0; s < n; s++) {
        d->engine->kernels->copy(d->hidden + (size_t)s * bytes, hidden + (size_t)(d->segments[s + 1] - 1) * bytes, bytes);
        d->length[rows[s]] += counts[s];
    }
    return ESPL_OK;
}

/* The head's product over the gathered rows: a micro-batch of its own, one token a sequence (which tokens does not matter to it). */
static espl_status compute_logits(espl_decoder *d, int n, float *logits) {
    const espl_engine *e = d->engine;
    for (int s = 0; s <= n; s++)
        d->segments[s] = s;
    espl_cache cache = cache_of(d);
    espl_batch batch = batch_of(d, n, n, d->positions, &cache);
    batch.source = NULL;
    espl_args args = {
        .attrs = &d->head, .batch = &batch, .in = {d->hidden}, .out = {d->logits}, .param = {d->head_weight}, .work = d->work};
    size_t count = (size_t)n * (size_t)d->head.n_out;
    const char *found = d->logits;
    ESPL_TRY(e->calls->begin(e->device, &batch));
    e->kernels->forward[ESPL_OP_LINEAR](&args);
    if (e->calls->remote) {
        ESPL_TRY(e->calls->read(e->device, d->brought, d->logits, count * espl_dtype_size(e->kernels->real)));
        found = d->brought;
    }
    espl_dtype_convert(logits, ESPL_F32, found, e->kernels->real, count);
    for (size_t i = 0; i < count && d->head.scale != 1.0f; i++)
        logits[i] *= d->head.scale;
    return ESPL_OK;
}

/* A prompt that is longer than a pass: all but its last piece, whose hidden values nobody needs. */
static espl_status feed_head(espl_decoder *d, int32_t row, int32_t *count, const int32_t **ids) {
    int32_t most = (int32_t)(d->tokens / d->rows);
    while (*count > most) {
        ESPL_TRY(pass(d, 1, &row, &most, *ids));
        *ids += most;
        *count -= most;
    }
    return ESPL_OK;
}

espl_status espl_decoder_feed(espl_decoder *d, int n, const int32_t *rows, const int32_t *counts, const int32_t *ids, float *logits) {
    espl_status status = ESPL_OK;
    int32_t *rest = espl_malloc((size_t)n * sizeof *rest), *tail = espl_malloc((size_t)d->tokens * sizeof *tail), used = 0;
    for (int s = 0; s < n; s++) {
        const int32_t *own = ids;
        ids += counts[s];
        rest[s] = counts[s];
        if (d->length[rows[s]] + counts[s] > d->capacity)
            ESPL_FAIL_DONE(
                ESPL_ERR_USAGE,
                "a sequence of %d tokens exceeds the %lld that were planned; lower generate.max_new_tokens or shorten the prompt",
                d->length[rows[s]] + counts[s], (long long)d->capacity);
        ESPL_TRY_DONE(feed_head(d, rows[s], &rest[s], &own));
        memcpy(tail + used, own, (size_t)rest[s] * sizeof *tail);
        used += rest[s];
    }
    ESPL_TRY_DONE(pass(d, n, rows, rest, tail));
    ESPL_TRY_DONE(compute_logits(d, n, logits));
done:
    free(rest);
    free(tail);
    return status;
}
