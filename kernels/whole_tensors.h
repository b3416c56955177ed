/* What backends share for rules that work on whole tensors: a tensor's own call, scratch, and the order of sums.
 *
 * Sums that have an order are in double. Of a row: lane l of ESPL_ROW_LANES adds up elements l, l + ESPL_ROW_LANES, ..., then lane l takes
 * lane l + n / 2's, and so on with half as many. Of one number for each row: the same with ESPL_LONG_LANES. Down a column: rows in order
 * within pieces of espl__piece_rows, then the pieces in order. What is no matrix is summed as rows of ESPL_PART elements. */
#ifndef ESPL_KERNELS_WHOLE_TENSORS_H
#define ESPL_KERNELS_WHOLE_TENSORS_H

#include "kernels/kernels.h"

enum {
    ESPL_ROW_LANES = 32,
    ESPL_LONG_LANES = 1024,
    ESPL_PART = 256,
    ESPL_COLUMN_PIECES = 32, /* a column is summed in at most so many pieces */
    ESPL_PIECE_LEAST = 64,   /* of at least so many rows */
    ESPL_MUON_STEPS = 5
};

#define ESPL_ADAFACTOR_EPS 1e-30
#define ESPL_MUON_EPS 1e-7f
#define ESPL_MUON_A 3.4445f
#define ESPL_MUON_B (-4.7750f)
#define ESPL_MUON_C 2.0315f

static inline int64_t espl__up(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

/* Local. Rows of a piece of a column, and pieces. */
static inline int64_t espl__piece_rows(int64_t rows) {
    const int64_t even = espl__up(rows, ESPL_COLUMN_PIECES), least = ESPL_PIECE_LEAST;
    return even > least ? even : least;
}

static inline int64_t espl__column_pieces(int64_t rows) { return espl__up(rows, espl__piece_rows(rows)); }

/* Local. Parts that are summed by themselves where elements have no rows. */
static inline int64_t espl__parts(const espl_rule_tensor *t) { return espl__up(t->rows * t->columns, ESPL_PART); }

/* Local. The call as it is for range r alone, which is all of a tensor: everything begins at its first element. */
static inline espl_rule_step espl__tensor_step(const espl_rule_step *step, const espl_rule_range *r, size_t real_size) {
    espl_rule_step s = *step;
    s.weight = (char *)step->weight + (size_t)r->begin * real_size;
    s.master = step->master ? step->master + r->begin : NULL;
    s.grad = step->grad + r->begin;
    s.first = step->first + (uint64_t)r->begin;
    for (int i = 0; i < ESPL_MAX_STATES; i++)
        s.state[i] = step->state[i] ? (float *)step->state[i] + r->tensor->state[i] : NULL;
    s.ranges = NULL;
    s.n_ranges = 0;
    return s;
}

/* Local. Turns muon's call for what is no matrix into adamw's over `all` of it, which becomes range r as it is counted there. */
static inline void espl__make_adamw(espl_rule_step *s, const espl_rule_range *r, espl_rule_range *all) {
    *all = *r;
    all->begin = 0;
    all->end = r->end - r->begin;
    s->state[0] = s->state[1];
    s->state[1] = s->state[2];
    s->ranges = all;
    s->n_ranges = 1;
}

/* ---- Scratch: arrays one behind the other, each at a multiple of 256 bytes. */

/* NULL without a base. */
static inline void *espl__take(char *base, size_t *at, int64_t n, size_t size) {
    void *taken = base ? base + *at : NULL;
    *at += ((size_t)n * size + 255) / 256 * 256;
    return taken;
}

typedef struct espl__adafactor_work {
    double *partial; /* [pieces, columns] sums of columns */
    double *sums;    /* [rows, or parts] */
    float *column;   /* [columns] 1 / sqrt(column_j) */
    float *numbers;  /* mean of row, divisor of the direction */
} espl__adafactor_work;

typedef struct espl__muon_work {
    void *x, *gram;  /* [rows, columns], [side, side] real; side is the shorter of the two */
    float *product;  /* [rows, columns] */
    double *sums;    /* [parts] */
    float *numbers;  /* the norm */
    void *of_matmul; /* what products need */
} espl__muon_work;

static inline int64_t espl__side(const espl_rule_tensor *t) { return t->rows < t->columns ? t->rows : t->columns; }

/* Local. Lays out work that begins at `base`, which may be NULL; returns its bytes. */
static inline size_t espl__adafactor_layout(const espl_rule_tensor *t, char *base, espl__adafactor_work *w) {
    size_t at = 0;
    w->partial = (double *)espl__take(base, &at, t->matrix ? espl__column_pieces(t->rows) * t->columns : 0, sizeof(double));
    w->sums = (double *)espl__take(base, &at, t->matrix ? t->rows : espl__parts(t), sizeof(double));
    w->column = (float *)espl__take(base, &at, t->matrix ? t->columns : 0, sizeof(float));
    w->numbers = (float *)espl__take(base, &at, 2, sizeof(float));
    return at;
}

/* `matmul` bytes are for products. */
static inline size_t espl__muon_layout(const espl_rule_tensor *t, size_t real_size, size_t matmul, char *base, espl__muon_work *w) {
    size_t at = 0;
    int64_t n = t->matrix ? t->rows * t->columns : 0, side = t->matrix ? espl__side(t) : 0;
    w->of_matmul = espl__take(base, &at, n > 0 ? (int64_t)matmul : 0, 1);
    w->x = espl__take(base, &at, n, real_size);
    w->gram = espl__take(base, &at, side * side, real_size);
    w->product = (float *)espl__take(base, &at, n, sizeof(float));
    w->sums = (double *)espl__take(base, &at, n > 0 ? espl__parts(t) : 0, sizeof(double));
    w->numbers = (float *)espl__take(base, &at, n > 0 ? 1 : 0, sizeof(float));
    return at;
}

/* Local. rule_work of a backend whose products take `matmul` bytes. */
static inline size_t espl__rule_work(espl_rule rule, const espl_rule_tensor *t, size_t real_size, size_t matmul) {
    espl__adafactor_work adafactor;
    espl__muon_work muon;
    if (rule == ESPL_RULE_ADAFACTOR)
        return espl__adafactor_layout(t, NULL, &adafactor);
    return rule == ESPL_RULE_MUON ? espl__muon_layout(t, real_size, matmul, NULL, &muon) : 0;
}

#endif
