/* Bounds of device memory in the builds that do not follow accesses; the race build has its own (race_checker.cpp). */
#ifndef EMU_RACE
#include "tests/emu/simt/device_memory.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

void emu_memory_begins(void *memory, size_t bytes, size_t room) {
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(static_cast<char *>(memory) + bytes, room - bytes);
#else
    (void)memory, (void)bytes, (void)room;
#endif
}

void emu_memory_ends(void *memory, size_t room) {
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(memory, room);
#else
    (void)memory, (void)room;
#endif
}

void emu_memory_written(void *, size_t) {}
#endif
