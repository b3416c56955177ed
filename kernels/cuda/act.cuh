/* Activations and their slopes, one pair a kind. FAST, for bf16: what the special function units give, wrong by some 2^-21 of the result,
 * where a result has 8 bits; with exact functions a bf16 kernel would wait for arithmetic instead of memory. */
#ifndef ESPL_KERNELS_CUDA_ACT_CUH
#define ESPL_KERNELS_CUDA_ACT_CUH

#include "kernels/cuda/rows.cuh"
#include "kernels/kernels.h"

template <class T> struct accuracy { static constexpr bool fast = false; };
template <> struct accuracy<__nv_bfloat16> { static constexpr bool fast = true; };

template <bool FAST> __device__ __forceinline__ float exp_of(float x) { return FAST ? __expf(x) : expf(x); }
template <bool FAST> __device__ __forceinline__ float inverse_of(float x) { return FAST ? __fdividef(1.0f, x) : 1.0f / x; }

/* s(x) = 1 / (1 + e^-x) and its slope s (1 - s), from e^-|x|, which does not overflow. */
template <bool FAST> __device__ __forceinline__ float2 sigmoid_of(float x) {
    float e = exp_of<FAST>(-fabsf(x)), d = inverse_of<FAST>(1.0f + e);
    return make_float2(x < 0.0f ? e * d : d, e * d * d);
}

/* A value and a slope: the compiler drops what is not used. */
template <int KIND, bool FAST> __device__ __forceinline__ float2 act_of(float x) {
    if constexpr (KIND == ESPL_ACT_GELU_TANH) { /* x s(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3): x (1 + tanh u) / 2 */
        float2 s = sigmoid_of<FAST>(2.0f * 0.7978845608f * x * fmaf(0.044715f * x, x, 1.0f));
        float du2 = 2.0f * 0.7978845608f * fmaf(3.0f * 0.044715f * x, x, 1.0f);
        return make_float2(x * s.x, fmaf(x * du2, s.y, s.x));
    } else if constexpr (KIND == ESPL_ACT_GELU) {
        float half = 0.5f * (1.0f + erff(x * 0.7071067812f));
        return make_float2(x * half, fmaf(x * 0.3989422804f, exp_of<FAST>(-0.5f * x * x), half));
    } else if constexpr (KIND == ESPL_ACT_RELU) {
        return make_float2(x < 0.0f ? 0.0f : x, x > 0.0f ? 1.0f : 0.0f);
    } else if constexpr (KIND == ESPL_ACT_SILU) {
        float2 s = sigmoid_of<FAST>(x);
        return make_float2(x * s.x, fmaf(x, s.y, s.x));
    } else if constexpr (KIND == ESPL_ACT_NONE || KIND == ESPL_ACT_REST) {
        return make_float2(x, 1.0f);
    } else {
        float t = tanhf(x);
        return make_float2(t, 1.0f - t * t);
    }
}

/* The kernels of a family by kind: KERNEL(kind). Those of whole stretches come with dropout and without: its numbers take registers, and so
 * a third of the warps, from those who want none. Others look whether it is on. */
#define ACT_KINDS(KERNEL)                                                                                                                  \
    {                                                                                                                                      \
        KERNEL(ESPL_ACT_GELU_TANH), KERNEL(ESPL_ACT_GELU), KERNEL(ESPL_ACT_RELU), KERNEL(ESPL_ACT_SILU), KERNEL(ESPL_ACT_TANH),            \
            KERNEL(ESPL_ACT_NONE)                                                                                                          \
    }

#endif
