/* The vector types of CUDA that our code uses, with CUDA's alignment: 16-byte vectors are what coalesced accesses are made of. */
#ifndef ESPL_TESTS_EMU_SIMT_VECTOR_TYPES_H
#define ESPL_TESTS_EMU_SIMT_VECTOR_TYPES_H

#ifdef __cplusplus
#define EMU_INLINE inline
#else
#define EMU_INLINE static inline
#endif

#define EMU_VECTOR_2(T, name, alignment)                                                                                                   \
    typedef struct __attribute__((aligned(alignment))) name {                                                                              \
        T x, y;                                                                                                                            \
    } name;                                                                                                                                \
    EMU_INLINE name make_##name(T x, T y) {                                                                                                \
        name v = {x, y};                                                                                                                   \
        return v;                                                                                                                          \
    }

#define EMU_VECTOR_4(T, name, alignment)                                                                                                   \
    typedef struct __attribute__((aligned(alignment))) name {                                                                              \
        T x, y, z, w;                                                                                                                      \
    } name;                                                                                                                                \
    EMU_INLINE name make_##name(T x, T y, T z, T w) {                                                                                      \
        name v = {x, y, z, w};                                                                                                             \
        return v;                                                                                                                          \
    }

EMU_VECTOR_2(unsigned short, ushort2, 4)
EMU_VECTOR_2(int, int2, 8)
EMU_VECTOR_2(unsigned, uint2, 8)
EMU_VECTOR_2(float, float2, 8)
EMU_VECTOR_2(double, double2, 16)
EMU_VECTOR_2(unsigned long long, ulonglong2, 16)
EMU_VECTOR_4(unsigned short, ushort4, 8)
EMU_VECTOR_4(int, int4, 16)
EMU_VECTOR_4(unsigned, uint4, 16)
EMU_VECTOR_4(float, float4, 16)

typedef struct uint3 {
    unsigned x, y, z;
} uint3;

typedef struct dim3 {
    unsigned x, y, z;
#ifdef __cplusplus
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
#endif
} dim3;

#endif
