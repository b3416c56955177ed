#include "src/core/rng.h"

#include <math.h>

double espl_rng_normal(const espl_rng_key *key, uint64_t element) {
    espl_rng4 r = espl_rng_block(key, element >> 1);
    int half = (int)(element & 1) * 2;
    double u = ((double)r.v[half] + 0.5) * 0x1p-32, w = ((double)r.v[half + 1] + 0.5) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * w);
}
