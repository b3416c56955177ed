#include "src/data/packing.h"

#include "src/core/buffer.h"
#include "src/core/status.h"

#include <stdlib.h>
#include <string.h>

/* A piece of two measures, as shares of their budgets, and its number. */
typedef struct measured {
    double first, second;
    int32_t piece;
} measured;

struct espl_packer {
    int64_t budget, second, limit; /* limit: pieces of a bin; 0: none */
    int32_t *head;                 /* [budget + 1] a bin with this much free space, -1: none */
    uint64_t *full_map, *coarse;   /* bit f: head[f] >= 0; bit w: word w of full_map is not 0 */
    int64_t *start;                /* [budget + 2] counting sort of the lengths */
    int32_t *next, *order;         /* [capacity] bins of equal free space; pieces, longest first */
    int32_t *count;                /* [capacity] pieces of a bin */
    int64_t capacity;
    measured *left; /* [n_measured] pieces of two measures that are not yet placed */
    int64_t n_measured;
};

static int64_t words(int64_t bits) { return (bits + 63) / 64; }

espl_packer *espl__packer_make(int64_t budget, int64_t second) {
    ESPL_ASSERT(budget > 0 && budget <= INT32_MAX, "a micro-batch of %lld tokens", (long long)budget);
    espl_packer *packer = espl_calloc(1, sizeof *packer);
    packer->budget = budget;
    packer->second = second;
    packer->head = espl_malloc((size_t)(budget + 1) * sizeof *packer->head);
    memset(packer->head, 0xFF, (size_t)(budget + 1) * sizeof *packer->head);
    packer->full_map = espl_calloc((size_t)words(budget + 1), sizeof *packer->full_map);
    packer->coarse = espl_calloc((size_t)words(words(budget + 1)), sizeof *packer->coarse);
    packer->start = espl_malloc((size_t)(budget + 2) * sizeof *packer->start);
    return packer;
}

void espl__packer_limit(espl_packer *packer, int64_t pieces) { packer->limit = pieces; }

void espl__packer_free(espl_packer **packer) {
    if (*packer == NULL)
        return;
    free((*packer)->head);
    free((*packer)->full_map);
    free((*packer)->coarse);
    free((*packer)->start);
    free((*packer)->next);
    free((*packer)->order);
    free((*packer)->count);
    free((*packer)->left);
    free(*packer);
    *packer = NULL;
}

static void reserve(espl_packer *packer, int64_t n) {
    if (n <= packer->capacity)
        return;
    packer->next = espl_realloc(packer->next, (size_t)n * sizeof *packer->next);
    packer->order = espl_realloc(packer->order, (size_t)n * sizeof *packer->order);
    packer->count = espl_realloc(packer->count, (size_t)n * sizeof *packer->count);
    packer->capacity = n;
}

/* First set bit at or after `from`, -1 when there is none below `bits`. */
static int64_t next_bit(const uint64_t *map, int64_t from, int64_t bits) {
    for (int64_t w = from / 64; w < words(bits); w++) {
        uint64_t word = map[w] & (w == from / 64 ? ~0ull << (from % 64) : ~0ull);
        if (word != 0)
            return w * 64 + __builtin_ctzll(word);
    }
    return -1;
}

/* The smallest free space >= want that some bin has, -1 when none. */
static int64_t smallest_fit(const espl_packer *packer, int64_t want) {
    int64_t w = want / 64;
    uint64_t word = packer->full_map[w] & ~0ull << (want % 64);
    if (word == 0) {
        w = next_bit(packer->coarse, w + 1, words(packer->budget + 1));
        if (w < 0)
            return -1;
        word = packer->full_map[w];
    }
    return w * 64 + __builtin_ctzll(word);
}

static int32_t take_bin(espl_packer *packer, int64_t room) {
    int32_t bin = packer->head[room];
    packer->head[room] = packer->next[bin];
    if (packer->head[room] < 0) {
        packer->full_map[room / 64] &= ~(1ull << (room % 64));
        if (packer->full_map[room / 64] == 0)
            packer->coarse[room / 4096] &= ~(1ull << (room / 64 % 64));
    }
    return bin;
}

static void put_bin(espl_packer *packer, int32_t bin, int64_t room) {
    packer->next[bin] = packer->head[room];
    packer->head[room] = bin;
    packer->full_map[room / 64] |= 1ull << (room % 64);
    packer->coarse[room / 4096] |= 1ull << (room / 64 % 64);
}

/* Stable, so that the result is a function of the lengths alone. */
static void sort_longest_first(espl_packer *packer, const int32_t *length, int64_t n) {
    int64_t *start = packer->start, total = 0;
    memset(start, 0, (size_t)(packer->budget + 2) * sizeof *start);
    for (int64_t i = 0; i < n; i++)
        start[length[i]]++;
    for (int64_t l = packer->budget; l >= 0; l--) {
        int64_t count = start[l];
        start[l] = total;
        total += count;
    }
    for (int64_t i = 0; i < n; i++)
        packer->order[start[length[i]]++] = (int32_t)i;
}

static void forget_bins(espl_packer *packer) {
    int64_t bits = packer->budget + 1;
    for (int64_t room = next_bit(packer->full_map, 0, bits); room >= 0; room = next_bit(packer->full_map, room, bits)) {
        packer->head[room] = -1;
        packer->full_map[room / 64] &= ~(1ull << (room % 64));
    }
    memset(packer->coarse, 0, (size_t)words(words(bits)) * sizeof *packer->coarse);
}

/* ---- Two measures: a bin after the other is filled with the piece that points most along the room that is left, until none fits
 * (Panigrahy et al., "Heuristics for vector bin packing", 2011: the dot product). */

/* The best of the pieces left, n: none fits. */
static int64_t best_along(const measured *left, int64_t n, const int32_t *length, const int32_t *second, const int64_t room[2],
                          const double share[2]) {
    int64_t best = n;
    double most = -1;
    for (int64_t i = 0; i < n; i++) {
        double along = left[i].first * share[0] + left[i].second * share[1];
        if (along > most && length[left[i].piece] <= room[0] && second[left[i].piece] <= room[1]) {
            best = i;
            most = along;
        }
    }
    return best;
}

static int64_t pack_two(espl_packer *packer, const int32_t *length, const int32_t *second, int64_t n, int32_t *bin) {
    const double budget[2] = {(double)packer->budget, (double)packer->second};
    int64_t n_bins = 0;
    if (n > packer->n_measured) {
        packer->left = espl_realloc(packer->left, (size_t)n * sizeof *packer->left);
        packer->n_measured = n;
    }
    measured *left = packer->left;
    for (int64_t i = 0; i < n; i++)
        left[i] = (measured){(double)length[i] / budget[0], (double)second[i] / budget[1], (int32_t)i};
    for (; n > 0; n_bins++) {
        int64_t room[2] = {packer->budget, packer->second};
        for (;;) {
            const double share[2] = {(double)room[0] / budget[0], (double)room[1] / budget[1]};
            int64_t best = best_along(left, n, length, second, room, share);
            if (best == n)
                break;
            bin[left[best].piece] = (int32_t)n_bins;
            room[0] -= length[left[best].piece];
            room[1] -= second[left[best].piece];
            left[best] = left[--n];
        }
    }
    return n_bins;
}

/* ---- */

int64_t espl__pack_best_fit(espl_packer *packer, const int32_t *length, const int32_t *second, int64_t n, int32_t *bin) {
    if (packer->second > 0)
        return pack_two(packer, length, second, n, bin);
    reserve(packer, n);
    sort_longest_first(packer, length, n);
    int64_t n_bins = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t piece = packer->order[i];
        int64_t room = smallest_fit(packer, length[piece]);
        bin[piece] = room < 0 ? (int32_t)n_bins++ : take_bin(packer, room);
        int32_t pieces = packer->count[bin[piece]] = room < 0 ? 1 : packer->count[bin[piece]] + 1;
        put_bin(packer, bin[piece], pieces == packer->limit ? 0 : (room < 0 ? packer->budget : room) - length[piece]);
    }
    forget_bins(packer);
    return n_bins;
}

int64_t espl__pack_next_fit(const espl_packer *packer, const int32_t *length, const int32_t *second, int64_t n, int32_t *bin) {
    int64_t n_bins = 0, room = 0, left = 0, pieces = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t more = packer->second > 0 ? second[i] : 0;
        if (length[i] > room || more > left || (packer->limit > 0 && pieces == packer->limit)) {
            n_bins++;
            pieces = 0;
            room = packer->budget;
            left = packer->second;
        }
        bin[i] = (int32_t)(n_bins - 1);
        room -= length[i];
        left -= more;
        pieces++;
    }
    return n_bins;
}
