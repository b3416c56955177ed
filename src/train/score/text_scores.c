#include "src/train/score/text_scores.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/eval/bleu.h"
#include "src/eval/generate.h"
#include "src/eval/rouge.h"
#include "src/train/score/generate_options.h"
#include "src/train/feed/texts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 8, SAMPLES = 10, SCORES = 9, PASS = 512 }; /* prompts generated from together; what the report shows; the scores; tokens */

static const char *const score_names[SCORES] = {"rouge1", "rouge2",      "rougeL",     "rougeLsum", "bleu",
                                                "chrf",   "exact_match", "json_valid", "json_keys"};
enum { FIRST_OF_JSON = 7 };

bool espl_text_scores_rate(const espl_config *config) {
    const char *best = espl_config_choice("eval", "best", config->eval_best);
    for (int i = 0; i < SCORES; i++)
        if (strcmp(best, score_names[i]) == 0)
            return true;
    return false;
}

espl_decoder_size espl_text_scores_size(const espl_config *config, int64_t longest) {
    int rows = GROUP * (int)config->generate_beams;
    const int64_t prompts = GROUP * longest < PASS ? GROUP * longest : PASS;
    if (config->data_task == ESPL_TASK_SEQ2SEQ)
        return (espl_decoder_size){
            .rows = rows, .capacity = 1 + config->generate_max_new_tokens, .tokens = rows, .source_tokens = GROUP * longest};
    return (espl_decoder_size){
        .rows = rows, .capacity = longest + config->generate_max_new_tokens, .tokens = prompts > rows ? prompts : rows};
}

/* A text that was generated; in a buffer the bytes follow it, without alignment. */
typedef struct written {
    int64_t document, size;
} written;

/* ---- Generating this rank's share. */

typedef struct maker {
    const espl_text_scores_use *use;
    espl_generate_options options;
    espl_buffer out; /* written, bytes, written, bytes ... */
} maker;

/* What is asked is a decoder's begin, or a source beside one. */
static espl_prompt prompt_of(const espl_text_scores_use *u, const espl_asked_text *text) {
    const int32_t *ids = u->asked->ids + text->begin;
    if (u->model->head->head == ESPL_HEAD_SEQ2SEQ)
        return (espl_prompt){.ids = &u->model->dims.start, .n = 1, .source = ids, .n_source = text->n};
    return (espl_prompt){.ids = ids, .n = text->n};
}

static espl_status keep_text(maker *m, int64_t number, const espl_generated *g) {
    espl_buffer text = {0};
    ESPL_TRY(espl_tokenizer_decode(m->use->tokenizer, g->ids, g->n, true, &text));
    written head = {number, (int64_t)text.size};
    espl_buffer_append(&m->out, &head, sizeof head);
    espl_buffer_append(&m->out, text.data, text.size);
    espl_buffer_free(&text);
    return ESPL_OK;
}

static espl_status make_group(maker *m, int64_t first, int n) {
    const espl_text_scores_use *u = m->use;
    espl_prompt prompts[GROUP];
    espl_generated results[GROUP] = {{0}};
    espl_status status = ESPL_OK;
    for (int i = 0; i < n; i++)
        prompts[i] = prompt_of(u, &u->asked->texts[first + i]);
    for (int row = 0; row < GROUP * m->options.beams; row++)
        espl_decoder_clear(u->decoder, row);
    ESPL_TRY_DONE(espl_generate(u->decoder, &m->options, n, prompts, u->model->dims.vocab, NULL, NULL, results));
    for (int i = 0; i < n; i++)
        ESPL_TRY_DONE(keep_text(m, u->asked->texts[first + i].document, &results[i]));
done:
    for (int i = 0; i < n; i++)
        free(results[i].ids);
    return status;
}

static espl_status make_texts(maker *m) {
    espl_comm *comm = m->use->comm;
    const espl_ranks *ranks = espl_comm_ranks(comm);
    const int64_t n = m->use->asked->n;
    for (int64_t first = ranks->rank * GROUP; first < n; first += ranks->size * GROUP) {
        espl_comm_beat(comm, m->use->step, "generating");
        ESPL_TRY(make_group(m, first, (int)(n - first < GROUP ? n - first : GROUP)));
    }
    return ESPL_OK;
}

/* ---- All ranks' texts on rank 0. */

static espl_status gather(espl_comm *comm, const espl_buffer *mine, espl_buffer *all) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    enum { TAG = 77 };
    const int64_t size = (int64_t)mine->size;
    int64_t *sizes = espl_calloc((size_t)ranks->size, sizeof *sizes);
    espl_status status = espl_comm_allgather(comm, &size, sizeof size, sizes);
    if (status == ESPL_OK && ranks->rank > 0 && size > 0)
        status = espl_comm_send(comm, mine->data, mine->size, 0, TAG);
    if (ranks->rank == 0)
        espl_buffer_append(all, mine->data, mine->size);
    for (int r = 1; r < ranks->size && ranks->rank == 0 && status == ESPL_OK; r++) {
        espl_buffer_reserve(all, (size_t)sizes[r]);
        if (sizes[r] > 0)
            status = espl_comm_recv(comm, all->data + all->size, (size_t)sizes[r], r, TAG);
        all->size += (size_t)sizes[r];
    }
    free(sizes);
    return status;
}

/* ---- Scoring, on rank 0. */

typedef struct prediction {
    int64_t document;
    char *text;
} prediction;

typedef struct scorer {
    const espl_asked *asked;
    prediction *predictions; /* by document */
    int64_t n, next;
    bool stem;
    double rouge[4];
    espl_bleu bleu;
    espl_chrf chrf;
    int64_t exact, json_references, json_valid, json_keys;
    json_t *samples;
    espl_buffer lines;
} scorer;

static int by_document(const void *a, const void *b) {
    int64_t x = ((const prediction *)a)->document, y = ((const prediction *)b)->document;
    return (x > y) - (x < y);
}

static void split_texts(const espl_buffer *all, int64_t n, scorer *s) {
    s->predictions = espl_calloc((size_t)n + 1, sizeof *s->predictions);
    for (size_t at = 0; at < all->size; s->n++) {
        written head;
        memcpy(&head, all->data + at, sizeof head);
        at += sizeof head;
        s->predictions[s->n] = (prediction){head.document, espl_format("%.*s", (int)head.size, all->data + at)};
        at += (size_t)head.size;
    }
    qsort(s->predictions, (size_t)s->n, sizeof *s->predictions, by_document);
}

static bool has_keys_of(const json_t *text, const json_t *reference) {
    const char *key;
    const json_t *value;
    bool all = json_is_object(text) && json_is_object(reference) && json_object_size(text) == json_object_size(reference);
    json_object_foreach((json_t *)(uintptr_t)reference, key, value) all = all && json_object_get(text, key) != NULL;
    return all;
}

/* JSON of the form that stands alone: an object or an array. */
static void add_json_scores(scorer *s, const char *reference, const char *text) {
    json_error_t error;
    json_t *wanted = json_loads(reference, 0, &error), *found = json_loads(text, 0, &error);
    s->json_references += wanted != NULL;
    s->json_valid += found != NULL;
    s->json_keys += has_keys_of(found, wanted);
    json_decref(wanted);
    json_decref(found);
}

static void add_scores(scorer *s, const char *input, const char *reference) {
    const char *text = s->predictions[s->next].text;
    espl_rouge r = espl_rouge_score(reference, text, s->stem);
    const double f1[4] = {r.one.f1, r.two.f1, r.longest.f1, r.longest_of_lines.f1};
    for (int i = 0; i < 4; i++)
        s->rouge[i] += f1[i];
    espl_bleu_add(&s->bleu, reference, text);
    espl_chrf_add(&s->chrf, reference, text);
    s->exact += strcmp(reference, text) == 0;
    add_json_scores(s, reference, text);
    json_t *line =
        json_pack("{s:I, s:s, s:s, s:s, s:f, s:f, s:f, s:f}", "document", (json_int_t)s->predictions[s->next].document, "input", input,
                  "reference", reference, "prediction", text, "rouge1", f1[0], "rouge2", f1[1], "rougeL", f1[2], "rougeLsum", f1[3]);
    char *dumped = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17));
    espl_buffer_printf(&s->lines, "%s\n", dumped);
    if (json_array_size(s->samples) < SAMPLES)
        json_array_append(s->samples, line);
    free(dumped);
    json_decref(line);
    s->next++;
}

static void score_document(void *context, int64_t number, const espl_document *document) {
    scorer *s = context;
    if (s->next >= s->n || s->predictions[s->next].document != number)
        return;
    char *input, *reference;
    espl_asked_describe(s->asked, document, &input, &reference);
    add_scores(s, input, reference);
    free(input);
    free(reference);
}

/* NAN: a score that is not told. */
static void find_scores(const scorer *s, const espl_config *config, double scores[SCORES]) {
    const bool asked_for = strncmp(espl_config_choice("eval", "best", config->eval_best), "json_", 5) == 0;
    const bool json = asked_for || s->json_references == s->next;
    double n = s->next > 0 ? (double)s->next : 1.0;
    for (int i = 0; i < 4; i++)
        scores[i] = s->rouge[i] / n;
    scores[4] = espl_bleu_score(&s->bleu);
    scores[5] = espl_chrf_score(&s->chrf);
    scores[6] = (double)s->exact / n;
    scores[FIRST_OF_JSON] = json ? (double)s->json_valid / n : (double)NAN;
    scores[FIRST_OF_JSON + 1] = json ? (double)s->json_keys / n : (double)NAN;
}

static espl_status write_lines(const scorer *s, const char *folder) {
    char *path = espl_format("%s/predictions.jsonl", folder);
    espl_status status = espl_fs_make_folders(folder);
    if (status == ESPL_OK)
        status = espl_fs_write_file(path, s->lines.data != NULL ? s->lines.data : "", s->lines.size);
    free(path);
    return status;
}

static espl_status score(const espl_buffer *all, const espl_asked *asked, const espl_outcome_about *about, const char *folder,
                         espl_outcome *outcome, double scores[SCORES]) {
    scorer s = {.asked = asked, .stem = about->config->eval_stemmer, .samples = json_array()};
    espl_status status = ESPL_OK;
    split_texts(all, asked->n, &s);
    ESPL_TRY_DONE(espl_texts_read(about->config, about->paths, about->labels, score_document, &s));
    if (s.next < s.n)
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: %lld of %lld texts are not there to compare with; token stores hold none",
                       about->paths->items[0], (long long)(s.n - s.next), (long long)s.n);
    find_scores(&s, about->config, scores);
    json_object_set(outcome->report, "samples", s.samples);
    if (folder != NULL)
        ESPL_TRY_DONE(write_lines(&s, folder));
done:
    for (int64_t i = 0; i < s.n; i++)
        free(s.predictions[i].text);
    free(s.predictions);
    json_decref(s.samples);
    espl_buffer_free(&s.lines);
    return status;
}

/* Rank 0's scores become those of all. */
static espl_status share_scores(espl_comm *comm, double scores[SCORES], espl_outcome *outcome) {
    json_t *report = json_object_get(outcome->report, "scores");
    ESPL_TRY(espl_comm_bcast(comm, scores, SCORES * sizeof *scores, 0));
    for (int i = 0; i < SCORES; i++)
        if (!isnan(scores[i]))
            json_object_set_new(report, score_names[i], json_real(scores[i]));
    return ESPL_OK;
}

espl_status espl_text_scores_add(const espl_text_scores_use *use, const espl_outcome_about *about, const char *folder,
                                 espl_outcome *outcome) {
    const bool first = espl_comm_ranks(use->comm)->rank == 0;
    const double start = espl_now();
    double scores[SCORES] = {0};
    maker m = {.use = use, .options = espl_generate_options_of(about->config, &use->asked->ends)};
    espl_buffer all = {0};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_comm_agree(use->comm, make_texts(&m), "generating"));
    ESPL_TRY_DONE(espl_comm_agree(use->comm, gather(use->comm, &m.out, &all), "gathering the texts"));
    ESPL_TRY_DONE(espl_comm_agree(use->comm, first ? score(&all, use->asked, about, folder, outcome, scores) : ESPL_OK, "scoring texts"));
    ESPL_TRY_DONE(share_scores(use->comm, scores, outcome));
    outcome->result.seconds += espl_now() - start;
done:
    espl_buffer_free(&m.out);
    espl_buffer_free(&all);
    return status;
}
