/* Weights as an update reads and writes them: fp32; bf16 beside a master; or bf16 alone, rounded stochastically (rules.h). CALL has weight,
 * master, rng and first of an espl_rule_step. */
#ifndef ESPL_KERNELS_CUDA_WEIGHTS_CUH
#define ESPL_KERNELS_CUDA_WEIGHTS_CUH

#include "kernels/cuda/prims.cuh"

template <class T, bool MASTER, class CALL> __device__ __forceinline__ float load_weight(const CALL &s, int64_t at) {
    if constexpr (MASTER)
        return s.master[at];
    else
        return reals<T>::load(static_cast<const T *>(s.weight) + at);
}

template <class T, bool MASTER, class CALL> __device__ __forceinline__ void store_weight(const CALL &s, int64_t at, float w) {
    T *weight = static_cast<T *>(s.weight) + at;
    if constexpr (MASTER)
        s.master[at] = w;
    if constexpr (MASTER || sizeof(T) == sizeof(float))
        reals<T>::store(weight, w);
    else
        *weight = __ushort_as_bfloat16(espl_bf16_from_float_noisy(w, espl_rng_u16(&s.rng, s.first + (uint64_t)at)));
}

#endif
