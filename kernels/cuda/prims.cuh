/* What kernels share: reductions over warps and blocks, 16-byte vectors of reals, and the instructions that have no C++ form (asynchronous
 * copies, ldmatrix, mma). The emulator brings its own version of the latter. */
#ifndef ESPL_KERNELS_CUDA_PRIMS_CUH
#define ESPL_KERNELS_CUDA_PRIMS_CUH

#include "kernels/cuda/dialect.cuh"

constexpr unsigned ALL_LANES = 0xffffffffu;

/* Reductions over the lanes of a warp, or over the four lanes that hold one row of an mma accumulator; every lane gets the result. Their
 * order is fixed. */
template <class T> __device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int offset = 16; offset; offset >>= 1)
        value += __shfl_xor_sync(ALL_LANES, value, offset);
    return value;
}

template <class T> __device__ __forceinline__ T warp_max(T value) {
#pragma unroll
    for (int offset = 16; offset; offset >>= 1)
        value = max(value, __shfl_xor_sync(ALL_LANES, value, offset));
    return value;
}

__device__ __forceinline__ float quad_sum(float value) {
    value += __shfl_xor_sync(ALL_LANES, value, 1);
    return value + __shfl_xor_sync(ALL_LANES, value, 2);
}

__device__ __forceinline__ float quad_max(float value) {
    value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
    return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

/* Reductions over a one-dimensional block of whole warps; `partial` is shared memory for one value a warp, free again on return. All
 * threads of the block call and get the result. */
template <class T> __device__ __forceinline__ T block_sum(T value, T *partial) {
    value = warp_sum(value);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = value;
    __syncthreads();
    T sum = partial[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++)
        sum += partial[warp];
    __syncthreads();
    return sum;
}

template <class T> __device__ __forceinline__ T block_max(T value, T *partial) {
    value = warp_max(value);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = value;
    __syncthreads();
    T most = partial[0];
    for (unsigned warp = 1; warp < blockDim.x / 32; warp++)
        most = max(most, partial[warp]);
    __syncthreads();
    return most;
}

/* Two bf16 in a word, the low half first. */
__device__ __forceinline__ float bf16_low(uint32_t word) { return __uint_as_float(word << 16); }
__device__ __forceinline__ float bf16_high(uint32_t word) { return __uint_as_float(word & 0xffff0000u); }
__device__ __forceinline__ uint32_t bf16_pack(float low, float high) {
#ifdef __CUDA_ARCH__
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
#else
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(low)) | (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(high)) << 16;
#endif
}

/* Eight bf16 in 16 bytes. */
__device__ __forceinline__ void bf16_unpack8(uint4 packed, float (&value)[8]) {
    value[0] = bf16_low(packed.x), value[1] = bf16_high(packed.x);
    value[2] = bf16_low(packed.y), value[3] = bf16_high(packed.y);
    value[4] = bf16_low(packed.z), value[5] = bf16_high(packed.z);
    value[6] = bf16_low(packed.w), value[7] = bf16_high(packed.w);
}
__device__ __forceinline__ uint4 bf16_pack8(const float (&value)[8]) {
    return make_uint4(bf16_pack(value[0], value[1]), bf16_pack(value[2], value[3]), bf16_pack(value[4], value[5]),
                      bf16_pack(value[6], value[7]));
}

/* Reals of a format in global memory, one or 16 bytes of them at a time; computed with in fp32. Packed words are stored by name of the
 * instruction: a plain store of the four is at times cut into four. */
template <class R> struct reals;

template <> struct reals<float> {
    static constexpr int vector = 4;
    static __device__ __forceinline__ float load(const float *from) { return *from; }
    static __device__ __forceinline__ void store(float *to, float value) { *to = value; }
    static __device__ __forceinline__ void load(const float *from, float (&value)[4]) {
        float4 v = *reinterpret_cast<const float4 *>(from);
        value[0] = v.x, value[1] = v.y, value[2] = v.z, value[3] = v.w;
    }
    static __device__ __forceinline__ void store(float *to, const float (&value)[4]) {
        *reinterpret_cast<float4 *>(to) = make_float4(value[0], value[1], value[2], value[3]);
    }
};

template <> struct reals<__nv_bfloat16> {
    static constexpr int vector = 8;
    static __device__ __forceinline__ float load(const __nv_bfloat16 *from) { return __bfloat162float(*from); }
    static __device__ __forceinline__ void store(__nv_bfloat16 *to, float value) { *to = __float2bfloat16_rn(value); }
    static __device__ __forceinline__ void load(const __nv_bfloat16 *from, float (&value)[8]) {
        bf16_unpack8(*reinterpret_cast<const uint4 *>(from), value);
    }
    static __device__ __forceinline__ void store(__nv_bfloat16 *to, const float (&value)[8]) {
        __stwb(reinterpret_cast<uint4 *>(to), bf16_pack8(value));
    }
};

#ifdef __CUDACC__
__device__ __forceinline__ uint32_t shared_address(const void *memory) { return (uint32_t)__cvta_generic_to_shared(memory); }

/* Starts a copy of 16 bytes from global to shared memory, or of zeros when !valid; both addresses are multiples of 16. What is copied may
 * be read by this thread after the wait, by others after a barrier behind it. */
__device__ __forceinline__ void cp_async16(void *to, const void *from, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(valid ? 16 : 0) : "memory");
}
/* Closes a group of copies. */
__device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most N of this thread's groups are under way. */
template <int N> __device__ __forceinline__ void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

/* Four 8 x 8 matrices of bf16 from shared memory; lane l gives the address of row l % 8 of matrix l / 8. Lane l gets of each the elements
 * 2 (l % 4) and the next of row l / 4, or of column l / 4 when transposed. */
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* d (16 x 8, fp32) += a (16 x 16, bf16, by rows) b (16 x 8, bf16, by columns). With g = lane / 4, t = lane % 4: d[0..1] = row g, columns
 * 2t, 2t+1; d[2..3] = row g+8. a[0] = row g, columns 2t, 2t+1; a[1] = row g+8; a[2], a[3] = the same, columns + 8. b0 = column g, rows 2t,
 * 2t+1; b1 = rows + 8. */
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#else
#include <espl_emu_prims.h>
#endif

#endif
