#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/dropout.cuh"
#include "kernels/cuda/entries.h"

enum { ACT_THREADS = 256 };

/* dout is NULL and `to` the output, or `to` is din. */
template <class T> struct act_arrays {
    const T *in, *dout;
    T *to;
    const espl__batch *batch;
    dropout_row drop;
    int64_t n;
    bool add;
};

template <class T, int KIND, int N, bool BACKWARD, bool DROP>
__device__ __forceinline__ void act_stretch(const act_arrays<T> &a, const dropout &drop, int64_t at) {
    float x[N], g[N];
    load_stretch(a.in + at, x);
    if constexpr (BACKWARD)
        load_stretch(a.dout + at, g);
#pragma unroll
    for (int i = 0; i < N; i++) {
        float2 f = act_of<KIND, accuracy<T>::fast>(x[i]);
        x[i] = BACKWARD ? g[i] * f.y : f.x;
        if constexpr (KIND == ESPL_ACT_REST)
            g[i] = x[i];
    }
    if constexpr (DROP)
        dropout_apply(drop, (uint64_t)at, x);
    if constexpr (KIND == ESPL_ACT_REST)
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] = g[i] - x[i];
    put_stretch(a.to + at, x, BACKWARD && a.add);
}

/* One stretch a thread. With N > 1 the elements behind the last whole stretch are those of the thread behind its. */
template <class T, int KIND, int N, bool BACKWARD, bool DROP> __global__ void __launch_bounds__(ACT_THREADS) act_all(act_arrays<T> a) {
    int64_t at = ((int64_t)blockIdx.x * ACT_THREADS + threadIdx.x) * N;
    dropout drop = dropout_begin(a.drop, a.batch);
    if (at + N <= a.n)
        act_stretch<T, KIND, N, BACKWARD, DROP>(a, drop, at);
    else
        for (; at < a.n; at++)
            act_stretch<T, KIND, 1, BACKWARD, DROP>(a, drop, at);
}

template <class T, bool BACKWARD> static void act_launch(const espl_args *args, const act_arrays<T> &a) {
    typedef void act_kernel(act_arrays<T>);
    constexpr int N = reals<T>::vector;
#define KERNEL(kind) act_all<T, kind, 1, BACKWARD, true>
    static act_kernel *const one[] = ACT_KINDS(KERNEL);
#undef KERNEL
#define KERNEL(kind) act_all<T, kind, N, BACKWARD, false>
    static act_kernel *const wide[] = ACT_KINDS(KERNEL);
#undef KERNEL
#define KERNEL(kind) act_all<T, kind, N, BACKWARD, true>
    static act_kernel *const dropped[] = ACT_KINDS(KERNEL);
#undef KERNEL
    bool aligned = aligned16(a.in, a.dout, a.to);
    act_kernel *act_all_kernel =
        args->attrs->kind == ESPL_ACT_REST
            ? (aligned ? act_all<T, ESPL_ACT_REST, N, BACKWARD, true> : act_all<T, ESPL_ACT_REST, 1, BACKWARD, true>)
            : (!aligned    ? one
               : a.drop.on ? dropped
                           : wide)[args->attrs->kind];
    unsigned blocks = (unsigned)pieces_of(a.n, (int64_t)ACT_THREADS * (aligned ? N : 1));
    ESPL_LAUNCH(act_all_kernel, dim3(blocks), dim3(ACT_THREADS), 0, espl__cuda->compute, a);
    espl__cuda_note(cudaGetLastError(), BACKWARD ? "act backward" : "act forward");
}

template <class T> static act_arrays<T> arrays_of(const espl_args *args) {
    const espl__rows *rows = espl__rows_of(args);
    act_arrays<T> a = {};
    a.in = static_cast<const T *>(args->in[0]);
    a.batch = rows->batch;
    a.drop = dropout_row_of(args->attrs);
    a.n = rows->tokens * args->attrs->n_in;
    return a;
}

template <class T> static void act_forward(const espl_args *args) {
    act_arrays<T> a = arrays_of<T>(args);
    a.to = static_cast<T *>(args->out[0]);
    act_launch<T, false>(args, a);
}

template <class T> static void act_backward(const espl_args *args) {
    act_arrays<T> a = arrays_of<T>(args);
    a.dout = static_cast<const T *>(args->dout[0]);
    a.to = static_cast<T *>(args->din[0]);
    a.add = args->din_add[0];
    act_launch<T, true>(args, a);
}

void espl__cuda_fp32_act_forward(const espl_args *args) { act_forward<float>(args); }
void espl__cuda_bf16_act_forward(const espl_args *args) { act_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_act_backward(const espl_args *args) { act_backward<float>(args); }
void espl__cuda_bf16_act_backward(const espl_args *args) { act_backward<__nv_bfloat16>(args); }
