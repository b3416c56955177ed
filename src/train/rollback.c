#include "src/train/run.h"

#include "src/core/log.h"

#include <math.h>

/* The checkpoint to go back to: its weights made rollback_margin good steps before the bad ones. Those of a stop or of the job's end do not
 * count, so that it does not depend on where a run was interrupted. -1: none. */
static espl_status choose(espl_run *run, int64_t bad_since, int64_t *step) {
    int64_t newest = bad_since - 1 - run->config->train_rollback_margin;
    *step = run->ranks->rank == 0 ? espl_checkpoints_newest(run->saver, newest, run->config->checkpoint_every) : 0;
    return espl_comm_bcast(run->comm, step, sizeof *step, 0);
}

static espl_status must_be_allowed(const espl_run *run, int64_t bad_since, int64_t target) {
    const espl_config *c = run->config;
    if (run->spikes.rollbacks >= c->train_max_rollbacks)
        ESPL_FAIL(
            ESPL_ERR_NUMERIC,
            "step %lld is bad again after %lld rollbacks (train.max_rollbacks is %lld); lower optim.lr, or look at the data: what was "
            "left out stands in metrics.jsonl",
            (long long)bad_since, (long long)run->spikes.rollbacks, (long long)c->train_max_rollbacks);
    if (target < 0)
        ESPL_FAIL(
            ESPL_ERR_NUMERIC,
            "step %lld is bad, and there is no checkpoint to go back to of step %lld or before (train.rollback_margin is %lld); lower "
            "optim.lr, or save more often (checkpoint.every is %lld) and keep more (checkpoint.keep_last is %lld)",
            (long long)bad_since, (long long)(bad_since - 1 - c->train_rollback_margin), (long long)c->train_rollback_margin,
            (long long)c->checkpoint_every, (long long)c->checkpoint_keep_last);
    return ESPL_OK;
}

/* Loads the checkpoint. Later ones are of a course that the run leaves. */
static espl_status go_back(espl_run *run, int64_t target) {
    bool loaded = false;
    ESPL_TRY(espl_checkpoints_begin(run->saver, target));
    ESPL_TRY(espl_run_resume(run, "auto", &loaded));
    if (!loaded)
        ESPL_FAIL(ESPL_ERR_DATA, "the checkpoint of step %lld has gone while the run went back to it", (long long)target);
    return run->counters.step < target ? espl_checkpoints_begin(run->saver, run->counters.step) : ESPL_OK;
}

/* What this process remembers of steps that have not been made now. */
static void forget_later(espl_run *run) {
    int64_t step = run->counters.step;
    if (run->rated > step)
        run->rated = -1;
    if (run->probes.step > step)
        run->probes.step = -1;
    run->phases.now = -1;
    run->replicas.checked = -1;
    espl_metrics_rewind(run->metrics, step, run->counters.tokens, run->counters.skipped);
}

static json_t *data_place(int64_t epoch, int64_t cursor) { return json_pack("[I, I]", (json_int_t)epoch, (json_int_t)cursor); }

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

/* On behind the bad step's data, and what train.rollback_skip adds. What is left out by that stands in the checkpoints to come, and in
 * metrics.jsonl. */
static void leave_out(espl_run *run, const espl_step_result *r, int64_t bad, const espl_counters *behind) {
    espl_counters *c = &run->counters;
    json_t *from = data_place(c->epoch, c->cursor);
    c->epoch = behind->epoch;
    c->cursor = behind->cursor;
    espl_run_pass(run, run->config->train_rollback_skip);
    json_t *line = json_pack("{s:I, s:I, s:o, s:o}", "after", (json_int_t)c->step, "bad", (json_int_t)bad, "from", from, "to",
                             data_place(c->epoch, c->cursor));
    json_array_append_new(run->spikes.left_out, json_deep_copy(line));
    json_object_set_new(line, "loss", number(r->loss));
    json_object_set_new(line, "grad_norm", number(r->grad_norm));
    json_object_set_new(line, "rollbacks", json_integer(run->spikes.rollbacks));
    espl_metrics_event(run->metrics, "rollback", c->step, line);
    json_decref(line);
}

espl_status espl_run_rollback(espl_run *run, const espl_step_result *r) {
    const espl_counters behind = run->counters;
    int64_t target, bad = behind.step + 1, rollbacks = run->spikes.rollbacks + 1;
    ESPL_TRY(choose(run, r->bad_since, &target));
    ESPL_TRY(must_be_allowed(run, r->bad_since, target));
    ESPL_TRY(espl_run_device(run, espl_memory_settle(&run->memory)));
    ESPL_TRY(espl_run_device(run, run->engine.calls->sync(run->engine.device)));
    json_t *left_out = json_copy(run->spikes.left_out); /* of this process; the checkpoint may be older than some of them */
    espl_status status = go_back(run, target);
    json_array_clear(run->spikes.left_out);
    json_array_extend(run->spikes.left_out, left_out);
    json_decref(left_out);
    ESPL_TRY(status);
    run->spikes.rollbacks = rollbacks;
    forget_later(run);
    leave_out(run, r, bad, &behind);
    if (run->ranks->rank == 0)
        ESPL_WARN("rolled back from step %lld to step %lld (rollback %lld of %lld); it goes on behind the data of step %lld%s",
                  (long long)bad, (long long)run->counters.step, (long long)rollbacks, (long long)run->config->train_max_rollbacks,
                  (long long)bad, run->config->train_rollback_skip > 0 ? " and what train.rollback_skip adds" : "");
    return ESPL_OK;
}
