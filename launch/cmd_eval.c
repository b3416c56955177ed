#include "launch/commands.h"
#include "launch/recipe.h"
#include "launch/session.h"

#include "src/core/log.h"
#include "src/core/buffer.h"
#include "src/train/evaluate_path.h"

#include <math.h>
#include <stdlib.h>

static const char text[] =
    "Evaluates a model on data.valid of the config, on as many ranks as the launcher started; what it finds does not depend on their "
    "number.\n"
    "Of a language model: loss and perplexity a token, and bits a byte of text (which do not depend on the tokenizer). Of a classifier:\n"
    "accuracy, precision, recall, F1, Matthews' correlation, area under the ROC curve, calibration. Of an encoder-decoder, and of\n"
    "prompts and conversations (data.records), also ROUGE, BLEU, chrF, exact match and JSON validity of what the model generates,\n"
    "behind eval.shots examples where those are asked for. --output writes evaluation.json (with confusion matrix and worst\n"
    "mistakes) and predictions.jsonl; `espalier report` shows what lies in a run's evaluations/NAME folders.\n"
    "The model is --model, or else the newest good checkpoint of run.dir.\n";

typedef struct job {
    espl_words operands, sets;
    const char *model, *output;
    bool json;
} job;

static espl_status read_config(espl_comm *comm, const job *job, espl_config *config) {
    ESPL_TRY(espl_recipe_share(comm, job->operands.items[0], &job->sets, config));
    if (job->model == NULL && config->run_dir[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "neither --model nor run.dir says which model to evaluate");
    return ESPL_OK;
}

static void print_tokens(const espl_outcome *o) {
    printf("loss %.6f, perplexity %.4f a token", o->result.loss, exp(o->result.loss));
    if (!isnan(espl_outcome_score(o, "bits_per_byte")))
        printf("; %.4f bits, perplexity %.4f a byte", espl_outcome_score(o, "bits_per_byte"), espl_outcome_score(o, "byte_perplexity"));
    printf("; %lld tokens, %lld bytes\n", (long long)o->result.targets, (long long)o->result.bytes);
}

/* The probability from which a text is said to have the positive label, as eval.threshold chose it, and what that gives. */
static void print_threshold(const json_t *threshold) {
    const char *label;
    double from, precision, recall, f1;
    int reached;
    if (json_unpack((json_t *)threshold, "{s:s, s:F, s:F, s:F, s:F, s:b}", "label", &label, "threshold", &from, "precision", &precision,
                    "recall", &recall, "f1", &f1, "reached", &reached) != 0)
        return;
    printf("threshold %.6f of %s: precision %.6f, recall %.6f, f1 %.6f%s\n", from, label, precision, recall, f1,
           reached ? "" : "; what was asked for is not reached");
}

/* A line a score. */
static void print_scores(const espl_outcome *o) {
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(o->report, "scores"), name, value) printf("%s %.6f\n", name, json_number_value(value));
    print_threshold(json_object_get(o->report, "threshold"));
    printf("targets %lld\n", (long long)o->result.targets);
}

static void print_outcome(const job *job, const espl_outcome *o) {
    if (job->json) {
        json_t *object = json_deep_copy(json_object_get(o->report, "scores"));
        json_object_set_new(object, "tokens", json_integer((json_int_t)o->result.targets));
        json_object_set_new(object, "bytes", json_integer((json_int_t)o->result.bytes));
        json_t *threshold = json_object_get(o->report, "threshold");
        if (threshold != NULL)
            json_object_set(object, "threshold", threshold);
        char *line = json_dumps(object, JSON_REAL_PRECISION(17));
        printf("%s\n", line);
        free(line);
        json_decref(object);
    } else if (o->predictions.classes > 0 || !isnan(espl_outcome_score(o, "rouge1"))) {
        print_scores(o);
    } else {
        print_tokens(o);
    }
}

static espl_status body(espl_comm *comm, void *context) {
    const job *job = context;
    espl_config config;
    espl_outcome outcome = {0};
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(read_config(comm, job, &config));
    espl_log_set(espl_comm_ranks(comm)->rank, config.log_level, NULL);
    ESPL_TRY_DONE(espl_evaluate_path(&config, comm, job->model != NULL ? job->model : config.run_dir, job->output, &outcome));
    if (espl_comm_ranks(comm)->rank == 0)
        print_outcome(job, &outcome);
done:
    espl_outcome_free(&outcome);
    espl_config_free(&config);
    return status;
}

espl_status espl_cmd_eval(int argc, char **argv) {
    job job = {0};
    const espl_option options[] = {
        {"model", "PATH", "a run folder, a checkpoint, a Hugging Face folder or an adapter in PEFT's layout", ESPL_OPTION_TEXT, &job.model},
        {"output", "FOLDER", "write evaluation.json and predictions.jsonl there", ESPL_OPTION_TEXT, &job.output},
        ESPL_OPTION_SET(&job.sets),
        {"json", NULL, "print JSON", ESPL_OPTION_SWITCH, &job.json},
    };
    const espl_usage usage = {
        .verb = "eval", .operands = "CONFIG.yaml", .text = text, ESPL_OPTIONS(options), .min_operands = 1, .max_operands = 1};
    return espl_session_verb(&usage, argc, argv, &job.operands, body, &job);
}
