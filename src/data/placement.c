#include "src/data/placement.h"

#include "src/core/buffer.h"
#include "src/core/rng.h"
#include "src/data/packing.h"
#include "src/data/pieces.h"
#include "src/data/visits.h"

#include <stdlib.h>
#include <string.h>

enum {
    CHUNK_PIECES = 4096, /* packed together: enough that few bins stay open, little enough to be packed again when asked for */
    KEY_BINS = 2         /* beside the keys of visits.c */
};

/* An epoch is cut into chunks of consecutive visits, each packed by itself: its plan is a few numbers a chunk. */
struct espl_placement {
    espl_placement_options options;
    int64_t n_sources;
    espl_source *sources;
    int64_t *first_document; /* [n_sources] of each source among the documents of all */
    espl_visits *visits;
    espl_packer *packer;

    int64_t epoch; /* planned; -1: none */
    espl_filling filling;
    int64_t n_chunks, chunk_capacity;
    int64_t *first_bin;   /* [n_chunks + 1] */
    espl_cursor *cursors; /* [n_chunks + 1, n_sources] where each chunk begins */

    int64_t chunk; /* packed; -1: none */
    int64_t n_pieces, piece_capacity;
    espl_piece *pieces;             /* as visited */
    int32_t *length, *second, *bin; /* [n_pieces] second: what the packer's second measure counts */
    int32_t *in_bin;                /* [n_pieces] pieces in order of their bin */
    int32_t *bin_begin;             /* [bins + 1] into in_bin */
    int32_t *bin_place;             /* [bins] which bin of the chunk stands at this place */
};

static bool range_has_target(const espl_source *source, int64_t begin, int64_t end) {
    if (source->mask == NULL)
        return end - begin > 1;
    for (int64_t t = begin + 1; t < end; t++)
        if (source->mask[t])
            return true;
    return false;
}

static bool has_special_only(const espl_source *source) {
    for (int64_t t = 0; t < source->n_tokens; t++)
        if (source->words[t] != ESPL_WORD_SPECIAL)
            return false;
    return true;
}

static bool has_target(const espl_source *source, const espl_placement_options *options) {
    if (options->task == ESPL_TASK_MLM)
        return !has_special_only(source);
    if (options->task != ESPL_TASK_LM)
        return source->n_documents > 0;
    if (options->windows)
        return range_has_target(source, 0, source->n_tokens);
    for (int64_t d = 0; d < source->n_documents; d++)
        if (range_has_target(source, source->documents[d], source->documents[d + 1]))
            return true;
    return false;
}

/* A store that was made for another task. */
static espl_status check_needs(const espl_source *source, const espl_placement_options *options) {
    int task = options->task;
    const char *lacks = task == ESPL_TASK_CLASSIFICATION && source->labels == NULL ? "labels"
                        : task == ESPL_TASK_SEQ2SEQ && source->split == NULL       ? "targets"
                        : task == ESPL_TASK_MLM && source->words == NULL           ? "begins of words"
                                                                                   : NULL;
    if (lacks != NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tokens without %s, expected data made with data.task: %s", source->name, lacks,
                  espl_config_choice("data", "task", task));
    for (int64_t d = 0; d < source->n_documents && task == ESPL_TASK_CLASSIFICATION; d++)
        if (source->labels[d] >= options->n_classes)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: document %lld has label %d, expected one below %lld", source->name, (long long)d,
                      source->labels[d], (long long)options->n_classes);
    return ESPL_OK;
}

/* Tokens of a document in the main stream; *encoder in the encoder's; prompts are none. */
static int64_t document_length(const espl_source *source, int task, int64_t document, int64_t *encoder) {
    int64_t n = source->documents[document + 1] - source->documents[document];
    *encoder = task == ESPL_TASK_SEQ2SEQ ? source->split[document] : 0;
    return n - *encoder;
}

static espl_status check_whole(const espl_source *source, const espl_placement_options *options) {
    const espl_room *room = &options->room;
    for (int64_t d = 0; d < source->n_documents; d++) {
        int64_t encoder, length = document_length(source, options->task, d, &encoder) + options->prompt;
        encoder += options->source_prompt;
        if (length > room->tokens || encoder > room->source_tokens)
            ESPL_FAIL(ESPL_ERR_DATA,
                      "%s: document %lld has %lld tokens%s, more than a micro-batch's %lld; lower data.sequence_length and "
                      "data.target_length, or raise train.micro_batch_tokens",
                      source->name, (long long)d, (long long)(length > room->tokens ? length : encoder),
                      room->source_tokens == 0 ? ""
                      : length > room->tokens  ? " in its target"
                                               : " in its source",
                      (long long)(length > room->tokens ? room->tokens : room->source_tokens));
    }
    return ESPL_OK;
}

static bool takes_whole(const espl_placement_options *options) {
    return options->task == ESPL_TASK_CLASSIFICATION || options->task == ESPL_TASK_SEQ2SEQ;
}

static espl_status check_sources(const espl_source *sources, int64_t n_sources, const espl_placement_options *options) {
    bool some = false;
    for (int64_t s = 0; s < n_sources; s++) {
        ESPL_TRY(check_needs(&sources[s], options));
        if (takes_whole(options))
            ESPL_TRY(check_whole(&sources[s], options));
        some = some || has_target(&sources[s], options);
    }
    if (!some)
        ESPL_FAIL(ESPL_ERR_DATA, "%s%s: no token to learn from; expected a document of two tokens or more whose mask leaves one",
                  n_sources > 0 ? sources[0].name : "the data", n_sources > 1 ? " and the other sources" : "");
    return ESPL_OK;
}

static int64_t *count_documents(const espl_source *sources, int64_t n_sources) {
    int64_t *first = espl_calloc((size_t)n_sources + 1, sizeof *first);
    for (int64_t s = 0; s < n_sources; s++)
        first[s + 1] = first[s] + sources[s].n_documents;
    return first;
}

/* What limits a micro-batch of whole documents beside its tokens, 0: nothing. */
static int64_t second_budget(const espl_placement_options *options) {
    const espl_room *room = &options->room;
    return room->source_tokens > 0 ? room->source_tokens : takes_whole(options) && room->sequences < room->tokens ? room->sequences : 0;
}

espl_status espl_placement_make(const espl_source *sources, int64_t n_sources, const espl_placement_options *options,
                                espl_placement **placement) {
    ESPL_ASSERT(options->length > 0 && options->length + options->prompt <= options->room.tokens,
                "pieces of %lld tokens in a micro-batch of %lld", (long long)options->length, (long long)options->room.tokens);
    ESPL_ASSERT(!takes_whole(options) || !options->windows, "windows of texts that are taken as a whole");
    ESPL_TRY(check_sources(sources, n_sources, options));
    espl_placement *p = espl_calloc(1, sizeof *p);
    p->options = *options;
    p->n_sources = n_sources;
    p->sources = espl_malloc((size_t)n_sources * sizeof *sources);
    memcpy(p->sources, sources, (size_t)n_sources * sizeof *sources);
    p->first_document = count_documents(sources, n_sources);
    p->visits = espl__visits_make(p->sources, n_sources, options);
    p->packer = espl__packer_make(options->room.tokens, second_budget(options));
    espl__packer_limit(p->packer, takes_whole(options) ? 0 : options->room.sequences);
    p->epoch = p->chunk = -1;
    *placement = p;
    return ESPL_OK;
}

void espl_placement_free(espl_placement **placement) {
    espl_placement *p = *placement;
    if (p == NULL)
        return;
    espl__visits_free(&p->visits);
    espl__packer_free(&p->packer);
    void *owned[] = {p->sources, p->first_document, p->first_bin, p->cursors,  p->pieces, p->length, p->second,
                     p->bin,     p->in_bin,         p->bin_begin, p->bin_place};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++)
        free(owned[i]);
    free(p);
    *placement = NULL;
}

static void reserve_pieces(espl_placement *p) {
    if (p->n_pieces < p->piece_capacity)
        return;
    p->piece_capacity = p->piece_capacity > 0 ? 2 * p->piece_capacity : 2 * CHUNK_PIECES;
    size_t n = (size_t)p->piece_capacity;
    p->pieces = espl_realloc(p->pieces, n * sizeof *p->pieces);
    p->length = espl_realloc(p->length, n * sizeof *p->length);
    p->second = espl_realloc(p->second, n * sizeof *p->second);
    p->bin = espl_realloc(p->bin, n * sizeof *p->bin);
    p->in_bin = espl_realloc(p->in_bin, n * sizeof *p->in_bin);
    p->bin_begin = espl_realloc(p->bin_begin, (n + 1) * sizeof *p->bin_begin);
    p->bin_place = espl_realloc(p->bin_place, n * sizeof *p->bin_place);
}

static void add_piece(espl_placement *p, const espl_visit *visit, int64_t begin, int64_t length, int64_t encoder) {
    reserve_pieces(p);
    p->length[p->n_pieces] = (int32_t)(length + p->options.prompt);
    p->second[p->n_pieces] = p->options.room.source_tokens > 0 ? (int32_t)(encoder + p->options.source_prompt) : 1;
    p->pieces[p->n_pieces++] = (espl_piece){.begin = begin,
                                            .limit = visit->limit,
                                            .document = visit->document,
                                            .length = (int32_t)length,
                                            .encoder = (int32_t)encoder,
                                            .source = visit->source,
                                            .pass = visit->pass};
}

static void add_pieces(espl_placement *p, const espl_visit *visit) {
    if (takes_whole(&p->options)) {
        int64_t encoder, length = document_length(&p->sources[visit->source], p->options.task, visit->document, &encoder);
        add_piece(p, visit, visit->begin, length, encoder);
        return;
    }
    for (int64_t begin = visit->begin; begin < visit->end; begin += p->options.length) {
        int64_t left = visit->end - begin;
        add_piece(p, visit, begin, left < p->options.length ? left : p->options.length, 0);
    }
}

/* Visits a chunk, moving the cursors to its end, and packs it; returns its bins. */
static int64_t pack_chunk(espl_placement *p, espl_cursor *cursors) {
    espl_visit visit;
    p->n_pieces = 0;
    while (p->n_pieces < CHUNK_PIECES && espl__visits_next(p->visits, cursors, &visit))
        add_pieces(p, &visit);
    if (p->n_pieces == 0)
        return 0;
    return p->options.shuffle ? espl__pack_best_fit(p->packer, p->length, p->second, p->n_pieces, p->bin)
                              : espl__pack_next_fit(p->packer, p->length, p->second, p->n_pieces, p->bin);
}

static void reserve_chunk(espl_placement *p) {
    if (p->n_chunks + 1 < p->chunk_capacity)
        return;
    p->chunk_capacity = p->chunk_capacity > 0 ? 2 * p->chunk_capacity : 64;
    p->first_bin = espl_realloc(p->first_bin, (size_t)p->chunk_capacity * sizeof *p->first_bin);
    p->cursors = espl_realloc(p->cursors, (size_t)(p->chunk_capacity * p->n_sources) * sizeof *p->cursors);
}

static void count_chunk(espl_placement *p, int64_t n_bins) {
    p->filling.micro_batches += n_bins;
    p->filling.sequences += p->n_pieces;
    for (int64_t i = 0; i < p->n_pieces; i++) {
        p->filling.tokens += p->length[i];
        p->filling.source_tokens += p->pieces[i].encoder + p->options.source_prompt;
    }
}

static void plan_epoch(espl_placement *p, int64_t epoch) {
    if (!p->options.shuffle)
        epoch = 0;
    if (p->epoch == epoch)
        return;
    p->n_chunks = 0;
    p->chunk = -1;
    p->filling = (espl_filling){0};
    reserve_chunk(p);
    p->first_bin[0] = 0;
    espl__visits_begin(p->visits, epoch, p->cursors);
    for (;;) {
        espl_cursor *from = p->cursors + p->n_chunks * p->n_sources;
        memcpy(from + p->n_sources, from, (size_t)p->n_sources * sizeof *from);
        int64_t n_bins = pack_chunk(p, from + p->n_sources);
        if (n_bins == 0)
            break;
        count_chunk(p, n_bins);
        p->n_chunks++;
        reserve_chunk(p);
        p->first_bin[p->n_chunks] = p->first_bin[p->n_chunks - 1] + n_bins;
    }
    p->epoch = epoch;
}

/* Packing puts long pieces first; drawing the bins' places (Fisher and Yates) takes that order away again. */
static void place_bins(espl_placement *p, int64_t chunk, int64_t n_bins) {
    espl_rng_key key = {
        .seed = p->options.seed, .purpose = ESPL_RNG_ORDER, .step = (uint32_t)p->epoch, .micro = KEY_BINS, .op = (uint32_t)chunk};
    for (int64_t i = 0; i < n_bins; i++) {
        int64_t j = p->options.shuffle ? (int64_t)((uint64_t)espl_rng_u32(&key, (uint64_t)i) * (uint64_t)(i + 1) >> 32) : i;
        p->bin_place[i] = p->bin_place[j];
        p->bin_place[j] = (int32_t)i;
    }
}

static void load_chunk(espl_placement *p, int64_t chunk) {
    if (p->chunk == chunk)
        return;
    espl_cursor *cursors = espl_malloc((size_t)p->n_sources * sizeof *cursors);
    memcpy(cursors, p->cursors + chunk * p->n_sources, (size_t)p->n_sources * sizeof *cursors);
    int64_t n_bins = pack_chunk(p, cursors);
    free(cursors);
    memset(p->bin_begin, 0, (size_t)(n_bins + 1) * sizeof *p->bin_begin);
    for (int64_t i = 0; i < p->n_pieces; i++)
        p->bin_begin[p->bin[i]]++;
    for (int64_t b = 0, end = 0; b <= n_bins; b++)
        p->bin_begin[b] = (int32_t)(end += p->bin_begin[b]);
    for (int64_t i = p->n_pieces - 1; i >= 0; i--)
        p->in_bin[--p->bin_begin[p->bin[i]]] = (int32_t)i;
    place_bins(p, chunk, n_bins);
    p->chunk = chunk;
}

/* The pieces of micro-batch k: their numbers, and how many. */
static const int32_t *find_pieces(espl_placement *p, int64_t epoch, int64_t k, int32_t *n) {
    plan_epoch(p, epoch);
    *n = 0;
    if (k < 0 || k >= p->first_bin[p->n_chunks])
        return NULL;
    int64_t low = 0, high = p->n_chunks;
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        *(p->first_bin[middle] <= k ? &low : &high) = middle;
    }
    load_chunk(p, low);
    int32_t bin = p->bin_place[k - p->first_bin[low]];
    *n = p->bin_begin[bin + 1] - p->bin_begin[bin];
    return p->in_bin + p->bin_begin[bin];
}

int64_t espl_placement_count(espl_placement *placement, int64_t epoch) {
    plan_epoch(placement, epoch);
    return placement->first_bin[placement->n_chunks];
}

espl_filling espl_placement_filling(espl_placement *placement, int64_t epoch) {
    plan_epoch(placement, epoch);
    return placement->filling;
}

void espl_placement_fill(espl_placement *placement, int64_t epoch, int64_t k, espl_sample *sample) {
    int32_t n;
    const int32_t *members = find_pieces(placement, epoch, k, &n);
    sample->n = sample->n_targets = sample->source.n = 0;
    sample->n_segments = 0;
    sample->weight = 0;
    sample->segments[0] = 0;
    if (sample->source.segments != NULL)
        sample->source.segments[0] = 0;
    for (int32_t i = 0; i < n; i++) {
        const espl_piece *at = &placement->pieces[members[i]];
        espl__fill_piece(&placement->options, &placement->sources[at->source], at, placement->first_document[at->source], sample);
    }
}

int64_t espl_placement_targets(espl_placement *placement, int64_t epoch, int64_t k, double *weight) {
    int32_t n;
    const int32_t *members = find_pieces(placement, epoch, k, &n);
    int64_t targets = 0;
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        const espl_piece *at = &placement->pieces[members[i]];
        double more;
        targets += espl__piece_targets(&placement->options, &placement->sources[at->source], at, &more);
        sum += more;
    }
    if (weight != NULL)
        *weight = sum;
    return targets;
}
