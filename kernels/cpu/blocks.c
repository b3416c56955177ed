#include "kernels/cpu/blocks.h"

/* Vectors of the instruction set, and how many of them the registers hold as sums. */
#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16, MR = 4, NR = 4 };
#define VFMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#elif defined(__FMA__)
#include <immintrin.h>
enum { LANES = 8, MR = 4, NR = 2 };
#define VFMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#else
enum { LANES = 4, MR = 2, NR = 4 };
#define VFMA(a, b, c) ((a) * (b) + (c))
#endif

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), may_alias));
typedef float vec_u __attribute__((vector_size(LANES * sizeof(float)), may_alias, aligned(4)));

static inline vec broadcast(float x) { return x - (vec){0}; }

/* rows x (vectors * LANES) of C. `rows` and `vectors` are constants where this is inlined, so the sums stay in registers. */
static inline __attribute__((always_inline)) void kernel(const block_product *p, int64_t row, int64_t column, int rows, int vectors) {
    vec sum[MR][NR];
    float *c = p->c + row * p->ldc + column;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = p->add ? *(const vec_u *)(c + r * p->ldc + v * LANES) : (vec){0};
    const float *a = p->a + row * p->a_row, *b = p->b + column;
    int64_t a_row = p->a_row, a_column = p->a_column, ldb = p->ldb;
    for (int64_t k = p->k; k > 0; k--, a += a_column, b += ldb) {
        vec y[NR];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            y[v] = *(const vec_u *)(b + v * LANES);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            vec x = broadcast(a[r * a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] = VFMA(x, y[v], sum[r][v]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            *(vec_u *)(c + r * p->ldc + v * LANES) = sum[r][v];
}

static void strip(const block_product *p, int64_t column, int wide) {
    int64_t row = 0;
    for (; row + MR <= p->m; row += MR)
        if (wide)
            kernel(p, row, column, MR, NR);
        else
            kernel(p, row, column, MR, 1);
    for (; row < p->m; row++)
        if (wide)
            kernel(p, row, column, 1, NR);
        else
            kernel(p, row, column, 1, 1);
}

void CPU(block_multiply)(const block_product *p) {
    int64_t column = 0;
    for (; column + NR * LANES <= p->n; column += NR * LANES)
        strip(p, column, 1);
    for (; column < p->n; column += LANES)
        strip(p, column, 0);
}
