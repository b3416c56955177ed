#include "tests/emu/simt/memory_ops.h"
#include "tests/emu/simt/checker.h"

#include <algorithm>

namespace simt {

void note_read(const void *memory, size_t bytes) { check_access(memory, bytes, access::read, EMU_CALLER); }

template <class T> T atomic(atomic_kind kind, T *memory, T value) {
    check_access(memory, sizeof(T), access::atomic, EMU_CALLER);
    T before = *memory;
    switch (kind) {
    case atomic_kind::add: *memory = (T)((unsigned long long)before + (unsigned long long)value); break;
    case atomic_kind::min: *memory = std::min(before, value); break;
    case atomic_kind::max: *memory = std::max(before, value); break;
    case atomic_kind::bit_and: *memory = before & value; break;
    case atomic_kind::bit_or: *memory = before | value; break;
    case atomic_kind::exchange: *memory = value; break;
    }
    return before;
}

template <class T> T atomic_compare_and_swap(T *memory, T expected, T value) {
    check_access(memory, sizeof(T), access::atomic, EMU_CALLER);
    T before = *memory;
    if (before == expected)
        *memory = value;
    return before;
}

template int atomic(atomic_kind, int *, int);
template unsigned atomic(atomic_kind, unsigned *, unsigned);
template unsigned long long atomic(atomic_kind, unsigned long long *, unsigned long long);
template int atomic_compare_and_swap(int *, int, int);
template unsigned atomic_compare_and_swap(unsigned *, unsigned, unsigned);
template unsigned long long atomic_compare_and_swap(unsigned long long *, unsigned long long, unsigned long long);

} // namespace simt
