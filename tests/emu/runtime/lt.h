/* Inside the emulated cuBLASLt: what stands in its descriptors. */
#ifndef ESPL_TESTS_EMU_RUNTIME_LT_H
#define ESPL_TESTS_EMU_RUNTIME_LT_H

#include <cublasLt.h>

namespace lt {

struct layout {
    int32_t type, order;
    uint64_t rows, cols;
    int64_t ld;
    int32_t batches;
    int64_t stride;
};

struct product {
    int32_t compute, scale, pointer_mode, trans_a, trans_b, trans_c, sm_count, bias_type, aux_type; /* types: -1 is D's */
    uint32_t epilogue;
    void *bias, *aux;
    int64_t bias_stride, ld_aux, aux_stride;
};

struct preference {
    uint32_t search, schemes, align_a, align_b, align_c, align_d;
    uint64_t workspace, implementations;
};

/* What a cublasLtMatmulAlgo_t holds. */
struct algorithm {
    uint64_t made_by_us;
    int32_t variant; /* of `variants` */
    uint32_t align_a, align_b, align_c, align_d;
    uint32_t unused;
    uint64_t workspace;
    uint64_t shape; /* a hash: an algorithm is for one problem */
};

enum variant { plain, split_k, other_name, n_variants };

/* A product with all that belongs to it. */
struct problem {
    product how;
    layout a, b, c, d;
    uint64_t m, n, k;
};

/* A view of the descriptors; NULL for NULL. */
const layout *view(cublasLtMatrixLayout_t handle);
const product *view(cublasLtMatmulDesc_t handle);
const preference *view(cublasLtMatmulPreference_t handle);

/* Puts a problem together and says whether it can be computed. */
cublasStatus_t pose(problem *p, cublasLtMatmulDesc_t how, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                    cublasLtMatrixLayout_t d);
size_t bytes_of(int32_t type);
int32_t bias_type(const problem &p);
int32_t aux_type(const problem &p);
bool has_gelu(const problem &p);
bool has_dgelu(const problem &p);
bool has_bias(const problem &p);
/* Whether `bias` is written: a sum of gradients. */
bool has_bias_gradient(const problem &p);

/* The algorithms for a problem, best first; how many. */
int algorithms(const problem &p, const preference &wanted, algorithm found[n_variants]);
uint64_t shape_of(const problem &p);

/* What a call is made with. */
struct operands {
    float alpha, beta;
    const void *a, *b, *c;
    void *d, *workspace;
};

/* The product itself; runs where kernels run. */
void multiply(const problem &p, const operands &with, variant how);

constexpr uint64_t ours = 0x65737061656d7500u;

} // namespace lt

#endif
