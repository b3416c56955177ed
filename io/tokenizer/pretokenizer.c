/* Pre-tokenizers: how a text is cut into the pieces that the model sees. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

typedef enum split_behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS, N_BEHAVIORS } split_behavior;
typedef enum prepend_scheme { ALWAYS, FIRST, NEVER, N_SCHEMES } prepend_scheme;

static const char *const behavior_names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
static const char *const scheme_names[] = {"always", "first", "never"};

/* GPT-2's words; see encoder.py of its release. */
static const char gpt2_words[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

typedef struct pretokenizer_kind {
    const char *type;
    espl_status (*parse)(const espl__where *where, json_t *json, espl__pretokenizer *row);
    espl_status (*apply)(const espl__pretokenizer *row, espl__scratch *scratch);
} pretokenizer_kind;

struct espl__pretokenizer {
    const pretokenizer_kind *kind;
    espl__pattern *pattern;
    split_behavior behavior;
    bool invert;
    char *mark; /* Metaspace: what stands for a space */
    size_t n_mark;
    prepend_scheme scheme;
    bool split;
    bool add_space, map_bytes; /* ByteLevel */
};

/* ---- splitting ---- */

static espl__piece part_of(const espl__scratch *scratch, const espl__piece *piece, size_t begin, size_t end) {
    espl__slice slice = espl__scratch_piece(scratch, piece);
    int64_t shift = slice.map && begin < slice.n ? slice.map[begin].begin : piece->shift + (int64_t)begin;
    return (espl__piece){piece->begin + begin, piece->begin + end, shift, -1};
}

/* Which neighbouring ranges become one piece: m joins the one before it. */
static bool joins(split_behavior behavior, bool match, bool previous_match, bool first) {
    switch (behavior) {
    case CONTIGUOUS: return !first && match == previous_match;
    case MERGED_WITH_PREVIOUS: return !first && match && !previous_match;
    default: return false;
    }
}

static void push_forward(split_behavior behavior, espl__scratch *scratch, const espl__piece *piece) {
    bool previous = false;
    for (size_t i = 0; i < scratch->matches.n; i++) {
        espl__match m = scratch->matches.at[i];
        if (joins(behavior, m.match, previous, i == 0))
            scratch->spare.at[scratch->spare.n - 1].end = piece->begin + m.end;
        else if (behavior != REMOVED || !m.match)
            ESPL__PUSH(&scratch->spare, part_of(scratch, piece, m.begin, m.end));
        previous = m.match;
    }
}

/* A match that is followed by no match begins the piece of what follows it; of several in a row, the last does. */
static void push_with_next(espl__scratch *scratch, const espl__piece *piece) {
    const espl__matches *matches = &scratch->matches;
    for (size_t i = 0; i < matches->n; i++) {
        size_t begin = matches->at[i].begin;
        bool joined = matches->at[i].match && i + 1 < matches->n && !matches->at[i + 1].match;
        i += joined;
        ESPL__PUSH(&scratch->spare, part_of(scratch, piece, begin, matches->at[i].end));
    }
}

static void drop_empty(espl__pieces *pieces, size_t from) {
    size_t kept = from;
    for (size_t i = from; i < pieces->n; i++)
        if (pieces->at[i].begin < pieces->at[i].end)
            pieces->at[kept++] = pieces->at[i];
    pieces->n = kept;
}

static espl_status split_piece(const espl__pattern *pattern, split_behavior behavior, bool invert, espl__scratch *scratch,
                               const espl__piece *piece) {
    size_t before = scratch->spare.n;
    ESPL_TRY(espl__pattern_find(pattern, scratch, scratch->text.data + piece->begin, piece->end - piece->begin, &scratch->matches));
    for (size_t i = 0; invert && i < scratch->matches.n; i++)
        scratch->matches.at[i].match = !scratch->matches.at[i].match;
    if (behavior == MERGED_WITH_NEXT)
        push_with_next(scratch, piece);
    else
        push_forward(behavior, scratch, piece);
    drop_empty(&scratch->spare, before);
    return ESPL_OK;
}

static void swap_pieces(espl__scratch *scratch) {
    espl__pieces pieces = scratch->pieces;
    scratch->pieces = scratch->spare;
    scratch->spare = pieces;
    scratch->spare.n = 0;
}

static espl_status split_all(const espl__pretokenizer *row, espl__scratch *scratch) {
    for (size_t i = 0; i < scratch->pieces.n; i++) {
        espl__piece piece = scratch->pieces.at[i];
        if (piece.id >= 0)
            ESPL__PUSH(&scratch->spare, piece);
        else
            ESPL_TRY(split_piece(row->pattern, row->behavior, row->invert, scratch, &piece));
    }
    swap_pieces(scratch);
    return ESPL_OK;
}

/* ---- rewriting ---- */

/* Writes each piece anew through `write`; pieces of added tokens are copied. */
static espl_status rewrite(const espl__pretokenizer *row, espl__scratch *scratch,
                           espl_status (*write)(const espl__pretokenizer *row, espl__scratch *scratch, espl__slice in, espl__text *out)) {
    espl__text *out = espl__scratch_next(scratch);
    for (size_t i = 0; i < scratch->pieces.n; i++) {
        espl__piece *piece = &scratch->pieces.at[i];
        espl__slice in = espl__scratch_piece(scratch, piece);
        size_t begin = out->n;
        if (piece->id >= 0)
            espl__text_append(out, in);
        else
            ESPL_TRY(write(row, scratch, in, out));
        piece->begin = begin;
        piece->end = out->n;
    }
    espl__scratch_turn(scratch);
    return ESPL_OK;
}

static espl_status write_space(const espl__pretokenizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)row, (void)scratch;
    if (in.data[0] != ' ')
        espl__text_fill(out, " ", 1, espl__slice_span(&in, 0));
    espl__text_append(out, in);
    return ESPL_OK;
}

static espl_status write_byte_level(const espl__pretokenizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)row, (void)scratch;
    espl__text_byte_level(out, in);
    return ESPL_OK;
}

static espl_status apply_byte_level(const espl__pretokenizer *row, espl__scratch *scratch) {
    if (row->add_space)
        ESPL_TRY(rewrite(row, scratch, write_space));
    if (row->pattern)
        ESPL_TRY(split_all(row, scratch));
    if (row->map_bytes)
        ESPL_TRY(rewrite(row, scratch, write_byte_level));
    return ESPL_OK;
}

/* Spaces become marks; a mark is put in front where the text does not begin with one. */
static espl_status write_metaspace(const espl__pretokenizer *row, espl__scratch *scratch, espl__slice in, espl__text *out) {
    (void)scratch;
    bool marked = in.data[0] == ' ' || (in.n >= row->n_mark && memcmp(in.data, row->mark, row->n_mark) == 0);
    if (!marked && (row->scheme == ALWAYS || (row->scheme == FIRST && in.shift == 0)))
        espl__text_fill(out, row->mark, row->n_mark, espl__slice_span(&in, 0));
    for (size_t i = 0; i < in.n;) {
        const char *space = memchr(in.data + i, ' ', in.n - i);
        size_t end = space ? (size_t)(space - in.data) : in.n;
        espl__text_append(out, espl__slice_part(in, i, end));
        if (space)
            espl__text_fill(out, row->mark, row->n_mark, espl__slice_span(&in, (ptrdiff_t)end));
        i = end + 1;
    }
    return ESPL_OK;
}

static espl_status apply_metaspace(const espl__pretokenizer *row, espl__scratch *scratch) {
    ESPL_TRY(rewrite(row, scratch, write_metaspace));
    return row->split ? split_all(row, scratch) : ESPL_OK;
}

/* ---- parsing ---- */

static espl_status parse_name(const espl__where *where, json_t *json, const char *key, const char *const *names, int n, int fallback,
                              int *value) {
    const char *name = json_string_value(json_object_get(json, key));
    *value = fallback;
    if (!json_object_get(json, key) && fallback >= 0)
        return ESPL_OK;
    for (int i = 0; i < n; i++)
        if (name && strcasecmp(name, names[i]) == 0) {
            *value = i;
            return ESPL_OK;
        }
    ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: '%s' must be one of %s, %s, %s...", where->path, where->section, where->type, key, names[0],
              names[1], names[2]);
}

static espl_status parse_behavior(const espl__where *where, json_t *json, int fallback, espl__pretokenizer *row) {
    int value;
    ESPL_TRY(parse_name(where, json, "behavior", behavior_names, N_BEHAVIORS, fallback, &value));
    row->behavior = (split_behavior)value;
    return ESPL_OK;
}

static espl_status parse_byte_level(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    bool use_regex;
    ESPL_TRY(espl__json_bool(where, json, "add_prefix_space", -1, &row->add_space));
    ESPL_TRY(espl__json_bool(where, json, "use_regex", 1, &use_regex));
    row->behavior = ISOLATED;
    row->map_bytes = true;
    return use_regex ? espl__pattern_regex(where, gpt2_words, sizeof gpt2_words - 1, &row->pattern) : ESPL_OK;
}

static espl_status parse_split(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    ESPL_TRY(parse_behavior(where, json, -1, row));
    ESPL_TRY(espl__json_bool(where, json, "invert", -1, &row->invert));
    return espl__pattern_parse(where, json, &row->pattern);
}

static espl_status parse_metaspace(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    const char *mark;
    int scheme, size = 0;
    bool add_prefix_space;
    ESPL_TRY(espl__json_string(where, json, "replacement", &mark, &row->n_mark));
    if (row->n_mark > 0)
        espl__utf8_decode(mark, &size);
    if (row->n_mark == 0 || (size_t)size != row->n_mark)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'replacement' must be one character", where->path, where->section, where->type);
    ESPL_TRY(parse_name(where, json, "prepend_scheme", scheme_names, N_SCHEMES, ALWAYS, &scheme));
    ESPL_TRY(espl__json_bool(where, json, "add_prefix_space", 1, &add_prefix_space));
    ESPL_TRY(espl__json_bool(where, json, "split", 1, &row->split));
    if (json_is_null(json_object_get(json, "split")))
        row->split = true;
    if (json_is_false(json_object_get(json, "add_prefix_space")))
        scheme = NEVER;
    row->scheme = (prepend_scheme)scheme;
    row->behavior = MERGED_WITH_NEXT;
    row->mark = memcpy(espl_malloc(row->n_mark), mark, row->n_mark);
    row->pattern = espl__pattern_literal(mark, row->n_mark);
    return ESPL_OK;
}

static espl_status parse_digits(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    bool individual;
    ESPL_TRY(espl__json_bool(where, json, "individual_digits", -1, &individual));
    row->behavior = individual ? ISOLATED : CONTIGUOUS;
    row->pattern = espl__pattern_class(espl__is_numeric);
    return ESPL_OK;
}

static espl_status parse_punctuation(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    row->pattern = espl__pattern_class(espl__is_punctuation);
    return parse_behavior(where, json, ISOLATED, row);
}

static espl_status parse_whitespace_split(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    (void)where, (void)json;
    row->behavior = REMOVED;
    row->pattern = espl__pattern_class(espl__is_space);
    return ESPL_OK;
}

static espl_status parse_whitespace(const espl__where *where, json_t *json, espl__pretokenizer *row) {
    (void)json;
    static const char words[] =
        "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]+|[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}\\s]+";
    row->behavior = REMOVED;
    row->invert = true;
    return espl__pattern_regex(where, words, sizeof words - 1, &row->pattern);
}

static const pretokenizer_kind bert_kind = {"BertPreTokenizer", NULL, split_all};

static const pretokenizer_kind kinds[] = {
    {"ByteLevel", parse_byte_level, apply_byte_level}, {"Split", parse_split, split_all},
    {"Metaspace", parse_metaspace, apply_metaspace},   {"Digits", parse_digits, split_all},
    {"Punctuation", parse_punctuation, split_all},     {"WhitespaceSplit", parse_whitespace_split, split_all},
    {"Whitespace", parse_whitespace, split_all},
};

/* White space goes, punctuation stands alone. */
static espl_status add_bert(const espl__where *where, json_t *json, espl__pretokenizers *list) {
    espl__pretokenizer words = {.kind = &bert_kind}, marks = {.kind = &bert_kind, .behavior = ISOLATED};
    ESPL_TRY(parse_whitespace_split(where, json, &words));
    marks.pattern = espl__pattern_class(espl__is_punctuation);
    ESPL__PUSH(list, words);
    ESPL__PUSH(list, marks);
    return ESPL_OK;
}

static espl_status add(const espl__where *where, json_t *json, void *context) {
    espl__pretokenizers *list = context;
    if (strcmp(where->type, bert_kind.type) == 0)
        return add_bert(where, json, list);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, where->type) != 0)
            continue;
        ESPL__PUSH(list, (espl__pretokenizer){.kind = &kinds[i]});
        return kinds[i].parse(where, json, &list->at[list->n - 1]);
    }
    ESPL_FAIL(ESPL_ERR_DATA, "%s: pre-tokenizer '%s' is not supported", where->path, where->type);
}

espl_status espl__pretokenizers_parse(const char *path, json_t *value, bool raw_bytes, espl__pretokenizers *list) {
    ESPL_TRY(espl__json_each(&(espl__where){path, "pre_tokenizer", ""}, value, "pretokenizers", add, list));
    ESPL_ASSERT(list->n == 0 || list->at != NULL, "%zu rows", list->n);
    espl__pretokenizer *last = list->n > 0 ? &list->at[list->n - 1] : NULL;
    list->raw_bytes = raw_bytes && last && last->map_bytes;
    if (list->raw_bytes)
        last->map_bytes = false;
    for (size_t i = 0; i < list->n; i++) {
        const espl__pretokenizer *row = &list->at[i];
        list->transforms = list->transforms || row->add_space || row->map_bytes || row->mark;
        list->needs_shift = list->needs_shift || (row->mark && row->scheme == FIRST);
    }
    return ESPL_OK;
}

void espl__pretokenizers_free(espl__pretokenizers *list) {
    for (size_t i = 0; i < list->n; i++) {
        espl__pattern_free(&list->at[i].pattern);
        free(list->at[i].mark);
    }
    free(list->at);
    *list = (espl__pretokenizers){0};
}

espl_status espl__pretokenizers_apply(const espl__pretokenizers *list, espl__scratch *scratch) {
    for (size_t i = 0; i < list->n; i++)
        ESPL_TRY(list->at[i].kind->apply(&list->at[i], scratch));
    return ESPL_OK;
}
