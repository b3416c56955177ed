#include "src/eval/generate.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* What both ways of generating hold. */
typedef struct session {
    espl_decoder *decoder;
    const espl_generate_options *options;
    const espl_prompt *prompts;
    int n, rows;
    int64_t vocab, longest; /* longest prompt with its new tokens */
    float *logits;          /* [rows, vocab], the decoder's */
    int32_t *text;          /* [rows, longest] prompt and generated tokens of each row */
    int64_t *length;        /* [rows] */
    int32_t *feed_rows, *feed_counts, *feed_ids;
    void *scratch;
} session;

static void open_session(session *s) {
    size_t rows = (size_t)s->rows, prompt_tokens = 0;
    for (int i = 0; i < s->n; i++) {
        prompt_tokens += (size_t)s->prompts[i].n;
        if (s->prompts[i].n + s->options->max_new > s->longest)
            s->longest = s->prompts[i].n + s->options->max_new;
    }
    s->logits = espl_decoder_logits(s->decoder);
    s->text = espl_malloc(rows * (size_t)s->longest * sizeof *s->text);
    s->length = espl_calloc(rows, sizeof *s->length);
    s->feed_rows = espl_malloc(rows * sizeof *s->feed_rows);
    s->feed_counts = espl_malloc(rows * sizeof *s->feed_counts);
    s->feed_ids = espl_malloc((prompt_tokens > rows ? prompt_tokens : rows) * sizeof *s->feed_ids);
    s->scratch = espl_malloc(espl_sampling_scratch(s->vocab));
}

static void close_session(session *s) {
    free(s->text);
    free(s->length);
    free(s->feed_rows);
    free(s->feed_counts);
    free(s->feed_ids);
    free(s->scratch);
}

static int32_t *text_of(const session *s, int row) { return s->text + (int64_t)row * s->longest; }

/* All prompts in one go, prompt i into row i * beams. */
static espl_status feed_prompts(session *s) {
    int32_t at = 0;
    for (int i = 0; i < s->n; i++) {
        int row = i * s->options->beams;
        const espl_prompt *p = &s->prompts[i];
        s->feed_rows[i] = row;
        s->feed_counts[i] = (int32_t)p->n;
        memcpy(s->feed_ids + at, p->ids, (size_t)p->n * sizeof *p->ids);
        for (int b = 0; b < s->options->beams; b++) {
            memcpy(text_of(s, row + b), p->ids, (size_t)p->n * sizeof *p->ids);
            s->length[row + b] = p->n;
        }
        at += (int32_t)p->n;
    }
    return espl_decoder_feed(s->decoder, s->n, s->feed_rows, s->feed_counts, s->feed_ids, s->logits);
}

/* Sources of all prompts, which then all beams of a prompt see. */
static espl_status encode_sources(session *s) {
    int64_t n = 0;
    if (s->prompts[0].source == NULL)
        return ESPL_OK;
    for (int i = 0; i < s->n; i++)
        n += s->prompts[i].n_source;
    int32_t *ids = espl_malloc((size_t)n * sizeof *ids), *counts = espl_malloc((size_t)s->n * sizeof *counts);
    n = 0;
    for (int i = 0; i < s->n; i++) {
        counts[i] = (int32_t)s->prompts[i].n_source;
        memcpy(ids + n, s->prompts[i].source, (size_t)counts[i] * sizeof *ids);
        n += counts[i];
    }
    espl_status status = espl_decoder_encode(s->decoder, s->n, s->options->beams, counts, ids);
    free(ids);
    free(counts);
    return status;
}

static void keep_result(int prompt, const int32_t *ids, int64_t n, float score, espl_generated *out) {
    out[prompt] = (espl_generated){.ids = espl_malloc((size_t)n * sizeof *ids), .n = n, .score = score};
    if (n > 0)
        memcpy(out[prompt].ids, ids, (size_t)n * sizeof *ids);
}

/* ---- Greedy and sampled. */

static bool is_end(const espl_sampling *how, int32_t token) {
    for (int i = 0; i < how->n_eos; i++)
        if (how->eos[i] == token)
            return true;
    return false;
}

/* Chooses the next token of every running sequence (row r's logits stand at place r of the last feed) and lists those that go on. */
static int choose(session *s, int running, espl_token_sink *sink, void *context) {
    const espl_generate_options *o = s->options;
    int still = 0;
    for (int r = 0; r < running; r++) {
        int row = s->feed_rows[r];
        int64_t n_new = s->length[row] - s->prompts[row].n;
        espl_context so_far = {.ids = text_of(s, row), .n = s->length[row], .n_new = n_new};
        int32_t token =
            espl_sampling_next(&o->sampling, so_far, s->logits + (int64_t)r * s->vocab, s->vocab, o->seed, (uint32_t)row, s->scratch);
        text_of(s, row)[s->length[row]++] = token;
        if (sink != NULL)
            sink(context, row, token);
        if (is_end(&o->sampling, token) || n_new + 1 >= o->max_new)
            continue;
        s->feed_rows[still] = row;
        s->feed_counts[still] = 1;
        s->feed_ids[still++] = token;
    }
    return still;
}

static espl_status sample(session *s, espl_token_sink *sink, void *context, espl_generated *out) {
    ESPL_TRY(feed_prompts(s));
    for (int running = choose(s, s->n, sink, context); running > 0; running = choose(s, running, sink, context))
        ESPL_TRY(espl_decoder_feed(s->decoder, running, s->feed_rows, s->feed_counts, s->feed_ids, s->logits));
    for (int i = 0; i < s->n; i++)
        keep_result(i, text_of(s, i) + s->prompts[i].n, s->length[i] - s->prompts[i].n, 0.0f, out);
    return ESPL_OK;
}

/* ---- Beams. */

/* After the prompts: the logits of prompt i move to row i * beams. */
static void spread_logits(session *s) {
    for (int i = s->n - 1; i > 0; i--)
        memcpy(s->logits + (int64_t)i * s->options->beams * s->vocab, s->logits + (int64_t)i * s->vocab,
               (size_t)s->vocab * sizeof *s->logits);
}

static void score_rows(session *s, const espl_beam *beam, bool first) {
    for (int row = 0; row < s->rows; row++) {
        float *logits = s->logits + (int64_t)row * s->vocab;
        const espl_prompt *p = &s->prompts[row / s->options->beams];
        int64_t n_new;
        const int32_t *running = espl_beam_running(beam, row, &n_new);
        if (first && row % s->options->beams != 0)
            continue;
        if (n_new > 0)
            memcpy(text_of(s, row) + p->n, running, (size_t)n_new * sizeof *running);
        espl_sampling_log_softmax(logits, s->vocab);
        espl_context so_far = {.ids = text_of(s, row), .n = p->n + n_new, .n_new = n_new};
        espl_sampling_penalise(&s->options->sampling, so_far, logits, s->vocab, s->scratch);
    }
}

/* Row r of an item continues its row source[r]; in the first step only the item's first row holds the prompt. */
static espl_status continue_rows(session *s, const int32_t *tokens, const int32_t *source) {
    espl_decoder_reorder(s->decoder, s->rows, source);
    for (int row = 0; row < s->rows; row++) {
        s->feed_rows[row] = row;
        s->feed_counts[row] = 1;
    }
    return espl_decoder_feed(s->decoder, s->rows, s->feed_rows, s->feed_counts, tokens, s->logits);
}

static espl_status search(session *s, espl_generated *out) {
    const espl_generate_options *o = s->options;
    espl_beam_options options = {.batch = s->n,
                                 .beams = o->beams,
                                 .vocab = s->vocab,
                                 .max_new = o->max_new,
                                 .length_penalty = o->length_penalty,
                                 .early = o->early,
                                 .eos = o->sampling.eos,
                                 .n_eos = o->sampling.n_eos};
    espl_beam *beam = espl_beam_make(&options);
    int32_t *tokens = espl_malloc((size_t)s->rows * sizeof *tokens), *source = espl_malloc((size_t)s->rows * sizeof *source);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(feed_prompts(s));
    spread_logits(s);
    score_rows(s, beam, true);
    while (espl_beam_step(beam, s->logits, tokens, source)) {
        ESPL_TRY_DONE(continue_rows(s, tokens, source));
        score_rows(s, beam, false);
    }
    for (int i = 0; i < s->n; i++) {
        int64_t n = 0;
        float score = 0.0f;
        const int32_t *ids = espl_beam_result(beam, i, 0, &n, &score);
        keep_result(i, ids, ids != NULL ? n : 0, score, out);
    }
done:
    espl_beam_free(&beam);
    free(tokens);
    free(source);
    return status;
}

espl_status espl_generate(espl_decoder *decoder, const espl_generate_options *options, int n, const espl_prompt *prompts, int64_t vocab,
                          espl_token_sink *sink, void *context, espl_generated *out) {
    session s = {.decoder = decoder, .options = options, .prompts = prompts, .n = n, .rows = n * options->beams, .vocab = vocab};
    for (int i = 0; i < n; i++)
        out[i] = (espl_generated){0};
    open_session(&s);
    espl_status status = encode_sources(&s);
    if (status == ESPL_OK)
        status = options->beams > 1 ? search(&s, out) : sample(&s, sink, context, out);
    close_session(&s);
    return status;
}
