/* The checker of the race build: for every byte of device and shared memory who read and wrote it last and whether anyone ever wrote it.
 * The compiler (-fsanitize=thread) calls it at every access of kernels; the host calls it where one phase of a kernel ends and the next
 * begins. In other builds there is nothing behind these names. */
#ifndef ESPL_TESTS_EMU_SIMT_CHECKER_H
#define ESPL_TESTS_EMU_SIMT_CHECKER_H

#include <stddef.h>

namespace simt {

enum class access { read, write, atomic };

#ifdef EMU_RACE
/* `code` is an address in the function that does it. */
void check_access(const void *memory, size_t bytes, access kind, const void *code);
/* As check_access, of a scalar or vector that is aligned to its size. */
void check_aligned_access(const void *memory, size_t bytes, access kind, const void *code);
/* Accesses before are ordered before those after: for all, for one block, for one warp. */
void check_launch_begins(const void *kernel, const void *arguments, size_t argument_bytes);
void check_block_begins();
void check_barrier();
void check_warp_barrier(unsigned warp);
/* Shared memory of the block; all of it ends with the block. */
void check_shared_array(void *memory, size_t bytes, const char *name);
void check_shared_ends();
/* What was written here is gone: reading it is an error until it is written again. */
void check_undefined(void *memory, size_t bytes);
#define EMU_CALLER __builtin_return_address(0)
#else
inline void check_access(const void *, size_t, access, const void *) {}
inline void check_launch_begins(const void *, const void *, size_t) {}
inline void check_block_begins() {}
inline void check_barrier() {}
inline void check_warp_barrier(unsigned) {}
inline void check_shared_array(void *, size_t, const char *) {}
inline void check_shared_ends() {}
inline void check_undefined(void *, size_t) {}
#define EMU_CALLER nullptr
#endif

} // namespace simt

#endif
