/* What the files of the reference backend share.
 *
 * Each file is compiled twice, with ESPL_REF_BITS 32 and 64: `real` is float or double, and so are the
 * statistics and the gradients of parameters. REF(name) is the symbol of this variant, MATH(exp) its
 * expf or exp. Plain loops, one thread, sums in `real`, no workspace but a row of logits: this code is
 * the truth the fast backends are held to, so it follows the formulas and nothing else. */
#ifndef ESPL_KERNELS_REF_REF_H
#define ESPL_KERNELS_REF_REF_H

#include "kernels/relative_bias.h"

#include <math.h>

#if ESPL_REF_BITS == 64
typedef double real;
#define REF(name) espl__ref_##name##_f64
#define MATH(function) function
#else
typedef float real;
#define REF(name) espl__ref_##name##_f32
#define MATH(function) function##f
#endif

#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags) espl_kernel REF(name##_forward), REF(name##_backward);
#include "kernels/ops.def"
#undef OP

#define RULE(ID, name, matrices, states) espl_rule_kernel REF(name);
#include "kernels/rules.def"
#undef RULE

extern const espl_kernels REF(table);

/* Local. Bytes of work of an op; see espl_kernels. */
size_t REF(work_bytes)(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward);

/* Local. Bytes of work of a rule; see espl_kernels. */
size_t REF(rule_work)(espl_rule rule, const espl_rule_tensor *tensor, int threads);

/* Local. The rows of the table that are not ops; see espl_kernels. */
void REF(sum_squares)(const float *x, int64_t n, espl_exact *sum);
void REF(sum)(const float *x, int64_t n, espl_exact *sum);
void REF(add)(float *to, const float *from, int64_t n);
espl_parts_round REF(round_parts);
espl_parts_add REF(add_parts);

/* Local. f(x) of an ESPL_ACT_* kind, and f'(x). */
real REF(act)(int32_t kind, real x);
real REF(act_slope)(int32_t kind, real x);

/* Local. The matrix P<param> of LINEAR, QKV (param 0) or MLP (0 or 2): as it lies, or where it is quantised expanded to `room`. */
const real *REF(matrix)(const espl_args *args, int param, real *room);

/* One query and the keys and values it sees: rows 0 .. count - 1, `stride` elements apart, of `width` elements. */
typedef struct ref_view {
    const real *query, *keys, *values;
    int64_t stride, count, width;
    real scale;
    const espl__rel_buckets *buckets; /* of the relative position bias; NULL: none */
    const real *bias;                 /* the head's in the first bucket's row */
    int64_t bias_stride, offset;      /* of row 0: key - query */
    const espl_args *dropped;         /* dropout of the probabilities by this call's attrs and batch; NULL: none */
    uint64_t element;                 /* the dropout element of row 0 */
} ref_view;

/* Local. The score of row j: scale query . keys_j + bias. */
real REF(score)(const ref_view *view, int64_t j);

/* Local. out[width] = sum over j of drop(p_j) values_j, p = softmax over j of the scores; returns the log-sum-exp. */
real REF(attend)(const ref_view *view, real *out);

static inline real ref_dot(const real *a, const real *b, int64_t n) {
    real sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* The factor that dropout puts on an element: 0 or 1 / (1 - p); 1 when it is off. */
static inline real ref_keep(const espl_args *args, uint64_t element) {
    float p = args->attrs->dropout;
    if (p == 0 || !args->batch->training)
        return 1;
    espl_rng_key key = args->batch->rng;
    key.op = args->attrs->rng_op;
    return espl_rng_u32(&key, element) >= espl_rng_threshold(p) ? 1 / (1 - (real)p) : 0;
}

/* Where weight (k, m) of a matrix stands, k of n_in and m of n_out. */
static inline int64_t ref_weight_at(int32_t layout, int64_t n_in, int64_t n_out, int64_t k, int64_t m) {
    return layout == ESPL_OUT_IN ? m * n_in + k : k * n_out + m;
}

/* Writes or adds, as din_add and dparam_add say. */
static inline void ref_put(real *to, real value, bool add) { *to = add ? *to + value : value; }

static inline void ref_clear(real *to, int64_t n, bool add) {
    for (int64_t i = 0; i < n && !add; i++)
        to[i] = 0;
}

#endif
