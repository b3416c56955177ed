/* Number formats: their names, sizes and conversions. bf16 and fp16 are held as uint16_t. */
#ifndef ESPL_CORE_DTYPE_H
#define ESPL_CORE_DTYPE_H

#include "src/core/export.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum espl_dtype { ESPL_F32, ESPL_BF16, ESPL_F16, ESPL_F64, ESPL_I32, ESPL_I64, ESPL_U8, ESPL_N_DTYPES } espl_dtype;

typedef uint16_t espl_bf16;

/* Local. Bytes of one element. */
size_t espl_dtype_size(espl_dtype dtype);

/* Local. "fp32", "bf16", ... as in configs. */
const char *espl_dtype_name(espl_dtype dtype);

/* Local. Converts n elements; rounds to nearest even where it narrows. Source and target must not overlap. */
void espl_dtype_convert(void *to, espl_dtype to_dtype, const void *from, espl_dtype from_dtype, size_t n);

static inline float espl_bf16_to_float(espl_bf16 h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even; NaN stays NaN. */
static inline espl_bf16 espl_bf16_from_float(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? (espl_bf16)(bits >> 16 | 0x40u) : (espl_bf16)(rounded >> 16);
}

/* Stochastic rounding: with `noise` uniform over 16 bits, of the two bf16 around f each comes as often as f is near it, so that f is the
 * mean. NaN stays NaN. */
static inline ESPL_ANYWHERE espl_bf16 espl_bf16_from_float_noisy(float f, uint32_t noise) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? (espl_bf16)(bits >> 16 | 0x40u) : (espl_bf16)((bits + noise) >> 16);
}

#endif
