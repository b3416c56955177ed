#include "kernels/cpu/attention.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <math.h>
#include <omp.h>
#include <sched.h>
#include <stdatomic.h>

/* FlashAttention-2, algorithm 2 (Dao 2023). With P = e^(S - lse), M the dropout mask and r = rowsum(dO * O):
 *   dV = (P * M)^T dO;  dS = P * (M * (dO V^T) - r);  dQ = scale dS K;  dK = scale dS^T Q.
 * A thread takes one block of keys and all queries that see it, of all heads that share it, so dK and dV have one sum each. A block of
 * queries has its dQ added up block of keys by block of keys: a thread whose turn has not come waits. Blocks are handed out in that
 * order, so somebody always moves, and threads that begin together stay one block apart. The gradient of the biases is summed over
 * diagonals, then over the buckets, for each block of keys, and over these at the end. */
typedef struct shared {
    float *r;           /* [N,H] */
    atomic_int *turn;   /* [N,H] blocks of keys that the block of queries which starts at this token has seen */
    float *dq;          /* [N,H d] sums, where din is narrower than float */
    int32_t *bucket;    /* [entries] of a table of biases */
    float *dbias;       /* [blocks, rel_buckets, H]; NULL: not wanted */
    float *threads;     /* the threads' floats */
    atomic_llong *next; /* unit to hand out */
} shared;

typedef struct state {
    const attention *a;
    const shared *shared;
    span segment, keyed; /* of queries and of their keys */
    int64_t kv_head, k, keys, head, q, queries, block;
    float *kt, *vt;          /* [d][BLOCK] */
    float *k_rows, *dk, *dv; /* [BLOCK][width]; k_rows and q_rows times the scale */
    float *q_rows, *do_rows, *dq;
    float *p, *ds; /* [BLOCK][BLOCK] */
    float *slopes; /* [entries] of the biases of this head */
} state;

static int64_t thread_floats(const espl_attrs *attrs) {
    int64_t d = attrs->head_dim, entries = round_up(espl__rel_entries(attrs), LANES16);
    return 2 * d * BLOCK + 6 * BLOCK * round_up(d, BLOCK_LANES) + 2 * BLOCK * BLOCK + entries;
}

static int64_t dq_floats(const espl_attrs *attrs, int64_t n) { return REAL_DTYPE == ESPL_F32 ? 0 : n * attrs->heads * attrs->head_dim; }

/* A block of keys has at least one token. */
static int64_t dbias_floats(const espl_attrs *attrs, int64_t n) { return round_up(n * attrs->rel_buckets * attrs->heads, LANES16); }

size_t CPU(attention_backward_work)(const espl_attrs *attrs, int64_t n, int threads) {
    int64_t rows = round_up(n * attrs->heads, LANES16), dq = round_up(dq_floats(attrs, n), LANES16);
    int64_t bias = CPU(bias_floats)(attrs) + round_up(espl__rel_entries(attrs), LANES16) + dbias_floats(attrs, n);
    return (size_t)(bias + LANES16 + 2 * rows + dq + threads * thread_floats(attrs)) * sizeof(float);
}

static shared share(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    int64_t n = args->batch->n, rows = round_up(n * attrs->heads, LANES16);
    float *work = (float *)args->work + CPU(bias_floats)(attrs), *r = work + LANES16, *dq = r + 2 * rows;
    float *bucket = dq + round_up(dq_floats(attrs, n), LANES16), *dbias = bucket + round_up(espl__rel_entries(attrs), LANES16);
    return (shared){.r = r,
                    .turn = (atomic_int *)(r + rows),
                    .dq = dq,
                    .bucket = (int32_t *)bucket,
                    .dbias = attrs->rel_buckets > 0 && args->dparam[0] ? dbias : NULL,
                    .threads = dbias + dbias_floats(attrs, n),
                    .next = (atomic_llong *)work};
}

static void lay_out(state *s, float *at) {
    int64_t d = s->a->d, width = s->a->width;
    const struct {
        float **to;
        int64_t size;
    } rows[] = {{&s->kt, d * BLOCK},     {&s->vt, d * BLOCK},         {&s->k_rows, BLOCK * width},  {&s->dk, BLOCK * width},
                {&s->dv, BLOCK * width}, {&s->q_rows, BLOCK * width}, {&s->do_rows, BLOCK * width}, {&s->dq, BLOCK * width},
                {&s->p, BLOCK * BLOCK},  {&s->ds, BLOCK * BLOCK},     {&s->slopes, s->a->entries}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *rows[i].to = at;
        at += rows[i].size;
    }
}

/* r of every query, the biases, and nobody's turn has come. */
static void prepare(const attention *a, const shared *sh) {
    const real *o = a->args->out[0], *dout = a->args->dout[0];
    int64_t rows = a->args->batch->n * a->heads, d = a->d;
    espl__rel_buckets buckets = espl__rel_buckets_of(a->args->attrs, a->causal);
    atomic_store(sh->next, 0);
    CPU(fill_bias)(a->args, a->causal, 1, a->bias);
    for (int64_t x = 0; x < a->entries; x++)
        sh->bucket[x] = espl__rel_bucket(&buckets, (int32_t)(x - a->entries / 2));
#pragma omp parallel for
    for (int64_t row = 0; row < rows; row++) {
        lanes16 sum = {0}, x, y;
        int64_t c = 0;
        for (; c + LANES16 <= d; c += LANES16) {
            load_lanes(&x, o + row * d + c);
            load_lanes(&y, dout + row * d + c);
            sum += x * y;
        }
        float total = sum_lanes(&sum);
        for (; c < d; c++)
            total = fma1(load(o + row * d + c), load(dout + row * d + c), total);
        sh->r[row] = total;
        atomic_store_explicit(&sh->turn[row], 0, memory_order_relaxed);
    }
}

/* What the products of queries and keys are added to. */
static void put_bias(const state *s) {
    const float *table = s->a->bias + s->head * s->a->entries + bias_place(s->a, s->k - s->q);
    for (int64_t i = 0; i < s->queries; i++)
        memcpy(s->p + i * BLOCK, table - i, BLOCK * sizeof(float));
}

/* C (+)= A B^T with B^T packed; on the diagonal a strip of queries has no keys behind it. */
static void multiply_transposed(const state *s, const float *a, const float *bt, float *c, bool diagonal, bool add) {
    int64_t step = diagonal ? BLOCK_LANES : s->queries, lanes = round_up(s->keys, BLOCK_LANES);
    for (int64_t i = 0; i < s->queries; i += step)
        CPU(block_multiply)
    (&(block_product){.m = min64(step, s->queries - i),
                      .n = diagonal ? min64(lanes, i + step) : lanes,
                      .k = s->a->d,
                      .a = a + i * s->a->width,
                      .a_row = s->a->width,
                      .a_column = 1,
                      .b = bt,
                      .ldb = BLOCK,
                      .c = c + i * BLOCK,
                      .ldc = BLOCK,
                      .add = add});
}

/* to += P^T rows; on the diagonal a strip of keys has no queries before it. */
static void add_to_keys(const state *s, const float *p, const float *rows, float *to, bool diagonal) {
    int64_t step = diagonal ? BLOCK_LANES : s->keys, width = s->a->width;
    for (int64_t j = 0; j < s->keys; j += step) {
        int64_t first = diagonal ? j : 0;
        CPU(block_multiply)
        (&(block_product){.m = min64(step, s->keys - j),
                          .n = width,
                          .k = s->queries - first,
                          .a = p + first * BLOCK + j,
                          .a_row = 1,
                          .a_column = BLOCK,
                          .b = rows + first * width,
                          .ldb = width,
                          .c = to + j * width,
                          .ldc = width,
                          .add = true});
    }
}

/* dQ of this block of keys alone. */
static void multiply_queries(const state *s, bool diagonal) {
    int64_t step = diagonal ? BLOCK_LANES : s->queries, width = s->a->width;
    for (int64_t i = 0; i < s->queries; i += step)
        CPU(block_multiply)
    (&(block_product){.m = min64(step, s->queries - i),
                      .n = width,
                      .k = diagonal ? min64(s->keys, i + step) : s->keys,
                      .a = s->ds + i * BLOCK,
                      .a_row = BLOCK,
                      .a_column = 1,
                      .b = s->k_rows,
                      .ldb = width,
                      .c = s->dq + i * width,
                      .ldc = width});
}

/* Scores of keys that query i of the block does not see become -inf. */
static void mask_row(const state *s, int64_t i) {
    int64_t window = s->a->window > 0 ? s->a->window : INT32_MAX, last = s->q + i - s->k;
    int32_t from = (int32_t)max64(last - window + 1, 0), to = (int32_t)min64(last + 1, BLOCK);
    float *row = s->p + i * BLOCK;
#pragma omp simd
    for (int32_t j = 0; j < BLOCK; j++)
        row[j] = j < from || j >= to ? -INFINITY : row[j];
}

/* Row i of P * M and of dS, `lanes` keys. */
static void probabilities(const state *s, int64_t i, int64_t lanes) {
    const attention *a = s->a;
    int64_t row = (s->segment.start + s->q + i) * a->heads + s->head;
    float *restrict p = s->p + i * BLOCK, *restrict ds = s->ds + i * BLOCK;
    float lse = ((const float *)a->args->out[1])[row], r = s->shared->r[row], mask[BLOCK];
    if (!a->drop.on) {
#pragma omp simd
        for (int64_t j = 0; j < lanes; j++) {
            p[j] = v_exp(p[j] - lse);
            ds[j] = p[j] * (ds[j] - r);
        }
        return;
    }
    uint64_t number = (uint64_t)(s->head * a->args->batch->n + s->segment.start + s->q + i);
    CPU(dropout_mask)(&a->drop, (number << 20) + (uint64_t)s->k, lanes, mask);
#pragma omp simd
    for (int64_t j = 0; j < lanes; j++) {
        float x = v_exp(p[j] - lse);
        p[j] = x * mask[j];
        ds[j] = x * (ds[j] * mask[j] - r);
    }
}

/* Row i of dS, to the diagonals. */
static void add_to_slopes(const state *s, int64_t i, int64_t lanes) {
    const float *restrict ds = s->ds + i * BLOCK;
    float *restrict to = s->slopes + bias_place(s->a, s->k - s->q) - i;
#pragma omp simd
    for (int64_t j = 0; j < lanes; j++)
        to[j] += ds[j];
}

static void wait_for(atomic_int *turn, int mine) {
    for (int spins = 0; atomic_load_explicit(turn, memory_order_acquire) != mine; spins++)
        if (spins > 256)
            sched_yield();
}

static void add_queries(const state *s) {
    const attention *a = s->a;
    bool add = a->query_add, last = s->k + BLOCK >= end_key(a, &s->keyed, s->q, s->queries);
    int64_t token = s->segment.start + s->q;
    int mine = (int)((s->k - first_key(a, s->q)) / BLOCK);
    atomic_int *turn = &s->shared->turn[token * a->heads + s->head];
    wait_for(turn, mine);
    for (int64_t i = 0; i < s->queries; i++) {
        real *to = a->dquery + (token + i) * a->query_ld + s->head * a->d;
        const float *dq = s->dq + i * a->width;
        if (REAL_DTYPE == ESPL_F32) {
            put_row(to, dq, a->d, add || mine > 0);
            continue;
        }
        float *sum = s->shared->dq + ((token + i) * a->heads + s->head) * a->d;
        for (int64_t c = 0; c < a->d; c++)
            sum[c] = mine > 0 ? sum[c] + dq[c] : dq[c];
        if (last)
            put_row(to, sum, a->d, add);
    }
    atomic_store_explicit(turn, mine + 1, memory_order_release);
}

/* One block of queries, of one head, by the block of keys. */
static void do_block(state *s) {
    const attention *a = s->a;
    const real *dout = (const real *)a->args->dout[0] + ((s->segment.start + s->q) * a->heads + s->head) * a->d;
    s->queries = min64(BLOCK, s->segment.tokens - s->q);
    bool diagonal = on_diagonal(a, s->q, s->k), masked = is_masked(a, s->q, s->queries, s->k);
    CPU(pack_rows)
    (query_at(a, s->segment.start + s->q, s->head), a->query_ld, s->queries, a->d, a->width, a->args->attrs->scale, s->q_rows);
    CPU(pack_rows)(dout, a->heads * a->d, s->queries, a->d, a->width, 1.0f, s->do_rows);
    if (a->entries > 0)
        put_bias(s);
    multiply_transposed(s, s->q_rows, s->kt, s->p, diagonal, a->entries > 0);
    multiply_transposed(s, s->do_rows, s->vt, s->ds, diagonal, false);
    for (int64_t i = 0; i < s->queries; i++) {
        int64_t lanes = diagonal ? min64(BLOCK, round_up(i + 1, BLOCK_LANES)) : BLOCK;
        if (masked)
            mask_row(s, i);
        probabilities(s, i, lanes);
        if (s->shared->dbias)
            add_to_slopes(s, i, min64(lanes, s->keys));
    }
    add_to_keys(s, s->p, s->do_rows, s->dv, diagonal);
    add_to_keys(s, s->ds, s->q_rows, s->dk, diagonal);
    multiply_queries(s, diagonal);
    add_queries(s);
}

static void put_keys(const state *s) {
    const attention *a = s->a;
    for (int64_t i = 0; i < s->keys; i++) {
        int64_t place = key_place(a, s->keyed.start + s->k + i, s->kv_head);
        put_row(a->dkey + place, s->dk + i * a->width, a->d, a->key_add);
        put_row(a->dvalue + place, s->dv + i * a->width, a->d, a->key_add);
    }
}

/* Diagonals to the buckets of this block of keys: those of a bucket lie side by side. */
static void put_slopes(const state *s) {
    int64_t buckets = s->a->args->attrs->rel_buckets, heads = s->a->heads, entries = s->a->entries;
    const int32_t *bucket = s->shared->bucket;
    float *to = s->shared->dbias + s->block * buckets * heads + s->head;
    for (int64_t i = 0; i < buckets; i++)
        to[i * heads] = 0.0f;
    for (int64_t x = 0; x < entries;) {
        double sum = 0.0;
        int64_t first = x;
        for (; x < entries && bucket[x] == bucket[first]; x++)
            sum += s->slopes[x];
        to[bucket[first] * heads] = (float)sum;
    }
}

static void backward_keys(state *s) {
    const attention *a = s->a;
    int64_t place = key_place(a, s->keyed.start + s->k, s->kv_head), width = a->width;
    s->keys = min64(BLOCK, s->keyed.tokens - s->k);
    CPU(pack_transposed)(a->key + place, a->key_ld, s->keys, a->d, 1.0f, s->kt);
    CPU(pack_transposed)(a->value + place, a->key_ld, s->keys, a->d, 1.0f, s->vt);
    CPU(pack_rows)(a->key + place, a->key_ld, s->keys, a->d, width, a->args->attrs->scale, s->k_rows);
    memset(s->dk, 0, (size_t)(BLOCK * width) * sizeof(float));
    memset(s->dv, 0, (size_t)(BLOCK * width) * sizeof(float));
    memset(s->p, 0, (size_t)(2 * BLOCK * BLOCK) * sizeof(float));
    for (s->head = s->kv_head * a->group; s->head < (s->kv_head + 1) * a->group; s->head++) {
        memset(s->slopes, 0, (size_t)a->entries * sizeof(float));
        for (s->q = a->causal ? s->k : 0; s->q < s->segment.tokens && first_key(a, s->q) <= s->k; s->q += BLOCK)
            do_block(s);
        if (s->shared->dbias)
            put_slopes(s);
    }
    put_keys(s);
}

/* dP0: the sums of all blocks of keys, in their order. There may be thousands: in double. */
static void put_dbias(const attention *a, const shared *sh, int64_t blocks) {
    float *to = a->args->dparam[0];
    int64_t n = a->args->attrs->rel_buckets * a->heads;
    bool add = a->args->dparam_add[0];
#pragma omp parallel for
    for (int64_t e = 0; e < n; e++) {
        double sum = add ? to[e] : 0.0;
        for (int64_t block = 0; block < blocks; block++)
            sum += sh->dbias[block * n + e];
        to[e] = (float)sum;
    }
}

static void attend_blocks_backward(const attention *a) {
    shared sh = share(a->args);
    int64_t blocks = CPU(attention_blocks)(a->keyed);
    prepare(a, &sh);
#pragma omp parallel
    {
        state s = {.a = a, .shared = &sh};
        lay_out(&s, sh.threads + omp_get_thread_num() * thread_floats(a->args->attrs));
        for (int64_t i; (i = atomic_fetch_add(sh.next, 1)) < blocks * a->kv_heads;) {
            block_unit unit = CPU(attention_unit)(a->keyed, i, a->kv_heads);
            s.segment = span_of(a->args->batch, unit.segment);
            s.keyed = span_of(a->keyed, unit.segment);
            s.kv_head = unit.head;
            s.k = unit.first;
            s.block = unit.block;
            backward_keys(&s);
        }
    }
    if (sh.dbias)
        put_dbias(a, &sh, blocks);
}

void CPU(attention_backward)(const espl_args *args) {
    attention a = CPU(self_attention)(args, args->work);
    attend_blocks_backward(&a);
}

void CPU(cross_attention_backward)(const espl_args *args) {
    attention a = CPU(cross_attention)(args);
    attend_blocks_backward(&a);
}
