#include "src/eval/beam.h"

#include "src/core/buffer.h"
#include "src/core/status.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float nothing = -1e9f; /* the score of what must not be chosen; real scores are far above it */

/* A continuation of a running sequence by one token. */
typedef struct candidate {
    float score; /* summed log-probabilities */
    int beam;    /* of the item */
    int32_t token;
    bool ends;
} candidate;

/* A finished sequence, or an empty place for one. */
typedef struct hypothesis {
    float score; /* after the length penalty */
    bool finished;
    int64_t n;
    int32_t *ids; /* [max_new] */
} hypothesis;

struct espl_beam {
    espl_beam_options options;
    int keep;              /* continuations looked at an item */
    int64_t n;             /* tokens generated so far */
    int32_t *running;      /* [batch, beams, max_new] */
    int32_t *next;         /* the same, being filled */
    float *scores;         /* [batch, beams], best first */
    hypothesis *finished;  /* [batch, beams], best first */
    bool *can_improve;     /* [batch] */
    candidate *candidates; /* [keep] */
};

espl_beam *espl_beam_make(const espl_beam_options *options) {
    espl_beam *beam = espl_calloc(1, sizeof *beam);
    int keep = (options->n_eos > 1 ? 1 + options->n_eos : 2) * options->beams, rows = options->batch * options->beams;
    ESPL_ASSERT(options->vocab * options->beams >= keep, "a vocabulary of %lld with %d end tokens", (long long)options->vocab,
                options->n_eos);
    beam->options = *options;
    beam->keep = keep;
    beam->running = espl_calloc((size_t)rows, (size_t)options->max_new * sizeof *beam->running);
    beam->next = espl_calloc((size_t)rows, (size_t)options->max_new * sizeof *beam->next);
    beam->scores = espl_calloc((size_t)rows, sizeof *beam->scores);
    beam->finished = espl_calloc((size_t)rows, sizeof *beam->finished);
    beam->can_improve = espl_calloc((size_t)options->batch, sizeof *beam->can_improve);
    beam->candidates = espl_calloc((size_t)keep, sizeof *beam->candidates);
    for (int row = 0; row < rows; row++) {
        beam->scores[row] = row % options->beams == 0 ? 0.0f : nothing; /* all rows hold the prompt: one of them counts */
        beam->finished[row] = (hypothesis){.score = nothing, .ids = espl_calloc((size_t)options->max_new, sizeof(int32_t))};
    }
    for (int item = 0; item < options->batch; item++)
        beam->can_improve[item] = true;
    return beam;
}

static bool is_end(const espl_beam *beam, int32_t token) {
    for (int i = 0; i < beam->options.n_eos; i++)
        if (beam->options.eos[i] == token)
            return true;
    return beam->n + 1 >= beam->options.max_new;
}

/* Puts a candidate into the list of the best, which is in order; the first of equals stays first. */
static int insert(candidate *best, int n, int keep, candidate new) {
    int at = n < keep ? n : keep - 1;
    for (; at > 0 && best[at - 1].score < new.score; at--)
        best[at] = best[at - 1];
    best[at] = new;
    return n < keep ? n + 1 : keep;
}

static void find_candidates(espl_beam *beam, int item, const float *log_probs) {
    const espl_beam_options *o = &beam->options;
    int n = 0;
    for (int b = 0; b < o->beams; b++) {
        const float *row = log_probs + ((int64_t)item * o->beams + (beam->n > 0 ? b : 0)) * o->vocab;
        float before = beam->scores[item * o->beams + b];
        for (int64_t v = 0; v < o->vocab; v++) {
            float score = row[v] + before;
            if (n < beam->keep || score > beam->candidates[n - 1].score)
                n = insert(beam->candidates, n, beam->keep, (candidate){.score = score, .beam = b, .token = (int32_t)v});
        }
    }
    for (int i = 0; i < n; i++)
        beam->candidates[i].ends = is_end(beam, beam->candidates[i].token);
}

static int32_t *running_ids(const espl_beam *beam, int row) { return beam->running + (int64_t)row * beam->options.max_new; }

/* The best that do not end go on, in their order; when all end, those that do fill up with a score of nothing. */
static void choose_running(espl_beam *beam, int item, int32_t *tokens, int32_t *source) {
    const espl_beam_options *o = &beam->options;
    int chosen = 0, first = item * o->beams;
    for (int ends = 0; ends <= 1; ends++)
        for (int i = 0; i < beam->keep && chosen < o->beams; i++) {
            const candidate *c = &beam->candidates[i];
            if (c->ends != (bool)ends)
                continue;
            int row = first + chosen++;
            int32_t *ids = beam->next + (int64_t)row * o->max_new;
            memcpy(ids, running_ids(beam, first + c->beam), (size_t)beam->n * sizeof *ids);
            ids[beam->n] = tokens[row] = c->token;
            source[row] = first + c->beam;
            beam->scores[row] = c->score + (ends ? nothing : 0.0f);
        }
}

/* Puts a sequence that ends in its place among the item's finished ones; an older one goes before an equal one. */
static void insert_finished(espl_beam *beam, int item, const candidate *c, float score) {
    hypothesis *list = beam->finished + item * beam->options.beams;
    int at = beam->options.beams - 1;
    if (score <= list[at].score)
        return;
    hypothesis place = list[at];
    for (; at > 0 && list[at - 1].score < score; at--)
        list[at] = list[at - 1];
    memcpy(place.ids, running_ids(beam, item * beam->options.beams + c->beam), (size_t)beam->n * sizeof *place.ids);
    place.ids[beam->n] = c->token;
    list[at] = (hypothesis){.score = score, .finished = true, .n = beam->n + 1, .ids = place.ids};
}

static bool all_finished(const espl_beam *beam, int item) {
    for (int b = 0; b < beam->options.beams; b++)
        if (!beam->finished[item * beam->options.beams + b].finished)
            return false;
    return true;
}

static float normalised(const espl_beam *beam, float score, int64_t length) {
    return score / (float)pow((double)length, beam->options.length_penalty);
}

/* Only the first `beams` candidates may end: the others are there to keep enough sequences running. */
static void collect_finished(espl_beam *beam, int item) {
    if (!beam->can_improve[item] || (beam->options.early == ESPL_BEAM_ALWAYS && all_finished(beam, item)))
        return;
    for (int i = 0; i < beam->options.beams; i++)
        if (beam->candidates[i].ends)
            insert_finished(beam, item, &beam->candidates[i], normalised(beam, beam->candidates[i].score, beam->n + 1));
}

/* Whether the best running sequence, at the length it is judged by, beats the worst finished one. beam->n is already the new length. */
static bool could_improve(const espl_beam *beam, int item) {
    const espl_beam_options *o = &beam->options;
    bool longest = o->early == ESPL_BEAM_NEVER && o->length_penalty > 0;
    float best = normalised(beam, beam->scores[item * o->beams], longest ? o->max_new : beam->n);
    float worst = all_finished(beam, item) ? beam->finished[(item + 1) * o->beams - 1].score : nothing;
    return best > worst;
}

static bool any_goes_on(const espl_beam *beam) {
    for (int i = 0; i < beam->keep; i++)
        if (!beam->candidates[i].ends)
            return true;
    return false;
}

static bool wants_more(const espl_beam *beam) {
    bool improvable = false, open = false;
    for (int item = 0; item < beam->options.batch; item++) {
        improvable |= beam->can_improve[item];
        open |= !all_finished(beam, item);
    }
    return improvable && (open || beam->options.early != ESPL_BEAM_ALWAYS);
}

bool espl_beam_step(espl_beam *beam, const float *log_probs, int32_t *tokens, int32_t *source) {
    bool goes_on = false;
    ESPL_ASSERT(beam->n < beam->options.max_new, "a step after %lld tokens", (long long)beam->n);
    for (int item = 0; item < beam->options.batch; item++) {
        find_candidates(beam, item, log_probs);
        goes_on |= any_goes_on(beam);
        choose_running(beam, item, tokens, source);
        collect_finished(beam, item);
    }
    int32_t *old = beam->running;
    beam->running = beam->next;
    beam->next = old;
    beam->n++;
    for (int item = 0; item < beam->options.batch; item++)
        beam->can_improve[item] = beam->can_improve[item] && could_improve(beam, item);
    return goes_on && wants_more(beam);
}

const int32_t *espl_beam_running(const espl_beam *beam, int row, int64_t *n) {
    *n = beam->n;
    return running_ids(beam, row);
}

const int32_t *espl_beam_result(const espl_beam *beam, int item, int rank, int64_t *n, float *score) {
    const hypothesis *found = rank < beam->options.beams ? &beam->finished[item * beam->options.beams + rank] : NULL;
    if (found == NULL || !found->finished)
        return NULL;
    *n = found->n;
    *score = found->score;
    return found->ids;
}

void espl_beam_free(espl_beam **beam) {
    if (*beam == NULL)
        return;
    for (int row = 0; row < (*beam)->options.batch * (*beam)->options.beams; row++)
        free((*beam)->finished[row].ids);
    free((*beam)->running);
    free((*beam)->next);
    free((*beam)->scores);
    free((*beam)->finished);
    free((*beam)->can_improve);
    free((*beam)->candidates);
    free(*beam);
    *beam = NULL;
}
