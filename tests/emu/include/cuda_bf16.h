/* cuda_bf16.h of the emulated GPU: the type and its conversions. Arithmetic on bf16 is left out on purpose: kernels compute in fp32, so an
 * expression that would round after every operation does not compile here. */
#ifndef ESPL_TESTS_EMU_CUDA_BF16_H
#define ESPL_TESTS_EMU_CUDA_BF16_H

#ifdef __cplusplus
#include "tests/emu/simt/device_math.h"
#include "tests/emu/simt/vector_types.h"

#include <stdint.h>

/* Round to nearest, ties to even; NaN becomes CUDA's canonical one. */
inline uint16_t emu_bf16_bits(float value) {
    uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

struct __nv_bfloat16_raw {
    unsigned short x;
};

struct __nv_bfloat16 {
    __nv_bfloat16() = default;
    __nv_bfloat16(const __nv_bfloat16_raw &raw) : bits_(raw.x) {}
    explicit __nv_bfloat16(float value) : bits_(emu_bf16_bits(value)) {}
    explicit operator float() const { return __uint_as_float((unsigned)bits_ << 16); }
    operator __nv_bfloat16_raw() const { return {bits_}; }

  private:
    uint16_t bits_;
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 value) { return (float)value; }
inline __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return static_cast<__nv_bfloat16_raw>(value).x; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 value) { return {(float)value.x, (float)value.y}; }
#endif

#endif
