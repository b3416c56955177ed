#include "src/train/score/outcome.h"

#include "src/eval/class_report.h"

#include <math.h>
#include <string.h>

_Static_assert((int)ESPL_EVAL_MACRO == (int)ESPL_MEAN_MACRO && (int)ESPL_EVAL_MICRO == (int)ESPL_MEAN_MICRO &&
                   (int)ESPL_EVAL_WEIGHTED == (int)ESPL_MEAN_WEIGHTED,
               "a choice of eval.mean is handed on as it is");

void espl_outcome_free(espl_outcome *o) {
    espl_predictions_free(&o->predictions);
    json_decref(o->report);
    *o = (espl_outcome){0};
}

double espl_outcome_score(const espl_outcome *o, const char *name) {
    const json_t *score = json_object_get(json_object_get(o->report, "scores"), name);
    return json_is_number(score) ? json_number_value(score) : (double)NAN;
}

/* ---- Language models. */

static void set_number(json_t *object, const char *key, double value) {
    json_object_set_new(object, key, isfinite(value) ? json_real(value) : json_null());
}

/* Loss and perplexity a target; of running text also bits a byte, which do not depend on the tokenizer. */
static json_t *report_of_tokens(const espl_config *config, const espl_eval_result *r) {
    json_t *report = json_object(), *scores = json_object();
    double bits = r->loss * (double)r->targets / (double)r->bytes / log(2.0);
    set_number(scores, "loss", r->loss);
    set_number(scores, "perplexity", exp(r->loss));
    if (config->data_task == ESPL_TASK_LM) {
        set_number(scores, "bits_per_byte", bits);
        set_number(scores, "byte_perplexity", exp2(bits));
    }
    json_object_set_new(report, "scores", scores);
    return report;
}

/* ---- Classifiers. */

static espl_status find_positive(const espl_config *config, const espl_labels *labels, int *positive) {
    const char *name = config->eval_positive;
    *positive = name[0] != '\0' ? espl_labels_find(labels, name, strlen(name)) : (int)labels->n - 1;
    if (*positive >= 0)
        return ESPL_OK;
    espl_buffer known = {0};
    espl_labels_list(labels, &known);
    espl_status status =
        espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__, "eval.positive is '%s', expected one of %s", name, known.data);
    espl_buffer_free(&known);
    return status;
}

static espl_status report_of_classes(const espl_config *config, const espl_labels *labels, const espl_predictions *p, json_t **report) {
    static const espl_threshold_goal goals[] = {[ESPL_EVAL_THRESHOLD_F1] = ESPL_THRESHOLD_F1,
                                                [ESPL_EVAL_THRESHOLD_PRECISION] = ESPL_THRESHOLD_PRECISION,
                                                [ESPL_EVAL_THRESHOLD_RECALL] = ESPL_THRESHOLD_RECALL,
                                                [ESPL_EVAL_THRESHOLD_FIXED] = ESPL_THRESHOLD_FIXED};
    bool fixed = config->eval_threshold == ESPL_EVAL_THRESHOLD_FIXED;
    espl_class_report_options options = {.mean = (espl_mean)config->eval_mean,
                                         .threshold = config->eval_threshold != ESPL_EVAL_THRESHOLD_NONE,
                                         .goal = goals[config->eval_threshold],
                                         .least = fixed ? config->eval_threshold_value : config->eval_threshold_least};
    const espl_class_examples examples = {
        .n = p->n, .classes = p->classes, .gold = p->gold, .probabilities = p->probabilities, .labels = (const char *const *)labels->names};
    ESPL_TRY(find_positive(config, labels, &options.positive));
    *report = espl_class_report_make(&examples, &options);
    return ESPL_OK;
}

espl_status espl_outcome_make(const espl_config *config, const espl_labels *labels, espl_outcome *o) {
    const espl_eval_result *r = &o->result;
    if (o->predictions.classes > 0)
        ESPL_TRY(report_of_classes(config, labels, &o->predictions, &o->report));
    else
        o->report = report_of_tokens(config, r);
    json_object_set_new(o->report, "task", json_string(espl_config_choice("data", "task", config->data_task)));
    json_object_set_new(o->report, "targets", json_integer((json_int_t)r->targets));
    json_object_set_new(o->report, "bytes", json_integer((json_int_t)r->bytes));
    return ESPL_OK;
}
