/* What tests of AdamW start from, and the steps they take: the same numbers for every backend, so that bits can be compared. */
#ifndef ESPL_TESTS_UNIT_ADAMW_STEPS_H
#define ESPL_TESTS_UNIT_ADAMW_STEPS_H

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>

/* n normal numbers; the caller frees them. */
static inline float *numbers(uint32_t op, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    espl_rng_key key = {.seed = 4, .purpose = ESPL_RNG_TEST, .op = op};
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)espl_rng_normal(&key, (uint64_t)i);
    return x;
}

typedef struct moments {
    float *weight, *m, *v;
    espl_bf16 *copy; /* NULL: not wanted */
} moments;

static inline moments moments_make(int64_t n) {
    moments s = {numbers(2, n), numbers(3, n), numbers(4, n), calloc((size_t)n, sizeof(espl_bf16))};
    for (int64_t i = 0; i < n; i++)
        s.v[i] *= s.v[i];
    return s;
}

static inline void moments_free(moments *s) {
    free(s->weight);
    free(s->m);
    free(s->v);
    free(s->copy);
}

/* Three steps over the n elements that `s` points to, each in stretches of `cut`. */
static inline void adamw_three_steps(const espl_kernels *kernels, const moments *s, const float *grad, int64_t n, int64_t cut) {
    for (int t = 1; t <= 3; t++)
        for (int64_t i = 0; i < n; i += cut) {
            espl_adamw step = {.weight = s->weight + i,
                               .m = s->m + i,
                               .v = s->v + i,
                               .grad = grad + i,
                               .copy = s->copy ? s->copy + i : NULL,
                               .n = n - i < cut ? n - i : cut,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .grad_scale = 0.5f,
                               .lr = 1e-3f,
                               .eps = 1e-8f,
                               .decay = 0.1f,
                               .c1 = (float)(1 - pow(0.9, t)),
                               .c2 = (float)(1 - pow(0.999, t))};
            kernels->adamw(&step);
        }
}

#endif
