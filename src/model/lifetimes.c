#include "src/model/lifetimes.h"

#include "src/core/arena.h"
#include "src/core/buffer.h"

#include <stdlib.h>

static size_t padded(const espl_life *life) { return (life->bytes + ESPL_ALIGN - 1) / ESPL_ALIGN * ESPL_ALIGN; }

static int larger_first(const void *a, const void *b) {
    const espl_life *x = *(espl_life *const *)a, *y = *(espl_life *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x < y ? -1 : x > y;
}

/* Inserts into the list that is sorted by offset. */
static void insert(espl_life **placed, int n_placed, espl_life *life) {
    int at = n_placed;
    for (; at > 0 && placed[at - 1]->offset > life->offset; at--)
        placed[at] = placed[at - 1];
    placed[at] = life;
}

static bool goes_round(const espl_life *life) { return life->first > life->last; }

static bool meet(const espl_life *a, const espl_life *b) {
    if (goes_round(a) && goes_round(b))
        return true;
    if (goes_round(a) || goes_round(b))
        return a->first <= b->last || b->first <= a->last;
    return a->first <= b->last && b->first <= a->last;
}

/* The lowest offset at which `life` meets none of the placed lives (sorted by offset) that are alive with it. */
static size_t lowest_gap(const espl_life *life, espl_life *const *placed, int n_placed) {
    size_t offset = 0;
    for (int i = 0; i < n_placed; i++) {
        const espl_life *other = placed[i];
        if (!meet(life, other))
            continue;
        if (offset + padded(life) <= other->offset)
            break;
        size_t end = other->offset + padded(other);
        offset = end > offset ? end : offset;
    }
    return offset;
}

size_t espl__lives_place(espl_life *lives, int n) {
    espl_life **order = espl_malloc((size_t)n * sizeof *order);
    espl_life **placed = espl_malloc((size_t)n * sizeof *placed);
    size_t total = 0;
    for (int i = 0; i < n; i++)
        order[i] = &lives[i];
    qsort(order, (size_t)n, sizeof *order, larger_first);
    for (int i = 0; i < n; i++) {
        espl_life *life = order[i];
        life->offset = lowest_gap(life, placed, i);
        insert(placed, i, life);
        size_t end = life->offset + padded(life);
        total = end > total ? end : total;
    }
    free(order);
    free(placed);
    return total;
}

void espl__lives_shift(espl_life *lives, int n, int at) {
    for (int i = 0; i < n; i++) {
        lives[i].first += lives[i].first > at;
        lives[i].last += lives[i].last > at;
    }
}
