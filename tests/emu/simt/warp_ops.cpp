#include "tests/emu/simt/warp_ops.h"
#include "tests/emu/simt/fault.h"

#include <algorithm>

namespace simt {

struct shuffled {
    uint64_t brought, got;
    int from;
};

static void do_shuffle(void *const *argument, uint32_t mask) {
    for (int lane = 0; lane < warp_size; lane++) {
        if (!(mask >> lane & 1))
            continue;
        auto *mine = static_cast<shuffled *>(argument[lane]);
        if (mask >> mine->from & 1) {
            mine->got = static_cast<const shuffled *>(argument[mine->from])->brought;
            continue;
        }
        emu_fault(cudaErrorLaunchFailure, "a shuffle: lane %d reads lane %d, which is not in the mask %08x", lane, mine->from, mask);
        mine->got = ~0ull;
    }
}

uint64_t shuffle(uint32_t mask, uint64_t bits, int from, place at) {
    shuffled mine = {bits, 0, from};
    meet(mask, meeting::shuffle, &mine, do_shuffle, at);
    return mine.got;
}

struct ballot {
    bool predicate;
    uint32_t lanes;
};

static void do_vote(void *const *argument, uint32_t mask) {
    uint32_t lanes = 0;
    for (int lane = 0; lane < warp_size; lane++)
        if (mask >> lane & 1 && static_cast<const ballot *>(argument[lane])->predicate)
            lanes |= 1u << lane;
    for (int lane = 0; lane < warp_size; lane++)
        if (mask >> lane & 1)
            static_cast<ballot *>(argument[lane])->lanes = lanes;
}

uint32_t vote(uint32_t mask, bool predicate, place at) {
    ballot mine = {predicate, 0};
    meet(mask, meeting::vote, &mine, do_vote, at);
    return mine.lanes;
}

template <class T> struct reduced {
    T value;
    reduction kind;
};

template <class T> static T combine(reduction kind, T x, T y) {
    switch (kind) {
    case reduction::add: return (T)((unsigned)x + (unsigned)y);
    case reduction::min: return std::min(x, y);
    case reduction::max: return std::max(x, y);
    case reduction::bit_and: return x & y;
    case reduction::bit_or: return x | y;
    case reduction::bit_xor: return x ^ y;
    }
    return x;
}

template <class T> static void do_reduce(void *const *argument, uint32_t mask) {
    int first = __builtin_ctz(mask);
    reduced<T> all = *static_cast<const reduced<T> *>(argument[first]);
    for (int lane = first + 1; lane < warp_size; lane++)
        if (mask >> lane & 1)
            all.value = combine(all.kind, all.value, static_cast<const reduced<T> *>(argument[lane])->value);
    for (int lane = 0; lane < warp_size; lane++)
        if (mask >> lane & 1)
            static_cast<reduced<T> *>(argument[lane])->value = all.value;
}

template <class T> T reduce(uint32_t mask, reduction kind, T value, place at) {
    reduced<T> mine = {value, kind};
    meet(mask, meeting::reduce, &mine, do_reduce<T>, at);
    return mine.value;
}
template int reduce(uint32_t, reduction, int, place);
template unsigned reduce(uint32_t, reduction, unsigned, place);

struct matched {
    uint64_t value;
    uint32_t lanes;
};

static void do_match(void *const *argument, uint32_t mask) {
    for (int lane = 0; lane < warp_size; lane++)
        for (int other = 0; other < warp_size && mask >> lane & 1; other++)
            if (mask >> other & 1 && static_cast<matched *>(argument[lane])->value == static_cast<matched *>(argument[other])->value)
                static_cast<matched *>(argument[lane])->lanes |= 1u << other;
}

uint32_t match_any(uint32_t mask, uint64_t value, place at) {
    matched mine = {value, 0};
    meet(mask, meeting::match, &mine, do_match, at);
    return mine.lanes;
}

} // namespace simt
