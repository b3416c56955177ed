#include "tests/emu/simt/shared_memory.h"
#include "tests/emu/simt/checker.h"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/machine.h"
#include "tests/emu/simt/simt_launch.h"

#include <algorithm>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
constexpr bool asan = true;
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
constexpr bool asan = false;
#endif

namespace simt {

constexpr size_t red_zone = 256, dynamic_alignment = 128;
constexpr unsigned char red = 0xa5;
/* NaN as a float and as each of two bf16, and far out of range as an index. */
constexpr uint32_t poison = 0xffc1ffc1u;

struct array {
    const void *key;
    char *memory;
    size_t bytes;
    const char *name;
};

alignas(4096) static char arena[shared_arena_bytes];
static size_t used, static_bytes;
static std::vector<array> arrays;
static const char dynamic_key = 0;

void *shared_arena() { return arena; }

static void fill_with_poison(char *memory, size_t bytes) {
    for (size_t i = 0; i < bytes; i += sizeof poison)
        memcpy(memory + i, &poison, std::min(sizeof poison, bytes - i));
}

static void *carve(const void *key, size_t bytes, size_t alignment, const char *name) {
    size_t offset = (used + red_zone + alignment - 1) / alignment * alignment;
    if (offset + bytes + red_zone > shared_arena_bytes) {
        fprintf(stderr, "emu: no room for shared array %s of %zu bytes\n", name, bytes);
        abort();
    }
    char *memory = arena + offset;
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    fill_with_poison(memory, bytes);
    if (!asan)
        memset(memory + bytes, red, red_zone);
    check_shared_array(memory, bytes, name);
    arrays.push_back({key, memory, bytes, name});
    used = offset + bytes;
    return memory;
}

void shared_begin(size_t dynamic_bytes) {
    /* All of it: ASan knows the end of an array to the byte only where the rest of its granule was poisoned before. */
    ASAN_POISON_MEMORY_REGION(arena, shared_arena_bytes);
    arrays.clear();
    used = static_bytes = 0;
    if (dynamic_bytes > 0)
        carve(&dynamic_key, dynamic_bytes, dynamic_alignment, "dynamic shared memory");
}

static void check_red_zone(const array &array) {
    for (size_t i = 0; i < red_zone; i++)
        if (static_cast<unsigned char>(array.memory[array.bytes + i]) != red) {
            emu_fault(cudaErrorIllegalAddress, "byte %zu behind the end of %s (%zu bytes) was written to", i, array.name, array.bytes);
            return;
        }
}

void shared_end() {
    for (const array &array : arrays)
        if (!asan)
            check_red_zone(array);
    check_shared_ends();
}

void *shared_array(const void *key, size_t bytes, size_t alignment, const char *name) {
    for (const array &array : arrays)
        if (array.key == key)
            return array.memory;
    static_bytes += bytes;
    if (static_bytes > shared_default)
        emu_fault(cudaErrorLaunchFailure, "%zu bytes of static shared memory with %s; at most %zu are possible", static_bytes, name,
                  shared_default);
    return carve(key, bytes, std::max<size_t>(alignment, 16), name);
}

void *shared_dynamic() {
    if (!arrays.empty() && arrays.front().key == &dynamic_key)
        return arrays.front().memory;
    emu_fault(cudaErrorIllegalAddress, "dynamic shared memory is used, but the launch has none");
    return carve(&dynamic_key, red_zone, dynamic_alignment, "dynamic shared memory");
}

bool is_shared(const void *memory, size_t bytes) {
    const char *first = static_cast<const char *>(memory);
    return std::any_of(arrays.begin(), arrays.end(),
                       [=](const array &array) { return first >= array.memory && first + bytes <= array.memory + array.bytes; });
}

} // namespace simt
