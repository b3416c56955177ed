#include "kernels/cpu/attention.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <omp.h>

/* FlashAttention-2, algorithm 2 (Dao 2023). With P = e^(S - lse), M the dropout mask and r = rowsum(dO * O):
 *   dV = (P * M)^T dO;  dS = P * (M * (dO V^T) - r);  dQ = scale dS K;  dK = scale dS^T Q.
 * A thread takes all queries of one segment that share a key head, block by block in order, so dK and dV have one sum each. */
typedef struct state {
    const attention *a;
    span segment;
    int64_t head, kv_head, q, queries, keys;
    float *dk, *dv;          /* [tokens of the segment][width] */
    float *qt, *dot, *dqt;   /* [d][BLOCK] */
    float *q_rows, *do_rows; /* [BLOCK][width] */
    float *p, *ds, *mask;    /* [BLOCK][BLOCK] */
    float *copy;             /* [2][BLOCK][d] */
    float lse[BLOCK], r[BLOCK];
} state;

int64_t CPU(attention_backward_floats)(int64_t d, int64_t n) {
    int64_t width = round_up(d, BLOCK_LANES);
    return round_up(2 * n * width + 5 * d * BLOCK + 2 * BLOCK * width + 3 * BLOCK * BLOCK, BLOCK_LANES);
}

static void lay_out(state *s, float *work) {
    int64_t d = s->a->d, width = s->a->width, n = s->segment.tokens;
    float *at = work;
    const struct {
        float **to;
        int64_t size;
    } rows[] = {{&s->dk, n * width},     {&s->dv, n * width},         {&s->qt, d * BLOCK},          {&s->dot, d * BLOCK},
                {&s->dqt, d * BLOCK},    {&s->q_rows, BLOCK * width}, {&s->do_rows, BLOCK * width}, {&s->p, BLOCK * BLOCK},
                {&s->ds, BLOCK * BLOCK}, {&s->mask, BLOCK * BLOCK},   {&s->copy, 2 * BLOCK * d}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *rows[i].to = at;
        at += rows[i].size;
    }
}

/* P and dS of one block; both transposed, [key][query]. */
static void probabilities(state *s) {
    float *restrict p = s->p, *restrict ds = s->ds;
    const float *lse = s->lse, *r = s->r;
    if (!s->a->drop.on) {
        for (int64_t j = 0; j < s->keys; j++)
#pragma omp simd
            for (int i = 0; i < BLOCK; i++) {
                float x = v_exp(p[j * BLOCK + i] - lse[i]);
                p[j * BLOCK + i] = x;
                ds[j * BLOCK + i] = x * (ds[j * BLOCK + i] - r[i]);
            }
        return;
    }
    const float *restrict mask = s->mask;
    for (int64_t j = 0; j < s->keys; j++)
#pragma omp simd
        for (int i = 0; i < BLOCK; i++) {
            float x = v_exp(p[j * BLOCK + i] - lse[i]), m = mask[j * BLOCK + i];
            p[j * BLOCK + i] = x * m;
            ds[j * BLOCK + i] = x * (ds[j * BLOCK + i] * m - r[i]);
        }
}

static void add_keys(state *s, int64_t k) {
    const attention *a = s->a;
    int64_t d = a->d, width = a->width, ldk = a->ld, ldv = a->ld, token = s->segment.start + k, keys = s->keys;
    int64_t lanes = round_up(s->queries, BLOCK_LANES);
    const float *key = CPU(view_rows)(key_at(a, token, s->kv_head), &ldk, keys, d, s->copy);
    const float *value = CPU(view_rows)(value_at(a, token, s->kv_head), &ldv, keys, d, s->copy + BLOCK * d);
    block_product scores = {
        .m = keys, .n = lanes, .k = d, .a = key, .a_row = ldk, .a_column = 1, .b = s->qt, .ldb = BLOCK, .c = s->p, .ldc = BLOCK};
    CPU(block_multiply)(&scores);
    block_product dp = {
        .m = keys, .n = lanes, .k = d, .a = value, .a_row = ldv, .a_column = 1, .b = s->dot, .ldb = BLOCK, .c = s->ds, .ldc = BLOCK};
    CPU(block_multiply)(&dp);
    CPU(mask_scores)(a, s->q, s->queries, k, keys, s->p);
    if (a->drop.on)
        CPU(attention_dropout)(a, &s->segment, s->head, s->q, k, keys, s->mask);
    probabilities(s);
    block_product dv = {.m = keys,
                        .n = width,
                        .k = s->queries,
                        .a = s->p,
                        .a_row = BLOCK,
                        .a_column = 1,
                        .b = s->do_rows,
                        .ldb = width,
                        .c = s->dv + k * width,
                        .ldc = width,
                        .add = true};
    CPU(block_multiply)(&dv);
    block_product dk = {.m = keys,
                        .n = width,
                        .k = s->queries,
                        .a = s->ds,
                        .a_row = BLOCK,
                        .a_column = 1,
                        .b = s->q_rows,
                        .ldb = width,
                        .c = s->dk + k * width,
                        .ldc = width,
                        .add = true};
    CPU(block_multiply)(&dk);
    block_product dq = {.m = d,
                        .n = lanes,
                        .k = keys,
                        .a = key,
                        .a_row = 1,
                        .a_column = ldk,
                        .b = s->ds,
                        .ldb = BLOCK,
                        .c = s->dqt,
                        .ldc = BLOCK,
                        .add = true};
    CPU(block_multiply)(&dq);
}

/* Everything of a block of queries that does not depend on keys. */
static void load_queries(state *s) {
    const attention *a = s->a;
    const espl_args *args = a->args;
    int64_t d = a->d, width = a->width, token = s->segment.start + s->q, ld = a->heads * d;
    const real *q = query_at(a, token, s->head);
    const real *o = (const real *)args->out[0] + token * ld + s->head * d, *dout = (const real *)args->dout[0] + token * ld + s->head * d;
    CPU(pack_transposed)(q, a->ld, s->queries, d, args->attrs->scale, s->qt);
    CPU(pack_transposed)(dout, ld, s->queries, d, 1.0f, s->dot);
    CPU(pack_rows)(q, a->ld, s->queries, d, width, args->attrs->scale, s->q_rows);
    CPU(pack_rows)(dout, ld, s->queries, d, width, 1.0f, s->do_rows);
    memset(s->dqt, 0, (size_t)(d * BLOCK) * sizeof(float));
    for (int64_t i = 0; i < BLOCK; i++) {
        s->lse[i] = s->r[i] = 0.0f;
        if (i >= s->queries)
            continue;
        s->lse[i] = ((const float *)args->out[1])[(token + i) * a->heads + s->head];
        float sum = 0.0f;
        for (int64_t c = 0; c < d; c++)
            sum = fma1(s->do_rows[i * width + c], load(o + i * ld + c), sum);
        s->r[i] = sum;
    }
}

static void put_queries(const state *s) {
    const attention *a = s->a;
    float scale = a->args->attrs->scale;
    real *to = (real *)a->args->din[0] + (s->segment.start + s->q) * a->ld + s->head * a->d;
    CPU(unpack_transposed)(s->dqt, a->d, a->width, scale, s->q_rows); /* they are not read again */
    for (int64_t i = 0; i < s->queries; i++)
        put_row(to + i * a->ld, s->q_rows + i * a->width, a->d, a->args->din_add[0]);
}

static void put_keys(const state *s) {
    const attention *a = s->a;
    for (int64_t i = 0; i < s->segment.tokens; i++) {
        real *dk = (real *)a->args->din[0] + (s->segment.start + i) * a->ld + (a->heads + s->kv_head) * a->d;
        real *dv = dk + a->kv_heads * a->d;
        put_row(dk, s->dk + i * a->width, a->d, a->args->din_add[0]);
        put_row(dv, s->dv + i * a->width, a->d, a->args->din_add[0]);
    }
}

static void backward_head(const attention *a, span segment, int64_t kv_head, float *work) {
    state s = {.a = a, .segment = segment, .kv_head = kv_head};
    lay_out(&s, work);
    memset(s.dk, 0, (size_t)(2 * segment.tokens * a->width) * sizeof(float));
    memset(s.p, 0, (size_t)(2 * BLOCK * BLOCK) * sizeof(float));
    for (s.head = kv_head * a->group; s.head < (kv_head + 1) * a->group; s.head++)
        for (s.q = 0; s.q < segment.tokens; s.q += BLOCK) {
            s.queries = min64(BLOCK, segment.tokens - s.q);
            load_queries(&s);
            int64_t end = end_key(a, &segment, s.q, s.queries);
            for (int64_t k = first_key(a, s.q); k < end; k += BLOCK) {
                s.keys = min64(BLOCK, end - k);
                add_keys(&s, k);
            }
            put_queries(&s);
        }
    put_keys(&s);
}

void CPU(attention_backward)(const espl_args *args) {
    attention a = attention_of(args, CPU(dropout_of)(args));
    const espl_batch *batch = args->batch;
    int64_t floats = CPU(attention_backward_floats)(a.d, batch->n);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < batch->n_segments * a.kv_heads; unit++) {
        int64_t i = unit / a.kv_heads, start = batch->segments[i];
        span segment = {start, batch->segments[i + 1] - start};
        backward_head(&a, segment, unit % a.kv_heads, (float *)args->work + omp_get_thread_num() * floats);
    }
}
