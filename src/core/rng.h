/* Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A number is a pure function of who asks for it - (seed, purpose, step,
 * micro-batch, op) - and of the element's index, so it is the same on any number of ranks, in any
 * order, and when it is computed again. */
#ifndef ESPL_CORE_RNG_H
#define ESPL_CORE_RNG_H

#include "src/core/export.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum espl_purpose {
    ESPL_RNG_INIT = 1,    /* weights; op = parameter index */
    ESPL_RNG_DROPOUT = 2, /* op = row of the tape */
    ESPL_RNG_ORDER = 3,   /* data permutation; step = epoch, op = source */
    ESPL_RNG_SAMPLE = 4,  /* generation; step = position, op = sequence */
    ESPL_RNG_ROUND = 5,   /* stochastic rounding of weights; op = bucket, element = place in it */
    ESPL_RNG_TEST = 6,
    ESPL_RNG_MASK = 7,    /* masked LM; step = pass over the source, op = source, element = 4 x token + draw */
    ESPL_RNG_SIMULATE = 8 /* a plan's simulation; step = its step, op = what is drawn, element = rank or failure */
} espl_purpose;

typedef struct espl_rng_key {
    uint64_t seed;
    uint32_t purpose, step, micro, op;
} espl_rng_key;

typedef struct espl_rng4 {
    uint32_t v[4];
} espl_rng4;

/* Local. The four numbers of counter block `block` under (key0, key1); rounds as in the paper, table 2. */
static inline ESPL_ANYWHERE espl_rng4 espl_philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (espl_rng4){{c0, c1, c2, c3}};
}

/* Local. Key words of a key: seed mixed with purpose, so that purposes never share a stream. */
static inline ESPL_ANYWHERE void espl_rng_words(const espl_rng_key *key, uint32_t *k0, uint32_t *k1) {
    *k0 = (uint32_t)key->seed ^ (key->purpose * 0x9E3779B9u);
    *k1 = (uint32_t)(key->seed >> 32) ^ (key->micro * 0x85EBCA6Bu);
}

/* Local. Numbers 4*block .. 4*block+3 of the stream `key`; block < 2^40. */
static inline ESPL_ANYWHERE espl_rng4 espl_rng_block(const espl_rng_key *key, uint64_t block) {
    uint32_t k0, k1;
    espl_rng_words(key, &k0, &k1);
    return espl_philox((uint32_t)block, ((uint32_t)(block >> 32) & 0xFFu) | (key->op << 8), key->step, key->op >> 24, k0, k1);
}

/* Local. Number `element` of the stream, uniform over 32 bits. */
static inline ESPL_ANYWHERE uint32_t espl_rng_u32(const espl_rng_key *key, uint64_t element) {
    return espl_rng_block(key, element >> 2).v[element & 3];
}

/* Local. 16 bits for `element`: a half of number element / 2, so that a block serves eight elements. */
static inline ESPL_ANYWHERE uint32_t espl_rng_u16(const espl_rng_key *key, uint64_t element) {
    return espl_rng_u32(key, element >> 1) >> 16 * (element & 1) & 0xFFFFu;
}

/* Local. Uniform in (0, 1): 24 bits and a half step, exact in float. */
static inline ESPL_ANYWHERE float espl_rng_uniform(uint32_t bits) { return ((float)(bits >> 8) + 0.5f) * 0x1p-24f; }

/* Local. The keep threshold of dropout p: an element is kept when its 32 bits are >= this. */
static inline ESPL_ANYWHERE uint32_t espl_rng_threshold(float p) { return (uint32_t)(p * 4294967296.0); }

/* Local. Standard normal number `element` of the stream (Box-Muller, in double). */
double espl_rng_normal(const espl_rng_key *key, uint64_t element);

#ifdef __cplusplus
}
#endif

#endif
