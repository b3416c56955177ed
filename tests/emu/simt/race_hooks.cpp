/* What code compiled with -fsanitize=thread calls. The race build is compiled so, but linked with these instead of the sanitizer's
 * library: its happens-before of host threads says nothing of barriers of a block. */
#ifdef EMU_RACE
#include "tests/emu/simt/checker.h"

#define EMU_HOOKS(bytes)                                                                                                                   \
    void __tsan_read##bytes(void *memory) { simt::check_aligned_access(memory, bytes, simt::access::read, EMU_CALLER); }                   \
    void __tsan_write##bytes(void *memory) { simt::check_aligned_access(memory, bytes, simt::access::write, EMU_CALLER); }                 \
    void __tsan_unaligned_read##bytes(void *memory) { simt::check_access(memory, bytes, simt::access::read, EMU_CALLER); }                 \
    void __tsan_unaligned_write##bytes(void *memory) { simt::check_access(memory, bytes, simt::access::write, EMU_CALLER); }

extern "C" {
EMU_HOOKS(1)
EMU_HOOKS(2)
EMU_HOOKS(4)
EMU_HOOKS(8)
EMU_HOOKS(16)
void __tsan_read_range(void *memory, size_t bytes) { simt::check_access(memory, bytes, simt::access::read, EMU_CALLER); }
void __tsan_write_range(void *memory, size_t bytes) { simt::check_access(memory, bytes, simt::access::write, EMU_CALLER); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
#endif
