/* What the files of this folder share: text with its way back to the source, and the five tables of a tokenizer.
 *
 *   source ─► added tokens ─► normalizers ─► added tokens ─► pre-tokenizers ─► model ─► post-processor
 *
 * A text is bytes plus, where offsets are wanted, for each byte the span of the source it came from. Pieces are
 * ranges of the text; a piece either stands for one added token or still has to be split. Each stage is a list of
 * rows parsed from tokenizer.json (nested Sequences are flattened); a row is applied through its kind's function.
 * Everything an encode call writes lives in a scratch; a tokenizer keeps a pool of them, so encoding is thread-safe.
 * Local, all. */
#ifndef ESPL_IO_TOKENIZER_PARTS_H
#define ESPL_IO_TOKENIZER_PARTS_H

#include "io/tokenizer/tokenizer.h"

#include <jansson.h>
#include <stddef.h>

/* ---- text ---- */

typedef struct espl__span {
    int64_t begin, end; /* bytes of the source */
} espl__span;

typedef struct espl__slice { /* borrowed */
    const char *data;
    size_t n;
    const espl__span *map; /* [n], or NULL when the source is not tracked or is the text itself */
    int64_t shift;         /* where the slice begins in the source */
} espl__slice;

typedef struct espl__text { /* owned, growing */
    char *data;
    espl__span *map;
    size_t n, capacity;
    bool tracked; /* map is kept */
} espl__text;

typedef struct espl__piece {
    size_t begin, end; /* of the text */
    int64_t shift;     /* where it begins in the source */
    int32_t id;        /* the added token it stands for, or -1 */
} espl__piece;

typedef struct espl__pieces {
    espl__piece *at;
    size_t n, capacity;
} espl__pieces;

typedef struct espl__match {
    size_t begin, end;
    bool match; /* false: what lies between matches */
} espl__match;

typedef struct espl__matches {
    espl__match *at;
    size_t n, capacity;
} espl__matches;

typedef struct espl__symbol {
    int32_t id;
    int32_t size; /* bytes of the piece it covers */
    bool stays;   /* the next symbol covers the same bytes */
} espl__symbol;

typedef struct espl__symbols {
    espl__symbol *at;
    size_t n, capacity;
} espl__symbols;

/* Local. Room for `more` elements after n; grows by halves. */
#define ESPL__RESERVE(list, more)                                                                                                          \
    ((list)->capacity - (list)->n >= (size_t)(more)                                                                                        \
         ? (void)0                                                                                                                         \
         : (void)((list)->at = espl__grow((list)->at, sizeof *(list)->at, (list)->n + (size_t)(more), &(list)->capacity)))
#define ESPL__PUSH(list, ...) (ESPL__RESERVE(list, 1), (void)((list)->at[(list)->n++] = __VA_ARGS__))
void *espl__grow(void *at, size_t size, size_t needed, size_t *capacity);

/* Local. Bytes of the valid UTF-8 sequence at `s`, or minus the bytes that one U+FFFD replaces (Unicode 3.9, table 3-7, and the practice
 * of one replacement for each maximal ill-formed prefix). */
int espl__utf8_next(const char *s, size_t n);

/* Local. Code point at `s`, which is valid; its bytes in `size`. */
int32_t espl__utf8_decode(const char *s, int *size);

/* Local. Writes `code` as 1..4 bytes and returns how many. */
int espl__utf8_encode(int32_t code, char out[4]);

/* Local. The byte that a character of the byte-level alphabet (GPT-2, "bytes_to_unicode") stands for, or -1. */
int espl__byte_of(int32_t code);

/* Local. The byte-level character of `byte`, 1 or 2 bytes into `out`; returns how many. */
int espl__byte_char(unsigned char byte, char out[4]);

/* Local. Is `code` white space (Unicode property White_Space), a number (category N)? */
bool espl__is_space(int32_t code);
bool espl__is_numeric(int32_t code);

/* Local. Is `code` by Unicode 8 punctuation (ASCII's, or category P), a mark without width (Mn), a control, format or private character
 * (Cc, Cf, Co)? */
bool espl__is_punctuation(int32_t code);
bool espl__is_mark(int32_t code);
bool espl__is_other(int32_t code);

/* Local. Did `code` come to a category after Unicode 8: M (Mn), P or C (Cf); or after Unicode 9 to a combining class (O) or a decomposition
 * (D)? Asked only of characters that have it, or are not known. */
bool espl__unicode_later(char category, int32_t code);

/* Local. Was `code` assigned after Unicode 14, in a category: L, M, P, S, D (decimal digit) or N (other number)? */
bool espl__unicode_newer(char category, int32_t code);

/* Local. Appends those of a category as ranges inside brackets. */
void espl__unicode_newer_ranges(char category, espl_buffer *out);

void espl__text_clear(espl__text *text, bool tracked);
void espl__text_free(espl__text *text);
espl__slice espl__text_slice(const espl__text *text);

/* Local. Appends a slice with its map. */
void espl__text_append(espl__text *text, espl__slice slice);

/* Local. Appends bytes that all come from one span. */
void espl__text_fill(espl__text *text, const char *data, size_t n, espl__span span);

/* Local. Appends a slice with each byte as its byte-level character. */
void espl__text_byte_level(espl__text *text, espl__slice slice);

/* Local. Appends the bytes that a token of the byte-level alphabet stands for; false, and nothing, when it has other characters. */
bool espl__bytes_of(const char *token, size_t n, espl_buffer *out);

/* Local. Part [begin, end) of a slice. */
espl__slice espl__slice_part(espl__slice slice, size_t begin, size_t end);

/* Local. The span of byte `i` of a slice; an empty span at its shift when i < 0 or nothing is tracked. */
espl__span espl__slice_span(const espl__slice *slice, ptrdiff_t i);

/* ---- where a value of tokenizer.json stands, for messages ---- */

typedef struct espl__where {
    const char *path;    /* of the file */
    const char *section; /* "normalizer", "model", ... */
    const char *type;    /* of the component, or "" */
} espl__where;

espl_status espl__json_string(const espl__where *where, json_t *object, const char *key, const char **value, size_t *size);
espl_status espl__json_bool(const espl__where *where, json_t *object, const char *key, int fallback,
                            bool *value); /* fallback -1: required */
espl_status espl__json_int(const espl__where *where, json_t *object, const char *key, int64_t low, int64_t high, int64_t *value);

/* Local. Walks `value` (null, a component, or a Sequence whose list is under `list_key`) and calls `add` for each leaf, in order. */
espl_status espl__json_each(const espl__where *where, json_t *value, const char *list_key,
                            espl_status (*add)(const espl__where *where, json_t *component, void *context), void *context);

/* ---- patterns ---- */

typedef struct espl__pattern espl__pattern;
typedef struct espl__scratch espl__scratch;

/* Local. Compiles a regular expression as Oniguruma's Ruby syntax reads it, or takes `literal` text. */
espl_status espl__pattern_regex(const espl__where *where, const char *source, size_t n, espl__pattern **pattern);
espl__pattern *espl__pattern_literal(const char *text, size_t n);
espl__pattern *espl__pattern_class(bool (*contains)(int32_t code)); /* each character of a class is a match */

/* Local. From {"String": ...} or {"Regex": ...} under "pattern". */
espl_status espl__pattern_parse(const espl__where *where, json_t *component, espl__pattern **pattern);
void espl__pattern_free(espl__pattern **pattern);

/* Local. Fills `matches` with contiguous ranges that cover the text, matches and what lies between. */
espl_status espl__pattern_find(const espl__pattern *pattern, espl__scratch *scratch, const char *text, size_t n, espl__matches *matches);

/* Local. Oniguruma's syntax rewritten for PCRE2; see regex_syntax.c. */
espl_status espl__regex_translate(const espl__where *where, const char *source, size_t n, espl_buffer *out);

/* ---- stages ---- */

typedef struct espl__normalizer espl__normalizer;
typedef struct espl__normalizers {
    espl__normalizer *at;
    size_t n, capacity;
} espl__normalizers;

espl_status espl__normalizers_parse(const char *path, json_t *value, espl__normalizers *list);
void espl__normalizers_free(espl__normalizers *list);

/* Local. Appends the normalised slice to `out`. */
espl_status espl__normalizers_apply(const espl__normalizers *list, espl__scratch *scratch, espl__slice in, espl__text *out);

typedef enum espl__form { ESPL__NFC, ESPL__NFD, ESPL__NFKC, ESPL__NFKD } espl__form;

typedef struct espl__change {
    int32_t code;
    int32_t change; /* above 0: comes in addition; 0: replaces a character; -k: replaces one and the k after it */
    int32_t order;  /* canonical combining class */
} espl__change;

typedef struct espl__changes {
    espl__change *at;
    size_t n, capacity;
} espl__changes;

/* Local. Appends a Unicode normalisation form of `in` (UAX 15), each character with the span it came from. */
void espl__unicode_form(espl__form form, espl__scratch *scratch, espl__slice in, espl__text *out);

/* Local. Appends what a list of changes makes of `in`: each character with the span of what it stands for. */
void espl__changes_write(const espl__changes *changes, espl__slice in, espl__text *out);

/* Local. What a character becomes, or -1 where it vanishes. */
int32_t espl__map_clean(int32_t code); /* BERT's clean_text */
int32_t espl__map_marks(int32_t code); /* BERT's strip_accents, after NFD */
int32_t espl__map_nmt(int32_t code);
bool espl__is_ideograph(int32_t code);

typedef struct espl__charmap espl__charmap;

/* Local. sentencepiece's character map, from "precompiled_charsmap". */
espl_status espl__charmap_parse(const espl__where *where, json_t *json, espl__charmap **map);
void espl__charmap_free(espl__charmap **map);
espl_status espl__charmap_apply(const espl__charmap *map, espl__scratch *scratch, espl__slice in, espl__text *out);

typedef struct espl__pretokenizer espl__pretokenizer;
typedef struct espl__pretokenizers {
    espl__pretokenizer *at;
    size_t n, capacity;
    bool transforms;  /* some row writes a new text */
    bool needs_shift; /* some row asks where a piece begins in the source */
    bool raw_bytes;   /* the last row is ByteLevel and leaves bytes to the model as they are */
} espl__pretokenizers;

/* Local. `raw_bytes`: the model can take bytes where it would get characters of the byte-level alphabet. */
espl_status espl__pretokenizers_parse(const char *path, json_t *value, bool raw_bytes, espl__pretokenizers *list);
void espl__pretokenizers_free(espl__pretokenizers *list);

/* Local. Splits the scratch's pieces, row after row. */
espl_status espl__pretokenizers_apply(const espl__pretokenizers *list, espl__scratch *scratch);

/* ---- vocabulary ---- */

typedef struct espl__vocab {
    char *bytes;     /* all contents, one after another */
    uint64_t *begin; /* [n_ids + 1] of content in bytes; ids without a token are empty */
    int32_t *slots;  /* open addressing, linear probing; id or -1 */
    uint64_t mask;
    int64_t n_ids; /* largest id + 1 */
    int64_t n_entries;
} espl__vocab;

/* Local. From {"token": id, ...}. Errors: data, when an id is no number, is taken twice, or leaves more holes than there are tokens. */
espl_status espl__vocab_parse(const espl__where *where, json_t *object, espl__vocab *vocab);

/* Local. From [["token", score], ...], whose places are the ids; of equal tokens the last one counts. Errors: data, when it is no such
 * list. */
espl_status espl__vocab_list(const espl__where *where, json_t *list, espl__vocab *vocab);
void espl__vocab_index(espl__vocab *vocab); /* makes slots from begin and bytes */
void espl__vocab_free(espl__vocab *vocab);
int32_t espl__vocab_id(const espl__vocab *vocab, const char *token, size_t n);  /* -1: none */
const char *espl__vocab_token(const espl__vocab *vocab, int32_t id, size_t *n); /* NULL: none */

typedef struct espl__trie_edge {
    int32_t from, to; /* to 0: free, as the root is nobody's child */
    unsigned char byte;
} espl__trie_edge;

typedef struct espl__trie { /* node 0 is the root */
    espl__trie_edge *edges; /* open addressing, linear probing */
    uint64_t mask;
    struct {
        int32_t *at;
        size_t n, capacity;
    } ids; /* of the token that ends at a node, or -1 */
} espl__trie;

/* Local. The vocabulary's tokens as a tree of bytes. */
void espl__trie_make(const espl__vocab *vocab, espl__trie *trie);
void espl__trie_free(espl__trie *trie);
int32_t espl__trie_step(const espl__trie *trie, int32_t node, unsigned char byte); /* -1: no such child */

/* ---- models: one row a kind in tokenizer.c ---- */

typedef struct espl__model_kind {
    const char *type;
    const char *telling_key; /* what only this kind has, for old files that leave the type out */
    espl_status (*parse)(const espl__where *where, json_t *json, espl__vocab *vocab, void **model); /* fills the vocabulary too */
    void (*free)(void *model);
    bool (*takes_bytes)(const void *model); /* pieces may come as raw bytes in place of byte-level characters; NULL: never */
    void (*use_bytes)(void *model);         /* they will */
    void *(*work_make)(const void *model);  /* what one call needs, kept in the scratch; NULL: nothing */
    void (*work_free)(void *work);
    void (*tokenize)(const void *model, void *work, const char *piece, size_t n, espl__symbols *out);
} espl__model_kind;

extern const espl__model_kind espl__bpe_kind, espl__wordpiece_kind, espl__unigram_kind;

/* ---- added tokens ---- */

typedef struct espl__added espl__added;

espl_status espl__added_parse(const char *path, json_t *list, const espl__vocab *vocab, const espl__normalizers *normalizers,
                              espl__scratch *scratch, espl__added **added);
void espl__added_free(espl__added **added);

/* Local. Cuts part [begin, end) of `text` at the tokens that are matched after (`normalized`) or before normalisation. */
void espl__added_split(const espl__added *added, bool normalized, espl__slice text, size_t begin, size_t end, int64_t shift,
                       espl__pieces *out);
int32_t espl__added_id(const espl__added *added, const char *token, size_t n);
int64_t espl__added_count(const espl__added *added); /* of those that are not in the model's vocabulary */

/* Local. What an id decodes to when it is an added token, else NULL; `special`: left out on request. */
const char *espl__added_text(const espl__added *added, int32_t id, size_t *n);
bool espl__added_special(const espl__added *added, int32_t id);

/* ---- post-processor and decoder ---- */

enum { ESPL__FIRST_TEXT = -1, ESPL__SECOND_TEXT = -2 };

typedef struct espl__template_piece {
    int32_t id; /* a special token, or a text */
    uint8_t type;
} espl__template_piece;

typedef struct espl__template {
    espl__template_piece *at;
    size_t n, capacity;
} espl__template;

typedef struct espl__post {
    espl__template single, pair; /* what surrounds one text, and two */
    bool trim_offsets, add_prefix_space;
} espl__post;

espl_status espl__post_parse(const char *path, json_t *value, espl__post *post);
void espl__post_free(espl__post *post);

/* Local. Takes white space off the span of a token whose content is `token`; `first`: it is the text's first token. */
espl__span espl__post_trim(const espl__post *post, const char *token, size_t n, const char *text, size_t size, espl__span span, bool first);

typedef struct espl__decoder espl__decoder;
typedef struct espl__decoders {
    espl__decoder *at;
    size_t n, capacity;
    bool given; /* false: tokens are joined by spaces */
} espl__decoders;

typedef struct espl__strings {
    espl_buffer bytes;
    size_t *at; /* end of each string in bytes */
    size_t n, capacity;
} espl__strings;

void espl__strings_end(espl__strings *list); /* what was appended to bytes since the last end is one string */

espl_status espl__decoders_parse(const char *path, json_t *value, espl__decoders *list);
void espl__decoders_free(espl__decoders *list);

/* Local. Rewrites a list of tokens, row after row; both lists are used. */
espl_status espl__decoders_apply(const espl__decoders *list, espl__scratch *scratch, espl__strings *tokens);

/* ---- scratch ---- */

typedef struct espl__regex_work espl__regex_work;

struct espl__scratch {
    espl__scratch *next;
    bool tracked;        /* texts keep their maps */
    espl__text source;   /* the source repaired, when it was not valid UTF-8 */
    espl__text texts[2]; /* what stages write, in turn */
    espl__text chain[2]; /* between normalizers */
    int turn;
    espl__slice text; /* what the pieces are ranges of */
    espl__pieces pieces, spare;
    espl__matches matches;
    espl__changes changes, composed;
    espl__symbols symbols;
    espl__regex_work *regex;
    void *model_work;
    espl_encoding encoded[2]; /* the texts of a call, before the template */
};

/* Local. The text that the next stage writes, emptied; it becomes `scratch->text` by espl__scratch_turn. */
espl__text *espl__scratch_next(espl__scratch *scratch);
void espl__scratch_turn(espl__scratch *scratch);
espl__slice espl__scratch_piece(const espl__scratch *scratch, const espl__piece *piece);
void espl__scratch_free(espl__scratch *scratch); /* all but model_work */
void espl__regex_work_free(espl__regex_work **work);

#endif
