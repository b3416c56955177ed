#include "src/config/nearest.h"

#include <stdbool.h>
#include <string.h>

enum { MAX_WORD = 64 };

static int min2(int a, int b) { return a < b ? a : b; }

/* Optimal string alignment over the first MAX_WORD - 1 characters. */
static int edits(const char *a, const char *b) {
    int n = (int)strnlen(a, MAX_WORD - 1), m = (int)strnlen(b, MAX_WORD - 1);
    int row[3][MAX_WORD];
    for (int j = 0; j <= m; j++)
        row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *older = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            now[j] = min2(min2(now[j - 1], last[j]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = min2(now[j], older[j - 2] + 1);
        }
    }
    return row[n % 3][m];
}

static bool begins(const char *word, const char *with) { return strlen(with) >= 3 && strncmp(word, with, strlen(with)) == 0; }

static bool are_initials(const char *initials, const char *word) {
    for (bool first = true; *word != '\0'; first = *word == '_' || *word == '-', word++) {
        if (first && *initials++ != *word)
            return false;
    }
    return *initials == '\0';
}

static bool is_part(const char *part, const char *word) {
    size_t n = strlen(part);
    for (const char *at = word; n >= 3 && (at = strstr(at, part)) != NULL; at++) {
        if ((at == word || at[-1] == '_') && (at[n] == '\0' || at[n] == '_'))
            return true;
    }
    return false;
}

int espl_word_distance(const char *word, const char *known) {
    int distance = edits(word, known);
    if (begins(word, known) || begins(known, word) || are_initials(known, word))
        return min2(distance, 1);
    return is_part(known, word) || is_part(word, known) ? min2(distance, 2) : distance;
}

int espl_word_distance_limit(const char *word) {
    size_t n = strlen(word);
    return n <= 2 ? 1 : n <= 8 ? 2 : 3;
}

int64_t espl_word_nearest(const char *word, const char *const *known, int64_t n) {
    int64_t best = -1;
    int best_distance = espl_word_distance_limit(word) + 1;
    for (int64_t i = 0; i < n; i++) {
        int distance = espl_word_distance(word, known[i]);
        if (distance < best_distance) {
            best_distance = distance;
            best = i;
        }
    }
    return best;
}
