#include "kernels/cpu/philox.h"
#include "kernels/cpu/table.h"

#include <math.h>

enum { SQUARES = 256, SQUARE_PIECES = 4096 /* blocks whose sums one parallel stretch holds */ };

/* n elements from `from` on; `weight` points to the first of them. */
static void adamw_floats(const espl_adamw *s, float decay, float *restrict weight, int64_t from, int64_t n) {
    float b1 = (float)s->beta1, b2 = (float)s->beta2, a1 = (float)(1.0 - s->beta1), a2 = (float)(1.0 - s->beta2);
    float lr = s->lr, eps = s->eps, c1 = s->c1, c2 = s->c2, grad_scale = s->grad_scale;
    float *restrict m = s->m + from, *restrict v = s->v + from;
    const float *restrict grad = s->grad + from;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * grad_scale;
        float mi = b1 * m[i] + a1 * g, vi = b2 * v[i] + a2 * g * g;
        m[i] = mi;
        v[i] = vi;
        weight[i] -= lr * ((mi / c1) / (__builtin_sqrtf(vi / c2) + eps) + decay * weight[i]);
    }
}

#ifdef ESPL_REAL_BF16
enum { NOISES = 8 * PHILOX_BLOCKS };

/* noise[i] = espl_rng_u16 of element 8 * block + i. */
static void fill_noise(const philox *stream, uint64_t block, uint16_t noise[NOISES]) {
    uint32_t number[NOISES / 2];
    philox_stretch(stream, block, number);
#pragma omp simd
    for (int i = 0; i < NOISES; i++)
        noise[i] = (uint16_t)(number[i / 2] >> i % 2 * 16);
}

static void adamw_alone(const espl_adamw *s, float decay, int64_t from, int64_t to) {
    philox stream = philox_of(&s->rng);
    uint16_t noise[NOISES];
    float w[NOISES];
    for (int64_t n; from < to; from += n) {
        uint64_t element = s->first + (uint64_t)from;
        int64_t lead = (int64_t)(element % 8);
        real *weight = (real *)s->weight + from;
        n = min64(to - from, NOISES - lead);
        fill_noise(&stream, element / 8, noise);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            w[i] = load(weight + i);
        adamw_floats(s, decay, w, from, n);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            weight[i] = espl_bf16_from_float_noisy(w[i], noise[lead + i]);
    }
}
#else
static void adamw_alone(const espl_adamw *s, float decay, int64_t from, int64_t to) {
    adamw_floats(s, decay, (real *)s->weight + from, from, to - from);
}
#endif

static void adamw_stretch(const espl_adamw *s, float decay, int64_t from, int64_t to) {
    real *weight = s->weight;
    if (s->master == NULL) {
        adamw_alone(s, decay, from, to);
        return;
    }
    adamw_floats(s, decay, s->master + from, from, to - from);
    for (int64_t i = from; i < to; i++)
        store(weight + i, s->master[i]);
}

void CPU(adamw)(const espl_adamw *s) {
    int64_t end = s->n_ranges > 0 ? s->ranges[s->n_ranges - 1].end : 0;
#pragma omp parallel for
    for (int64_t c = 0; c < end; c += CPU_CHUNK)
        for (const espl_adamw_range *r = s->ranges; r < s->ranges + s->n_ranges; r++) {
            int64_t from = max64(c, r->begin), to = min64(c + CPU_CHUNK, r->end);
            if (from < to)
                adamw_stretch(s, r->decay, from, to);
        }
}

/* Lane l of 8 sums the squares of elements l, l + 8, ... in order. */
static double squares(const float *x, int64_t n) {
    double lane[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += (double)x[i + l] * x[i + l];
    for (int l = 0; i + l < n; l++)
        lane[l] += (double)x[i + l] * x[i + l];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

static void add_block(const float *x, int64_t n, double sum, espl_exact *exact) {
    if (isfinite(sum))
        espl_exact_add(exact, sum);
    for (int64_t i = 0; !isfinite(sum) && i < n; i++)
        espl_exact_add(exact, (double)x[i] * x[i]);
}

void CPU(sum_squares)(const float *x, int64_t n, espl_exact *sum) {
    double block[SQUARE_PIECES];
    for (int64_t start = 0; start < n; start += SQUARES * SQUARE_PIECES) {
        int64_t count = pieces(min64(n - start, SQUARES * SQUARE_PIECES), SQUARES);
#pragma omp parallel for
        for (int64_t b = 0; b < count; b++)
            block[b] = squares(x + start + b * SQUARES, min64(SQUARES, n - start - b * SQUARES));
        for (int64_t b = 0; b < count; b++)
            add_block(x + start + b * SQUARES, min64(SQUARES, n - start - b * SQUARES), block[b], sum);
    }
}

void CPU(sum)(const float *x, int64_t n, espl_exact *sum) {
    for (int64_t i = 0; i < n; i++)
        espl_exact_add(sum, x[i]);
}

void CPU(add)(float *to, const float *from, int64_t n) {
#pragma omp parallel for
    for (int64_t c = 0; c < n; c += CPU_CHUNK)
        for (int64_t i = c; i < min64(c + CPU_CHUNK, n); i++)
            to[i] += from[i];
}

void CPU(zero)(void *to, size_t bytes) {
#pragma omp parallel for
    for (size_t at = 0; at < bytes; at += 1 << 18)
        memset((char *)to + at, 0, bytes - at < 1 << 18 ? bytes - at : 1 << 18);
}

void CPU(copy)(void *to, const void *from, size_t bytes) {
#pragma omp parallel for
    for (size_t at = 0; at < bytes; at += 1 << 18)
        memcpy((char *)to + at, (const char *)from + at, bytes - at < 1 << 18 ? bytes - at : 1 << 18);
}
