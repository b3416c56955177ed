#include "kernels/cpu/blocks.h"

/* Vectors of the instruction set, and how many rows of A go with a strip of so many vectors: what the registers hold as sums. */
#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16, MAX_VECTORS = 4, MAX_ROWS = 8 };
static const int rows_of[MAX_VECTORS + 1] = {0, 8, 8, 8, 4};
#define VFMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#elif defined(__FMA__)
#include <immintrin.h>
enum { LANES = 8, MAX_VECTORS = 2, MAX_ROWS = 4 };
static const int rows_of[MAX_VECTORS + 1] = {0, 4, 4};
#define VFMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#else
enum { LANES = 4, MAX_VECTORS = 4, MAX_ROWS = 2 };
static const int rows_of[MAX_VECTORS + 1] = {0, 2, 2, 2, 2};
#define VFMA(a, b, c) ((a) * (b) + (c))
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));
typedef float vec_u __attribute__((vector_size(LANES * sizeof(float)), may_alias, aligned(4)));

static inline vec broadcast(float x) { return x - (vec){0}; }

/* rows x (vectors * LANES) of C. `rows` and `vectors` are constants where this is inlined, so the sums stay in registers. */
static inline __attribute__((always_inline)) void kernel(const block_product *p, int64_t row, int64_t column, int rows, int vectors) {
    vec sum[MAX_ROWS][MAX_VECTORS];
    float *c = p->c + row * p->ldc + column;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = p->add ? *(const vec_u *)(c + r * p->ldc + v * LANES) : (vec){0};
    const float *a = p->a + row * p->a_row, *b = p->b + column;
    int64_t a_row = p->a_row, a_column = p->a_column, ldb = p->ldb;
    for (int64_t k = p->k; k > 0; k--, a += a_column, b += ldb) {
        vec y[MAX_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            y[v] = *(const vec_u *)(b + v * LANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vec x = broadcast(a[r * a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] = VFMA(x, y[v], sum[r][v]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            *(vec_u *)(c + r * p->ldc + v * LANES) = sum[r][v];
}

static inline __attribute__((always_inline)) void strip(const block_product *p, int64_t column, int vectors) {
    int64_t row = 0;
    for (; row + rows_of[vectors] <= p->m; row += rows_of[vectors])
        kernel(p, row, column, rows_of[vectors], vectors);
    for (; row < p->m; row++)
        kernel(p, row, column, 1, vectors);
}

static void strip_1(const block_product *p, int64_t column) { strip(p, column, 1); }
static void strip_2(const block_product *p, int64_t column) { strip(p, column, 2); }
#if defined(__FMA__) && !defined(__AVX512F__)
static void (*const strips[MAX_VECTORS])(const block_product *, int64_t) = {strip_1, strip_2};
#else
static void strip_3(const block_product *p, int64_t column) { strip(p, column, 3); }
static void strip_4(const block_product *p, int64_t column) { strip(p, column, 4); }
static void (*const strips[MAX_VECTORS])(const block_product *, int64_t) = {strip_1, strip_2, strip_3, strip_4};
#endif

void CPU(block_multiply)(const block_product *p) {
    for (int64_t column = 0; column < p->n;) {
        int64_t vectors = min64(MAX_VECTORS, (p->n - column) / LANES);
        strips[vectors - 1](p, column);
        column += vectors * LANES;
    }
}
