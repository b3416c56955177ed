#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/entries.h"

/* A row of `in` and `din` is gate [width], then up [width]. */
template <class T> struct glu_rows {
    const T *in, *dout;
    T *to; /* out, or din */
    const espl__batch *batch;
    dropout_row drop;
    int64_t width;
    unsigned panels;
    bool add;
};

template <class T, int KIND, int N, bool BACKWARD, bool DROP> __global__ void __launch_bounds__(256) glu_all(glu_rows<T> a) {
    int64_t row = blockIdx.x / a.panels, column = ((int64_t)(blockIdx.x % a.panels) * blockDim.x + threadIdx.x) * N;
    if (column >= a.width)
        return;
    int64_t at = row * a.width + column, gate_at = at + row * a.width, up_at = gate_at + a.width;
    float gate[N], up[N], g[N];
    dropout drop = dropout_begin(a.drop, a.batch);
    load_stretch(a.in + gate_at, gate);
    load_stretch(a.in + up_at, up);
    if constexpr (BACKWARD) {
        load_stretch(a.dout + at, g);
        if constexpr (DROP)
            dropout_apply(drop, (uint64_t)at, g);
#pragma unroll
        for (int i = 0; i < N; i++) {
            float2 f = act_of<KIND, accuracy<T>::fast>(gate[i]);
            gate[i] = g[i] * up[i] * f.y;
            up[i] = g[i] * f.x;
        }
        put_stretch(a.to + gate_at, gate, a.add);
        put_stretch(a.to + up_at, up, a.add);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            up[i] *= act_of<KIND, accuracy<T>::fast>(gate[i]).x;
        if constexpr (DROP)
            dropout_apply(drop, (uint64_t)at, up);
        store_stretch(a.to + at, up);
    }
}

template <class T, bool BACKWARD> static void glu_launch(const espl_args *args, const T *in, const T *dout, T *to) {
    typedef void glu_kernel(glu_rows<T>);
    constexpr int N = reals<T>::vector;
#define KERNEL(kind) glu_all<T, kind, 1, BACKWARD, true>
    static glu_kernel *const one[] = ACT_KINDS(KERNEL);
#undef KERNEL
#define KERNEL(kind) glu_all<T, kind, N, BACKWARD, false>
    static glu_kernel *const wide[] = ACT_KINDS(KERNEL);
#undef KERNEL
#define KERNEL(kind) glu_all<T, kind, N, BACKWARD, true>
    static glu_kernel *const dropped[] = ACT_KINDS(KERNEL);
#undef KERNEL
    int64_t width = args->attrs->n_out;
    bool whole = whole_stretches<T>(width) && aligned16(in, dout, to);
    panel_grid grid = panel_grid_of(whole ? width / N : width, 256);
    glu_kernel *glu_all_kernel = (!whole ? one : args->attrs->dropout > 0.0f ? dropped : wide)[args->attrs->kind];
    const espl__rows *rows = espl__rows_of(args);
    glu_rows<T> a = {in, dout, to, rows->batch, dropout_row_of(args->attrs), width, grid.panels, args->din_add[0]};
    ESPL_LAUNCH(glu_all_kernel, dim3((unsigned)rows->tokens * grid.panels), dim3(grid.threads), 0, espl__cuda->compute, a);
    espl__cuda_note(cudaGetLastError(), BACKWARD ? "glu backward" : "glu forward");
}

template <class T> static void glu_forward(const espl_args *args) {
    glu_launch<T, false>(args, static_cast<const T *>(args->in[0]), nullptr, static_cast<T *>(args->out[0]));
}

template <class T> static void glu_backward(const espl_args *args) {
    glu_launch<T, true>(args, static_cast<const T *>(args->in[0]), static_cast<const T *>(args->dout[0]), static_cast<T *>(args->din[0]));
}

void espl__cuda_fp32_glu_forward(const espl_args *args) { glu_forward<float>(args); }
void espl__cuda_bf16_glu_forward(const espl_args *args) { glu_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_glu_backward(const espl_args *args) { glu_backward<float>(args); }
void espl__cuda_bf16_glu_backward(const espl_args *args) { glu_backward<__nv_bfloat16>(args); }
