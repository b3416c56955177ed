/* The emulated streams, as the emulated device sees them. */
#ifndef ESPL_TESTS_EMU_RUNTIME_STREAM_H
#define ESPL_TESTS_EMU_RUNTIME_STREAM_H

#include <cuda_runtime_api.h>
#include <functional>

/* Local. Puts work behind what is on `stream`, or into the graph that it records; `what` names it in messages and lives as long as the
 * program. It runs when the schedule says so, at most once at a time, and again at every launch of the graph. */
void emu_enqueue(cudaStream_t stream, const char *what, std::function<void()> work);

#endif
