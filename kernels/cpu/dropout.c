#include "kernels/cpu/dropout.h"

dropout CPU(dropout_of)(const espl_args *args) {
    dropout drop = {.key = args->batch->rng, .on = args->batch->training && args->attrs->dropout > 0.0f};
    drop.key.op = args->attrs->rng_op;
    drop.threshold = espl_rng_threshold(args->attrs->dropout);
    drop.scale = 1.0f / (1.0f - args->attrs->dropout);
    return drop;
}

/* Whole blocks, in planes, so that the rounds vectorise: plane l holds number l of each block. */
static void blocks(const dropout *drop, uint64_t block, int64_t n, uint32_t plane[4][64]) {
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        espl_rng4 r = espl_rng_block(&drop->key, block + (uint64_t)i);
        plane[0][i] = r.v[0];
        plane[1][i] = r.v[1];
        plane[2][i] = r.v[2];
        plane[3][i] = r.v[3];
    }
}

void CPU(dropout_mask)(const dropout *drop, uint64_t first, int64_t n, float *to) {
    uint32_t plane[4][64] = {{0}};
    float whole[256];
    for (int64_t done = 0; done < n;) {
        uint64_t element = first + (uint64_t)done, block = element >> 2;
        int64_t lead = (int64_t)(element & 3), count = min64(n - done, 256 - lead);
        blocks(drop, block, pieces(lead + count, 4), plane);
        for (int64_t i = 0; i < 64; i++)
            for (int l = 0; l < 4; l++)
                whole[4 * i + l] = plane[l][i] >= drop->threshold ? drop->scale : 0.0f;
        memcpy(to + done, whole + lead, (size_t)count * sizeof *to);
        done += count;
    }
}
