/* What the kernels of ATTENTION and CROSS_ATTENTION share: a call as kernels see it, who sees whom, biases, and dropout of probabilities.
 *
 * Work is cut over fixed tiles of rows of the packed micro-batch, whatever its segments are, so that a launch fits every micro-batch. Rows
 * of segments come in order and padding comes last, so the keys that the rows of a tile see, and the queries that see its keys, are one
 * stretch of rows each. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_CUH
#define ESPL_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/attention_bias.h"
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/prims.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_attention_work.h"
#include "kernels/relative_bias.h"

#include <math.h>

/* Queries or keys of a block of scores, at most: what biases of a block need beyond rel_distance. */
constexpr int BIAS_BLOCK = 64;

/* One call. Pointers are those of the device's arrays: what they hold may change between replays of a launch. Rows of queries and rows of
 * keys are the same in ATTENTION. */
struct attention {
    const espl__batch *batch, *keyed;       /* whose rows are queries, and keys */
    const int32_t *key_begin, *key_end;     /* the rows of keys that go with a query */
    const int32_t *query_begin, *query_end; /* the rows of queries that go with a key */
    int tokens, keyed_tokens, heads, kv_heads, group, d;
    int query_ld, key_ld; /* elements from row to row */
    int causal, window;
    float scale, scale_log2; /* scale; scale log2(e) */
    dropout_row drop;
    const float *bias; /* [H, entries] over the scale, in order of key - query; NULL: none */
    int entries;
};

/* Where head 0 of row 0 stands. The values of a row stand behind its keys. */
template <class real> struct attention_tensors {
    const real *query, *key, *dout;
    real *dquery, *dkey;
    int query_add, key_add; /* gradients are added to what is there */
};

static inline attention attention_of(const espl_args *args, const espl__rows *queries, const espl__rows *keys) {
    const espl_attrs *attrs = args->attrs;
    attention a = {};
    a.batch = queries->batch;
    a.keyed = keys->batch;
    a.tokens = (int)queries->tokens;
    a.keyed_tokens = (int)keys->tokens;
    a.heads = attrs->heads;
    a.kv_heads = attrs->kv_heads;
    a.group = attrs->heads / attrs->kv_heads;
    a.d = attrs->head_dim;
    a.scale = attrs->scale;
    a.scale_log2 = attrs->scale * 1.44269504f;
    a.drop = dropout_row_of(attrs);
    return a;
}

/* ATTENTION: queries, keys and values stand side by side in a row of qkv. */
static inline attention self_attention_of(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl__rows *rows = espl__rows_of(args);
    attention a = attention_of(args, rows, rows);
    a.key_begin = a.query_begin = rows->row_begin;
    a.key_end = a.query_end = rows->row_end;
    a.query_ld = a.key_ld = (attrs->heads + 2 * attrs->kv_heads) * attrs->head_dim;
    a.causal = attrs->causal;
    a.window = attrs->causal ? attrs->window : 0;
    return a;
}

template <class real> static inline attention_tensors<real> self_tensors_of(const espl_args *args) {
    int key = args->attrs->heads * args->attrs->head_dim;
    const real *qkv = (const real *)args->in[0];
    real *din = (real *)args->din[0];
    return {qkv, qkv + key, (const real *)args->dout[0], din, din != NULL ? din + key : NULL, args->din_add[0], args->din_add[0]};
}

/* CROSS_ATTENTION: queries of the main stream; keys and values side by side in a row of the source. */
static inline attention cross_attention_of(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl__rows *queries = &espl__cuda->rows[ESPL_STREAM_MAIN], *keys = &espl__cuda->rows[ESPL_STREAM_SOURCE];
    attention a = attention_of(args, queries, keys);
    a.key_begin = queries->cross_begin;
    a.key_end = queries->cross_end;
    a.query_begin = keys->cross_begin;
    a.query_end = keys->cross_end;
    a.query_ld = attrs->heads * attrs->head_dim;
    a.key_ld = 2 * attrs->kv_heads * attrs->head_dim;
    return a;
}

template <class real> static inline attention_tensors<real> cross_tensors_of(const espl_args *args) {
    return {(const real *)args->in[0], (const real *)args->in[1], (const real *)args->dout[0], (real *)args->din[0], (real *)args->din[1],
            args->din_add[0],          args->din_add[1]};
}

template <class real> constexpr espl_dtype dtype_of = sizeof(real) == sizeof(float) ? ESPL_F32 : ESPL_BF16;

/* Fills the tables of biases where the call has them; they lie in args->work. */
template <class real> static inline void put_bias_tables(attention &a, const espl_args *args, int backward) {
    if (args->attrs->rel_buckets == 0)
        return;
    float *tables = (float *)args->work + espl__attention_layout_of(args->attrs, a.tokens, backward).bias;
    espl__cuda_bias_tables(args, dtype_of<real>, a.causal, tables);
    a.bias = tables;
    a.entries = (int)espl__rel_entries(args->attrs);
}

/* Where keys and values of a head stand in a row, from t.key on. */
static __device__ __forceinline__ int key_column(const attention &a, int kv_head) { return kv_head * a.d; }
static __device__ __forceinline__ int value_column(const attention &a, int kv_head) { return (a.kv_heads + kv_head) * a.d; }

/* Rows [first, last). */
struct stretch {
    int first, last;
};

static __device__ __forceinline__ bool holds(stretch s, int row) { return (unsigned)(row - s.first) < (unsigned)(s.last - s.first); }

/* The keys that query `i` sees; none for padding. */
static __device__ __forceinline__ stretch keys_of(const attention &a, int i) {
    int begin = i < a.tokens ? a.key_begin[i] : 0, end = i < a.tokens ? a.key_end[i] : 0;
    int first = a.window > 0 ? max(begin, i - a.window + 1) : begin, last = a.causal ? min(end, i + 1) : end;
    return {min(first, last), last};
}

/* The queries that see key `j`; none for padding. */
static __device__ __forceinline__ stretch queries_of(const attention &a, int j) {
    int begin = j < a.keyed_tokens ? a.query_begin[j] : 0, end = j < a.keyed_tokens ? a.query_end[j] : 0;
    int first = a.causal ? max(begin, j) : begin, last = a.window > 0 ? min(end, j + a.window) : end;
    return {min(first, last), last};
}

/* What rows [row, row + rows) of n see, or are seen by, together. `of` is keys_of or queries_of. */
static __device__ __forceinline__ stretch stretch_of_rows(const attention &a, stretch (*of)(const attention &, int), int row, int rows,
                                                          int n) {
    int end = min(row + rows, n);
    return row < end ? stretch{of(a, row).first, of(a, end - 1).last} : stretch{0, 0};
}

/* Where the bias of key - query = `offset` stands in a head's table, being that of a block's first query and key; where all of the block
 * lies beyond rel_distance, that of a block which does so just. */
static __device__ __forceinline__ int bias_place(const attention &a, int offset) {
    int middle = a.entries / 2, most = middle - BIAS_BLOCK;
    return middle + min(max(offset, -most), most);
}

/* 2^x; results too small for a normal number may be 0. */
static __device__ __forceinline__ float power_of_two(float x) {
#ifdef __CUDA_ARCH__
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
#else
    return exp2f(x);
#endif
}

/* Bit b: whether query i of a head keeps key k + b, 0 <= b < 32. Keys of other segments have any bit. */
static __device__ __forceinline__ uint32_t kept_keys(const attention &a, const dropout &drop, int head, int i, int k) {
    if (!drop.on || i >= a.batch->n)
        return 0xffffffffu;
    int from = k - a.key_begin[i], keys = a.key_end[i] - a.key_begin[i];
    int block = from >> 2, skipped = from & 3; /* numbers come four a block */
    uint64_t first = (uint64_t)((int64_t)head * a.batch->n + i) << 18, bits = 0;
    for (int b = 0; b < 8 + (skipped > 0); b++) {
        if (block + b < 0 || 4 * (block + b) >= keys)
            continue;
        espl_rng4 four = espl_rng_block(&drop.key, first + (uint64_t)(block + b));
        uint32_t kept = 0;
#pragma unroll
        for (int c = 0; c < 4; c++)
            kept |= (uint32_t)(four.v[c] >= drop.threshold) << c;
        bits |= (uint64_t)kept << (4 * b);
    }
    return (uint32_t)(bits >> skipped);
}

/* Whether the tensor cores take this: heads of whole 16-byte pieces that a tile holds, and with biases narrower heads and tables that fit
 * beside the tiles. Else attention_simt.cuh. */
static inline bool attention_is_tiled(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    bool fits = attrs->rel_buckets > 0 ? attrs->head_dim <= 128 && attrs->rel_distance <= 512 : attrs->head_dim <= 256;
    return fits && attrs->head_dim % 8 == 0 && aligned16(args->in[0], args->in[1], args->out[0], args->dout[0], args->din[0], args->din[1]);
}

#endif
