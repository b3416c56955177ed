/* The values that a byte of an 8-bit optimizer state stands for: the dynamic map of Dettmers, "8-Bit Approximations for Parallelism in Deep
 * Learning" (ICLR 2016), as bitsandbytes makes it (bit for bit its create_dynamic_map): seven decades 10^-6 .. 1, the one that begins with
 * 10^-e cut into twice as many pieces as the one below it, of which each is its middle; 0, and 1.
 * Values ascend. Signed: 2^i pieces in decade i and their negatives, and 0 is number 127; else 2^(i+1), and 0 is number 0. */
#ifndef ESPL_KERNELS_DYNAMIC_MAP_H
#define ESPL_KERNELS_DYNAMIC_MAP_H

#include "kernels/rules.h"

#include <math.h>

enum { ESPL_MAP_SIZE = 256, ESPL_MAP_DECADES = 7 };

/* Border k of n + 1 between 0.1 and 1, rounded once, from the nearer end. */
static inline float espl_map_border(int k, int n) {
    float step = (1.0f - 0.1f) / (float)n;
    return k < (n + 1) / 2 ? fmaf(step, (float)k, 0.1f) : fmaf(-step, (float)(n - k), 1.0f);
}

/* Local. Fills a map. */
static inline void espl_map_fill(float map[ESPL_MAP_SIZE], bool with_sign) {
    static const float decade[ESPL_MAP_DECADES] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
    int zero = with_sign ? 127 : 0, at = zero;
    map[at++] = 0.0f;
    for (int i = 0; i < ESPL_MAP_DECADES; i++)
        for (int k = 0, n = with_sign ? 1 << i : 2 << i; k < n; k++)
            map[at++] = decade[i] * ((espl_map_border(k, n) + espl_map_border(k + 1, n)) / 2.0f);
    map[at] = 1.0f;
    for (int i = 0; i < zero; i++)
        map[i] = -map[2 * zero - i];
}

/* Local. Number of the value nearest to x, the lower one where two are. */
static inline ESPL_ANYWHERE int espl_map_nearest(const float map[ESPL_MAP_SIZE], float x) {
    int at = 0;
    for (int step = ESPL_MAP_SIZE / 2; step > 0; step /= 2)
        at += map[at + step] <= x ? step : 0;
    int next = at < ESPL_MAP_SIZE - 1 ? at + 1 : at;
    return map[next] - x < x - map[at] ? next : at;
}

#endif
