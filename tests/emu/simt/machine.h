/* The emulated multiprocessor as device code sees it: who runs, and the three ways in which threads meet.
 *
 * Every CUDA thread is a fiber; one runs at a time, until it has to wait for others. Blocks run one after another. */
#ifndef ESPL_TESTS_EMU_SIMT_MACHINE_H
#define ESPL_TESTS_EMU_SIMT_MACHINE_H

#include "tests/emu/simt/vector_types.h"

#include <stddef.h>
#include <stdint.h>

namespace simt {

constexpr int warp_size = 32, max_threads = 1024, max_warps = max_threads / warp_size;
constexpr uint32_t full_mask = 0xffffffffu;

/* Where device code stands. As a default argument it is the place of the call. */
struct place {
    const char *file;
    int line;
    static constexpr place here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

struct thread {
    uint3 index;
    unsigned linear, lane, warp;
};

struct position {
    simt::thread *thread; /* NULL outside kernels */
    uint3 block;
    dim3 block_dim, grid_dim;
};

extern position now;

enum class meeting { none, sync_warp, shuffle, vote, reduce, match, mma, ldmatrix, barrier };

/* All lanes of `mask` meet; the last to arrive runs `work` on what each lane of it brought (argument[lane]), then all go on. Faults: a lane
 * outside its own mask, lanes that have left the kernel, masks or operations that differ. */
using warp_work = void (*)(void *const *argument, uint32_t mask);
void meet(uint32_t mask, meeting kind, void *argument, warp_work work, place at);

/* All threads of the block that have not left the kernel meet; over their predicates: how many were true. Faults: threads at other places.
 */
struct votes {
    int threads, yes;
};
votes barrier(bool predicate, place at);

/* The block's shared memory. An array is known by `key`, the same for all threads; it holds NaNs until written. Faults: above 48 KiB. */
void *shared_array(const void *key, size_t bytes, size_t alignment, const char *name);
/* The launch's dynamic shared memory. Faults: a launch with none. */
void *shared_dynamic();
bool is_shared(const void *memory, size_t bytes);

/* Tells the checker of the race build of accesses that the compiler does not see; nothing in other builds. */
void note_read(const void *memory, size_t bytes);

/* Copies of 16 bytes from global to shared memory that need not be there before a wait; `valid` false writes zeros. */
void async_copy(void *to, const void *from, bool valid, place at);
void async_commit();
void async_wait(int groups_left);

enum class atomic_kind { add, min, max, bit_and, bit_or, exchange };
/* For int, unsigned and unsigned long long; what was there before. */
template <class T> T atomic(atomic_kind kind, T *memory, T value);
template <class T> T atomic_compare_and_swap(T *memory, T expected, T value);

/* What a run did, for tests. */
struct counters {
    uint64_t switches, blocks, barriers, meetings, mma, ldmatrix, bank_conflicts;
};
extern counters counted;

} // namespace simt

#endif
