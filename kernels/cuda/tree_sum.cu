#include "kernels/cuda/dialect.cuh"

#include "kernels/cuda/entries.h"
#include "kernels/cuda/tree_sum.h"

enum { THREADS = 256 };

template <class T> static __device__ inline T plus(T a, T b);
template <> __device__ inline float plus<float>(float a, float b) { return a + b; }
template <> __device__ inline float4 plus<float4>(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

/* Each part is read once. Like a binary counter: open[level] holds the sum of a finished left subtree of 2^level parts, a right subtree of
 * that size is added to it as soon as it is there. */
template <class T> static __global__ void __launch_bounds__(THREADS) tree_sum(T *own, const T *stage, int64_t n, int rank, int size) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n)
        return;
    T open[ESPL_TREE_LEVELS], sum = own[i];
    for (int q = 0; q < size; q++) {
        sum = q == rank ? own[i] : stage[q * n + i];
        int level = 0;
        for (; q >> level & 1; level++)
            sum = plus(open[level], sum);
        open[level] = sum;
    }
    own[i] = sum;
}

template <class T> static void launch(float *own, const float *stage, int64_t n, int rank, int size, cudaStream_t stream) {
    const int64_t blocks = (n + THREADS - 1) / THREADS;
    ESPL_LAUNCH(tree_sum<T>, dim3((unsigned)blocks), dim3(THREADS), 0, stream, (T *)own, (const T *)stage, n, rank, size);
    espl__cuda_note(cudaGetLastError(), "tree_sum");
}

static bool aligned(const void *p) { return (uintptr_t)p % sizeof(float4) == 0; }

void espl__cuda_tree_sum(float *own, const float *stage, int64_t n, int rank, int size, cudaStream_t stream) {
    if (n % 4 == 0 && aligned(own) && aligned(stage))
        launch<float4>(own, stage, n / 4, rank, size, stream);
    else
        launch<float>(own, stage, n, rank, size, stream);
}
