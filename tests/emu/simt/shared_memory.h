/* Shared memory of the block that runs: one arena, arrays with red zones between them, poisoned at the start of every block. */
#ifndef ESPL_TESTS_EMU_SIMT_SHARED_MEMORY_H
#define ESPL_TESTS_EMU_SIMT_SHARED_MEMORY_H

#include <stddef.h>

namespace simt {

constexpr size_t shared_arena_bytes = 512 * 1024;
void *shared_arena();
/* Begins a block with that much dynamic shared memory. */
void shared_begin(size_t dynamic_bytes);
/* Faults: a red zone was written to. */
void shared_end();

} // namespace simt

#endif
