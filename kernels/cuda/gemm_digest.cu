#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/state.h"

constexpr int DIGEST_THREADS = 256;

/* The finalizer of SplitMix64 (Steele, Lea, Flood 2014). */
static __device__ __forceinline__ unsigned long long scatter(unsigned long long x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

template <class Bits>
__global__ void __launch_bounds__(DIGEST_THREADS)
    digest_blocks(const Bits *x, int64_t rows, int64_t columns, int64_t ld, unsigned long long *partial) {
    ESPL_SHARED(unsigned long long, of_warps, [DIGEST_THREADS / 32]);
    unsigned long long sum = 0, not_zero = 0;
    for (int64_t i = (int64_t)blockIdx.x * DIGEST_THREADS + threadIdx.x; i < rows * columns; i += (int64_t)gridDim.x * DIGEST_THREADS) {
        Bits bits = x[i / columns * ld + i % columns];
        sum += scatter((unsigned long long)i << 32 ^ bits);
        not_zero += (Bits)(bits << 1) != 0;
    }
    sum = block_sum(sum, of_warps);
    not_zero = block_sum(not_zero, of_warps);
    if (threadIdx.x == 0) {
        partial[2 * blockIdx.x] = sum;
        partial[2 * blockIdx.x + 1] = not_zero;
    }
}

template <class Bits> static void digest(const void *x, int64_t rows, int64_t columns, int64_t ld, int blocks, uint64_t *partial) {
    ESPL_LAUNCH(digest_blocks<Bits>, dim3((unsigned)blocks), dim3(DIGEST_THREADS), 0, espl__cuda->compute, (const Bits *)x, rows, columns,
                ld, (unsigned long long *)partial);
    espl__cuda_note(cudaGetLastError(), "digest of a product");
}

int espl__cuda_digest(const void *x, int64_t element, int64_t rows, int64_t columns, int64_t ld, uint64_t *partial) {
    int blocks = (int)espl__least(pieces_of(rows * columns, 4 * DIGEST_THREADS), ESPL_DIGEST_BLOCKS);
    if (element == 2)
        digest<uint16_t>(x, rows, columns, ld, blocks, partial);
    else
        digest<uint32_t>(x, rows, columns, ld, blocks, partial);
    return blocks;
}
