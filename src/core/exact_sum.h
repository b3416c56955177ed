/* Exact sums of doubles, independent of order (Kulisch's long accumulator).
 *
 * Every finite double is a multiple of 2^-1074, so a sum held as one long integer has no rounding
 * and no order. Loss, gradient norm and token counts are added this way, and the accumulators of
 * all ranks are added as plain int64 vectors: the result has the same bits on any number of ranks.
 * A limb holds 32 bits of the integer and has 31 bits of headroom; espl_exact_add keeps it. */
#ifndef ESPL_CORE_EXACT_SUM_H
#define ESPL_CORE_EXACT_SUM_H

#include "src/core/export.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { ESPL_EXACT_LIMBS = 68 };

typedef struct espl_exact {
    int64_t limb[ESPL_EXACT_LIMBS]; /* value = sum of limb[i] * 2^(32 i - 1074) */
    int64_t n_nonfinite;            /* NaN and Inf seen; they are counted, not added */
} espl_exact;

enum { ESPL_EXACT_WORDS = ESPL_EXACT_LIMBS + 1 }; /* an accumulator as a vector of int64 */

/* Local. What x adds: part[i] to limb[*limb + i] for i = 0, 1, 2. False where x is not finite: it counts in n_nonfinite. */
static inline ESPL_ANYWHERE bool espl_exact_split(double x, int *limb, int64_t part[3]) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7FF);
    uint64_t mantissa = bits & 0xFFFFFFFFFFFFFull;
    if (exponent == 0x7FF)
        return false;
    if (exponent != 0)
        mantissa |= 1ull << 52;
    int position = exponent != 0 ? exponent - 1 : 0; /* of the lowest mantissa bit above 2^-1074 */
    int shift = position % 32;
    uint64_t low = mantissa << shift, high = mantissa >> 1 >> (63 - shift);
    int64_t sign = bits >> 63 ? -1 : 1;
    *limb = position / 32;
    part[0] = sign * (int64_t)(uint32_t)low;
    part[1] = sign * (int64_t)(low >> 32);
    part[2] = sign * (int64_t)high;
    return true;
}

/* Local. Adds x exactly. Up to 2^29 additions between two normalisations are safe. */
void espl_exact_add(espl_exact *sum, double x);

/* Local. Adds another accumulator exactly. */
void espl_exact_merge(espl_exact *sum, const espl_exact *other);

/* Local. Carries, so that every limb but the last lies in [0, 2^32); call before limbs of many ranks are added. */
void espl_exact_normalise(espl_exact *sum);

/* Local. The value rounded to double (within one unit in the last place, the same on every machine). */
double espl_exact_value(const espl_exact *sum);

#ifdef __cplusplus
}
#endif

#endif
