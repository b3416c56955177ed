/* Work that EMBED and RESNORM need on a GPU; shared by the kernels and by who plans for them. */
#ifndef ESPL_KERNELS_CUDA_ROWS_WORK_H
#define ESPL_KERNELS_CUDA_ROWS_WORK_H

#include "kernels/kernels.h"

enum {
    ESPL_SORT_TILE = 256,  /* tokens that one warp sorts by a digit */
    ESPL_SORT_RADIX = 256, /* most values of a digit */
    ESPL_EMBED_ROWS = 32,  /* tokens of one partial sum of EMBED's gradients */
    ESPL_NORM_ROWS = 32,   /* tokens of one partial sum of RESNORM's */
};

static inline size_t espl__round_256(int64_t bytes) { return (size_t)((bytes + 255) / 256 * 256); }

/* Local. Bytes that sorting n tokens takes (kernels/cuda/key_sort.h): token numbers before and after a pass, keys, digits of tiles. */
static inline size_t espl__sort_bytes(int64_t n) {
    int64_t tiles = (n + ESPL_SORT_TILE - 1) / ESPL_SORT_TILE;
    return espl__round_256((3 * n + tiles * ESPL_SORT_RADIX) * (int64_t)sizeof(int32_t));
}

/* Local. EMBED: behind the sort's memory two partial sums for every ESPL_EMBED_ROWS tokens. */
static inline size_t espl__embed_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)real;
    int64_t chunks = (n + ESPL_EMBED_ROWS - 1) / ESPL_EMBED_ROWS;
    return backward ? espl__sort_bytes(n) + espl__round_256(2 * chunks * attrs->n_out * (int64_t)sizeof(float)) : 0;
}

/* Local. RESNORM: sums for P0 and P1 for every ESPL_NORM_ROWS tokens. */
static inline size_t espl__resnorm_work(const espl_attrs *attrs, espl_dtype real, int64_t n, int backward) {
    (void)real;
    int64_t pieces = (n + ESPL_NORM_ROWS - 1) / ESPL_NORM_ROWS;
    return backward ? espl__round_256(2 * pieces * attrs->n_in * (int64_t)sizeof(float)) : 0;
}

#endif
