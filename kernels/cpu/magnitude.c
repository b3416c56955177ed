#include "kernels/cpu/linear.h"
#include "kernels/cpu/table.h"

/* ---- WEIGHT_NORM. */

enum { OUTPUTS = 8 /* of a block, whose rows of W + scale B A are in registers, sixteen columns at a time */ };

/* A block of outputs of a part. */
typedef struct block {
    const espl_attrs *attrs;
    const espl_lora_part *part;
    const real *w, *a, *b; /* the part's */
    int64_t first;
    int count;
} block;

static float weight_at(const block *k, int j, int64_t i) {
    const espl_attrs *attrs = k->attrs;
    int64_t column = k->part->column + k->first + j;
    return load(k->w + (attrs->layout == ESPL_OUT_IN ? column * attrs->n_in + i : i * attrs->n_out + column));
}

/* x[j][l] = W + scale B A at outputs j and inputs i + l. */
static void updated(const block *k, int64_t i, int64_t lanes, float x[OUTPUTS][LANES16]) {
    int64_t rank = k->part->rank;
    for (int j = 0; j < OUTPUTS; j++)
        for (int64_t l = 0; l < LANES16; l++)
            x[j][l] = j < k->count && l < lanes ? weight_at(k, j, i + l) : 0.0f;
    for (int64_t r = 0; r < rank; r++) {
        float a[LANES16] = {0};
        for (int64_t l = 0; l < lanes; l++)
            a[l] = load(k->a + r * k->attrs->n_in + i + l);
        for (int j = 0; j < k->count; j++) {
            float b = k->part->scale * load(k->b + (k->first + j) * rank + r);
#pragma omp simd
            for (int64_t l = 0; l < LANES16; l++)
                x[j][l] = fma1(b, a[l], x[j][l]);
        }
    }
}

static void norms_of(const block *k, float *out) {
    float sum[OUTPUTS][LANES16] = {{0}}, x[OUTPUTS][LANES16];
    for (int64_t i = 0; i < k->attrs->n_in; i += LANES16) {
        updated(k, i, min64(LANES16, k->attrs->n_in - i), x);
        for (int j = 0; j < OUTPUTS; j++)
#pragma omp simd
            for (int64_t l = 0; l < LANES16; l++)
                sum[j][l] = fma1(x[j][l], x[j][l], sum[j][l]);
    }
    for (int j = 0; j < k->count; j++) {
        lanes16 lanes;
        real stored;
        memcpy(&lanes, sum[j], sizeof lanes);
        store(&stored, __builtin_sqrtf(sum_lanes(&lanes)));
        out[k->first + j] = load(&stored);
    }
}

void CPU(weight_norm_forward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *a = args->param[1], *b = args->param[2];
    float *out = args->out[0];
    for (int p = 0; p < attrs->n_parts; p++) {
        const espl_lora_part *part = &attrs->part[p];
#pragma omp parallel for
        for (int64_t first = 0; first < part->width; first += OUTPUTS) {
            block k = {attrs, part, args->param[0], a, b, first, (int)min64(OUTPUTS, part->width - first)};
            norms_of(&k, out);
        }
        a += part->rank * attrs->n_in;
        b += part->rank * part->width;
        out += part->width;
    }
}

/* ---- MAGNITUDE. */

/* m / norm of every column, in work; 1 where no part is. */
static const float *gains_of(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const real *m = args->param[0];
    const float *norm = args->in[1];
    float *gain = args->work;
    for (int64_t c = 0; c < attrs->n_out; c++)
        gain[c] = 1.0f;
    for (int p = 0; p < attrs->n_parts; p++)
        for (int64_t j = 0; j < attrs->part[p].width; j++)
            gain[attrs->part[p].column + j] = load(m++) / *norm++;
    return gain;
}

void CPU(magnitude_forward)(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    const float *gain = gains_of(args);
    const real *bias = args->param[1];
#pragma omp parallel for
    for (int64_t t = 0; t < args->batch->n; t++) {
        const real *v = (const real *)args->in[0] + t * width;
        real *y = (real *)args->out[0] + t * width;
        if (bias) {
#pragma omp simd
            for (int64_t c = 0; c < width; c++)
                store(y + c, gain[c] * load(v + c) + load(bias + c));
        } else {
#pragma omp simd
            for (int64_t c = 0; c < width; c++)
                store(y + c, gain[c] * load(v + c));
        }
    }
}

static void input_gradient(const espl_args *args) {
    int64_t width = args->attrs->n_out;
    const float *gain = gains_of(args);
#pragma omp parallel for
    for (int64_t t = 0; t < args->batch->n; t++)
        for (int64_t c = 0; c < width; c += CPU_STRETCH) {
            float stretch[CPU_STRETCH];
            int64_t at = t * width + c, count = min64(CPU_STRETCH, width - c);
#pragma omp simd
            for (int64_t i = 0; i < count; i++)
                stretch[i] = gain[c + i] * load((const real *)args->dout[0] + at + i);
            put_row((real *)args->din[0] + at, stretch, count, args->din_add[0]);
        }
}

void CPU(magnitude_backward)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    column_sums sums = {.rows = args->batch->n, .ld = attrs->n_out};
    int64_t at = 0;
    for (int p = 0; p < attrs->n_parts && args->dparam[0]; p++) {
        const espl_lora_part *part = &attrs->part[p];
        sums.x = (const real *)args->dout[0] + part->column;
        sums.times = (const real *)args->in[0] + part->column;
        sums.columns = part->width;
        sums.over = (const float *)args->in[1] + at;
        CPU(sum_columns)(&sums, (float *)args->dparam[0] + at, args->dparam_add[0]);
        at += part->width;
    }
    sums = (column_sums){.x = args->dout[0], .rows = args->batch->n, .columns = attrs->n_out, .ld = attrs->n_out};
    if (args->dparam[1])
        CPU(sum_columns)(&sums, args->dparam[1], args->dparam_add[1]);
    if (args->din[0])
        input_gradient(args);
}

size_t CPU(magnitude_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)n, (void)threads, (void)backward;
    return (size_t)attrs->n_out * sizeof(float);
}
