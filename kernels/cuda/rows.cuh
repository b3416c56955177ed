/* Stretches of N elements of a row: N = 1, or what 16 bytes of `real` hold. */
#ifndef ESPL_KERNELS_CUDA_ROWS_CUH
#define ESPL_KERNELS_CUDA_ROWS_CUH

#include "kernels/cuda/prims.cuh"

template <class T, int N> __device__ __forceinline__ void load_stretch(const T *from, float (&x)[N]) {
    if constexpr (N == 1)
        x[0] = reals<T>::load(from);
    else
        reals<T>::load(from, x);
}

template <class T, int N> __device__ __forceinline__ void store_stretch(T *to, const float (&x)[N]) {
    if constexpr (N == 1)
        reals<T>::store(to, x[0]);
    else
        reals<T>::store(to, x);
}

/* A number as T holds it. */
template <class T> __device__ __forceinline__ float as_stored(float x) {
    T stored;
    reals<T>::store(&stored, x);
    return reals<T>::load(&stored);
}

/* Writes it, or adds it to what is there. */
template <class T, int N> __device__ __forceinline__ void put_stretch(T *to, float (&x)[N], bool add) {
    float there[N];
    if (add) {
        load_stretch(to, there);
#pragma unroll
        for (int i = 0; i < N; i++)
            x[i] += there[i];
    }
    store_stretch(to, x);
}

/* The same for floats, as many as a stretch of real has. */
template <int N> __device__ __forceinline__ void load_floats(const float *from, float (&x)[N]) {
    if constexpr (N == 1) {
        x[0] = *from;
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 four = *reinterpret_cast<const float4 *>(from + i);
            x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
        }
    }
}

template <int N> __device__ __forceinline__ void store_floats(float *to, const float (&x)[N]) {
    if constexpr (N == 1) {
        *to = x[0];
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            *reinterpret_cast<float4 *>(to + i) = make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]);
    }
}

/* Floats rounded to T. */
template <class T, int N> __device__ __forceinline__ void store_narrow(T *to, const float (&x)[N]) {
    if constexpr (sizeof(T) == sizeof(float)) {
        store_floats(to, x);
    } else if constexpr (N == 1) {
        reals<T>::store(to, x[0]);
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4)
            *reinterpret_cast<uint2 *>(to + i) = make_uint2(bf16_pack(x[i], x[i + 1]), bf16_pack(x[i + 2], x[i + 3]));
    }
}

/* Whether all of them may be read 16 bytes at a time; NULL may. */
template <class... P> static inline bool aligned16(const P *...pointer) { return (((uintptr_t)pointer | ...) % 16) == 0; }

/* Whether rows of `width` elements of T are whole stretches of 16 bytes. */
template <class T> static inline bool whole_stretches(int64_t width) { return width % reals<T>::vector == 0; }

static inline int64_t pieces_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* How blocks cover rows of stretches: block b has stretches threads * (b % panels) .. of row b / panels. */
struct panel_grid {
    unsigned threads, panels;
};

static inline panel_grid panel_grid_of(int64_t stretches, unsigned most_threads) {
    unsigned whole_warps = (unsigned)pieces_of(stretches, 32) * 32, threads = whole_warps < most_threads ? whole_warps : most_threads;
    return {threads, (unsigned)pieces_of(stretches, threads)};
}

#endif
