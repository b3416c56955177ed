#include "kernels/ref/ref.h"

/* A call: where queries, keys and values lie, and who may see whom. */
typedef struct call {
    const espl_args *args;
    const espl_batch *keyed;         /* whose tokens are keys */
    const int32_t *key_segment;      /* of a segment of queries; NULL: it has the same number */
    const real *query, *key, *value; /* of token 0, head 0 */
    real *dquery, *dkey, *dvalue;
    int64_t query_ld, key_ld; /* elements from token to token */
    int32_t causal, window;
    const espl__rel_buckets *buckets; /* NULL: no bias */
} call;

/* One (head, token): the rows of keys [first, first + count) that it sees, and the first of their segment. */
typedef struct place {
    int64_t h, i, first, count, segment_start;
} place;

/* Calls f for each head and token. */
static void each(const call *c, void (*f)(const call *c, const place *p)) {
    const espl_batch *batch = c->args->batch;
    for (int32_t s = 0; s < batch->n_segments; s++) {
        const int32_t *seen = c->keyed->segments + (c->key_segment ? c->key_segment[s] : s);
        for (int64_t i = batch->segments[s]; i < batch->segments[s + 1]; i++)
            for (int64_t h = 0; h < c->args->attrs->heads; h++) {
                place p = {.h = h, .i = i, .first = seen[0], .segment_start = seen[0]};
                if (c->window > 0 && i - c->window + 1 > p.first)
                    p.first = i - c->window + 1;
                p.count = (c->causal ? i + 1 : seen[1]) - p.first;
                f(c, &p);
            }
    }
}

/* The place of key j, or of its value, from that of token 0. */
static int64_t key_at(const call *c, const place *p, int64_t j) {
    const espl_attrs *attrs = c->args->attrs;
    return j * c->key_ld + p->h / (attrs->heads / attrs->kv_heads) * attrs->head_dim;
}

static uint64_t dropout_element(const call *c, const place *p) {
    return ((uint64_t)(p->h * c->args->batch->n + p->i) << 20) + (uint64_t)(p->first - p->segment_start);
}

static ref_view view_of(const call *c, const place *p) {
    const espl_attrs *attrs = c->args->attrs;
    ref_view view = {.query = c->query + p->i * c->query_ld + p->h * attrs->head_dim,
                     .keys = c->key + key_at(c, p, p->first),
                     .values = c->value + key_at(c, p, p->first),
                     .stride = c->key_ld,
                     .count = p->count,
                     .width = attrs->head_dim,
                     .scale = (real)attrs->scale,
                     .buckets = c->buckets,
                     .bias_stride = attrs->heads,
                     .offset = p->first - p->i,
                     .dropped = c->args,
                     .element = dropout_element(c, p)};
    if (c->buckets)
        view.bias = (const real *)c->args->param[0] + p->h;
    return view;
}

static void forward_row(const call *c, const place *p) {
    const espl_attrs *attrs = c->args->attrs;
    int64_t row = p->i * attrs->heads + p->h;
    ref_view view = view_of(c, p);
    ((real *)c->args->out[1])[row] = REF(attend)(&view, (real *)c->args->out[0] + row * attrs->head_dim);
}

/* dv_j += drop(p_ij) do_i
 * ds_ij = p_ij (drop'(do_i . v_j) - do_i . o_i), since sum over j of p_ij drop'(do_i . v_j) = do_i . o_i
 * dq_i += scale ds_ij k_j;  dk_j += scale ds_ij q_i;  dbias[bucket of j - i] += ds_ij */
static void backward_row(const call *c, const place *p) {
    const espl_args *args = c->args;
    int64_t d = args->attrs->head_dim, row = p->i * args->attrs->heads + p->h;
    const real *dout = (const real *)args->dout[0] + row * d;
    real lse = ((const real *)args->out[1])[row], delta = ref_dot(dout, (const real *)args->out[0] + row * d, d);
    real *dq = c->dquery + p->i * c->query_ld + p->h * d, *dbias = args->dparam[0];
    ref_view view = view_of(c, p);
    for (int64_t j = 0; j < p->count; j++) {
        const real *key = view.keys + j * view.stride, *value = view.values + j * view.stride;
        real *dk = c->dkey + key_at(c, p, p->first + j), *dv = c->dvalue + key_at(c, p, p->first + j);
        real keep = ref_keep(args, view.element + (uint64_t)j), prob = MATH(exp)(REF(score)(&view, j) - lse);
        real slope = prob * (keep * ref_dot(dout, value, d) - delta), ds = view.scale * slope;
        for (int64_t e = 0; e < d; e++) {
            dv[e] += prob * keep * dout[e];
            dq[e] += ds * key[e];
            dk[e] += ds * view.query[e];
        }
        if (c->buckets && dbias)
            dbias[espl__rel_bucket(c->buckets, (int32_t)(view.offset + j)) * args->attrs->heads + p->h] += slope;
    }
}

/* Queries, keys and values side by side in one row of qkv. */
static call self_call(const espl_args *args, espl__rel_buckets *buckets) {
    const espl_attrs *attrs = args->attrs;
    int64_t key = attrs->heads * attrs->head_dim, value = key + attrs->kv_heads * attrs->head_dim;
    const real *qkv = args->in[0];
    real *din = args->din[0];
    call c = {.args = args,
              .keyed = args->batch,
              .query = qkv,
              .key = qkv + key,
              .value = qkv + value,
              .causal = attrs->causal,
              .window = attrs->window};
    c.query_ld = c.key_ld = value + attrs->kv_heads * attrs->head_dim;
    if (din) {
        c.dquery = din;
        c.dkey = din + key;
        c.dvalue = din + value;
    }
    if (attrs->rel_buckets > 0) {
        *buckets = espl__rel_buckets_of(attrs, attrs->causal);
        c.buckets = buckets;
    }
    return c;
}

/* o_i = sum over j of drop(p_ij) v_j,  p_ij = exp(s_ij - lse_i),  s_ij = scale q_i . k_j + bias */
void REF(attention_forward)(const espl_args *args) {
    espl__rel_buckets buckets;
    call c = self_call(args, &buckets);
    each(&c, forward_row);
}

void REF(attention_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    espl__rel_buckets buckets;
    call c = self_call(args, &buckets);
    ref_clear(args->din[0], args->batch->n * c.query_ld, args->din_add[0]);
    if (args->dparam[0])
        ref_clear(args->dparam[0], (int64_t)attrs->rel_buckets * attrs->heads, args->dparam_add[0]);
    each(&c, backward_row);
}

/* Queries of the decoder; keys and values side by side in a row of the encoder. */
static call cross_call(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    int64_t value = attrs->kv_heads * attrs->head_dim;
    call c = {.args = args,
              .keyed = args->batch->source,
              .key_segment = args->batch->source_segment,
              .query = args->in[0],
              .key = args->in[1],
              .value = (const real *)args->in[1] + value,
              .query_ld = attrs->heads * attrs->head_dim,
              .key_ld = 2 * value};
    if (args->din[1]) {
        c.dquery = args->din[0];
        c.dkey = args->din[1];
        c.dvalue = (real *)args->din[1] + value;
    }
    return c;
}

void REF(cross_attention_forward)(const espl_args *args) {
    call c = cross_call(args);
    each(&c, forward_row);
}

void REF(cross_attention_backward)(const espl_args *args) {
    call c = cross_call(args);
    ref_clear(args->din[0], args->batch->n * c.query_ld, args->din_add[0]);
    ref_clear(args->din[1], c.keyed->n * c.key_ld, args->din_add[1]);
    each(&c, backward_row);
}
