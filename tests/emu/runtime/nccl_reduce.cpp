/* NCCL: element types and how two elements become one. */
#include "tests/emu/runtime/nccl_comm.h"

#include <cmath>
#include <cstring>

namespace nc {

size_t size_of(ncclDataType_t type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return type >= 0 && (size_t)type < sizeof sizes / sizeof *sizes ? sizes[type] : 0;
}

bool can_reduce(ncclDataType_t type) { return size_of(type) > 0 && type != ncclFloat16; }

namespace {

struct bf16 {
    uint16_t bits;
    bf16() = default;
    explicit bf16(float x) {
        uint32_t all;
        memcpy(&all, &x, sizeof all);
        bits = x != x ? 0x7fffu : (uint16_t)((all + 0x7fffu + (all >> 16 & 1)) >> 16); /* to the nearest, ties to even */
    }
    operator float() const {
        uint32_t all = (uint32_t)bits << 16;
        float x;
        memcpy(&x, &all, sizeof x);
        return x;
    }
};

template <class T> T combine(T a, T b, ncclRedOp_t op) {
    switch (op) {
    case ncclProd: return (T)(a * b);
    case ncclMax: return a < b ? b : a;
    case ncclMin: return b < a ? b : a;
    default: return (T)(a + b);
    }
}

/* Of a type; bf16 is rounded at every step, as on GPUs. */
template <class F> void with_type(ncclDataType_t type, F &&use) {
    switch (type) {
    case ncclInt8: return use(int8_t{});
    case ncclUint8: return use(uint8_t{});
    case ncclInt32: return use(int32_t{});
    case ncclUint32: return use(uint32_t{});
    case ncclInt64: return use(int64_t{});
    case ncclUint64: return use(uint64_t{});
    case ncclFloat32: return use(float{});
    case ncclFloat64: return use(double{});
    case ncclBfloat16: return use(bf16{});
    default: return;
    }
}

} // namespace

void reduce(void *to, const void *from, size_t count, ncclDataType_t type, ncclRedOp_t op) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        auto *a = static_cast<T *>(to);
        auto *b = static_cast<const T *>(from);
        for (size_t i = 0; i < count; i++)
            a[i] = combine(a[i], b[i], op);
    });
}

void divide(void *to, size_t count, ncclDataType_t type, int by) {
    with_type(type, [&](auto zero) {
        using T = decltype(zero);
        auto *a = static_cast<T *>(to);
        for (size_t i = 0; i < count; i++)
            a[i] = (T)(a[i] / (T)by);
    });
}

} // namespace nc
