/* Sums in the order of kernels/whole_tensors.h. */
#ifndef ESPL_KERNELS_CUDA_WHOLE_SUMS_CUH
#define ESPL_KERNELS_CUDA_WHOLE_SUMS_CUH

#include "kernels/cuda/prims.cuh"
#include "kernels/whole_tensors.h"

enum { WHOLE_THREADS = 256, WHOLE_WARPS = WHOLE_THREADS / 32 };

/* The row that this warp has; blocks of WHOLE_THREADS, a warp a row. */
__device__ __forceinline__ int64_t row_of_warp() { return (int64_t)blockIdx.x * WHOLE_WARPS + threadIdx.x / 32; }

static_assert((int)ESPL_ROW_LANES == 32, "warp_sum is the sum of a row's lanes in their order");

/* The sum of n numbers by one block of ESPL_LONG_LANES threads; thread 0 gets it. */
__device__ __forceinline__ double sum_long(const double *x, int64_t n, double *lanes) {
    int lane = (int)threadIdx.x;
    double sum = 0;
    for (int64_t i = lane; i < n; i += ESPL_LONG_LANES)
        sum += x[i];
    lanes[lane] = sum;
    for (int half = ESPL_LONG_LANES / 2; half > 0; half /= 2) {
        __syncthreads();
        if (lane < half)
            lanes[lane] += lanes[lane + half];
    }
    return lanes[0];
}

#endif
