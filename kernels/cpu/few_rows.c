#include "kernels/cpu/gemm.h"

/* B^T: [n,k], a row of it with up to 4 rows of A at a time. B: [k,n], a panel of columns, summed in cache. */
enum { PANEL = 512, TRANS_LIMIT = 16, PLAIN_LIMIT = 4 };

int64_t CPU(few_rows_limit)(bool trans_b) { return trans_b ? TRANS_LIMIT : PLAIN_LIMIT; }

static void put_c(const gemm *g, int64_t row, int64_t column, float value) {
    int64_t at = row * g->ldc + column;
    if (g->c_dtype == ESPL_F32)
        ((float *)g->c)[at] = g->alpha * value;
    else
        store((real *)g->c + at, g->alpha * value);
}

/* Products of `rows` rows of A, a constant where this is inlined, with one row of B^T. */
static inline __attribute__((always_inline)) void dots(const real *const *a, const real *b, int64_t k, int rows, float sum[4]) {
    lanes16 lane[4] = {{0}}, x, y;
    int64_t i = 0;
    for (; i + LANES16 <= k; i += LANES16) {
        load_lanes(&y, b + i);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            load_lanes(&x, a[r] + i);
            lane[r] += x * y;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) { /* unrolled too: a variable index would keep the sums in memory */
        sum[r] = sum_lanes(&lane[r]);
        for (int64_t j = i; j < k; j++)
            sum[r] += load(a[r] + j) * load(b + j);
    }
}

static void column_of_bt(const gemm *g, int64_t column) {
    const real *b = g->b + column * g->ldb;
    for (int64_t row = 0; row < g->m; row += 4) {
        const real *a[4];
        float sum[4];
        int64_t rows = min64(4, g->m - row);
        for (int64_t r = 0; r < 4; r++)
            a[r] = g->a + (row + min64(r, rows - 1)) * g->lda;
        if (rows == 1)
            dots(a, b, g->k, 1, sum);
        else
            dots(a, b, g->k, 4, sum);
        for (int64_t r = 0; r < rows; r++)
            put_c(g, row + r, column, sum[r]);
    }
}

static void panel_of_b(const gemm *g, int64_t column, int64_t width) {
    float sum[PLAIN_LIMIT][PANEL] = {{0}};
    for (int64_t i = 0; i < g->k; i++) {
        const real *b = g->b + i * g->ldb + column;
        for (int64_t row = 0; row < g->m; row++) {
            float a = load(g->a + row * g->lda + i);
#pragma omp simd
            for (int64_t j = 0; j < width; j++)
                sum[row][j] = fma1(a, load(b + j), sum[row][j]);
        }
    }
    for (int64_t row = 0; row < g->m; row++)
        for (int64_t j = 0; j < width; j++)
            put_c(g, row, column + j, sum[row][j]);
}

void CPU(few_rows)(const gemm *g) {
    int64_t width = round_up(64, max64(g->unit, 1));
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t c = 0; c < g->n; c += width) {
        int64_t columns = min64(width, g->n - c);
        for (int64_t j = c; g->trans_b && j < c + columns; j++)
            column_of_bt(g, j);
        if (!g->trans_b)
            panel_of_b(g, c, columns);
        if (g->finish)
            g->finish(g, 0, g->m, c, columns);
    }
}
