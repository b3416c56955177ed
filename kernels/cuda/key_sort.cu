/* A radix sort from the lowest digit (Knuth 1998, 5.2.5), stable: each pass counts the digits of tiles, turns counts into places, and
 * moves. A warp takes a tile; tokens of a tile that share a digit find their order among each other by votes. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/key_sort.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda_rows_work.h"

enum { TILE = ESPL_SORT_TILE, RADIX = ESPL_SORT_RADIX, TILE_WARPS = 4, SCAN_WARPS = 32 };

struct sort_pass {
    const int32_t *keys, *from; /* from NULL: the first pass, tokens in their own order */
    int32_t *to, *sorted_keys;  /* sorted_keys: of the last pass, else NULL */
    int32_t *counts;            /* [digit][tile] */
    const espl__batch *batch;
    int first, n_keys, rows, tiles, shift, bits;
};

struct sort_item {
    int token, key, digit;
};

/* What lies at a place before the pass. */
__device__ __forceinline__ sort_item sort_item_at(const sort_pass &s, int place) {
    sort_item item = {0, 0, 0};
    if (place < s.rows) {
        item.token = s.from ? s.from[place] : place;
        item.key = item.token < s.batch->n ? (int)min((unsigned)(s.keys[item.token] - s.first), (unsigned)s.n_keys) : s.n_keys;
        item.digit = item.key >> s.shift & ((1 << s.bits) - 1);
    }
    return item;
}

__global__ void __launch_bounds__(TILE_WARPS * 32) sort_count(sort_pass s) {
    ESPL_SHARED(int, counts, [TILE_WARPS][RADIX]);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, tile = (int)blockIdx.x * TILE_WARPS + warp;
    if (tile >= s.tiles)
        return;
    for (int d = lane; d < 1 << s.bits; d += 32)
        counts[warp][d] = 0;
    __syncwarp();
    for (int place = tile * TILE + lane; place < min((tile + 1) * TILE, s.rows); place += 32)
        atomicAdd(&counts[warp][sort_item_at(s, place).digit], 1);
    __syncwarp();
    for (int d = lane; d < 1 << s.bits; d += 32)
        s.counts[d * s.tiles + tile] = counts[warp][d];
}

/* The sum of `value` over lower lanes. */
__device__ __forceinline__ int sum_below(int value) {
    int lane = (int)threadIdx.x % 32, sum = value;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        int below = __shfl_up_sync(ALL_LANES, sum, offset);
        sum += lane >= offset ? below : 0;
    }
    return sum - value;
}

/* Counts become the number of all before them: one block, a stretch a warp. */
__global__ void __launch_bounds__(SCAN_WARPS * 32) sort_scan(int32_t *counts, int n) {
    ESPL_SHARED(int, totals, [SCAN_WARPS]);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    int stretch = (n + SCAN_WARPS * 32 - 1) / (SCAN_WARPS * 32) * 32, begin = warp * stretch, end = min(begin + stretch, n), sum = 0;
    for (int i = begin + lane; i < end; i += 32)
        sum += counts[i];
    sum = warp_sum(sum);
    if (lane == 0)
        totals[warp] = sum;
    __syncthreads();
    int before = __shfl_sync(ALL_LANES, sum_below(totals[lane]), warp);
    for (int i = begin; i < end; i += 32) {
        int count = i + lane < end ? counts[i + lane] : 0, below = sum_below(count);
        if (i + lane < end)
            counts[i + lane] = before + below;
        before += __shfl_sync(ALL_LANES, below + count, 31);
    }
}

/* The lanes among `active` that hold the same digit. */
__device__ __forceinline__ unsigned lanes_alike(int digit, int bits, unsigned active) {
    unsigned alike = active;
    for (int bit = 0; bit < bits; bit++) {
        unsigned set = __ballot_sync(ALL_LANES, digit >> bit & 1);
        alike &= digit >> bit & 1 ? set : ~set;
    }
    return alike;
}

__global__ void __launch_bounds__(TILE_WARPS * 32) sort_move(sort_pass s) {
    ESPL_SHARED(int, next, [TILE_WARPS][RADIX]);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, tile = (int)blockIdx.x * TILE_WARPS + warp;
    if (tile >= s.tiles)
        return;
    for (int d = lane; d < 1 << s.bits; d += 32)
        next[warp][d] = s.counts[d * s.tiles + tile];
    __syncwarp();
    for (int first = tile * TILE; first < min((tile + 1) * TILE, s.rows); first += 32) {
        bool active = first + lane < s.rows;
        sort_item item = sort_item_at(s, first + lane);
        unsigned alike = lanes_alike(item.digit, s.bits, __ballot_sync(ALL_LANES, active)), lower = alike & ((1u << lane) - 1);
        if (active) {
            int place = next[warp][item.digit] + __popc(lower);
            s.to[place] = item.token;
            if (s.sorted_keys)
                s.sorted_keys[place] = item.key;
        }
        __syncwarp();
        if (active && lower == 0)
            next[warp][item.digit] += __popc(alike);
        __syncwarp();
    }
}

static void sort_once(const sort_pass &s) {
    unsigned blocks = (unsigned)pieces_of(s.tiles, TILE_WARPS);
    ESPL_LAUNCH(sort_count, dim3(blocks), dim3(TILE_WARPS * 32), 0, espl__cuda->compute, s);
    ESPL_LAUNCH(sort_scan, dim3(1), dim3(SCAN_WARPS * 32), 0, espl__cuda->compute, s.counts, s.tiles << s.bits);
    ESPL_LAUNCH(sort_move, dim3(blocks), dim3(TILE_WARPS * 32), 0, espl__cuda->compute, s);
}

espl__sorted espl__cuda_sort_keys(const espl__rows *of, const int32_t *keys, int64_t first, int64_t n_keys, void *work) {
    int rows = (int)of->tokens, bits = 1, tiles = (int)pieces_of(rows, TILE);
    while (n_keys >> bits)
        bits++;
    int passes = (bits + 7) / 8, digit = (bits + passes - 1) / passes;
    int32_t *index[2] = {static_cast<int32_t *>(work), static_cast<int32_t *>(work) + rows}, *sorted = index[1] + rows;
    sort_pass s = {keys, nullptr, nullptr, nullptr, sorted + rows, of->batch, (int)first, (int)n_keys, rows, tiles, 0, digit};
    for (int p = 0; p < passes; p++) {
        s.to = index[p % 2];
        s.sorted_keys = p == passes - 1 ? sorted : nullptr;
        s.shift = p * digit;
        sort_once(s);
        s.from = s.to;
    }
    return {s.to, sorted};
}
