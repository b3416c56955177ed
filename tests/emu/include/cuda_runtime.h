/* cuda_runtime.h of the emulated GPU: the runtime's functions for C and C++, and for C++ the language of kernels. */
#ifndef ESPL_TESTS_EMU_CUDA_RUNTIME_H
#define ESPL_TESTS_EMU_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
#include "tests/emu/simt/simt.h"
#endif

#endif
