/* The two numbers of a query and head that backward needs: lse log2(e), and r = rowsum(dO * O) (Dao 2023, algorithm 2, line 4). */
#ifndef ESPL_KERNELS_CUDA_ATTENTION_ROWS_CUH
#define ESPL_KERNELS_CUDA_ATTENTION_ROWS_CUH

#include "kernels/cuda/attention.cuh"

/* LANES lanes a (token, head). Rows past n get zeros. With one lane r is summed in the order in which attention_simt.cuh sums dO V^T, so
 * that a query that sees one key alone has a slope of exactly 0. */
template <class real, int LANES>
__global__ void __launch_bounds__(256)
    attention_row_statistics_kernel(attention a, const real *__restrict__ out, const real *__restrict__ dout, const float *__restrict__ lse,
                                    float *__restrict__ lse2, float *__restrict__ delta, int padded) {
    size_t item = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    int row = (int)(item / a.heads), head = (int)(item % a.heads), lane = threadIdx.x % LANES;
    bool real_row = row < a.batch->n;
    float sum = 0.0f;
    for (int c = lane; real_row && c < a.d; c += LANES)
        sum = fmaf(reals<real>::load(&out[item * a.d + c]), reals<real>::load(&dout[item * a.d + c]), sum);
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2)
        sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
    if (lane == 0 && row < padded) {
        lse2[(size_t)head * padded + row] = real_row ? lse[item] * 1.44269504f : 0.0f;
        delta[(size_t)head * padded + row] = sum;
    }
}

/* Fills args->work. */
template <class real, int LANES> static inline void attention_row_statistics(const attention &a, const espl_args *args) {
    int padded = (int)espl__attention_padded_rows(a.tokens);
    espl__attention_layout layout = espl__attention_layout_of(args->attrs, a.tokens, 1);
    auto attention_statistics = attention_row_statistics_kernel<real, LANES>;
    ESPL_LAUNCH(attention_statistics, dim3((unsigned)(((size_t)padded * a.heads * LANES + 255) / 256)), dim3(256), (size_t)0,
                espl__cuda->compute, a, (const real *)args->out[0], (const real *)args->dout[0], (const float *)args->out[1],
                (float *)args->work + layout.lse2, (float *)args->work + layout.delta, padded);
}

#endif
