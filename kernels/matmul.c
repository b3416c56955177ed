#include "kernels/matmul.h"

#include "src/core/status.h"

#include <cblas.h>

/* Tiles that are converted: rows, columns and depth of what is held in float. */
enum { SIDE = 512, DEPTH = 512 };

static bool forbidden;

static void multiply(const espl_matmul *t, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb,
                     float beta, float *c, int64_t ldc) {
    cblas_sgemm(CblasRowMajor, t->trans_a ? CblasTrans : CblasNoTrans, t->trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k,
                t->alpha, a, (int)lda, b, (int)ldb, beta, c, (int)ldc);
}

void espl__matmul_fp32(const espl_matmul *t) {
    multiply(t, t->m, t->n, t->k, t->a, t->lda, t->b, t->ldb, t->add ? 1.0f : 0.0f, t->c, t->ldc);
}

/* rows x columns of bf16 at x, to float, packed. */
static void widen(const espl_bf16 *x, int64_t ld, int64_t rows, int64_t columns, float *to) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[i * columns + j] = espl_bf16_to_float(x[i * ld + j]);
}

static void put_tile(const espl_matmul *t, const float *c) {
    for (int64_t i = 0; i < t->m; i++)
        for (int64_t j = 0; j < t->n; j++) {
            float x = c[i * t->n + j];
            int64_t at = i * t->ldc + j;
            if (t->c_dtype == ESPL_F32)
                ((float *)t->c)[at] = t->add ? ((float *)t->c)[at] + x : x;
            else
                ((espl_bf16 *)t->c)[at] = espl_bf16_from_float(t->add ? espl_bf16_to_float(((espl_bf16 *)t->c)[at]) + x : x);
        }
}

static void by_conversion(const espl_matmul *t, float *work) {
    float *a = work, *b = a + SIDE * DEPTH, *c = b + SIDE * DEPTH;
    const espl_bf16 *from_a = t->a, *from_b = t->b;
    ESPL_ASSERT(t->m <= SIDE && t->n <= SIDE, "a tile of %lld x %lld", (long long)t->m, (long long)t->n);
    for (int64_t k = 0; k < t->k; k += DEPTH) {
        int64_t depth = t->k - k < DEPTH ? t->k - k : DEPTH;
        int64_t a_rows = t->trans_a ? depth : t->m, a_columns = t->trans_a ? t->m : depth;
        int64_t b_rows = t->trans_b ? t->n : depth, b_columns = t->trans_b ? depth : t->n;
        widen(from_a + (t->trans_a ? k * t->lda : k), t->lda, a_rows, a_columns, a);
        widen(from_b + (t->trans_b ? k : k * t->ldb), t->ldb, b_rows, b_columns, b);
        multiply(t, t->m, t->n, depth, a, a_columns, b, b_columns, k > 0 ? 1.0f : 0.0f, c, t->n);
    }
    put_tile(t, c);
}

void espl__matmul_bf16(const espl_matmul *t, void *work) {
    if (espl__matmul_native_bf16())
        espl__matmul_onednn(t);
    else
        by_conversion(t, work);
}

size_t espl__matmul_work(espl_dtype real) {
    return real == ESPL_BF16 && !espl__matmul_native_bf16() ? (2 * SIDE * DEPTH + SIDE * SIDE) * sizeof(float) : 0;
}

bool espl__matmul_native_bf16(void) {
#if defined(__x86_64__)
    return !forbidden && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

void espl__matmul_forbid_bf16(bool forbid) { forbidden = forbid; }
