#include "kernels/cuda/gemm_lt.h"

#include "kernels/cuda/state.h"

#include <cublasLt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A shape stands within PROBES slots of where its hash points; when they are taken, the first makes room (shapes of generation come and
 * go). */
enum { SLOTS = 512, PROBES = 8, CANDIDATES = 8, RUNS = 3, LARGEST_ALIGNMENT = 256 };

/* All that the choice of an algorithm may depend on; no padding bytes, so that shapes can be compared by memcmp. */
typedef struct shape {
    int64_t m, n, k, lda, ldb, ldc, ld_aux;
    uint16_t align_a, align_b, align_c, align_bias, align_aux;
    uint8_t in, out, trans_a, trans_b, epilogue, unused;
} shape;

_Static_assert(sizeof(shape) == 7 * 8 + 5 * 2 + 6, "shapes have no padding");

typedef struct entry {
    bool used, settled; /* settled: not to be timed any more */
    shape shape;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} entry;

static struct {
    cublasLtHandle_t handle;
    bool timing, show;
    espl__gemm_counts counts;
    entry slots[SLOTS];
} lt;

static bool good(cublasStatus_t status, const char *what, const espl__gemm *g) {
    char where[160];
    if (status == CUBLAS_STATUS_SUCCESS)
        return true;
    snprintf(where, sizeof where, "%s, product [%lld,%lld] of k = %lld, %s to %s", what, (long long)g->m, (long long)g->n, (long long)g->k,
             g->in == ESPL_F32 ? "fp32" : "bf16", g->out == ESPL_F32 ? "fp32" : "bf16");
    espl__cuda_note_text(where, cublasLtGetStatusString(status));
    return false;
}

static bool opened(const espl__gemm *g) {
    if (lt.handle)
        return true;
    const char *tune = getenv("ESPL_CUDA_TUNE");
    lt.timing = !tune || strcmp(tune, "0") != 0;
    lt.show = tune && strcmp(tune, "show") == 0;
    return good(cublasLtCreate(&lt.handle), "cublasLtCreate", g);
}

static uint16_t alignment(const void *p) {
    uintptr_t bits = (uintptr_t)p | LARGEST_ALIGNMENT;
    return p ? (uint16_t)(bits & -bits) : LARGEST_ALIGNMENT;
}

static shape shape_of(const espl__gemm *g) {
    return (shape){.m = g->m,
                   .n = g->n,
                   .k = g->k,
                   .lda = g->lda,
                   .ldb = g->ldb,
                   .ldc = g->ldc,
                   .ld_aux = g->ld_aux,
                   .align_a = alignment(g->a),
                   .align_b = alignment(g->b),
                   .align_c = alignment(g->c),
                   .align_bias = alignment(g->bias),
                   .align_aux = alignment(g->aux),
                   .in = (uint8_t)g->in,
                   .out = (uint8_t)g->out,
                   .trans_a = g->trans_a,
                   .trans_b = g->trans_b,
                   .epilogue = (uint8_t)g->epilogue};
}

static uint64_t hash_of(const shape *s) {
    const unsigned char *bytes = (const unsigned char *)s;
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < sizeof *s; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

static cudaDataType_t type_of(espl_dtype format) { return format == ESPL_F32 ? CUDA_R_32F : CUDA_R_16BF; }

static bool set(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t name, const void *value, size_t size, const espl__gemm *g) {
    return good(cublasLtMatmulDescSetAttribute(product, name, value, size), "cublasLtMatmulDescSetAttribute", g);
}

/* The pointers are a call's own; the heuristic looks at how they are aligned. */
static bool set_pointers(const entry *e, const espl__gemm *g) {
    bool bias = g->epilogue == ESPL__BIAS || g->epilogue == ESPL__GELU_BIAS, aux = g->epilogue >= ESPL__GELU;
    return (!bias || set(e->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &g->bias, sizeof g->bias, g)) &&
           (!aux || set(e->product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &g->aux, sizeof g->aux, g));
}

/* cuBLASLt thinks in columns: what is row-major here is its transpose there. So it computes C^T = op(B)^T op(A)^T, its A is our B, and
 * a bias along our columns is one along its rows, as it wants it. */
static bool make_product(entry *e, const espl__gemm *g) {
    static const cublasLtEpilogue_t epilogues[] = {[ESPL__PLAIN] = CUBLASLT_EPILOGUE_DEFAULT,
                                                   [ESPL__BIAS] = CUBLASLT_EPILOGUE_BIAS,
                                                   [ESPL__GELU] = CUBLASLT_EPILOGUE_GELU_AUX,
                                                   [ESPL__GELU_BIAS] = CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                                                   [ESPL__DGELU] = CUBLASLT_EPILOGUE_DGELU};
    int32_t op_a = g->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, op_b = g->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    uint32_t epilogue = (uint32_t)epilogues[g->epilogue];
    return good(cublasLtMatmulDescCreate(&e->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate", g) &&
           set(e->product, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a, g) &&
           set(e->product, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b, g) &&
           set(e->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, g) &&
           (g->ld_aux == 0 || set(e->product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &g->ld_aux, sizeof g->ld_aux, g)) && set_pointers(e, g);
}

static bool make_layout(cublasLtMatrixLayout_t *layout, espl_dtype format, int64_t rows, int64_t columns, int64_t ld, const espl__gemm *g) {
    return good(cublasLtMatrixLayoutCreate(layout, type_of(format), (uint64_t)columns, (uint64_t)rows, ld), "cublasLtMatrixLayoutCreate",
                g);
}

static bool make_layouts(entry *e, const espl__gemm *g) {
    return make_layout(&e->a, g->in, g->trans_b ? g->n : g->k, g->trans_b ? g->k : g->n, g->ldb, g) &&
           make_layout(&e->b, g->in, g->trans_a ? g->k : g->m, g->trans_a ? g->m : g->k, g->lda, g) &&
           make_layout(&e->c, g->out, g->m, g->n, g->ldc, g);
}

static bool prefer(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name, const void *value, size_t size,
                   const espl__gemm *g) {
    return good(cublasLtMatmulPreferenceSetAttribute(preference, name, value, size), "cublasLtMatmulPreferenceSetAttribute", g);
}

static bool set_preference(cublasLtMatmulPreference_t preference, const shape *s, const espl__gemm *g) {
    uint64_t workspace = ESPL_GEMM_WORK;
    uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE, a = s->align_b, b = s->align_a, c = s->align_c;
    return prefer(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace, g) &&
           prefer(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes, g) &&
           prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &a, sizeof a, g) &&
           prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &b, sizeof b, g) &&
           prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c, sizeof c, g) &&
           prefer(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c, sizeof c, g);
}

/* How many algorithms the heuristic knows, best first; 0 and a note when there is none. */
static int candidates_of(const entry *e, const espl__gemm *g, cublasLtMatmulHeuristicResult_t *results, int most) {
    cublasLtMatmulPreference_t preference = NULL;
    int n = 0;
    if (good(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate", g) &&
        set_preference(preference, &e->shape, g) &&
        good(cublasLtMatmulAlgoGetHeuristic(lt.handle, e->product, e->a, e->b, e->c, e->c, preference, most, results, &n),
             "cublasLtMatmulAlgoGetHeuristic", g) &&
        n == 0)
        good(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic", g);
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
    return n;
}

static void forget(entry *e) {
    if (e->product)
        cublasLtMatmulDescDestroy(e->product);
    for (int i = 0; i < 3; i++) {
        cublasLtMatrixLayout_t layout = i == 0 ? e->a : i == 1 ? e->b : e->c;
        if (layout)
            cublasLtMatrixLayoutDestroy(layout);
    }
    lt.counts.shapes -= e->used;
    memset(e, 0, sizeof *e);
}

static entry *make(entry *e, const shape *s, const espl__gemm *g) {
    cublasLtMatmulHeuristicResult_t first;
    lt.counts.evicted += e->used;
    forget(e);
    e->shape = *s;
    if (!make_product(e, g) || !make_layouts(e, g) || candidates_of(e, g, &first, 1) == 0) {
        forget(e);
        return NULL;
    }
    e->algorithm = first.algo;
    e->settled = !lt.timing;
    e->used = true;
    lt.counts.shapes++;
    lt.counts.made++;
    return e;
}

static entry *entry_of(const espl__gemm *g) {
    shape s = shape_of(g);
    uint64_t home = hash_of(&s);
    entry *place = NULL;
    for (uint64_t i = 0; i < PROBES; i++) {
        entry *e = &lt.slots[(home + i) % SLOTS];
        if (e->used && memcmp(&e->shape, &s, sizeof s) == 0)
            return set_pointers(e, g) ? e : NULL;
        if (!e->used && !place)
            place = e;
    }
    return make(place ? place : &lt.slots[home % SLOTS], &s, g);
}

static cublasStatus_t multiply(const entry *e, const espl__gemm *g, const cublasLtMatmulAlgo_t *algorithm) {
    float beta = g->add ? 1.0f : 0.0f;
    return cublasLtMatmul(lt.handle, e->product, &g->alpha, g->b, e->a, g->a, e->b, &beta, g->c, e->c, g->c, e->c, algorithm, g->work,
                          ESPL_GEMM_WORK, espl__cuda->compute);
}

/* Generation's shapes do not come again; a recording cannot be waited for; adding again and again would change C. */
static bool may_be_timed(const entry *e, const espl__gemm *g) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    return !e->settled && !g->add && espl__cuda_is_whole() && cudaStreamIsCapturing(espl__cuda->compute, &capture) == cudaSuccess &&
           capture == cudaStreamCaptureStatusNone;
}

bool espl__cuda_digest_of(const void *x, int64_t element, int64_t rows, int64_t columns, int64_t ld, void *work, espl__digest *d) {
    uint64_t partial[2 * ESPL_DIGEST_BLOCKS];
    *d = (espl__digest){0};
    int blocks = espl__cuda_digest(x, element, rows, columns, ld, work);
    if (cudaMemcpyAsync(partial, work, sizeof partial, cudaMemcpyDeviceToHost, espl__cuda->compute) != cudaSuccess ||
        cudaStreamSynchronize(espl__cuda->compute) != cudaSuccess)
        return false;
    for (int b = 0; b < blocks; b++) {
        d->sum += partial[2 * b];
        d->not_zero += partial[2 * b + 1];
    }
    return true;
}

/* Of C as it is now; the product's work is free. */
static bool digest_of(const espl__gemm *g, espl__digest *d) {
    return espl__cuda_digest_of(g->c, espl__real_size(g->out), g->m, g->n, g->ldc, g->work, d);
}

/* The least milliseconds of RUNS, or a negative number when the algorithm does not run. */
static float milliseconds(const entry *e, const espl__gemm *g, const cublasLtMatmulAlgo_t *algorithm, cudaEvent_t begin, cudaEvent_t end) {
    float least = -1.0f, ms;
    for (int run = 0; run < RUNS; run++) {
        cudaEventRecord(begin, espl__cuda->compute);
        if (multiply(e, g, algorithm) != CUBLAS_STATUS_SUCCESS)
            return -1.0f;
        cudaEventRecord(end, espl__cuda->compute);
        if (cudaEventSynchronize(end) != cudaSuccess || cudaEventElapsedTime(&ms, begin, end) != cudaSuccess)
            return -1.0f;
        least = least < 0.0f || ms < least ? ms : least;
    }
    return least;
}

static void show(const shape *s, int candidate, const char *what, float ms) {
    if (lt.show)
        fprintf(stderr, "product [%lld,%lld] k %lld%s%s, %d to %d bytes, epilogue %d: candidate %d %s %.4f ms\n", (long long)s->m,
                (long long)s->n, (long long)s->k, s->trans_a ? " A^T" : "", s->trans_b ? " B^T" : "",
                (int)espl__real_size((espl_dtype)s->in), (int)espl__real_size((espl_dtype)s->out), s->epilogue, candidate, what,
                (double)ms);
}

/* Runs a candidate. Returns its milliseconds, or a negative number when it fails or its bits are not `first`, which candidate 0 fills. */
static float try_candidate(entry *e, const espl__gemm *g, int i, const cublasLtMatmulAlgo_t *algorithm, espl__digest *first,
                           cudaEvent_t event[2]) {
    espl__digest now;
    if (multiply(e, g, algorithm) != CUBLAS_STATUS_SUCCESS || !digest_of(g, &now)) {
        show(&e->shape, i, "does not run", 0.0f);
        return -1.0f;
    }
    if (i == 0)
        *first = now;
    if (now.sum != first->sum) {
        show(&e->shape, i, "has other bits", 0.0f);
        return -1.0f;
    }
    float ms = milliseconds(e, g, algorithm, event[0], event[1]);
    show(&e->shape, i, "took", ms);
    return ms;
}

/* How many values must be equal before sums are taken to be made in the same order. Another order changes the last bit of about every
 * second fp32 sum, but rounding to bf16 hides that in all but one of some 2^16 values. */
static uint64_t telling(const espl__gemm *g) { return g->out == ESPL_BF16 ? (uint64_t)1 << 22 : 256; }

/* The fastest of those with the first one's bits. Where too few values that are not zero could show another order, the first stays. */
static void choose(entry *e, const espl__gemm *g, cudaEvent_t event[2]) {
    cublasLtMatmulHeuristicResult_t results[CANDIDATES];
    espl__digest first = {0, 0};
    float least = -1.0f;
    int n = candidates_of(e, g, results, CANDIDATES);
    for (int i = 0; i < n && (i == 0 || first.not_zero >= telling(g)); i++) {
        float ms = try_candidate(e, g, i, &results[i].algo, &first, event);
        if (ms >= 0.0f && (least < 0.0f || ms < least)) {
            least = ms;
            e->algorithm = results[i].algo;
        }
    }
    lt.counts.timed++;
}

static void time_candidates(entry *e, const espl__gemm *g) {
    cudaEvent_t event[2] = {NULL, NULL};
    e->settled = true;
    if (cudaEventCreate(&event[0]) == cudaSuccess && cudaEventCreate(&event[1]) == cudaSuccess)
        choose(e, g, event);
    for (int i = 0; i < 2; i++)
        if (event[i])
            cudaEventDestroy(event[i]);
}

void espl__cuda_gemm(const espl__gemm *g) {
    if (g->m == 0 || g->n == 0 || !opened(g))
        return;
    entry *e = entry_of(g);
    if (!e)
        return;
    if (may_be_timed(e, g))
        time_candidates(e, g);
    good(multiply(e, g, &e->algorithm), "cublasLtMatmul", g);
}

void espl__cuda_gemm_close(void) {
    for (int i = 0; i < SLOTS; i++)
        forget(&lt.slots[i]);
    if (lt.handle)
        cublasLtDestroy(lt.handle);
    memset(&lt, 0, sizeof lt);
}

size_t espl__cuda_gemm_version(void) { return cublasLtGetVersion(); }

espl__gemm_counts espl__cuda_gemm_counts(void) { return lt.counts; }
