// test: ranks=1 tier=short timeout=60
/* The emulated cuBLASLt against plain loops. Operands are small integers, so every sum is exact in fp32 and what is compared is exact, too,
 * but for GELU: there the bound is what fp32 arithmetic on its formula may lose. */
#include "tests/emu/emu_test.h"

#include <cublasLt.h>

#include <cmath>

namespace {

#define LT_IS(status, call) assert_string_equal(cublasLtGetStatusName(call), cublasLtGetStatusName(status))
#define LT_OK(call) LT_IS(CUBLAS_STATUS_SUCCESS, call)

constexpr size_t workspace_bytes = 1 << 20;

struct formats {
    cudaDataType in, out;
};

/* One product and where its operands lie. */
struct product {
    formats type = {CUDA_R_32F, CUDA_R_32F};
    int64_t m = 24, n = 10, k = 40, lda = 0, ldb = 0, ldc = 0, ld_aux = 0; /* 0: as small as may be, ld_aux a multiple of 8 */
    bool trans_a = false, trans_b = false;
    uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    float alpha = 0.5f, beta = 0.0f;
    int batches = 1;
    cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
    int32_t bias_type = -1;
};

int64_t rows_a(const product &p) { return p.trans_a ? p.k : p.m; }
int64_t cols_a(const product &p) { return p.trans_a ? p.m : p.k; }
int64_t rows_b(const product &p) { return p.trans_b ? p.n : p.k; }
int64_t cols_b(const product &p) { return p.trans_b ? p.k : p.n; }

float from_bf16(uint16_t bits) {
    uint32_t all = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &all, sizeof x);
    return x;
}

/* To the nearest, ties to even, by looking for it. */
float rounded(double x, cudaDataType type) {
    if (type == CUDA_R_32F)
        return (float)x;
    if (x == 0.0)
        return 0.0f;
    int exponent;
    double fraction = frexp(x, &exponent);
    return (float)ldexp(nearbyint(ldexp(fraction, 8)), exponent - 8);
}

/* A matrix on the device and the same as doubles here. */
class matrix {
  public:
    matrix(cudaDataType of_type, size_t values, unsigned seed, bool zero = false) : type(of_type), host(values) {
        std::vector<float> floats(values);
        std::vector<uint16_t> halves(values);
        for (size_t i = 0; i < values; i++) {
            seed = seed * 1664525u + 1013904223u;
            host[i] = zero ? 0.0 : (double)(seed >> 16) / 65536.0 * 5.0;
            host[i] = floor(host[i]) - 2.0 * !zero;
            floats[i] = (float)host[i];
            uint32_t bits;
            memcpy(&bits, &floats[i], sizeof bits);
            halves[i] = (uint16_t)(bits >> 16);
        }
        data = type == CUDA_R_32F ? static_cast<void *>(device_memory(floats)) : device_memory(halves);
    }
    ~matrix() { cudaFree(data); }
    matrix(const matrix &) = delete;
    matrix &operator=(const matrix &) = delete;

    std::vector<double> now() const {
        std::vector<double> values(host.size());
        if (type == CUDA_R_32F) {
            auto got = host_copy(static_cast<const float *>(data), host.size());
            values.assign(got.begin(), got.end());
        } else {
            auto got = host_copy(static_cast<const uint16_t *>(data), host.size());
            for (size_t i = 0; i < values.size(); i++)
                values[i] = (double)from_bf16(got[i]);
        }
        return values;
    }

    cudaDataType type;
    std::vector<double> host;
    void *data;
};

struct operands {
    matrix a, b, c, bias, aux;
    void *workspace = nullptr;
    explicit operands(const product &p)
        : a(p.type.in, (size_t)(p.lda * cols_a(p) * p.batches), 1), b(p.type.in, (size_t)(p.ldb * cols_b(p) * p.batches), 2),
          c(p.type.out, (size_t)(p.ldc * p.n * p.batches), 3),
          bias(p.bias_type < 0 ? p.type.out : (cudaDataType)p.bias_type, (size_t)std::max(p.m, p.n) * (size_t)p.batches, 4),
          aux(p.type.out, (size_t)(p.ld_aux * p.n * p.batches), 5) {
        OK(cudaMalloc(&workspace, workspace_bytes));
    }
    ~operands() { cudaFree(workspace); }
};

product with_defaults(product p) {
    p.lda = p.lda ? p.lda : rows_a(p);
    p.ldb = p.ldb ? p.ldb : rows_b(p);
    p.ldc = p.ldc ? p.ldc : p.m;
    p.ld_aux = p.ld_aux ? p.ld_aux : (p.m + 7) / 8 * 8;
    return p;
}

/* The library's objects for a product. */
struct session {
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t how = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulPreference_t preference = nullptr;

    session(const product &p, const operands &o) {
        LT_OK(cublasLtCreate(&handle));
        LT_OK(cublasLtMatmulDescCreate(&how, p.compute, CUDA_R_32F));
        set<int32_t>(CUBLASLT_MATMUL_DESC_TRANSA, p.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N);
        set<int32_t>(CUBLASLT_MATMUL_DESC_TRANSB, p.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N);
        set<uint32_t>(CUBLASLT_MATMUL_DESC_EPILOGUE, p.epilogue);
        set<void *>(CUBLASLT_MATMUL_DESC_BIAS_POINTER, o.bias.data);
        set<int32_t>(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, p.bias_type);
        set<void *>(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, o.aux.data);
        set<int64_t>(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p.ld_aux);
        set<int64_t>(CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, std::max(p.m, p.n));
        set<int64_t>(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_BATCH_STRIDE, p.ld_aux * p.n);
        layout(&a, p.type.in, rows_a(p), cols_a(p), p.lda, p.batches);
        layout(&b, p.type.in, rows_b(p), cols_b(p), p.ldb, p.batches);
        layout(&c, p.type.out, p.m, p.n, p.ldc, p.batches);
        LT_OK(cublasLtMatmulPreferenceCreate(&preference));
        uint64_t most = workspace_bytes;
        LT_OK(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most));
    }
    ~session() {
        cublasLtMatmulPreferenceDestroy(preference);
        for (cublasLtMatrixLayout_t l : {a, b, c})
            cublasLtMatrixLayoutDestroy(l);
        cublasLtMatmulDescDestroy(how);
        cublasLtDestroy(handle);
    }
    session(const session &) = delete;
    session &operator=(const session &) = delete;

    template <class T> void set(cublasLtMatmulDescAttributes_t name, T value) {
        LT_OK(cublasLtMatmulDescSetAttribute(how, name, &value, sizeof value));
    }
    static void layout(cublasLtMatrixLayout_t *made, cudaDataType type, int64_t rows, int64_t cols, int64_t ld, int32_t batches) {
        int64_t stride = ld * cols;
        LT_OK(cublasLtMatrixLayoutCreate(made, type, (uint64_t)rows, (uint64_t)cols, ld));
        LT_OK(cublasLtMatrixLayoutSetAttribute(*made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batches, sizeof batches));
        LT_OK(cublasLtMatrixLayoutSetAttribute(*made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride));
    }
    void alignment(uint32_t bytes) {
        for (auto name : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
            LT_OK(cublasLtMatmulPreferenceSetAttribute(preference, name, &bytes, sizeof bytes));
    }
    cublasStatus_t ask(std::vector<cublasLtMatmulHeuristicResult_t> *results) {
        int n = 0;
        results->resize(8);
        cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, how, a, b, c, c, preference, 8, results->data(), &n);
        results->resize((size_t)n);
        return status;
    }
    cublasStatus_t run(const product &p, const operands &o, const cublasLtMatmulAlgo_t *algorithm, void *at_a = nullptr,
                       size_t workspace = workspace_bytes) {
        return cublasLtMatmul(handle, how, &p.alpha, at_a ? at_a : o.a.data, a, o.b.data, b, &p.beta, o.c.data, c, o.c.data, c, algorithm,
                              o.workspace, workspace, nullptr);
    }
};

/* ---- The same by plain loops. */

double gelu(double x) { return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x))); }

double dgelu(double x) {
    double c = sqrt(2.0 / M_PI), t = tanh(c * (x + 0.044715 * x * x * x));
    return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * 0.044715 * x * x);
}

struct expected {
    std::vector<double> c, bias, aux, slack, bias_slack; /* slack: of each element of c, of bias */
};

double element_a(const product &p, const operands &o, int64_t batch, int64_t i, int64_t l) {
    return o.a.host[(size_t)(batch * p.lda * cols_a(p) + (p.trans_a ? i * p.lda + l : l * p.lda + i))];
}

double element_b(const product &p, const operands &o, int64_t batch, int64_t l, int64_t j) {
    return o.b.host[(size_t)(batch * p.ldb * cols_b(p) + (p.trans_b ? l * p.ldb + j : j * p.ldb + l))];
}

/* A rounding to bf16 goes to the neighbour when what is rounded is a little off. */
double neighbour(const product &p, double x) { return p.type.out == CUDA_R_16BF ? fabs(x) / 256.0 : 0.0; }

void expect_element(const product &p, const operands &o, int64_t batch, int64_t i, int64_t j, expected *e) {
    size_t at = (size_t)(batch * p.ldc * p.n + j * p.ldc + i), at_aux = (size_t)(batch * p.ld_aux * p.n + j * p.ld_aux + i);
    size_t bias = (size_t)(batch * std::max(p.m, p.n));
    double x = 0.0;
    for (int64_t l = 0; l < p.k; l++)
        x += element_a(p, o, batch, i, l) * element_b(p, o, batch, l, j);
    x = (double)p.alpha * x + (double)p.beta * o.c.host[at];
    if (p.epilogue & CUBLASLT_EPILOGUE_BIAS)
        x += o.bias.host[bias + (size_t)i];
    if (p.epilogue & CUBLASLT_EPILOGUE_GELU) {
        if (p.epilogue & 128)
            e->aux[at_aux] = (double)rounded(x, p.type.out);
        e->slack[at] = 1e-6 * (1.0 + fabs(x));
        x = gelu(x);
    } else if (p.epilogue & 64) {
        e->slack[at] = 1e-5 * fabs(x);
        x *= dgelu(o.aux.host[at_aux]);
    }
    if (p.epilogue == CUBLASLT_EPILOGUE_DGELU_BGRAD) { /* sums of what is not rounded yet, in fp32 */
        bool first = j == 0;
        double &sum = e->bias[bias + (size_t)i], &slack = e->bias_slack[bias + (size_t)i];
        sum = (first ? 0.0 : sum) + x;
        slack = (first ? 0.0 : slack) + e->slack[at] + (double)p.n * 0x1p-24 * fabs(x);
        slack += j == p.n - 1 ? neighbour(p, sum) : 0.0;
    }
    if (e->slack[at] > 0.0)
        e->slack[at] += neighbour(p, x);
    e->c[at] = e->slack[at] > 0.0 ? x : (double)rounded(x, p.type.out);
}

void expect_bias_gradient(const product &p, const operands &o, int64_t batch, expected *e) {
    size_t bias = (size_t)(batch * std::max(p.m, p.n));
    bool of_a = p.epilogue == CUBLASLT_EPILOGUE_BGRADA;
    for (int64_t i = 0; i < (of_a ? p.m : p.n); i++) {
        double sum = 0.0;
        for (int64_t l = 0; l < p.k; l++)
            sum += of_a ? element_a(p, o, batch, i, l) : element_b(p, o, batch, l, i);
        e->bias[bias + (size_t)i] = (double)rounded(sum, o.bias.type);
    }
}

expected expect(const product &p, const operands &o) {
    expected e = {o.c.host, o.bias.host, o.aux.host, std::vector<double>(o.c.host.size()), std::vector<double>(o.bias.host.size())};
    for (int64_t batch = 0; batch < p.batches; batch++) {
        for (int64_t j = 0; j < p.n; j++)
            for (int64_t i = 0; i < p.m; i++)
                expect_element(p, o, batch, i, j, &e);
        if (p.epilogue == CUBLASLT_EPILOGUE_BGRADA || p.epilogue == CUBLASLT_EPILOGUE_BGRADB)
            expect_bias_gradient(p, o, batch, &e);
    }
    return e;
}

/* Where two differ by more than the slack; their size when nowhere. */
size_t first_difference(const std::vector<double> &got, const std::vector<double> &want, const std::vector<double> &slack) {
    size_t i = 0;
    while (i < want.size() && fabs(got[i] - want[i]) <= slack[i])
        i++;
    return i;
}

void check_close(const char *what, const product &p, const std::vector<double> &got, const std::vector<double> &want,
                 const std::vector<double> &slack) {
    size_t i = first_difference(got, want, slack);
    if (i < want.size()) {
        print_error("%s[%zu] = %.9g, expected %.9g within %.3g; formats %d to %d, A%s B%s, epilogue %u, beta %g\n", what, i, got[i],
                    want[i], slack[i], p.type.in, p.type.out, p.trans_a ? "^T" : "", p.trans_b ? "^T" : "", p.epilogue, (double)p.beta);
        fail();
    }
}

/* Every algorithm of the heuristic gives what the loops give. Returns how many there were. */
size_t check_product(product p) {
    p = with_defaults(p);
    std::vector<cublasLtMatmulHeuristicResult_t> results;
    {
        operands o(p);
        LT_OK(session(p, o).ask(&results));
    }
    for (const auto &result : results) {
        operands o(p);
        session s(p, o);
        LT_OK(s.run(p, o, &result.algo, nullptr, result.workspaceSize));
        expected e = expect(p, o);
        check_close("C", p, o.c.now(), e.c, e.slack);
        check_close("aux", p, o.aux.now(), e.aux, std::vector<double>(e.aux.size()));
        check_close("bias", p, o.bias.now(), e.bias, e.bias_slack);
    }
    return results.size();
}

const formats all_formats[] = {{CUDA_R_32F, CUDA_R_32F}, {CUDA_R_16BF, CUDA_R_16BF}, {CUDA_R_16BF, CUDA_R_32F}};
const uint32_t all_epilogues[] = {CUBLASLT_EPILOGUE_DEFAULT,  CUBLASLT_EPILOGUE_BIAS,        CUBLASLT_EPILOGUE_GELU,
                                  CUBLASLT_EPILOGUE_GELU_AUX, CUBLASLT_EPILOGUE_GELU_BIAS,   CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
                                  CUBLASLT_EPILOGUE_DGELU,    CUBLASLT_EPILOGUE_DGELU_BGRAD, CUBLASLT_EPILOGUE_BGRADA,
                                  CUBLASLT_EPILOGUE_BGRADB};

void test_all_products(void **) {
    for (formats type : all_formats)
        for (int transposed = 0; transposed < 4; transposed++)
            for (uint32_t epilogue : all_epilogues)
                for (float beta : {0.0f, 2.0f}) {
                    product p;
                    p.type = type;
                    p.trans_a = transposed & 1;
                    p.trans_b = transposed & 2;
                    p.epilogue = epilogue;
                    p.beta = beta;
                    assert_int_equal(check_product(p), 3);
                }
}

/* The comparison sees one wrong element of each kind of result. */
void test_the_comparison_sees(void **) {
    product p;
    p.type = {CUDA_R_16BF, CUDA_R_16BF};
    p.epilogue = CUBLASLT_EPILOGUE_DGELU_BGRAD;
    p = with_defaults(p);
    operands o(p);
    session s(p, o);
    LT_OK(s.run(p, o, nullptr));
    expected e = expect(p, o);
    auto c = o.c.now(), bias = o.bias.now();
    assert_int_equal(first_difference(c, e.c, e.slack), c.size());
    c[17] = c[17] * 1.01 + 0.01;
    assert_int_equal(first_difference(c, e.c, e.slack), 17);
    bias[3] = bias[3] * 1.1 + 0.1;
    assert_int_equal(first_difference(bias, e.bias, e.bias_slack), 3);
}

void test_shapes(void **) {
    for (formats type : all_formats)
        for (int transposed = 0; transposed < 4; transposed++) {
            product p;
            p.type = type;
            p.trans_a = transposed & 1;
            p.trans_b = transposed & 2;
            p.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
            p.m = 7;
            p.n = 5;
            p.k = 3;
            p.lda = 45;
            p.ldb = 46;
            p.ldc = 47;
            p.ld_aux = 16;
            assert_int_equal(check_product(p), 2); /* nothing to split */
            p.k = 37;
            p.batches = 3;
            p.beta = 1.0f;
            assert_int_equal(check_product(p), 3);
        }
}

/* Sums that are powers of two come to lie between two bf16 numbers. */
void test_ties(void **) {
    product p;
    p.type = {CUDA_R_16BF, CUDA_R_16BF};
    p.alpha = 257.0f / 256.0f;
    assert_int_equal(check_product(p), 3);
    p.alpha = 259.0f / 256.0f;
    assert_int_equal(check_product(p), 3);
}

void test_bias_of_another_format(void **) {
    product p;
    p.type = {CUDA_R_16BF, CUDA_R_32F};
    p.epilogue = CUBLASLT_EPILOGUE_BIAS;
    p.bias_type = CUDA_R_16BF;
    assert_int_equal(check_product(p), 3);
}

/* With beta 0 C is not read, though new memory holds NaNs. */
void test_c_is_not_read(void **) {
    product p = with_defaults({});
    operands o(p);
    session s(p, o);
    OK(cudaMemset(o.c.data, 0xff, o.c.host.size() * sizeof(float)));
    LT_OK(s.run(p, o, nullptr));
    for (double x : o.c.now())
        assert_false(std::isnan(x));
}

/* The second algorithm sums in another order: with operands that round, some last bits differ. So a choice by time could change bits. */
void test_algorithms_differ_in_last_bits(void **) {
    product p = with_defaults({});
    operands o(p);
    std::vector<float> thirds(o.a.host.size());
    for (size_t i = 0; i < thirds.size(); i++)
        thirds[i] = (float)(i % 97) / 3.0f;
    OK(cudaMemcpy(o.a.data, thirds.data(), thirds.size() * sizeof(float), cudaMemcpyHostToDevice));
    session s(p, o);
    std::vector<cublasLtMatmulHeuristicResult_t> results;
    std::vector<std::vector<double>> got;
    LT_OK(s.ask(&results));
    for (const auto &result : results) {
        LT_OK(s.run(p, o, &result.algo));
        got.push_back(o.c.now());
    }
    assert_true(got[0] != got[1]);
    assert_true(got[0] == got[2]);
}

/* It reads its operands when it runs, and runs on its stream. */
void test_it_runs_on_a_stream(void **) {
    with_setting late("EMU_STREAMS", "late");
    product p = with_defaults({});
    operands o(p);
    session s(p, o);
    LT_OK(s.run(p, o, nullptr));
    OK(cudaMemsetAsync(o.c.data, 0, o.c.host.size() * sizeof(float), nullptr));
    LT_OK(s.run(p, o, nullptr));
    OK(cudaDeviceSynchronize());
    expected e = expect(p, o);
    check_close("C", p, o.c.now(), e.c, e.slack);
}

/* ---- What it refuses. */

template <class Change> void check_refused(cublasStatus_t status, Change change) {
    product p;
    p.type = {CUDA_R_16BF, CUDA_R_16BF};
    std::vector<cublasLtMatmulHeuristicResult_t> results;
    change(&p);
    p = with_defaults(p);
    operands o(p);
    session s(p, o);
    LT_IS(status, s.ask(&results));
    assert_int_equal(results.size(), 0);
    LT_IS(status, s.run(p, o, nullptr));
}

void test_unsupported_products(void **) {
    check_refused(CUBLAS_STATUS_NOT_SUPPORTED, [](product *p) { p->type = {CUDA_R_32F, CUDA_R_16BF}; });
    check_refused(CUBLAS_STATUS_NOT_SUPPORTED, [](product *p) { p->compute = CUBLAS_COMPUTE_64F; });
    check_refused(CUBLAS_STATUS_NOT_SUPPORTED, [](product *p) { p->compute = CUBLAS_COMPUTE_32F_FAST_TF32; });
    check_refused(CUBLAS_STATUS_NOT_SUPPORTED, [](product *p) { p->epilogue = 3; });
    check_refused(CUBLAS_STATUS_INVALID_VALUE, [](product *p) { p->lda = 8; });
    check_refused(CUBLAS_STATUS_INVALID_VALUE, [](product *p) {
        p->epilogue = CUBLASLT_EPILOGUE_GELU_AUX;
        p->ld_aux = 28; /* not a multiple of 8 */
    });
}

void test_tf32_is_for_fp32(void **) {
    product p;
    p.compute = CUBLAS_COMPUTE_32F_FAST_TF32;
    assert_int_equal(check_product(p), 3);
}

void test_attributes_have_sizes(void **) {
    product p = with_defaults({});
    operands o(p);
    session s(p, o);
    int64_t wide = 1;
    LT_IS(CUBLAS_STATUS_INVALID_VALUE, cublasLtMatmulDescSetAttribute(s.how, CUBLASLT_MATMUL_DESC_TRANSA, &wide, sizeof wide));
    LT_IS(CUBLAS_STATUS_INVALID_VALUE, cublasLtMatrixLayoutSetAttribute(s.a, CUBLASLT_MATRIX_LAYOUT_ROWS, &wide, 4));
}

/* An algorithm that was asked for with aligned operands does not take others; asked for with less, it does. */
void test_alignment(void **) {
    product p;
    p.type = {CUDA_R_16BF, CUDA_R_16BF};
    p.lda = 32;
    p = with_defaults(p);
    operands o(p);
    session s(p, o);
    std::vector<cublasLtMatmulHeuristicResult_t> strict, loose;
    LT_OK(s.ask(&strict));
    s.alignment(2);
    LT_OK(s.ask(&loose));
    char *odd = static_cast<char *>(o.a.data) + 2;
    LT_OK(s.run(p, o, &strict[0].algo));
    LT_IS(CUBLAS_STATUS_NOT_SUPPORTED, s.run(p, o, &strict[0].algo, odd));
    LT_OK(s.run(p, o, &loose[0].algo));
}

void test_workspace(void **) {
    product p = with_defaults({});
    operands o(p);
    session s(p, o);
    std::vector<cublasLtMatmulHeuristicResult_t> all, without;
    LT_OK(s.ask(&all));
    assert_true(all[1].workspaceSize > 0);
    LT_OK(s.run(p, o, &all[1].algo, nullptr, all[1].workspaceSize));
    LT_IS(CUBLAS_STATUS_INVALID_VALUE, s.run(p, o, &all[1].algo, nullptr, all[1].workspaceSize - 1));
    uint64_t none = 0;
    LT_OK(cublasLtMatmulPreferenceSetAttribute(s.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &none, sizeof none));
    LT_OK(s.ask(&without));
    assert_int_equal(without.size(), all.size() - 1);
}

void test_algorithms_are_for_one_problem(void **) {
    product p = with_defaults({}), q;
    q.n = 11;
    q = with_defaults(q);
    operands o(p), other(q);
    session s(p, o), t(q, other);
    std::vector<cublasLtMatmulHeuristicResult_t> results;
    LT_OK(s.ask(&results));
    LT_IS(CUBLAS_STATUS_NOT_SUPPORTED, t.run(q, other, &results[0].algo));
}

void test_library(void **) {
    cublasLtHandle_t handle;
    assert_int_equal(cublasLtGetVersion(), CUBLAS_VERSION);
    {
        with_setting fails("EMU_CUBLASLT_FAIL", "1"), old("EMU_CUBLASLT_VERSION", "120000");
        assert_int_equal(cublasLtGetVersion(), 120000);
        LT_IS(CUBLAS_STATUS_NOT_INITIALIZED, cublasLtCreate(&handle));
    }
    with_setting none("EMU_DEVICES", "0");
    LT_IS(CUBLAS_STATUS_NOT_INITIALIZED, cublasLtCreate(&handle));
}

} // namespace

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_products),
        cmocka_unit_test(test_the_comparison_sees),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_bias_of_another_format),
        cmocka_unit_test(test_c_is_not_read),
        cmocka_unit_test(test_algorithms_differ_in_last_bits),
        cmocka_unit_test(test_it_runs_on_a_stream),
        cmocka_unit_test(test_unsupported_products),
        cmocka_unit_test(test_tf32_is_for_fp32),
        cmocka_unit_test(test_attributes_have_sizes),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_workspace),
        cmocka_unit_test(test_algorithms_are_for_one_problem),
        cmocka_unit_test(test_library),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
