/* Activations and their slopes, one pair a kind. */
#ifndef ESPL_KERNELS_CPU_ACT_H
#define ESPL_KERNELS_CPU_ACT_H

#include "kernels/cpu/vmath.h"

/* x s(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3): the same as x (1 + tanh u) / 2 (Hendrycks & Gimpel 2016). */
static inline float act_gelu_tanh(float x) {
    float u2 = 2.0f * 0.7978845608f * x * fma1(0.044715f * x, x, 1.0f);
    return x * v_sigmoid(u2);
}

static inline float slope_gelu_tanh(float x) {
    float u2 = 2.0f * 0.7978845608f * x * fma1(0.044715f * x, x, 1.0f);
    float du2 = 2.0f * 0.7978845608f * fma1(3.0f * 0.044715f * x, x, 1.0f);
    float e = v_exp(-__builtin_fabsf(u2)), d = 1.0f / (1.0f + e), s = u2 < 0.0f ? e * d : d;
    return fma1(x * du2, e * d * d, s);
}

static inline float act_gelu(float x) { return 0.5f * x * (1.0f + v_erf(x * 0.7071067812f)); }

static inline float slope_gelu(float x) { return fma1(x * 0.3989422804f, v_exp(-0.5f * x * x), 0.5f * (1.0f + v_erf(x * 0.7071067812f))); }

static inline float act_relu(float x) { return x < 0.0f ? 0.0f : x; }
static inline float slope_relu(float x) { return x > 0.0f ? 1.0f : 0.0f; }

static inline float act_silu(float x) { return x * v_sigmoid(x); }

static inline float slope_silu(float x) {
    float e = v_exp(-__builtin_fabsf(x)), d = 1.0f / (1.0f + e), s = x < 0.0f ? e * d : d;
    return fma1(x, e * d * d, s);
}

static inline float act_tanh(float x) { return v_tanh(x); }

static inline float slope_tanh(float x) {
    float t = v_tanh(x);
    return 1.0f - t * t;
}

static inline float act_none(float x) { return x; }

static inline float slope_none(float x) {
    (void)x;
    return 1.0f;
}

/* Calls ROW(KIND, name) for each kind. */
#define FOR_EACH_ACT(ROW)                                                                                                                  \
    ROW(ESPL_ACT_GELU_TANH, gelu_tanh)                                                                                                     \
    ROW(ESPL_ACT_GELU, gelu)                                                                                                               \
    ROW(ESPL_ACT_RELU, relu)                                                                                                               \
    ROW(ESPL_ACT_SILU, silu)                                                                                                               \
    ROW(ESPL_ACT_TANH, tanh)                                                                                                               \
    ROW(ESPL_ACT_NONE, none)

#endif
