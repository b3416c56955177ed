#include "src/eval/kv_decoder.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

struct espl_decoder {
    espl_decoder_size size;
    const espl_engine *engine;
    espl_tape tape;
    espl_capacity batches[ESPL_N_STREAMS];
    espl_arena own, host;      /* where espl_decoder_make has taken them */
    size_t row_bytes;          /* of one row of one layer's cache */
    char *cache, *spare;       /* [layers, rows, capacity, 2 G d]; the spare takes reordered rows, then they swap */
    char *act, *work, *hidden; /* hidden: [rows, D] gathered */
    char *logits;              /* [rows, V] real */
    bool prepared;             /* what depends on no token has been computed */
    espl_attrs head;
    const void *head_weight;
    /* on the host: tokens of each row; the batch of one pass, and what was fed of it; logits, also as brought from a remote device */
    int32_t *length, *segments, *positions, *targets, *pass_rows, *pass_lengths, *rest, *tail;
    int32_t *prompt; /* ids of the model's soft prompt */
    float *found;
    char *brought;
    /* of an encoder-decoder: the encoder's batch, and which of its segments a cache row sees */
    espl_batch source;
    int32_t *source_ids, *source_positions, *source_segments, *source_of_row, *pass_sources;
};

static size_t head_work(const espl_decoder *d) {
    return d->size.kernels->work_bytes(ESPL_OP_LINEAR, &d->head, d->size.rows, d->size.threads, 0);
}

static void take_host(espl_decoder *d, espl_arena *host) {
    size_t rows = (size_t)d->size.rows, tokens = (size_t)d->size.tokens * sizeof(int32_t);
    size_t sources = (size_t)d->size.source_tokens * sizeof(int32_t), logits = rows * (size_t)d->size.model->dims.vocab;
    d->length = espl_arena_take(host, rows * sizeof(int32_t));
    d->segments = espl_arena_take(host, (rows + 1) * sizeof(int32_t));
    d->positions = espl_arena_take(host, tokens);
    d->targets = espl_arena_take(host, tokens);
    d->pass_rows = espl_arena_take(host, rows * sizeof(int32_t));
    d->pass_lengths = espl_arena_take(host, rows * sizeof(int32_t));
    d->rest = espl_arena_take(host, rows * sizeof(int32_t));
    d->tail = espl_arena_take(host, tokens);
    d->prompt = espl_arena_take(host, (size_t)d->size.model->prompt.length * sizeof *d->prompt);
    d->found = espl_arena_take(host, logits * sizeof(float));
    d->brought = d->size.remote ? espl_arena_take(host, logits * espl_dtype_size(d->size.kernels->real)) : NULL;
    d->source_ids = espl_arena_take(host, sources);
    d->source_positions = espl_arena_take(host, sources);
    d->source_segments = espl_arena_take(host, (rows + 1) * sizeof(int32_t));
    d->source_of_row = espl_arena_take(host, rows * sizeof(int32_t));
    d->pass_sources = espl_arena_take(host, rows * sizeof(int32_t));
}

void espl_decoder_take(espl_decoder *d, espl_arena *act, espl_arena *work, espl_arena *host) {
    const espl_dims *dims = &d->size.model->dims;
    size_t rows = (size_t)d->size.rows, real = espl_dtype_size(d->size.kernels->real), cache = (size_t)dims->layers * rows * d->row_bytes;
    d->work = espl_arena_take(work, head_work(d) > d->tape.work_bytes ? head_work(d) : d->tape.work_bytes);
    d->cache = espl_arena_take(act, cache);
    d->spare = espl_arena_take(act, rows > 1 ? cache : 0);
    d->act = espl_arena_take(act, d->tape.act_bytes);
    d->hidden = espl_arena_take(act, rows * (size_t)dims->width * real);
    d->logits = espl_arena_take(act, rows * (size_t)dims->vocab * real);
    take_host(d, host);
}

static const espl_row *loss_row(const espl_decoder *d) { return &d->size.model->rows[d->size.model->n_rows - 1]; }

espl_decoder *espl_decoder_plan(const espl_decoder_size *size) {
    const espl_dims *dims = &size->model->dims;
    espl_decoder *d = espl_calloc(1, sizeof *d);
    d->size = *size;
    d->size.capacity += espl_model_prompt(size->model, ESPL_STREAM_MAIN);
    d->size.source_tokens += size->source_tokens > 0 ? size->rows * espl_model_prompt(size->model, ESPL_STREAM_SOURCE) : 0;
    if (d->size.tokens < d->size.rows)
        d->size.tokens = d->size.rows;
    d->row_bytes = (size_t)(2 * d->size.capacity * dims->kv_heads * dims->head_dim) * espl_dtype_size(size->kernels->real);
    const espl_capacity batches[ESPL_N_STREAMS] = {
        [ESPL_STREAM_MAIN] = {d->size.tokens, size->rows, 0},
        [ESPL_STREAM_SOURCE] = {d->size.source_tokens, size->source_tokens > 0 ? size->rows : 0, 0}};
    memcpy(d->batches, batches, sizeof batches);
    espl_tape_make(size->model, size->kernels, ESPL_USE_GENERATE, 0, 0, batches, size->threads, &d->tape);
    const espl_row *loss = loss_row(d);
    d->head = (espl_attrs){.n_in = loss->attrs.n_in, .n_out = loss->attrs.vocab, .layout = ESPL_OUT_IN, .scale = loss->attrs.scale};
    return d;
}

const espl_capacity *espl_decoder_capacity(const espl_decoder *d) { return d->batches; }
int espl_decoder_rows(const espl_decoder *d) { return d->size.rows; }
float *espl_decoder_logits(espl_decoder *d) { return d->found; }

void espl_decoder_bind(espl_decoder *d, const espl_engine *engine, const espl_places *places) {
    const espl_model *m = d->size.model;
    size_t start = espl_model_weights_at(m, loss_row(d)->param[0], places->ranks, d->size.kernels->real);
    espl_places own = *places;
    own.act = d->act;
    own.work = d->work;
    d->engine = engine;
    d->head_weight = (const char *)places->weights + start;
    for (int64_t i = 0; i < d->size.tokens; i++)
        d->targets[i] = -1;
    for (int64_t i = 0; i < m->prompt.length; i++)
        d->prompt[i] = espl_model_prompt_id(m) + (int32_t)i;
    espl_tape_bind(&d->tape, &own);
}

static espl_status take_memory(espl_decoder *d, const espl_decoder_use *use) {
    const espl_engine *e = use->engine;
    const espl_places places = {.weights = (void *)(uintptr_t)use->weights, .ranks = 1, .rope = use->rope};
    d->engine = e;
    d->own = espl_arena_measure("GENERATE");
    d->host = espl_arena_measure("GENERATE on the host");
    espl_decoder_take(d, &d->own, &d->own, &d->host);
    ESPL_TRY(espl_engine_take(e, &d->own, "GENERATE", d->own.used));
    ESPL_TRY(espl_arena_bind(&d->host, "GENERATE on the host", d->host.used));
    espl_decoder_take(d, &d->own, &d->own, &d->host);
    espl_decoder_bind(d, e, &places);
    return e->calls->reserve(e->device, d->batches);
}

espl_status espl_decoder_make(const espl_decoder_use *use, int rows, int64_t capacity, int64_t tokens, espl_decoder **decoder) {
    const espl_decoder_size size = {.model = use->model,
                                    .kernels = use->engine->kernels,
                                    .remote = use->engine->calls->remote,
                                    .threads = use->threads,
                                    .rows = rows,
                                    .capacity = capacity,
                                    .tokens = tokens,
                                    .source_tokens = use->source_tokens};
    *decoder = espl_decoder_plan(&size);
    espl_status status = take_memory(*decoder, use);
    if (status != ESPL_OK)
        espl_decoder_free(decoder);
    return status;
}

void espl_decoder_free(espl_decoder **decoder) {
    espl_decoder *d = *decoder;
    if (d == NULL)
        return;
    espl_tape_free(&d->tape);
    if (d->engine != NULL)
        espl_engine_give_back(d->engine, &d->own);
    espl_arena_free(&d->host);
    free(d);
    *decoder = NULL;
}

void espl_decoder_clear(espl_decoder *decoder, int row) {
    decoder->length[row] = 0;
    decoder->prepared = false;
}

void espl_decoder_reorder(espl_decoder *d, int n, const int32_t *source) {
    int32_t *lengths = d->pass_lengths;
    size_t token_bytes = d->row_bytes / (size_t)d->size.capacity;
    bool same = true;
    for (int r = 0; r < n; r++)
        same = same && source[r] == r;
    if (same)
        return;
    for (int r = 0; r < d->size.rows; r++)
        lengths[r] = d->length[r < n ? source[r] : r];
    for (int64_t layer = 0; layer < d->size.model->dims.layers; layer++)
        for (int r = 0; r < d->size.rows; r++) {
            size_t base = (size_t)(layer * d->size.rows) * d->row_bytes, from = (size_t)(r < n ? source[r] : r);
            d->engine->kernels->copy(d->spare + base + (size_t)r * d->row_bytes, d->cache + base + from * d->row_bytes,
                                     (size_t)lengths[r] * token_bytes);
        }
    memcpy(d->length, lengths, (size_t)d->size.rows * sizeof *lengths);
    char *cache = d->cache;
    d->cache = d->spare;
    d->spare = cache;
}

static espl_cache cache_of(const espl_decoder *d) {
    return (espl_cache){
        .data = d->cache, .rows = d->size.rows, .capacity = d->size.capacity, .row = d->pass_rows, .length = d->pass_lengths};
}

static espl_batch batch_of(const espl_decoder *d, int64_t n, int32_t n_segments, const int32_t *ids, const espl_cache *cache) {
    return (espl_batch){.n = n,
                        .n_segments = n_segments,
                        .segments = d->segments,
                        .ids = ids,
                        .positions = d->positions,
                        .targets = d->targets,
                        .cache = cache,
                        .source = d->size.source_tokens > 0 ? &d->source : NULL,
                        .source_segment = d->pass_sources};
}

espl_status espl_decoder_encode(espl_decoder *d, int n, int rows_each, const int32_t *counts, const int32_t *ids) {
    int32_t at = 0, prompt = (int32_t)espl_model_prompt(d->size.model, ESPL_STREAM_SOURCE);
    for (int s = 0; s < n; s++) {
        d->source_segments[s] = at;
        if (at + prompt + counts[s] > d->size.source_tokens)
            ESPL_FAIL(ESPL_ERR_USAGE, "%d sources of more than the %lld tokens that were planned", n, (long long)d->size.source_tokens);
        for (int32_t i = 0; i < prompt + counts[s]; i++, at++) {
            d->source_positions[at] = i;
            d->source_ids[at] = i < prompt ? d->prompt[i] : *ids++;
        }
        for (int r = 0; r < rows_each; r++)
            d->source_of_row[s * rows_each + r] = s;
    }
    d->source_segments[n] = at;
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
    if (!d->prepared && d->size.source_tokens == 0) /* else the encoder's pass has done it */
        ESPL_TRY(espl_tape_encode(&d->tape, &batch));
    d->prepared = true;
    ESPL_TRY(espl_tape_run(&d->tape, &batch, true, NULL));
    size_t bytes = (size_t)d->size.model->dims.width * espl_dtype_size(d->engine->kernels->real);
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

/* What stands in front of a row's first tokens; nobody needs its hidden values either. */
static espl_status feed_prompt(espl_decoder *d, int32_t row) {
    int32_t most = (int32_t)(d->size.tokens / d->size.rows), n = (int32_t)espl_model_prompt(d->size.model, ESPL_STREAM_MAIN);
    for (int32_t at = 0, count; at < n && d->length[row] < n; at += count) {
        count = n - at < most ? n - at : most;
        ESPL_TRY(pass(d, 1, &row, &count, d->prompt + at));
    }
    return ESPL_OK;
}

/* A prompt that is longer than a pass: all but its last piece, whose hidden values nobody needs. */
static espl_status feed_head(espl_decoder *d, int32_t row, int32_t *count, const int32_t **ids) {
    int32_t most = (int32_t)(d->size.tokens / d->size.rows);
    while (*count > most) {
        ESPL_TRY(pass(d, 1, &row, &most, *ids));
        *ids += most;
        *count -= most;
    }
    return ESPL_OK;
}

espl_status espl_decoder_feed(espl_decoder *d, int n, const int32_t *rows, const int32_t *counts, const int32_t *ids, float *logits) {
    int32_t *rest = d->rest, *tail = d->tail, used = 0;
    for (int s = 0; s < n; s++) {
        const int32_t *own = ids;
        ids += counts[s];
        rest[s] = counts[s];
        ESPL_TRY(feed_prompt(d, rows[s]));
        if (d->length[rows[s]] + counts[s] > d->size.capacity)
            ESPL_FAIL(ESPL_ERR_USAGE,
                      "a sequence of %d tokens exceeds the %lld that were planned; lower generate.max_new_tokens or shorten the prompt",
                      d->length[rows[s]] + counts[s], (long long)d->size.capacity);
        ESPL_TRY(feed_head(d, rows[s], &rest[s], &own));
        memcpy(tail + used, own, (size_t)rest[s] * sizeof *tail);
        used += rest[s];
    }
    ESPL_TRY(pass(d, n, rows, rest, tail));
    return compute_logits(d, n, logits);
}
