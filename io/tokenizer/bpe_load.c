/* Byte pair encoding: from tokenizer.json to tables. */
#include "io/tokenizer/bpe_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static espl_status parse_affix(const espl__where *where, json_t *json, const char *key, espl_buffer *out) {
    const char *text;
    size_t n;
    json_t *value = json_object_get(json, key);
    if (!value || json_is_null(value))
        return ESPL_OK;
    ESPL_TRY(espl__json_string(where, json, key, &text, &n));
    espl_buffer_append(out, text, n);
    return ESPL_OK;
}

static espl_status parse_unk(const espl__where *where, json_t *json, espl__bpe *bpe) {
    const char *text;
    size_t n;
    json_t *value = json_object_get(json, "unk_token");
    bpe->unk = -1;
    if (!value || json_is_null(value))
        return ESPL_OK;
    ESPL_TRY(espl__json_string(where, json, "unk_token", &text, &n));
    bpe->unk = espl__vocab_id(bpe->vocab, text, n);
    if (bpe->unk < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model BPE: the unk_token '%s' is not in the vocabulary", where->path, text);
    return ESPL_OK;
}

static espl_status parse_options(const espl__where *where, json_t *json, espl__bpe *bpe) {
    if (json_number_value(json_object_get(json, "dropout")) > 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model BPE: dropout makes ids random and is not supported; set it to null", where->path);
    ESPL_TRY(espl__json_bool(where, json, "fuse_unk", 0, &bpe->fuse_unk));
    ESPL_TRY(espl__json_bool(where, json, "byte_fallback", 0, &bpe->byte_fallback));
    ESPL_TRY(espl__json_bool(where, json, "ignore_merges", 0, &bpe->ignore_merges));
    ESPL_TRY(parse_affix(where, json, "continuing_subword_prefix", &bpe->prefix));
    ESPL_TRY(parse_affix(where, json, "end_of_word_suffix", &bpe->suffix));
    return parse_unk(where, json, bpe);
}

static void insert(espl__bpe *bpe, espl__bpe_merge merge) {
    uint64_t slot = espl__bpe_slot(bpe, merge.left, merge.right);
    while (bpe->merges[slot].left >= 0 && (bpe->merges[slot].left != merge.left || bpe->merges[slot].right != merge.right))
        slot = (slot + 1) & bpe->mask;
    bpe->merges[slot] = merge; /* of equal pairs the last one counts */
}

typedef struct merge_text {
    const char *left, *right;
    size_t n_left, n_right;
} merge_text;

/* "a b", or ["a", "b"] where tokens may hold spaces. */
static bool read_merge(json_t *item, merge_text *m) {
    json_t *left = json_array_get(item, 0), *right = json_array_get(item, 1);
    if (json_is_string(left) && json_is_string(right) && json_array_size(item) == 2) {
        *m = (merge_text){json_string_value(left), json_string_value(right), json_string_length(left), json_string_length(right)};
        return true;
    }
    const char *text = json_string_value(item), *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return false;
    *m = (merge_text){text, space + 1, (size_t)(space - text), json_string_length(item) - (size_t)(space + 1 - text)};
    return true;
}

static espl_status find_token(const espl__where *where, const espl__bpe *bpe, size_t rank, const char *text, size_t n, int32_t *id) {
    *id = espl__vocab_id(bpe->vocab, text, n);
    if (*id < 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model BPE: merges[%zu] names '%.*s', which is not in the vocabulary", where->path, rank, (int)n,
                  text);
    return ESPL_OK;
}

static espl_status parse_merge(const espl__where *where, espl__bpe *bpe, json_t *item, size_t rank, espl_buffer *joined) {
    merge_text m;
    espl__bpe_merge merge = {.rank = (uint32_t)rank};
    if (!read_merge(item, &m) || m.n_right < bpe->prefix.size)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model BPE: merges[%zu] must be two tokens", where->path, rank);
    ESPL_TRY(find_token(where, bpe, rank, m.left, m.n_left, &merge.left));
    ESPL_TRY(find_token(where, bpe, rank, m.right, m.n_right, &merge.right));
    joined->size = 0;
    espl_buffer_append(joined, m.left, m.n_left);
    espl_buffer_append(joined, m.right + bpe->prefix.size, m.n_right - bpe->prefix.size);
    ESPL_TRY(find_token(where, bpe, rank, joined->data, joined->size, &merge.id));
    insert(bpe, merge);
    return ESPL_OK;
}

static void make_merges(espl__bpe *bpe, size_t n) {
    uint64_t n_slots = 16;
    while (n_slots < 2 * (uint64_t)n)
        n_slots *= 2;
    bpe->mask = n_slots - 1;
    bpe->merges = espl_malloc(n_slots * sizeof *bpe->merges);
    memset(bpe->merges, 0xFF, n_slots * sizeof *bpe->merges);
}

static espl_status parse_merges(const espl__where *where, json_t *json, espl__bpe *bpe) {
    espl_status status = ESPL_OK;
    json_t *list = json_object_get(json, "merges"), *item;
    espl_buffer joined = {0};
    size_t i, rank = 0;
    if (!json_is_array(list))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: model BPE: 'merges' must be a list", where->path);
    make_merges(bpe, json_array_size(list));
    json_array_foreach(list, i, item) {
        if (json_is_string(item) && strncmp(json_string_value(item), "#version", 8) == 0)
            continue;
        ESPL_TRY_DONE(parse_merge(where, bpe, item, rank++, &joined));
    }
done:
    espl_buffer_free(&joined);
    return status;
}

static void fill_characters(espl__bpe *bpe) {
    char text[8];
    bpe->char_ids = espl_malloc(ESPL__BPE_CHARS * sizeof *bpe->char_ids);
    for (int32_t code = 0; code < ESPL__BPE_CHARS; code++)
        bpe->char_ids[code] = -1;
    for (int64_t id = 0; id < bpe->vocab->n_ids; id++) {
        size_t n;
        int size = 0;
        const char *token = espl__vocab_token(bpe->vocab, (int32_t)id, &n);
        int32_t code = token && n <= 3 ? espl__utf8_decode(token, &size) : ESPL__BPE_CHARS;
        if (code < ESPL__BPE_CHARS && (size_t)size == n)
            bpe->char_ids[code] = (int32_t)id;
    }
    for (int b = 0; b < 256; b++) {
        snprintf(text, sizeof text, "<0x%02X>", b);
        bpe->byte_ids[b] = espl__vocab_id(bpe->vocab, text, 6);
        bpe->raw_ids[b] = espl__vocab_id(bpe->vocab, text, (size_t)espl__byte_char((unsigned char)b, text));
    }
}

/* True when no merge makes a token in which the mark follows something else, and the mark itself is a token. */
static bool cuts_at_mark(const espl__bpe *bpe) {
    static const char mark[] = "\xE2\x96\x81";
    if (bpe->prefix.size + bpe->suffix.size > 0 || bpe->char_ids[0x2581] < 0)
        return false;
    for (uint64_t slot = 0; slot <= bpe->mask; slot++) {
        size_t n;
        const char *token = bpe->merges[slot].left >= 0 ? espl__vocab_token(bpe->vocab, bpe->merges[slot].id, &n) : NULL;
        if (!token)
            continue;
        while (n >= 3 && memcmp(token, mark, 3) == 0) {
            token += 3;
            n -= 3;
        }
        if (memmem(token, n, mark, 3))
            return false;
    }
    return true;
}

espl_status espl__bpe_parse(const espl__where *where, json_t *json, espl__vocab *vocab, void **model) {
    espl__bpe *bpe = *model = espl_calloc(1, sizeof *bpe);
    bpe->vocab = vocab;
    ESPL_TRY(espl__vocab_parse(where, json_object_get(json, "vocab"), vocab));
    ESPL_TRY(parse_options(where, json, bpe));
    ESPL_TRY(parse_merges(where, json, bpe));
    fill_characters(bpe);
    bpe->cuts_at_mark = cuts_at_mark(bpe);
    return ESPL_OK;
}

void espl__bpe_free(void *model) {
    espl__bpe *bpe = model;
    if (!bpe)
        return;
    free(bpe->merges);
    free(bpe->char_ids);
    espl__vocab_free(&bpe->raw_vocab);
    espl_buffer_free(&bpe->prefix);
    espl_buffer_free(&bpe->suffix);
    free(bpe);
}

bool espl__bpe_takes_bytes(const void *model) {
    const espl__bpe *bpe = model;
    if (bpe->prefix.size + bpe->suffix.size > 0)
        return false;
    for (int b = 0; b < 256; b++)
        if (bpe->raw_ids[b] < 0)
            return false;
    return true;
}

static void fill_raw_vocab(espl__bpe *bpe) {
    const espl__vocab *vocab = bpe->vocab;
    espl__vocab *raw = &bpe->raw_vocab;
    espl_buffer all = {0};
    raw->n_ids = vocab->n_ids;
    raw->begin = espl_calloc((size_t)vocab->n_ids + 1, sizeof *raw->begin);
    for (int64_t id = 0; id < vocab->n_ids; id++) {
        size_t n;
        const char *token = espl__vocab_token(vocab, (int32_t)id, &n);
        raw->begin[id] = all.size;
        if (token)
            (void)espl__bytes_of(token, n, &all);
    }
    raw->begin[vocab->n_ids] = all.size;
    raw->bytes = all.data;
    espl__vocab_index(raw);
}

void espl__bpe_use_bytes(void *model) {
    espl__bpe *bpe = model;
    bpe->raw_bytes = true;
    bpe->cuts_at_mark = false;
    if (bpe->ignore_merges)
        fill_raw_vocab(bpe);
}
