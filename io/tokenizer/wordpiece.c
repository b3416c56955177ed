/* WordPiece: of a word, the longest token that it begins with, then of what is left the longest that continues a word, and so on; a word
 * that cannot be taken apart so is unknown as a whole.
 *
 * Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers", 2019, and its release's tokenization.py. Tokens that continue
 * a word are written with a prefix, so they are looked for from the prefix's node of the one tree. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>

typedef struct wordpiece {
    espl__trie trie;
    int32_t continuing; /* node of the prefix; -1: no token begins with it */
    int32_t unk;
    int64_t max_chars;
} wordpiece;

static espl_status parse(const espl__where *where, json_t *json, espl__vocab *vocab, void **model) {
    wordpiece *wp = *model = espl_calloc(1, sizeof *wp);
    const char *text;
    size_t n;
    ESPL_TRY(espl__vocab_parse(where, json_object_get(json, "vocab"), vocab));
    ESPL_TRY(espl__json_int(where, json, "max_input_chars_per_word", 0, INT64_MAX, &wp->max_chars));
    ESPL_TRY(espl__json_string(where, json, "unk_token", &text, &n));
    wp->unk = espl__vocab_id(vocab, text, n);
    if (wp->unk < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model WordPiece: the unk_token '%s' is not in the vocabulary", where->path, text);
    ESPL_TRY(espl__json_string(where, json, "continuing_subword_prefix", &text, &n));
    espl__trie_make(vocab, &wp->trie);
    for (size_t i = 0; i < n && wp->continuing >= 0; i++)
        wp->continuing = espl__trie_step(&wp->trie, wp->continuing, (unsigned char)text[i]);
    return ESPL_OK;
}

static void free_model(void *model) {
    wordpiece *wp = model;
    if (wp)
        espl__trie_free(&wp->trie);
    free(wp);
}

/* Bytes of the longest token below `node` that the text begins with, 0 when there is none. */
static size_t longest(const espl__trie *trie, int32_t node, const char *text, size_t n, int32_t *id) {
    size_t size = 0;
    for (size_t i = 0; i < n && node >= 0; i++) {
        node = espl__trie_step(trie, node, (unsigned char)text[i]);
        if (node >= 0 && trie->ids.at[node] >= 0) {
            *id = trie->ids.at[node];
            size = i + 1;
        }
    }
    return size;
}

static int64_t count_chars(const char *text, size_t n) {
    int64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xC0) != 0x80;
    return count;
}

static void tokenize(const void *model, void *work, const char *piece, size_t n, espl__symbols *out) {
    (void)work;
    const wordpiece *wp = model;
    size_t before = out->n, done = 0;
    bool known = count_chars(piece, n) <= wp->max_chars;
    while (known && done < n) {
        int32_t id = -1, node = done == 0 ? 0 : wp->continuing;
        size_t size = node >= 0 ? longest(&wp->trie, node, piece + done, n - done, &id) : 0;
        known = size > 0;
        if (known)
            ESPL__PUSH(out, (espl__symbol){id, (int32_t)size, false});
        done += size;
    }
    if (known)
        return;
    out->n = before;
    ESPL__PUSH(out, (espl__symbol){wp->unk, (int32_t)n, false});
}

const espl__model_kind espl__wordpiece_kind = {
    .type = "WordPiece",
    .telling_key = "max_input_chars_per_word",
    .parse = parse,
    .free = free_model,
    .tokenize = tokenize,
};
