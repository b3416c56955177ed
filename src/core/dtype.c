#include "src/core/dtype.h"

#include <math.h>

static const struct {
    const char *name;
    size_t size;
} rows[ESPL_N_DTYPES] = {
    [ESPL_F32] = {"fp32", 4},  [ESPL_BF16] = {"bf16", 2}, [ESPL_F16] = {"fp16", 2}, [ESPL_F64] = {"fp64", 8},
    [ESPL_I32] = {"int32", 4}, [ESPL_I64] = {"int64", 8}, [ESPL_U8] = {"uint8", 1},
};

size_t espl_dtype_size(espl_dtype dtype) { return rows[dtype].size; }

const char *espl_dtype_name(espl_dtype dtype) { return rows[dtype].name; }

static float half_to_float(uint16_t h) {
    int exponent = h >> 10 & 0x1F, mantissa = h & 0x3FF;
    float magnitude = exponent == 0    ? ldexpf((float)mantissa, -24)
                      : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                       : ldexpf((float)(mantissa | 0x400), exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

/* Round to nearest even by the current rounding mode of nearbyintf. */
static uint16_t half_from_float(float f) {
    uint16_t sign = signbit(f) ? 0x8000 : 0;
    float a = fabsf(f);
    if (isnan(f))
        return (uint16_t)(sign | 0x7E00);
    if (a >= 65520.0f)
        return (uint16_t)(sign | 0x7C00);
    if (a < 0x1p-14f)
        return (uint16_t)(sign | (uint16_t)nearbyintf(ldexpf(a, 24)));
    int exponent;
    float mantissa = nearbyintf(ldexpf(frexpf(a, &exponent), 11)); /* in [1024, 2048] */
    return (uint16_t)(sign | (uint16_t)(((exponent + 13) << 10) + (int)mantissa));
}

static double load(const void *from, espl_dtype dtype, size_t i) {
    switch (dtype) {
    case ESPL_F32: return ((const float *)from)[i];
    case ESPL_BF16: return espl_bf16_to_float(((const espl_bf16 *)from)[i]);
    case ESPL_F16: return half_to_float(((const uint16_t *)from)[i]);
    case ESPL_F64: return ((const double *)from)[i];
    case ESPL_I32: return ((const int32_t *)from)[i];
    case ESPL_I64: return (double)((const int64_t *)from)[i];
    default: return ((const uint8_t *)from)[i];
    }
}

static void store(void *to, espl_dtype dtype, size_t i, double x) {
    switch (dtype) {
    case ESPL_F32: ((float *)to)[i] = (float)x; break;
    case ESPL_BF16: ((espl_bf16 *)to)[i] = espl_bf16_from_float((float)x); break;
    case ESPL_F16: ((uint16_t *)to)[i] = half_from_float((float)x); break;
    case ESPL_F64: ((double *)to)[i] = x; break;
    case ESPL_I32: ((int32_t *)to)[i] = (int32_t)x; break;
    case ESPL_I64: ((int64_t *)to)[i] = (int64_t)x; break;
    default: ((uint8_t *)to)[i] = (uint8_t)x; break;
    }
}

void espl_dtype_convert(void *to, espl_dtype to_dtype, const void *from, espl_dtype from_dtype, size_t n) {
    if (to_dtype == from_dtype) {
        memcpy(to, from, n * rows[to_dtype].size);
    } else if (to_dtype == ESPL_F32 && from_dtype == ESPL_BF16) {
        for (size_t i = 0; i < n; i++)
            ((float *)to)[i] = espl_bf16_to_float(((const espl_bf16 *)from)[i]);
    } else if (to_dtype == ESPL_BF16 && from_dtype == ESPL_F32) {
        for (size_t i = 0; i < n; i++)
            ((espl_bf16 *)to)[i] = espl_bf16_from_float(((const float *)from)[i]);
    } else {
        for (size_t i = 0; i < n; i++)
            store(to, to_dtype, i, load(from, from_dtype, i));
    }
}
