#include "src/eval/bleu.h"

#include "src/core/status.h"
#include "src/eval/ngrams.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* ---- Tokenisation 13a (mteval-v13a, as sacrebleu has it): literal replacements, then these, then words between white space. */

static const struct {
    const char *text, *replacement;
} literals[] = {{"<skipped>", ""}, {"-\n", ""}, {"\n", " "}, {"&quot;", "\""}, {"&amp;", "&"}, {"&lt;", "<"}, {"&gt;", ">"}};

static const struct {
    const char *pattern, *replacement;
} splits[] = {{"([{-~[-` -&(-+:-@/])", " $1 "}, /* marks, but for apostrophe, comma, hyphen, full stop */
              {"([^0-9])([.,])", "$1 $2 "},     /* full stop and comma, unless between digits */
              {"([.,])([^0-9])", " $1 $2"},
              {"([0-9])(-)", "$1 $2 "}}; /* a hyphen behind a digit */

enum { N_SPLITS = sizeof splits / sizeof splits[0] };

/* Compiled at the first use, kept to the end. Patterns are of bytes: all they name is ASCII. */
static pcre2_code **compiled_splits(void) {
    static pcre2_code *codes[N_SPLITS];
    for (int i = 0; i < N_SPLITS && codes[i] == NULL; i++) {
        int error;
        size_t at;
        codes[i] = pcre2_compile((PCRE2_SPTR)splits[i].pattern, PCRE2_ZERO_TERMINATED, PCRE2_DOTALL, &error, &at, NULL);
        ESPL_ASSERT(codes[i] != NULL, "the pattern %s: error %d", splits[i].pattern, error);
    }
    return codes;
}

static char *replace_all(const char *text, const char *what, const char *by) {
    espl_buffer out = {0};
    size_t n = strlen(what);
    for (const char *hit; (hit = strstr(text, what)) != NULL; text = hit + n) {
        espl_buffer_append(&out, text, (size_t)(hit - text));
        espl_buffer_append(&out, by, strlen(by));
    }
    espl_buffer_append(&out, text, strlen(text));
    return out.data;
}

/* Each match at most triples: room for that is always enough. */
static char *split_marks(const pcre2_code *code, const char *replacement, const char *text) {
    size_t size = 3 * strlen(text) + 1;
    char *out = espl_malloc(size);
    int n = pcre2_substitute(code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, PCRE2_SUBSTITUTE_GLOBAL, NULL, NULL, (PCRE2_SPTR)replacement,
                             PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &size);
    ESPL_ASSERT(n >= 0, "pcre2 error %d", n);
    return out;
}

/* The text without white space at its end. */
static char *stripped(const char *text) {
    const char *at = text, *end = text, *word;
    for (size_t size; espl_next_word(&at, &word, &size);)
        end = at;
    return espl_format("%.*s", (int)(end - text), text);
}

static void take(char **text, char *next) {
    free(*text);
    *text = next;
}

static void read_13a(const char *line, espl_vocabulary *v, espl_symbols *words) {
    pcre2_code **codes = compiled_splits();
    char *text = stripped(line);
    for (size_t i = 0; i < sizeof literals / sizeof literals[0]; i++)
        take(&text, replace_all(text, literals[i].text, literals[i].replacement));
    take(&text, espl_format(" %s ", text));
    for (int i = 0; i < N_SPLITS; i++)
        take(&text, split_marks(codes[i], splits[i].replacement, text));
    const char *at = text, *word;
    for (size_t size; espl_next_word(&at, &word, &size);)
        espl_symbols_add(words, espl_vocabulary_number(v, word, size));
    free(text);
}

/* ---- BLEU. */

void espl_bleu_add(espl_bleu *b, const char *reference, const char *prediction) {
    espl_vocabulary v = {0};
    espl_symbols r = {0}, p = {0};
    read_13a(reference, &v, &r);
    read_13a(prediction, &v, &p);
    for (int n = 0; n < ESPL_BLEU_ORDER; n++) {
        espl_overlap o = espl_ngram_overlap(&r, &p, n + 1);
        b->correct[n] += o.matches;
        b->total[n] += o.second;
    }
    b->reference_words += r.n;
    b->prediction_words += p.n;
    espl_symbols_free(&r);
    espl_symbols_free(&p);
    espl_vocabulary_free(&v);
}

double espl_bleu_score(const espl_bleu *b) {
    double log_sum = 0.0, smooth = 1.0;
    if (b->correct[0] == 0)
        return 0.0;
    for (int n = 0; n < ESPL_BLEU_ORDER; n++) {
        if (b->total[n] == 0)
            return 0.0;
        if (b->correct[n] == 0)
            smooth *= 2.0;
        double precision =
            b->correct[n] == 0 ? 100.0 / (smooth * (double)b->total[n]) : 100.0 * (double)b->correct[n] / (double)b->total[n];
        log_sum += log(precision);
    }
    double ratio = (double)b->reference_words / (double)b->prediction_words;
    return (ratio > 1.0 ? exp(1.0 - ratio) : 1.0) * exp(log_sum / ESPL_BLEU_ORDER);
}

/* ---- chrF. */

/* Code points; a byte that is no UTF-8 stands for itself, beyond all code points. */
static void read_characters(const char *text, espl_symbols *characters) {
    const char *word;
    for (size_t size; espl_next_word(&text, &word, &size);)
        while (size > 0) {
            utf8proc_int32_t c;
            utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)word, (utf8proc_ssize_t)size, &c);
            espl_symbols_add(characters, n > 0 ? c : 0x110000 + (unsigned char)*word);
            size -= n > 0 ? (size_t)n : 1;
            word += n > 0 ? n : 1;
        }
}

void espl_chrf_add(espl_chrf *chrf, const char *reference, const char *prediction) {
    espl_symbols r = {0}, p = {0};
    read_characters(reference, &r);
    read_characters(prediction, &p);
    for (int n = 0; n < ESPL_CHRF_ORDER; n++) {
        espl_overlap o = espl_ngram_overlap(&r, &p, n + 1);
        chrf->reference[n] += o.first;
        chrf->prediction[n] += o.first > 0 ? o.second : 0; /* not held against it where the reference has none */
        chrf->matches[n] += o.matches;
    }
    espl_symbols_free(&r);
    espl_symbols_free(&p);
}

double espl_chrf_score(const espl_chrf *chrf) {
    enum { FACTOR = 4 }; /* beta 2, squared */
    double precision = 0.0, recall = 0.0;
    int orders = 0;
    for (int n = 0; n < ESPL_CHRF_ORDER; n++) {
        if (chrf->prediction[n] == 0 || chrf->reference[n] == 0)
            continue;
        precision += (double)chrf->matches[n] / (double)chrf->prediction[n];
        recall += (double)chrf->matches[n] / (double)chrf->reference[n];
        orders++;
    }
    if (precision + recall == 0.0)
        return 0.0;
    precision /= orders;
    recall /= orders;
    return 100.0 * ((1 + FACTOR) * precision * recall / (FACTOR * precision + recall));
}
