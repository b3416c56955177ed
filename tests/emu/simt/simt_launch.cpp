#include "tests/emu/simt/simt_launch.h"
#include "tests/emu/simt/block.h"
#include "tests/emu/simt/checker.h"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/simt_schedule.h"
#include "tests/emu/simt/shared_memory.h"

#include <algorithm>
#include <numeric>
#include <stdio.h>
#include <unordered_map>

namespace simt {

static const char *running_kernel = "no kernel";

/* Of kernels that asked for more than shared_default. */
static std::unordered_map<const void *, size_t> &shared_allowed() {
    static std::unordered_map<const void *, size_t> allowed;
    return allowed;
}

const char *kernel_name() { return running_kernel; }

cudaError_t allow_shared(const void *kernel, size_t bytes) {
    if (bytes > shared_most)
        return emu_note_error(cudaErrorInvalidValue);
    shared_allowed()[kernel] = bytes;
    return cudaSuccess;
}

static size_t shared_limit(const void *kernel) {
    auto found = shared_allowed().find(kernel);
    return found == shared_allowed().end() ? shared_default : std::max(shared_default, found->second);
}

bool launch_possible(const launch_shape &shape) {
    const dim3 &grid = shape.grid, &block = shape.block;
    constexpr unsigned most_x = 0x7fffffffu, most_yz = 65535, most_block_z = 64;
    size_t threads = (size_t)block.x * block.y * block.z, limit = shared_limit(shape.kernel);
    if (threads == 0 || threads > max_threads || block.z > most_block_z || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > most_x ||
        grid.y > most_yz || grid.z > most_yz) {
        fprintf(stderr, "emu: launch of %s: grid (%u, %u, %u) of blocks (%u, %u, %u) is not possible\n", shape.name, grid.x, grid.y, grid.z,
                block.x, block.y, block.z);
        emu_note_error(cudaErrorInvalidConfiguration);
        return false;
    }
    if (shape.shared > limit) {
        fprintf(stderr, "emu: launch of %s: %zu bytes of dynamic shared memory, but only %zu are allowed (ESPL_ALLOW_SHARED)\n", shape.name,
                shape.shared, limit);
        emu_note_error(cudaErrorInvalidValue);
        return false;
    }
    return true;
}

/* The blocks 0 .. n-1 in the order in which they are to run. */
static std::vector<unsigned> block_order(size_t n) {
    std::vector<unsigned> blocks(n);
    std::iota(blocks.begin(), blocks.end(), 0u);
    if (schedule().order == order::reverse)
        std::reverse(blocks.begin(), blocks.end());
    for (size_t i = n; schedule().order == order::random && i > 1; i--)
        std::swap(blocks[i - 1], blocks[schedule_random() % i]);
    return blocks;
}

void run(const launch_shape &shape, void (*body)(void *arguments), void *arguments, size_t argument_bytes) {
    if (emu_sticky_error() != cudaSuccess)
        return;
    const dim3 &grid = shape.grid;
    running_kernel = shape.name;
    now.grid_dim = grid;
    now.block_dim = shape.block;
    check_launch_begins(shape.kernel, arguments, argument_bytes);
    for (unsigned linear : block_order((size_t)grid.x * grid.y * grid.z)) {
        now.block = {linear % grid.x, linear / grid.x % grid.y, linear / grid.x / grid.y};
        shared_begin(shape.shared);
        run_block(body, arguments);
        shared_end();
        if (running.abandoned)
            break;
    }
}

} // namespace simt
