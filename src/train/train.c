#include "src/train/run.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/log.h"
#include "src/train/run_folder.h"
#include "src/train/weights/weights.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static void report_step(espl_run *run, const espl_step_result *r) {
    int64_t count = espl_placement_count(run->data.placement, r->epoch);
    espl_step_report report = {.step = run->counters.step,
                               .epoch = (double)r->epoch + (double)run->counters.cursor / (double)count,
                               .loss = r->loss,
                               .lr = r->lr,
                               .grad_norm = r->grad_norm,
                               .tokens = r->tokens,
                               .step_seconds = r->seconds,
                               .data_seconds = r->data_seconds,
                               .compute_seconds = r->seconds - r->update_seconds - r->data_seconds,
                               .communication_seconds = r->wait_seconds,
                               .optimizer_seconds = r->update_seconds,
                               .stall_seconds = espl_checkpoints_stall_seconds(run->saver),
                               .slowest_rank = run->ranks->size > 1 ? (double)run->stragglers.slowest : (double)NAN,
                               .slowest_ratio = run->ranks->size > 1 ? run->stragglers.ratio : (double)NAN,
                               .skipped = r->skipped};
    if (run->counters.epoch > r->epoch) /* the step ended in the next epoch */
        report.epoch = (double)run->counters.epoch;
    espl_metrics_step(run->metrics, &report);
}

/* Rank 0 tells who is slow, and who no longer is. */
static void watch_stragglers(espl_run *run) {
    espl_stragglers *s = &run->stragglers;
    if (run->ranks->rank != 0 || run->ranks->size == 1)
        return;
    espl_stragglers_add(s, run->votes + ESPL_STEP_VOTES);
    for (int r = 0; r < s->size && s->factor > 0.0; r++) {
        double ratio;
        int64_t steps;
        espl_straggling now = espl_stragglers_ask(s, r, &ratio, &steps);
        if (now == ESPL_STRAGGLING_ENDS)
            ESPL_INFO("rank %d on %s is no longer slow", r, run->hosts[r]);
        if (now != ESPL_STRAGGLING_BEGINS)
            continue;
        ESPL_WARN("rank %d on %s is slow: %.1f times the median compute time for %lld steps; all wait for it", r, run->hosts[r], ratio,
                  (long long)steps);
        json_t *line = json_pack("{s:i, s:s, s:f, s:I}", "rank", r, "host", run->hosts[r], "ratio", ratio, "steps", (json_int_t)steps);
        espl_metrics_event(run->metrics, "straggler", run->counters.step, line);
        json_decref(line);
    }
}

static bool out_of_patience(const espl_run *run) {
    int64_t patience = run->config->eval_patience;
    return patience > 0 && run->counters.worse >= patience;
}

/* Also after a resume: a checkpoint carries what its probes were. */
static bool forgets_too_much(const espl_run *run) {
    return run->config->train_on_forgetting == ESPL_FORGETTING_STOP && espl_probes_forgetting(run->config, &run->probes) != NULL;
}

/* What asked for the stop: a signal of any rank, the end of the job's time, or train.stop_after. */
static espl_status name_reason(espl_run *run, const espl_step_result *r, char reason[32]) {
    int64_t number = run->stop_requested != NULL ? run->stop_requested() : 0;
    ESPL_TRY(espl_comm_allreduce_i64(run->comm, &number, 1, ESPL_MAX));
    const char *name = number > 0 ? sigabbrev_np((int)number) : NULL;
    bool ends = r->walltime == ESPL_WALLTIME_STOP;
    snprintf(reason, 32, "%s%s", number > 0 ? "SIG" : ends ? "the job's walltime" : "train.stop_after", name != NULL ? name : "");
    return ESPL_OK;
}

static espl_status stop(espl_run *run, const espl_step_result *r) {
    char reason[32];
    ESPL_TRY(name_reason(run, r, reason));
    ESPL_TRY(espl_run_save(run));
    ESPL_TRY(espl_checkpoints_wait(run->saver));
    ESPL_TRY(espl_checkpoints_forget(run->saver)); /* the hosts' memory may be someone else's next */
    snprintf(run->ending, sizeof run->ending, "stopped by %s", reason);
    ESPL_INFO("stopped by %s at step %lld of %lld with a checkpoint saved; the same command goes on from here", reason,
              (long long)run->counters.step, (long long)run->total_steps);
    return ESPL_STOPPED;
}

/* Kernels of attention are chosen at their first calls. */
static void tell_attention(espl_run *run) {
    espl_engine *e = &run->engine;
    e->calls->info(e->device, &e->info);
    if (e->info.attention[0] != '\0')
        ESPL_INFO("attention: %s", e->info.attention);
}

/* A full or failing disk between two saves is no end: the saver has warned, older checkpoints are kept, the next save may succeed. Whatever
 * else failed is one, another attempt that writes here among it. */
static espl_status unless_save_failed(espl_run *run, espl_status status) {
    int64_t failures = espl_checkpoints_failures(run->saver);
    bool save_failed = failures > run->failed_saves;
    run->failed_saves = failures;
    if (status != ESPL_ERR_IO || !save_failed)
        return status;
    espl_status_clear();
    return ESPL_OK;
}

/* Measures for the walltime what a step and a finished save took. */
static void note_times(espl_run *run, const espl_step_result *r) {
    double save = espl_checkpoints_save_seconds(run->saver);
    bool first = run->walltime.save <= 0.0 && save > 0.0;
    espl_walltime_add_step(&run->walltime, r->seconds);
    espl_walltime_add_save(&run->walltime, save);
    if (first)
        espl_walltime_tell(&run->walltime, espl_now());
}

static bool must_stop(const espl_run *run, const espl_step_result *r) {
    int64_t most = run->config->train_stop_after;
    return r->stop || r->walltime == ESPL_WALLTIME_STOP || (most > 0 && run->counters.step - run->first_step >= most);
}

static void leave_out(espl_run *run, const char *why) {
    int64_t step = run->counters.step, under_way = espl_checkpoints_under_way(run->saver);
    if (run->ranks->rank != 0)
        return;
    ESPL_WARN("no checkpoint of step %lld: %s", (long long)step, why);
    json_t *line = json_pack("{s:s, s:o}", "why", why, "under_way", under_way >= 0 ? json_integer(under_way) : json_null());
    espl_metrics_event(run->metrics, "no_checkpoint", step, line);
    json_decref(line);
}

/* What made a step skip may be the weights themselves: they are not for a checkpoint. */
static bool save_is_due(espl_run *run, const espl_step_result *r) {
    bool busy = run->config->checkpoint_if_busy == ESPL_IF_BUSY_SKIP && espl_checkpoints_under_way(run->saver) >= 0;
    if (r->walltime == ESPL_WALLTIME_SAVE)
        return true;
    if (!espl_run_due(run->config->checkpoint_every, run->counters.step))
        return false;
    if (r->skipped)
        leave_out(run, "the step was skipped, and its weights may be why");
    else if (busy)
        leave_out(run, "the one before is still being written (checkpoint.if_busy: skip)");
    return !r->skipped && !busy;
}

/* Begins an in-memory copy where one is due, and tells of the one that has become whole. */
static espl_status keep_copies(espl_run *run, const espl_step_result *r) {
    int64_t copied = espl_checkpoints_copied(run->saver);
    json_t *line = json_pack("{s:i}", "hosts", run->ranks->n_nodes);
    if (copied > run->copied)
        espl_metrics_event(run->metrics, "memory_copy", copied, line);
    json_decref(line);
    run->copied = copied;
    return !r->skipped && espl_run_due(run->config->checkpoint_memory_every, run->counters.step) ? espl_run_copy(run) : ESPL_OK;
}

static espl_status evaluate_on_the_way(espl_run *run) {
    double start = espl_now();
    espl_status status = espl_run_evaluate(run, false);
    espl_walltime_add_evaluation(&run->walltime, espl_now() - start);
    return status;
}

static espl_status loop(espl_run *run) {
    const espl_config *c = run->config;
    espl_counters *n = &run->counters;
    espl_step_result r;
    if (espl_probes_new(&run->probes))
        ESPL_TRY(espl_run_probe(run));
    while (n->step < run->total_steps && !out_of_patience(run) && !forgets_too_much(run)) {
        ESPL_TRY(espl_run_step(run, &r));
        if (r.bad_since > 0) {
            ESPL_TRY(unless_save_failed(run, espl_checkpoints_wait(run->saver)));
            ESPL_TRY(espl_run_rollback(run, &r));
            continue;
        }
        watch_stragglers(run);
        report_step(run, &r);
        if (n->step == run->first_step + 1)
            tell_attention(run);
        ESPL_TRY(unless_save_failed(run, espl_checkpoints_poll(run->saver)));
        note_times(run, &r);
        if (espl_run_due(c->run_check_replicas_every, n->step))
            ESPL_TRY(espl_run_compare(run));
        bool last = n->step == run->total_steps;
        if (!last && espl_run_due(c->train_eval_every, n->step))
            ESPL_TRY(evaluate_on_the_way(run));
        if (!last && must_stop(run, &r))
            return stop(run, &r);
        if (!last && save_is_due(run, &r))
            ESPL_TRY(unless_save_failed(run, espl_run_save(run)));
        if (!last)
            ESPL_TRY(keep_copies(run, &r));
    }
    if (n->step < run->total_steps && forgets_too_much(run))
        ESPL_INFO("training ends at step %lld of %lld: probe %s is above train.max_forgetting (train.on_forgetting: stop)",
                  (long long)n->step, (long long)run->total_steps, espl_probes_forgetting(c, &run->probes)->name);
    else if (n->step < run->total_steps)
        ESPL_INFO("training ends at step %lld of %lld: the last %lld evaluations were no better than the best (eval.patience)",
                  (long long)n->step, (long long)run->total_steps, (long long)n->worse);
    return ESPL_OK;
}

static espl_status export_model(const espl_run *run) {
    const espl_config *c = run->config;
    if (!c->checkpoint_export)
        return ESPL_OK;
    int64_t best = c->checkpoint_keep_best ? espl_checkpoints_best(run->saver) : -1, step = best >= 0 ? best : run->counters.step;
    const espl_export_options options = {.base = "", .dtype = run->engine.kernels->real, .adapter = c->tune_method != ESPL_TUNE_FULL};
    char *checkpoint = espl_format("%s/checkpoints/step-%08lld", c->run_dir, (long long)step),
         *folder = espl_format("%s/%s", c->run_dir, options.adapter ? "adapter" : "model");
    espl_status status = espl_weights_export(checkpoint, &options, folder);
    if (status == ESPL_OK)
        ESPL_INFO("the %s of step %lld is in %s", options.adapter ? "adapter" : "model", (long long)step, folder);
    free(checkpoint);
    free(folder);
    return status;
}

/* Not where nothing was left to train and the disk has that state: it may have come from an in-memory copy alone, or lie, after a rollback,
 * before the step where this process began. */
static espl_status save_last(espl_run *run) {
    int64_t step = run->counters.step, newest = -1;
    if (step <= run->first_step) {
        ESPL_TRY(unless_save_failed(run, espl_checkpoints_wait(run->saver)));
        newest = run->ranks->rank == 0 ? espl_checkpoints_newest(run->saver, step, 1) : -1;
        ESPL_TRY(espl_comm_bcast(run->comm, &newest, sizeof newest, 0));
    }
    return newest == step ? ESPL_OK : espl_run_save(run);
}

static espl_status finish(espl_run *run) {
    ESPL_TRY(espl_run_evaluate(run, true));
    ESPL_TRY(save_last(run));
    ESPL_TRY(espl_checkpoints_wait(run->saver));
    ESPL_TRY(espl_checkpoints_forget(run->saver));
    espl_run_release(run); /* the export reads the checkpoint; it need not fit beside what training took */
    espl_status status = run->ranks->rank == 0 ? export_model(run) : ESPL_OK;
    if (status == ESPL_OK && run->ranks->rank == 0)
        status = espl_run_folder_done(run->config, run->counters.step);
    return espl_comm_agree(run->comm, status, "exporting the model");
}

espl_status espl_train(const espl_config *config, espl_comm *comm, const espl_run_options *options) {
    espl_run run;
    espl_status status = espl_run_open(config, comm, options, &run);
    if (status == ESPL_OK)
        status = loop(&run);
    if (status == ESPL_OK)
        status = finish(&run);
    char *message = espl_strdup(espl_status_message());
    if (status == ESPL_ERR_NUMERIC && run.saver != NULL && espl_checkpoints_forget(run.saver) != ESPL_OK) /* the numbers may be in them */
        ESPL_WARN("%s", espl_status_message());
    espl_metrics_summary(run.metrics, status == ESPL_OK ? "done" : status == ESPL_STOPPED ? run.ending : message);
    if (status != ESPL_OK)
        espl_status_set_message("%s", message);
    free(message);
    espl_run_close(&run);
    return status;
}
