/* The emulated side of kernels/cuda/prims.cuh: asynchronous copies and matrix instructions, with the fragment layouts of the PTX manual
 * ("Matrix Fragments for mma.m16n8k16", "ldmatrix"). All are made by whole warps; a divergent one is a fault, as is an address that is
 * not in shared memory or not aligned. */
#ifndef ESPL_TESTS_EMU_PRIMS_H
#define ESPL_TESTS_EMU_PRIMS_H

#include "tests/emu/simt/simt.h"

namespace simt {
void ldmatrix(uint32_t (&r)[4], const void *row, bool transposed, place at);
void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, place at);
} // namespace simt

inline void cp_async16(void *to, const void *from, bool valid, EMU_AT) { simt::async_copy(to, from, valid, at); }
inline void cp_async_commit() { simt::async_commit(); }
template <int N> inline void cp_async_wait() { simt::async_wait(N); }
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, EMU_AT) { simt::ldmatrix(r, row, false, at); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row, EMU_AT) { simt::ldmatrix(r, row, true, at); }
inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMU_AT) { simt::mma_bf16(d, a, b0, b1, at); }

#endif
