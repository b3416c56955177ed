/* Memory that the micro-batch takes on a GPU, and how it lies there; shared by the device and by who plans for it. */
#ifndef ESPL_KERNELS_CUDA_BATCH_WORK_H
#define ESPL_KERNELS_CUDA_BATCH_WORK_H

#include "kernels/device.h"

/* Where the parts of a stream lie in the micro-batch's block, in bytes; parts that a stream has not are empty. */
typedef struct espl__layout {
    size_t header, ids, positions, types, targets, weights, row_begin, row_end, segments, cross_begin, cross_end, cache_row, cache_length;
} espl__layout;

/* Local. The place of n numbers of 4 bytes, and where the next part begins. */
static inline size_t espl__layout_part(size_t *at, int64_t n) {
    size_t start = *at;
    *at += ((size_t)n * sizeof(int32_t) + 255) / 256 * 256;
    return start;
}

/* Local. The parts of a stream from byte `at` on, where the parts of the next stream begin. Pooled rows are no tokens: they have targets
 * and weights alone. Only tokens of the main stream look into a cache; they and the source's know of each other. */
static inline espl__layout espl__layout_of(espl_stream stream, const espl_capacity capacity[ESPL_N_STREAMS], size_t *at) {
    int64_t rows = capacity[stream].rows, segments = capacity[stream].segments, tokens = stream == ESPL_STREAM_POOLED ? 0 : rows;
    bool main = stream == ESPL_STREAM_MAIN;
    int64_t cross = capacity[ESPL_STREAM_SOURCE].rows > 0 ? tokens : 0;
    espl__layout layout;
    layout.header = espl__layout_part(at, rows > 0 ? 64 : 0);
    layout.ids = espl__layout_part(at, tokens);
    layout.positions = espl__layout_part(at, tokens);
    layout.types = espl__layout_part(at, tokens);
    layout.targets = espl__layout_part(at, rows);
    layout.weights = espl__layout_part(at, rows);
    layout.row_begin = espl__layout_part(at, tokens);
    layout.row_end = espl__layout_part(at, tokens);
    layout.segments = espl__layout_part(at, tokens > 0 ? segments + 1 : 0);
    layout.cross_begin = espl__layout_part(at, cross);
    layout.cross_end = espl__layout_part(at, cross);
    layout.cache_row = espl__layout_part(at, main ? segments : 0);
    layout.cache_length = espl__layout_part(at, main ? segments : 0);
    return layout;
}

/* Local. Bytes of the block. */
static inline size_t espl__batch_bytes(const espl_capacity capacity[ESPL_N_STREAMS]) {
    size_t bytes = 0;
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        espl__layout_of((espl_stream)s, capacity, &bytes);
    return bytes;
}

#endif
