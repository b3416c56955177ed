/* Unigram: of all ways to write a piece as tokens, the one whose scores (log probabilities) add up to most.
 *
 * Kudo, "Subword Regularization", ACL 2018, section 3.2; the best path (Viterbi) is found from left to right: best[i] is the best way to
 * write the first i bytes. A character that is no token costs 10 more than the worst token and is unknown; neighbouring unknown ones are
 * one. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double unknown_penalty = 10; /* sentencepiece's kUnkPenalty */

typedef struct unigram {
    const espl__vocab *vocab;
    espl__trie trie;
    double *scores; /* [n_ids] */
    double unknown_score;
    int32_t unk;
    int32_t byte_ids[256]; /* of <0xHH>, -1: none */
    bool byte_fallback;
} unigram;

typedef struct path { /* that ends at a byte */
    double score;
    int64_t begin; /* of its last token; -1: no path ends here */
    int32_t id;
} path;

typedef struct unigram_work {
    struct {
        path *at;
        size_t n, capacity;
    } best;
    espl__symbols backwards;
} unigram_work;

/* ---- from tokenizer.json ---- */

/* A score as the reference reads it: its shortest digits as a whole number, divided by a power of ten. That rounds twice where there are
 * more than 15 digits, and paths that tie in one reading do not in the other. */
static double as_read(double value) {
    enum { EXACT_POWERS = 22 }; /* of ten, in doubles */
    char text[40];
    int digits = 15;
    do
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
    while (digits++ < 17 && strtod(text, NULL) != value);
    char *exponent = strchr(text, 'e'), *point = strchr(text, '.');
    int places = (int)(exponent - point) - 1 - atoi(exponent + 1);
    if (places < 0 || places > EXACT_POWERS)
        return value;
    *exponent = '\0';
    memmove(point, point + 1, strlen(point));
    double power = 1;
    for (int i = 0; i < places; i++)
        power *= 10;
    return (double)strtoll(text, NULL, 10) / power;
}

static espl_status parse_scores(const espl__where *where, json_t *list, unigram *u) {
    size_t i;
    json_t *entry;
    double least = 0;
    u->scores = espl_malloc(json_array_size(list) * sizeof *u->scores);
    json_array_foreach(list, i, entry) {
        json_t *score = json_array_get(entry, 1);
        if (!json_is_number(score))
            ESPL_FAIL(ESPL_ERR_DATA, "%s: model Unigram: vocab[%zu] must be [token, score]", where->path, i);
        u->scores[i] = as_read(json_number_value(score));
        least = i == 0 || u->scores[i] < least ? u->scores[i] : least;
    }
    u->unknown_score = least - unknown_penalty;
    return ESPL_OK;
}

static espl_status parse(const espl__where *where, json_t *json, espl__vocab *vocab, void **model) {
    unigram *u = *model = espl_calloc(1, sizeof *u);
    int64_t unk;
    char text[8];
    u->vocab = vocab;
    ESPL_TRY(espl__vocab_list(where, json_object_get(json, "vocab"), vocab));
    ESPL_TRY(parse_scores(where, json_object_get(json, "vocab"), u));
    ESPL_TRY(espl__json_int(where, json, "unk_id", 0, vocab->n_ids - 1, &unk));
    ESPL_TRY(espl__json_bool(where, json, "byte_fallback", 0, &u->byte_fallback));
    u->unk = (int32_t)unk;
    espl__trie_make(vocab, &u->trie);
    for (int b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        u->byte_ids[b] = espl__vocab_id(vocab, text, 6);
    }
    return ESPL_OK;
}

static void free_model(void *model) {
    unigram *u = model;
    if (!u)
        return;
    espl__trie_free(&u->trie);
    free(u->scores);
    free(u);
}

/* ---- the best path ---- */

/* Of equal ones the first stays. */
static void offer(path *best, double score, int64_t begin, int32_t id) {
    if (best->begin < 0 || score > best->score)
        *best = (path){score, begin, id};
}

static void find_paths(const unigram *u, path *best, const char *piece, size_t n) {
    int size;
    best[0] = (path){.begin = 0};
    for (size_t i = 1; i <= n; i++)
        best[i].begin = -1;
    for (size_t begin = 0; begin < n; begin += (size_t)size) {
        espl__utf8_decode(piece + begin, &size);
        bool single = false;
        int32_t node = 0;
        for (size_t end = begin; end < n && (node = espl__trie_step(&u->trie, node, (unsigned char)piece[end])) >= 0; end++) {
            int32_t id = u->trie.ids.at[node];
            if (id < 0)
                continue;
            offer(&best[end + 1], u->scores[id] + best[begin].score, (int64_t)begin, id);
            single = single || end + 1 == begin + (size_t)size;
        }
        if (!single)
            offer(&best[begin + (size_t)size], u->unknown_score + best[begin].score, (int64_t)begin, u->unk);
    }
}

/* What stands for unknown text: the token that it happens to be, its bytes' tokens, if all exist, or the unknown token. */
static void push_unknown(const unigram *u, const char *text, size_t n, espl__symbols *out) {
    int32_t id = espl__vocab_id(u->vocab, text, n);
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++)
        bytes = u->byte_ids[(unsigned char)text[i]] >= 0;
    for (size_t i = 0; bytes && i < n; i++)
        ESPL__PUSH(out, (espl__symbol){u->byte_ids[(unsigned char)text[i]], (int32_t)n, i + 1 < n});
    if (!bytes)
        ESPL__PUSH(out, (espl__symbol){id >= 0 ? id : u->unk, (int32_t)n, false});
}

static void tokenize(const void *model, void *model_work, const char *piece, size_t n, espl__symbols *out) {
    const unigram *u = model;
    unigram_work *work = model_work;
    work->backwards.n = 0;
    ESPL__RESERVE(&work->best, n + 1);
    find_paths(u, work->best.at, piece, n);
    for (int64_t end = (int64_t)n; end > 0; end = work->best.at[end].begin)
        ESPL__PUSH(&work->backwards, (espl__symbol){work->best.at[end].id, (int32_t)(end - work->best.at[end].begin), false});
    const espl__symbol *symbols = work->backwards.at;
    for (size_t i = work->backwards.n; i > 0;) {
        size_t size = 0;
        if (symbols[i - 1].id != u->unk) {
            ESPL__PUSH(out, symbols[--i]);
            piece += symbols[i].size;
            continue;
        }
        for (; i > 0 && symbols[i - 1].id == u->unk; i--)
            size += (size_t)symbols[i - 1].size;
        push_unknown(u, piece, size, out);
        piece += size;
    }
}

static void *work_make(const void *model) {
    (void)model;
    return espl_calloc(1, sizeof(unigram_work));
}

static void work_free(void *model_work) {
    unigram_work *work = model_work;
    free(work->best.at);
    free(work->backwards.at);
    free(work);
}

const espl__model_kind espl__unigram_kind = {
    .type = "Unigram",
    .telling_key = "unk_id",
    .parse = parse,
    .free = free_model,
    .work_make = work_make,
    .work_free = work_free,
    .tokenize = tokenize,
};
