#include "src/eval/ngrams.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

/* ---- Words as numbers. */

static int32_t *slot_of(const espl_vocabulary *v, const char *word, size_t size) {
    uint64_t mask = (uint64_t)v->slots - 1, i = XXH3_64bits(word, size) & mask;
    for (;; i = (i + 1) & mask) {
        int32_t at = v->table[i];
        if (at < 0 || (v->begins[at + 1] - v->begins[at] == size && memcmp(v->text.data + v->begins[at], word, size) == 0))
            return &v->table[i];
    }
}

/* Twice the room; the table stays at most half full. */
static void grow(espl_vocabulary *v) {
    v->capacity = v->capacity > 0 ? 2 * v->capacity : 256;
    v->slots = 2 * v->capacity;
    v->begins = espl_realloc(v->begins, (size_t)(v->capacity + 1) * sizeof *v->begins);
    v->table = espl_realloc(v->table, (size_t)v->slots * sizeof *v->table);
    memset(v->table, -1, (size_t)v->slots * sizeof *v->table);
    if (v->n == 0)
        v->begins[0] = 0;
    for (int32_t i = 0; i < v->n; i++)
        *slot_of(v, v->text.data + v->begins[i], v->begins[i + 1] - v->begins[i]) = i;
}

int32_t espl_vocabulary_number(espl_vocabulary *v, const char *word, size_t size) {
    if (v->n == v->capacity)
        grow(v);
    int32_t *slot = slot_of(v, word, size);
    if (*slot < 0) {
        espl_buffer_append(&v->text, word, size);
        *slot = (int32_t)v->n++;
        v->begins[v->n] = v->text.size;
    }
    return *slot;
}

void espl_vocabulary_free(espl_vocabulary *v) {
    espl_buffer_free(&v->text);
    free(v->begins);
    free(v->table);
    *v = (espl_vocabulary){0};
}

/* ---- Sequences. */

void espl_symbols_add(espl_symbols *s, int32_t symbol) {
    if (s->n == s->capacity) {
        s->capacity = s->capacity > 0 ? 2 * s->capacity : 64;
        s->items = espl_realloc(s->items, (size_t)s->capacity * sizeof *s->items);
    }
    s->items[s->n++] = symbol;
}

void espl_symbols_free(espl_symbols *s) {
    free(s->items);
    *s = (espl_symbols){0};
}

static int compare_ngrams(const void *a, const void *b, void *order) {
    const int32_t *x = *(int32_t *const *)a, *y = *(int32_t *const *)b;
    for (int i = 0; i < *(int *)order; i++)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

static int32_t **sorted_ngrams(const espl_symbols *s, int64_t n, int order) {
    int32_t **grams = espl_malloc((size_t)(n > 0 ? n : 1) * sizeof *grams);
    for (int64_t i = 0; i < n; i++)
        grams[i] = s->items + i;
    qsort_r(grams, (size_t)n, sizeof *grams, compare_ngrams, &order);
    return grams;
}

espl_overlap espl_ngram_overlap(const espl_symbols *first, const espl_symbols *second, int order) {
    espl_overlap o = {.first = first->n >= order ? first->n - order + 1 : 0, .second = second->n >= order ? second->n - order + 1 : 0};
    int32_t **a = sorted_ngrams(first, o.first, order), **b = sorted_ngrams(second, o.second, order);
    for (int64_t i = 0, j = 0; i < o.first && j < o.second;) {
        int c = compare_ngrams(&a[i], &b[j], &order);
        o.matches += c == 0;
        i += c <= 0;
        j += c >= 0;
    }
    free(a);
    free(b);
    return o;
}

/* ---- White space. */

/* Bytes of the white space character at `text`; 0: none is there. */
static int space_bytes(const char *text) {
    utf8proc_int32_t c;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)strnlen(text, 4), &c);
    if (n <= 0)
        return 0;
    const utf8proc_property_t *p = utf8proc_get_property(c);
    bool space = p->category == UTF8PROC_CATEGORY_ZS || p->bidi_class == UTF8PROC_BIDI_CLASS_WS || p->bidi_class == UTF8PROC_BIDI_CLASS_B ||
                 p->bidi_class == UTF8PROC_BIDI_CLASS_S;
    return space ? (int)n : 0;
}

bool espl_next_word(const char **text, const char **word, size_t *size) {
    const char *at = *text;
    for (int n; *at != '\0' && (n = space_bytes(at)) > 0;)
        at += n;
    *word = at;
    while (*at != '\0' && space_bytes(at) == 0)
        at++;
    *size = (size_t)(at - *word);
    *text = at;
    return *size > 0;
}
