#include "kernels/ref/ref.h"
#include "kernels/whole_tensors.h"

/* Rules of whole tensors (rules.h), in the order of sums of whole_tensors.h; in float in both variants but for muon's direction. */

static double fold(double *lane, int lanes) {
    for (int half = lanes / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] += lane[l + half];
    return lane[0];
}

static double sum_long(const double *x, int64_t n) {
    double lane[ESPL_LONG_LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lane[i % ESPL_LONG_LANES] += x[i];
    return fold(lane, ESPL_LONG_LANES);
}

static void put_weight(const espl_rule_step *s, int64_t i, float w) {
    ((real *)s->weight)[i] = (real)w;
    if (s->master)
        s->master[i] = w;
}

static float weight_at(const espl_rule_step *s, int64_t i) { return s->master ? s->master[i] : (float)((real *)s->weight)[i]; }

/* ---- Adafactor. */

/* The direction of element (i, j) of a tensor with so many columns. */
static float direction(const espl_rule_step *s, const espl_rule_tensor *t, const espl__adafactor_work *w, int64_t at) {
    const float *row = s->state[0], *v = s->state[2];
    float g = s->grad[at] * s->grad_scale;
    if (!t->matrix)
        return g * (1.0f / sqrtf(v[at]));
    return 1.0f / sqrtf(row[at / t->columns] / w->numbers[0]) * w->column[at % t->columns] * g;
}

static void row_moments(const espl_rule_step *s, const espl_rule_tensor *t, const espl__adafactor_work *w, float b2, float a2) {
    float *row = s->state[0];
    for (int64_t i = 0; i < t->rows; i++) {
        double lane[ESPL_ROW_LANES] = {0};
        for (int64_t j = 0; j < t->columns; j++) {
            float g = s->grad[i * t->columns + j] * s->grad_scale;
            lane[j % ESPL_ROW_LANES] += (double)g * g;
        }
        row[i] = b2 * row[i] + a2 * (float)(fold(lane, ESPL_ROW_LANES) / (double)t->columns + ESPL_ADAFACTOR_EPS);
        w->sums[i] = row[i];
    }
    w->numbers[0] = (float)(sum_long(w->sums, t->rows) / (double)t->rows);
}

static void column_moments(const espl_rule_step *s, const espl_rule_tensor *t, const espl__adafactor_work *w, float b2, float a2) {
    float *column = s->state[1];
    int64_t piece = espl__piece_rows(t->rows);
    for (int64_t j = 0; j < t->columns; j++) {
        double sum = 0;
        for (int64_t from = 0; from < t->rows; from += piece) {
            double part = 0;
            for (int64_t i = from; i < from + piece && i < t->rows; i++) {
                float g = s->grad[i * t->columns + j] * s->grad_scale;
                part += (double)g * g;
            }
            sum += part;
        }
        column[j] = b2 * column[j] + a2 * (float)(sum / (double)t->rows + ESPL_ADAFACTOR_EPS);
        w->column[j] = 1.0f / sqrtf(column[j]);
    }
}

static void moments(const espl_rule_step *s, const espl_rule_tensor *t, float b2, float a2) {
    float *v = s->state[2];
    for (int64_t i = 0; i < t->columns; i++) {
        float g = s->grad[i] * s->grad_scale;
        v[i] = b2 * v[i] + a2 * (g * g + (float)ESPL_ADAFACTOR_EPS);
    }
}

/* What the direction is divided by: max(1, rms / clip). */
static float divisor(const espl_rule_step *s, const espl_rule_tensor *t, const espl__adafactor_work *w) {
    int64_t n = t->rows * t->columns, width = t->matrix ? t->columns : ESPL_PART, rows = 0;
    for (int64_t from = 0; from < n; from += width, rows++) {
        double lane[ESPL_ROW_LANES] = {0};
        for (int64_t i = from; i < from + width && i < n; i++) {
            float u = direction(s, t, w, i);
            lane[(i - from) % ESPL_ROW_LANES] += (double)u * u;
        }
        w->sums[rows] = fold(lane, ESPL_ROW_LANES);
    }
    return fmaxf(1.0f, (float)sqrt(sum_long(w->sums, rows) / (double)n) / s->clip);
}

static void adafactor_tensor(const espl_rule_step *s, const espl_rule_range *r) {
    const espl_rule_tensor *t = r->tensor;
    float a2 = r->c2, b2 = 1.0f - a2;
    espl__adafactor_work w;
    espl__adafactor_layout(t, s->work, &w);
    if (t->matrix) {
        row_moments(s, t, &w, b2, a2);
        column_moments(s, t, &w, b2, a2);
    } else {
        moments(s, t, b2, a2);
    }
    float d = divisor(s, t, &w), lr = r->lr / d, decay = r->decay * d;
    for (int64_t i = 0; i < t->rows * t->columns; i++) {
        float weight = weight_at(s, i);
        put_weight(s, i, weight - lr * (direction(s, t, &w, i) + decay * weight));
    }
}

void REF(adafactor)(const espl_rule_step *step) {
    for (const espl_rule_range *r = step->ranges; r < step->ranges + step->n_ranges; r++) {
        espl_rule_step s = espl__tensor_step(step, r, sizeof(real));
        adafactor_tensor(&s, r);
    }
}

/* ---- Muon. */

static void momentum(const espl_rule_step *s, int64_t n, real *x) {
    float *m = s->state[0], b = s->momentum, a = 1.0f - b;
    for (int64_t i = 0; i < n; i++) {
        float g = s->grad[i] * s->grad_scale;
        m[i] = b * m[i] + a * g;
        x[i] = (real)(s->nesterov ? a * g + b * m[i] : m[i]);
    }
}

static void normalise(real *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    for (int64_t i = 0; i < n; i++)
        x[i] /= (real)fmax(sqrt(sum), (double)ESPL_MUON_EPS);
}

/* c = a b, or a b^T. */
static void product(const real *a, const real *b, bool transposed, int64_t m, int64_t n, int64_t k, real *c) {
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            real sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += a[i * k + l] * b[transposed ? j * k + l : l * n + j];
            c[i * n + j] = sum;
        }
}

static void transpose(const real *x, int64_t rows, int64_t columns, real *to) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            to[j * rows + i] = x[i * columns + j];
}

/* x [side, n / side] becomes its own part that is orthogonal, nearly. gram [side, side], held [n]. */
static void orthogonalise(real *x, int64_t side, int64_t n, real *gram, real *held) {
    for (int step = 0; step < ESPL_MUON_STEPS; step++) {
        product(x, x, true, side, side, n / side, gram);
        product(gram, gram, false, side, side, side, held);
        for (int64_t i = 0; i < side * side; i++)
            gram[i] = (real)ESPL_MUON_B * gram[i] + (real)ESPL_MUON_C * held[i];
        product(gram, x, false, side, n / side, side, held);
        for (int64_t i = 0; i < n; i++)
            x[i] = (real)ESPL_MUON_A * x[i] + held[i];
    }
}

static void muon_matrix(const espl_rule_step *s, const espl_rule_range *r) {
    const espl_rule_tensor *t = r->tensor;
    int64_t n = t->rows * t->columns, side = espl__side(t);
    espl__muon_work w;
    espl__muon_layout(t, sizeof(real), (size_t)n * sizeof(real), s->work, &w);
    real *x = w.x, *held = w.of_matmul;
    momentum(s, n, x);
    normalise(x, n);
    if (t->rows > t->columns) {
        transpose(x, t->rows, t->columns, held);
        orthogonalise(held, side, n, w.gram, x);
        transpose(held, t->columns, t->rows, x);
    } else {
        orthogonalise(x, side, n, w.gram, held);
    }
    for (int64_t i = 0; i < n; i++) {
        float weight = weight_at(s, i);
        put_weight(s, i, weight - r->lr * (t->scale * (float)x[i] + r->decay * weight));
    }
}

void REF(muon)(const espl_rule_step *step) {
    for (const espl_rule_range *r = step->ranges; r < step->ranges + step->n_ranges; r++) {
        espl_rule_step s = espl__tensor_step(step, r, sizeof(real));
        if (r->tensor->matrix) {
            muon_matrix(&s, r);
            continue;
        }
        espl_rule_range all;
        espl__make_adamw(&s, r, &all);
        REF(adamw)(&s);
    }
}

size_t REF(rule_work)(espl_rule rule, const espl_rule_tensor *tensor, int threads) {
    (void)threads;
    return espl__rule_work(rule, tensor, sizeof(real), (size_t)(tensor->rows * tensor->columns) * sizeof(real));
}
