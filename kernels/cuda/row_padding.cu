#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/dialect.cuh"

constexpr int ZERO_THREADS = 128;

/* Words of 4 bytes from row batch->n on; there are none in a full micro-batch. */
__global__ void __launch_bounds__(ZERO_THREADS) zero_padding(const espl__batch *batch, uint32_t *x, int64_t row_words, int64_t words) {
    int64_t step = (int64_t)gridDim.x * ZERO_THREADS;
    for (int64_t i = batch->n * row_words + (int64_t)blockIdx.x * ZERO_THREADS + threadIdx.x; i < words; i += step)
        x[i] = 0;
}

void espl__cuda_zero_padding(const espl__rows *rows, void *x, int64_t row_bytes) {
    constexpr unsigned BLOCKS = 132;
    int64_t row_words = row_bytes / 4;
    ESPL_LAUNCH(zero_padding, dim3(BLOCKS), dim3(ZERO_THREADS), 0, espl__cuda->compute, (const espl__batch *)rows->batch, (uint32_t *)x,
                row_words, rows->tokens * row_words);
    espl__cuda_note(cudaGetLastError(), "zeroing of padding");
}
