/* cuBLASLt: which products can be computed, and by which algorithms. */
#include "tests/emu/runtime/emu_engine.h"
#include "tests/emu/runtime/lt.h"

#include <algorithm>
#include <cstring>

namespace lt {

constexpr uint64_t least_split = 32;
constexpr uint32_t vector_bytes = 16;

size_t bytes_of(int32_t type) { return type == CUDA_R_32F ? 4 : 2; }
int32_t bias_type(const problem &p) { return p.how.bias_type < 0 ? p.d.type : p.how.bias_type; }
int32_t aux_type(const problem &p) { return p.how.aux_type < 0 ? p.d.type : p.how.aux_type; }
bool has_gelu(const problem &p) { return p.how.epilogue & CUBLASLT_EPILOGUE_GELU; }
bool has_dgelu(const problem &p) { return p.how.epilogue & 64; }
bool has_bias(const problem &p) { return p.how.epilogue & CUBLASLT_EPILOGUE_BIAS; }
bool has_bias_gradient(const problem &p) { return p.how.epilogue & (16 | CUBLASLT_EPILOGUE_BGRADA | CUBLASLT_EPILOGUE_BGRADB); }

static bool has_aux(const problem &p) { return p.how.epilogue & 128; }

static bool known_epilogue(uint32_t epilogue) {
    static const uint32_t known[] = {CUBLASLT_EPILOGUE_DEFAULT,  CUBLASLT_EPILOGUE_BIAS,        CUBLASLT_EPILOGUE_GELU,
                                     CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_BIAS,   CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                                     CUBLASLT_EPILOGUE_DGELU,    CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,
                                     CUBLASLT_EPILOGUE_BGRADB};
    return std::find(std::begin(known), std::end(known), epilogue) != std::end(known);
}

static bool shaped(const layout &l, uint64_t rows, uint64_t cols) {
    return l.rows == rows && l.cols == cols && l.ld >= (int64_t)rows && rows > 0 && cols > 0;
}

static bool formats_supported(const problem &p) {
    bool fp32 = p.a.type == CUDA_R_32F && p.b.type == CUDA_R_32F, bf16 = p.a.type == CUDA_R_16BF && p.b.type == CUDA_R_16BF;
    bool result = p.c.type == p.d.type && (p.d.type == CUDA_R_32F || (bf16 && p.d.type == CUDA_R_16BF));
    bool compute = p.how.compute == CUBLAS_COMPUTE_32F || p.how.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                   (fp32 && (p.how.compute == CUBLAS_COMPUTE_32F_FAST_TF32 || p.how.compute == CUBLAS_COMPUTE_32F_FAST_16BF));
    auto given = [](int32_t type) { return type == CUDA_R_32F || type == CUDA_R_16BF; };
    return (fp32 || bf16) && result && compute && p.how.scale == CUDA_R_32F && given(bias_type(p)) && given(aux_type(p)) &&
           (fp32 ? bias_type(p) == CUDA_R_32F && aux_type(p) == CUDA_R_32F : true);
}

/* An epilogue's own operands, as the comments on CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD and _POINTER say. */
static cublasStatus_t check_epilogue(const problem &p) {
    if (!known_epilogue(p.how.epilogue))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (has_aux(p) && (p.how.ld_aux < (int64_t)p.m || p.how.ld_aux % 8 != 0))
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t pose(problem *p, cublasLtMatmulDesc_t how, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                    cublasLtMatrixLayout_t d) {
    if (!how || !a || !b || !c || !d)
        return CUBLAS_STATUS_INVALID_VALUE;
    *p = {*view(how), *view(a), *view(b), *view(c), *view(d), 0, 0, 0};
    bool trans_a = p->how.trans_a != CUBLAS_OP_N, trans_b = p->how.trans_b != CUBLAS_OP_N;
    p->m = trans_a ? p->a.cols : p->a.rows;
    p->k = trans_a ? p->a.rows : p->a.cols;
    p->n = trans_b ? p->b.rows : p->b.cols;
    for (const layout *l : {&p->a, &p->b, &p->c, &p->d})
        if (l->order != CUBLASLT_ORDER_COL)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    if (!shaped(p->a, trans_a ? p->k : p->m, trans_a ? p->m : p->k) || !shaped(p->b, trans_b ? p->n : p->k, trans_b ? p->k : p->n) ||
        !shaped(p->c, p->m, p->n) || !shaped(p->d, p->m, p->n))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p->a.batches < 1 || p->b.batches != p->a.batches || p->c.batches != p->a.batches || p->d.batches != p->a.batches)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!formats_supported(*p) || p->how.trans_c != CUBLAS_OP_N || p->how.pointer_mode != CUBLASLT_POINTER_MODE_HOST)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    return check_epilogue(*p);
}

uint64_t shape_of(const problem &p) {
    const uint64_t values[] = {p.m,
                               p.n,
                               p.k,
                               (uint64_t)p.a.ld,
                               (uint64_t)p.b.ld,
                               (uint64_t)p.c.ld,
                               (uint64_t)p.d.ld,
                               (uint64_t)p.a.type,
                               (uint64_t)p.d.type,
                               (uint64_t)p.a.batches,
                               p.how.epilogue,
                               (uint64_t)p.how.trans_a,
                               (uint64_t)p.how.trans_b};
    uint64_t hash = 0xcbf29ce484222325u;
    for (uint64_t v : values)
        hash = (hash ^ v) * 0x100000001b3u;
    return hash;
}

/* Vectors of 16 bytes where the caller promises it and the leading dimension keeps it; else elements. */
static uint32_t alignment_for(const layout &l, uint32_t promised) {
    size_t element = bytes_of(l.type);
    bool vectors = promised >= vector_bytes && (size_t)l.ld * element % vector_bytes == 0 &&
                   (l.batches == 1 || (size_t)l.stride * element % vector_bytes == 0);
    return vectors ? vector_bytes : (uint32_t)element;
}

int algorithms(const problem &p, const preference &wanted, algorithm found[n_variants]) {
    int n = 0;
    for (variant v : {plain, split_k, other_name}) {
        uint64_t workspace = v == split_k ? p.m * p.n * sizeof(float) : 0;
        if (v == split_k && (p.k < least_split || !(wanted.schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)))
            continue;
        if (workspace > wanted.workspace)
            continue;
        found[n++] = {ours,
                      v,
                      alignment_for(p.a, wanted.align_a),
                      alignment_for(p.b, wanted.align_b),
                      alignment_for(p.c, wanted.align_c),
                      alignment_for(p.d, wanted.align_d),
                      0,
                      workspace,
                      shape_of(p)};
    }
    return n;
}

} // namespace lt

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lightHandle, cublasLtMatmulDesc_t operationDesc,
                                              cublasLtMatrixLayout_t Adesc, cublasLtMatrixLayout_t Bdesc, cublasLtMatrixLayout_t Cdesc,
                                              cublasLtMatrixLayout_t Ddesc, cublasLtMatmulPreference_t preference, int requestedAlgoCount,
                                              cublasLtMatmulHeuristicResult_t heuristicResultsArray[], int *returnAlgoCount) {
    lt::problem p;
    lt::algorithm found[lt::n_variants];
    if (!lightHandle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (!preference || requestedAlgoCount <= 0 || !heuristicResultsArray || !returnAlgoCount)
        return CUBLAS_STATUS_INVALID_VALUE;
    *returnAlgoCount = 0;
    if (cublasStatus_t status = lt::pose(&p, operationDesc, Adesc, Bdesc, Cdesc, Ddesc); status != CUBLAS_STATUS_SUCCESS)
        return status;
    int n = std::min(lt::algorithms(p, *lt::view(preference), found), requestedAlgoCount);
    for (int i = 0; i < n; i++) {
        heuristicResultsArray[i] = {};
        memcpy(&heuristicResultsArray[i].algo, &found[i], sizeof found[i]);
        heuristicResultsArray[i].workspaceSize = found[i].workspace;
        heuristicResultsArray[i].state = CUBLAS_STATUS_SUCCESS;
        heuristicResultsArray[i].wavesCount = 1.0f;
    }
    *returnAlgoCount = n;
    return n > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
