/* cuBLASLt: the library, descriptors of layouts, products and preferences. */
#include "tests/emu/runtime/emu_engine.h"
#include "tests/emu/runtime/lt.h"

#include <cstring>

struct cublasLtContext {
    int nothing;
};

namespace lt {

static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
static_assert(sizeof(product) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits");
static_assert(sizeof(algorithm) <= sizeof(cublasLtMatmulAlgo_t), "fits");

const layout *view(cublasLtMatrixLayout_t handle) { return reinterpret_cast<const layout *>(handle); }
const product *view(cublasLtMatmulDesc_t handle) { return reinterpret_cast<const product *>(handle); }
const preference *view(cublasLtMatmulPreference_t handle) { return reinterpret_cast<const preference *>(handle); }

/* An attribute is so many bytes at such a place. */
struct field {
    int name;
    size_t offset, size;
};

#define FIELD(struct, name, member)                                                                                                        \
    { name, offsetof(struct, member), sizeof(struct ::member) }

static const field layout_fields[] = {
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_TYPE, type),
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, order),
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_ROWS, rows),
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_COLS, cols),
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_LD, ld),
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, batches),
    FIELD(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, stride),
};

static const field product_fields[] = {
    FIELD(product, CUBLASLT_MATMUL_DESC_COMPUTE_TYPE, compute),
    FIELD(product, CUBLASLT_MATMUL_DESC_SCALE_TYPE, scale),
    FIELD(product, CUBLASLT_MATMUL_DESC_POINTER_MODE, pointer_mode),
    FIELD(product, CUBLASLT_MATMUL_DESC_TRANSA, trans_a),
    FIELD(product, CUBLASLT_MATMUL_DESC_TRANSB, trans_b),
    FIELD(product, CUBLASLT_MATMUL_DESC_TRANSC, trans_c),
    FIELD(product, CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue),
    FIELD(product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias),
    FIELD(product, CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, bias_stride),
    FIELD(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux),
    FIELD(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, ld_aux),
    FIELD(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, aux_stride),
    FIELD(product, CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, sm_count),
    FIELD(product, CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_DATA_TYPE, aux_type),
    FIELD(product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, bias_type),
};

static const field preference_fields[] = {
    FIELD(preference, CUBLASLT_MATMUL_PREF_SEARCH_MODE, search),
    FIELD(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace),
    FIELD(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, schemes),
    FIELD(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, align_a),
    FIELD(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, align_b),
    FIELD(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, align_c),
    FIELD(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, align_d),
    FIELD(preference, CUBLASLT_MATMUL_PREF_IMPL_MASK, implementations),
};

template <size_t n> static cublasStatus_t set(const field (&fields)[n], void *object, int name, const void *value, size_t size) {
    if (!object || !value)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (const field &f : fields)
        if (f.name == name) {
            if (f.size != size)
                return CUBLAS_STATUS_INVALID_VALUE;
            memcpy(static_cast<char *>(object) + f.offset, value, size);
            return CUBLAS_STATUS_SUCCESS;
        }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

template <class Opaque, class Value> static cublasStatus_t make(Opaque **handle, const Value &value) {
    if (!handle)
        return CUBLAS_STATUS_INVALID_VALUE;
    *handle = new Opaque{};
    memcpy(static_cast<void *>(*handle), &value, sizeof value);
    return CUBLAS_STATUS_SUCCESS;
}

static const struct {
    cublasStatus_t status;
    const char *name, *text;
} statuses[] = {
    {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
    {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
    {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
    {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE", "an unsupported value or parameter was passed to the function"},
    {CUBLAS_STATUS_ARCH_MISMATCH, "CUBLAS_STATUS_ARCH_MISMATCH", "an absent device architectural feature is required"},
    {CUBLAS_STATUS_MAPPING_ERROR, "CUBLAS_STATUS_MAPPING_ERROR", "an access to GPU memory space failed"},
    {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the GPU program failed to execute"},
    {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
    {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the requested functionality is not supported"},
    {CUBLAS_STATUS_LICENSE_ERROR, "CUBLAS_STATUS_LICENSE_ERROR", "the license check failed"},
};

} // namespace lt

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lightHandle) {
    rt::call call;
    if (!lightHandle)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (call.error() != cudaSuccess || rt::setting("EMU_CUBLASLT_FAIL", 0))
        return CUBLAS_STATUS_NOT_INITIALIZED;
    *lightHandle = new cublasLtContext{0};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lightHandle) {
    delete lightHandle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusName(cublasStatus_t status) {
    for (const auto &s : lt::statuses)
        if (s.status == status)
            return s.name;
    return "unknown cublas status";
}

const char *cublasLtGetStatusString(cublasStatus_t status) {
    for (const auto &s : lt::statuses)
        if (s.status == status)
            return s.text;
    return "unknown cublas status";
}

size_t cublasLtGetVersion(void) { return (size_t)rt::setting("EMU_CUBLASLT_VERSION", CUBLAS_VERSION); }
size_t cublasLtGetCudartVersion(void) { return CUDART_VERSION; }

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *matLayout, cudaDataType type, uint64_t rows, uint64_t cols, int64_t ld) {
    return lt::make(matLayout, lt::layout{type, CUBLASLT_ORDER_COL, rows, cols, ld, 1, 0});
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t matLayout) {
    delete matLayout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t matLayout, cublasLtMatrixLayoutAttribute_t attr, const void *buf,
                                                size_t sizeInBytes) {
    return lt::set(lt::layout_fields, matLayout, attr, buf, sizeInBytes);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmulDesc, cublasComputeType_t computeType, cudaDataType_t scaleType) {
    lt::product made = {};
    made.compute = computeType;
    made.scale = scaleType;
    made.bias_type = made.aux_type = -1;
    made.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return lt::make(matmulDesc, made);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmulDesc) {
    delete matmulDesc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmulDesc, cublasLtMatmulDescAttributes_t attr, const void *buf,
                                              size_t sizeInBytes) {
    return lt::set(lt::product_fields, matmulDesc, attr, buf, sizeInBytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *pref) {
    constexpr uint32_t alignment = 256;
    return lt::make(pref, lt::preference{0, CUBLASLT_REDUCTION_SCHEME_MASK, alignment, alignment, alignment, alignment, 0, ~0ull});
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t pref) {
    delete pref;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref, cublasLtMatmulPreferenceAttributes_t attr,
                                                    const void *buf, size_t sizeInBytes) {
    return lt::set(lt::preference_fields, pref, attr, buf, sizeInBytes);
}
