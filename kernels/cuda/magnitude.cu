#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/linear_lt.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_matmul_work.h"

/* ---- WEIGHT_NORM. */

enum {
    NORM_THREADS = 256,
    NORM_WARPS = NORM_THREADS / 32,
    NORM_OUTPUTS = 8,
    NORM_RANKS = 128 /* whose numbers of B are in shared memory */
};

template <class T> struct norm_part {
    const T *w, *a, *b; /* the part's; from one output or input of w to the next: */
    int64_t of_output, of_input;
    float *out;
    int width, n_in, rank;
    float scale;
};

/* x[j] = W of outputs `first` + j at input i; 0 behind the last. */
template <class T> __device__ __forceinline__ void load_weights(const norm_part<T> &p, int first, int i, float (&x)[NORM_OUTPUTS]) {
    const T *w = p.w + first * p.of_output + i * p.of_input;
#pragma unroll
    for (int j = 0; j < NORM_OUTPUTS; j++, w += p.of_output)
        x[j] = first + j < p.width ? reals<T>::load(w) : 0.0f;
}

/* A block has eight outputs, a thread every 256th input: A is read once for all eight. */
template <class T> __global__ void __launch_bounds__(NORM_THREADS) weight_norms(norm_part<T> p) {
    ESPL_SHARED(float, up, [NORM_OUTPUTS * NORM_RANKS]);
    ESPL_SHARED(float, of_warps, [NORM_OUTPUTS * NORM_WARPS]);
    int first = (int)blockIdx.x * NORM_OUTPUTS;
    float sum[NORM_OUTPUTS] = {};
    for (int begin = 0; begin < p.n_in; begin += NORM_THREADS) {
        int i = begin + (int)threadIdx.x;
        bool there = i < p.n_in;
        float x[NORM_OUTPUTS] = {};
        if (there)
            load_weights(p, first, i, x);
        for (int ranks = 0; ranks < p.rank; ranks += NORM_RANKS) {
            int count = min((int)NORM_RANKS, p.rank - ranks);
            if (begin == 0 || p.rank > NORM_RANKS) { /* else they are still there */
                __syncthreads();
                for (int e = threadIdx.x; e < NORM_OUTPUTS * count; e += NORM_THREADS) {
                    int output = first + e / count;
                    up[e / count * NORM_RANKS + e % count] =
                        output < p.width ? p.scale * reals<T>::load(p.b + (int64_t)output * p.rank + ranks + e % count) : 0.0f;
                }
                __syncthreads();
            }
            for (int r = 0; r < count && there; r++) {
                float a = reals<T>::load(p.a + (int64_t)(ranks + r) * p.n_in + i);
#pragma unroll
                for (int j = 0; j < NORM_OUTPUTS; j++)
                    x[j] = fmaf(up[j * NORM_RANKS + r], a, x[j]);
            }
        }
#pragma unroll
        for (int j = 0; j < NORM_OUTPUTS; j++)
            sum[j] = fmaf(x[j], x[j], sum[j]);
    }
#pragma unroll
    for (int j = 0; j < NORM_OUTPUTS; j++) {
        sum[j] = warp_sum(sum[j]);
        if (threadIdx.x % 32 == 0)
            of_warps[j * NORM_WARPS + threadIdx.x / 32] = sum[j];
    }
    __syncthreads();
    if (threadIdx.x < NORM_OUTPUTS && first + (int)threadIdx.x < p.width) {
        float total = 0.0f;
        for (int w = 0; w < NORM_WARPS; w++)
            total += of_warps[threadIdx.x * NORM_WARPS + w];
        p.out[first + threadIdx.x] = as_stored<T>(sqrtf(total));
    }
}

template <class T> static void weight_norm_forward(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    bool out_in = attrs->layout == ESPL_OUT_IN;
    norm_part<T> p = {};
    p.a = static_cast<const T *>(args->param[1]);
    p.b = static_cast<const T *>(args->param[2]);
    p.out = static_cast<float *>(args->out[0]);
    p.n_in = (int)attrs->n_in, p.of_output = out_in ? attrs->n_in : 1, p.of_input = out_in ? 1 : attrs->n_out;
    for (int i = 0; i < attrs->n_parts; i++) {
        const espl_lora_part *part = &attrs->part[i];
        p.w = static_cast<const T *>(args->param[0]) + part->column * p.of_output;
        p.width = (int)part->width, p.rank = part->rank, p.scale = part->scale;
        ESPL_LAUNCH(weight_norms<T>, dim3((unsigned)pieces_of(part->width, NORM_OUTPUTS)), dim3(NORM_THREADS), 0, espl__cuda->compute, p);
        espl__cuda_note(cudaGetLastError(), "norms of weights");
        p.a += part->rank * attrs->n_in, p.b += part->rank * part->width, p.out += part->width;
    }
}

void espl__cuda_fp32_weight_norm_forward(const espl_args *args) { weight_norm_forward<float>(args); }
void espl__cuda_bf16_weight_norm_forward(const espl_args *args) { weight_norm_forward<__nv_bfloat16>(args); }

/* ---- MAGNITUDE. */

enum { GAIN_THREADS = 256 };

/* Columns of a part: gain[column + j] = m[j] / norm[j]; of no part (m NULL): 1. */
template <class T>
__global__ void __launch_bounds__(GAIN_THREADS) column_gains(const T *m, const float *norm, int64_t columns, float *gain) {
    int64_t j = (int64_t)blockIdx.x * GAIN_THREADS + threadIdx.x;
    if (j < columns)
        gain[j] = m ? reals<T>::load(m + j) / norm[j] : 1.0f;
}

template <class T> static void launch_gains(const T *m, const float *norm, int64_t columns, float *gain) {
    ESPL_LAUNCH(column_gains<T>, dim3((unsigned)pieces_of(columns, GAIN_THREADS)), dim3(GAIN_THREADS), 0, espl__cuda->compute, m, norm,
                columns, gain);
}

/* At the start of work; what sums need follows. */
template <class T> static float *gains_of(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const T *m = static_cast<const T *>(args->param[0]);
    const float *norm = static_cast<const float *>(args->in[1]);
    float *gain = static_cast<float *>(args->work);
    launch_gains<T>(nullptr, nullptr, attrs->n_out, gain);
    for (int i = 0; i < attrs->n_parts; i++) {
        const espl_lora_part *part = &attrs->part[i];
        launch_gains(m, norm, part->width, gain + part->column);
        m += part->width, norm += part->width;
    }
    return gain;
}

template <class T> struct scaled_rows {
    const T *from, *bias; /* bias NULL: none */
    const float *gain;
    T *to;
    int64_t width;
    unsigned panels;
    bool add;
};

/* to = gain from (+ bias), or added to what is there; a block has a panel of a row. */
template <class T, int N> __global__ void __launch_bounds__(GAIN_THREADS) scale_rows(scaled_rows<T> s) {
    int64_t row = blockIdx.x / s.panels, column = ((int64_t)(blockIdx.x % s.panels) * blockDim.x + threadIdx.x) * N;
    if (column >= s.width)
        return;
    float x[N], gain[N], bias[N] = {};
    load_stretch(s.from + row * s.width + column, x);
    load_floats(s.gain + column, gain);
    if (s.bias)
        load_stretch(s.bias + column, bias);
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] = gain[i] * x[i] + bias[i];
    put_stretch(s.to + row * s.width + column, x, s.add);
}

template <class T> static void scale_launch(const espl_args *args, scaled_rows<T> s) {
    constexpr int N = reals<T>::vector;
    s.width = args->attrs->n_out;
    bool wide = whole_stretches<T>(s.width) && aligned16(s.from, s.bias, (const T *)s.to);
    panel_grid grid = panel_grid_of(wide ? s.width / N : s.width, GAIN_THREADS);
    s.panels = grid.panels;
    auto *scale_rows_kernel = wide ? scale_rows<T, N> : scale_rows<T, 1>;
    unsigned blocks = (unsigned)espl__rows_of(args)->tokens * grid.panels;
    ESPL_LAUNCH(scale_rows_kernel, dim3(blocks), dim3(grid.threads), 0, espl__cuda->compute, s);
    espl__cuda_note(cudaGetLastError(), "magnitudes");
}

template <class T> static void magnitude_forward(const espl_args *args) {
    scaled_rows<T> s = {};
    s.from = static_cast<const T *>(args->in[0]);
    s.bias = static_cast<const T *>(args->param[1]);
    s.gain = gains_of<T>(args);
    s.to = static_cast<T *>(args->out[0]);
    scale_launch(args, s);
}

template <class T> static void magnitude_backward(const espl_args *args, espl_dtype real) {
    const espl_attrs *attrs = args->attrs;
    espl__columns c = {};
    c.rows = espl__rows_of(args)->tokens, c.ld = attrs->n_out;
    c.sums = static_cast<float *>(args->work) + espl__round_up(attrs->n_out, 64);
    int64_t at = 0;
    for (int i = 0; i < attrs->n_parts && args->dparam[0]; i++) {
        const espl_lora_part *part = &attrs->part[i];
        c.x = static_cast<const T *>(args->dout[0]) + part->column, c.times = static_cast<const T *>(args->in[0]) + part->column;
        c.columns = part->width, c.over = static_cast<const float *>(args->in[1]) + at;
        c.to = static_cast<float *>(args->dparam[0]) + at, c.add = args->dparam_add[0];
        espl__cuda_sum_columns(&c, real);
        at += part->width;
    }
    if (args->dparam[1]) {
        c.x = args->dout[0], c.times = nullptr, c.over = nullptr, c.columns = attrs->n_out;
        c.to = static_cast<float *>(args->dparam[1]), c.add = args->dparam_add[1];
        espl__cuda_sum_columns(&c, real);
    }
    scaled_rows<T> s = {};
    s.from = static_cast<const T *>(args->dout[0]);
    s.gain = gains_of<T>(args);
    s.to = static_cast<T *>(args->din[0]);
    s.add = args->din_add[0];
    if (args->din[0])
        scale_launch(args, s);
}

void espl__cuda_fp32_magnitude_forward(const espl_args *args) { magnitude_forward<float>(args); }
void espl__cuda_bf16_magnitude_forward(const espl_args *args) { magnitude_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_magnitude_backward(const espl_args *args) { magnitude_backward<float>(args, ESPL_F32); }
void espl__cuda_bf16_magnitude_backward(const espl_args *args) { magnitude_backward<__nv_bfloat16>(args, ESPL_BF16); }
