#include "src/eval/classification.h"

#include "src/core/buffer.h"
#include "src/core/status.h"

#include <math.h>
#include <stdlib.h>

/* ---- From counts. */

espl_confusion espl_confusion_make(int classes, const int32_t *gold, const int32_t *predicted, int64_t n) {
    espl_confusion c = {classes, espl_calloc((size_t)classes * (size_t)classes, sizeof *c.counts)};
    for (int64_t i = 0; i < n; i++) {
        ESPL_ASSERT(gold[i] >= 0 && gold[i] < classes && predicted[i] >= 0 && predicted[i] < classes,
                    "example %lld: class %d, predicted %d, of %d", (long long)i, gold[i], predicted[i], classes);
        c.counts[(int64_t)gold[i] * classes + predicted[i]]++;
    }
    return c;
}

void espl_confusion_free(espl_confusion *c) {
    free(c->counts);
    *c = (espl_confusion){0};
}

typedef struct margins {
    int64_t right, gold, predicted;
} margins;

static margins of_class(const espl_confusion *c, int k) {
    margins m = {.right = c->counts[(int64_t)k * c->classes + k]};
    for (int i = 0; i < c->classes; i++) {
        m.gold += c->counts[(int64_t)k * c->classes + i];
        m.predicted += c->counts[(int64_t)i * c->classes + k];
    }
    return m;
}

static margins of_all(const espl_confusion *c) {
    margins all = {0};
    for (int k = 0; k < c->classes; k++) {
        margins m = of_class(c, k);
        all.right += m.right;
        all.gold += m.gold;
        all.predicted += m.predicted;
    }
    return all;
}

static double share(double part, double whole) { return whole > 0.0 ? part / whole : 0.0; }

static espl_class_scores scores_of(margins m) {
    return (espl_class_scores){.precision = share((double)m.right, (double)m.predicted),
                               .recall = share((double)m.right, (double)m.gold),
                               .f1 = share(2.0 * (double)m.right, (double)(m.gold + m.predicted)),
                               .support = m.gold};
}

double espl_accuracy(const espl_confusion *c) {
    margins all = of_all(c);
    return share((double)all.right, (double)all.gold);
}

espl_class_scores espl_class_score(const espl_confusion *c, int k) { return scores_of(of_class(c, k)); }

espl_class_scores espl_mean_score(const espl_confusion *c, espl_mean mean) {
    if (mean == ESPL_MEAN_MICRO)
        return scores_of(of_all(c));
    espl_class_scores sum = {0};
    double weights = 0.0;
    for (int k = 0; k < c->classes; k++) {
        margins m = of_class(c, k);
        espl_class_scores s = scores_of(m);
        double weight = mean == ESPL_MEAN_WEIGHTED ? (double)m.gold : m.gold + m.predicted > 0;
        sum.precision += weight * s.precision;
        sum.recall += weight * s.recall;
        sum.f1 += weight * s.f1;
        sum.support += m.gold;
        weights += weight;
    }
    sum.precision = share(sum.precision, weights);
    sum.recall = share(sum.recall, weights);
    sum.f1 = share(sum.f1, weights);
    return sum;
}

double espl_matthews(const espl_confusion *c) {
    margins all = of_all(c);
    double n = (double)all.gold, both = 0.0, gold = 0.0, predicted = 0.0;
    for (int k = 0; k < c->classes; k++) {
        margins m = of_class(c, k);
        both += (double)m.gold * (double)m.predicted;
        gold += (double)m.gold * (double)m.gold;
        predicted += (double)m.predicted * (double)m.predicted;
    }
    double spread = (n * n - gold) * (n * n - predicted);
    return spread > 0.0 ? ((double)all.right * n - both) / sqrt(spread) : 0.0;
}

/* ---- From probabilities. */

typedef struct scored {
    float score;
    bool positive;
} scored;

static int compare_scored(const void *a, const void *b) {
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x > y) - (x < y);
}

static scored *sorted_scores(const float *score, const bool *positive, int64_t n) {
    scored *s = espl_malloc((size_t)(n > 0 ? n : 1) * sizeof *s);
    for (int64_t i = 0; i < n; i++)
        s[i] = (scored){score[i], positive[i]};
    qsort(s, (size_t)n, sizeof *s, compare_scored);
    return s;
}

/* How many from `begin` on share its score, and how many of them are positive. */
static int64_t tied(const scored *s, int64_t begin, int64_t n, int64_t *positives) {
    int64_t end = begin;
    *positives = 0;
    for (; end < n && s[end].score == s[begin].score; end++)
        *positives += s[end].positive;
    return end - begin;
}

double espl_roc_auc(const float *score, const bool *positive, int64_t n) {
    scored *s = sorted_scores(score, positive, n);
    int64_t negatives = 0, positives = 0, p;
    double twice_in_order = 0.0;
    for (int64_t i = 0, m; i < n; i += m) {
        m = tied(s, i, n, &p);
        twice_in_order += (double)p * (double)(2 * negatives + (m - p));
        positives += p;
        negatives += m - p;
    }
    free(s);
    return positives > 0 && negatives > 0 ? twice_in_order / (2.0 * (double)positives * (double)negatives) : NAN;
}

double espl_roc_auc_mean(const float *probabilities, const int32_t *gold, int64_t n, int classes) {
    float *score = espl_malloc((size_t)(n > 0 ? n : 1) * sizeof *score);
    bool *positive = espl_malloc((size_t)(n > 0 ? n : 1) * sizeof *positive);
    double sum = 0.0;
    for (int k = 0; k < classes; k++) {
        for (int64_t i = 0; i < n; i++) {
            score[i] = probabilities[i * classes + k];
            positive[i] = gold[i] == k;
        }
        sum += espl_roc_auc(score, positive, n);
    }
    free(score);
    free(positive);
    return sum / classes;
}

double espl_calibrate(const float *confidence, const bool *right, int64_t n, espl_calibration_bin *bins, int n_bins) {
    for (int b = 0; b < n_bins; b++)
        bins[b] = (espl_calibration_bin){0};
    for (int64_t i = 0; i < n; i++) {
        int b = (int)ceil((double)confidence[i] * n_bins) - 1;
        espl_calibration_bin *bin = &bins[b < 0 ? 0 : b < n_bins ? b : n_bins - 1];
        bin->n++;
        bin->confidence += (double)confidence[i];
        bin->accuracy += right[i];
    }
    double error = 0.0;
    for (int b = 0; b < n_bins; b++) {
        error += fabs(bins[b].accuracy - bins[b].confidence);
        bins[b].confidence = share(bins[b].confidence, (double)bins[b].n);
        bins[b].accuracy = share(bins[b].accuracy, (double)bins[b].n);
    }
    return share(error, (double)n);
}

/* ---- Thresholds. */

/* Whether `a` serves the goal better than `b`: what reaches it before what does not, then by the other measure. */
static bool better(const espl_threshold *a, const espl_threshold *b, espl_threshold_goal goal) {
    if (goal == ESPL_THRESHOLD_F1)
        return a->f1 > b->f1;
    double asked_a = goal == ESPL_THRESHOLD_PRECISION ? a->precision : a->recall;
    double asked_b = goal == ESPL_THRESHOLD_PRECISION ? b->precision : b->recall;
    double other_a = goal == ESPL_THRESHOLD_PRECISION ? a->recall : a->precision;
    double other_b = goal == ESPL_THRESHOLD_PRECISION ? b->recall : b->precision;
    if (a->reached != b->reached)
        return a->reached;
    if (!a->reached && asked_a != asked_b)
        return asked_a > asked_b;
    return other_a > other_b;
}

/* What a threshold gives that was chosen elsewhere. */
static espl_threshold judge(const scored *s, int64_t n, int64_t positives, float value) {
    margins m = {.gold = positives};
    for (int64_t i = 0; i < n; i++) {
        m.predicted += s[i].score >= value;
        m.right += s[i].score >= value && s[i].positive;
    }
    espl_class_scores at = scores_of(m);
    return (espl_threshold){.threshold = value, .precision = at.precision, .recall = at.recall, .f1 = at.f1, .reached = true};
}

espl_threshold espl_choose_threshold(const float *score, const bool *positive, int64_t n, espl_threshold_goal goal, double least) {
    scored *s = sorted_scores(score, positive, n);
    int64_t positives = 0, left = 0, p;
    for (int64_t i = 0; i < n; i++)
        positives += s[i].positive;
    ESPL_ASSERT(positives > 0, "no positive example among %lld", (long long)n);
    bool fixed = goal == ESPL_THRESHOLD_FIXED;
    espl_threshold best = fixed ? judge(s, n, positives, (float)least) : (espl_threshold){0};
    left = positives;
    for (int64_t i = 0, m; i < n && !fixed; i += m) {
        m = tied(s, i, n, &p);
        espl_class_scores at = scores_of((margins){.right = left, .gold = positives, .predicted = n - i});
        espl_threshold t = {.threshold = s[i].score, .precision = at.precision, .recall = at.recall, .f1 = at.f1};
        t.reached = goal == ESPL_THRESHOLD_F1 || (goal == ESPL_THRESHOLD_PRECISION ? t.precision : t.recall) >= least;
        if (i == 0 || better(&t, &best, goal))
            best = t;
        left -= p;
    }
    free(s);
    return best;
}
