/* Shuffles, votes and barriers. A shuffle from a lane outside the mask is a fault: on a GPU its value is undefined. */
#ifndef ESPL_TESTS_EMU_SIMT_WARP_OPS_H
#define ESPL_TESTS_EMU_SIMT_WARP_OPS_H

#include "tests/emu/simt/machine.h"

#include <string.h>

namespace simt {

/* What the lane `from` of the same warp brings, for values of up to 8 bytes. */
uint64_t shuffle(uint32_t mask, uint64_t bits, int from, place at);

template <class T> inline T shuffle_value(uint32_t mask, T value, int from, place at) {
    static_assert(sizeof(T) <= 8, "shuffles take up to 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shuffle(mask, bits, from, at);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The lane itself when `from` lies outside its own group of `width` lanes. */
inline int within(int from, int width) {
    int lane = (int)now.thread->lane;
    return from >= 0 && from / width == lane / width ? from : lane;
}

uint32_t vote(uint32_t mask, bool predicate, place at);

enum class reduction { add, min, max, bit_and, bit_or, bit_xor };
template <class T> T reduce(uint32_t mask, reduction kind, T value, place at); /* int, unsigned */
uint32_t match_any(uint32_t mask, uint64_t value, place at);

} // namespace simt

#define EMU_AT simt::place at = simt::place::here()

inline void __syncthreads(EMU_AT) { simt::barrier(false, at); }
inline int __syncthreads_count(int predicate, EMU_AT) { return simt::barrier(predicate != 0, at).yes; }
inline int __syncthreads_or(int predicate, EMU_AT) { return simt::barrier(predicate != 0, at).yes > 0; }
inline int __syncthreads_and(int predicate, EMU_AT) {
    simt::votes votes = simt::barrier(predicate != 0, at);
    return votes.yes == votes.threads;
}
inline void __syncwarp(unsigned mask = simt::full_mask, EMU_AT) {
    char nothing = 0;
    simt::meet(
        mask, simt::meeting::sync_warp, &nothing, [](void *const *, uint32_t) {}, at);
}

template <class T> inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMU_AT) {
    int first = (int)simt::now.thread->lane / width * width;
    return simt::shuffle_value(mask, value, first + (lane & (width - 1)), at);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, EMU_AT) {
    int lane = (int)simt::now.thread->lane, from = lane ^ lane_mask;
    return simt::shuffle_value(mask, value, from / width <= lane / width ? from : lane, at);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_AT) {
    return simt::shuffle_value(mask, value, simt::within((int)(simt::now.thread->lane + delta), width), at);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMU_AT) {
    return simt::shuffle_value(mask, value, simt::within((int)simt::now.thread->lane - (int)delta, width), at);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, EMU_AT) { return simt::vote(mask, predicate != 0, at); }
inline int __any_sync(unsigned mask, int predicate, EMU_AT) { return simt::vote(mask, predicate != 0, at) != 0; }
inline int __all_sync(unsigned mask, int predicate, EMU_AT) { return simt::vote(mask, predicate == 0, at) == 0; }

template <class T> inline unsigned __match_any_sync(unsigned mask, T value, EMU_AT) { return simt::match_any(mask, (uint64_t)value, at); }
template <class T> inline T __reduce_add_sync(unsigned mask, T value, EMU_AT) {
    return simt::reduce(mask, simt::reduction::add, value, at);
}
template <class T> inline T __reduce_min_sync(unsigned mask, T value, EMU_AT) {
    return simt::reduce(mask, simt::reduction::min, value, at);
}
template <class T> inline T __reduce_max_sync(unsigned mask, T value, EMU_AT) {
    return simt::reduce(mask, simt::reduction::max, value, at);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value, EMU_AT) { return simt::reduce(mask, simt::reduction::bit_and, value, at); }
inline unsigned __reduce_or_sync(unsigned mask, unsigned value, EMU_AT) { return simt::reduce(mask, simt::reduction::bit_or, value, at); }
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value, EMU_AT) { return simt::reduce(mask, simt::reduction::bit_xor, value, at); }

#endif
