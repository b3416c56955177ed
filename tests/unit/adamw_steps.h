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

/* How weights are kept. */
typedef enum adamw_way { ADAMW_FP32, ADAMW_MASTER, ADAMW_ALONE, ADAMW_WAYS } adamw_way;

static inline espl_dtype adamw_real(adamw_way way) { return way == ADAMW_FP32 ? ESPL_F32 : ESPL_BF16; }

typedef struct moments {
    void *weight;
    float *master, *m, *v;
} moments;

static inline moments moments_make(adamw_way way, int64_t n) {
    moments s = {malloc((size_t)n * espl_dtype_size(adamw_real(way))), numbers(2, n), numbers(3, n), numbers(4, n)};
    espl_dtype_convert(s.weight, adamw_real(way), s.master, ESPL_F32, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        s.v[i] *= s.v[i];
    if (way != ADAMW_MASTER) {
        free(s.master);
        s.master = NULL;
    }
    return s;
}

static inline void moments_free(moments *s) {
    free(s->weight);
    free(s->master);
    free(s->m);
    free(s->v);
}

static inline bool moments_same(const moments *a, const moments *b, adamw_way way, int64_t n) {
    size_t bytes = (size_t)n * sizeof(float);
    return memcmp(a->weight, b->weight, (size_t)n * espl_dtype_size(adamw_real(way))) == 0 && memcmp(a->m, b->m, bytes) == 0 &&
           memcmp(a->v, b->v, bytes) == 0 && (a->master == NULL || memcmp(a->master, b->master, bytes) == 0);
}

enum { ADAMW_PLACE = 256 * 3, ADAMW_RANGES = 40 };

/* Ranges over n elements: short ones, one that ends amid a vector, gaps, more than one launch takes, and a long one. */
static inline int adamw_ranges(int64_t n, espl_adamw_range ranges[ADAMW_RANGES]) {
    int count = 0;
    for (int64_t at = 0; count + 1 < ADAMW_RANGES && at < n / 2; at = ranges[count - 1].end + count % 3)
        ranges[count++] =
            (espl_adamw_range){.begin = at, .end = at + 1 + n / 100 * (count % 4 == 3) + count, .decay = 0.1f * (float)(count % 2)};
    ranges[count] = (espl_adamw_range){.begin = ranges[count - 1].end, .end = n, .decay = 0.1f};
    return count + 1;
}

/* What of the ranges lies in [from, to), counted from `from`. */
static inline int adamw_clip(const espl_adamw_range *ranges, int n, int64_t from, int64_t to, espl_adamw_range *clipped) {
    int count = 0;
    for (int r = 0; r < n; r++) {
        int64_t begin = ranges[r].begin > from ? ranges[r].begin : from, end = ranges[r].end < to ? ranges[r].end : to;
        if (begin < end)
            clipped[count++] = (espl_adamw_range){.begin = begin - from, .end = end - from, .decay = ranges[r].decay};
    }
    return count;
}

static inline espl_adamw adamw_step(const moments *s, espl_dtype real, const float *grad, int64_t at, int t) {
    return (espl_adamw){.weight = (char *)s->weight + (size_t)at * espl_dtype_size(real),
                        .master = s->master ? s->master + at : NULL,
                        .m = s->m + at,
                        .v = s->v + at,
                        .grad = grad + at,
                        .beta1 = 0.9,
                        .beta2 = 0.999,
                        .grad_scale = 0.5f,
                        .lr = 1e-3f,
                        .eps = 1e-8f,
                        .c1 = (float)(1 - pow(0.9, t)),
                        .c2 = (float)(1 - pow(0.999, t)),
                        .rng = {.seed = 7, .purpose = ESPL_RNG_ROUND, .step = (uint32_t)t, .op = 3},
                        .first = (uint64_t)(ADAMW_PLACE + at)};
}

/* Three steps over the n elements that `s` points to, each in stretches of `cut`. */
static inline void adamw_three_steps(const espl_kernels *kernels, const moments *s, const float *grad, int64_t n, int64_t cut) {
    espl_adamw_range ranges[ADAMW_RANGES], clipped[ADAMW_RANGES];
    int n_ranges = adamw_ranges(n, ranges);
    for (int t = 1; t <= 3; t++)
        for (int64_t i = 0; i < n; i += cut) {
            espl_adamw step = adamw_step(s, kernels->real, grad, i, t);
            step.ranges = clipped;
            step.n_ranges = adamw_clip(ranges, n_ranges, i, n - i < cut ? n : i + cut, clipped);
            kernels->adamw(&step);
        }
}

/* The same by the reference in fp32. Weights that are bf16 alone are widened before each step, and rounded behind it by the contract. */
static inline moments adamw_truth(adamw_way way, const float *grad, int64_t n) {
    moments s = moments_make(way, n), wide = s;
    espl_adamw_range ranges[ADAMW_RANGES];
    int n_ranges = adamw_ranges(n, ranges);
    float *weight = wide.weight = malloc((size_t)n * sizeof *weight);
    espl_dtype_convert(weight, ESPL_F32, s.weight, adamw_real(way), (size_t)n);
    for (int t = 1; t <= 3; t++) {
        espl_adamw step = adamw_step(&wide, ESPL_F32, grad, 0, t);
        step.ranges = ranges;
        step.n_ranges = n_ranges;
        espl_kernels_ref(ESPL_F32)->adamw(&step);
        for (int64_t i = 0; i < n && way == ADAMW_ALONE; i++)
            weight[i] = espl_bf16_to_float(espl_bf16_from_float_noisy(weight[i], espl_rng_u16(&step.rng, step.first + (uint64_t)i)));
    }
    espl_dtype_convert(s.weight, adamw_real(way), weight, ESPL_F32, (size_t)n);
    free(weight);
    return s;
}

#endif
