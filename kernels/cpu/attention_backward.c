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
 * order, so somebody always moves, and threads that begin together stay one block apart. */
typedef struct shared {
    float *r;           /* [N,H] */
    atomic_int *turn;   /* [N,H] blocks of keys that the block of queries which starts at this token has seen */
    float *dq;          /* [N,H d] sums, where din is narrower than float */
    float *threads;     /* the threads' floats */
    atomic_llong *next; /* unit to hand out */
} shared;

typedef struct state {
    const attention *a;
    const shared *shared;
    span segment;
    int64_t kv_head, k, keys, head, q, queries;
    float *kt, *vt;          /* [d][BLOCK] */
    float *k_rows, *dk, *dv; /* [BLOCK][width]; k_rows and q_rows times the scale */
    float *q_rows, *do_rows, *dq;
    float *p, *ds; /* [BLOCK][BLOCK] */
} state;

static int64_t thread_floats(int64_t d) { return 2 * d * BLOCK + 6 * BLOCK * round_up(d, BLOCK_LANES) + 2 * BLOCK * BLOCK; }

static int64_t dq_floats(const espl_attrs *attrs, int64_t n) { return REAL_DTYPE == ESPL_F32 ? 0 : n * attrs->heads * attrs->head_dim; }

size_t CPU(attention_backward_work)(const espl_attrs *attrs, int64_t n, int threads) {
    int64_t rows = round_up(n * attrs->heads, LANES16), dq = round_up(dq_floats(attrs, n), LANES16);
    return (size_t)(LANES16 + 2 * rows + dq + threads * thread_floats(attrs->head_dim)) * sizeof(float);
}

static shared share(const espl_args *args) {
    int64_t n = args->batch->n, rows = round_up(n * args->attrs->heads, LANES16);
    float *work = args->work, *r = work + LANES16, *dq = r + 2 * rows;
    return (shared){.r = r,
                    .turn = (atomic_int *)(r + rows),
                    .dq = dq,
                    .threads = dq + round_up(dq_floats(args->attrs, n), LANES16),
                    .next = (atomic_llong *)work};
}

static void lay_out(state *s, float *at) {
    int64_t d = s->a->d, width = s->a->width;
    const struct {
        float **to;
        int64_t size;
    } rows[] = {{&s->kt, d * BLOCK},     {&s->vt, d * BLOCK},         {&s->k_rows, BLOCK * width},  {&s->dk, BLOCK * width},
                {&s->dv, BLOCK * width}, {&s->q_rows, BLOCK * width}, {&s->do_rows, BLOCK * width}, {&s->dq, BLOCK * width},
                {&s->p, BLOCK * BLOCK},  {&s->ds, BLOCK * BLOCK}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *rows[i].to = at;
        at += rows[i].size;
    }
}

/* r of every query, and nobody's turn has come. */
static void prepare(const attention *a, const shared *sh) {
    const real *o = a->args->out[0], *dout = a->args->dout[0];
    int64_t rows = a->args->batch->n * a->heads, d = a->d;
    atomic_store(sh->next, 0);
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

/* C = A B^T with B^T packed; on the diagonal a strip of queries has no keys behind it. */
static void multiply_transposed(const state *s, const float *a, const float *bt, float *c, bool diagonal) {
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
                      .ldc = BLOCK});
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
    int64_t window = s->a->args->attrs->window > 0 ? s->a->args->attrs->window : INT32_MAX, last = s->q + i - s->k;
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

static void wait_for(atomic_int *turn, int mine) {
    for (int spins = 0; atomic_load_explicit(turn, memory_order_acquire) != mine; spins++)
        if (spins > 256)
            sched_yield();
}

static void add_queries(const state *s) {
    const attention *a = s->a;
    bool add = a->args->din_add[0], last = s->k + BLOCK >= end_key(a, &s->segment, s->q, s->queries);
    int64_t token = s->segment.start + s->q;
    int mine = (int)((s->k - first_key(a, s->q)) / BLOCK);
    atomic_int *turn = &s->shared->turn[token * a->heads + s->head];
    wait_for(turn, mine);
    for (int64_t i = 0; i < s->queries; i++) {
        real *to = (real *)a->args->din[0] + (token + i) * a->ld + s->head * a->d;
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
    (query_at(a, s->segment.start + s->q, s->head), a->ld, s->queries, a->d, a->width, a->args->attrs->scale, s->q_rows);
    CPU(pack_rows)(dout, a->heads * a->d, s->queries, a->d, a->width, 1.0f, s->do_rows);
    multiply_transposed(s, s->q_rows, s->kt, s->p, diagonal);
    multiply_transposed(s, s->do_rows, s->vt, s->ds, diagonal);
    for (int64_t i = 0; i < s->queries; i++) {
        if (masked)
            mask_row(s, i);
        probabilities(s, i, diagonal ? min64(BLOCK, round_up(i + 1, BLOCK_LANES)) : BLOCK);
    }
    add_to_keys(s, s->p, s->do_rows, s->dv, diagonal);
    add_to_keys(s, s->ds, s->q_rows, s->dk, diagonal);
    multiply_queries(s, diagonal);
    add_queries(s);
}

static void put_keys(const state *s) {
    const attention *a = s->a;
    for (int64_t i = 0; i < s->keys; i++) {
        real *dk = (real *)a->args->din[0] + (s->segment.start + s->k + i) * a->ld + (a->heads + s->kv_head) * a->d;
        real *dv = dk + a->kv_heads * a->d;
        put_row(dk, s->dk + i * a->width, a->d, a->args->din_add[0]);
        put_row(dv, s->dv + i * a->width, a->d, a->args->din_add[0]);
    }
}

static void backward_keys(state *s) {
    const attention *a = s->a;
    int64_t token = s->segment.start + s->k, width = a->width;
    s->keys = min64(BLOCK, s->segment.tokens - s->k);
    CPU(pack_transposed)(key_at(a, token, s->kv_head), a->ld, s->keys, a->d, 1.0f, s->kt);
    CPU(pack_transposed)(value_at(a, token, s->kv_head), a->ld, s->keys, a->d, 1.0f, s->vt);
    CPU(pack_rows)(key_at(a, token, s->kv_head), a->ld, s->keys, a->d, width, a->args->attrs->scale, s->k_rows);
    memset(s->dk, 0, (size_t)(BLOCK * width) * sizeof(float));
    memset(s->dv, 0, (size_t)(BLOCK * width) * sizeof(float));
    memset(s->p, 0, (size_t)(2 * BLOCK * BLOCK) * sizeof(float));
    for (s->head = s->kv_head * a->group; s->head < (s->kv_head + 1) * a->group; s->head++)
        for (s->q = a->args->attrs->causal ? s->k : 0; s->q < s->segment.tokens && first_key(a, s->q) <= s->k; s->q += BLOCK)
            do_block(s);
    put_keys(s);
}

void CPU(attention_backward)(const espl_args *args) {
    attention a = attention_of(args, CPU(dropout_of)(args));
    shared sh = share(args);
    int64_t units = CPU(attention_blocks)(args->batch) * a.kv_heads;
    prepare(&a, &sh);
#pragma omp parallel
    {
        state s = {.a = &a, .shared = &sh};
        lay_out(&s, sh.threads + omp_get_thread_num() * thread_floats(a.d));
        for (int64_t i; (i = atomic_fetch_add(sh.next, 1)) < units;) {
            block_unit unit = CPU(attention_unit)(args->batch, i, a.kv_heads);
            s.segment = unit.segment;
            s.kv_head = unit.head;
            s.k = unit.first;
            backward_keys(&s);
        }
    }
}
