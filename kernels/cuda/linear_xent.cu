#include "kernels/cuda/entries.h"
#include "kernels/cuda/linear_lt.h"
#include "kernels/cuda/rows.cuh"

constexpr int XENT_MOST_THREADS = 512, XENT_WORDS_A_THREAD = 8;

/* The tokens of a chunk. Logits are fp32, also of bf16 weights: the loss is as exact as fp32 is. */
struct xent_chunk {
    float *logits; /* [tokens, ld] */
    int64_t ld;
    int vocab;
    const void *bias; /* [vocab] reals, or NULL */
    const int32_t *targets;
    const float *weights;
    float *loss;
    const espl__batch *batch;
};

/* x += the reals at v .., of which the row has n more. */
template <class R, int N> static __device__ __forceinline__ void add_bias(const void *bias, int v, int n, float (&x)[N]) {
#pragma unroll
    for (int j = 0; j < N; j++)
        if (bias && j < n)
            x[j] += reals<R>::load(static_cast<const R *>(bias) + v + j);
}

/* Sum of e^(x - top) under a maximum that grows. */
static __device__ __forceinline__ void take4(const float (&x)[4], float *top, float *sum) {
    float most = fmaxf(fmaxf(x[0], x[1]), fmaxf(x[2], x[3]));
    if (most > *top) {
        *sum *= expf(*top - most);
        *top = most;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
        *sum += expf(x[j] - *top);
}

/* The maximum of a row of logits and the sum of e^(x - maximum), in all threads of the block. */
template <class R>
static __device__ __forceinline__ float row_maximum(const float *row, const void *bias, int vocab, float *sum, float *partial) {
    float top = -INFINITY, part = 0.0f, x[4];
    int whole = vocab / 4 * 4, rest = whole + (int)threadIdx.x;
#pragma unroll 4
    for (int v = 4 * (int)threadIdx.x; v < whole; v += 4 * (int)blockDim.x) {
        load_floats(row + v, x);
        add_bias<R>(bias, v, 4, x);
        take4(x, &top, &part);
    }
    if (rest < vocab) {
        float one[4] = {row[rest], -INFINITY, -INFINITY, -INFINITY};
        add_bias<R>(bias, rest, 1, one);
        take4(one, &top, &part);
    }
    float most = block_max(top, partial);
    *sum = block_sum(top == -INFINITY ? 0.0f : part * expf(top - most), partial);
    return most;
}

/* The row becomes weight * (softmax - onehot) as R, in place: W elements a thread, and what a stretch of the block becomes is written when
 * all of it is read; a narrower R never overtakes the logits that are still to be read. */
template <class R>
static __device__ __forceinline__ void write_gradient(float *row, const xent_chunk &c, int target, float top, float sum, float weight) {
    constexpr int W = reals<R>::vector;
    R *gradient = reinterpret_cast<R *>(row);
    float share = 1.0f / sum;
    int vocab = c.vocab;
    for (int stretch = 0; stretch < vocab; stretch += W * (int)blockDim.x) {
        int v = stretch + W * (int)threadIdx.x, n = min(W, vocab - v);
        float x[W];
        if (n == W)
            load_floats(row + v, x);
        else
            for (int j = 0; j < n; j++)
                x[j] = row[v + j];
        add_bias<R>(c.bias, v, n, x);
#pragma unroll
        for (int j = 0; j < W; j++)
            x[j] = weight * (expf(x[j] - top) * share - (v + j == target ? 1.0f : 0.0f));
        if (sizeof(R) < sizeof(float))
            __syncthreads();
        if (n == W)
            store_stretch(gradient + v, x);
        else
            for (int j = 0; j < n; j++)
                reals<R>::store(gradient + v + j, x[j]);
    }
}

/* A block has a token: loss = weight (log(sum of e^(x - top)) + top - x[target]), x = logits + bias; 0 without a target; with GRADIENT the
 * row becomes its gradient. */
template <class R, bool GRADIENT> __global__ void __launch_bounds__(XENT_MOST_THREADS) xent_rows(xent_chunk c) {
    ESPL_SHARED(float, partial, [XENT_MOST_THREADS / 32]);
    float *row = c.logits + blockIdx.x * c.ld, sum;
    int target = c.targets[blockIdx.x];
    if (target < 0) {
        if (threadIdx.x == 0)
            c.loss[blockIdx.x] = 0.0f;
        for (int v = threadIdx.x; GRADIENT && v < c.vocab; v += (int)blockDim.x)
            reals<R>::store(reinterpret_cast<R *>(row) + v, 0.0f);
        return;
    }
    float at_target[1] = {row[target]}, weight = c.weights[blockIdx.x];
    add_bias<R>(c.bias, target, 1, at_target);
    float top = row_maximum<R>(row, c.bias, c.vocab, &sum, partial);
    if (threadIdx.x == 0)
        c.loss[blockIdx.x] = weight * (logf(sum) + (top - at_target[0]));
    if (GRADIENT)
        write_gradient<R>(row, c, target, top, sum, c.batch->loss_scale * weight);
}

/* Tokens first .. first + rows - 1 of a call. */
struct xent_pass {
    const espl_args *args;
    espl_dtype real;
    int64_t first, rows;
    float *logits;
};

static espl__gemm product(const xent_pass *p) {
    espl__gemm g = {};
    g.in = p->real;
    g.out = ESPL_F32;
    g.alpha = 1.0f;
    g.work = p->args->work;
    return g;
}

static const void *row_of(const void *x, int64_t row, int64_t width, espl_dtype real) {
    return (const char *)x + row * width * espl__real_size(real);
}

static void logits_of(const xent_pass *p) {
    int64_t D = p->args->attrs->n_in;
    espl__gemm g = product(p);
    g.m = p->rows, g.n = p->args->attrs->vocab, g.k = D;
    g.alpha = p->args->attrs->scale;
    g.a = row_of(p->args->in[0], p->first, D, p->real), g.lda = D;
    g.b = p->args->param[0], g.trans_b = true, g.ldb = D;
    g.c = p->logits, g.ldc = espl__logits_ld(p->args->attrs);
    espl__cuda_gemm(&g);
}

/* dh = scale g W, where g lies in the rows of the logits. */
static void input_gradient(const xent_pass *p) {
    int64_t D = p->args->attrs->n_in;
    espl__gemm g = product(p);
    g.out = p->real;
    g.m = p->rows, g.n = D, g.k = p->args->attrs->vocab;
    g.alpha = p->args->attrs->scale;
    g.a = p->logits, g.lda = espl__logits_ld(p->args->attrs) * 4 / espl__real_size(p->real);
    g.b = p->args->param[0], g.ldb = D;
    g.c = (void *)row_of(p->args->din[0], p->first, D, p->real), g.ldc = D, g.add = p->args->din_add[0];
    espl__cuda_gemm(&g);
}

/* dW (+)= scale g^T h; the chunks add up in order. */
static void weight_gradient(const xent_pass *p) {
    int64_t D = p->args->attrs->n_in;
    espl__gemm g = product(p);
    g.m = p->args->attrs->vocab, g.n = D, g.k = p->rows;
    g.alpha = p->args->attrs->scale;
    g.a = p->logits, g.trans_a = true;
    g.lda = espl__logits_ld(p->args->attrs) * 4 / espl__real_size(p->real);
    g.b = row_of(p->args->in[0], p->first, D, p->real), g.ldb = D;
    g.c = p->args->dparam[0], g.ldc = D, g.add = p->args->dparam_add[0] || p->first > 0;
    espl__cuda_gemm(&g);
}

/* db (+)= the sum of the rows of g. The sums of pieces lie where products work: a chunk has at most ESPL_XENT_BYTES of logits, and the sums
 * are one ESPL_SUM_ROWS-th of that. */
static void bias_gradient(const xent_pass *p) {
    const espl_attrs *attrs = p->args->attrs;
    const espl__columns columns = {p->logits,
                                   p->rows,
                                   attrs->vocab,
                                   espl__logits_ld(attrs) * 4 / espl__real_size(p->real),
                                   (float *)p->args->work,
                                   (float *)p->args->dparam[1],
                                   p->args->dparam_add[1] || p->first > 0,
                                   nullptr,
                                   nullptr};
    espl__cuda_sum_columns(&columns, p->real);
}

template <class R> static void losses_of(const xent_pass *p, bool gradient) {
    const espl_attrs *attrs = p->args->attrs;
    const espl__rows *rows = espl__rows_of(p->args);
    xent_chunk c = {p->logits,
                    espl__logits_ld(attrs),
                    (int)attrs->vocab,
                    p->args->param[1],
                    rows->targets + p->first,
                    rows->weights + p->first,
                    (float *)p->args->out[0] + p->first,
                    rows->batch};
    int64_t whole_warps = espl__round_up(pieces_of(attrs->vocab, XENT_WORDS_A_THREAD), 32);
    dim3 blocks((unsigned)p->rows), threads((unsigned)espl__least(whole_warps, XENT_MOST_THREADS));
    if (gradient)
        ESPL_LAUNCH((xent_rows<R, true>), blocks, threads, 0, espl__cuda->compute, c);
    else
        ESPL_LAUNCH((xent_rows<R, false>), blocks, threads, 0, espl__cuda->compute, c);
    espl__cuda_note(cudaGetLastError(), "linear_xent: loss");
}

template <class R> static void run(const espl_args *args, espl_dtype real, bool backward) {
    int64_t n = espl__rows_of(args)->tokens, rows = espl__xent_rows(args->attrs, n);
    bool gradient = backward && (args->din[0] || args->dparam[0] || args->dparam[1]);
    for (int64_t first = 0; first < n; first += rows) {
        xent_pass p = {args, real, first, espl__least(rows, n - first), (float *)((char *)args->work + ESPL_GEMM_WORK)};
        logits_of(&p);
        losses_of<R>(&p, gradient);
        if (gradient && args->din[0])
            input_gradient(&p);
        if (gradient && args->dparam[0])
            weight_gradient(&p);
        if (gradient && args->dparam[1])
            bias_gradient(&p);
    }
}

void espl__cuda_fp32_linear_xent_forward(const espl_args *args) { run<float>(args, ESPL_F32, false); }
void espl__cuda_bf16_linear_xent_forward(const espl_args *args) { run<__nv_bfloat16>(args, ESPL_BF16, false); }
void espl__cuda_fp32_linear_xent_backward(const espl_args *args) { run<float>(args, ESPL_F32, true); }
void espl__cuda_bf16_linear_xent_backward(const espl_args *args) { run<__nv_bfloat16>(args, ESPL_BF16, true); }
