#include "kernels/cpu/table.h"
#include "kernels/cpu/update.h"
#include "kernels/cpu/whole_sums.h"

#include <math.h>

enum { COLUMNS = 256 /* of a piece that are summed at once */ };

/* A tensor's update; a floats_fn gets it by its first member. */
typedef struct adafactor {
    espl_rule_step step;
    const espl_rule_tensor *tensor;
    espl__adafactor_work work;
    float b2, a2;
} adafactor;

static float *row_of(const adafactor *a) { return a->step.state[0]; }
static float *column_of(const adafactor *a) { return a->step.state[1]; }
static float *moment_of(const adafactor *a) { return a->step.state[2]; }

/* ---- Moments of a matrix. */

static void gradient_row(const void *of, int64_t row, int64_t from, int64_t n, float *x) {
    const adafactor *a = of;
    const float *grad = a->step.grad + row * a->tensor->columns + from;
    for (int64_t i = 0; i < n; i++)
        x[i] = grad[i] * a->step.grad_scale;
}

static void row_moments(const adafactor *a) {
    const espl_rule_tensor *t = a->tensor;
    float *row = row_of(a);
#pragma omp parallel for
    for (int64_t i = 0; i < t->rows; i++) {
        double mean = row_squares(gradient_row, a, i, t->columns) / (double)t->columns + ESPL_ADAFACTOR_EPS;
        row[i] = a->b2 * row[i] + a->a2 * (float)mean;
        a->work.sums[i] = row[i];
    }
    a->work.numbers[0] = (float)(long_sum(a->work.sums, t->rows) / (double)t->rows);
}

/* Squares of columns [column, column + n) over the rows of a piece. */
static void sum_piece(const adafactor *a, int64_t piece, int64_t column, int64_t n) {
    const espl_rule_tensor *t = a->tensor;
    int64_t first = piece * espl__piece_rows(t->rows), last = min64(first + espl__piece_rows(t->rows), t->rows);
    float grad_scale = a->step.grad_scale;
    double *sum = a->work.partial + piece * t->columns + column;
    for (int64_t j = 0; j < n; j++)
        sum[j] = 0;
    for (int64_t i = first; i < last; i++) {
        const float *grad = a->step.grad + i * t->columns + column;
#pragma omp simd
        for (int64_t j = 0; j < n; j++) {
            float g = grad[j] * grad_scale;
            sum[j] += (double)g * g;
        }
    }
}

static void column_moments(const adafactor *a) {
    const espl_rule_tensor *t = a->tensor;
    int64_t n_pieces = espl__column_pieces(t->rows), across = pieces(t->columns, COLUMNS);
    float *column = column_of(a);
#pragma omp parallel for
    for (int64_t k = 0; k < n_pieces * across; k++) {
        int64_t from = k % across * COLUMNS;
        sum_piece(a, k / across, from, min64(COLUMNS, t->columns - from));
    }
#pragma omp parallel for
    for (int64_t j = 0; j < t->columns; j++) {
        double sum = 0;
        for (int64_t p = 0; p < n_pieces; p++)
            sum += a->work.partial[p * t->columns + j];
        column[j] = a->b2 * column[j] + a->a2 * (float)(sum / (double)t->rows + ESPL_ADAFACTOR_EPS);
        a->work.column[j] = 1.0f / sqrtf(column[j]);
    }
}

/* Of what is no matrix. */
static void moments(const adafactor *a) {
    float *v = moment_of(a);
#pragma omp parallel for
    for (int64_t i = 0; i < a->tensor->columns; i++) {
        float g = a->step.grad[i] * a->step.grad_scale;
        v[i] = a->b2 * v[i] + a->a2 * (g * g + (float)ESPL_ADAFACTOR_EPS);
    }
}

/* ---- The direction. */

static void matrix_row(const void *of, int64_t row, int64_t from, int64_t n, float *x) {
    const adafactor *a = of;
    const float *grad = a->step.grad + row * a->tensor->columns + from, *column = a->work.column + from;
    float grad_scale = a->step.grad_scale, r = 1.0f / sqrtf(row_of(a)[row] / a->work.numbers[0]);
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] = r * column[i] * (grad[i] * grad_scale);
}

static void other_row(const void *of, int64_t row, int64_t from, int64_t n, float *x) {
    const adafactor *a = of;
    const float *grad = a->step.grad + row * ESPL_PART + from, *v = moment_of(a) + row * ESPL_PART + from;
    float grad_scale = a->step.grad_scale;
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        x[i] = grad[i] * grad_scale * (1.0f / __builtin_sqrtf(v[i]));
}

/* Rows that the direction is made of. */
typedef struct rows {
    row_fn *fill;
    int64_t n, width;
} rows;

static rows rows_of(const espl_rule_tensor *t) {
    return t->matrix ? (rows){matrix_row, t->rows, t->columns} : (rows){other_row, espl__parts(t), ESPL_PART};
}

/* max(1, rms of the direction / clip). */
static float divisor(const adafactor *a) {
    rows r = rows_of(a->tensor);
    int64_t n = a->tensor->rows * a->tensor->columns;
#pragma omp parallel for
    for (int64_t i = 0; i < r.n; i++)
        a->work.sums[i] = row_squares(r.fill, a, i, min64(r.width, n - i * r.width));
    return fmaxf(1.0f, (float)sqrt(long_sum(a->work.sums, r.n) / (double)n) / a->step.clip);
}

/* Elements of one row. */
static void apply_floats(const espl_rule_step *s, const espl_rule_range *r, float *restrict weight, int64_t from, int64_t n) {
    const adafactor *a = (const adafactor *)(const void *)s;
    rows of = rows_of(a->tensor);
    float lr = r->lr, decay = r->decay, u[ROW_STRETCH];
    for (int64_t at = 0; at < n; at += ROW_STRETCH) {
        int64_t count = min64(ROW_STRETCH, n - at);
        of.fill(a, (from + at) / of.width, (from + at) % of.width, count, u);
#pragma omp simd
        for (int64_t i = 0; i < count; i++)
            weight[at + i] -= lr * (u[i] + decay * weight[at + i]);
    }
}

static void update_tensor(adafactor *a, const espl_rule_range *range) {
    rows r = rows_of(a->tensor);
    int64_t n = a->tensor->rows * a->tensor->columns;
    espl_rule_range divided = *range;
    espl__adafactor_layout(a->tensor, a->step.work, &a->work);
    if (a->tensor->matrix) {
        row_moments(a);
        column_moments(a);
    } else {
        moments(a);
    }
    float d = divisor(a);
    divided.lr /= d;
    divided.decay *= d;
#pragma omp parallel for
    for (int64_t i = 0; i < r.n; i++)
        CPU(update_stretch)(&a->step, apply_floats, &divided, i * r.width, min64((i + 1) * r.width, n));
}

void CPU(adafactor)(const espl_rule_step *step) {
    for (const espl_rule_range *r = step->ranges; r < step->ranges + step->n_ranges; r++) {
        adafactor a = {.step = espl__tensor_step(step, r, sizeof(real)), .tensor = r->tensor, .b2 = 1.0f - r->c2, .a2 = r->c2};
        update_tensor(&a, r);
    }
}
