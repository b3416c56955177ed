#include "kernels/cpu/philox.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/update.h"
#include "kernels/dynamic_map.h"

#include <math.h>

enum { SQUARES = 256, SQUARE_PIECES = 4096 /* blocks whose sums one parallel stretch holds */ };

static void adamw_floats(const espl_rule_step *s, const espl_rule_range *r, float *restrict weight, int64_t from, int64_t n) {
    float b1 = (float)s->beta1, b2 = (float)s->beta2, a1 = (float)(1.0 - s->beta1), a2 = (float)(1.0 - s->beta2);
    float lr = r->lr, decay = r->decay, c1 = r->c1, c2 = r->c2, eps = s->eps, grad_scale = s->grad_scale;
    float *restrict m = (float *)s->state[0] + from, *restrict v = (float *)s->state[1] + from;
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

static void lion_floats(const espl_rule_step *s, const espl_rule_range *r, float *restrict weight, int64_t from, int64_t n) {
    float b1 = (float)s->beta1, b2 = (float)s->beta2, a1 = (float)(1.0 - s->beta1), a2 = (float)(1.0 - s->beta2);
    float lr = r->lr, decay = r->decay, grad_scale = s->grad_scale;
    float *restrict m = (float *)s->state[0] + from;
    const float *restrict grad = s->grad + from;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * grad_scale, ahead = b1 * m[i] + a1 * g;
        m[i] = b2 * m[i] + a2 * g;
        weight[i] -= lr * ((float)((ahead > 0) - (ahead < 0)) + decay * weight[i]);
    }
}

static void sgd_floats(const espl_rule_step *s, const espl_rule_range *r, float *restrict weight, int64_t from, int64_t n) {
    float lr = r->lr, decay = r->decay, momentum = s->momentum, grad_scale = s->grad_scale;
    bool nesterov = s->nesterov;
    float *restrict m = (float *)s->state[0] + from;
    const float *restrict grad = s->grad + from;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * grad_scale + decay * weight[i], mi = momentum * m[i] + g;
        m[i] = mi;
        weight[i] -= lr * (nesterov ? g + momentum * mi : mi);
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

static void update_alone(const espl_rule_step *s, floats_fn *floats, const espl_rule_range *r, int64_t from, int64_t to) {
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
        floats(s, r, w, from, n);
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            weight[i] = espl_bf16_from_float_noisy(w[i], noise[lead + i]);
    }
}
#else
static void update_alone(const espl_rule_step *s, floats_fn *floats, const espl_rule_range *r, int64_t from, int64_t to) {
    floats(s, r, (real *)s->weight + from, from, to - from);
}
#endif

void CPU(update_stretch)(const espl_rule_step *s, floats_fn *floats, const espl_rule_range *r, int64_t from, int64_t to) {
    real *weight = s->weight;
    if (s->master == NULL) {
        update_alone(s, floats, r, from, to);
        return;
    }
    floats(s, r, s->master + from, from, to - from);
    for (int64_t i = from; i < to; i++)
        store(weight + i, s->master[i]);
}

static int64_t end_of(const espl_rule_step *s) { return s->n_ranges > 0 ? s->ranges[s->n_ranges - 1].end : 0; }

static void update(const espl_rule_step *s, floats_fn *floats) {
    int64_t end = end_of(s);
#pragma omp parallel for
    for (int64_t c = 0; c < end; c += CPU_CHUNK)
        for (const espl_rule_range *r = s->ranges; r < s->ranges + s->n_ranges; r++) {
            int64_t from = max64(c, r->begin), to = min64(c + CPU_CHUNK, r->end);
            if (from < to)
                CPU(update_stretch)(s, floats, r, from, to);
        }
}

void CPU(adamw)(const espl_rule_step *s) { update(s, adamw_floats); }
void CPU(lion)(const espl_rule_step *s) { update(s, lion_floats); }
void CPU(sgd)(const espl_rule_step *s) { update(s, sgd_floats); }

/* ---- States of a byte. */

enum { BLOCK = ESPL_STATE_BLOCK };

static void widen(const float *map, const uint8_t *code, float scale, float *x) {
    for (int i = 0; i < BLOCK; i++)
        x[i] = map[code[i]] * scale;
}

static float narrow(const float *map, const float *x, uint8_t *code) {
    float scale = 0;
#pragma omp simd reduction(max : scale)
    for (int i = 0; i < BLOCK; i++)
        scale = fmaxf(scale, fabsf(x[i]));
    for (int i = 0; i < BLOCK; i++)
        code[i] = (uint8_t)espl_map_nearest(map, scale > 0 ? x[i] / scale : 0);
    return scale;
}

typedef struct maps {
    float with_sign[ESPL_MAP_SIZE], without[ESPL_MAP_SIZE];
} maps;

static void clear(float *m, float *v, int64_t from, int64_t to) {
    for (int64_t i = from; i < to; i++)
        m[i] = v[i] = 0;
}

/* AdamW of what lies in a range of the block at element `at`, with its moments as floats; whether that is anything. */
static bool update_block(const espl_rule_step *s, int64_t at, float *m, float *v) {
    espl_rule_step block = {.weight = (real *)s->weight + at,
                            .master = s->master ? s->master + at : NULL,
                            .state = {m, v},
                            .grad = s->grad + at,
                            .beta1 = s->beta1,
                            .beta2 = s->beta2,
                            .grad_scale = s->grad_scale,
                            .eps = s->eps,
                            .rng = s->rng,
                            .first = s->first + (uint64_t)at};
    int64_t done = 0;
    for (const espl_rule_range *r = s->ranges; r < s->ranges + s->n_ranges; r++) {
        int64_t from = max64(at, r->begin) - at, to = min64(at + BLOCK, r->end) - at;
        if (from >= to)
            continue;
        CPU(update_stretch)(&block, adamw_floats, r, from, to);
        clear(m, v, done, from);
        done = to;
    }
    clear(m, v, done, BLOCK);
    return done > 0;
}

static void adamw8bit_block(const espl_rule_step *s, const maps *maps, int64_t at) {
    float m[BLOCK], v[BLOCK];
    uint8_t *m_code = (uint8_t *)s->state[0] + at, *v_code = (uint8_t *)s->state[1] + at;
    float *m_scale = (float *)s->state[2] + at / BLOCK, *v_scale = (float *)s->state[3] + at / BLOCK;
    widen(maps->with_sign, m_code, *m_scale, m);
    widen(maps->without, v_code, *v_scale, v);
    if (!update_block(s, at, m, v))
        return;
    *m_scale = narrow(maps->with_sign, m, m_code);
    *v_scale = narrow(maps->without, v, v_code);
}

void CPU(adamw8bit)(const espl_rule_step *s) {
    maps maps;
    int64_t end = end_of(s);
    espl_map_fill(maps.with_sign, true);
    espl_map_fill(maps.without, false);
#pragma omp parallel for
    for (int64_t at = 0; at < end; at += BLOCK)
        adamw8bit_block(s, &maps, at);
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

void CPU(round_parts)(const espl_rank_parts *to, const float *from, int64_t from_stride) {
#pragma omp parallel for collapse(2)
    for (int r = 0; r < to->size; r++)
        for (int64_t c = 0; c < to->n; c += CPU_CHUNK)
            if (r != to->rank)
                for (int64_t i = c; i < min64(c + CPU_CHUNK, to->n); i++)
                    to->data[r * to->stride + i] = espl_bf16_from_float(from[r * from_stride + i]);
}

static void add_parts_stretch(float *restrict own, const espl_rank_parts *from, int64_t at, int64_t n) {
    float sum[CPU_STRETCH];
    for (int r = 0; r < from->size; r++) {
        const espl_bf16 *part = from->data + r * from->stride + at;
        for (int64_t i = 0; i < n; i++) {
            float value = r == from->rank ? own[at + i] : espl_bf16_to_float(part[i]);
            sum[i] = r == 0 ? value : sum[i] + value;
        }
    }
    memcpy(own + at, sum, (size_t)n * sizeof *own);
}

void CPU(add_parts)(float *own, const espl_rank_parts *from) {
#pragma omp parallel for
    for (int64_t at = 0; at < from->n; at += CPU_STRETCH)
        add_parts_stretch(own, from, at, min64(CPU_STRETCH, from->n - at));
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
