#include "kernels/quant.h"
#include "kernels/dynamic_map.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>

static const float levels[16] = ESPL_NF4_LEVELS;

/* What is no smaller is divided by, so that a block of zeros stays one. */
#define LEAST_SCALE 1e-38f

typedef struct source {
    const char *data;
    espl_dtype dtype;
} source;

static void take(const source *from, int64_t first, int64_t n, float *to) {
    espl_dtype_convert(to, ESPL_F32, from->data + (size_t)first * espl_dtype_size(from->dtype), from->dtype, (size_t)n);
}

static float largest(const float *x, int64_t n) {
    float most = 0.0f;
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    return most;
}

/* ---- NF4. */

/* How many of the borders between levels x is above. */
static int nearest_level(float x) {
    int at = 0;
    for (int i = 0; i < 15; i++)
        at += x > (levels[i] + levels[i + 1]) / 2.0f;
    return at;
}

/* x of a full block times the reciprocal; of the last one, which is not, divided: as bitsandbytes. */
static void quantise_block(const source *from, int64_t first, int64_t n, float *scale, uint8_t *codes) {
    float x[ESPL_QUANT_BLOCK] = {0};
    uint8_t code[ESPL_QUANT_BLOCK];
    take(from, first, n, x);
    *scale = largest(x, n);
    float divisor = fmaxf(*scale, LEAST_SCALE), factor = 1.0f / divisor;
    for (int i = 0; i < ESPL_QUANT_BLOCK; i++)
        code[i] = (uint8_t)nearest_level(n == ESPL_QUANT_BLOCK ? x[i] * factor : x[i] / divisor);
    for (int i = 0; i < ESPL_QUANT_BLOCK / 2; i++)
        codes[i] = (uint8_t)(code[i] | code[i + ESPL_QUANT_BLOCK / 2] << 4);
}

static void quantise_blocks(const espl_quant_places *at, const source *from, float *scales, uint8_t *codes) {
#pragma omp parallel for
    for (int64_t b = 0; b < at->n_scales; b++) {
        int64_t first = b * ESPL_QUANT_BLOCK, rest = at->n - first;
        quantise_block(from, first, rest < ESPL_QUANT_BLOCK ? rest : ESPL_QUANT_BLOCK, &scales[b], codes + first / 2);
    }
}

/* As nearest_level, of the map's values. */
static uint8_t nearest_in_map(const float map[ESPL_MAP_SIZE], float x) {
    int low = 0, high = ESPL_MAP_SIZE - 1; /* it is above the borders below low, and not above number high */
    while (low < high) {
        int middle = (low + high) / 2;
        if (x > (map[middle] + map[middle + 1]) / 2.0f)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint8_t)low;
}

static void quantise_scales(const espl_quant_places *at, const float *scales, uint8_t *codes, float *second) {
    float map[ESPL_MAP_SIZE], x[ESPL_QUANT_GROUP];
    double sum = 0.0;
    espl_map_fill(map, true);
    for (int64_t b = 0; b < at->n_scales; b++)
        sum += (double)scales[b];
    float mean = second[at->n_seconds] = (float)(sum / (double)at->n_scales);
    for (int64_t g = 0; g < at->n_seconds; g++) {
        int64_t first = g * ESPL_QUANT_GROUP, n = at->n_scales - first < ESPL_QUANT_GROUP ? at->n_scales - first : ESPL_QUANT_GROUP;
        for (int64_t i = 0; i < n; i++)
            x[i] = scales[first + i] - mean;
        second[g] = largest(x, n);
        float divisor = fmaxf(second[g], LEAST_SCALE), factor = 1.0f / divisor;
        for (int64_t i = 0; i < n; i++)
            codes[first + i] = nearest_in_map(map, n == ESPL_QUANT_GROUP ? x[i] * factor : x[i] / divisor);
    }
}

static void quantise_nf4(const espl_quant *p, const espl_quant_places *at, const source *from, char *to) {
    if (p->format == ESPL_QUANT_NF4) {
        quantise_blocks(at, from, (float *)(to + at->scales), (uint8_t *)to);
        return;
    }
    float *scales = espl_malloc((size_t)at->n_scales * sizeof *scales);
    quantise_blocks(at, from, scales, (uint8_t *)to);
    quantise_scales(at, scales, (uint8_t *)to + at->scales, (float *)(to + at->second));
    free(scales);
}

static float scale_of_block(const espl_quant *p, const espl_quant_places *at, const char *from, const float *map, int64_t block) {
    const float *second = (const float *)(from + at->second);
    if (p->format == ESPL_QUANT_NF4)
        return ((const float *)(from + at->scales))[block];
    return map[(uint8_t)from[at->scales + (size_t)block]] * second[block / ESPL_QUANT_GROUP] + second[at->n_seconds];
}

static void dequantise_nf4(const espl_quant *p, const espl_quant_places *at, const char *from, float *to) {
    float map[ESPL_MAP_SIZE];
    espl_map_fill(map, true);
    for (int64_t e = 0; e < at->n; e++) {
        int64_t block = e / ESPL_QUANT_BLOCK, i = e % ESPL_QUANT_BLOCK, half = ESPL_QUANT_BLOCK / 2;
        uint8_t both = (uint8_t)from[block * half + i % half];
        to[e] = levels[i < half ? both & 15 : both >> 4] * scale_of_block(p, at, from, map, block);
    }
}

/* ---- INT8. */

/* The factor is what PyTorch makes of 127 / s: the reciprocal, rounded, times 127. */
static void quantise_row(const float *x, int64_t columns, const float *scales, bool across, int8_t *codes) {
    for (int64_t c = 0; c < columns; c++) {
        float scale = scales[across ? c : 0], factor = 1.0f / fmaxf(scale, LEAST_SCALE) * 127.0f;
        codes[c] = (int8_t)rintf(x[c] * factor);
    }
}

static void quantise_int8(const espl_quant *p, int part, const espl_quant_places *at, const source *from, char *to) {
    float *scales = (float *)(to + at->scales), *row = espl_malloc((size_t)p->columns * sizeof *row);
    for (int64_t i = 0; i < at->n_scales; i++)
        scales[i] = 0.0f;
    for (int64_t r = 0; r < p->rows[part]; r++) {
        take(from, r * p->columns, p->columns, row);
        if (!p->outputs_across)
            scales[r] = largest(row, p->columns);
        for (int64_t c = 0; c < p->columns && p->outputs_across; c++)
            scales[c] = fmaxf(scales[c], fabsf(row[c]));
    }
    for (int64_t r = 0; r < p->rows[part]; r++) {
        take(from, r * p->columns, p->columns, row);
        quantise_row(row, p->columns, p->outputs_across ? scales : &scales[r], p->outputs_across, (int8_t *)to + r * p->columns);
    }
    free(row);
}

static void dequantise_int8(const espl_quant *p, const espl_quant_places *at, const char *from, float *to) {
    const float *scales = (const float *)(from + at->scales);
    for (int64_t e = 0; e < at->n; e++)
        to[e] = (float)(int8_t)from[e] * scales[p->outputs_across ? e % p->columns : e / p->columns] * ESPL_INT8_STEP;
}

/* ---- Both. */

static const char *const names[] = {
    [ESPL_QUANT_NONE] = "as_is", [ESPL_QUANT_INT8] = "int8", [ESPL_QUANT_NF4] = "nf4", [ESPL_QUANT_NF4_DOUBLE] = "nf4_double"};

const char *espl_quant_name(int format) { return names[format]; }

int espl_quant_format(const char *name) {
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

void espl_quantise(const espl_quant *quant, int part, const void *from, espl_dtype dtype, void *to) {
    espl_quant_places at = espl_quant_places_of(quant, part);
    const source source = {from, dtype};
    memset(to, 0, at.bytes); /* gaps too: the same tensor gives the same bytes */
    if (quant->format == ESPL_QUANT_INT8)
        quantise_int8(quant, part, &at, &source, to);
    else
        quantise_nf4(quant, &at, &source, to);
}

void espl_dequantise(const espl_quant *quant, int part, const void *from, float *to) {
    espl_quant_places at = espl_quant_places_of(quant, part);
    if (quant->format == ESPL_QUANT_INT8)
        dequantise_int8(quant, &at, from, to);
    else
        dequantise_nf4(quant, &at, from, to);
}
