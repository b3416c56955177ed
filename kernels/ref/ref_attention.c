#include "kernels/ref/ref.h"

/* One (head, token): offsets into a row of qkv, and the tokens [first, first + count) that it sees. */
typedef struct place {
    int64_t stride, query, key, value;
    int64_t first, count, segment_start;
} place;

static place place_of(const espl_args *args, int64_t h, int64_t i, const int32_t *segment) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, group = h / (attrs->heads / attrs->kv_heads);
    place p = {.stride = (attrs->heads + 2 * attrs->kv_heads) * d, .first = segment[0], .segment_start = segment[0]};
    p.query = h * d;
    p.key = (attrs->heads + group) * d;
    p.value = p.key + attrs->kv_heads * d;
    if (attrs->window > 0 && i - attrs->window + 1 > p.first)
        p.first = i - attrs->window + 1;
    p.count = (attrs->causal ? i + 1 : segment[1]) - p.first;
    return p;
}

/* Calls f for each head and token. */
static void each(const espl_args *args, void (*f)(const espl_args *args, int64_t h, int64_t i, const place *p)) {
    for (int32_t s = 0; s < args->batch->n_segments; s++)
        for (int64_t i = args->batch->segments[s]; i < args->batch->segments[s + 1]; i++)
            for (int64_t h = 0; h < args->attrs->heads; h++) {
                place p = place_of(args, h, i, args->batch->segments + s);
                f(args, h, i, &p);
            }
}

static uint64_t dropout_element(const espl_args *args, int64_t h, int64_t i, const place *p) {
    return ((uint64_t)(h * args->batch->n + i) << 20) + (uint64_t)(p->first - p->segment_start);
}

static void forward_row(const espl_args *args, int64_t h, int64_t i, const place *p) {
    const espl_attrs *attrs = args->attrs;
    const real *qkv = args->in[0];
    ref_view view = {.query = qkv + i * p->stride + p->query,
                     .keys = qkv + p->first * p->stride + p->key,
                     .values = qkv + p->first * p->stride + p->value,
                     .stride = p->stride,
                     .count = p->count,
                     .width = attrs->head_dim,
                     .scale = (real)attrs->scale,
                     .dropped = args,
                     .element = dropout_element(args, h, i, p)};
    ((real *)args->out[1])[i * attrs->heads + h] = REF(attend)(&view, (real *)args->out[0] + (i * attrs->heads + h) * attrs->head_dim);
}

/* o_i = sum over j of drop(p_ij) v_j,  p_ij = exp(s_ij - lse_i),  s_ij = scale q_i . k_j */
void REF(attention_forward)(const espl_args *args) { each(args, forward_row); }

/* dv_j += drop(p_ij) do_i
 * ds_ij = p_ij (drop'(do_i . v_j) - do_i . o_i), since sum over j of p_ij drop'(do_i . v_j) = do_i . o_i
 * dq_i += scale ds_ij k_j;  dk_j += scale ds_ij q_i */
static void backward_row(const espl_args *args, int64_t h, int64_t i, const place *p) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, head = (i * attrs->heads + h) * d;
    const real *qkv = args->in[0], *query = qkv + i * p->stride + p->query, *dout = (const real *)args->dout[0] + head;
    real lse = ((const real *)args->out[1])[i * attrs->heads + h], delta = ref_dot(dout, (const real *)args->out[0] + head, d);
    real *din = args->din[0], *dq = din + i * p->stride + p->query, scale = (real)attrs->scale;
    for (int64_t j = p->first; j < p->first + p->count; j++) {
        const real *key = qkv + j * p->stride + p->key, *value = qkv + j * p->stride + p->value;
        real *dk = din + j * p->stride + p->key, *dv = din + j * p->stride + p->value;
        real keep = ref_keep(args, dropout_element(args, h, i, p) + (uint64_t)(j - p->first));
        real prob = MATH(exp)(scale * ref_dot(query, key, d) - lse);
        real ds = scale * prob * (keep * ref_dot(dout, value, d) - delta);
        for (int64_t c = 0; c < d; c++) {
            dv[c] += prob * keep * dout[c];
            dq[c] += ds * key[c];
            dk[c] += ds * query[c];
        }
    }
}

void REF(attention_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    ref_clear(args->din[0], args->batch->n * (attrs->heads + 2 * attrs->kv_heads) * attrs->head_dim, args->din_add[0]);
    each(args, backward_row);
}
