#include "kernels/cpu/gemm.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <math.h>

/* Tokens whose logits are held at a time. More means fewer passes over W and dW; less means less memory. */
enum { CHUNK = 256, UNIT = 32, PANEL = 64, LANES = 16, STRETCH = 1024 /* logits summed in float before they join the row's double */ };
enum { REALS_A_FLOAT = sizeof(float) / sizeof(real) };
_Static_assert(UNIT > 16, "products of few rows go another way (few_rows.c)");

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

/* The loss of a row of logits, times `weight`; with `slope`, its gradient's factor, the row becomes its gradient. */
static float finish_row(float *x, int64_t V, const real *bias, int32_t target, float weight, const float *slope) {
#pragma omp simd
    for (int64_t v = 0; v < (bias ? V : 0); v++)
        x[v] += load(bias + v);
    float top = row_max(x, V), logit = x[target];
    double sum = row_sum(x, V, top);
    if (slope)
        gradient_row(x, V, target, top, sum, weight * *slope);
    return weight * (float)(log(sum) + ((double)top - (double)logit));
}

/* The tokens of a chunk: those that have targets, wherever they stand, so that others cost nothing. Products see them in a copy of
 * as many rows as a whole chunk has, the last ones zeros: libraries sum in another order for other shapes, so a row's bits do not depend on
 * how many rows have targets. */
typedef struct pass {
    const espl_args *args;
    int64_t token[CHUNK], rows, padded;
    bool add[2];   /* to dP0, dP1 */
    float *logits; /* [padded, V] */
    float *dx;     /* [padded, D] */
    real *x;       /* [padded, D] */
    void *gemm_work;
} pass;

static size_t part(int64_t n, size_t size) { return ((size_t)n * size + 63) / 64 * 64; }

static void place_work(pass *p) {
    const espl_attrs *attrs = p->args->attrs;
    int64_t most = round_up(min64(CHUNK, p->args->batch->n), UNIT);
    char *work = p->args->work;
    p->logits = (float *)work;
    work += part(most * attrs->vocab, sizeof(float));
    p->dx = (float *)work;
    work += part(most * attrs->n_in, sizeof(float));
    p->x = (real *)work;
    p->gemm_work = work + part(most * attrs->n_in, sizeof(real));
}

static void gather(const pass *p) {
    int64_t D = p->args->attrs->n_in;
    const real *x = p->args->in[0];
#pragma omp parallel for
    for (int64_t i = 0; i < p->padded; i++)
        if (i < p->rows)
            memcpy(p->x + i * D, x + p->token[i] * D, (size_t)D * sizeof(real));
        else
            memset(p->x + i * D, 0, (size_t)D * sizeof(real));
}

static void logits_of(const pass *p) {
    int64_t D = p->args->attrs->n_in, V = p->args->attrs->vocab;
    CPU(gemm)
    (&(gemm){.m = p->padded,
             .n = V,
             .k = D,
             .a = p->x,
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

static void losses_of(const pass *p, const float *slope) {
    const espl_batch *batch = p->args->batch;
    int64_t V = p->args->attrs->vocab;
    float *loss = p->args->out[0];
#pragma omp parallel for schedule(dynamic, 1)
    for (int64_t i = 0; i < p->padded; i++) {
        int64_t t = i < p->rows ? p->token[i] : -1;
        if (t >= 0)
            loss[t] =
                finish_row(p->logits + i * V, V, p->args->param[1], batch->targets[t], batch->weights ? batch->weights[t] : 1.0f, slope);
        else
            memset(p->logits + i * V, 0, (size_t)V * sizeof(float));
    }
}

/* dh = scale g W, where g lies in the rows of the logits. */
static void input_gradient(const pass *p) {
    const espl_args *args = p->args;
    int64_t D = args->attrs->n_in, V = args->attrs->vocab;
    CPU(gemm)
    (&(gemm){.m = p->padded,
             .n = D,
             .k = V,
             .a = (const real *)p->logits,
             .lda = V * REALS_A_FLOAT,
             .b = args->param[0],
             .ldb = D,
             .c = p->dx,
             .ldc = D,
             .c_dtype = ESPL_F32,
             .alpha = args->attrs->scale,
             .work = p->gemm_work});
#pragma omp parallel for
    for (int64_t i = 0; i < p->rows; i++)
        put_row((real *)args->din[0] + p->token[i] * D, p->dx + i * D, D, args->din_add[0]);
}

/* dW (+)= scale g^T h */
static void weight_gradient(const pass *p) {
    const espl_args *args = p->args;
    int64_t D = args->attrs->n_in, V = args->attrs->vocab;
    CPU(gemm)
    (&(gemm){.m = V,
             .n = D,
             .k = p->rows,
             .a = (const real *)p->logits,
             .lda = V * REALS_A_FLOAT,
             .trans_a = true,
             .b = p->x,
             .ldb = D,
             .c = args->dparam[0],
             .ldc = D,
             .c_dtype = ESPL_F32,
             .alpha = args->attrs->scale,
             .add = p->add[0],
             .work = p->gemm_work});
}

/* db (+)= the sum of the rows of g */
static void bias_gradient(const pass *p) {
    int64_t V = p->args->attrs->vocab;
    float *to = p->args->dparam[1];
#pragma omp parallel for
    for (int64_t v = 0; v < V; v += PANEL) {
        int64_t width = min64(PANEL, V - v);
        float sum[PANEL] = {0};
        for (int64_t i = 0; i < p->rows; i++)
            for (int64_t j = 0; j < width; j++)
                sum[j] += load((const real *)(p->logits + i * V) + v + j);
        for (int64_t j = 0; j < width; j++)
            to[v + j] = p->add[1] ? to[v + j] + sum[j] : sum[j];
    }
}

/* A token without a target: no loss, no gradient. */
static void skip(const espl_args *args, int64_t token, bool backward) {
    int64_t D = args->attrs->n_in;
    ((float *)args->out[0])[token] = 0.0f;
    if (backward && args->din[0] && !args->din_add[0])
        memset((real *)args->din[0] + token * D, 0, (size_t)D * sizeof(real));
}

/* The next tokens with targets, from `token` on; returns where to go on. */
static int64_t collect(pass *p, int64_t token, bool backward) {
    const espl_batch *batch = p->args->batch;
    for (p->rows = 0; token < batch->n && p->rows < CHUNK; token++)
        if (batch->targets[token] >= 0)
            p->token[p->rows++] = token;
        else
            skip(p->args, token, backward);
    p->padded = p->rows > 0 ? round_up(min64(CHUNK, batch->n), UNIT) : 0;
    return token;
}

static void gradients_of(pass *p) {
    if (p->args->din[0])
        input_gradient(p);
    if (p->args->dparam[0])
        weight_gradient(p);
    if (p->args->dparam[1])
        bias_gradient(p);
    p->add[0] = p->add[1] = true;
}

static void run(const espl_args *args, bool backward) {
    const espl_attrs *attrs = args->attrs;
    const int64_t sizes[2] = {attrs->vocab * attrs->n_in, attrs->vocab};
    pass p = {.args = args, .add = {args->dparam_add[0], args->dparam_add[1]}};
    place_work(&p);
    for (int64_t next = collect(&p, 0, backward); p.rows > 0; next = collect(&p, next, backward)) {
        gather(&p);
        logits_of(&p);
        losses_of(&p, backward ? &args->batch->loss_scale : NULL);
        if (backward)
            gradients_of(&p);
    }
    for (int i = 0; i < 2; i++)
        if (backward && args->dparam[i] && !p.add[i])
            CPU(zero)(args->dparam[i], (size_t)sizes[i] * sizeof(float));
}

void CPU(linear_xent_forward)(const espl_args *args) { run(args, false); }

void CPU(linear_xent_backward)(const espl_args *args) { run(args, true); }

size_t CPU(linear_xent_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)backward;
    int64_t most = round_up(min64(CHUNK, n), UNIT);
    size_t logits = part(most * attrs->vocab, sizeof(float)), dx = part(most * attrs->n_in, sizeof(float));
    return logits + dx + part(most * attrs->n_in, sizeof(real)) + CPU(gemm_work)(threads);
}
