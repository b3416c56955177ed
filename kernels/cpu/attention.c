#include "kernels/cpu/attention.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <math.h>
#include <omp.h>

/* FlashAttention-2, algorithm 1 (Dao 2023): for a block of queries, running maximum m and sum l over blocks of keys,
 *   S = scale Q K^T;  m' = max(m, S);  P = e^(S - m');  l = l e^(m - m') + sum P;  O = O e^(m - m') + drop(P) V. */
typedef struct state {
    const attention *a;
    span segment, keyed;             /* of queries and of their keys */
    int64_t head, q, queries, lanes; /* lanes: queries, rounded up to BLOCK_LANES */
    float *qt, *ot, *copy;           /* [d][BLOCK], [d][BLOCK], [BLOCK][d] */
    float *scores, *mask;            /* [BLOCK][BLOCK], [key][query] */
    float top[BLOCK], sum[BLOCK];
} state;

enum { FEW_QUERIES = 4 };

static int64_t floats_of(int64_t d) { return 3 * d * BLOCK + 2 * BLOCK * BLOCK; }

/* What products are added to. */
static void put_bias(const state *s, int64_t k, int64_t keys) {
    const attention *a = s->a;
    const float *table = a->bias + s->head * a->entries + bias_place(a, s->q - k); /* goes down with the key */
    for (int64_t j = 0; j < keys; j++)
        memcpy(s->scores + j * BLOCK, table - j, BLOCK * sizeof(float));
}

/* S^T = K Q^T + bias; on the diagonal a strip of keys has no queries before it. */
static void multiply_keys(const state *s, int64_t k, int64_t keys, bool diagonal) {
    const attention *a = s->a;
    int64_t step = diagonal ? BLOCK_LANES : keys;
    CPU(pack_rows)(a->key + key_place(a, s->keyed.start + k, s->head / a->group), a->key_ld, keys, a->d, a->d, 1.0f, s->copy);
    if (a->entries > 0)
        put_bias(s, k, keys);
    for (int64_t j = 0; j < keys; j += step) {
        int64_t first = diagonal ? j : 0;
        CPU(block_multiply)
        (&(block_product){.m = min64(step, keys - j),
                          .n = s->lanes - first,
                          .k = a->d,
                          .a = s->copy + j * a->d,
                          .a_row = a->d,
                          .a_column = 1,
                          .b = s->qt + first,
                          .ldb = BLOCK,
                          .c = s->scores + j * BLOCK + first,
                          .ldc = BLOCK,
                          .add = a->entries > 0});
    }
}

/* O^T += V^T P^T; on the diagonal a strip of queries has no keys behind it. */
static void add_values(const state *s, int64_t k, int64_t keys, bool diagonal) {
    const attention *a = s->a;
    int64_t step = diagonal ? BLOCK_LANES : s->lanes;
    CPU(pack_rows)(a->value + key_place(a, s->keyed.start + k, s->head / a->group), a->key_ld, keys, a->d, a->d, 1.0f, s->copy);
    for (int64_t i = 0; i < s->lanes; i += step)
        CPU(block_multiply)
    (&(block_product){.m = a->d,
                      .n = step,
                      .k = diagonal ? min64(keys, i + step) : keys,
                      .a = s->copy,
                      .a_row = 1,
                      .a_column = a->d,
                      .b = s->scores + i,
                      .ldb = BLOCK,
                      .c = s->ot + i,
                      .ldc = BLOCK,
                      .add = true});
}

/* Scores of keys that a query does not see become -inf. */
static void mask_scores(const state *s, int64_t k, int64_t keys) {
    int64_t window = s->a->window > 0 ? s->a->window : INT32_MAX;
    for (int64_t j = 0; j < keys; j++) {
        float *row = s->scores + j * BLOCK;
        int32_t from = (int32_t)max64(k + j - s->q, 0), to = (int32_t)min64(k + j - s->q + window, BLOCK); /* queries that see this key */
#pragma omp simd
        for (int32_t i = 0; i < BLOCK; i++)
            row[i] = i < from || i >= to ? -INFINITY : row[i];
    }
}

/* Scores of 16 queries become probabilities (not yet over their sum). Returns whether the maximum of one rose. */
static bool softmax_strip(float *restrict scores, int64_t keys, float *restrict top, float *restrict sum, float *restrict shrink) {
    float next[2][BLOCK_LANES], total[BLOCK_LANES];
    bool rose = false;
    memcpy(next[0], top, sizeof next[0]);
    memcpy(next[1], top, sizeof next[1]);
    for (int64_t j = 0; j < keys; j++)
#pragma omp simd
        for (int i = 0; i < BLOCK_LANES; i++)
            next[j & 1][i] = scores[j * BLOCK + i] > next[j & 1][i] ? scores[j * BLOCK + i] : next[j & 1][i];
    for (int i = 0; i < BLOCK_LANES; i++) {
        float higher = next[0][i] > next[1][i] ? next[0][i] : next[1][i];
        shrink[i] = v_exp(top[i] - higher);
        rose |= higher > top[i];
        top[i] = higher;
        total[i] = sum[i] * shrink[i];
    }
    for (int64_t j = 0; j < keys; j++)
#pragma omp simd
        for (int i = 0; i < BLOCK_LANES; i++) {
            float p = v_exp(scores[j * BLOCK + i] - top[i]);
            scores[j * BLOCK + i] = p;
            total[i] += p;
        }
    memcpy(sum, total, sizeof total);
    return rose;
}

/* What was summed under an older maximum shrinks. */
static void online_softmax(state *s, int64_t keys, bool diagonal) {
    float shrink[BLOCK];
    bool rose = false;
    for (int64_t i = 0; i < s->lanes; i += BLOCK_LANES)
        rose |= softmax_strip(s->scores + i, diagonal ? min64(keys, i + BLOCK_LANES) : keys, s->top + i, s->sum + i, shrink + i);
    for (int64_t c = 0; rose && c < s->a->d; c++)
#pragma omp simd
        for (int64_t i = 0; i < s->lanes; i++)
            s->ot[c * BLOCK + i] *= shrink[i];
}

static void add_keys(state *s, int64_t k, int64_t keys) {
    const attention *a = s->a;
    bool diagonal = on_diagonal(a, s->q, k);
    multiply_keys(s, k, keys, diagonal);
    if (is_masked(a, s->q, s->queries, k))
        mask_scores(s, k, keys);
    online_softmax(s, keys, diagonal);
    if (a->drop.on) {
        CPU(attention_dropout)(a, &s->segment, s->head, s->q, k, keys, s->mask);
        for (int64_t i = 0; i < keys * BLOCK; i++)
            s->scores[i] *= s->mask[i];
    }
    add_values(s, k, keys, diagonal);
}

static void put_block(const state *s) {
    int64_t d = s->a->d, heads = s->a->heads;
    for (int64_t c = 0; c < d; c += BLOCK_LANES) {
        int64_t columns = min64(BLOCK_LANES, d - c);
        CPU(unpack_transposed)(s->ot + c * BLOCK, columns, BLOCK_LANES, s->scores);
        for (int64_t i = 0; i < s->queries; i++) {
            real *out = (real *)s->a->args->out[0] + ((s->segment.start + s->q + i) * heads + s->head) * d + c;
            for (int64_t j = 0; j < columns; j++)
                store(out + j, s->scores[i * BLOCK_LANES + j] / s->sum[i]);
        }
    }
    for (int64_t i = 0; i < s->queries; i++)
        ((float *)s->a->args->out[1])[(s->segment.start + s->q + i) * heads + s->head] = s->top[i] + logf(s->sum[i]);
}

static void forward_block(const attention *a, const block_unit *unit, float *work) {
    span segment = span_of(a->args->batch, unit->segment);
    int64_t d = a->d, q = unit->first;
    state s = {.a = a,
               .segment = segment,
               .keyed = keys_of(a, unit->segment),
               .head = unit->head,
               .q = q,
               .queries = min64(BLOCK, segment.tokens - q),
               .qt = work,
               .ot = work + d * BLOCK,
               .copy = work + 2 * d * BLOCK,
               .scores = work + 3 * d * BLOCK};
    s.lanes = round_up(s.queries, BLOCK_LANES);
    s.mask = s.scores + BLOCK * BLOCK;
    CPU(pack_transposed)(query_at(a, segment.start + q, s.head), a->query_ld, s.queries, d, a->args->attrs->scale, s.qt);
    memset(s.ot, 0, (size_t)(d * BLOCK) * sizeof(float));
    memset(s.scores, 0, (size_t)(BLOCK * BLOCK) * sizeof(float));
    for (int i = 0; i < BLOCK; i++) {
        s.top[i] = -1e30f; /* finite, so that a block without visible keys gives e^-inf and not NaN */
        s.sum[i] = 0.0f;
    }
    int64_t end = end_key(a, &s.keyed, q, s.queries);
    for (int64_t k = first_key(a, q); k < end; k += BLOCK)
        add_keys(&s, k, min64(BLOCK, end - k));
    put_block(&s);
}

/* Whether queries go row by row over the keys as they lie: so few of them would leave most lanes of a block empty. */
static bool goes_by_rows(const attention *a, int64_t queries) {
    return queries <= FEW_QUERIES && !a->causal && !a->drop.on && a->entries == 0;
}

static void forward_rows(const attention *a, const block_unit *unit, float *work) {
    span segment = span_of(a->args->batch, unit->segment), keyed = keys_of(a, unit->segment);
    int64_t place = key_place(a, keyed.start, unit->head / a->group);
    key_rows rows = {.key = a->key + place, .value = a->value + place, .ld = a->key_ld, .d = a->d};
    float *q = work, *o = work + a->d;
    for (int64_t i = segment.start; i < segment.start + segment.tokens; i++) {
        const real *query = query_at(a, i, unit->head);
        int64_t row = i * a->heads + unit->head;
        for (int64_t c = 0; c < a->d; c++)
            q[c] = a->args->attrs->scale * load(query + c);
        ((float *)a->args->out[1])[row] = CPU(attend_rows)(q, &rows, 0, keyed.tokens, o);
        put_row((real *)a->args->out[0] + row * a->d, o, a->d, false);
    }
}

static void attend_blocks(const attention *a) {
    int64_t units = CPU(attention_blocks)(a->args->batch) * a->heads;
    float *work = (float *)a->args->work + CPU(bias_floats)(a->args->attrs);
    CPU(fill_bias)(a->args, a->causal, -1, a->bias);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < units; i++) {
        block_unit unit = CPU(attention_unit)(a->args->batch, i, a->heads);
        bool by_rows = goes_by_rows(a, span_of(a->args->batch, unit.segment).tokens);
        (by_rows ? forward_rows : forward_block)(a, &unit, work + omp_get_thread_num() * floats_of(a->d));
    }
}

void CPU(attention_forward)(const espl_args *args) {
    attention a = CPU(self_attention)(args, args->work);
    attend_blocks(&a);
}

void CPU(cross_attention_forward)(const espl_args *args) {
    attention a = CPU(cross_attention)(args);
    attend_blocks(&a);
}

size_t CPU(attention_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    return backward ? CPU(attention_backward_work)(attrs, n, threads)
                    : (size_t)(CPU(bias_floats)(attrs) + threads * floats_of(attrs->head_dim)) * sizeof(float);
}
