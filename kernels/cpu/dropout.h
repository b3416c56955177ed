/* Dropout over a stretch of elements of a stream (espl_rng_u32, four to a Philox block). */
#ifndef ESPL_KERNELS_CPU_DROPOUT_H
#define ESPL_KERNELS_CPU_DROPOUT_H

#include "kernels/cpu/real.h"

typedef struct dropout {
    espl_rng_key key;
    uint32_t threshold;
    float scale; /* 1 / (1 - p) */
    bool on;
} dropout;

/* Local. to[i] = scale or 0 by n numbers of the stream. */
static inline void dropout_keep(const dropout *drop, const uint32_t *number, float *to, int64_t n) {
    uint32_t threshold = drop->threshold;
    float scale = drop->scale;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = number[i] >= threshold ? scale : 0.0f;
}

/* Local. The dropout of a row of the tape; off when p = 0 or not training. */
dropout CPU(dropout_of)(const espl_args *args);

/* Local. to[i] = scale or 0, for elements first .. first + n - 1. */
void CPU(dropout_mask)(const dropout *drop, uint64_t first, int64_t n, float *to);

#endif
