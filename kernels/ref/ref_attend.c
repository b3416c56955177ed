#include "kernels/ref/ref.h"

real REF(score)(const ref_view *view, int64_t j) {
    real product = view->scale * ref_dot(view->query, view->keys + j * view->stride, view->width);
    if (!view->buckets)
        return product;
    return product + view->bias[espl__rel_bucket(view->buckets, (int32_t)(view->offset + j)) * view->bias_stride];
}

/* p_j = exp(s_j - max) / sum over j of exp(s_j - max), the scores computed again in each pass. */
real REF(attend)(const ref_view *view, real *out) {
    real top = REF(score)(view, 0), sum = 0;
    for (int64_t j = 1; j < view->count; j++)
        top = MATH(fmax)(top, REF(score)(view, j));
    for (int64_t c = 0; c < view->width; c++)
        out[c] = 0;
    for (int64_t j = 0; j < view->count; j++) {
        real weight = MATH(exp)(REF(score)(view, j) - top);
        sum += weight;
        if (view->dropped)
            weight *= ref_keep(view->dropped, view->element + (uint64_t)j);
        for (int64_t c = 0; c < view->width; c++)
            out[c] += weight * view->values[j * view->stride + c];
    }
    for (int64_t c = 0; c < view->width; c++)
        out[c] /= sum;
    return top + MATH(log)(sum);
}
