#include "src/core/exact_sum.h"

#include <math.h>

void espl_exact_add(espl_exact *sum, double x) {
    int limb;
    int64_t part[3];
    if (!espl_exact_split(x, &limb, part)) {
        sum->n_nonfinite++;
        return;
    }
    for (int i = 0; i < 3; i++)
        sum->limb[limb + i] += part[i];
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
