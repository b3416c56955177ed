#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/parts.h"
#include "kernels/cuda/rows.cuh"

/* A thread has N elements: eight, 16 bytes of bf16, where all places allow it, else one. */
enum { THREADS = 256 };

static __device__ inline const __nv_bfloat16 *part_of(const espl_rank_parts &parts, int rank) {
    return reinterpret_cast<const __nv_bfloat16 *>(parts.data) + rank * parts.stride;
}

template <int N>
static __global__ void __launch_bounds__(THREADS) round_all(const espl_rank_parts to, const float *from, int64_t from_stride) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    int rank = (int)blockIdx.y;
    if (i >= to.n || rank == to.rank)
        return;
    float x[N];
    load_floats(from + rank * from_stride + i, x);
    store_stretch(const_cast<__nv_bfloat16 *>(part_of(to, rank)) + i, x);
}

template <int N>
static __device__ inline void load_part(const float *own, const espl_rank_parts &from, int rank, int64_t i, float (&x)[N]) {
    if (rank == from.rank)
        load_floats(own + i, x);
    else
        load_stretch(part_of(from, rank) + i, x);
}

template <int N> static __global__ void __launch_bounds__(THREADS) add_all(float *own, const espl_rank_parts from) {
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (i >= from.n)
        return;
    float sum[N], x[N];
    load_part(own, from, 0, i, sum);
    for (int rank = 1; rank < from.size; rank++) {
        load_part(own, from, rank, i, x);
#pragma unroll
        for (int k = 0; k < N; k++)
            sum[k] += x[k];
    }
    store_floats(own + i, sum);
}

static unsigned blocks_of(int64_t n, int each) { return (unsigned)((n + THREADS * each - 1) / (THREADS * each)); }

/* Whether eights of all parts begin at multiples of 16 bytes; `stride` is that of the floats. */
static bool by_eights(const espl_rank_parts *parts, const float *floats, int64_t stride) {
    return (uintptr_t)parts->data % 16 == 0 && (uintptr_t)floats % 16 == 0 && parts->stride % 8 == 0 && parts->n % 8 == 0 &&
           stride % 4 == 0;
}

void espl__cuda_round_parts_on(const espl_rank_parts *to, const float *from, int64_t from_stride, cudaStream_t stream) {
    const unsigned ranks = (unsigned)to->size;
    if (by_eights(to, from, from_stride))
        ESPL_LAUNCH(round_all<8>, dim3(blocks_of(to->n, 8), ranks), dim3(THREADS), 0, stream, *to, from, from_stride);
    else
        ESPL_LAUNCH(round_all<1>, dim3(blocks_of(to->n, 1), ranks), dim3(THREADS), 0, stream, *to, from, from_stride);
    espl__cuda_note(cudaGetLastError(), "round_parts");
}

void espl__cuda_add_parts_on(float *own, const espl_rank_parts *from, cudaStream_t stream) {
    if (by_eights(from, own, 0))
        ESPL_LAUNCH(add_all<8>, dim3(blocks_of(from->n, 8)), dim3(THREADS), 0, stream, own, *from);
    else
        ESPL_LAUNCH(add_all<1>, dim3(blocks_of(from->n, 1)), dim3(THREADS), 0, stream, own, *from);
    espl__cuda_note(cudaGetLastError(), "add_parts");
}

void espl__cuda_round_parts(const espl_rank_parts *to, const float *from, int64_t from_stride) {
    if (to->n > 0)
        espl__cuda_round_parts_on(to, from, from_stride, espl__cuda->compute);
}

void espl__cuda_add_parts(float *own, const espl_rank_parts *from) {
    if (from->n > 0)
        espl__cuda_add_parts_on(own, from, espl__cuda->compute);
}
