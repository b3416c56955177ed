#include "kernels/ref/ref.h"

/* Turns the pairs (a, b) = (x[i], x[i + r/2]) of one head by the angle of its position; sign -1 turns back:
 * a' = a cos - sign b sin,  b' = b cos + sign a sin. */
static void rotate_head(real *x, const float *table, int64_t rope_dim, real sign) {
    int64_t half = rope_dim / 2;
    for (int64_t i = 0; i < half; i++) {
        real a = x[i], b = x[i + half], cosine = (real)table[i], sine = sign * (real)table[i + half];
        x[i] = a * cosine - b * sine;
        x[i + half] = b * cosine + a * sine;
    }
}

/* The heads of q and k, which lie side by side; v stays. */
static void rotate(const espl_args *args, real *qkv, real sign) {
    const espl_attrs *attrs = args->attrs;
    if (attrs->rope_dim == 0)
        return;
    for (int64_t t = 0; t < args->batch->n; t++) {
        const float *table = args->rope + (int64_t)args->batch->positions[t] * attrs->rope_dim;
        for (int64_t h = 0; h < attrs->heads + attrs->kv_heads; h++)
            rotate_head(qkv + t * attrs->n_out + h * attrs->head_dim, table, attrs->rope_dim, sign);
    }
}

void REF(qkv_forward)(const espl_args *args) {
    REF(linear_forward)(args);
    rotate(args, args->out[0], 1);
}

void REF(rope_forward)(const espl_args *args) { rotate(args, args->out[0], 1); }

void REF(rope_backward)(const espl_args *args) { rotate(args, args->dout[0], -1); }

/* The transpose of a rotation is the rotation back. */
void REF(qkv_backward)(const espl_args *args) {
    rotate(args, args->dout[0], -1);
    REF(linear_backward)(args);
}
