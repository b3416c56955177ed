#include "kernels/cpu/attention.h"

#include <math.h>

void CPU(pack_transposed)(const real *x, int64_t ld, int64_t rows, int64_t d, float scale, float *to) {
    for (int64_t c = 0; c < d; c += BLOCK_LANES) {
        int64_t width = min64(BLOCK_LANES, d - c);
        for (int64_t i = 0; i < BLOCK; i += BLOCK_LANES) {
            float tile[BLOCK_LANES][BLOCK_LANES] = {{0}};
            for (int64_t r = 0; r < min64(BLOCK_LANES, rows - i); r++)
                for (int64_t j = 0; j < width; j++)
                    tile[r][j] = scale * load(x + (i + r) * ld + c + j);
            for (int64_t j = 0; j < width; j++)
                for (int64_t r = 0; r < BLOCK_LANES; r++)
                    to[(c + j) * BLOCK + i + r] = tile[r][j];
        }
    }
}

void CPU(unpack_transposed)(const float *x, int64_t d, int64_t width, float scale, float *to) {
    for (int64_t c = 0; c < d; c += BLOCK_LANES)
        for (int64_t i = 0; i < BLOCK; i += BLOCK_LANES) {
            float tile[BLOCK_LANES][BLOCK_LANES];
            int64_t rows = min64(BLOCK_LANES, d - c);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t j = 0; j < BLOCK_LANES; j++)
                    tile[j][r] = scale * x[(c + r) * BLOCK + i + j];
            for (int64_t j = 0; j < BLOCK_LANES; j++)
                for (int64_t r = 0; r < rows; r++)
                    to[(i + j) * width + c + r] = tile[j][r];
        }
}

void CPU(pack_rows)(const real *x, int64_t ld, int64_t rows, int64_t d, int64_t width, float scale, float *to) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < d; c++)
            to[i * width + c] = scale * load(x + i * ld + c);
        for (int64_t c = d; c < width; c++)
            to[i * width + c] = 0.0f;
    }
}

const float *CPU(view_rows)(const real *x, int64_t *ld, int64_t rows, int64_t d, float *to) {
    if (REAL_DTYPE == ESPL_F32)
        return (const float *)x;
    CPU(pack_rows)(x, *ld, rows, d, d, 1.0f, to);
    *ld = d;
    return to;
}

void CPU(mask_scores)(const attention *a, int64_t q, int64_t queries, int64_t k, int64_t keys, float *scores) {
    const espl_attrs *attrs = a->args->attrs;
    int64_t window = attrs->window > 0 ? attrs->window : INT32_MAX;
    if (!attrs->causal || (k + keys - 1 <= q && q + queries - 1 - k < window))
        return;
    for (int64_t j = 0; j < keys; j++) {
        int32_t from = (int32_t)max64(k + j - q, 0), to = (int32_t)min64(k + j - q + window, BLOCK); /* queries that see this key */
#pragma omp simd
        for (int32_t i = 0; i < BLOCK; i++)
            scores[j * BLOCK + i] = i < from || i >= to ? -INFINITY : scores[j * BLOCK + i];
    }
}

void CPU(attention_dropout)(const attention *a, const span *s, int64_t head, int64_t q, int64_t k, int64_t keys, float *mask) {
    uint64_t row = (uint64_t)(head * a->args->batch->n + s->start + q);
    uint32_t threshold = a->drop.threshold;
    float scale = a->drop.scale;
    for (int64_t j = 0; j < keys; j += 4)
#pragma omp simd
        for (int64_t i = 0; i < BLOCK; i++) {
            espl_rng4 r = espl_rng_block(&a->drop.key, (((row + (uint64_t)i) << 20) + (uint64_t)(k + j)) >> 2);
            mask[j * BLOCK + i] = r.v[0] >= threshold ? scale : 0.0f;
            mask[(j + 1) * BLOCK + i] = r.v[1] >= threshold ? scale : 0.0f;
            mask[(j + 2) * BLOCK + i] = r.v[2] >= threshold ? scale : 0.0f;
            mask[(j + 3) * BLOCK + i] = r.v[3] >= threshold ? scale : 0.0f;
        }
}
