/* What the kernels of ATTENTION share: a call as kernels see it, who sees whom, and dropout of probabilities.
 *
 * Work is cut over fixed tiles of rows of the packed micro-batch, whatever its segments are, so that a launch fits every micro-batch. Rows
 * of segments come in order and padding comes last, so the keys that the rows of a tile see, and the queries that see its keys, are one
 * stretch of rows each. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_CUH
#define ESPL_KERNELS_CUDA_ATTENTION_CUH

#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/prims.cuh"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_attention_work.h"

#include <math.h>

/* One call. Pointers are those of the device's arrays: what they hold may change between replays of a launch. */
struct attention {
    const espl__batch *batch;
    const int32_t *row_begin, *row_end;
    int tokens, heads, kv_heads, group, d;
    int width; /* of a row of qkv: (H + 2 G) d */
    int causal, window;
    float scale, scale_log2; /* scale; scale log2(e) */
    dropout_row drop;
};

static inline attention attention_of(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    attention a = {};
    a.batch = espl__rows_of(args)->batch;
    a.row_begin = espl__rows_of(args)->row_begin;
    a.row_end = espl__rows_of(args)->row_end;
    a.tokens = (int)espl__rows_of(args)->tokens;
    a.heads = attrs->heads;
    a.kv_heads = attrs->kv_heads;
    a.group = attrs->heads / attrs->kv_heads;
    a.d = attrs->head_dim;
    a.width = (attrs->heads + 2 * attrs->kv_heads) * attrs->head_dim;
    a.causal = attrs->causal;
    a.window = attrs->window;
    a.scale = attrs->scale;
    a.scale_log2 = attrs->scale * 1.44269504f;
    a.drop = dropout_row_of(attrs);
    return a;
}

/* Where the queries of a head, and the keys and the values of a key/value head, stand in a row of qkv. */
static __device__ __forceinline__ int query_column(const attention &a, int head) { return head * a.d; }
static __device__ __forceinline__ int key_column(const attention &a, int kv_head) { return (a.heads + kv_head) * a.d; }
static __device__ __forceinline__ int value_column(const attention &a, int kv_head) { return (a.heads + a.kv_heads + kv_head) * a.d; }

/* Rows [first, last). */
struct stretch {
    int first, last;
};

static __device__ __forceinline__ bool holds(stretch s, int row) { return (unsigned)(row - s.first) < (unsigned)(s.last - s.first); }

/* The keys that query `i` sees; none for padding. */
static __device__ __forceinline__ stretch keys_of(const attention &a, int i) {
    int begin = i < a.tokens ? a.row_begin[i] : 0, end = i < a.tokens ? a.row_end[i] : 0;
    int first = a.window > 0 ? max(begin, i - a.window + 1) : begin, last = a.causal ? min(end, i + 1) : end;
    return {min(first, last), last};
}

/* The queries that see key `j`; none for padding. */
static __device__ __forceinline__ stretch queries_of(const attention &a, int j) {
    int begin = j < a.tokens ? a.row_begin[j] : 0, end = j < a.tokens ? a.row_end[j] : 0;
    int first = a.causal ? max(begin, j) : begin, last = a.window > 0 ? min(end, j + a.window) : end;
    return {min(first, last), last};
}

/* What rows [row, row + rows) see, or are seen by, together. `of` is keys_of or queries_of. */
static __device__ __forceinline__ stretch stretch_of_rows(const attention &a, stretch (*of)(const attention &, int), int row, int rows) {
    int end = min(row + rows, a.batch->n);
    return row < end ? stretch{of(a, row).first, of(a, end - 1).last} : stretch{0, 0};
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
    int from = k - a.row_begin[i], keys = a.row_end[i] - a.row_begin[i];
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

/* Whether the tensor cores take this: heads of whole 16-byte pieces that a tile holds. Else attention_simt.cuh. */
static inline bool attention_is_tiled(const espl_args *args) {
    int d = args->attrs->head_dim;
    return d % 8 == 0 && d <= 256 && aligned16(args->in[0], args->out[0], args->dout[0], args->din[0]);
}

#endif
