/* Keyed permutations of 0 .. n-1 in memory of order sqrt(n).
 *
 * A Feistel network over a x b >= n points whose round functions are tables of random numbers (Luby and Rackoff, "How to construct
 * pseudorandom permutations from pseudorandom functions", 1988); points beyond n are walked over (Black and Rogaway, "Ciphers with
 * arbitrary finite domains", 2002). a x b exceeds n by less than a row, so walking is rare. */
#ifndef ESPL_DATA_PERMUTATION_H
#define ESPL_DATA_PERMUTATION_H

#include "src/core/rng.h"

enum { ESPL_PERMUTATION_ROUNDS = 6 };

typedef struct espl_permutation {
    int64_t n;
    int64_t columns, rows;                    /* a point i is (i % columns, i / columns) */
    uint32_t *shift[ESPL_PERMUTATION_ROUNDS]; /* even rounds: by row, below columns; odd rounds: by column, below rows */
    uint32_t *memory;                         /* owned */
    int64_t capacity;
} espl_permutation;

/* Local. Makes (or makes anew, keeping memory) the permutation of n points under a key; zero the struct before the first time. */
void espl__permutation_make(const espl_rng_key *key, int64_t n, espl_permutation *permutation);

/* Local. Where point i goes. */
int64_t espl__permutation_at(const espl_permutation *permutation, int64_t i);

/* Local. Frees and zeroes. */
void espl__permutation_free(espl_permutation *permutation);

#endif
