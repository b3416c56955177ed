#include "kernels/ref/ref.h"

/* Formula in kernels.h; in float in both variants, as the state of the optimizer is. */
static void adamw_range(const espl_adamw *step, const espl_adamw_range *range) {
    float b1 = (float)step->beta1, b2 = (float)step->beta2, a1 = (float)(1 - step->beta1), a2 = (float)(1 - step->beta2);
    real *weight = step->weight;
    for (int64_t i = range->begin; i < range->end; i++) {
        float g = step->grad[i] * step->grad_scale, w = step->master ? step->master[i] : (float)weight[i];
        float m = b1 * step->m[i] + a1 * g, v = b2 * step->v[i] + a2 * g * g;
        w -= step->lr * ((m / step->c1) / (sqrtf(v / step->c2) + step->eps) + range->decay * w);
        step->m[i] = m;
        step->v[i] = v;
        weight[i] = (real)w;
        if (step->master)
            step->master[i] = w;
    }
}

void REF(adamw)(const espl_adamw *step) {
    for (int r = 0; r < step->n_ranges; r++)
        adamw_range(step, &step->ranges[r]);
}

void REF(sum_squares)(const float *x, int64_t n, espl_exact *sum) {
    for (int64_t start = 0; start < n; start += 256) {
        int64_t end = start + 256 < n ? start + 256 : n;
        double lane[8] = {0};
        for (int64_t i = start; i < end; i++)
            lane[(i - start) % 8] += (double)x[i] * x[i];
        double block = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
        if (isfinite(block))
            espl_exact_add(sum, block);
        for (int64_t i = start; i < end && !isfinite(block); i++)
            espl_exact_add(sum, (double)x[i] * x[i]);
    }
}

void REF(sum)(const float *x, int64_t n, espl_exact *sum) {
    for (int64_t i = 0; i < n; i++)
        espl_exact_add(sum, x[i]);
}

void REF(add)(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}
