/* What there is to say of a classifier on a dataset, as one JSON object. */
#ifndef ESPL_EVAL_CLASS_REPORT_H
#define ESPL_EVAL_CLASS_REPORT_H

#include "src/eval/classification.h"

#include <jansson.h>

/* Examples with what was predicted; borrowed. */
typedef struct espl_class_examples {
    int64_t n;
    int classes;
    const int32_t *gold;
    const float *probabilities; /* [n, classes] */
    const char *const *labels;  /* [classes] */
} espl_class_examples;

typedef struct espl_class_report_options {
    int positive;             /* of two classes: the one that precision, recall, F1 and the threshold are about */
    espl_mean mean;           /* of more than two: how those are averaged */
    bool threshold;           /* choose one; two classes */
    espl_threshold_goal goal; /* by this */
    double least;             /* and this */
} espl_class_report_options;

/* Local. The likeliest class of an example; of equal ones the first. */
int32_t espl_likeliest(const float *probabilities, int classes);

/* Local. -log of the probability of the true class, in nats; finite where that is 0. */
double espl_class_loss(const float *probabilities, int32_t gold);

/* Local. A new object with "scores" {loss, accuracy, precision, recall, f1, matthews, roc_auc, calibration_error; of more than two classes
 * f1_macro, f1_micro, f1_weighted}, "labels", "classes", "confusion", "calibration" (ten bins, empty ones left out) and, where asked for
 * and there are examples of both classes, "threshold". Numbers that are not defined are null. */
json_t *espl_class_report_make(const espl_class_examples *examples, const espl_class_report_options *options);

#endif
