/* Attention without tensor cores: fp32, and heads that attention_tile.cuh does not take. The algorithms are those of attention_forward.cu
 * and attention_backward.cu.
 *
 * A block of 16 x 16 threads multiplies tiles of 64 x 64, thread (y, x) having rows y + 16 i and columns x + 16 j, so that the lanes of a
 * warp read different banks. It sums SIMT_TILE columns of a head; with wider heads a block for each part of them computes the same scores.
 */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_SIMT_CUH
#define ESPL_KERNELS_CUDA_ATTENTION_SIMT_CUH

#include "kernels/cuda/attention_rows.cuh"

constexpr int SIMT_TILE = 64, SIMT_CHUNK = 32, SIMT_MICRO = 4, SIMT_THREADS = 256;
constexpr int SIMT_CHUNK_STRIDE = SIMT_CHUNK + 1, SIMT_STRIDE = SIMT_TILE + 1;

typedef float simt_sums[SIMT_MICRO][SIMT_MICRO];

/* Two chunks of rows, or one tile. */
struct simt_memory {
    float operand[2 * SIMT_TILE * SIMT_CHUNK_STRIDE];
    float scores[SIMT_TILE * SIMT_STRIDE];
};

static __device__ __forceinline__ int simt_row(int i) { return (int)threadIdx.x / 16 + 16 * i; }
static __device__ __forceinline__ int simt_column(int j) { return (int)threadIdx.x % 16 + 16 * j; }

static __device__ __forceinline__ void simt_clear(simt_sums &sums) {
#pragma unroll
    for (int e = 0; e < SIMT_MICRO * SIMT_MICRO; e++)
        sums[e / SIMT_MICRO][e % SIMT_MICRO] = 0.0f;
}

/* to[r][c]: rows `row` + r of a head, columns `column` + c, 0 past n and past d. */
template <int COLUMNS, int STRIDE, class real>
static __device__ __forceinline__ void simt_load(float *to, const real *from, size_t ld, int row, int n, int column, int d) {
    for (int e = threadIdx.x; e < SIMT_TILE * COLUMNS; e += SIMT_THREADS) {
        int r = e / COLUMNS, c = e % COLUMNS;
        bool valid = row + r < n && column + c < d;
        to[r * STRIDE + c] = valid ? reals<real>::load(from + (size_t)(row + r) * ld + column + c) : 0.0f;
    }
}

/* sums[row][column] += sum over k < K of a[row A_ROW + k A_STEP] b[column B_COLUMN + k B_STEP] */
template <int K, int A_ROW, int A_STEP, int B_COLUMN, int B_STEP>
static __device__ __forceinline__ void simt_multiply(simt_sums &sums, const float *a, const float *b) {
#pragma unroll 8
    for (int k = 0; k < K; k++) {
        float left[SIMT_MICRO], right[SIMT_MICRO];
#pragma unroll
        for (int i = 0; i < SIMT_MICRO; i++) {
            left[i] = a[simt_row(i) * A_ROW + k * A_STEP];
            right[i] = b[simt_column(i) * B_COLUMN + k * B_STEP];
        }
#pragma unroll
        for (int i = 0; i < SIMT_MICRO; i++)
#pragma unroll
            for (int j = 0; j < SIMT_MICRO; j++)
                sums[i][j] = fmaf(left[i], right[j], sums[i][j]);
    }
}

/* sums = A B^T over the whole head; a tile of rows each. */
template <class real>
static __device__ __forceinline__ void simt_multiply_rows(simt_sums &sums, simt_memory &memory, const real *a, size_t lda, int a_row,
                                                          int a_rows, const real *b, size_t ldb, int b_row, int b_rows, int d) {
    float *left = memory.operand, *right = left + SIMT_TILE * SIMT_CHUNK_STRIDE;
    simt_clear(sums);
    for (int c = 0; c < d; c += SIMT_CHUNK) {
        __syncthreads();
        simt_load<SIMT_CHUNK, SIMT_CHUNK_STRIDE>(left, a, lda, a_row, a_rows, c, d);
        simt_load<SIMT_CHUNK, SIMT_CHUNK_STRIDE>(right, b, ldb, b_row, b_rows, c, d);
        __syncthreads();
        simt_multiply<SIMT_CHUNK, SIMT_CHUNK_STRIDE, 1, SIMT_CHUNK_STRIDE, 1>(sums, left, right);
    }
}

/* sums += P B, or P^T B, with P put into memory.scores, and 64 columns of a tile of rows of B. */
template <bool TRANSPOSED, class real>
static __device__ __forceinline__ void simt_multiply_scores(simt_sums &sums, simt_memory &memory, const simt_sums &p, const real *b,
                                                            size_t ld, int row, int n, int column, int d) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < SIMT_MICRO; i++)
#pragma unroll
        for (int j = 0; j < SIMT_MICRO; j++)
            memory.scores[simt_row(i) * SIMT_STRIDE + simt_column(j)] = p[i][j];
    simt_load<SIMT_TILE, SIMT_STRIDE>(memory.operand, b, ld, row, n, column, d);
    __syncthreads();
    simt_multiply<SIMT_TILE, TRANSPOSED ? 1 : SIMT_STRIDE, TRANSPOSED ? SIMT_STRIDE : 1, 1, SIMT_STRIDE>(sums, memory.scores,
                                                                                                         memory.operand);
}

template <class real>
static __device__ __forceinline__ void simt_put(real *to, size_t ld, int row, int rows, int column, int d, const simt_sums &sums,
                                                float scale, bool add) {
#pragma unroll
    for (int i = 0; i < SIMT_MICRO; i++)
#pragma unroll
        for (int j = 0; j < SIMT_MICRO; j++) {
            int r = row + simt_row(i), c = column + simt_column(j);
            if (r >= rows || c >= d)
                continue;
            real *place = to + (size_t)r * ld + c;
            float x = sums[i][j] * scale;
            reals<real>::store(place, add ? reals<real>::load(place) + x : x);
        }
}

static __device__ __forceinline__ float simt_row_max(float x) {
    for (int lanes = 8; lanes > 0; lanes /= 2)
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, lanes));
    return x;
}

static __device__ __forceinline__ float simt_row_sum(float x) {
    for (int lanes = 8; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(ALL_LANES, x, lanes);
    return x;
}

/* What dropout multiplies the probability of key k of query i with. */
static __device__ __forceinline__ float simt_keep(const attention &a, const dropout &drop, int head, int i, int k) {
    if (!drop.on)
        return 1.0f;
    uint64_t row = (uint64_t)((int64_t)head * a.batch->n + i);
    return dropout_factor(drop, (row << 20) + (uint64_t)(k - a.key_begin[i]));
}

/* To the products, not before them: the sums stay smaller. */
static __device__ __forceinline__ void simt_add_bias(simt_sums &s, const attention &a, int head, int q, int k) {
    if (a.bias == NULL)
        return;
    const float *bias = a.bias + (size_t)head * a.entries + bias_place(a, k - q);
#pragma unroll
    for (int i = 0; i < SIMT_MICRO; i++)
#pragma unroll
        for (int j = 0; j < SIMT_MICRO; j++)
            s[i][j] += bias[simt_column(j) - simt_row(i)];
}

template <class real>
__global__ void __launch_bounds__(SIMT_THREADS)
    attention_forward_simt(attention a, attention_tensors<real> t, real *__restrict__ out, float *__restrict__ lse) {
    ESPL_SHARED(simt_memory, memory, [1]);
    int head = blockIdx.y, kv_head = head / a.group, n = a.batch->n, first = (int)blockIdx.x * SIMT_TILE;
    int column = (int)blockIdx.z * SIMT_TILE, keys = a.keyed->n;
    stretch all = stretch_of_rows(a, keys_of, first, SIMT_TILE, n);
    dropout drop = dropout_begin(a.drop, a.batch);
    float top[SIMT_MICRO], sum[SIMT_MICRO];
    simt_sums o, s;
    simt_clear(o);
#pragma unroll
    for (int i = 0; i < SIMT_MICRO; i++) {
        top[i] = -INFINITY;
        sum[i] = 0.0f;
    }
    for (int k = all.first; k < all.last; k += SIMT_TILE) {
        simt_multiply_rows(s, memory[0], t.query + head * a.d, a.query_ld, first, n, t.key + key_column(a, kv_head), a.key_ld, k, keys,
                           a.d);
        simt_add_bias(s, a, head, first, k);
#pragma unroll
        for (int i = 0; i < SIMT_MICRO; i++) {
            int row = first + simt_row(i);
            stretch seen = keys_of(a, row);
            float higher = top[i], total = 0.0f;
#pragma unroll
            for (int j = 0; j < SIMT_MICRO; j++) {
                s[i][j] = holds(seen, k + simt_column(j)) ? s[i][j] * a.scale : -INFINITY;
                higher = fmaxf(higher, s[i][j]);
            }
            higher = simt_row_max(higher);
            float base = higher == -INFINITY ? 0.0f : higher, shrink = expf(top[i] - base);
#pragma unroll
            for (int j = 0; j < SIMT_MICRO; j++) {
                float p = expf(s[i][j] - base);
                total += p;
                s[i][j] = p > 0.0f ? p * simt_keep(a, drop, head, row, k + simt_column(j)) : p;
                o[i][j] *= shrink;
            }
            sum[i] = fmaf(sum[i], shrink, total);
            top[i] = higher;
        }
        simt_multiply_scores<false>(o, memory[0], s, t.key + value_column(a, kv_head), a.key_ld, k, keys, column, a.d);
    }
#pragma unroll
    for (int i = 0; i < SIMT_MICRO; i++) {
        int row = first + simt_row(i);
        float total = simt_row_sum(sum[i]);
#pragma unroll
        for (int j = 0; j < SIMT_MICRO; j++)
            o[i][j] = total == 0.0f ? 0.0f : o[i][j] / total;
        if (row < a.tokens && column + simt_column(0) == 0)
            lse[(size_t)row * a.heads + head] = total == 0.0f ? 0.0f : top[i] + logf(total);
    }
    simt_put(out + head * a.d, (size_t)a.heads * a.d, first, a.tokens, column, a.d, o, 1.0f, false);
}

/* What backward reads and sums beside the tensors. */
struct simt_backward {
    const float *lse, *delta; /* [N, H]; [H, padded] */
    float *slopes;            /* [H, parts, entries] sums of dS by offset, a part for each tile of queries; NULL: not wanted */
    int padded;
};

/* p: drop(P), ds: dS, of a tile of queries and one of keys. */
template <class real>
static __device__ __forceinline__ void simt_score_gradients(const attention &a, const attention_tensors<real> &t, const simt_backward &back,
                                                            simt_memory &memory, const dropout &drop, int head, int q, int k, simt_sums &p,
                                                            simt_sums &ds) {
    int kv_head = head / a.group, n = a.batch->n, keys = a.keyed->n;
    simt_multiply_rows(p, memory, t.query + head * a.d, a.query_ld, q, n, t.key + key_column(a, kv_head), a.key_ld, k, keys, a.d);
    simt_add_bias(p, a, head, q, k);
    simt_multiply_rows(ds, memory, t.dout + head * a.d, a.heads * a.d, q, n, t.key + value_column(a, kv_head), a.key_ld, k, keys, a.d);
#pragma unroll
    for (int i = 0; i < SIMT_MICRO; i++) {
        int row = q + simt_row(i);
        stretch seen = keys_of(a, row);
#pragma unroll
        for (int j = 0; j < SIMT_MICRO; j++) {
            if (!holds(seen, k + simt_column(j))) {
                p[i][j] = ds[i][j] = 0.0f;
                continue;
            }
            float keep = simt_keep(a, drop, head, row, k + simt_column(j));
            float whole = expf(p[i][j] * a.scale - back.lse[(size_t)row * a.heads + head]);
            ds[i][j] = whole * (keep * ds[i][j] - back.delta[(size_t)head * back.padded + row]);
            p[i][j] = whole * keep;
        }
    }
}

template <class real>
__global__ void __launch_bounds__(SIMT_THREADS) attention_keys_simt(attention a, attention_tensors<real> t, simt_backward back) {
    ESPL_SHARED(simt_memory, memory, [1]);
    int kv_head = blockIdx.y, n = a.batch->n, first = (int)blockIdx.x * SIMT_TILE, column = (int)blockIdx.z * SIMT_TILE;
    stretch all = stretch_of_rows(a, queries_of, first, SIMT_TILE, a.keyed->n);
    dropout drop = dropout_begin(a.drop, a.batch);
    simt_sums dk, dv, p, ds;
    simt_clear(dk);
    simt_clear(dv);
    for (int head = kv_head * a.group; head < (kv_head + 1) * a.group; head++)
        for (int q = all.first; q < all.last; q += SIMT_TILE) {
            simt_score_gradients(a, t, back, memory[0], drop, head, q, first, p, ds);
            simt_multiply_scores<true>(dv, memory[0], p, t.dout + head * a.d, a.heads * a.d, q, n, column, a.d);
            simt_multiply_scores<true>(dk, memory[0], ds, t.query + head * a.d, a.query_ld, q, n, column, a.d);
        }
    simt_put(t.dkey + key_column(a, kv_head), a.key_ld, first, a.keyed_tokens, column, a.d, dk, a.scale, t.key_add);
    simt_put(t.dkey + value_column(a, kv_head), a.key_ld, first, a.keyed_tokens, column, a.d, dv, 1.0f, t.key_add);
}

/* Adds the diagonals of memory.scores; a thread has one. */
static __device__ __forceinline__ void simt_add_slopes(const simt_memory &memory, float *slopes) {
    int offset = (int)threadIdx.x - (SIMT_TILE - 1);
    if (offset >= SIMT_TILE)
        return;
    float sum = 0.0f;
    for (int row = max(0, -offset); row < min(SIMT_TILE, SIMT_TILE - offset); row++)
        sum += memory.scores[row * SIMT_STRIDE + row + offset];
    slopes[offset] += sum;
}

template <class real>
__global__ void __launch_bounds__(SIMT_THREADS) attention_queries_simt(attention a, attention_tensors<real> t, simt_backward back) {
    ESPL_SHARED(simt_memory, memory, [1]);
    int head = blockIdx.y, first = (int)blockIdx.x * SIMT_TILE, column = (int)blockIdx.z * SIMT_TILE;
    stretch all = stretch_of_rows(a, keys_of, first, SIMT_TILE, a.batch->n);
    dropout drop = dropout_begin(a.drop, a.batch);
    float *slopes = back.slopes != NULL && column == 0 ? back.slopes + ((size_t)head * gridDim.x + blockIdx.x) * a.entries : NULL;
    simt_sums dq, p, ds;
    simt_clear(dq);
    for (int x = threadIdx.x; slopes != NULL && x < a.entries; x += SIMT_THREADS)
        slopes[x] = 0.0f;
    for (int k = all.first; k < all.last; k += SIMT_TILE) {
        simt_score_gradients(a, t, back, memory[0], drop, head, first, k, p, ds);
        simt_multiply_scores<false>(dq, memory[0], ds, t.key + key_column(a, head / a.group), a.key_ld, k, a.keyed->n, column, a.d);
        if (slopes != NULL)
            simt_add_slopes(memory[0], slopes + bias_place(a, k - first));
    }
    simt_put(t.dquery + head * a.d, a.query_ld, first, a.tokens, column, a.d, dq, a.scale, t.query_add);
}

static inline dim3 simt_grid(const attention &a, int rows, int heads) {
    return dim3((unsigned)(rows + SIMT_TILE - 1) / SIMT_TILE, (unsigned)heads, (unsigned)(a.d + SIMT_TILE - 1) / SIMT_TILE);
}

template <class real>
static inline void attention_simt_forward(const attention &a, const attention_tensors<real> &t, const espl_args *args) {
    auto attention_forward = attention_forward_simt<real>;
    ESPL_LAUNCH(attention_forward, simt_grid(a, a.tokens, a.heads), dim3(SIMT_THREADS), (size_t)0, espl__cuda->compute, a, t,
                (real *)args->out[0], (float *)args->out[1]);
}

template <class real>
static inline void attention_simt_backward(const attention &a, const attention_tensors<real> &t, const espl_args *args) {
    espl__attention_layout layout = espl__attention_layout_of(args->attrs, a.tokens, 1);
    float *work = (float *)args->work;
    simt_backward back = {(const float *)args->out[1], work + layout.delta,
                          a.bias != NULL && args->dparam[0] != NULL ? work + layout.slopes : NULL,
                          (int)espl__attention_padded_rows(a.tokens)};
    dim3 by_keys = simt_grid(a, a.keyed_tokens, a.kv_heads), by_queries = simt_grid(a, a.tokens, a.heads);
    attention_row_statistics<real, 1>(a, args);
    auto attention_keys = attention_keys_simt<real>;
    auto attention_queries = attention_queries_simt<real>;
    ESPL_LAUNCH(attention_keys, by_keys, dim3(SIMT_THREADS), (size_t)0, espl__cuda->compute, a, t, back);
    ESPL_LAUNCH(attention_queries, by_queries, dim3(SIMT_THREADS), (size_t)0, espl__cuda->compute, a, t, back);
    if (back.slopes != NULL)
        espl__cuda_bias_gradient(args, back.slopes, (int)by_queries.x);
}

#endif
