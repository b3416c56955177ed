/* The dialect of our kernels: CUDA C++ as it is, but for four macros, so that the same files are compiled by nvcc for GPUs and by a C++
 * compiler over the emulator of tests/emu. Every .cu file includes this first and nothing else of CUDA.
 *
 *   ESPL_SHARED(T, name, [N])       __shared__ T name[N]
 *   ESPL_SHARED_DYN(T, name)        the dynamic shared memory of the launch, 128-byte aligned
 *   ESPL_LAUNCH(kernel, grid, block, shared_bytes, stream, args...)   kernel<<<...>>>(args...); arguments are copied
 *   ESPL_ALLOW_SHARED(kernel, bytes)   allows more than 48 KiB of dynamic shared memory */
#ifndef ESPL_KERNELS_CUDA_DIALECT_CUH
#define ESPL_KERNELS_CUDA_DIALECT_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __CUDACC__
#define ESPL_SHARED(T, name, dims) __shared__ T name dims
#define ESPL_SHARED_DYN(T, name)                                                                                                           \
    extern __shared__ __align__(128) unsigned char espl_dynamic_shared[];                                                                  \
    T *name = reinterpret_cast<T *>(espl_dynamic_shared)
template <class... P, class... A>
static inline void espl_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A &&...args) {
    kernel<<<grid, block, shared, stream>>>(static_cast<P>(args)...);
}
#define ESPL_LAUNCH(kernel, grid, block, shared, stream, ...) espl_launch(kernel, grid, block, shared, stream, __VA_ARGS__)
#define ESPL_ALLOW_SHARED(kernel, bytes)                                                                                                   \
    cudaFuncSetAttribute((const void *)(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes))
#endif /* else the emulator's cuda_runtime.h has brought its own */

#endif
