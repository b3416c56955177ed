/* Rows that are whole stretches of 16 bytes and not too wide are held in registers, each by a group of threads: a warp, or a block for wide
 * ones. Others, `any` below, are read again for each pass, by a block. Gradients of parameters are summed over the rows of a piece first
 * (ESPL_NORM_ROWS), then over pieces; padding adds zeros at the end, so bits do not depend on how much there is. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_rows_work.h"

enum { WARP_GROUPS = 4 /* warps of a block that has a row a warp */, MOST_THREADS = 512, ANY_THREADS = 256, PIECE = ESPL_NORM_ROWS };

template <class T> struct norm_forward {
    const T *in0, *in1, *gain, *bias; /* in1, bias NULL: none */
    T *out0, *out1;
    float *stat;
    const espl__batch *batch;
    dropout_row drop;
    int rows, width;
    float eps;
    bool rms;
};

template <class T> struct norm_backward {
    const T *out0, *dsum, *dout1, *gain; /* dsum NULL: none */
    const float *stat;
    T *din[2];
    float *partial; /* [piece][gain | bias][width]; NULL: not wanted */
    const espl__batch *batch;
    dropout_row drop;
    int rows, width;
    bool rms, add[2];
};

/* The group's place: which row or piece, and its lane. */
template <bool WARP> struct group {
    int64_t number;
    int lane, lanes;
    __device__ __forceinline__ group()
        : number(WARP ? (int64_t)blockIdx.x * WARP_GROUPS + threadIdx.x / 32 : blockIdx.x),
          lane(WARP ? (int)threadIdx.x % 32 : (int)threadIdx.x), lanes(WARP ? 32 : (int)blockDim.x) {}
};

/* The sums of N values over the group. `partial` is not free for the next call, but for the one after that. */
template <bool WARP, int N> __device__ __forceinline__ void group_sum(float (&value)[N], float (*partial)[MOST_THREADS / 32]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        value[i] = warp_sum(value[i]);
    if constexpr (!WARP) {
#pragma unroll
        for (int i = 0; i < N; i++)
            if (threadIdx.x % 32 == 0)
                partial[i][threadIdx.x / 32] = value[i];
        __syncthreads();
#pragma unroll
        for (int i = 0; i < N; i++) {
            value[i] = partial[i][0];
            for (unsigned warp = 1; warp < blockDim.x / 32; warp++)
                value[i] += partial[i][warp];
        }
    }
}

/* s = in0 + drop(in1) as out0 holds it, which is written unless it is in0 itself. */
template <class T, int N>
__device__ __forceinline__ void add_stretch(const norm_forward<T> &a, const dropout &drop, int64_t element, float (&s)[N]) {
    float branch[N];
    load_stretch(a.in0 + element, s);
    if (a.in1) {
        load_stretch(a.in1 + element, branch);
        dropout_apply(drop, (uint64_t)element, branch);
#pragma unroll
        for (int i = 0; i < N; i++)
            s[i] += branch[i];
    }
    if (a.in1 || a.out0 != a.in0) {
        store_stretch(a.out0 + element, s);
#pragma unroll
        for (int i = 0; i < N; i++)
            s[i] = as_stored<T>(s[i]);
    }
}

/* out1 = x r gain (+ bias) of centred x. */
template <class T, int N>
__device__ __forceinline__ void write_norm(const norm_forward<T> &a, int64_t row, int column, float r, float (&x)[N]) {
    float gain[N], bias[N];
    load_stretch(a.gain + column, gain);
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] *= r * gain[i];
    if (a.bias) {
        load_stretch(a.bias + column, bias);
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] += bias[i];
    }
    store_stretch(a.out1 + row * a.width + column, x);
}

template <class T, int CHUNKS, bool WARP>
__global__ void __launch_bounds__(WARP ? WARP_GROUPS * 32 : MOST_THREADS) norm_forward_held(norm_forward<T> a) {
    constexpr int N = reals<T>::vector;
    ESPL_SHARED(float, partial, [2][1][MOST_THREADS / 32]);
    group<WARP> g;
    int64_t row = g.number;
    if (row >= a.rows)
        return;
    dropout drop = dropout_begin(a.drop, a.batch);
    float x[CHUNKS][N] = {}, sum[1] = {0}, squares[1] = {0}, mean = 0;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int column = (k * g.lanes + g.lane) * N;
        if (column < a.width)
            add_stretch(a, drop, row * a.width + column, x[k]);
#pragma unroll
        for (int i = 0; i < N; i++)
            sum[0] += column < a.width ? x[k][i] : 0;
    }
    if (!a.rms) {
        group_sum<WARP>(sum, partial[0]);
        mean = sum[0] / (float)a.width;
    }
#pragma unroll
    for (int k = 0; k < CHUNKS; k++)
#pragma unroll
        for (int i = 0; i < N; i++) {
            x[k][i] -= mean;
            squares[0] += (k * g.lanes + g.lane) * N < a.width ? x[k][i] * x[k][i] : 0;
        }
    group_sum<WARP>(squares, partial[1]);
    float r = 1.0f / sqrtf(squares[0] / (float)a.width + a.eps);
    if (g.lane == 0)
        *reinterpret_cast<float2 *>(a.stat + 2 * row) = make_float2(mean, r);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int column = (k * g.lanes + g.lane) * N;
        if (column < a.width)
            write_norm(a, row, column, r, x[k]);
    }
}

/* Any width: each thread reads back what it wrote. */
template <class T> __global__ void __launch_bounds__(ANY_THREADS) norm_forward_any(norm_forward<T> a) {
    ESPL_SHARED(float, partial, [2][1][MOST_THREADS / 32]);
    int64_t row = blockIdx.x;
    dropout drop = dropout_begin(a.drop, a.batch);
    float x[1], sum[1] = {0}, squares[1] = {0}, mean = 0;
    for (int column = (int)threadIdx.x; column < a.width; column += (int)blockDim.x) {
        add_stretch(a, drop, row * a.width + column, x);
        sum[0] += x[0];
    }
    if (!a.rms) {
        group_sum<false>(sum, partial[0]);
        mean = sum[0] / (float)a.width;
    }
    for (int column = (int)threadIdx.x; column < a.width; column += (int)blockDim.x) {
        load_stretch(a.out0 + row * a.width + column, x);
        squares[0] += (x[0] - mean) * (x[0] - mean);
    }
    group_sum<false>(squares, partial[1]);
    float r = 1.0f / sqrtf(squares[0] / (float)a.width + a.eps);
    if (threadIdx.x == 0) {
        a.stat[2 * row] = mean;
        a.stat[2 * row + 1] = r;
    }
    for (int column = (int)threadIdx.x; column < a.width; column += (int)blockDim.x) {
        load_stretch(a.out0 + row * a.width + column, x);
        x[0] -= mean;
        write_norm(a, row, column, r, x);
    }
}

/* With h = (x - mean) r and u = gain dy:  dx = r (u - mean(u) - h mean(u h)), RMS without mean(u); dgain += dy h; dbias += dy. */
template <class T, int N>
__device__ __forceinline__ void load_normal(const norm_backward<T> &a, int64_t row, int column, float2 stat, float (&h)[N],
                                            float (&dy)[N]) {
    load_stretch(a.out0 + row * a.width + column, h);
    load_stretch(a.dout1 + row * a.width + column, dy);
#pragma unroll
    for (int i = 0; i < N; i++)
        h[i] = (h[i] - stat.x) * stat.y;
}

/* Writes din from u and h. */
template <class T, int N>
__device__ __forceinline__ void write_din(const norm_backward<T> &a, const dropout &drop, int64_t element, float r, const float (&mean)[2],
                                          const float (&h)[N], const float (&u)[N]) {
    float d[N], more[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        d[i] = r * (u[i] - (h[i] * mean[1] + mean[0]));
    if (a.dsum) {
        load_stretch(a.dsum + element, more);
#pragma unroll
        for (int i = 0; i < N; i++)
            d[i] += more[i];
    }
    if (a.din[1]) {
#pragma unroll
        for (int i = 0; i < N; i++)
            more[i] = d[i];
        dropout_apply(drop, (uint64_t)element, more);
        put_stretch(a.din[1] + element, more, a.add[1]);
    }
    if (a.din[0])
        put_stretch(a.din[0] + element, d, a.add[0]);
}

/* The means of u and u h, from a thread's part of their sums. */
template <bool WARP, class T>
__device__ __forceinline__ void norm_means(const norm_backward<T> &a, float (&sum)[2], float (*partial)[MOST_THREADS / 32]) {
    group_sum<WARP>(sum, partial);
    sum[0] = a.rms ? 0 : sum[0] / (float)a.width;
    sum[1] /= (float)a.width;
}

/* A group takes a piece, row by row. */
template <class T, int CHUNKS, bool WARP>
__global__ void __launch_bounds__(WARP ? WARP_GROUPS * 32 : MOST_THREADS) norm_backward_held(norm_backward<T> a) {
    constexpr int N = reals<T>::vector;
    ESPL_SHARED(float, partial, [2][2][MOST_THREADS / 32]);
    group<WARP> g;
    int64_t first = g.number * PIECE;
    dropout drop = dropout_begin(a.drop, a.batch);
    float dgain[CHUNKS][N] = {}, dbias[CHUNKS][N] = {};
    for (int64_t row = first; row < first + PIECE && row < a.rows; row++) {
        float u[CHUNKS][N], h[CHUNKS][N], gain[N], mean[2] = {0, 0};
        float2 stat = *reinterpret_cast<const float2 *>(a.stat + 2 * row);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            int column = (k * g.lanes + g.lane) * N;
            if (column >= a.width)
                continue;
            load_normal(a, row, column, stat, h[k], u[k]);
            load_stretch(a.gain + column, gain);
#pragma unroll
            for (int i = 0; i < N; i++) {
                dgain[k][i] += u[k][i] * h[k][i];
                dbias[k][i] += u[k][i];
                u[k][i] *= gain[i];
                mean[0] += u[k][i];
                mean[1] += u[k][i] * h[k][i];
            }
        }
        norm_means<WARP>(a, mean, partial[row % 2]);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            int column = (k * g.lanes + g.lane) * N;
            if (column < a.width)
                write_din(a, drop, row * a.width + column, stat.y, mean, h[k], u[k]);
        }
    }
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int column = (k * g.lanes + g.lane) * N;
        if (!a.partial || first >= a.rows || column >= a.width)
            continue;
        store_floats(a.partial + 2 * g.number * a.width + column, dgain[k]);
        store_floats(a.partial + (2 * g.number + 1) * a.width + column, dbias[k]);
    }
}

template <class T> __global__ void __launch_bounds__(ANY_THREADS) norm_backward_any(norm_backward<T> a) {
    ESPL_SHARED(float, partial, [2][MOST_THREADS / 32]);
    int64_t row = blockIdx.x;
    dropout drop = dropout_begin(a.drop, a.batch);
    float2 stat = make_float2(a.stat[2 * row], a.stat[2 * row + 1]);
    float u[1], h[1], gain[1], mean[2] = {0, 0};
    for (int column = (int)threadIdx.x; column < a.width; column += (int)blockDim.x) {
        load_normal(a, row, column, stat, h, u);
        load_stretch(a.gain + column, gain);
        u[0] *= gain[0];
        mean[0] += u[0];
        mean[1] += u[0] * h[0];
    }
    norm_means<false>(a, mean, partial);
    for (int column = (int)threadIdx.x; column < a.width; column += (int)blockDim.x) {
        load_normal(a, row, column, stat, h, u);
        load_stretch(a.gain + column, gain);
        u[0] *= gain[0];
        write_din(a, drop, row * a.width + column, stat.y, mean, h, u);
    }
}

/* The sums of a piece, a thread a column. */
template <class T> __global__ void __launch_bounds__(ANY_THREADS) norm_piece_any(norm_backward<T> a, unsigned panels) {
    int64_t piece = blockIdx.x / panels;
    int column = (int)(blockIdx.x % panels * blockDim.x + threadIdx.x);
    if (column >= a.width)
        return;
    float dgain = 0, dbias = 0, h[1], dy[1];
    for (int64_t row = piece * PIECE; row < min((piece + 1) * PIECE, (int64_t)a.rows); row++) {
        load_normal(a, row, column, make_float2(a.stat[2 * row], a.stat[2 * row + 1]), h, dy);
        dgain += dy[0] * h[0];
        dbias += dy[0];
    }
    a.partial[2 * piece * a.width + column] = dgain;
    a.partial[(2 * piece + 1) * a.width + column] = dbias;
}

enum { SUM_COLUMNS = 32, SUM_LANES = 16 };

struct norm_sums {
    const float *partial;
    float *to[2];
    bool add[2];
    int pieces, width;
};

/* Over pieces: lane l sums pieces l, l + SUM_LANES, ..., lanes are added in order. */
__global__ void __launch_bounds__(SUM_COLUMNS *SUM_LANES) norm_sum_pieces(norm_sums s) {
    ESPL_SHARED(float, lanes, [SUM_LANES][SUM_COLUMNS]);
    int x = (int)threadIdx.x % SUM_COLUMNS, lane = (int)threadIdx.x / SUM_COLUMNS, column = (int)blockIdx.x * SUM_COLUMNS + x;
    int which = (int)blockIdx.y;
    float *to = which ? s.to[1] : s.to[0], sum = 0;
    if (!to)
        return;
#pragma unroll 4
    for (int piece = lane; piece < s.pieces; piece += SUM_LANES)
        sum += column < s.width ? s.partial[(2 * (int64_t)piece + which) * s.width + column] : 0;
    lanes[lane][x] = sum;
    __syncthreads();
    if (lane > 0 || column >= s.width)
        return;
#pragma unroll
    for (int l = 1; l < SUM_LANES; l++)
        sum += lanes[l][x];
    to[column] = (which ? s.add[1] : s.add[0]) ? to[column] + sum : sum;
}

/* Which kernels take rows of this width: a row of the tables below, and how they are launched. */
struct norm_shape {
    int kernel;
    unsigned groups, threads; /* of a block */
};

enum { ANY_WIDTH, WARP_ROWS, BLOCK_ROWS = WARP_ROWS + 4 };

template <class T> static norm_shape norm_shape_of(int64_t width, bool aligned) {
    int64_t stretches = width / reals<T>::vector;
    if (!aligned || !whole_stretches<T>(width) || stretches > 2 * MOST_THREADS)
        return {ANY_WIDTH, 1, panel_grid_of(width, ANY_THREADS).threads};
    if (stretches <= 4 * 32)
        return {WARP_ROWS + (int)pieces_of(stretches, 32) - 1, WARP_GROUPS, WARP_GROUPS * 32};
    int chunks = stretches > MOST_THREADS ? 2 : 1;
    return {BLOCK_ROWS + chunks - 1, 1, (unsigned)pieces_of(stretches, 32 * chunks) * 32};
}

template <class T> struct norm_kernels {
    typedef void forward_kernel(norm_forward<T>);
    typedef void backward_kernel(norm_backward<T>);
    static constexpr forward_kernel *forward[] = {
        norm_forward_any<T>,           norm_forward_held<T, 1, true>,  norm_forward_held<T, 2, true>, norm_forward_held<T, 3, true>,
        norm_forward_held<T, 4, true>, norm_forward_held<T, 1, false>, norm_forward_held<T, 2, false>};
    static constexpr backward_kernel *backward[] = {
        norm_backward_any<T>,           norm_backward_held<T, 1, true>,  norm_backward_held<T, 2, true>, norm_backward_held<T, 3, true>,
        norm_backward_held<T, 4, true>, norm_backward_held<T, 1, false>, norm_backward_held<T, 2, false>};
};

template <class T> static void resnorm_forward(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    norm_forward<T> a = {static_cast<const T *>(args->in[0]),
                         static_cast<const T *>(args->in[1]),
                         static_cast<const T *>(args->param[0]),
                         static_cast<const T *>(args->param[1]),
                         static_cast<T *>(args->out[0]),
                         static_cast<T *>(args->out[1]),
                         static_cast<float *>(args->out[2]),
                         espl__rows_of(args)->batch,
                         dropout_row_of(attrs),
                         (int)espl__rows_of(args)->tokens,
                         (int)attrs->n_in,
                         attrs->eps,
                         attrs->kind == ESPL_NORM_RMS};
    norm_shape shape = norm_shape_of<T>(attrs->n_in, aligned16(a.in0, a.in1, a.gain, a.bias, a.out0, a.out1));
    auto *norm_forward_kernel = norm_kernels<T>::forward[shape.kernel];
    ESPL_LAUNCH(norm_forward_kernel, dim3((unsigned)pieces_of(a.rows, shape.groups)), dim3(shape.threads), 0, espl__cuda->compute, a);
    espl__cuda_note(cudaGetLastError(), "resnorm forward");
}

/* Writes din, and the sums of pieces when they are wanted. */
template <class T> static void launch_backward(const norm_backward<T> &a) {
    norm_shape shape = norm_shape_of<T>(a.width, aligned16(a.out0, a.dsum, a.dout1, a.gain, a.din[0], a.din[1]));
    bool any = shape.kernel == ANY_WIDTH;
    unsigned pieces = (unsigned)pieces_of(a.rows, PIECE), groups = any ? (unsigned)a.rows : pieces;
    auto *norm_backward_kernel = norm_kernels<T>::backward[shape.kernel];
    ESPL_LAUNCH(norm_backward_kernel, dim3((unsigned)pieces_of(groups, shape.groups)), dim3(shape.threads), 0, espl__cuda->compute, a);
    panel_grid grid = panel_grid_of(a.width, ANY_THREADS);
    if (any && a.partial)
        ESPL_LAUNCH(norm_piece_any<T>, dim3(pieces * grid.panels), dim3(grid.threads), 0, espl__cuda->compute, a, grid.panels);
}

template <class T> static void resnorm_backward(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    float *dgain = static_cast<float *>(args->dparam[0]), *dbias = static_cast<float *>(args->dparam[1]);
    norm_backward<T> a = {static_cast<const T *>(args->out[0]),
                          static_cast<const T *>(args->dout[0]),
                          static_cast<const T *>(args->dout[1]),
                          static_cast<const T *>(args->param[0]),
                          static_cast<const float *>(args->out[2]),
                          {static_cast<T *>(args->din[0]), static_cast<T *>(args->din[1])},
                          dgain || dbias ? static_cast<float *>(args->work) : nullptr,
                          espl__rows_of(args)->batch,
                          dropout_row_of(attrs),
                          (int)espl__rows_of(args)->tokens,
                          (int)attrs->n_in,
                          attrs->kind == ESPL_NORM_RMS,
                          {args->din_add[0], args->din_add[1]}};
    launch_backward(a);
    norm_sums s = {a.partial, {dgain, dbias}, {args->dparam_add[0], args->dparam_add[1]}, (int)pieces_of(a.rows, PIECE), a.width};
    dim3 columns((unsigned)pieces_of(a.width, SUM_COLUMNS), 2);
    if (a.partial)
        ESPL_LAUNCH(norm_sum_pieces, columns, dim3(SUM_COLUMNS * SUM_LANES), 0, espl__cuda->compute, s);
    espl__cuda_note(cudaGetLastError(), "resnorm backward");
}

void espl__cuda_fp32_resnorm_forward(const espl_args *args) { resnorm_forward<float>(args); }
void espl__cuda_bf16_resnorm_forward(const espl_args *args) { resnorm_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_resnorm_backward(const espl_args *args) { resnorm_backward<float>(args); }
void espl__cuda_bf16_resnorm_backward(const espl_args *args) { resnorm_backward<__nv_bfloat16>(args); }
