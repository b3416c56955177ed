#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"

/* One call: forward copies a token's row to the row of its segment, backward the other way. */
template <class T> struct pool_rows {
    const T *from;
    T *to;
    const espl__batch *batch; /* of the main stream */
    const int32_t *segments;
    int width, skipped; /* skipped: tokens in front of a segment's first */
    unsigned panels;
    bool last, add;
};

/* A block has a panel of a pooled row; rows behind the segments become 0. */
template <class T, int N, bool BACKWARD> __global__ void __launch_bounds__(256) pool_all(pool_rows<T> p) {
    int row = (int)(blockIdx.x / p.panels);
    int64_t column = ((int64_t)(blockIdx.x % p.panels) * blockDim.x + threadIdx.x) * N;
    bool there = row < p.batch->n_segments;
    if (column >= p.width || (BACKWARD && !there))
        return;
    float x[N] = {};
    int64_t token = there ? (p.last ? p.segments[row + 1] - 1 : p.segments[row] + p.skipped) : 0,
            at[2] = {token * p.width, (int64_t)row * p.width};
    if (there)
        load_stretch(p.from + at[BACKWARD] + column, x);
    put_stretch(p.to + at[!BACKWARD] + column, x, BACKWARD && p.add);
}

template <class T, bool BACKWARD> static void pool_launch(const espl_args *args, const T *from, T *to) {
    constexpr int N = reals<T>::vector;
    const espl__rows *main = &espl__cuda->rows[ESPL_STREAM_MAIN];
    int64_t width = args->attrs->n_in;
    bool wide = whole_stretches<T>(width) && aligned16(from, (const T *)to);
    panel_grid grid = panel_grid_of(wide ? width / N : width, 256);
    pool_rows<T> p = {from,
                      to,
                      main->batch,
                      main->segments,
                      (int)width,
                      (int)args->attrs->prompt,
                      grid.panels,
                      args->attrs->kind == ESPL_POOL_LAST,
                      args->din_add[0]};
    auto *pool_kernel = wide ? pool_all<T, N, BACKWARD> : pool_all<T, 1, BACKWARD>;
    unsigned blocks = (unsigned)espl__cuda->rows[ESPL_STREAM_POOLED].tokens * grid.panels;
    ESPL_LAUNCH(pool_kernel, dim3(blocks), dim3(grid.threads), 0, espl__cuda->compute, p);
    espl__cuda_note(cudaGetLastError(), BACKWARD ? "pool backward" : "pool forward");
}

template <class T> static void pool_forward(const espl_args *args) {
    pool_launch<T, false>(args, static_cast<const T *>(args->in[0]), static_cast<T *>(args->out[0]));
}

template <class T> static void pool_backward(const espl_args *args) {
    size_t bytes = (size_t)(espl__cuda->rows[ESPL_STREAM_MAIN].tokens * args->attrs->n_in) * sizeof(T);
    if (!args->din_add[0])
        espl__cuda_zero(args->din[0], bytes);
    pool_launch<T, true>(args, static_cast<const T *>(args->dout[0]), static_cast<T *>(args->din[0]));
}

void espl__cuda_fp32_pool_forward(const espl_args *args) { pool_forward<float>(args); }
void espl__cuda_bf16_pool_forward(const espl_args *args) { pool_forward<__nv_bfloat16>(args); }
void espl__cuda_fp32_pool_backward(const espl_args *args) { pool_backward<float>(args); }
void espl__cuda_bf16_pool_backward(const espl_args *args) { pool_backward<__nv_bfloat16>(args); }
