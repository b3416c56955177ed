/* drop(x) of kernels.h: one Philox block serves four elements. */
#ifndef ESPL_KERNELS_CUDA_DROPOUT_CUH
#define ESPL_KERNELS_CUDA_DROPOUT_CUH

#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/state.h"

/* What the row of the tape fixes; an argument of kernels. */
struct dropout_row {
    uint32_t op, threshold;
    float scale; /* 1 / (1 - p) */
    bool on;
};

static inline dropout_row dropout_row_of(const espl_attrs *attrs) {
    float p = attrs->dropout;
    return {attrs->rng_op, espl_rng_threshold(p), 1.0f / (1.0f - p), p > 0.0f};
}

/* That row on the micro-batch under way. */
struct dropout {
    espl_rng_key key;
    uint32_t threshold;
    float scale;
    bool on;
};

__device__ __forceinline__ dropout dropout_begin(const dropout_row &row, const espl__batch *batch) {
    dropout drop = {batch->rng, row.threshold, row.scale, row.on && batch->training};
    drop.key.op = row.op;
    return drop;
}

/* What element e is multiplied with. */
__device__ __forceinline__ float dropout_factor(const dropout &drop, uint64_t e) {
    return espl_rng_u32(&drop.key, e) >= drop.threshold ? drop.scale : 0.0f;
}

/* Applies it to N elements from `first` on; both are multiples of 4, or N is 1. */
template <int N> __device__ __forceinline__ void dropout_apply(const dropout &drop, uint64_t first, float (&x)[N]) {
    static_assert(N == 1 || N % 4 == 0, "whole Philox blocks");
    if (!drop.on)
        return;
    if constexpr (N == 1) {
        x[0] *= dropout_factor(drop, first);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            espl_rng4 number = espl_rng_block(&drop.key, first / 4 + i / 4);
#pragma unroll
            for (int l = 0; l < 4; l++)
                x[i + l] *= number.v[l] >= drop.threshold ? drop.scale : 0.0f;
        }
    }
}

#endif
