#include "kernels/cuda/attention_bias.h"
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/prims.cuh"
#include "kernels/relative_bias.h"

constexpr int BIAS_THREADS = 256;

template <class real>
__global__ void __launch_bounds__(BIAS_THREADS)
    bias_tables_kernel(const real *__restrict__ parameter, espl__rel_buckets buckets, int heads, int entries, float scale, float *tables) {
    int x = blockIdx.x * BIAS_THREADS + threadIdx.x;
    if (x >= entries)
        return;
    const real *row = parameter + (size_t)espl__rel_bucket(&buckets, x - entries / 2) * heads;
    for (int head = 0; head < heads; head++)
        tables[(size_t)head * entries + x] = reals<real>::load(row + head) / scale;
}

/* A block a head: sums over parts for each offset, then over the offsets of each bucket. */
__global__ void __launch_bounds__(BIAS_THREADS) bias_gradient_kernel(const float *__restrict__ slopes, int parts, espl__rel_buckets buckets,
                                                                     int heads, int entries, int n_buckets, float *gradient, bool add) {
    ESPL_SHARED_DYN(float, sums);
    int *bucket = reinterpret_cast<int *>(sums + entries), head = blockIdx.x;
    for (int x = threadIdx.x; x < entries; x += BIAS_THREADS) {
        float sum = 0.0f;
        for (int part = 0; part < parts; part++)
            sum += slopes[((size_t)head * parts + part) * entries + x];
        sums[x] = sum;
        bucket[x] = espl__rel_bucket(&buckets, x - entries / 2);
    }
    __syncthreads();
    for (int b = threadIdx.x; b < n_buckets; b += BIAS_THREADS) {
        float sum = 0.0f;
        for (int x = 0; x < entries; x++)
            sum += bucket[x] == b ? sums[x] : 0.0f;
        float *to = gradient + (size_t)b * heads + head;
        *to = add ? *to + sum : sum;
    }
}

template <class real> static void bias_tables(const espl_args *args, bool causal, float *tables) {
    const espl_attrs *attrs = args->attrs;
    int entries = (int)espl__rel_entries(attrs);
    auto attention_bias = bias_tables_kernel<real>;
    ESPL_LAUNCH(attention_bias, dim3((unsigned)(entries + BIAS_THREADS - 1) / BIAS_THREADS), dim3(BIAS_THREADS), (size_t)0,
                espl__cuda->compute, (const real *)args->param[0], espl__rel_buckets_of(attrs, causal), attrs->heads, entries, attrs->scale,
                tables);
}

extern "C" void espl__cuda_bias_tables(const espl_args *args, espl_dtype real, bool causal, float *tables) {
    if (real == ESPL_BF16)
        bias_tables<__nv_bfloat16>(args, causal, tables);
    else
        bias_tables<float>(args, causal, tables);
}

extern "C" void espl__cuda_bias_gradient(const espl_args *args, const float *slopes, int parts) {
    const espl_attrs *attrs = args->attrs;
    int entries = (int)espl__rel_entries(attrs);
    size_t shared_bytes = (size_t)entries * (sizeof(float) + sizeof(int));
    auto attention_bias_gradient = bias_gradient_kernel;
    ESPL_ALLOW_SHARED(attention_bias_gradient, shared_bytes);
    ESPL_LAUNCH(attention_bias_gradient, dim3((unsigned)attrs->heads), dim3(BIAS_THREADS), shared_bytes, espl__cuda->compute, slopes, parts,
                espl__rel_buckets_of(attrs, attrs->causal), attrs->heads, entries, attrs->rel_buckets, (float *)args->dparam[0],
                args->dparam_add[0]);
}
