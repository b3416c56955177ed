#include "src/eval/rouge.h"

#include "src/eval/ngrams.h"
#include "src/eval/porter_stem.h"

#include <stdlib.h>
#include <string.h>

/* ---- Words, line by line. */

typedef struct text {
    espl_symbols words;
    espl_symbols ends; /* one a line that is not empty: words up to its end */
} text;

static bool is_word_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

/* The next letter in lower case; anything else is ' '. Of the letters beyond ASCII, two have a lower case within it: the Kelvin sign, and I
 * with a dot, whose dot becomes a mark of its own. */
static char next_letter(const char **at) {
    const char *s = *at;
    if (strncmp(s, "\xe2\x84\xaa", 3) == 0) {
        *at += 3;
        return 'k';
    }
    if (strncmp(s, "\xc4\xb0", 2) == 0) {
        *at += 1; /* the second byte then stands for the mark */
        return 'i';
    }
    *at += 1;
    char c = *s >= 'A' && *s <= 'Z' ? (char)(*s - 'A' + 'a') : *s;
    return is_word_letter(c) ? c : ' ';
}

static void close_word(text *t, espl_vocabulary *v, espl_buffer *word, bool stem) {
    if (word->size > 3 && stem)
        word->size = espl_porter_stem(word->data, word->size);
    if (word->size > 0)
        espl_symbols_add(&t->words, espl_vocabulary_number(v, word->data, word->size));
    word->size = 0;
}

static void read_words(const char *at, bool stem, espl_vocabulary *v, text *t) {
    espl_buffer word = {0};
    const char *line = at;
    for (;; line = at) {
        while (*at != '\0' && *at != '\n') {
            char c = next_letter(&at);
            if (c == ' ')
                close_word(t, v, &word, stem);
            else
                espl_buffer_append(&word, &c, 1);
        }
        close_word(t, v, &word, stem);
        if (at > line)
            espl_symbols_add(&t->ends, (int32_t)t->words.n);
        if (*at++ == '\0')
            break;
    }
    espl_buffer_free(&word);
}

static void free_text(text *t) {
    espl_symbols_free(&t->words);
    espl_symbols_free(&t->ends);
}

/* ---- Agreement. */

static espl_agreement agreement(int64_t matches, int64_t reference, int64_t prediction) {
    espl_agreement a = {.precision = (double)matches / (double)(prediction > 0 ? prediction : 1),
                        .recall = (double)matches / (double)(reference > 0 ? reference : 1)};
    if (a.precision + a.recall > 0.0)
        a.f1 = 2.0 * a.precision * a.recall / (a.precision + a.recall);
    return a;
}

static espl_agreement ngrams(const text *reference, const text *prediction, int order) {
    espl_overlap o = espl_ngram_overlap(&reference->words, &prediction->words, order);
    return agreement(o.matches, o.first, o.second);
}

/* ---- Longest common subsequences. */

typedef struct span {
    const int32_t *at;
    int64_t n;
} span;

/* Lengths for all pairs of prefixes: [a.n + 1, b.n + 1]. */
static int32_t *subsequence_table(span a, span b) {
    int64_t w = b.n + 1;
    int32_t *t = espl_calloc((size_t)((a.n + 1) * w), sizeof *t);
    for (int64_t i = 1; i <= a.n; i++)
        for (int64_t j = 1; j <= b.n; j++) {
            int32_t up = t[(i - 1) * w + j], left = t[i * w + j - 1];
            t[i * w + j] = a.at[i - 1] == b.at[j - 1] ? t[(i - 1) * w + j - 1] + 1 : up > left ? up : left;
        }
    return t;
}

static espl_agreement longest(const text *reference, const text *prediction) {
    span a = {reference->words.items, reference->words.n}, b = {prediction->words.items, prediction->words.n};
    int32_t *t = subsequence_table(a, b);
    espl_agreement result = agreement(t[(a.n + 1) * (b.n + 1) - 1], a.n, b.n);
    free(t);
    return result;
}

/* Marks the words of `a` that one longest common subsequence with `b` takes; of equal ways back, the one that drops a word of `a`. */
static void mark_common(span a, span b, bool *marked) {
    int32_t *t = subsequence_table(a, b);
    int64_t w = b.n + 1, i = a.n, j = b.n;
    while (i > 0 && j > 0) {
        if (a.at[i - 1] == b.at[j - 1]) {
            marked[i - 1] = true;
            i--;
            j--;
        } else if (t[i * w + j - 1] > t[(i - 1) * w + j]) {
            j--;
        } else {
            i--;
        }
    }
    free(t);
}

static span line_of(const text *t, int64_t line) {
    int32_t begin = line > 0 ? t->ends.items[line - 1] : 0;
    return (span){t->words.items + begin, t->ends.items[line] - begin};
}

static int64_t *occurrences(const text *t, int64_t n_words) {
    int64_t *count = espl_calloc((size_t)(n_words > 0 ? n_words : 1), sizeof *count);
    for (int64_t i = 0; i < t->words.n; i++)
        count[t->words.items[i]]++;
    return count;
}

/* Each line of the reference against all lines of the prediction; an occurrence is counted once (Lin 2004, section 3.2, and the original
 * program's guard against counting twice). */
static espl_agreement longest_of_lines(const text *reference, const text *prediction, int64_t n_words) {
    int64_t hits = 0, *left_r = occurrences(reference, n_words), *left_p = occurrences(prediction, n_words);
    bool *marked = espl_calloc((size_t)reference->words.n + 1, sizeof *marked);
    for (int64_t r = 0; r < reference->ends.n; r++) {
        span line = line_of(reference, r);
        memset(marked, 0, (size_t)line.n);
        for (int64_t p = 0; p < prediction->ends.n; p++)
            mark_common(line, line_of(prediction, p), marked);
        for (int64_t i = 0; i < line.n; i++)
            if (marked[i] && left_r[line.at[i]] > 0 && left_p[line.at[i]] > 0) {
                hits++;
                left_r[line.at[i]]--;
                left_p[line.at[i]]--;
            }
    }
    free(left_r);
    free(left_p);
    free(marked);
    return agreement(hits, reference->words.n, prediction->words.n);
}

espl_rouge espl_rouge_score(const char *reference, const char *prediction, bool stem) {
    text r = {0}, p = {0};
    espl_vocabulary v = {0};
    read_words(reference, stem, &v, &r);
    read_words(prediction, stem, &v, &p);
    espl_rouge score = {
        .one = ngrams(&r, &p, 1), .two = ngrams(&r, &p, 2), .longest = longest(&r, &p), .longest_of_lines = longest_of_lines(&r, &p, v.n)};
    espl_vocabulary_free(&v);
    free_text(&r);
    free_text(&p);
    return score;
}
