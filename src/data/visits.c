#include "src/data/visits.h"

#include "src/core/buffer.h"
#include "src/data/permutation.h"

#include <math.h>
#include <stdlib.h>

enum { KEY_UNITS, KEY_SHIFT }; /* what a number of the order stream is for */

/* One source, and the pass over it whose order is at hand. */
typedef struct stream {
    espl_source source;
    int64_t quota;
    int64_t pass, n_units, shift; /* pass -1: none at hand */
    espl_permutation order;
} stream;

struct espl_visits {
    espl_placement_options options;
    int64_t n_streams;
    stream *streams;
};

static espl_rng_key order_key(const espl_visits *visits, int64_t s, int64_t pass, uint32_t what) {
    return (espl_rng_key){
        .seed = visits->options.seed, .purpose = ESPL_RNG_ORDER, .step = (uint32_t)pass, .micro = what, .op = (uint32_t)s};
}

/* Quotas keep the sum of tokens: an epoch is as long as all sources together, whatever the weights. */
static void plan_quotas(espl_visits *visits) {
    double total = 0, weights = 0;
    bool by_size = !visits->options.shuffle;
    for (int64_t s = 0; s < visits->n_streams; s++)
        total += (double)visits->streams[s].source.n_tokens;
    for (int64_t s = 0; s < visits->n_streams; s++) {
        stream *at = &visits->streams[s];
        by_size = by_size || at->source.weight <= 0;
        weights += at->source.n_tokens > 0 ? at->source.weight : 0;
    }
    for (int64_t s = 0; s < visits->n_streams; s++) {
        stream *at = &visits->streams[s];
        at->quota = at->source.n_tokens;
        if (!by_size && at->source.n_tokens > 0)
            at->quota = (int64_t)fmax(1, round(total * (at->source.weight / weights)));
    }
}

/* Of the documents that are used. */
static int64_t count_tokens(const espl_source *source) {
    int64_t n = 0;
    if (source->chosen == NULL)
        return source->n_tokens;
    for (int64_t i = 0; i < source->n_chosen; i++)
        n += source->documents[source->chosen[i] + 1] - source->documents[source->chosen[i]];
    return n;
}

espl_visits *espl__visits_make(const espl_source *sources, int64_t n_sources, const espl_placement_options *options) {
    espl_visits *visits = espl_calloc(1, sizeof *visits);
    visits->options = *options;
    visits->n_streams = n_sources;
    visits->streams = espl_calloc((size_t)n_sources, sizeof *visits->streams);
    for (int64_t s = 0; s < n_sources; s++) {
        visits->streams[s].source = sources[s];
        visits->streams[s].source.n_tokens = count_tokens(&sources[s]);
        visits->streams[s].pass = -1;
    }
    plan_quotas(visits);
    return visits;
}

void espl__visits_free(espl_visits **visits) {
    if (*visits == NULL)
        return;
    for (int64_t s = 0; s < (*visits)->n_streams; s++)
        espl__permutation_free(&(*visits)->streams[s].order);
    free((*visits)->streams);
    free(*visits);
    *visits = NULL;
}

/* Windows begin at a shift below the length that differs in each pass; what lies before it is a short window of its own. */
static void plan_windows(const espl_visits *visits, int64_t s, int64_t pass) {
    stream *at = &visits->streams[s];
    int64_t length = visits->options.length, n = at->source.n_tokens;
    at->shift = 0;
    if (visits->options.shuffle) {
        espl_rng_key key = order_key(visits, s, pass, KEY_SHIFT);
        int64_t below = length < n ? length : n;
        at->shift = (int64_t)((uint64_t)espl_rng_u32(&key, 0) * (uint64_t)below >> 32);
    }
    at->n_units = (at->shift > 0) + (n - at->shift + length - 1) / length;
}

static void load_pass(espl_visits *visits, int64_t s, int64_t pass) {
    stream *at = &visits->streams[s];
    if (at->pass == pass)
        return;
    at->n_units = at->source.chosen != NULL ? at->source.n_chosen : at->source.n_documents;
    if (visits->options.windows)
        plan_windows(visits, s, pass);
    if (visits->options.shuffle) {
        espl_rng_key key = order_key(visits, s, pass, KEY_UNITS);
        espl__permutation_make(&key, at->n_units, &at->order);
    }
    at->pass = pass;
}

static espl_visit unit_at(const espl_visits *visits, int64_t s, int64_t index) {
    const stream *at = &visits->streams[s];
    int64_t unit = visits->options.shuffle ? espl__permutation_at(&at->order, index) : index;
    espl_visit visit = {.source = (int32_t)s, .pass = (int32_t)at->pass, .document = -1};
    if (visits->options.windows) {
        int64_t begin = at->shift + (unit - (at->shift > 0)) * visits->options.length, end = begin + visits->options.length;
        visit.limit = at->source.n_tokens;
        visit.begin = begin < 0 ? 0 : begin;
        visit.end = end < visit.limit ? end : visit.limit;
    } else {
        visit.document = at->source.chosen != NULL ? at->source.chosen[unit] : unit;
        visit.begin = at->source.documents[visit.document];
        visit.limit = visit.end = at->source.documents[visit.document + 1];
    }
    return visit;
}

static espl_visit take_unit(espl_visits *visits, int64_t s, espl_cursor *cursor) {
    load_pass(visits, s, cursor->pass);
    espl_visit visit = unit_at(visits, s, cursor->index);
    cursor->offset += visit.end - visit.begin;
    cursor->index++;
    if (cursor->index == visits->streams[s].n_units) {
        cursor->pass++;
        cursor->index = 0;
    }
    return visit;
}

void espl__visits_begin(espl_visits *visits, int64_t epoch, espl_cursor *cursors) {
    for (int64_t s = 0; s < visits->n_streams; s++) {
        const stream *at = &visits->streams[s];
        int64_t tokens = at->source.n_tokens;
        cursors[s] = (espl_cursor){0};
        if (tokens == 0 || !visits->options.shuffle)
            continue;
        __int128 begin = (__int128)epoch * at->quota;
        cursors[s].pass = (int64_t)(begin / tokens);
        cursors[s].offset = -(int64_t)(begin % tokens);
        while (cursors[s].offset < 0)
            take_unit(visits, s, &cursors[s]);
    }
}

/* The source that is the least far through its quota, -1 at the end; unshuffled, the first that has something left. */
static int64_t least_advanced(const espl_visits *visits, const espl_cursor *cursors) {
    int64_t best = -1;
    for (int64_t s = 0; s < visits->n_streams; s++) {
        if (cursors[s].offset >= visits->streams[s].quota)
            continue;
        if (best < 0 || (visits->options.shuffle && (__int128)cursors[s].offset * visits->streams[best].quota <
                                                        (__int128)cursors[best].offset * visits->streams[s].quota))
            best = s;
    }
    return best;
}

bool espl__visits_next(espl_visits *visits, espl_cursor *cursors, espl_visit *visit) {
    for (int64_t s = least_advanced(visits, cursors); s >= 0; s = least_advanced(visits, cursors)) {
        *visit = take_unit(visits, s, &cursors[s]);
        if (visit->end > visit->begin)
            return true;
    }
    return false;
}
