/* Logits that are a hash of the last three tokens: the same as tests/reference/toy_model.py. */
#ifndef ESPL_TESTS_TOY_MODEL_H
#define ESPL_TESTS_TOY_MODEL_H

#include <stdint.h>

static inline uint32_t toy_mix(uint32_t h) {
    h ^= h >> 16;
    h *= 0x7FEB352Du;
    h ^= h >> 15;
    h *= 0x846CA68Bu;
    return h ^ h >> 16;
}

static inline void toy_logits(const int32_t *ids, int64_t n, float *logits, int64_t vocab, uint32_t grid) {
    uint32_t state = 0x9E3779B9u;
    for (int64_t i = n > 3 ? n - 3 : 0; i < n; i++)
        state = toy_mix(state ^ (uint32_t)ids[i]);
    for (int64_t v = 0; v < vocab; v++)
        logits[v] = (float)(toy_mix(state + (uint32_t)v * 0x85EBCA6Bu) % (12 * grid)) / (float)grid - 4.0f;
}

#endif
