#include "kernels/cpu/attention.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <math.h>
#include <omp.h>

/* FlashAttention-2, algorithm 1 (Dao 2023): for a block of queries, running maximum m and sum l over blocks of keys,
 *   S = scale Q K^T;  m' = max(m, S);  P = e^(S - m');  l = l e^(m - m') + sum P;  O = O e^(m - m') + drop(P) V. */
typedef struct state {
    const attention *a;
    span segment;
    int64_t head, q, queries;
    float *qt, *ot, *scores, *mask, *copy; /* [d][BLOCK], [d][BLOCK], [BLOCK][BLOCK] twice, [BLOCK][d] */
    float top[BLOCK], sum[BLOCK];
} state;

static int64_t floats_of(int64_t d) { return 3 * d * BLOCK + 2 * BLOCK * BLOCK; }

/* Scores become probabilities (not yet over their sum); what was summed under an older maximum shrinks. */
static void online_softmax(state *s, int64_t keys) {
    float old[BLOCK], shrink[BLOCK];
    float *restrict top = s->top, *restrict sum = s->sum, *restrict scores = s->scores;
    memcpy(old, top, sizeof old);
    for (int64_t j = 0; j < keys; j++)
#pragma omp simd
        for (int i = 0; i < BLOCK; i++)
            top[i] = scores[j * BLOCK + i] > top[i] ? scores[j * BLOCK + i] : top[i];
#pragma omp simd
    for (int i = 0; i < BLOCK; i++) {
        shrink[i] = v_exp(old[i] - top[i]);
        sum[i] *= shrink[i];
    }
    for (int64_t j = 0; j < keys; j++)
#pragma omp simd
        for (int i = 0; i < BLOCK; i++) {
            float p = v_exp(scores[j * BLOCK + i] - top[i]);
            scores[j * BLOCK + i] = p;
            sum[i] += p;
        }
    for (int64_t c = 0; c < s->a->d; c++)
#pragma omp simd
        for (int i = 0; i < BLOCK; i++)
            s->ot[c * BLOCK + i] *= shrink[i];
}

static void add_keys(state *s, int64_t k, int64_t keys) {
    const attention *a = s->a;
    int64_t d = a->d, ldk = a->ld, ldv = a->ld, token = s->segment.start + k, kv_head = s->head / a->group;
    int64_t lanes = round_up(s->queries, BLOCK_LANES);
    const float *key = CPU(view_rows)(key_at(a, token, kv_head), &ldk, keys, d, s->copy);
    CPU(block_multiply)
    (&(block_product){
        .m = keys, .n = lanes, .k = d, .a = key, .a_row = ldk, .a_column = 1, .b = s->qt, .ldb = BLOCK, .c = s->scores, .ldc = BLOCK});
    CPU(mask_scores)(a, s->q, s->queries, k, keys, s->scores);
    online_softmax(s, keys);
    if (a->drop.on) {
        CPU(attention_dropout)(a, &s->segment, s->head, s->q, k, keys, s->mask);
        for (int64_t i = 0; i < keys * BLOCK; i++)
            s->scores[i] *= s->mask[i];
    }
    const float *value = CPU(view_rows)(value_at(a, token, kv_head), &ldv, keys, d, s->copy);
    CPU(block_multiply)
    (&(block_product){.m = d,
                      .n = lanes,
                      .k = keys,
                      .a = value,
                      .a_row = 1,
                      .a_column = ldv,
                      .b = s->scores,
                      .ldb = BLOCK,
                      .c = s->ot,
                      .ldc = BLOCK,
                      .add = true});
}

static void put_block(const state *s) {
    int64_t d = s->a->d, heads = s->a->heads;
    for (int64_t i = 0; i < s->queries; i++) {
        int64_t at = (s->segment.start + s->q + i) * heads + s->head;
        real *out = (real *)s->a->args->out[0] + at * d;
        float over = 1.0f / s->sum[i];
        for (int64_t c = 0; c < d; c++)
            store(out + c, s->ot[c * BLOCK + i] * over);
        ((float *)s->a->args->out[1])[at] = s->top[i] + logf(s->sum[i]);
    }
}

static void forward_block(const attention *a, span segment, int64_t head, int64_t q, float *work) {
    int64_t d = a->d;
    state s = {.a = a,
               .segment = segment,
               .head = head,
               .q = q,
               .queries = min64(BLOCK, segment.tokens - q),
               .qt = work,
               .ot = work + d * BLOCK,
               .copy = work + 2 * d * BLOCK,
               .scores = work + 3 * d * BLOCK};
    s.mask = s.scores + BLOCK * BLOCK;
    CPU(pack_transposed)(query_at(a, segment.start + q, head), a->ld, s.queries, d, a->args->attrs->scale, s.qt);
    memset(s.ot, 0, (size_t)(d * BLOCK) * sizeof(float));
    memset(s.scores, 0, (size_t)(BLOCK * BLOCK) * sizeof(float));
    for (int i = 0; i < BLOCK; i++) {
        s.top[i] = -1e30f; /* finite, so that a block without visible keys gives e^-inf and not NaN */
        s.sum[i] = 0.0f;
    }
    int64_t end = end_key(a, &segment, q, s.queries);
    for (int64_t k = first_key(a, q); k < end; k += BLOCK)
        add_keys(&s, k, min64(BLOCK, end - k));
    put_block(&s);
}

/* Block number `block` of the micro-batch, segment by segment. */
static span find_block(const espl_batch *batch, int64_t block, int64_t *q) {
    for (int32_t i = 0; i < batch->n_segments; i++) {
        int64_t start = batch->segments[i], tokens = batch->segments[i + 1] - start, count = pieces(tokens, BLOCK);
        if (block < count) {
            *q = (count - 1 - block) * BLOCK; /* the longest first */
            return (span){start, tokens};
        }
        block -= count;
    }
    return (span){0, 0};
}

static int64_t count_blocks(const espl_batch *batch) {
    int64_t count = 0;
    for (int32_t i = 0; i < batch->n_segments; i++)
        count += pieces(batch->segments[i + 1] - batch->segments[i], BLOCK);
    return count;
}

void CPU(attention_forward)(const espl_args *args) {
    attention a = attention_of(args, CPU(dropout_of)(args));
    int64_t blocks = count_blocks(args->batch);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t unit = 0; unit < blocks * a.heads; unit++) {
        int64_t q = 0;
        span segment = find_block(args->batch, unit / a.heads, &q);
        forward_block(&a, segment, unit % a.heads, q, (float *)args->work + omp_get_thread_num() * floats_of(a.d));
    }
}

/* Backward holds what one thread needs of one segment; see attention_backward.c. */
size_t CPU(attention_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    int64_t forward = floats_of(attrs->head_dim);
    return (size_t)threads * (size_t)(backward ? CPU(attention_backward_floats)(attrs->head_dim, n) : forward) * sizeof(float);
}
