/* The language of kernels for a C++ compiler: what is CUDA's own syntax vanishes or becomes a call of the emulated multiprocessor. */
#ifndef ESPL_TESTS_EMU_SIMT_H
#define ESPL_TESTS_EMU_SIMT_H

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__

#include "tests/emu/simt/device_math.h"
#include "tests/emu/simt/machine.h"
#include "tests/emu/simt/memory_ops.h"
#include "tests/emu/simt/simt_launch.h"
#include "tests/emu/simt/vector_types.h"
#include "tests/emu/simt/warp_ops.h"

#define threadIdx (simt::now.thread->index)
#define blockIdx (simt::now.block)
#define blockDim (simt::now.block_dim)
#define gridDim (simt::now.grid_dim)
#define warpSize 32

#endif
