/* The normalizer "Precompiled": sentencepiece's character map, as its models carry it.
 *
 * In tokenizer.json it is base64 of: 4 bytes, little endian, the size of a trie in bytes; the trie, a double array of 4-byte units; texts
 * that end in NUL. The trie leads from the bytes of a piece of text to where its replacement begins among the texts. A unit holds, from the
 * low end: 8 bits label, 1 bit "a value follows", 1 bit that scales the offset by 256, 22 bits offset; a value has bit 31 set instead.
 *
 * The reference looks up grapheme clusters (UAX 29) of fewer than 6 bytes, and takes the shortest key that one begins with for all of it;
 * the characters of other clusters one by one. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct espl__charmap {
    uint32_t *units;
    size_t n_units;
    char *texts; /* a NUL follows */
    size_t n_texts;
};

static int sextet(char c) {
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 with its padding; false when it is something else. */
static bool from_base64(const char *text, size_t n, espl_buffer *out) {
    size_t n_pad = n >= 4 ? (text[n - 1] == '=') + (text[n - 1] == '=' && text[n - 2] == '=') : 0;
    uint32_t bits = 0;
    int held = 0;
    if (n % 4 != 0)
        return false;
    for (size_t i = 0; i < n - n_pad; i++) {
        int value = sextet(text[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held < 8)
            continue;
        held -= 8;
        espl_buffer_append(out, &(char){(char)(bits >> held)}, 1);
        bits &= (1u << held) - 1;
    }
    return bits == 0;
}

static uint32_t unit_at(const char *data, size_t i) {
    const unsigned char *u = (const unsigned char *)data + 4 * i;
    return u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static espl_status take_map(const espl__where *where, const espl_buffer *bytes, espl__charmap *map) {
    size_t trie = bytes->size >= 4 ? unit_at(bytes->data, 0) : 0;
    if (trie == 0 || trie % 4 != 0 || trie > bytes->size - 4)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'precompiled_charsmap' is cut short: its %zu bytes hold no trie of %zu", where->path,
                  where->section, where->type, bytes->size, trie);
    map->n_units = trie / 4;
    map->units = espl_malloc(trie);
    for (size_t i = 0; i < map->n_units; i++)
        map->units[i] = unit_at(bytes->data, i + 1);
    map->n_texts = bytes->size - 4 - trie;
    map->texts = espl_calloc(map->n_texts + 1, 1);
    if (map->n_texts > 0)
        memcpy(map->texts, bytes->data + 4 + trie, map->n_texts);
    for (size_t i = 0; i < map->n_texts;) {
        int size = espl__utf8_next(map->texts + i, map->n_texts - i);
        if (size < 0)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'precompiled_charsmap' has a replacement that is not UTF-8", where->path, where->section,
                      where->type);
        i += (size_t)size;
    }
    return ESPL_OK;
}

espl_status espl__charmap_parse(const espl__where *where, json_t *json, espl__charmap **map) {
    espl_status status = ESPL_OK;
    const char *text;
    size_t n;
    espl_buffer bytes = {0};
    ESPL_TRY(espl__json_string(where, json, "precompiled_charsmap", &text, &n));
    *map = espl_calloc(1, sizeof **map);
    if (!from_base64(text, n, &bytes))
        ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s: %s %s: 'precompiled_charsmap' must be base64", where->path, where->section, where->type);
    ESPL_TRY_DONE(take_map(where, &bytes, *map));
done:
    espl_buffer_free(&bytes);
    return status;
}

void espl__charmap_free(espl__charmap **map) {
    if (!*map)
        return;
    free((*map)->units);
    free((*map)->texts);
    free(*map);
    *map = NULL;
}

static size_t offset_of(uint32_t unit) { return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6); }

/* Value of the shortest key that the text begins with, or -1; -2 when the trie points outside itself. */
static int64_t shortest_key(const espl__charmap *map, const char *text, size_t n) {
    size_t at = offset_of(map->units[0]);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (c == 0)
            return -1;
        if (at >= map->n_units)
            return -2;
        uint32_t unit = map->units[at];
        if ((unit & (1u << 31 | 0xFF)) != c)
            return -1;
        at ^= offset_of(unit);
        if (unit & 1u << 8)
            return at < map->n_units ? (int64_t)(map->units[at] & ~(1u << 31)) : -2;
    }
    return -1;
}

/* Appends the replacement of `text`, if there is one. As the reference counts: new characters stand for the old ones one by one, those that
 * are left come in addition, and what finds none left goes with the character before it. */
static espl_status replace(const espl__charmap *map, const char *text, size_t n, int32_t n_chars, bool *replaced, espl__changes *out) {
    int64_t value = shortest_key(map, text, n);
    *replaced = value != -1;
    if (value == -1)
        return ESPL_OK;
    if (value < 0 || (size_t)value > map->n_texts || ((unsigned char)map->texts[value] & 0xC0) == 0x80)
        ESPL_FAIL(ESPL_ERR_DATA, "the tokenizer's 'precompiled_charsmap' is damaged: what it has for '%.*s' lies outside it", (int)n, text);
    int32_t n_new = 0;
    int size;
    for (const char *c = map->texts + value; *c; c += size, n_new++)
        ESPL__PUSH(out, (espl__change){.code = espl__utf8_decode(c, &size), .change = n_new >= n_chars});
    if (n_new < n_chars && out->n > 0)
        out->at[out->n - 1].change += n_new - n_chars;
    return ESPL_OK;
}

/* Marks that utf8proc does not know yet join the character before them. */
static bool breaks(int32_t before, int32_t code, utf8proc_int32_t *state) {
    bool known = utf8proc_category(code) != UTF8PROC_CATEGORY_CN;
    bool is_break = utf8proc_grapheme_break_stateful(before, code, state);
    if (known || !(espl__unicode_later('M', code) || espl__unicode_newer('M', code)))
        return is_break;
    int category = utf8proc_category(before);
    return category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

static size_t cluster_end(espl__slice in, size_t begin, int32_t *n_chars) {
    int size;
    utf8proc_int32_t state = 0;
    int32_t before = espl__utf8_decode(in.data + begin, &size);
    size_t at = begin + (size_t)size;
    for (*n_chars = 1; at < in.n; ++*n_chars, at += (size_t)size) {
        int32_t code = espl__utf8_decode(in.data + at, &size);
        if (breaks(before, code, &state))
            break;
        before = code;
    }
    return at;
}

static espl_status replace_each(const espl__charmap *map, const char *text, size_t n, espl__changes *out) {
    int size;
    bool replaced;
    for (size_t i = 0; i < n; i += (size_t)size) {
        int32_t code = espl__utf8_decode(text + i, &size);
        ESPL_TRY(replace(map, text + i, (size_t)size, 1, &replaced, out));
        if (!replaced)
            ESPL__PUSH(out, (espl__change){.code = code});
    }
    return ESPL_OK;
}

espl_status espl__charmap_apply(const espl__charmap *map, espl__scratch *scratch, espl__slice in, espl__text *out) {
    espl__changes *changes = &scratch->changes;
    int32_t n_chars;
    changes->n = 0;
    for (size_t i = 0, end; i < in.n; i = end) {
        bool replaced = false;
        end = cluster_end(in, i, &n_chars);
        if (end - i < 6)
            ESPL_TRY(replace(map, in.data + i, end - i, n_chars, &replaced, changes));
        if (!replaced)
            ESPL_TRY(replace_each(map, in.data + i, end - i, changes));
    }
    espl__changes_write(changes, in, out);
    return ESPL_OK;
}
