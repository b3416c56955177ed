// test: libs=eval,config,core ranks=1 tier=short timeout=60
/* With an argument: checks that file of goldens instead of the tree's (tests/reference/scores_parity.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/core/buffer.h"
#include "src/eval/bleu.h"
#include "src/eval/classification.h"
#include "src/eval/rouge.h"
#include "tests/unit/goldens.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double bound = 1e-12; /* relative */

static double number(json_t *row, const char *key) { return json_number_value(json_object_get(row, key)); }

static const char *string(json_t *row, const char *key) { return json_string_value(json_object_get(row, key)); }

static bool near(double a, double b) { return fabs(a - b) <= bound * fmax(1.0, fabs(b)); }

static void check(double found, double expected) {
    if (!near(found, expected))
        fail_msg("%.17g is not %.17g", found, expected);
}

static void check_list(const double *found, json_t *expected) {
    size_t i;
    json_t *value;
    json_array_foreach(expected, i, value) check(found[i], json_number_value(value));
}

/* ---- Texts. */

static void rouge_equals_rouge_score(void **state) {
    json_t *rows = json_object_get(*state, "texts"), *row;
    size_t i;
    assert_true(json_array_size(rows) >= 30);
    json_array_foreach(rows, i, row) {
        for (int stem = 0; stem < 2; stem++) {
            espl_rouge score = espl_rouge_score(string(row, "reference"), string(row, "prediction"), stem == 1);
            double found[12];
            memcpy(found, &score, sizeof found);
            check_list(found, json_object_get(row, stem ? "stemmed" : "plain"));
        }
    }
}

static void corpus_scores_equal_sacrebleu(void **state) {
    json_t *texts = json_object_get(*state, "texts"), *rows = json_object_get(*state, "corpora"), *row;
    size_t i;
    assert_true(json_array_size(rows) >= 5);
    json_array_foreach(rows, i, row) {
        espl_bleu bleu = {0};
        espl_chrf chrf = {0};
        for (size_t t = (size_t)number(row, "begin"); t < (size_t)number(row, "end"); t++) {
            json_t *text = json_array_get(texts, t);
            espl_bleu_add(&bleu, string(text, "reference"), string(text, "prediction"));
            espl_chrf_add(&chrf, string(text, "reference"), string(text, "prediction"));
        }
        check(espl_bleu_score(&bleu), number(row, "bleu"));
        check(espl_chrf_score(&chrf), number(row, "chrf"));
    }
}

/* The comparison above must see a score that is off in its tenth digit. */
static void a_small_error_is_seen(void **state) {
    json_t *row = json_array_get(json_object_get(*state, "corpora"), 1);
    double bleu = number(row, "bleu");
    assert_true(bleu > 1.0 && bleu < 99.0);
    assert_true(near(bleu, bleu));
    assert_false(near(bleu * (1.0 + 1e-10), bleu));
}

/* ---- Classes. */

typedef struct examples {
    int classes;
    int64_t n;
    int32_t *gold, *predicted;
    float *probabilities;
} examples;

static int32_t *integers(json_t *list) {
    int32_t *values = espl_malloc(json_array_size(list) * sizeof *values);
    for (size_t i = 0; i < json_array_size(list); i++)
        values[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return values;
}

static examples read_examples(json_t *row) {
    json_t *probabilities = json_object_get(row, "probabilities");
    size_t n = json_array_size(probabilities);
    examples e = {.classes = (int)number(row, "classes"),
                  .n = (int64_t)json_array_size(json_object_get(row, "gold")),
                  .gold = integers(json_object_get(row, "gold")),
                  .predicted = integers(json_object_get(row, "predicted")),
                  .probabilities = espl_malloc(n * sizeof(float))};
    for (size_t i = 0; i < n; i++)
        e.probabilities[i] = (float)json_number_value(json_array_get(probabilities, i));
    return e;
}

static void free_examples(examples *e) {
    free(e->gold);
    free(e->predicted);
    free(e->probabilities);
}

static void check_scores(espl_class_scores found, json_t *expected) {
    double values[] = {found.precision, found.recall, found.f1, (double)found.support};
    check_list(values, expected);
}

static void check_areas(const examples *e, json_t *expected) {
    float *score = espl_malloc((size_t)e->n * sizeof *score);
    bool *positive = espl_malloc((size_t)e->n * sizeof *positive);
    double sum = 0.0;
    for (int k = 0; k < e->classes; k++) {
        json_t *area = json_array_get(expected, (size_t)k);
        for (int64_t i = 0; i < e->n; i++) {
            score[i] = e->probabilities[i * e->classes + k];
            positive[i] = e->gold[i] == k;
        }
        double found = espl_roc_auc(score, positive, e->n);
        sum += found;
        if (json_is_null(area))
            assert_true(isnan(found));
        else
            check(found, json_number_value(area));
    }
    double mean = espl_roc_auc_mean(e->probabilities, e->gold, e->n, e->classes);
    assert_true(isnan(mean) ? isnan(sum) : near(mean, sum / e->classes));
    free(score);
    free(positive);
}

static void class_scores_equal_scikit_learn(void **state) {
    json_t *rows = json_object_get(*state, "classes"), *row;
    size_t i;
    assert_true(json_array_size(rows) >= 5);
    json_array_foreach(rows, i, row) {
        examples e = read_examples(row);
        espl_confusion c = espl_confusion_make(e.classes, e.gold, e.predicted, e.n);
        check(espl_accuracy(&c), number(row, "accuracy"));
        check(espl_matthews(&c), number(row, "matthews"));
        check_scores(espl_mean_score(&c, ESPL_MEAN_MACRO), json_object_get(row, "macro"));
        check_scores(espl_mean_score(&c, ESPL_MEAN_MICRO), json_object_get(row, "micro"));
        check_scores(espl_mean_score(&c, ESPL_MEAN_WEIGHTED), json_object_get(row, "weighted"));
        for (int k = 0; k < e.classes; k++)
            check_scores(espl_class_score(&c, k), json_array_get(json_object_get(row, "each"), (size_t)k));
        check_areas(&e, json_object_get(row, "areas"));
        espl_confusion_free(&c);
        free_examples(&e);
    }
}

/* ---- Calibration and thresholds, by hand. */

static void calibration_by_hand(void **state) {
    (void)state;
    const float confidence[] = {0.95f, 0.85f, 0.5f, 0.75f, 1.0f};
    const bool right[] = {true, false, true, true, false};
    espl_calibration_bin bins[2];
    double error = espl_calibrate(confidence, right, 5, bins, 2);
    assert_int_equal(bins[0].n, 1); /* 0.5 belongs below */
    assert_int_equal(bins[1].n, 4);
    assert_true(fabs(bins[1].confidence - 0.8875) < 1e-7 && bins[1].accuracy == 0.5);
    assert_true(fabs(error - (0.5 + 4 * 0.3875) / 5) < 1e-7);
}

static void thresholds_by_hand(void **state) {
    (void)state;
    const float score[] = {0.9f, 0.8f, 0.8f, 0.6f, 0.4f, 0.2f};
    const bool positive[] = {true, true, false, true, false, false};
    espl_threshold t = espl_choose_threshold(score, positive, 6, ESPL_THRESHOLD_FIXED, 0.6);
    assert_true(t.reached && t.threshold == 0.6f && t.precision == 0.75 && t.recall == 1.0);
    t = espl_choose_threshold(score, positive, 6, ESPL_THRESHOLD_FIXED, 0.95);
    assert_true(t.reached && t.precision == 0.0 && t.recall == 0.0);
    t = espl_choose_threshold(score, positive, 6, ESPL_THRESHOLD_PRECISION, 0.7);
    assert_true(t.reached && t.threshold == 0.6f && t.precision == 0.75 && t.recall == 1.0);
    t = espl_choose_threshold(score, positive, 6, ESPL_THRESHOLD_PRECISION, 0.9);
    assert_true(t.reached && t.threshold == 0.9f && t.precision == 1.0);
    t = espl_choose_threshold(score, positive, 6, ESPL_THRESHOLD_RECALL, 0.5);
    assert_true(t.reached && t.threshold == 0.6f && t.recall == 1.0);
    t = espl_choose_threshold(score, positive, 6, ESPL_THRESHOLD_F1, 0.0);
    assert_true(t.threshold == 0.6f && fabs(t.f1 - 6.0 / 7.0) < 1e-15);
    const bool last[] = {false, false, false, false, false, true};
    t = espl_choose_threshold(score, last, 6, ESPL_THRESHOLD_PRECISION, 0.5);
    assert_true(!t.reached && t.threshold == 0.2f);
}

static int load(void **state) { return load_goldens(state, *state); }

int main(int argc, char **argv) {
    void *goldens = argc > 1 ? argv[1] : ESPL_SOURCE_DIR "/tests/goldens/scores.json";
#define OVER_GOLDENS(test) cmocka_unit_test_prestate_setup_teardown(test, load, free_goldens, goldens)
    const struct CMUnitTest tests[] = {OVER_GOLDENS(rouge_equals_rouge_score), OVER_GOLDENS(corpus_scores_equal_sacrebleu),
                                       OVER_GOLDENS(a_small_error_is_seen),    OVER_GOLDENS(class_scores_equal_scikit_learn),
                                       cmocka_unit_test(calibration_by_hand),  cmocka_unit_test(thresholds_by_hand)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
