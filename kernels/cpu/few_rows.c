#include "kernels/cpu/blocks.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/transpose.h"
#include "kernels/matmul.h"

/* Up to DIRECT rows B goes by as it lies: B^T [n,k] row by row with all rows of A; B [k,n] by panels of columns, summed in cache. From
 * there to LIMIT rows B is packed as floats, DEPTH deep, and goes through block_multiply: C^T = B^T A^T with the rows of A as lanes,
 * or C = A B with columns as lanes. */
enum { DIRECT = 4, LIMIT = 16, PANEL = 64, DEPTH = 128, GROUP = 8 /* rows of B^T packed at a time */ };

/* Where bf16 is multiplied in hardware, the library is faster from two rows on. */
int64_t CPU(few_rows_limit)(void) { return REAL_DTYPE == ESPL_BF16 && espl__matmul_native_bf16() ? 1 : LIMIT; }

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
    const real *a[DIRECT], *b = g->b + column * g->ldb;
    float sum[DIRECT];
    for (int64_t r = 0; r < DIRECT; r++)
        a[r] = g->a + min64(r, g->m - 1) * g->lda;
    if (g->m == 1)
        dots(a, b, g->k, 1, sum);
    else
        dots(a, b, g->k, DIRECT, sum);
    for (int64_t r = 0; r < g->m; r++)
        put_c(g, r, column, sum[r]);
}

static void panel_of_b(const gemm *g, int64_t column, int64_t width) {
    float sum[DIRECT][PANEL] = {{0}};
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

/* to[i][c] = x[i][c], `width` a row, 0 past `columns`; what lies `ahead` is asked for. */
static void widen(const real *x, int64_t ld, int64_t rows, int64_t columns, int64_t width, int64_t ahead, float *to) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < columns; c += 64 / (int64_t)sizeof(real))
            __builtin_prefetch(x + i * ld + c + ahead, 0, 3);
        for (int64_t c = 0; c < columns; c++)
            to[i * width + c] = load(x + i * ld + c);
        for (int64_t c = columns; c < width; c++)
            to[i * width + c] = 0.0f;
    }
}

/* to[c][r] = a[r][c] of up to 16 rows, 0 past them. */
static void transpose_rows(const gemm *g, int64_t first, int64_t depth, float *to) {
    for (int64_t c = 0; c < depth; c += LANES16) {
        lanes16 tile[LANES16] = {{0}};
        for (int64_t r = 0; r < g->m; r++)
            load_some(&tile[r], g->a + r * g->lda + first + c, depth - c);
        transpose(tile);
        for (int64_t j = 0; j < min64(LANES16, depth - c); j++)
            *(lanes16 *)(to + (c + j) * LANES16) = tile[j];
    }
}

static void block_of_bt(const gemm *g, int64_t column, int64_t width) {
    float sum[PANEL * LIMIT] = {0}, at[DEPTH * LIMIT], b[GROUP * DEPTH];
    for (int64_t k = 0; k < g->k; k += DEPTH) {
        int64_t depth = min64(DEPTH, g->k - k);
        transpose_rows(g, k, depth, at);
        for (int64_t j = 0; j < width; j += GROUP) {
            int64_t rows = min64(GROUP, width - j);
            widen(g->b + (column + j) * g->ldb + k, g->ldb, rows, depth, depth, GROUP * g->ldb, b);
            CPU(block_multiply)
            (&(block_product){.m = rows,
                              .n = LIMIT,
                              .k = depth,
                              .a = b,
                              .a_row = depth,
                              .a_column = 1,
                              .b = at,
                              .ldb = LIMIT,
                              .c = sum + j * LIMIT,
                              .ldc = LIMIT,
                              .add = true});
        }
    }
    for (int64_t row = 0; row < g->m; row++)
        for (int64_t j = 0; j < width; j++)
            put_c(g, row, column + j, sum[j * LIMIT + row]);
}

static void block_of_b(const gemm *g, int64_t column, int64_t width) {
    float sum[LIMIT * PANEL] = {0}, a[LIMIT * DEPTH] = {0}, b[DEPTH * PANEL];
    int64_t lanes = round_up(width, BLOCK_LANES);
    for (int64_t k = 0; k < g->k; k += DEPTH) {
        int64_t depth = min64(DEPTH, g->k - k);
        widen(g->a + k, g->lda, g->m, depth, DEPTH, 0, a);
        widen(g->b + k * g->ldb + column, g->ldb, depth, width, PANEL, DEPTH * g->ldb, b);
        CPU(block_multiply)
        (&(block_product){.m = round_up(g->m, 4),
                          .n = lanes,
                          .k = depth,
                          .a = a,
                          .a_row = DEPTH,
                          .a_column = 1,
                          .b = b,
                          .ldb = PANEL,
                          .c = sum,
                          .ldc = PANEL,
                          .add = true});
    }
    for (int64_t row = 0; row < g->m; row++)
        for (int64_t j = 0; j < width; j++)
            put_c(g, row, column + j, sum[row * PANEL + j]);
}

static void panel(const gemm *g, int64_t column, int64_t width) {
    if (g->m > DIRECT)
        (g->trans_b ? block_of_bt : block_of_b)(g, column, width);
    else if (!g->trans_b)
        panel_of_b(g, column, width);
    for (int64_t j = column; g->m <= DIRECT && g->trans_b && j < column + width; j++)
        column_of_bt(g, j);
}

void CPU(few_rows)(const gemm *g) {
    int64_t width = round_up(PANEL, max64(g->unit, 1));
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t c = 0; c < g->n; c += width) {
        int64_t columns = min64(width, g->n - c);
        gemm own = g->quant ? CPU(gemm_strip)(g, c, columns) : *g;
        int64_t first = g->quant ? 0 : c; /* column of B */
        own.c = (char *)g->c + (size_t)(c - first) * espl_dtype_size(g->c_dtype);
        for (int64_t j = 0; j < columns; j += PANEL)
            panel(&own, first + j, min64(PANEL, columns - j));
        if (g->finish)
            g->finish(g, 0, g->m, c, columns);
    }
}
