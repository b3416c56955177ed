#include "kernels/cuda/entries.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/rows.cuh"

constexpr int XENT_MOST_THREADS = 512, XENT_WORDS_A_THREAD = 8;

/* The tokens of a chunk. Logits are fp32, also of bf16 weights: the loss is as exact as fp32 is. */
struct xent_chunk {
    float *logits; /* [tokens, ld] */
    int64_t ld;
    int vocab;
    const int32_t *targets;
    float *loss;
    const espl__batch *batch;
    float scale;
};

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
static __device__ __forceinline__ float row_maximum(const float *row, int vocab, float *sum, float *partial) {
    float top = -INFINITY, part = 0.0f, x[4];
    int whole = vocab / 4 * 4, rest = whole + (int)threadIdx.x;
#pragma unroll 4
    for (int v = 4 * (int)threadIdx.x; v < whole; v += 4 * (int)blockDim.x) {
        load_floats(row + v, x);
        take4(x, &top, &part);
    }
    if (rest < vocab) {
        float one[4] = {row[rest], -INFINITY, -INFINITY, -INFINITY};
        take4(one, &top, &part);
    }
    float most = block_max(top, partial);
    *sum = block_sum(top == -INFINITY ? 0.0f : part * expf(top - most), partial);
    return most;
}

/* The row becomes weight * (softmax - onehot) as R, in place: W elements a thread, and what a stretch of the block becomes is written when
 * all of it is read; a narrower R never overtakes the logits that are still to be read. */
template <class R>
static __device__ __forceinline__ void write_gradient(float *row, int vocab, int target, float top, float sum, float weight) {
    constexpr int W = reals<R>::vector;
    R *gradient = reinterpret_cast<R *>(row);
    float share = 1.0f / sum;
    for (int stretch = 0; stretch < vocab; stretch += W * (int)blockDim.x) {
        int v = stretch + W * (int)threadIdx.x, n = min(W, vocab - v);
        float x[W];
        if (n == W)
            load_floats(row + v, x);
        else
            for (int j = 0; j < n; j++)
                x[j] = row[v + j];
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

/* A block has a token: loss = log(sum of e^(x - top)) + top - x[target], 0 without a target; with GRADIENT the row becomes its gradient. */
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
    float at_target = row[target], top = row_maximum(row, c.vocab, &sum, partial);
    if (threadIdx.x == 0)
        c.loss[blockIdx.x] = logf(sum) + (top - at_target);
    if (GRADIENT)
        write_gradient<R>(row, c.vocab, target, top, sum, c.scale * c.batch->loss_scale);
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

/* dh = g W, where g lies in the rows of the logits. */
static void input_gradient(const xent_pass *p) {
    int64_t D = p->args->attrs->n_in;
    espl__gemm g = product(p);
    g.out = p->real;
    g.m = p->rows, g.n = D, g.k = p->args->attrs->vocab;
    g.a = p->logits, g.lda = espl__logits_ld(p->args->attrs) * 4 / espl__real_size(p->real);
    g.b = p->args->param[0], g.ldb = D;
    g.c = (void *)row_of(p->args->din[0], p->first, D, p->real), g.ldc = D, g.add = p->args->din_add[0];
    espl__cuda_gemm(&g);
}

/* dW (+)= g^T h; the chunks add up in order. */
static void weight_gradient(const xent_pass *p) {
    int64_t D = p->args->attrs->n_in;
    espl__gemm g = product(p);
    g.m = p->args->attrs->vocab, g.n = D, g.k = p->rows;
    g.a = p->logits, g.trans_a = true;
    g.lda = espl__logits_ld(p->args->attrs) * 4 / espl__real_size(p->real);
    g.b = row_of(p->args->in[0], p->first, D, p->real), g.ldb = D;
    g.c = p->args->dparam[0], g.ldc = D, g.add = p->args->dparam_add[0] || p->first > 0;
    espl__cuda_gemm(&g);
}

template <class R> static void losses_of(const xent_pass *p, bool gradient) {
    const espl_attrs *attrs = p->args->attrs;
    xent_chunk c = {p->logits,
                    espl__logits_ld(attrs),
                    (int)attrs->vocab,
                    espl__rows_of(p->args)->targets + p->first,
                    (float *)p->args->out[0] + p->first,
                    espl__rows_of(p->args)->batch,
                    attrs->scale};
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
    bool gradient = backward && (args->din[0] || args->dparam[0]);
    for (int64_t first = 0; first < n; first += rows) {
        xent_pass p = {args, real, first, espl__least(rows, n - first), (float *)((char *)args->work + ESPL_GEMM_WORK)};
        logits_of(&p);
        losses_of<R>(&p, gradient);
        if (gradient && args->din[0])
            input_gradient(&p);
        if (gradient && args->dparam[0])
            weight_gradient(&p);
    }
}

void espl__cuda_fp32_linear_xent_forward(const espl_args *args) { run<float>(args, ESPL_F32, false); }
void espl__cuda_bf16_linear_xent_forward(const espl_args *args) { run<__nv_bfloat16>(args, ESPL_BF16, false); }
void espl__cuda_fp32_linear_xent_backward(const espl_args *args) { run<float>(args, ESPL_F32, true); }
void espl__cuda_bf16_linear_xent_backward(const espl_args *args) { run<__nv_bfloat16>(args, ESPL_BF16, true); }
