/* Atomics, fences and loads and stores with cache hints. Atomics on floats are left out on purpose: their sums depend on the order in which
 * threads come. */
#ifndef ESPL_TESTS_EMU_SIMT_MEMORY_OPS_H
#define ESPL_TESTS_EMU_SIMT_MEMORY_OPS_H

#include "tests/emu/simt/machine.h"

#include <type_traits>

template <class T> inline T atomicAdd(T *memory, std::common_type_t<T> value) {
    return simt::atomic(simt::atomic_kind::add, memory, value);
}
template <class T> inline T atomicMin(T *memory, std::common_type_t<T> value) {
    return simt::atomic(simt::atomic_kind::min, memory, value);
}
template <class T> inline T atomicMax(T *memory, std::common_type_t<T> value) {
    return simt::atomic(simt::atomic_kind::max, memory, value);
}
template <class T> inline T atomicAnd(T *memory, std::common_type_t<T> value) {
    return simt::atomic(simt::atomic_kind::bit_and, memory, value);
}
template <class T> inline T atomicOr(T *memory, std::common_type_t<T> value) {
    return simt::atomic(simt::atomic_kind::bit_or, memory, value);
}
template <class T> inline T atomicExch(T *memory, std::common_type_t<T> value) {
    return simt::atomic(simt::atomic_kind::exchange, memory, value);
}
template <class T> inline T atomicCAS(T *memory, std::common_type_t<T> expected, std::common_type_t<T> value) {
    return simt::atomic_compare_and_swap(memory, expected, value);
}

inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

template <class T> inline T __ldg(const T *memory) { return *memory; }
template <class T> inline T __ldca(const T *memory) { return *memory; }
template <class T> inline T __ldcg(const T *memory) { return *memory; }
template <class T> inline T __ldcs(const T *memory) { return *memory; }
template <class T> inline T __ldlu(const T *memory) { return *memory; }
template <class T> inline void __stcg(T *memory, std::common_type_t<T> value) { *memory = value; }
template <class T> inline void __stcs(T *memory, std::common_type_t<T> value) { *memory = value; }
template <class T> inline void __stwb(T *memory, std::common_type_t<T> value) { *memory = value; }
template <class T> inline void __stwt(T *memory, std::common_type_t<T> value) { *memory = value; }

#endif
