#include "src/eval/porter_stem.h"

#include <stdbool.h>
#include <string.h>

typedef struct word {
    char *at;
    size_t n;
} word;

/* ---- What Porter's conditions ask of a stem, which is the first n letters of the word. */

static bool is_vowel(char c) { return c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u'; }

/* A y is a consonant at the begin and behind a vowel. */
static bool is_consonant(const char *at, size_t i) {
    size_t first = i;
    while (first > 0 && at[first] == 'y')
        first--;
    bool consonant = !is_vowel(at[first]);
    return (i - first) % 2 == 0 ? consonant : !consonant;
}

/* How often a vowel is followed by a consonant. */
static int measure(const char *at, size_t n) {
    int m = 0;
    bool before = true;
    for (size_t i = 0; i < n; i++) {
        bool now = at[i] == 'y' && i > 0 ? !before : !is_vowel(at[i]);
        m += now && !before;
        before = now;
    }
    return m;
}

static bool has_vowel(const char *at, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!is_consonant(at, i))
            return true;
    return false;
}

static bool ends_twice(const char *at, size_t n) { return n >= 2 && at[n - 1] == at[n - 2] && is_consonant(at, n - 1); }

/* Consonant, vowel, consonant other than w, x, y; of two letters, vowel and consonant. */
static bool ends_cvc(const char *at, size_t n) {
    if (n == 2)
        return !is_consonant(at, 0) && is_consonant(at, 1);
    return n >= 3 && is_consonant(at, n - 3) && !is_consonant(at, n - 2) && is_consonant(at, n - 1) && strchr("wxy", at[n - 1]) == NULL;
}

/* ---- Rules: a suffix, what takes its place, and the least measure of what stands before (-1: none asked). */

typedef struct rule {
    const char *suffix, *replacement;
    int least;
} rule;

#define RULES(...)                                                                                                                         \
    (const rule[]) {                                                                                                                       \
        __VA_ARGS__, { NULL, NULL, 0 }                                                                                                     \
    }

static bool ends_with(word w, const char *suffix) {
    size_t n = strlen(suffix);
    return w.n >= n && memcmp(w.at + w.n - n, suffix, n) == 0;
}

static void replace(word *w, const char *suffix, const char *replacement) {
    size_t n = strlen(replacement);
    w->n -= strlen(suffix);
    memcpy(w->at + w->n, replacement, n);
    w->n += n;
}

/* The first rule whose suffix is there decides; true when it was applied. */
static bool apply(word *w, const rule *rules) {
    for (const rule *r = rules; r->suffix != NULL; r++) {
        if (!ends_with(*w, r->suffix))
            continue;
        bool fits = measure(w->at, w->n - strlen(r->suffix)) >= r->least;
        if (fits)
            replace(w, r->suffix, r->replacement);
        return fits;
    }
    return false;
}

/* ---- The steps. */

static void plurals(word *w) {
    if (w->n == 4 && ends_with(*w, "ies"))
        replace(w, "ies", "ie");
    else
        apply(w, RULES({"sses", "ss", -1}, {"ies", "i", -1}, {"ss", "ss", -1}, {"s", "", -1}));
}

/* After -ed or -ing went: an e comes back, or one of two equal letters goes. */
static void repair(word *w) {
    if (apply(w, RULES({"at", "ate", -1}, {"bl", "ble", -1}, {"iz", "ize", -1})))
        return;
    if (ends_twice(w->at, w->n)) {
        if (strchr("lsz", w->at[w->n - 1]) == NULL)
            w->n--;
    } else if (measure(w->at, w->n) == 1 && ends_cvc(w->at, w->n)) {
        w->at[w->n++] = 'e';
    }
}

static void past_and_gerund(word *w) {
    if (ends_with(*w, "ied")) {
        replace(w, "ied", w->n == 4 ? "ie" : "i");
        return;
    }
    if (ends_with(*w, "eed")) {
        apply(w, RULES({"eed", "ee", 1}));
        return;
    }
    size_t cut = ends_with(*w, "ed") ? 2 : ends_with(*w, "ing") ? 3 : 0;
    if (cut > 0 && has_vowel(w->at, w->n - cut)) {
        w->n -= cut;
        repair(w);
    }
}

static void y_to_i(word *w) {
    if (w->n > 2 && ends_with(*w, "y") && is_consonant(w->at, w->n - 2))
        w->at[w->n - 1] = 'i';
}

static void double_suffixes(word *w) {
    while (ends_with(*w, "alli") && measure(w->at, w->n - 4) > 0)
        replace(w, "alli", "al");
    /* The l of -logi belongs to the stem. */
    if (ends_with(*w, "logi")) {
        if (measure(w->at, w->n - 3) > 0)
            w->n--;
        return;
    }
    apply(w, RULES({"ational", "ate", 1}, {"tional", "tion", 1}, {"enci", "ence", 1}, {"anci", "ance", 1}, {"izer", "ize", 1},
                   {"bli", "ble", 1}, {"alli", "al", 1}, {"entli", "ent", 1}, {"eli", "e", 1}, {"ousli", "ous", 1}, {"ization", "ize", 1},
                   {"ation", "ate", 1}, {"ator", "ate", 1}, {"alism", "al", 1}, {"iveness", "ive", 1}, {"fulness", "ful", 1},
                   {"ousness", "ous", 1}, {"aliti", "al", 1}, {"iviti", "ive", 1}, {"biliti", "ble", 1}, {"fulli", "ful", 1}));
}

static void single_suffixes(word *w) {
    apply(w, RULES({"icate", "ic", 1}, {"ative", "", 1}, {"alize", "al", 1}, {"iciti", "ic", 1}, {"ical", "ic", 1}, {"ful", "", 1},
                   {"ness", "", 1}));
}

static void long_stems(word *w) {
    if (ends_with(*w, "ion")) {
        if (measure(w->at, w->n - 3) > 1 && (w->at[w->n - 4] == 's' || w->at[w->n - 4] == 't'))
            w->n -= 3;
        return;
    }
    apply(w, RULES({"al", "", 2}, {"ance", "", 2}, {"ence", "", 2}, {"er", "", 2}, {"ic", "", 2}, {"able", "", 2}, {"ible", "", 2},
                   {"ant", "", 2}, {"ement", "", 2}, {"ment", "", 2}, {"ent", "", 2}, {"ou", "", 2}, {"ism", "", 2}, {"ate", "", 2},
                   {"iti", "", 2}, {"ous", "", 2}, {"ive", "", 2}, {"ize", "", 2}));
}

static void last_letters(word *w) {
    if (ends_with(*w, "e")) {
        int m = measure(w->at, w->n - 1);
        if (m > 1 || (m == 1 && !ends_cvc(w->at, w->n - 1)))
            w->n--;
    }
    if (ends_with(*w, "ll") && measure(w->at, w->n - 1) > 1)
        w->n--;
}

static bool irregular(word *w) {
    static const char *const words[][2] = {{"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
                                           {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
                                           {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
                                           {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strlen(words[i][0]) != w->n || memcmp(words[i][0], w->at, w->n) != 0)
            continue;
        w->n = strlen(words[i][1]);
        memcpy(w->at, words[i][1], w->n);
        return true;
    }
    return false;
}

size_t espl_porter_stem(char *at, size_t length) {
    word w = {at, length};
    if (irregular(&w) || w.n <= 2)
        return w.n;
    plurals(&w);
    past_and_gerund(&w);
    y_to_i(&w);
    double_suffixes(&w);
    single_suffixes(&w);
    long_stems(&w);
    last_letters(&w);
    return w.n;
}
