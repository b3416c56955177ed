/* exp, sigmoid, tanh and erf in float, free of branches, so that loops around them vectorise, with the same bits in a
 * vector body and in its tail. The polynomials are minimax fits of our own (weighted least squares, Lawson 1961). */
#ifndef ESPL_KERNELS_CPU_VMATH_H
#define ESPL_KERNELS_CPU_VMATH_H

#include "kernels/cpu/real.h"

static inline float v_as_float(int32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline int32_t v_as_int(float f) {
    int32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

/* e^x: x = n ln 2 + r, |r| <= ln 2 / 2, ln 2 in two parts (Cody & Waite 1980). 0 below -87.3 (no denormals), e^88 above 88;
 * NaN stays NaN. */
static inline float v_exp(float x) {
    const float magic = 0x1.8p23f; /* adding it rounds to an integer, held in the low bits */
    float y = x > 88.0f ? 88.0f : x;
    y = y < -87.3f ? -87.3f : y;
    float shifted = y * 0x1.715476p0f + magic;
    float n = shifted - magic;
    float r = fma1(n, -0x1.62e4p-1f, y);
    r = fma1(n, -0x1.7f7d1cp-20f, r);
    float p = 0x1.6a244cp-10f;
    p = fma1(p, r, 0x1.1239d4p-7f);
    p = fma1(p, r, 0x1.5558f2p-5f);
    p = fma1(p, r, 0x1.555492p-3f);
    p = fma1(p, r, 0x1.fffffcp-2f);
    p = fma1(p * r, r, r) + 1.0f;
    uint32_t exponent = (uint32_t)v_as_int(shifted) - (uint32_t)v_as_int(magic) + 127u;
    return x < -87.3f ? 0.0f : p * v_as_float((int32_t)(exponent << 23));
}

static inline float v_sigmoid(float x) { return 1.0f / (1.0f + v_exp(-x)); }

static inline float v_tanh(float x) {
    float z = x * x, e = v_exp(2.0f * __builtin_fabsf(x));
    float p = -0x1.0c214cp-7f;
    p = fma1(0x1.197b8cp-9f, z, p);
    p = fma1(p, z, 0x1.6394dap-6f);
    p = fma1(p, z, -0x1.b9ef7ep-5f);
    p = fma1(p, z, 0x1.11106cp-3f);
    p = fma1(p, z, -0x1.555554p-2f);
    float small = fma1(p * z, x, x), large = __builtin_copysignf(1.0f - 2.0f / (e + 1.0f), x);
    return z < 0.390625f ? small : large;
}

/* erf: x P(x^2) below 0.9, 1 - e^-Q(|x|) from there; 1 from 4. */
static inline float v_erf(float x) {
    float a = __builtin_fabsf(x), z = x * x, b = a > 4.0f ? 4.0f : a;
    float p = fma1(0x1.4ae4dp-14f, z, -0x1.a485ecp-11f);
    p = fma1(p, z, 0x1.5419f6p-8f);
    p = fma1(p, z, -0x1.b7fbb4p-6f);
    p = fma1(p, z, 0x1.ce2d2p-4f);
    p = fma1(p, z, -0x1.81273ep-2f);
    p = fma1(p, z, 0x1.20dd74p+0f);
    float q = fma1(0x1.5ecd7ap-16f, b, -0x1.c54d32p-12f);
    q = fma1(q, b, 0x1.10a9fcp-8f);
    q = fma1(q, b, -0x1.9b1952p-6f);
    q = fma1(q, b, 0x1.bb564ep-4f);
    q = fma1(q, b, 0x1.444b42p-1f);
    q = fma1(q, b, 0x1.212698p+0f);
    q = fma1(q, b, -0x1.65abc6p-13f);
    return a < 0.9f ? p * x : __builtin_copysignf(1.0f - v_exp(-q), x);
}

#endif
