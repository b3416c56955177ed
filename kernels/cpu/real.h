/* What every file of this folder shares. Each is compiled once for every instruction set (ESPL_ISA: portable, avx2, avx512)
 * and compute format (ESPL_REAL: fp32, bf16); CPU(name) gives what a file exports a name of its own.
 *
 * The compiler may not contract a * b + c (-ffp-contract=off), so fma1() is written wherever one is meant: the vector body
 * and the tail of a loop then give the same bits, wherever the loop is cut. Without FMA in hardware it is two operations.
 * Work is cut into pieces by shape alone; threads take whole pieces, so their number changes no bits. */
#ifndef ESPL_KERNELS_CPU_REAL_H
#define ESPL_KERNELS_CPU_REAL_H

#include "kernels/kernels.h"

#define CPU_PASTE_(name, isa, format) espl__cpu_##name##_##isa##_##format
#define CPU_PASTE(name, isa, format) CPU_PASTE_(name, isa, format)
#define CPU(name) CPU_PASTE(name, ESPL_ISA, ESPL_REAL)

#ifdef ESPL_REAL_BF16
typedef espl_bf16 real;
#define REAL_DTYPE ESPL_BF16
static inline float load(const real *x) { return espl_bf16_to_float(*x); }
static inline void store(real *x, float value) { *x = espl_bf16_from_float(value); }
#else
typedef float real;
#define REAL_DTYPE ESPL_F32
static inline float load(const real *x) { return *x; }
static inline void store(real *x, float value) { *x = value; }
#endif

enum {
    CPU_CHUNK = 4096,  /* elements of one piece of an elementwise kernel */
    CPU_STRETCH = 512, /* floats that a kernel holds on its stack before it stores them */
};

static inline float fma1(float a, float b, float c) {
#ifdef __FMA__
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }
static inline int64_t round_up(int64_t n, int64_t unit) { return pieces(n, unit) * unit; }

/* 16 floats, in as many registers as the instruction set needs; for sums of products in a fixed order. */
enum { LANES16 = 16 };
typedef float lanes16 __attribute__((vector_size(64), aligned(4), may_alias));

static inline void load_lanes(lanes16 *to, const real *x) {
#ifdef ESPL_REAL_BF16
    typedef uint16_t halves __attribute__((vector_size(32), aligned(2), may_alias));
    typedef uint32_t words __attribute__((vector_size(64), may_alias));
    *to = (lanes16)(__builtin_convertvector(*(const halves *)x, words) << 16);
#else
    *to = *(const lanes16 *)x;
#endif
}

static inline float sum_lanes(const lanes16 *x) {
    float lane[LANES16];
    memcpy(lane, x, sizeof lane);
    for (int half = LANES16 / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

/* to[i] = x[i], or added to what is there: the choice stands outside the loops, so that they vectorise. */
static inline void put_row(real *to, const float *x, int64_t n, bool add) {
    if (add) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            store(to + i, load(to + i) + x[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            store(to + i, x[i]);
    }
}

#endif
