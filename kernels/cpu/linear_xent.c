#include "kernels/cpu/gemm.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <math.h>

/* Tokens whose logits are held at a time. More means fewer passes over W and dW; less means less memory. */
enum { CHUNK = 256, LANES = 16, STRETCH = 1024 /* logits summed in float before they join the row's double */ };

static float row_max(const float *x, int64_t n) {
    float top = x[0];
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < n; j++)
        top = x[j] > top ? x[j] : top;
    return top;
}

/* Sum of e^(x - top), in 16 lanes a stretch. */
static double row_sum(const float *x, int64_t n, float top) {
    double total = 0.0;
    for (int64_t start = 0; start < n; start += STRETCH) {
        float lane[LANES] = {0};
        int64_t i = start, end = min64(start + STRETCH, n);
        for (; i + LANES <= end; i += LANES)
#pragma omp simd
            for (int l = 0; l < LANES; l++)
                lane[l] += v_exp(x[i + l] - top);
        for (int l = 0; i + l < end; l++)
            lane[l] += v_exp(x[i + l] - top);
        for (int l = 0; l < LANES; l++)
            total += (double)lane[l];
    }
    return total;
}

/* The row becomes weight * (softmax - onehot), as real, in place: a narrower real never overtakes the logit it is made of. */
static void gradient_row(float *x, int64_t V, int32_t target, float top, double sum, float weight) {
    float scale = (float)((double)weight / sum), p = (float)((double)v_exp(x[target] - top) / sum);
    real buffer[STRETCH], at_target;
    char *to = (char *)x;
    for (int64_t start = 0; start < V; start += STRETCH) {
        int64_t n = min64(STRETCH, V - start);
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            store(buffer + j, v_exp(x[start + j] - top) * scale);
        memcpy(to + (size_t)start * sizeof(real), buffer, (size_t)n * sizeof(real));
    }
    store(&at_target, weight * (p - 1.0f));
    memcpy(to + (size_t)target * sizeof(real), &at_target, sizeof(real));
}

/* The loss of a row of logits; with `weight` the row becomes its gradient. */
static float finish_row(float *x, int64_t V, int32_t target, const float *weight) {
    if (target < 0) {
        if (weight)
            memset(x, 0, (size_t)V * sizeof(real));
        return 0.0f;
    }
    float top = row_max(x, V), logit = x[target];
    double sum = row_sum(x, V, top);
    if (weight)
        gradient_row(x, V, target, top, sum, *weight);
    return (float)(log(sum) + ((double)top - (double)logit));
}

typedef struct pass {
    const espl_args *args;
    int64_t first, rows; /* tokens of the chunk */
    bool add;            /* to dP0 */
    float *logits;
    void *gemm_work;
} pass;

static void logits_of(const pass *p) {
    int64_t D = p->args->attrs->n_in, V = p->args->attrs->vocab;
    CPU(gemm)
    (&(gemm){.m = p->rows,
             .n = V,
             .k = D,
             .a = (const real *)p->args->in[0] + p->first * D,
             .lda = D,
             .b = p->args->param[0],
             .ldb = D,
             .trans_b = true,
             .c = p->logits,
             .ldc = V,
             .c_dtype = ESPL_F32,
             .alpha = p->args->attrs->scale,
             .work = p->gemm_work});
}

static void losses_of(const pass *p, const float *weight) {
    int64_t V = p->args->attrs->vocab;
    float *loss = p->args->out[0];
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < p->rows; i++)
        loss[p->first + i] = finish_row(p->logits + i * V, V, p->args->batch->targets[p->first + i], weight);
}

/* dh = g W and dW (+)= g^T h, where g lies in the rows of the logits. */
static void gradients_of(const pass *p) {
    const espl_args *args = p->args;
    int64_t D = args->attrs->n_in, V = args->attrs->vocab, ldg = V * (int64_t)(sizeof(float) / sizeof(real));
    const real *g = (const real *)p->logits;
    if (args->din[0])
        CPU(gemm)
    (&(gemm){.m = p->rows,
             .n = D,
             .k = V,
             .a = g,
             .lda = ldg,
             .b = args->param[0],
             .ldb = D,
             .c = (real *)args->din[0] + p->first * D,
             .ldc = D,
             .c_dtype = REAL_DTYPE,
             .alpha = 1.0f,
             .add = args->din_add[0],
             .work = p->gemm_work});
    if (args->dparam[0])
        CPU(gemm)
    (&(gemm){.m = V,
             .n = D,
             .k = p->rows,
             .a = g,
             .lda = ldg,
             .trans_a = true,
             .b = (const real *)args->in[0] + p->first * D,
             .ldb = D,
             .c = args->dparam[0],
             .ldc = D,
             .c_dtype = ESPL_F32,
             .alpha = 1.0f,
             .add = p->add,
             .work = p->gemm_work});
}

/* The first token from `token` on that has a target, or n. */
static int64_t next_target(const espl_batch *batch, int64_t token) {
    while (token < batch->n && batch->targets[token] < 0)
        token++;
    return token;
}

/* Tokens first .. end - 1 have no targets. */
static void skip(const espl_args *args, int64_t first, int64_t end, bool backward) {
    int64_t D = args->attrs->n_in;
    memset((float *)args->out[0] + first, 0, (size_t)(end - first) * sizeof(float));
    if (backward && args->din[0] && !args->din_add[0])
        CPU(zero)((real *)args->din[0] + first * D, (size_t)((end - first) * D) * sizeof(real));
}

/* A chunk begins and ends with a token that has a target: prompts that are not learned cost nothing. */
static void run(const espl_args *args, bool backward) {
    const espl_batch *batch = args->batch;
    int64_t n = batch->n, V = args->attrs->vocab, done = 0;
    float weight = args->attrs->scale * batch->loss_scale;
    bool add = args->dparam_add[0];
    for (int64_t first; (first = next_target(batch, done)) < n; add = true) {
        int64_t end = min64(first + CHUNK, n);
        while (batch->targets[end - 1] < 0)
            end--;
        pass p = {args, first, end - first, add, args->work, (float *)args->work + min64(CHUNK, n) * V};
        skip(args, done, first, backward);
        logits_of(&p);
        losses_of(&p, backward ? &weight : NULL);
        if (backward)
            gradients_of(&p);
        done = end;
    }
    skip(args, done, n, backward);
    if (backward && args->dparam[0] && !add)
        CPU(zero)(args->dparam[0], (size_t)(V * args->attrs->n_in) * sizeof(float));
}

void CPU(linear_xent_forward)(const espl_args *args) { run(args, false); }

void CPU(linear_xent_backward)(const espl_args *args) { run(args, true); }

size_t CPU(linear_xent_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)backward;
    return (size_t)(min64(CHUNK, n) * attrs->vocab) * sizeof(float) + CPU(gemm_work)(threads);
}
