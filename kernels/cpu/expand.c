#include "kernels/cpu/expand.h"
#include "kernels/dynamic_map.h"

#if defined(__FMA__)
#include <immintrin.h>
#endif

enum { HALF = ESPL_QUANT_BLOCK / 2 };

/* A part of the matrix, with all that its elements are made from. */
typedef struct part {
    const espl_quant *quant;
    espl_quant_places at;
    const char *from;
    const float *map; /* of scales that are quantised, too */
} part;

/* Two roundings, as everywhere. */
static inline float block_scale(const part *p, int64_t block) {
    if (p->quant->format == ESPL_QUANT_NF4)
        return ((const float *)(p->from + p->at.scales))[block];
    const float *second = (const float *)(p->from + p->at.second);
    float scale = p->map[((const uint8_t *)p->from + p->at.scales)[block]] * second[block / ESPL_QUANT_GROUP];
    return scale + second[p->at.n_seconds];
}

/* The 64 elements of a block: lower halves of bytes, then upper ones. */
#if defined(__AVX512F__)
static inline void block_floats(const uint8_t *codes, float scale, float *to) {
    static const float levels[16] = ESPL_NF4_LEVELS;
    __m512 table = _mm512_loadu_ps(levels), s = _mm512_set1_ps(scale);
    for (int i = 0; i < HALF; i += 16) { /* the permutation reads four bits of an index, and leaves the others alone */
        __m512i both = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(codes + i)));
        _mm512_storeu_ps(to + i, _mm512_mul_ps(_mm512_permutexvar_ps(both, table), s));
        _mm512_storeu_ps(to + HALF + i, _mm512_mul_ps(_mm512_permutexvar_ps(_mm512_srli_epi32(both, 4), table), s));
    }
}
#elif defined(__FMA__)
/* Of 8 indices; bit 3 says which half of the table. */
static inline __m256 level_of(__m256i index, __m256 low, __m256 high) {
    __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, index), _mm256_permutevar8x32_ps(high, index), upper);
}

static inline void block_floats(const uint8_t *codes, float scale, float *to) {
    static const float levels[16] = ESPL_NF4_LEVELS;
    __m256 low = _mm256_loadu_ps(levels), high = _mm256_loadu_ps(levels + 8), s = _mm256_set1_ps(scale);
    for (int i = 0; i < HALF; i += 8) {
        __m256i both = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(codes + i)));
        _mm256_storeu_ps(to + i, _mm256_mul_ps(level_of(both, low, high), s));
        _mm256_storeu_ps(to + HALF + i, _mm256_mul_ps(level_of(_mm256_srli_epi32(both, 4), low, high), s));
    }
}
#else
static inline void block_floats(const uint8_t *codes, float scale, float *to) {
    static const float levels[16] = ESPL_NF4_LEVELS;
    for (int i = 0; i < HALF; i++) {
        to[i] = levels[codes[i] & 15] * scale;
        to[HALF + i] = levels[codes[i] >> 4] * scale;
    }
}
#endif

#ifdef ESPL_REAL_BF16
static inline void block_reals(const uint8_t *codes, float scale, real *to) {
    float x[ESPL_QUANT_BLOCK];
    block_floats(codes, scale, x);
#pragma omp simd
    for (int i = 0; i < ESPL_QUANT_BLOCK; i++)
        store(to + i, x[i]);
}
#else
static inline void block_reals(const uint8_t *codes, float scale, real *to) { block_floats(codes, scale, to); }
#endif

/* Elements first .. first + n - 1 of a block. */
static inline void expand_block(const part *p, int64_t block, int64_t first, int64_t n, real *to) {
    const uint8_t *codes = (const uint8_t *)p->from + block * HALF;
    real whole[ESPL_QUANT_BLOCK];
    if (n == ESPL_QUANT_BLOCK) {
        block_reals(codes, block_scale(p, block), to);
        return;
    }
    block_reals(codes, block_scale(p, block), whole);
    memcpy(to, whole + first, (size_t)n * sizeof *to);
}

static void nf4_stretch(const part *p, int64_t element, int64_t n, real *to) {
    while (n > 0) {
        int64_t first = element % ESPL_QUANT_BLOCK, count = min64(ESPL_QUANT_BLOCK - first, n);
        expand_block(p, element / ESPL_QUANT_BLOCK, first, count, to);
        element += count;
        to += count;
        n -= count;
    }
}

/* Of one row. */
static void int8_stretch(const part *p, int64_t row, int64_t column, int64_t n, real *to) {
    const int8_t *codes = (const int8_t *)p->from + row * p->quant->columns + column;
    const float *scales = (const float *)(p->from + p->at.scales);
    if (p->quant->outputs_across) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            store(to + i, (float)codes[i] * scales[column + i] * ESPL_INT8_STEP);
    } else {
        float scale = scales[row];
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            store(to + i, (float)codes[i] * scale * ESPL_INT8_STEP);
    }
}

/* Rows row .. row + rows - 1 of the part. */
static void expand_rows(const part *p, const expansion *x, int64_t row, int64_t rows, real *to) {
    int64_t width = p->quant->columns;
    if (p->quant->format != ESPL_QUANT_INT8 && x->columns == width)
        nf4_stretch(p, row * width, rows * width, to);
    else
        for (int64_t r = row; r < row + rows; r++, to += x->columns)
            if (p->quant->format == ESPL_QUANT_INT8)
                int8_stretch(p, r, x->column, x->columns, to);
            else
                nf4_stretch(p, r * width + x->column, x->columns, to);
}

void CPU(expand)(const expansion *x) {
    float map[ESPL_MAP_SIZE];
    part p = {.quant = x->quant, .from = x->from, .map = map};
    int64_t first = 0; /* row of the part */
    if (x->quant->format == ESPL_QUANT_NF4_DOUBLE)
        espl_map_fill(map, true);
    for (int i = 0; i < x->quant->n_parts; i++) {
        int64_t rows = x->quant->rows[i], from = max64(x->row - first, 0), to = min64(x->row + x->rows - first, rows);
        p.at = espl_quant_places_of(x->quant, i);
        if (from < to)
            expand_rows(&p, x, from, to - from, x->to + (first + from - x->row) * x->columns);
        p.from += p.at.bytes;
        first += rows;
    }
}
