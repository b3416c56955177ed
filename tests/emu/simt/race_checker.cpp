/* The checker of the race build. Blocks run one after another and one thread runs at a time, so there is one clock for all: it is advanced
 * where a launch, a block or a phase between barriers begins, and an access is known by the time and the thread. Two accesses of a byte,
 * one of them a write, are ordered if the earlier belongs to an earlier launch, or to the same block before its last barrier, or to the
 * same warp before its last __syncwarp, or to the same thread. Other orders of memory are not known here: fences, flags, atomics as locks.
 */
#ifdef EMU_RACE
#include "tests/emu/simt/block.h"
#include "tests/emu/simt/checker.h"
#include "tests/emu/simt/device_memory.h"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/shared_memory.h"

#include <algorithm>
#include <dlfcn.h>
#include <link.h>
#include <map>
#include <set>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <sys/mman.h>

namespace simt {

enum readers : unsigned { one_thread, one_warp, many_warps, many_blocks };

/* An access: when (0: never), and by which thread of its block; of reads, how many since the last barrier. */
struct stamp {
    uint64_t time : 48, thread : 10, readers : 2, atomic : 1;
};

struct cell {
    stamp write, read;
};

struct region {
    uintptr_t end;
    bool shared;
    std::string name;
    cell *cells;            /* one a byte */
    unsigned char *defined; /* one a byte: somebody has written it */
};

using region_map = std::map<uintptr_t, region>; /* by first byte */
static region_map &regions = *new region_map;   /* never freed: the runtime may still free memory when the program ends */
static region_map::iterator last_found = regions.end();

static uint64_t time_now = 1, launch_time, block_time, barrier_time, warp_time[max_warps];
static std::vector<uint64_t> block_times;  /* of this launch, growing */
static std::vector<uint3> block_positions; /* as block_times */

/* What kernels may read beside device memory: their arguments, and constants of the library. */
static uintptr_t arguments_begin, arguments_end, library_begin, library_end;

static std::set<std::pair<const void *, std::string>> reported;

static std::string source_of(const void *code) {
    Dl_info library;
    char command[1200], line[512] = "";
    if (!dladdr(code, &library) || !library.dli_fname)
        return "?";
    /* The byte before the return address belongs to the call. */
    snprintf(command, sizeof command, "addr2line -e '%s' 0x%zx 2> /dev/null", library.dli_fname,
             (size_t)((uintptr_t)code - (uintptr_t)library.dli_fbase - 1));
    FILE *pipe = popen(command, "r");
    if (pipe) {
        if (fgets(line, sizeof line, pipe))
            line[strcspn(line, "\n")] = '\0';
        pclose(pipe);
    }
    return line;
}

/* Once for every place in the source and kind. */
__attribute__((format(printf, 4, 5))) static void report(const void *code, cudaError_t error, const char *kind, const char *format, ...) {
    if (!reported.insert({code, kind}).second)
        return;
    char text[512];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    emu_fault(error, "%s: %s, at %s", kind, text, source_of(code).c_str());
}

static const char *verb(access kind) { return kind == access::read ? "read" : kind == access::write ? "write" : "atomic operation"; }

static std::string block_at(uint64_t time) {
    auto after = std::upper_bound(block_times.begin(), block_times.end(), time);
    if (after == block_times.begin())
        return "?";
    uint3 block = block_positions[(size_t)(after - block_times.begin()) - 1];
    return "(" + std::to_string(block.x) + ", " + std::to_string(block.y) + ", " + std::to_string(block.z) + ")";
}

static bool ordered(const stamp &earlier, bool shared) {
    const thread &me = *now.thread;
    if (earlier.time < launch_time || (shared && earlier.time < block_time))
        return true;
    if (earlier.time < block_time || earlier.readers == many_blocks)
        return false;
    if (earlier.time < barrier_time)
        return true;
    bool warp_alone = earlier.readers < many_warps && earlier.thread / warp_size == me.warp;
    if (warp_alone && earlier.time < warp_time[me.warp])
        return true;
    return earlier.readers == one_thread && earlier.thread == me.linear;
}

/* After a read by me: who has read since the last barrier. */
static void note_reader(stamp &read, bool shared) {
    const thread &me = *now.thread;
    unsigned readers = one_thread;
    if (!ordered(read, shared))
        readers = read.time < block_time || read.readers == many_blocks             ? many_blocks
                  : read.thread / warp_size == me.warp && read.readers < many_warps ? one_warp
                                                                                    : many_warps;
    read.time = time_now;
    read.thread = me.linear;
    read.readers = readers;
}

struct byte_access {
    const region *in;
    size_t offset;
    access kind;
    const void *code;
};

static bool is_race(const byte_access &a, const cell &c) {
    const stamp *other = nullptr;
    bool both_atomic = a.kind == access::atomic && c.write.atomic;
    if (c.write.time && !both_atomic && !ordered(c.write, a.in->shared))
        other = &c.write;
    else if (a.kind != access::read && c.read.time && !ordered(c.read, a.in->shared))
        other = &c.read;
    if (!other)
        return false;
    report(a.code, cudaErrorLaunchFailure, "race", "%s of byte %zu of %s, after a %s by block %s, thread %u, with no barrier between",
           verb(a.kind), a.offset, a.in->name.c_str(), other == &c.write ? "write" : "read", block_at(other->time).c_str(),
           (unsigned)other->thread);
    return true;
}

/* False when there is something wrong with it. */
static bool check_byte(const byte_access &a) {
    cell &c = a.in->cells[a.offset];
    unsigned char &defined = a.in->defined[a.offset];
    if (is_race(a, c))
        return false;
    if (a.kind != access::write && !defined) {
        report(a.code, cudaErrorLaunchFailure, "uninitialised", "read of byte %zu of %s, which nobody has written", a.offset,
               a.in->name.c_str());
        return false;
    }
    if (a.kind == access::read) {
        note_reader(c.read, a.in->shared);
        return true;
    }
    c.write.time = time_now;
    c.write.thread = now.thread->linear;
    c.write.atomic = a.kind == access::atomic;
    c.read.time = 0;
    defined = 1;
    return true;
}

static bool within(uintptr_t address, uintptr_t begin, uintptr_t end) { return address >= begin && address < end; }

static region_map::iterator region_of(uintptr_t address) {
    if (last_found != regions.end() && within(address, last_found->first, last_found->second.end))
        return last_found;
    auto after = regions.upper_bound(address);
    if (after == regions.begin() || address >= std::prev(after)->second.end)
        return regions.end();
    return last_found = std::prev(after);
}

/* What kernels do to their own stack, arguments and constants is of no interest here. */
static bool is_private(uintptr_t address, access kind) {
    return fiber_owns(reinterpret_cast<const void *>(address)) || within(address, arguments_begin, arguments_end) ||
           (kind == access::read && within(address, library_begin, library_end));
}

static void report_stray(uintptr_t address, size_t bytes, access kind, const void *code) {
    constexpr uintptr_t near = 1 << 16;
    auto after = regions.upper_bound(address);
    if (after != regions.begin() && address - std::prev(after)->second.end < near) {
        const auto &[begin, in] = *std::prev(after);
        report(code, cudaErrorIllegalAddress, "out of bounds", "%s of %zu bytes, %zu bytes behind the end of %s (%zu bytes)", verb(kind),
               bytes, (size_t)(address - in.end), in.name.c_str(), (size_t)(in.end - begin));
    } else if (after != regions.end() && after->first - address < near) {
        report(code, cudaErrorIllegalAddress, "out of bounds", "%s of %zu bytes, %zu bytes before %s", verb(kind), bytes,
               (size_t)(after->first - address), after->second.name.c_str());
    } else {
        report(code, cudaErrorIllegalAddress, "out of bounds", "%s of %zu bytes at %p, which is no device memory", verb(kind), bytes,
               reinterpret_cast<void *>(address));
    }
}

static void check_bytes(const void *memory, size_t bytes, access kind, const void *code) {
    auto address = reinterpret_cast<uintptr_t>(memory);
    auto found = region_of(address);
    if (found == regions.end()) {
        if (!is_private(address, kind))
            report_stray(address, bytes, kind, code);
        return;
    }
    const region &in = found->second;
    size_t offset = address - found->first;
    if (address + bytes > in.end) {
        report(code, cudaErrorIllegalAddress, "out of bounds", "%s of %zu bytes crosses the end of %s (%zu bytes)", verb(kind), bytes,
               in.name.c_str(), (size_t)(in.end - found->first));
        bytes = in.end - address;
    }
    for (size_t i = 0; i < bytes && check_byte({&in, offset + i, kind, code}); i++)
        ;
}

void check_access(const void *memory, size_t bytes, access kind, const void *code) {
    static bool busy; /* what the checker itself calls may have been compiled as kernels are */
    if (!now.thread || busy)
        return;
    busy = true;
    check_bytes(memory, bytes, kind, code);
    busy = false;
}

void check_aligned_access(const void *memory, size_t bytes, access kind, const void *code) {
    if (now.thread && reinterpret_cast<uintptr_t>(memory) % bytes != 0)
        report(code, cudaErrorMisalignedAddress, "misaligned", "%s of %zu bytes at %p", verb(kind), bytes, memory);
    check_access(memory, bytes, kind, code);
}

static void *zeroed(size_t bytes) {
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("emu: no memory to check accesses with");
        abort();
    }
    return memory;
}

static void add_global(void *memory, size_t bytes) {
    static size_t n;
    auto begin = reinterpret_cast<uintptr_t>(memory);
    auto *cells = static_cast<cell *>(zeroed(bytes * sizeof(cell)));
    auto *defined = static_cast<unsigned char *>(zeroed(bytes));
    regions[begin] = {begin + bytes, false, "device memory " + std::to_string(++n), cells, defined};
}

static void remove_global(region_map::iterator which) {
    size_t bytes = which->second.end - which->first;
    munmap(which->second.cells, bytes * sizeof(cell));
    munmap(which->second.defined, bytes);
    last_found = regions.end();
    regions.erase(which);
}

/* What is known of shared memory is kept for the whole arena: what a block left there is older than the next block. */
void check_shared_array(void *memory, size_t bytes, const char *name) {
    static auto *cells = static_cast<cell *>(zeroed(shared_arena_bytes * sizeof(cell)));
    static auto *defined = static_cast<unsigned char *>(zeroed(shared_arena_bytes));
    auto begin = reinterpret_cast<uintptr_t>(memory);
    size_t offset = begin - reinterpret_cast<uintptr_t>(shared_arena());
    memset(defined + offset, 0, bytes);
    regions[begin] = {begin + bytes, true, name, cells + offset, defined + offset};
}

void check_shared_ends() {
    auto begin = reinterpret_cast<uintptr_t>(shared_arena());
    regions.erase(regions.lower_bound(begin), regions.lower_bound(begin + shared_arena_bytes));
    last_found = regions.end();
}

void check_undefined(void *memory, size_t bytes) {
    auto found = region_of(reinterpret_cast<uintptr_t>(memory));
    if (found != regions.end())
        memset(found->second.defined + (reinterpret_cast<uintptr_t>(memory) - found->first), 0, bytes);
}

static int note_library(struct dl_phdr_info *library, size_t, void *kernel) {
    uintptr_t begin = ~(uintptr_t)0, end = 0;
    for (int i = 0; i < library->dlpi_phnum; i++) {
        const ElfW(Phdr) &segment = library->dlpi_phdr[i];
        if (segment.p_type != PT_LOAD)
            continue;
        begin = std::min(begin, (uintptr_t)(library->dlpi_addr + segment.p_vaddr));
        end = std::max(end, (uintptr_t)(library->dlpi_addr + segment.p_vaddr + segment.p_memsz));
    }
    if (!within(reinterpret_cast<uintptr_t>(kernel), begin, end))
        return 0;
    library_begin = begin;
    library_end = end;
    return 1;
}

void check_launch_begins(const void *kernel, const void *arguments, size_t argument_bytes) {
    arguments_begin = reinterpret_cast<uintptr_t>(arguments);
    arguments_end = arguments_begin + argument_bytes;
    dl_iterate_phdr(note_library, const_cast<void *>(kernel));
    launch_time = ++time_now;
    block_times.clear();
    block_positions.clear();
}

void check_block_begins() {
    block_time = barrier_time = ++time_now;
    std::fill(warp_time, warp_time + max_warps, time_now);
    block_times.push_back(time_now);
    block_positions.push_back(now.block);
}

void check_barrier() { barrier_time = ++time_now; }

void check_warp_barrier(unsigned warp) { warp_time[warp] = ++time_now; }

} // namespace simt

void emu_memory_begins(void *memory, size_t bytes, size_t) { simt::add_global(memory, bytes); }

void emu_memory_ends(void *memory, size_t) {
    auto found = simt::regions.find(reinterpret_cast<uintptr_t>(memory));
    if (found != simt::regions.end())
        simt::remove_global(found);
}

void emu_memory_written(void *memory, size_t bytes) {
    auto found = simt::region_of(reinterpret_cast<uintptr_t>(memory));
    if (found != simt::regions.end())
        memset(found->second.defined + (reinterpret_cast<uintptr_t>(memory) - found->first), 1, bytes);
}
#endif
