/* cuBLASLt: the product. */
#include "tests/emu/runtime/emu_engine.h"
#include "tests/emu/runtime/lt.h"
#include "tests/emu/simt/device_memory.h"
#include "tests/emu/simt/fault.h"

#include <cblas.h>
#include <cmath>
#include <cstring>

extern "C" void openblas_set_num_threads(int n) __attribute__((weak));

namespace lt {

using matrix = std::vector<float>;

static float load(const void *p, int32_t type, size_t i) {
    if (type == CUDA_R_32F)
        return static_cast<const float *>(p)[i];
    uint32_t bits = (uint32_t) static_cast<const uint16_t *>(p)[i] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* To the nearest, ties to even. */
static void store(void *p, int32_t type, size_t i, float x) {
    if (type == CUDA_R_32F) {
        static_cast<float *>(p)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t rounded = x != x ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    static_cast<uint16_t *>(p)[i] = (uint16_t)rounded;
}

static const void *at(const void *p, const layout &l, int batch) {
    return static_cast<const char *>(p) + (size_t)batch * (size_t)l.stride * bytes_of(l.type);
}

static size_t extent(const layout &l) {
    return (((size_t)(l.batches - 1) * (size_t)l.stride) + (l.cols - 1) * (size_t)l.ld + l.rows) * bytes_of(l.type);
}

/* Packed, as fp32. */
static matrix widen(const void *p, const layout &l) {
    matrix packed(l.rows * l.cols);
    for (size_t j = 0; j < l.cols; j++)
        for (size_t i = 0; i < l.rows; i++)
            packed[j * l.rows + i] = load(p, l.type, j * (size_t)l.ld + i);
    return packed;
}

static float gelu(float x) {
    const float c = 0.7978845608028654f, d = 0.044715f; /* sqrt(2/pi); the tanh form of Hendrycks & Gimpel 2016 */
    return 0.5f * x * (1.0f + tanhf(c * (x + d * x * x * x)));
}

static float dgelu(float x) {
    const float c = 0.7978845608028654f, d = 0.044715f;
    float t = tanhf(c * (x + d * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * c * (1.0f + 3.0f * d * x * x);
}

/* sums = op(A) op(B) over k in [from, to). */
static void accumulate(const problem &p, const matrix &a, const matrix &b, uint64_t from, uint64_t to, float *sums) {
    bool trans_a = p.how.trans_a != CUBLAS_OP_N, trans_b = p.how.trans_b != CUBLAS_OP_N;
    const float *a_at = a.data() + (trans_a ? from : from * p.a.rows), *b_at = b.data() + (trans_b ? from * p.b.rows : from);
    cblas_sgemm(CblasColMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, (int)p.m, (int)p.n,
                (int)(to - from), 1.0f, a_at, (int)p.a.rows, b_at, (int)p.b.rows, 0.0f, sums, (int)p.m);
}

static void sums_of(const problem &p, const matrix &a, const matrix &b, variant how, float *workspace, matrix *sums) {
    if (how != split_k) {
        accumulate(p, a, b, 0, p.k, sums->data());
        return;
    }
    accumulate(p, a, b, 0, p.k / 2, workspace);
    accumulate(p, a, b, p.k / 2, p.k, sums->data());
    for (size_t i = 0; i < sums->size(); i++)
        (*sums)[i] += workspace[i];
}

/* One element on its way into D; `x` is alpha op(A) op(B) + beta C. */
static float finish(const problem &p, float x, size_t row, size_t column, const void *bias, void *aux) {
    size_t at_aux = column * (size_t)p.how.ld_aux + row;
    if (has_bias(p))
        x += load(bias, bias_type(p), row);
    if (p.how.epilogue & 128 && has_gelu(p))
        store(aux, aux_type(p), at_aux, x);
    if (has_gelu(p))
        return gelu(x);
    return has_dgelu(p) ? x * dgelu(load(aux, aux_type(p), at_aux)) : x;
}

/* Sums over k of op(A) for each of m, of op(B) for each of n, or over n of what went into D. */
static void bias_gradient(const problem &p, const matrix &a, const matrix &b, const matrix &result, void *bias) {
    bool of_b = p.how.epilogue == CUBLASLT_EPILOGUE_BGRADB, of_a = p.how.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    bool trans_a = p.how.trans_a != CUBLAS_OP_N, trans_b = p.how.trans_b != CUBLAS_OP_N;
    for (size_t i = 0; i < (of_b ? p.n : p.m); i++) {
        float sum = 0.0f;
        for (size_t j = 0; j < (of_a || of_b ? p.k : p.n); j++)
            sum += of_a   ? a[trans_a ? i * p.a.rows + j : j * p.a.rows + i]
                   : of_b ? b[trans_b ? j * p.b.rows + i : i * p.b.rows + j]
                          : result[j * p.m + i];
        store(bias, bias_type(p), i, sum);
    }
}

static void note_written(const problem &p, void *d, void *bias, void *aux) {
    for (size_t j = 0; j < p.n; j++) {
        emu_memory_written(static_cast<char *>(d) + j * (size_t)p.d.ld * bytes_of(p.d.type), p.m * bytes_of(p.d.type));
        if (has_gelu(p) && p.how.epilogue & 128)
            emu_memory_written(static_cast<char *>(aux) + j * (size_t)p.how.ld_aux * bytes_of(aux_type(p)), p.m * bytes_of(aux_type(p)));
    }
    if (has_bias_gradient(p))
        emu_memory_written(bias, (p.how.epilogue == CUBLASLT_EPILOGUE_BGRADB ? p.n : p.m) * bytes_of(bias_type(p)));
}

static void multiply_one(const problem &p, const operands &with, variant how, int batch) {
    matrix a = widen(at(with.a, p.a, batch), p.a), b = widen(at(with.b, p.b, batch), p.b), sums(p.m * p.n);
    const void *c = at(with.c, p.c, batch);
    void *d = const_cast<void *>(at(with.d, p.d, batch));
    void *bias = static_cast<char *>(p.how.bias) + (size_t)batch * (size_t)p.how.bias_stride * bytes_of(bias_type(p));
    void *aux = static_cast<char *>(p.how.aux) + (size_t)batch * (size_t)p.how.aux_stride * bytes_of(aux_type(p));
    sums_of(p, a, b, how, static_cast<float *>(with.workspace), &sums);
    for (size_t j = 0; j < p.n; j++)
        for (size_t i = 0; i < p.m; i++) {
            float x = with.alpha * sums[j * p.m + i];
            if (with.beta != 0.0f) /* else C is not read */
                x += with.beta * load(c, p.c.type, j * (size_t)p.c.ld + i);
            sums[j * p.m + i] = x = finish(p, x, i, j, bias, aux);
            store(d, p.d.type, j * (size_t)p.d.ld + i, x);
        }
    if (has_bias_gradient(p))
        bias_gradient(p, a, b, sums, bias);
    note_written(p, d, bias, aux);
}

/* A GPU would find this when it runs; by then it is a kernel's fault. */
static bool in_reach(const problem &p, const operands &with) {
    struct {
        const char *name;
        const void *p;
        size_t bytes;
    } all[] = {{"A", with.a, extent(p.a)},
               {"B", with.b, extent(p.b)},
               {"C", with.c, with.beta != 0.0f ? extent(p.c) : 0},
               {"D", with.d, extent(p.d)}};
    for (const auto &one : all)
        if (one.bytes > 0 && !rt::in_device(one.p, one.bytes)) {
            emu_fault(cudaErrorIllegalAddress, "cublasLtMatmul: %s, %zu bytes at %p, does not lie in one allocation of the device",
                      one.name, one.bytes, one.p);
            return false;
        }
    return true;
}

void multiply(const problem &p, const operands &with, variant how) {
    if (!in_reach(p, with))
        return;
    if (openblas_set_num_threads)
        openblas_set_num_threads(1);
    for (int batch = 0; batch < p.a.batches; batch++)
        multiply_one(p, with, how, batch);
}

static bool aligned(const void *p, size_t to) { return (uintptr_t)p % to == 0; }

/* An algorithm must be for this problem, and the operands as aligned as it was told. */
static cublasStatus_t check_algorithm(const problem &p, const algorithm &chosen, const operands &with, size_t workspace_bytes) {
    if (chosen.made_by_us != ours || chosen.variant >= n_variants)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (chosen.shape != shape_of(p))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (chosen.workspace > workspace_bytes || (chosen.workspace > 0 && (!with.workspace || !aligned(with.workspace, 16))))
        return CUBLAS_STATUS_INVALID_VALUE;
    bool fits = aligned(with.a, chosen.align_a) && aligned(with.b, chosen.align_b) && aligned(with.d, chosen.align_d) &&
                (with.beta == 0.0f || aligned(with.c, chosen.align_c));
    return fits ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static cublasStatus_t choose(const problem &p, const cublasLtMatmulAlgo_t *given, algorithm *chosen) {
    if (given) {
        memcpy(chosen, given, sizeof *chosen);
        return CUBLAS_STATUS_SUCCESS;
    }
    algorithm found[n_variants]; /* as if asked with the default preference */
    const preference defaults = {0, CUBLASLT_REDUCTION_SCHEME_MASK, 256, 256, 256, 256, 0, ~0ull};
    if (algorithms(p, defaults, found) == 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *chosen = found[0];
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t check_pointers(const problem &p, const operands &with) {
    bool aux = p.how.epilogue & 128;
    if (!with.a || !with.b || !with.d || (with.beta != 0.0f && !with.c))
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((has_bias(p) || has_bias_gradient(p)) && !p.how.bias)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (aux && (!p.how.aux || !aligned(p.how.aux, 16)))
        return CUBLAS_STATUS_INVALID_VALUE;
    /* D may be C, when they are laid out alike */
    if (with.c == with.d && with.beta != 0.0f && p.c.ld != p.d.ld)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

} // namespace lt

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t computeDesc, const void *alpha, const void *A,
                              cublasLtMatrixLayout_t Adesc, const void *B, cublasLtMatrixLayout_t Bdesc, const void *beta, const void *C,
                              cublasLtMatrixLayout_t Cdesc, void *D, cublasLtMatrixLayout_t Ddesc, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspaceSizeInBytes, cudaStream_t stream) {
    lt::problem p;
    lt::algorithm chosen;
    if (!lightHandle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    cublasStatus_t status = lt::pose(&p, computeDesc, Adesc, Bdesc, Cdesc, Ddesc);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (!alpha || !beta)
        return CUBLAS_STATUS_INVALID_VALUE;
    lt::operands with = {*static_cast<const float *>(alpha), *static_cast<const float *>(beta), A, B, C, D, workspace};
    if ((status = lt::check_pointers(p, with)) != CUBLAS_STATUS_SUCCESS ||
        (status = lt::choose(p, algo, &chosen)) != CUBLAS_STATUS_SUCCESS ||
        (status = lt::check_algorithm(p, chosen, with, workspaceSizeInBytes)) != CUBLAS_STATUS_SUCCESS)
        return status;
    if (emu_sticky_error() != cudaSuccess)
        return CUBLAS_STATUS_EXECUTION_FAILED;
    auto how = (lt::variant)chosen.variant;
    emu_enqueue(stream, "cublasLtMatmul", [p, with, how] { lt::multiply(p, with, how); });
    return CUBLAS_STATUS_SUCCESS;
}
