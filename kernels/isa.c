#include "kernels/kernels.h"

#include "kernels/matmul.h"
#include "src/core/status.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Only OpenBLAS has these; another CBLAS links too. */
extern void openblas_set_num_threads(int n) __attribute__((weak));
extern char *openblas_get_corename(void) __attribute__((weak));

/* CMake says which sets are compiled: ESPL_SET_portable, ... */
#if defined(ESPL_SET_avx512)
extern const espl_kernels espl__cpu_table_avx512_fp32, espl__cpu_table_avx512_bf16;

static bool has_avx512(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

#if defined(ESPL_SET_avx2)
extern const espl_kernels espl__cpu_table_avx2_fp32, espl__cpu_table_avx2_bf16;

static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

#if defined(ESPL_SET_portable)
extern const espl_kernels espl__cpu_table_portable_fp32, espl__cpu_table_portable_bf16;

static bool has_any(void) { return true; }
#endif

/* Best first. */
static const struct {
    const char *name;
    bool (*present)(void);
    const espl_kernels *fp32, *bf16;
} sets[] = {
#if defined(ESPL_SET_avx512)
    {"avx512", has_avx512, &espl__cpu_table_avx512_fp32, &espl__cpu_table_avx512_bf16},
#endif
#if defined(ESPL_SET_avx2)
    {"avx2", has_avx2, &espl__cpu_table_avx2_fp32, &espl__cpu_table_avx2_bf16},
#endif
#if defined(ESPL_SET_portable)
    {"portable", has_any, &espl__cpu_table_portable_fp32, &espl__cpu_table_portable_bf16},
#endif
};

enum { N_SETS = sizeof sets / sizeof *sets };

static int n_threads;

const espl_kernels *espl_kernels_cpu_isa(const char *isa, espl_dtype real) {
    for (int i = 0; i < N_SETS; i++)
        if (strcmp(sets[i].name, isa) == 0 && sets[i].present())
            return real == ESPL_F32 ? sets[i].fp32 : real == ESPL_BF16 ? sets[i].bf16 : NULL;
    return NULL;
}

static int best_set(void) {
    int i = 0;
    while (i < N_SETS && !sets[i].present())
        i++;
    ESPL_ASSERT(i < N_SETS, "this CPU has none of the instruction sets that this program was built for (ESPL_KERNEL_SETS)");
    return i;
}

const espl_kernels *espl_kernels_cpu(espl_dtype real) { return espl_kernels_cpu_isa(sets[best_set()].name, real); }

void espl_kernels_set_threads(int n) {
    ESPL_ASSERT(n > 0, "%d threads", n);
    n_threads = n;
    omp_set_dynamic(0);
    omp_set_num_threads(n);
    if (openblas_set_num_threads)
        openblas_set_num_threads(1); /* our threads call it, tile by tile */
}

int espl_kernels_threads(void) { return n_threads > 0 ? n_threads : omp_get_max_threads(); }

/* OpenBLAS chooses its kernels when it is loaded; an OPENBLAS_CORETYPE left in the environment can halve its speed, so it is shown. */
static const char *blas_choice(void) {
    static char line[96];
    const char *set = getenv("OPENBLAS_CORETYPE");
    if (!openblas_get_corename)
        return "of the site";
    snprintf(line, sizeof line, "OpenBLAS for %s%s", openblas_get_corename(), set && *set ? " (set by OPENBLAS_CORETYPE)" : "");
    return line;
}

const char *espl_kernels_describe(void) {
    static char line[256];
    snprintf(line, sizeof line, "%s, %d threads, BLAS %s, bf16 by %s", sets[best_set()].name, espl_kernels_threads(), blas_choice(),
             espl__matmul_native_bf16() ? "oneDNN" : "conversion to float");
    return line;
}
