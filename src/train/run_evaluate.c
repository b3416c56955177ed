#include "src/train/run.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/train/score/outcome.h"
#include "src/train/score/text_scores.h"

#include <math.h>
#include <stdlib.h>

/* Lower is better. */
static double rating_of(const espl_config *config, const espl_outcome *o) {
    const char *name = espl_config_choice("eval", "best", config->eval_best);
    return config->eval_best == ESPL_BEST_LOSS ? o->result.loss : -espl_outcome_score(o, name);
}

static void rate(espl_run *run, const espl_outcome *o) {
    espl_counters *n = &run->counters;
    run->rating = rating_of(run->config, o);
    run->rated = n->step;
    bool better = !(n->best_rating <= run->rating);
    n->worse = better ? 0 : n->worse + 1;
    if (better)
        n->best_rating = run->rating;
}

static void report_evaluation(espl_run *run, const espl_outcome *o) {
    const espl_eval_result *r = &o->result;
    const espl_eval_report report = {.step = run->counters.step,
                                     .loss = r->loss,
                                     .tokens = r->targets,
                                     .bytes = r->bytes,
                                     .seconds = r->seconds,
                                     .classifier = o->predictions.classes > 0,
                                     .accuracy = espl_outcome_score(o, "accuracy"),
                                     .precision = espl_outcome_score(o, "precision"),
                                     .recall = espl_outcome_score(o, "recall"),
                                     .f1 = espl_outcome_score(o, "f1"),
                                     .matthews = espl_outcome_score(o, "matthews"),
                                     .roc_auc = espl_outcome_score(o, "roc_auc"),
                                     .texts = run->blueprint.texts != NULL,
                                     .rouge1 = espl_outcome_score(o, "rouge1"),
                                     .rouge2 = espl_outcome_score(o, "rouge2"),
                                     .rougeL = espl_outcome_score(o, "rougeL"),
                                     .rougeLsum = espl_outcome_score(o, "rougeLsum"),
                                     .bleu = espl_outcome_score(o, "bleu"),
                                     .chrf = espl_outcome_score(o, "chrf"),
                                     .exact_match = espl_outcome_score(o, "exact_match"),
                                     .json_valid = espl_outcome_score(o, "json_valid"),
                                     .json_keys = espl_outcome_score(o, "json_keys")};
    espl_metrics_eval(run->metrics, &report);
}

static char *evaluation_folder(const espl_run *run, int64_t step) {
    return espl_format("%s/evaluations/step-%08lld", run->config->run_dir, (long long)step);
}

static espl_outcome_about about_of(const espl_run *run) {
    const espl_config *c = run->config;
    return (espl_outcome_about){.config = c,
                                .labels = &run->labels,
                                .paths = c->data_valid.n > 0 ? &c->data_valid : &c->data_train,
                                .model = c->run_dir,
                                .step = run->counters.step};
}

static espl_status ask(const espl_run *run, const espl_outcome_about *about, espl_asked *asked) {
    const espl_asked_use use = {.config = run->config,
                                .model = run->model,
                                .tokenizer = run->tokenizer,
                                .folder = run->config->model_path,
                                .data = &run->valid,
                                .paths = about->paths,
                                .labels = &run->labels,
                                .most = espl_blueprint_reach(run->config, run->model)};
    return espl_comm_agree(run->comm, espl_asked_make(&use, asked), "reading the prompts");
}

static espl_status score_texts(espl_run *run, const espl_asked *asked, const espl_outcome_about *about, const char *folder,
                               espl_outcome *o) {
    const espl_text_scores_use use = {.comm = run->comm,
                                      .model = run->model,
                                      .tokenizer = run->tokenizer,
                                      .asked = asked,
                                      .decoder = run->blueprint.texts,
                                      .step = run->counters.step};
    ESPL_TRY(espl_comm_agree(run->comm, espl_memory_begin_texts(&run->blueprint, &run->memory), "generating"));
    ESPL_TRY(espl_text_scores_add(&use, about, folder, o));
    return espl_comm_agree(run->comm, espl_memory_end_texts(&run->blueprint, &run->memory), "generating");
}

/* Scores of what the model writes, where eval.best asks for them; in the memory that training and evaluation leave alone meanwhile. */
static espl_status add_texts(espl_run *run, bool write, espl_outcome *o) {
    const espl_outcome_about about = about_of(run);
    espl_asked asked = {0};
    if (run->blueprint.texts == NULL)
        return ESPL_OK;
    char *folder = write ? evaluation_folder(run, run->counters.step) : NULL;
    espl_metrics_note(run->metrics, "generating");
    espl_status status = ask(run, &about, &asked);
    if (status == ESPL_OK)
        status = score_texts(run, &asked, &about, folder, o);
    espl_asked_free(&asked);
    free(folder);
    return status;
}

static espl_status write_evaluation(const espl_run *run, const espl_outcome *o) {
    char *folder = evaluation_folder(run, run->counters.step);
    json_t *probes = espl_probes_report(&run->probes);
    espl_outcome_about about = about_of(run);
    about.probes = probes;
    espl_status status = espl_outcome_write(o, &about, folder);
    json_decref(probes);
    free(folder);
    return status;
}

/* Of the evaluations on the way that of the best model so far stays, beside the best checkpoint; for rank 0. Training does not end for it.
 */
static void keep_best(espl_run *run, const espl_outcome *o) {
    bool best = run->rating <= run->counters.best_rating; /* of equals the last, as of checkpoints */
    int64_t gone = best ? run->best_written : run->counters.step;
    char *folder = gone >= 0 ? evaluation_folder(run, gone) : NULL;
    espl_status status = folder != NULL ? espl_fs_remove_folder(folder, NULL) : ESPL_OK;
    if (best && status == ESPL_OK)
        status = write_evaluation(run, o);
    if (best)
        run->best_written = run->counters.step;
    if (status != ESPL_OK) {
        ESPL_WARN("%s; training goes on without this evaluation's files", espl_status_message());
        espl_status_clear();
    }
    free(folder);
}

static espl_status move_weights(void *context, const espl_move *move) {
    const espl_run *run = context;
    return espl_run_device(context, espl_memory_move_weights(&run->memory, &run->blueprint.eval_flow, move));
}

/* The run's evaluation on one of its sets, once the weights of the last update are there. */
static espl_status prepare(espl_run *run, const espl_dataset *data, espl_predictions *predictions, espl_evaluation *evaluation) {
    *evaluation = (espl_evaluation){.comm = run->comm,
                                    .engine = &run->engine,
                                    .data = data,
                                    .tape = &run->blueprint.eval,
                                    .sample = &run->memory.sample,
                                    .sum = run->memory.sums,
                                    .predictions = predictions,
                                    .most = run->config->train_eval_batches,
                                    .step = run->counters.step,
                                    .flow = run->blueprint.owner.cut ? &run->blueprint.eval_flow : NULL,
                                    .move = move_weights,
                                    .context = run};
    return espl_run_device(run, espl_memory_settle(&run->memory));
}

static void report_probe(const espl_run *run, const espl_probe *p) {
    const espl_probe_report report = {.step = run->counters.step,
                                      .name = p->name,
                                      .tag = p->tag,
                                      .loss = p->now,
                                      .rise = espl_probe_rise(p),
                                      .tokens = p->targets,
                                      .seconds = p->seconds};
    espl_metrics_probe(run->metrics, &report);
    if (espl_probe_forgets(run->config, p))
        ESPL_WARN("probe %s: its loss is %.4f above that before the first step, more than train.max_forgetting %g allows", p->name,
                  espl_probe_rise(p), run->config->train_max_forgetting);
}

espl_status espl_run_probe(espl_run *run) {
    if (run->probes.n == 0 || run->probes.step == run->counters.step)
        return ESPL_OK;
    espl_metrics_note(run->metrics, "probing");
    espl_evaluation how;
    ESPL_TRY(prepare(run, NULL, NULL, &how));
    ESPL_TRY(espl_probes_evaluate(&run->probes, &how));
    espl_metrics_note(run->metrics, NULL);
    for (int64_t i = 0; i < run->probes.n; i++)
        report_probe(run, &run->probes.items[i]);
    return ESPL_OK;
}

static espl_status write_files(espl_run *run, bool final, const espl_outcome *o) {
    bool first = run->ranks->rank == 0;
    if (final)
        return espl_comm_agree(run->comm, first ? write_evaluation(run, o) : ESPL_OK, "writing the evaluation");
    if (first && run->config->checkpoint_keep_best)
        keep_best(run, o);
    return ESPL_OK;
}

espl_status espl_run_evaluate(espl_run *run, bool final) {
    bool again = run->rated == run->counters.step;
    espl_outcome o = {0};
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_run_probe(run));
    if (run->valid.n == 0 || (again && !final))
        return ESPL_OK;
    espl_metrics_note(run->metrics, "evaluating");
    bool classifier = run->blueprint.eval.logits >= 0;
    if (classifier)
        o.predictions = espl_predictions_make((int)run->labels.n);
    espl_evaluation evaluation;
    ESPL_TRY_DONE(prepare(run, &run->valid, classifier ? &o.predictions : NULL, &evaluation));
    ESPL_TRY_DONE(espl_evaluate(&evaluation, &o.result));
    ESPL_TRY_DONE(espl_comm_agree(run->comm, espl_outcome_make(run->config, &run->labels, &o), "scoring"));
    ESPL_TRY_DONE(add_texts(run, final || run->config->checkpoint_keep_best, &o));
    espl_metrics_note(run->metrics, NULL);
    if (!again) {
        rate(run, &o);
        report_evaluation(run, &o);
    }
    ESPL_TRY_DONE(write_files(run, final, &o));
done:
    espl_outcome_free(&o);
    return status;
}
