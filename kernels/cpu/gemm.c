#include "kernels/cpu/gemm.h"
#include "kernels/cpu/expand.h"
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

/* Of the widest tile. */
static size_t strip_bytes(int64_t k, int64_t unit) {
    return (size_t)round_up(k * round_up(sizes[0].columns, max64(unit, 1)) * (int64_t)sizeof(real), 64);
}

static char *thread_work(const gemm *g) {
    size_t bytes = espl__matmul_work(REAL_DTYPE) + (g->quantised ? strip_bytes(g->k, g->unit) : 0);
    return (char *)g->work + (size_t)omp_get_thread_num() * bytes;
}

/* Columns column .. of C, where B begins with column `first` of op(B). */
static void tile(const gemm *g, int64_t first, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const real *a = g->a + (g->trans_a ? row : row * g->lda), *b = g->b + (g->trans_b ? (column - first) * g->ldb : column - first);
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
        espl__matmul_bf16(&t, thread_work(g));
    if (g->finish)
        g->finish(g, row, rows, column, columns);
}

gemm CPU(gemm_strip)(const gemm *g, int64_t column, int64_t columns) {
    gemm own = *g;
    real *strip = (real *)(thread_work(g) + espl__matmul_work(REAL_DTYPE));
    expansion x = {.quant = g->quant, .from = g->quantised, .row = 0, .rows = g->k, .column = column, .columns = columns, .to = strip};
    if (g->trans_b)
        x = (expansion){.quant = g->quant, .from = g->quantised, .row = column, .rows = columns, .column = 0, .columns = g->k, .to = strip};
    CPU(expand)(&x);
    own.b = strip;
    own.ldb = x.columns;
    own.quant = NULL;
    return own;
}

/* A strip serves the tiles below each other. Where there are fewer strips than threads can take, several threads expand it for a part of
 * them each. */
static void multiply_quantised(const gemm *g, int64_t rows, int64_t columns) {
    int64_t down = pieces(g->m, rows), across = pieces(g->n, columns);
    int64_t shares = min64(down, pieces((int64_t)4 * omp_get_max_threads(), across));
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t t = 0; t < shares * across; t++) {
        int64_t column = t / shares * columns, width = min64(columns, g->n - column);
        gemm own = CPU(gemm_strip)(g, column, width);
        for (int64_t row = t % shares * rows; row < g->m; row += shares * rows)
            tile(&own, column, row, min64(rows, g->m - row), column, width);
    }
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
    if (g->quant) {
        multiply_quantised(g, rows, columns);
        return;
    }
    int64_t down = pieces(g->m, rows), across = pieces(g->n, columns);
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t t = 0; t < down * across; t++) {
        int64_t row = t % down * rows, column = t / down * columns;
        tile(g, 0, row, min64(rows, g->m - row), column, min64(columns, g->n - column));
    }
}

size_t CPU(gemm_work)(int threads) { return (size_t)threads * espl__matmul_work(REAL_DTYPE); }

size_t CPU(gemm_quant_work)(int threads, int64_t k, int64_t unit) {
    return (size_t)threads * (espl__matmul_work(REAL_DTYPE) + strip_bytes(k, unit));
}
