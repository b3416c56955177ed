#include "src/data/permutation.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>

void espl__permutation_make(const espl_rng_key *key, int64_t n, espl_permutation *permutation) {
    permutation->n = n;
    permutation->columns = n > 1 ? (int64_t)ceil(sqrt((double)n)) : 1;
    permutation->rows = n > 0 ? (n + permutation->columns - 1) / permutation->columns : 1;
    int64_t need = ESPL_PERMUTATION_ROUNDS / 2 * (permutation->columns + permutation->rows);
    if (need > permutation->capacity) {
        permutation->memory = espl_realloc(permutation->memory, (size_t)need * sizeof *permutation->memory);
        permutation->capacity = need;
    }
    uint32_t *table = permutation->memory;
    uint64_t element = 0;
    for (int round = 0; round < ESPL_PERMUTATION_ROUNDS; round++) {
        int64_t size = round % 2 == 0 ? permutation->rows : permutation->columns;
        int64_t below = round % 2 == 0 ? permutation->columns : permutation->rows;
        permutation->shift[round] = table;
        for (int64_t i = 0; i < size; i++)
            *table++ = (uint32_t)((uint64_t)espl_rng_u32(key, element++) * (uint64_t)below >> 32);
    }
}

int64_t espl__permutation_at(const espl_permutation *permutation, int64_t i) {
    int64_t columns = permutation->columns, rows = permutation->rows;
    do {
        int64_t column = i % columns, row = i / columns;
        for (int round = 0; round < ESPL_PERMUTATION_ROUNDS; round += 2) {
            column += permutation->shift[round][row];
            column -= column >= columns ? columns : 0;
            row += permutation->shift[round + 1][column];
            row -= row >= rows ? rows : 0;
        }
        i = row * columns + column;
    } while (i >= permutation->n);
    return i;
}

void espl__permutation_free(espl_permutation *permutation) {
    free(permutation->memory);
    *permutation = (espl_permutation){0};
}
