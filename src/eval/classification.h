/* Scores of a classifier: from a confusion matrix, and from probabilities.
 *
 * Definitions are scikit-learn's, with its zero_division = 0: a share of nothing is 0. */
#ifndef ESPL_EVAL_CLASSIFICATION_H
#define ESPL_EVAL_CLASSIFICATION_H

#include <stdbool.h>
#include <stdint.h>

/* Examples by true and predicted class. */
typedef struct espl_confusion {
    int classes;
    int64_t *counts; /* [classes, classes]; a row is the true class */
} espl_confusion;

typedef struct espl_class_scores {
    double precision, recall, f1;
    int64_t support; /* examples of the class */
} espl_class_scores;

typedef enum espl_mean { ESPL_MEAN_MACRO, ESPL_MEAN_MICRO, ESPL_MEAN_WEIGHTED } espl_mean;

/* Local. Counts n examples; classes are 0 .. classes - 1. Freed by espl_confusion_free. */
espl_confusion espl_confusion_make(int classes, const int32_t *gold, const int32_t *predicted, int64_t n);
void espl_confusion_free(espl_confusion *confusion);

/* Local. Share of examples predicted right; 0 of none. */
double espl_accuracy(const espl_confusion *confusion);

/* Local. Scores of one class against all others. */
espl_class_scores espl_class_score(const espl_confusion *confusion, int class_);

/* Local. The mean over classes: macro over those that are true or predicted anywhere, weighted by support, micro over examples. Its support
 * is the number of examples. */
espl_class_scores espl_mean_score(const espl_confusion *confusion, espl_mean mean);

/* Local. Matthews' correlation coefficient for any number of classes (Gorodkin 2004); 0 where it is not defined. */
double espl_matthews(const espl_confusion *confusion);

/* Local. Area under the ROC curve of a score that should be higher for positive examples: the share of pairs in the right order, ties
 * counted half. NAN when all examples are of one kind. */
double espl_roc_auc(const float *score, const bool *positive, int64_t n);

/* Local. Mean of the areas of each class against the others; probabilities [n, classes]. NAN when a class has no example, or all. */
double espl_roc_auc_mean(const float *probabilities, const int32_t *gold, int64_t n, int classes);

/* One interval of predicted confidence. */
typedef struct espl_calibration_bin {
    int64_t n;
    double confidence, accuracy; /* means; 0 where n is 0 */
} espl_calibration_bin;

/* Local. Sorts examples by confidence (the predicted class's probability, 0 .. 1) into bins of equal width, (lower, upper], and returns the
 * expected calibration error: the mean of |accuracy - confidence|, weighted by examples (Guo et al. 2017). */
double espl_calibrate(const float *confidence, const bool *right, int64_t n, espl_calibration_bin *bins, int n_bins);

/* What a threshold on the positive class's probability must reach. */
typedef enum espl_threshold_goal {
    ESPL_THRESHOLD_F1,
    ESPL_THRESHOLD_PRECISION,
    ESPL_THRESHOLD_RECALL,
    ESPL_THRESHOLD_FIXED
} espl_threshold_goal;

typedef struct espl_threshold {
    float threshold; /* positive from here up */
    double precision, recall, f1;
    bool reached; /* false: no threshold gives what was asked; then this is the nearest to it */
} espl_threshold;

/* Local. The threshold with the best F1; or with at least `least` precision and the most recall; or with at least `least` recall and the
 * most precision; those are scores that occur. FIXED: what the threshold `least`, chosen elsewhere, gives. Needs one positive example. */
espl_threshold espl_choose_threshold(const float *score, const bool *positive, int64_t n, espl_threshold_goal goal, double least);

#endif
