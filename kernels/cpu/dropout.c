#include "kernels/cpu/dropout.h"
#include "kernels/cpu/philox.h"

dropout CPU(dropout_of)(const espl_args *args) {
    dropout drop = {.key = args->batch->rng, .on = args->batch->training && args->attrs->dropout > 0.0f};
    drop.key.op = args->attrs->rng_op;
    drop.threshold = espl_rng_threshold(args->attrs->dropout);
    drop.scale = 1.0f / (1.0f - args->attrs->dropout);
    return drop;
}

void CPU(dropout_mask)(const dropout *drop, uint64_t first, int64_t n, float *to) {
    enum { NUMBERS = 4 * PHILOX_BLOCKS };
    philox stream = philox_of(&drop->key);
    uint32_t number[4][PHILOX_BLOCKS];
    float keep[4][PHILOX_BLOCKS], whole[NUMBERS];
    for (int64_t done = 0; done < n;) {
        uint64_t element = first + (uint64_t)done;
        int64_t lead = (int64_t)(element & 3), count = min64(n - done, NUMBERS - lead);
        float *out = count == NUMBERS ? to + done : whole;
        philox_numbers(&stream, element >> 2, 1, number);
        dropout_keep(drop, number[0], keep[0], NUMBERS);
        for (int64_t b = 0; b < PHILOX_BLOCKS; b++)
            for (int l = 0; l < 4; l++)
                out[4 * b + l] = keep[l][b];
        if (out == whole)
            memcpy(to + done, whole + lead, (size_t)count * sizeof *to);
        done += count;
    }
}
