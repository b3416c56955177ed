/* What the race build must know of device memory that the runtime hands out; in other builds only its bounds matter, to ASan. */
#ifndef ESPL_TESTS_EMU_SIMT_DEVICE_MEMORY_H
#define ESPL_TESTS_EMU_SIMT_DEVICE_MEMORY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Local. From now on kernels may use memory[0 .. bytes), which nobody has written yet; `room` >= bytes belongs to it, and what is beyond
 * bytes is out of bounds. */
void emu_memory_begins(void *memory, size_t bytes, size_t room);
/* Local. No longer. */
void emu_memory_ends(void *memory, size_t room);
/* Local. A copy, a fill or a library has written here. */
void emu_memory_written(void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
