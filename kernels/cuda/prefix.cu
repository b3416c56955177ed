#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"

enum { PREFIX_THREADS = 256, PREFIX_ROWS = PREFIX_THREADS / 32 };

template <class T> struct prefix_rows {
    const T *prefix; /* this layer's columns of row 0 */
    T *rows;         /* those of token 0 that they stand in, or their gradients */
    float *sums;     /* the gradient of `prefix`; NULL: not wanted */
    const espl__batch *batch;
    const int32_t *positions, *segments;
    int64_t ld, row_ld; /* of the prefix, of the rows */
    int width, tokens, length;
    bool add;
};

/* A warp has a token; most have none to write. */
template <class T, int N> __global__ void __launch_bounds__(PREFIX_THREADS) put_prefix(prefix_rows<T> p) {
    int token = (int)(blockIdx.x * PREFIX_ROWS + threadIdx.x / 32);
    if (token >= p.tokens || token >= p.batch->n || p.positions[token] >= p.length)
        return;
    const T *from = p.prefix + p.positions[token] * p.ld;
    T *to = p.rows + token * p.row_ld;
    for (int column = (int)(threadIdx.x % 32) * N; column < p.width; column += 32 * N) {
        float x[N];
        load_stretch(from + column, x);
        store_stretch(to + column, x);
    }
}

/* A thread has a column of a row of the prefix: its gradients of all segments, in their order, in double; each is then 0. */
template <class T> __global__ void __launch_bounds__(PREFIX_THREADS) sum_prefix(prefix_rows<T> p) {
    int column = (int)(blockIdx.x * PREFIX_THREADS + threadIdx.x), row = (int)blockIdx.y;
    if (column >= p.width)
        return;
    double sum = 0.0;
    for (int s = 0; s < p.batch->n_segments; s++) {
        int64_t token = p.segments[s] + row;
        if (token >= p.segments[s + 1])
            continue;
        T *from = p.rows + token * p.row_ld + column;
        sum += (double)reals<T>::load(from);
        reals<T>::store(from, 0.0f);
    }
    if (!p.sums)
        return;
    float *to = p.sums + row * p.ld + column;
    *to = (float)(p.add ? (double)*to + sum : sum);
}

template <class T> static prefix_rows<T> prefix_rows_of(const espl_args *args, void *rows) {
    const espl_attrs *attrs = args->attrs;
    const espl__rows *of = espl__rows_of(args);
    int64_t column = attrs->part[0].column, width = attrs->part[0].width;
    prefix_rows<T> p = {};
    p.prefix = static_cast<const T *>(args->param[0]) + column;
    p.rows = static_cast<T *>(rows) + attrs->n_out - width;
    p.sums = args->dparam[0] ? static_cast<float *>(args->dparam[0]) + column : nullptr;
    p.batch = of->batch, p.positions = of->positions, p.segments = of->segments;
    p.ld = attrs->n_in, p.row_ld = attrs->n_out;
    p.width = (int)width, p.tokens = (int)of->tokens, p.length = (int)attrs->prompt;
    p.add = args->dparam_add[0];
    return p;
}

template <class T> static void prefix_forward(const espl_args *args) {
    prefix_rows<T> p = prefix_rows_of<T>(args, args->out[0]);
    bool wide =
        whole_stretches<T>(p.width) && whole_stretches<T>(p.ld) && whole_stretches<T>(p.row_ld) && aligned16(p.prefix, (const T *)p.rows);
    auto *put_prefix_kernel = wide ? put_prefix<T, reals<T>::vector> : put_prefix<T, 1>;
    ESPL_LAUNCH(put_prefix_kernel, dim3((unsigned)pieces_of(p.tokens, PREFIX_ROWS)), dim3(PREFIX_THREADS), 0, espl__cuda->compute, p);
    espl__cuda_note(cudaGetLastError(), "prefix forward");
}

template <class T> static void prefix_backward(const espl_args *args) {
    prefix_rows<T> p = prefix_rows_of<T>(args, args->dout[0]);
    if (p.sums && !p.add)
        espl__cuda_zero(args->dparam[0], (size_t)(p.length * p.ld) * sizeof(float));
    dim3 blocks((unsigned)pieces_of(p.width, PREFIX_THREADS), (unsigned)p.length);
    ESPL_LAUNCH(sum_prefix<T>, blocks, dim3(PREFIX_THREADS), 0, espl__cuda->compute, p);
    espl__cuda_note(cudaGetLastError(), "prefix backward");
}

void espl__cuda_fp32_prefix_forward(const espl_args *args) { prefix_forward<float>(args); }
void espl__cuda_bf16_prefix_forward(const espl_args *args) { prefix_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_prefix_backward(const espl_args *args) { prefix_backward<float>(args); }
void espl__cuda_bf16_prefix_backward(const espl_args *args) { prefix_backward<__nv_bfloat16>(args); }
