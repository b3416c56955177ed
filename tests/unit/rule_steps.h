/* What tests of update rules start from, and the steps they take: the same numbers for every backend, so that bits can be compared. */
#ifndef ESPL_TESTS_UNIT_RULE_STEPS_H
#define ESPL_TESTS_UNIT_RULE_STEPS_H

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* n normal numbers; the caller frees them. */
static inline float *numbers(uint32_t op, int64_t n) {
    float *x = malloc((size_t)n * sizeof *x);
    espl_rng_key key = {.seed = 4, .purpose = ESPL_RNG_TEST, .op = op};
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)espl_rng_normal(&key, (uint64_t)i);
    return x;
}

/* How weights are kept. */
typedef enum weight_way { WAY_FP32, WAY_MASTER, WAY_ALONE, N_WAYS } weight_way;

static inline espl_dtype way_real(weight_way way) { return way == WAY_FP32 ? ESPL_F32 : ESPL_BF16; }

/* Whether a rule works on elements; the others are those of whole_steps.h. */
static inline bool by_elements(int rule) { return espl_rules[rule].matrices == ESPL_MATRICES_NONE; }

/* n weights and what a rule keeps for them. */
typedef struct kept {
    espl_rule rule;
    weight_way way;
    int64_t n;
    void *weight;
    float *master;
    void *state[ESPL_MAX_STATES];
} kept;

static inline size_t kept_bytes(const kept *s, int state) {
    int64_t whole = (s->n + ESPL_STATE_BLOCK - 1) / ESPL_STATE_BLOCK * ESPL_STATE_BLOCK;
    return espl_rule_state_bytes(&espl_rules[s->rule].states[state], whole);
}

static inline size_t weight_bytes(const kept *s) { return (size_t)s->n * espl_dtype_size(way_real(s->way)); }

/* Numbers that a state may hold: any for the first moment or its bytes, else none below zero. */
static inline void *state_numbers(const kept *s, int state) {
    bool wide = espl_rules[s->rule].states[state].dtype == ESPL_F32;
    size_t bytes = kept_bytes(s, state), count = wide ? bytes / sizeof(float) : bytes;
    float *x = numbers(3 + (uint32_t)state, (int64_t)count);
    for (size_t i = 0; i < count && state > 0; i++)
        x[i] *= x[i];
    if (wide)
        return x;
    uint8_t *byte = malloc(bytes);
    for (size_t i = 0; i < count; i++)
        byte[i] = (uint8_t)(fabsf(x[i]) * 100);
    free(x);
    return byte;
}

static inline kept kept_make(espl_rule rule, weight_way way, int64_t n) {
    kept s = {.rule = rule, .way = way, .n = n, .weight = malloc((size_t)n * espl_dtype_size(way_real(way))), .master = numbers(2, n)};
    espl_dtype_convert(s.weight, way_real(way), s.master, ESPL_F32, (size_t)n);
    for (int i = 0; i < espl_rules[rule].n_states; i++)
        s.state[i] = state_numbers(&s, i);
    if (way != WAY_MASTER) {
        free(s.master);
        s.master = NULL;
    }
    return s;
}

static inline void kept_free(kept *s) {
    free(s->weight);
    free(s->master);
    for (int i = 0; i < ESPL_MAX_STATES; i++)
        free(s->state[i]);
}

static inline bool kept_same(const kept *a, const kept *b) {
    bool same = memcmp(a->weight, b->weight, weight_bytes(a)) == 0 &&
                (a->master == NULL || memcmp(a->master, b->master, (size_t)a->n * sizeof(float)) == 0);
    for (int i = 0; i < espl_rules[a->rule].n_states; i++)
        same = same && memcmp(a->state[i], b->state[i], kept_bytes(a, i)) == 0;
    return same;
}

enum { STEP_PLACE = 256 * 3, STEP_RANGES = 40 };

/* Elements [begin, end), whose t-th step it is, or one that many later. */
static inline espl_rule_range step_range(int64_t begin, int64_t end, int t, int late, float lr, float decay) {
    return (espl_rule_range){.begin = begin,
                             .end = end,
                             .lr = lr,
                             .decay = decay,
                             .c1 = (float)(1 - pow(0.9, t + late)),
                             .c2 = (float)(1 - pow(0.999, t + late))};
}

/* Ranges of step t over n elements: short ones, one that ends amid a vector, gaps, more than one launch takes, and a long one; their rates,
 * decays and ages differ. */
static inline int step_ranges(int64_t n, int t, espl_rule_range ranges[STEP_RANGES]) {
    int count = 0;
    for (int64_t at = 0; count + 1 < STEP_RANGES && at < n / 2; at = ranges[count - 1].end + count % 3) {
        ranges[count] = step_range(at, at + 1 + n / 100 * (count % 4 == 3) + count, t, count % 5, 1e-3f / (float)(1 + count % 3),
                                   0.1f * (float)(count % 2));
        count++;
    }
    ranges[count] = step_range(ranges[count - 1].end, n, t, 0, 1e-3f, 0.1f);
    return count + 1;
}

/* What of the ranges lies in [from, to), counted from `from`. */
static inline int clip_ranges(const espl_rule_range *ranges, int n, int64_t from, int64_t to, espl_rule_range *clipped) {
    int count = 0;
    for (int r = 0; r < n; r++) {
        int64_t begin = ranges[r].begin > from ? ranges[r].begin : from, end = ranges[r].end < to ? ranges[r].end : to;
        if (begin >= end)
            continue;
        clipped[count] = ranges[r];
        clipped[count].begin = begin - from;
        clipped[count++].end = end - from;
    }
    return count;
}

static inline espl_rule_step rule_step(const kept *s, espl_dtype real, const float *grad, int64_t at, int t) {
    espl_rule_step step = {.weight = (char *)s->weight + (size_t)at * espl_dtype_size(real),
                           .master = s->master ? s->master + at : NULL,
                           .grad = grad + at,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .grad_scale = 0.5f,
                           .eps = 1e-8f,
                           .momentum = 0.9f,
                           .nesterov = t % 2 == 0,
                           .rng = {.seed = 7, .purpose = ESPL_RNG_ROUND, .step = (uint32_t)t, .op = 3},
                           .first = (uint64_t)(STEP_PLACE + at)};
    for (int i = 0; i < espl_rules[s->rule].n_states; i++)
        step.state[i] = (char *)s->state[i] + espl_rule_state_bytes(&espl_rules[s->rule].states[i], at);
    return step;
}

/* Whether the rule may be cut amid a block. */
static inline bool cuts_anywhere(espl_rule rule) {
    bool anywhere = true;
    for (int i = 0; i < espl_rules[rule].n_states; i++)
        anywhere = anywhere && espl_rules[rule].states[i].block == 1;
    return anywhere;
}

/* Three steps over the n elements that `s` points to, each in stretches of `cut`, or a little more where the rule has blocks. */
static inline void three_steps(const espl_kernels *kernels, const kept *s, const float *grad, int64_t cut) {
    espl_rule_range ranges[STEP_RANGES], clipped[STEP_RANGES];
    if (!cuts_anywhere(s->rule))
        cut = (cut + ESPL_STATE_BLOCK - 1) / ESPL_STATE_BLOCK * ESPL_STATE_BLOCK;
    for (int t = 1; t <= 3; t++) {
        int n_ranges = step_ranges(s->n, t, ranges);
        for (int64_t i = 0; i < s->n; i += cut) {
            espl_rule_step step = rule_step(s, kernels->real, grad, i, t);
            step.ranges = clipped;
            step.n_ranges = clip_ranges(ranges, n_ranges, i, s->n - i < cut ? s->n : i + cut, clipped);
            kernels->update[s->rule](&step);
        }
    }
}

/* The same by the reference in fp32. Weights that are bf16 alone are widened before each step, and rounded behind it by the contract. */
static inline kept rule_truth(espl_rule rule, weight_way way, const float *grad, int64_t n) {
    kept s = kept_make(rule, way, n), wide = s;
    espl_rule_range ranges[STEP_RANGES];
    float *weight = wide.weight = malloc((size_t)n * sizeof *weight);
    espl_dtype_convert(weight, ESPL_F32, s.weight, way_real(way), (size_t)n);
    for (int t = 1; t <= 3; t++) {
        espl_rule_step step = rule_step(&wide, ESPL_F32, grad, 0, t);
        step.ranges = ranges;
        step.n_ranges = step_ranges(n, t, ranges);
        espl_kernels_ref(ESPL_F32)->update[rule](&step);
        for (int64_t i = 0; i < n && way == WAY_ALONE; i++)
            weight[i] = espl_bf16_to_float(espl_bf16_from_float_noisy(weight[i], espl_rng_u16(&step.rng, step.first + (uint64_t)i)));
    }
    espl_dtype_convert(s.weight, way_real(way), weight, ESPL_F32, (size_t)n);
    free(weight);
    return s;
}

#endif
