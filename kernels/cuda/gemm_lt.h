/* Matrix products on the GPU: cuBLASLt for row-major matrices. No other file includes cublasLt.h.
 *
 * What a shape needs - descriptors, layouts, the algorithm - is made at its first product and kept. Algorithms are those that give the same
 * bits every time: parts of k that are summed apart come together in fp32, in a second pass (never by atomics).
 *
 * The first candidate of cuBLASLt's heuristic is what runs, unless another is faster and gives the same bits: the first product of a shape
 * that overwrites C, outside a recording and on a whole micro-batch, runs the candidates on its own operands, drops those whose result
 * differs in any bit from the first one's, and times the rest; a result too small to show a difference keeps the first one. So bits depend
 * on the device and on the library's version, and on nothing that was measured. ESPL_CUDA_TUNE=0 takes the first candidate at once;
 * ESPL_CUDA_TUNE=show writes what was tried to stderr. */
#ifndef ESPL_KERNELS_CUDA_GEMM_LT_H
#define ESPL_KERNELS_CUDA_GEMM_LT_H

#include "kernels/cuda_matmul_work.h"
#include "kernels/kernels.h"
#include "src/core/export.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum espl__epilogue {
    ESPL__PLAIN,
    ESPL__BIAS,      /* C = product + bias; bias [n] of C's format */
    ESPL__GELU,      /* aux = product; C = gelu_tanh(aux) */
    ESPL__GELU_BIAS, /* aux = product + bias; C = gelu_tanh(aux) */
    ESPL__DGELU      /* C = product * gelu_tanh'(aux) */
} espl__epilogue;

/* C[m,n] = alpha op(A)[m,k] op(B)[k,n], or C += that. op: transposed or not; as A is stored its rows are lda apart. Sums in fp32. */
typedef struct espl__gemm {
    int64_t m, n, k, lda, ldb, ldc;
    bool trans_a, trans_b, add; /* add: with ESPL__PLAIN only */
    float alpha;
    const void *a, *b;
    void *c;
    espl_dtype in, out; /* of A and B, of C: fp32 and fp32, bf16 and bf16, bf16 and fp32 */
    espl__epilogue epilogue;
    const void *bias;
    void *aux; /* [m, ld_aux] of C's format; ld_aux a multiple of 8 */
    int64_t ld_aux;
    void *work; /* ESPL_GEMM_WORK bytes, 256-aligned */
} espl__gemm;

/* Local. Bytes of an element of fp32 or bf16. */
static inline int64_t espl__real_size(espl_dtype real) { return real == ESPL_F32 ? 4 : 2; }

/* Local. Puts the product on the compute stream; what fails is noted (state.h). Exported, as the counts are, for tests. */
ESPL_EXPORT void espl__cuda_gemm(const espl__gemm *g);

/* Local. Frees what was kept, for the device that closes; the next product begins anew. */
void espl__cuda_gemm_close(void);

/* Local. The library's version, as 130100; for logs and guards. */
size_t espl__cuda_gemm_version(void);

/* What the cache holds and did, for tests. */
typedef struct espl__gemm_counts {
    int64_t shapes, made, timed, evicted;
} espl__gemm_counts;

/* Local. Since the device was opened. */
ESPL_EXPORT espl__gemm_counts espl__cuda_gemm_counts(void);

enum { ESPL_DIGEST_BLOCKS = 256 };

/* Local. For every block b of those that it takes (it returns how many), partial[2 b]: a sum over elements of a hash of value and place,
 * partial[2 b + 1]: elements that are not zero. X [rows, columns] of 2 or 4 bytes, rows ld elements apart. */
int espl__cuda_digest(const void *x, int64_t element, int64_t rows, int64_t columns, int64_t ld, uint64_t *partial);

typedef struct espl__digest {
    uint64_t sum, not_zero;
} espl__digest;

/* Local. The same, summed over blocks; waits for it. `work`: 16 ESPL_DIGEST_BLOCKS bytes of the device. False when something failed. */
bool espl__cuda_digest_of(const void *x, int64_t element, int64_t rows, int64_t columns, int64_t ld, void *work, espl__digest *d);

#ifdef __cplusplus
}
#endif

#endif
