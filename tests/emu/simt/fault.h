/* Faults of the emulated device and what the runtime returns for them. As on a GPU, a fault of a kernel is sticky: no kernel runs after it,
 * and every call that could tell of it does; a launch that is not possible is told once. Each is told in full on stderr. */
#ifndef ESPL_TESTS_EMU_SIMT_FAULT_H
#define ESPL_TESTS_EMU_SIMT_FAULT_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Local. A kernel did something wrong. The first 20 are printed, with the kernel, block and thread under way. */
void emu_fault(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Local. Remembers an error that is not sticky, for cudaGetLastError; returns it. */
cudaError_t emu_note_error(cudaError_t error);
/* Local. The sticky error, else the last one, else cudaSuccess; `forget` drops the last one. */
cudaError_t emu_last_error(int forget);
/* Local. The sticky error or cudaSuccess: what synchronizing calls return. */
cudaError_t emu_sticky_error(void);
/* Local. As if the device had been reset; for tests of the checkers. */
void emu_forget_faults(void);

#ifdef __cplusplus
}
#endif

#endif
