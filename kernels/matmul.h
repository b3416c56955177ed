/* One tile of a matrix product by a library, in the calling thread alone; for kernels/cpu.
 *
 * fp32 goes to the site's CBLAS. bf16 goes to oneDNN where the CPU multiplies bf16 in hardware (avx512_bf16, amx); elsewhere
 * tiles are converted to float and go to the CBLAS. The choice depends on the CPU's features alone, so the bits of a
 * run can be had again. */
#ifndef ESPL_KERNELS_MATMUL_H
#define ESPL_KERNELS_MATMUL_H

#include "src/core/dtype.h"

#include <stdbool.h>
#include <stdint.h>

/* C[m,n] (+)= alpha op(A)[m,k] op(B)[k,n], row-major. */
typedef struct espl_matmul {
    int64_t m, n, k, lda, ldb, ldc;
    bool trans_a, trans_b, add;
    float alpha;
    const void *a, *b;
    void *c;
    espl_dtype c_dtype;
} espl_matmul;

/* Local. A, B and C float. */
void espl__matmul_fp32(const espl_matmul *t);

/* Local. A and B bf16, C bf16 or float. `work` is espl__matmul_work() bytes of the calling thread. */
void espl__matmul_bf16(const espl_matmul *t, void *work);

/* Local. Bytes of work a thread. */
size_t espl__matmul_work(espl_dtype real);

/* Local. Whether oneDNN multiplies bf16 on this CPU; tests may turn it off. */
bool espl__matmul_native_bf16(void);
void espl__matmul_forbid_bf16(bool forbid);

/* Local. As espl__matmul_bf16 by oneDNN. Primitives are made at the first use of a shape in a thread and kept. */
void espl__matmul_onednn(const espl_matmul *t);

#endif
