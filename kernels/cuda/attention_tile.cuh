/* Tiles of bf16 in shared memory and their products by tensor cores (mma.m16n8k16: bf16 factors, fp32 sums).
 *
 * A tile holds rows of D elements. Rows lie an odd number of 16-byte pieces apart, so that the eight rows of a matrix that ldmatrix reads
 * lie in different banks. Accumulators of MT x NT fragments cover 16 MT rows and 8 NT columns: lane 4 g + t holds, in elements 0 and 1 of a
 * fragment, columns 2 t and 2 t + 1 of row g, in elements 2 and 3 those of row g + 8. */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_TILE_CUH
#define ESPL_KERNELS_CUDA_ATTENTION_TILE_CUH

#include "kernels/cuda/attention.cuh"

typedef __nv_bfloat16 bf16;

template <int D> struct tile_of { static constexpr int pieces = D / 8, stride = (pieces | 1) * 8; };

static __device__ __forceinline__ int lane_row() { return (threadIdx.x & 31) >> 2; }
static __device__ __forceinline__ int lane_column() { return (threadIdx.x & 3) * 2; }

/* Starts the copy of rows [row, row + ROWS) of a head, `d` wide, `from` being its place in row 0; zeros past n and past d. */
template <int D, int ROWS, int THREADS>
static __device__ __forceinline__ void load_tile(bf16 *to, const bf16 *from, int ld, int row, int n, int d) {
    constexpr int pieces = tile_of<D>::pieces, stride = tile_of<D>::stride, step = THREADS / pieces;
    int piece = (int)threadIdx.x % pieces, first = (int)threadIdx.x / pieces;
    if (first >= step)
        return;
    const bf16 *at = from + (size_t)(row + first) * ld + piece * 8;
    bf16 *place = to + first * stride + piece * 8;
    int rows = piece * 8 < d ? n - row - first : 0, more = step * ld;
#pragma unroll
    for (int i = 0; i < (ROWS + step - 1) / step; i++) {
        bool valid = i * step < rows;
        if (ROWS % step == 0 || first + i * step < ROWS)
            cp_async16(place + i * step * stride, valid ? at : from, valid);
        at += more;
    }
}

template <int MT, int NT> static __device__ __forceinline__ void clear(float (&sums)[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < NT; i++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                sums[m][i][c] = 0.0f;
}

/* sums += A B^T over D columns. `a`: the 16 MT rows of this warp; `b`: 8 NT rows. */
template <int D, int MT, int NT>
static __device__ __forceinline__ void multiply_rows(float (&sums)[MT][NT][4], const bf16 *a, const bf16 *b) {
    constexpr int stride = tile_of<D>::stride;
    int lane = threadIdx.x & 31;
    a += (lane & 15) * stride + (lane >> 4) * 8;
    b += ((lane & 7) + (lane >> 4) * 8) * stride + (lane >> 3 & 1) * 8;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t left[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
            ldmatrix_x4(left[m], a + m * 16 * stride + k * 16);
#pragma unroll
        for (int i = 0; i < NT / 2; i++) {
            uint32_t right[4];
            ldmatrix_x4(right, b + i * 16 * stride + k * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_m16n8k16(sums[m][2 * i], left[m], right[0], right[1]);
                mma_m16n8k16(sums[m][2 * i + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* sums += P B over 8 KT rows of B, from column 0 of `b`. P: accumulators, rounded to bf16; two of their fragments are one left factor. */
template <int D, int MT, int NT, int KT>
static __device__ __forceinline__ void multiply_columns(float (&sums)[MT][NT][4], const float (&p)[MT][KT][4], const bf16 *b) {
    constexpr int stride = tile_of<D>::stride;
    int lane = threadIdx.x & 31;
    b += (lane & 15) * stride + (lane >> 4) * 8;
#pragma unroll
    for (int k = 0; k < KT / 2; k++) {
        uint32_t left[MT][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                left[m][c] = bf16_pack(p[m][2 * k + c / 2][c % 2 * 2], p[m][2 * k + c / 2][c % 2 * 2 + 1]);
#pragma unroll
        for (int i = 0; i < NT / 2; i++) {
            uint32_t right[4];
            ldmatrix_x4_trans(right, b + k * 16 * stride + i * 16);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_m16n8k16(sums[m][2 * i], left[m], right[0], right[1]);
                mma_m16n8k16(sums[m][2 * i + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* What the products of a warp are added to: biases. `table`: that of its first row and column; SIGN 1: rows are queries, -1: keys. */
template <int SIGN, int MT, int NT> static __device__ __forceinline__ void put_bias(float (&s)[MT][NT][4], const float *table) {
    table += SIGN * (lane_column() - lane_row());
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < NT; i++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                s[m][i][c] = table[SIGN * (8 * i + c % 2 - 16 * m - 8 * (c / 2))];
}

/* What the rows of a warp see, or are seen by. */
struct warp_stretches {
    stretch all;   /* by any of them; none: last is 0 */
    stretch every; /* by each of them */
};

/* Of 16 MT rows from `row` on; `of` is keys_of or queries_of. */
template <int MT>
static __device__ __forceinline__ warp_stretches warp_stretches_of(const attention &a, stretch (*of)(const attention &, int), int row) {
    static_assert(MT <= 2, "a lane looks up one row");
    stretch one = of(a, row + (int)threadIdx.x % (16 * MT));
    warp_stretches s = {one.first < one.last ? one : stretch{INT32_MAX, 0}, one};
#pragma unroll
    for (int lanes = 1; lanes < 32; lanes *= 2) {
        s.all.first = min(s.all.first, __shfl_xor_sync(ALL_LANES, s.all.first, lanes));
        s.all.last = max(s.all.last, __shfl_xor_sync(ALL_LANES, s.all.last, lanes));
        s.every.first = max(s.every.first, __shfl_xor_sync(ALL_LANES, s.every.first, lanes));
        s.every.last = min(s.every.last, __shfl_xor_sync(ALL_LANES, s.every.last, lanes));
    }
    return s;
}

/* Scores of a row and a column that do not see each other become -inf. `row`: the warp's first, `column`: the tile's first. What rows see
 * is looked up again: tiles on an edge are few, and registers are fewer. */
template <int MT, int NT>
static __device__ __forceinline__ void mask_scores(float (&s)[MT][NT][4], const attention &a, stretch (*of)(const attention &, int),
                                                   int row, int column) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            stretch seen = of(a, row + 16 * m + 8 * half + lane_row());
#pragma unroll
            for (int i = 0; i < NT; i++)
#pragma unroll
                for (int side = 0; side < 2; side++)
                    if (!holds(seen, column + 8 * i + lane_column() + side))
                        s[m][i][2 * half + side] = -INFINITY;
        }
}

/* Whether rows [row, row + rows) meet this stretch; whether they lie in it. */
static __device__ __forceinline__ bool meets(stretch s, int row, int rows) { return row < s.last && row + rows > s.first; }
static __device__ __forceinline__ bool covers(stretch s, int row, int rows) { return row >= s.first && row + rows <= s.last; }

/* Writes a warp's sums times `scale[m][half]`, or adds them, as rows of `ld` elements from `to`, rows before `rows` and columns before d.
 */
template <int MT, int NT>
static __device__ __forceinline__ void put_rows(bf16 *to, size_t ld, int rows, int d, const float (&sums)[MT][NT][4],
                                                const float (&scale)[MT][2], bool add) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = 16 * m + 8 * half + lane_row();
            bf16 *line = to + (size_t)row * ld + lane_column();
#pragma unroll
            for (int i = 0; i < NT; i++) {
                if (row >= rows || 8 * i >= d)
                    continue;
                uint32_t *place = reinterpret_cast<uint32_t *>(line + 8 * i);
                float x = sums[m][i][2 * half] * scale[m][half], y = sums[m][i][2 * half + 1] * scale[m][half];
                *place = add ? bf16_pack(bf16_low(*place) + x, bf16_high(*place) + y) : bf16_pack(x, y);
            }
        }
}

/* The instantiation that takes head size d: the next of 64, 80, 96, 128, 256; with biases of 64, 128. Calls f with it as a type, and
 * whether there are biases as another. */
template <int D> struct head_size { static constexpr int value = D; };
template <bool BIAS> struct with_bias { static constexpr bool value = BIAS; };

template <class F> static inline void with_head_size(int d, bool bias, F &&f) {
    if (bias && d <= 64)
        f(head_size<64>(), with_bias<true>());
    else if (bias)
        f(head_size<128>(), with_bias<true>());
    else if (d <= 64)
        f(head_size<64>(), with_bias<false>());
    else if (d <= 80)
        f(head_size<80>(), with_bias<false>());
    else if (d <= 96)
        f(head_size<96>(), with_bias<false>());
    else if (d <= 128)
        f(head_size<128>(), with_bias<false>());
    else
        f(head_size<256>(), with_bias<false>());
}

#endif
