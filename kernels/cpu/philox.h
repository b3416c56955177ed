/* The numbers of espl_rng_block (src/core/rng.h), PHILOX_BLOCKS blocks at a time in vectors. */
#ifndef ESPL_KERNELS_CPU_PHILOX_H
#define ESPL_KERNELS_CPU_PHILOX_H

#include "kernels/cpu/real.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define PHILOX_LANES 8
#define PHILOX_MULTIPLY(x, y) ((philox_words)_mm512_mul_epu32((__m512i)(x), _mm512_set1_epi64(y)))
#elif defined(__AVX2__)
#include <immintrin.h>
#define PHILOX_LANES 4
#define PHILOX_MULTIPLY(x, y) ((philox_words)_mm256_mul_epu32((__m256i)(x), _mm256_set1_epi64x(y)))
#else
#define PHILOX_LANES 2
#define PHILOX_MULTIPLY(x, y) (((x)&0xFFFFFFFFu) * (uint64_t)(y))
#endif

enum { PHILOX_BLOCKS = 16 };

/* Each word has 64 bits, of which only the low 32 count: the rest is left over from the products. */
typedef uint64_t philox_words __attribute__((vector_size(PHILOX_LANES * 8), aligned(8), may_alias));
typedef uint32_t philox_halves __attribute__((vector_size(PHILOX_LANES * 8), aligned(4), may_alias));

#if PHILOX_LANES == 8
#define PHILOX_EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#elif PHILOX_LANES == 4
#define PHILOX_EVEN 0, 2, 4, 6, 8, 10, 12, 14
#else
#define PHILOX_EVEN 0, 2, 4, 6
#endif

typedef struct philox {
    uint32_t k0, k1;
    uint64_t c1, c2, c3; /* of the counter; c1 without the block's upper bits */
} philox;

static inline philox philox_of(const espl_rng_key *key) {
    philox p = {.c1 = key->op << 8, .c2 = key->step, .c3 = key->op >> 24};
    espl_rng_words(key, &p.k0, &p.k1);
    return p;
}

/* word[l] = number l of blocks c0. */
static inline __attribute__((always_inline)) void philox_rounds(const philox *p, philox_words c0, philox_words word[4]) {
    philox_words c1 = ((c0 >> 32) & 0xFFu) | p->c1, c2 = p->c2 - (philox_words){0}, c3 = p->c3 - (philox_words){0};
    uint32_t k0 = p->k0, k1 = p->k1;
    for (int round = 0; round < 10; round++) {
        philox_words p0 = PHILOX_MULTIPLY(c0, 0xD2511F53u), p1 = PHILOX_MULTIPLY(c2, 0xCD9E8D57u);
        c0 = (p1 >> 32) ^ c1 ^ (uint64_t)k0;
        c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ (uint64_t)k1;
        c3 = p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}

/* number[l][b] = number l of block first + b * stride. */
static inline void philox_numbers(const philox *p, uint64_t first, uint64_t stride, uint32_t number[4][PHILOX_BLOCKS]) {
    static const uint64_t lane[PHILOX_BLOCKS] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (uint64_t b = 0; b < PHILOX_BLOCKS; b += 2 * PHILOX_LANES) {
        philox_words low[4], high[4];
        philox_rounds(p, (*(const philox_words *)lane + b) * stride + first, low);
        philox_rounds(p, (*(const philox_words *)(lane + PHILOX_LANES) + b) * stride + first, high);
        for (int l = 0; l < 4; l++)
            *(philox_halves *)(number[l] + b) = __builtin_shufflevector((philox_halves)low[l], (philox_halves)high[l], PHILOX_EVEN);
    }
}

typedef uint32_t philox_row __attribute__((vector_size(64), aligned(4), may_alias));

/* Row i is laced with row i + 2, which moves one bit of a row's number to its column's. */
static inline void philox_lace(const philox_row from[4], philox_row to[4]) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        to[2 * i] = __builtin_shufflevector(from[i], from[i + 2], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        to[2 * i + 1] = __builtin_shufflevector(from[i], from[i + 2], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
}

/* Numbers 4 * block .. of PHILOX_BLOCKS blocks on end, in the stream's order. */
static inline void philox_stretch(const philox *p, uint64_t block, uint32_t to[4 * PHILOX_BLOCKS]) {
    uint32_t number[4][PHILOX_BLOCKS];
    philox_row half_way[4];
    philox_numbers(p, block, 1, number);
    philox_lace((const philox_row *)number, half_way);
    philox_lace(half_way, (philox_row *)to);
}

#endif
