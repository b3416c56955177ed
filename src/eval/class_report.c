#include "src/eval/class_report.h"

#include "src/core/buffer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { BINS = 10 };

int32_t espl_likeliest(const float *probabilities, int classes) {
    int32_t best = 0;
    for (int32_t k = 1; k < classes; k++)
        best = probabilities[k] > probabilities[best] ? k : best;
    return best;
}

double espl_class_loss(const float *probabilities, int32_t gold) { return -log(fmax((double)probabilities[gold], (double)FLT_MIN)); }

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static json_t *scores_of(const espl_class_scores *s) {
    return json_pack("{s:f, s:f, s:f, s:I}", "precision", s->precision, "recall", s->recall, "f1", s->f1, "support",
                     (json_int_t)s->support);
}

/* ---- Parts. */

static json_t *labels_of(const espl_class_examples *e) {
    json_t *labels = json_array();
    for (int k = 0; k < e->classes; k++)
        json_array_append_new(labels, json_string(e->labels[k]));
    return labels;
}

static json_t *classes_of(const espl_class_examples *e, const espl_confusion *c) {
    json_t *classes = json_array();
    for (int k = 0; k < e->classes; k++) {
        espl_class_scores s = espl_class_score(c, k);
        json_t *row = scores_of(&s);
        json_object_set_new(row, "label", json_string(e->labels[k]));
        json_array_append_new(classes, row);
    }
    return classes;
}

static json_t *matrix_of(const espl_confusion *c) {
    json_t *rows = json_array();
    for (int i = 0; i < c->classes; i++) {
        json_t *row = json_array();
        for (int k = 0; k < c->classes; k++)
            json_array_append_new(row, json_integer((json_int_t)c->counts[(int64_t)i * c->classes + k]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *bins_of(const espl_calibration_bin *bins) {
    json_t *rows = json_array();
    for (int b = 0; b < BINS; b++)
        if (bins[b].n > 0)
            json_array_append_new(rows, json_pack("{s:I, s:f, s:f}", "n", (json_int_t)bins[b].n, "confidence", bins[b].confidence,
                                                  "accuracy", bins[b].accuracy));
    return rows;
}

/* ---- What each example gives. */

typedef struct columns {
    int32_t *predicted;
    float *confidence, *score; /* score: of the positive class */
    bool *right, *positive;
    double loss; /* mean */
    int64_t positives;
} columns;

static columns columns_of(const espl_class_examples *e, int positive) {
    size_t n = (size_t)(e->n > 0 ? e->n : 1);
    columns c = {.predicted = espl_malloc(n * sizeof *c.predicted),
                 .confidence = espl_malloc(n * sizeof *c.confidence),
                 .score = espl_malloc(n * sizeof *c.score),
                 .right = espl_malloc(n * sizeof *c.right),
                 .positive = espl_malloc(n * sizeof *c.positive)};
    for (int64_t i = 0; i < e->n; i++) {
        const float *p = e->probabilities + i * e->classes;
        c.predicted[i] = espl_likeliest(p, e->classes);
        c.confidence[i] = p[c.predicted[i]];
        c.right[i] = c.predicted[i] == e->gold[i];
        c.score[i] = p[positive];
        c.positive[i] = e->gold[i] == positive;
        c.positives += c.positive[i];
        c.loss += espl_class_loss(p, e->gold[i]);
    }
    c.loss /= (double)n;
    return c;
}

static void free_columns(columns *c) {
    free(c->predicted);
    free(c->confidence);
    free(c->score);
    free(c->right);
    free(c->positive);
}

/* ---- The whole. */

static void add_means(const espl_confusion *c, json_t *scores) {
    static const char *const names[] = {
        [ESPL_MEAN_MACRO] = "f1_macro", [ESPL_MEAN_MICRO] = "f1_micro", [ESPL_MEAN_WEIGHTED] = "f1_weighted"};
    for (int m = ESPL_MEAN_MACRO; m <= ESPL_MEAN_WEIGHTED; m++)
        json_object_set_new(scores, names[m], number(espl_mean_score(c, (espl_mean)m).f1));
}

static json_t *all_scores(const espl_class_examples *e, const espl_class_report_options *o, const columns *col, const espl_confusion *c,
                          double calibration_error) {
    bool two = e->classes == 2;
    espl_class_scores main = two ? espl_class_score(c, o->positive) : espl_mean_score(c, o->mean);
    double area = two ? espl_roc_auc(col->score, col->positive, e->n) : espl_roc_auc_mean(e->probabilities, e->gold, e->n, e->classes);
    json_t *scores = json_object();
    const struct {
        const char *name;
        double value;
    } rows[] = {{"loss", col->loss},
                {"accuracy", espl_accuracy(c)},
                {"precision", main.precision},
                {"recall", main.recall},
                {"f1", main.f1},
                {"matthews", espl_matthews(c)},
                {"roc_auc", area},
                {"calibration_error", calibration_error}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        json_object_set_new(scores, rows[i].name, number(rows[i].value));
    if (!two)
        add_means(c, scores);
    return scores;
}

static json_t *threshold_of(const espl_class_examples *e, const espl_class_report_options *o, const columns *col) {
    espl_threshold t = espl_choose_threshold(col->score, col->positive, e->n, o->goal, o->least);
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:b}", "label", e->labels[o->positive], "threshold", (double)t.threshold, "precision",
                     t.precision, "recall", t.recall, "f1", t.f1, "reached", (int)t.reached);
}

json_t *espl_class_report_make(const espl_class_examples *e, const espl_class_report_options *o) {
    espl_calibration_bin bins[BINS];
    columns col = columns_of(e, o->positive);
    espl_confusion c = espl_confusion_make(e->classes, e->gold, col.predicted, e->n);
    double calibration_error = espl_calibrate(col.confidence, col.right, e->n, bins, BINS);
    json_t *report = json_object();
    json_object_set_new(report, "scores", all_scores(e, o, &col, &c, calibration_error));
    json_object_set_new(report, "labels", labels_of(e));
    json_object_set_new(report, "classes", classes_of(e, &c));
    json_object_set_new(report, "confusion", matrix_of(&c));
    json_object_set_new(report, "calibration", bins_of(bins));
    if (o->threshold && e->classes == 2 && col.positives > 0 && col.positives < e->n)
        json_object_set_new(report, "threshold", threshold_of(e, o, &col));
    espl_confusion_free(&c);
    free_columns(&col);
    return report;
}
