#include "kernels/cpu/gemm.h"
#include "kernels/matmul.h"

#include <omp.h>

/* The largest tile of the list that leaves MIN_TILES tiles; large ones spend less on packing, many ones feed more threads.
 * Measured on shapes of GPT-2 124M (OpenBLAS, two cores): 512 x 384 loses 3 % against the best, 128 x 192 15 %. */
static const struct { int64_t rows, columns; } sizes[] = {{512, 384}, {256, 384}, {256, 192}, {128, 192}, {64, 96}};

enum { MIN_TILES = 8 };

static int64_t columns_of(const gemm *g, int64_t columns) { return g->unit > 1 ? round_up(columns, g->unit) : columns; }

static size_t tile_size(const gemm *g) {
    size_t last = sizeof sizes / sizeof *sizes - 1, i = 0;
    while (i < last && pieces(g->m, sizes[i].rows) * pieces(g->n, columns_of(g, sizes[i].columns)) < MIN_TILES)
        i++;
    return i;
}

static void tile(const gemm *g, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const real *a = g->a + (g->trans_a ? row : row * g->lda), *b = g->b + (g->trans_b ? column * g->ldb : column);
    espl_matmul t = {.m = rows,
                     .n = columns,
                     .k = g->k,
                     .lda = g->lda,
                     .ldb = g->ldb,
                     .ldc = g->ldc,
                     .trans_a = g->trans_a,
                     .trans_b = g->trans_b,
                     .add = g->add,
                     .alpha = g->alpha,
                     .a = a,
                     .b = b,
                     .c_dtype = g->c_dtype,
                     .c = (char *)g->c + (size_t)(row * g->ldc + column) * espl_dtype_size(g->c_dtype)};
    if (REAL_DTYPE == ESPL_F32)
        espl__matmul_fp32(&t);
    else
        espl__matmul_bf16(&t, (char *)g->work + (size_t)omp_get_thread_num() * espl__matmul_work(REAL_DTYPE));
    if (g->finish)
        g->finish(g, row, rows, column, columns);
}

void CPU(gemm)(const gemm *g) {
    if (g->m == 0 || g->n == 0)
        return;
    if (!g->trans_a && !g->add && g->m <= CPU(few_rows_limit)()) {
        CPU(few_rows)(g);
        return;
    }
    size_t size = tile_size(g);
    int64_t rows = sizes[size].rows, columns = columns_of(g, sizes[size].columns);
    int64_t down = pieces(g->m, rows), across = pieces(g->n, columns);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t t = 0; t < down * across; t++) {
        int64_t row = t % down * rows, column = t / down * columns;
        tile(g, row, min64(rows, g->m - row), column, min64(columns, g->n - column));
    }
}

size_t CPU(gemm_work)(int threads) { return (size_t)threads * espl__matmul_work(REAL_DTYPE); }
