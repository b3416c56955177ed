#include "kernels/cpu/attention.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/transpose.h"

int64_t CPU(attention_blocks)(const espl_batch *batch) {
    int64_t count = 0;
    for (int32_t i = 0; i < batch->n_segments; i++)
        count += pieces(batch->segments[i + 1] - batch->segments[i], BLOCK);
    return count;
}

block_unit CPU(attention_unit)(const espl_batch *batch, int64_t unit, int64_t heads) {
    int32_t i = 0;
    int64_t count;
    for (; unit >= (count = pieces(batch->segments[i + 1] - batch->segments[i], BLOCK) * heads); i++)
        unit -= count;
    return (block_unit){.segment = {batch->segments[i], batch->segments[i + 1] - batch->segments[i]},
                        .head = unit / (count / heads),
                        .first = unit % (count / heads) * BLOCK};
}

/* A row of the next head lies behind that of this one, and rows are too far apart for the hardware to foresee: it is asked for here. */
static inline void prefetch_next(const real *x, int64_t d) {
    for (int64_t c = 0; c < d; c += 64 / (int64_t)sizeof(real))
        __builtin_prefetch(x + d + c, 0, 2);
}

void CPU(pack_transposed)(const real *x, int64_t ld, int64_t rows, int64_t d, float scale, float *to) {
    for (int64_t i = 0; i < rows; i++)
        prefetch_next(x + i * ld, d);
    for (int64_t c = 0; c < d; c += LANES16)
        for (int64_t i = 0; i < BLOCK; i += LANES16) {
            lanes16 tile[LANES16] = {{0}};
            for (int64_t r = 0; r < min64(LANES16, rows - i); r++) {
                load_some(&tile[r], x + (i + r) * ld + c, d - c);
                tile[r] *= scale;
            }
            transpose(tile);
            for (int64_t j = 0; j < min64(LANES16, d - c); j++)
                *(lanes16 *)(to + (c + j) * BLOCK + i) = tile[j];
        }
}

void CPU(unpack_transposed)(const float *x, int64_t d, int64_t width, float *to) {
    for (int64_t c = 0; c < d; c += LANES16)
        for (int64_t i = 0; i < BLOCK; i += LANES16) {
            lanes16 tile[LANES16] = {{0}};
            for (int64_t r = 0; r < min64(LANES16, d - c); r++)
                tile[r] = *(const lanes16 *)(x + (c + r) * BLOCK + i);
            transpose(tile);
            for (int64_t j = 0; j < LANES16; j++)
                *(lanes16 *)(to + (i + j) * width + c) = tile[j];
        }
}

void CPU(pack_rows)(const real *x, int64_t ld, int64_t rows, int64_t d, int64_t width, float scale, float *to) {
    for (int64_t i = 0; i < rows; i++) {
        prefetch_next(x + i * ld, d);
        for (int64_t c = 0; c < d; c++)
            to[i * width + c] = scale * load(x + i * ld + c);
        for (int64_t c = d; c < width; c++)
            to[i * width + c] = 0.0f;
    }
}

void CPU(attention_dropout)(const attention *a, const span *s, int64_t head, int64_t q, int64_t k, int64_t keys, float *mask) {
    uint64_t row = (uint64_t)(head * a->args->batch->n + s->start + q);
    philox stream = philox_of(&a->drop.key);
    for (int64_t j = 0; j < keys; j += 4)
        for (int64_t i = 0; i < BLOCK; i += PHILOX_BLOCKS) {
            uint32_t number[4][PHILOX_BLOCKS];
            philox_numbers(&stream, (((row + (uint64_t)i) << 20) + (uint64_t)(k + j)) >> 2, (uint64_t)1 << 18, number);
            for (int l = 0; l < 4; l++)
                dropout_keep(&a->drop, number[l], mask + (j + l) * BLOCK + i, PHILOX_BLOCKS);
        }
}
