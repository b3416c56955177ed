#include "src/core/exact_sum.h"

#include <math.h>
#include <string.h>

void espl_exact_add(espl_exact *sum, double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7FF);
    uint64_t mantissa = bits & 0xFFFFFFFFFFFFFull;
    if (exponent == 0x7FF) {
        sum->n_nonfinite++;
        return;
    }
    if (exponent != 0)
        mantissa |= 1ull << 52;
    int position = exponent != 0 ? exponent - 1 : 0; /* of the lowest mantissa bit above 2^-1074 */
    int limb = position / 32;
    unsigned __int128 wide = (unsigned __int128)mantissa << (position % 32);
    int64_t sign = bits >> 63 ? -1 : 1;
    sum->limb[limb] += sign * (int64_t)(uint32_t)wide;
    sum->limb[limb + 1] += sign * (int64_t)(uint32_t)(wide >> 32);
    sum->limb[limb + 2] += sign * (int64_t)(uint32_t)(wide >> 64);
}

void espl_exact_merge(espl_exact *sum, const espl_exact *other) {
    for (int i = 0; i < ESPL_EXACT_LIMBS; i++)
        sum->limb[i] += other->limb[i];
    sum->n_nonfinite += other->n_nonfinite;
}

void espl_exact_normalise(espl_exact *sum) {
    for (int i = 0; i + 1 < ESPL_EXACT_LIMBS; i++) {
        int64_t carry = sum->limb[i] >> 32; /* arithmetic: rounds down, so what stays is in [0, 2^32) */
        sum->limb[i] -= carry * ((int64_t)1 << 32);
        sum->limb[i + 1] += carry;
    }
}

double espl_exact_value(const espl_exact *sum) {
    espl_exact s = *sum;
    espl_exact_normalise(&s);
    int negative = s.limb[ESPL_EXACT_LIMBS - 1] < 0;
    if (negative) {
        for (int i = 0; i < ESPL_EXACT_LIMBS; i++)
            s.limb[i] = -s.limb[i];
        espl_exact_normalise(&s);
    }
    int top = ESPL_EXACT_LIMBS - 1;
    while (top > 0 && s.limb[top] == 0)
        top--;
    double value = 0.0;
    for (int i = top; i >= 0 && i > top - 4; i--) /* 96 bits and more below the leading one */
        value += ldexp((double)s.limb[i], 32 * i - 1074);
    return negative ? -value : value;
}
