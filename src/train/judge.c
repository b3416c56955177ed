#include "src/train/judge.h"

#include "src/core/log.h"

#include <math.h>

/* One more step without an update; too many in a row end the run, or take it back to before them. */
static espl_status skip(espl_run *run, espl_step_result *r, bool spike) {
    const espl_config *config = run->config;
    espl_counters *c = &run->counters;
    r->skipped = true;
    c->skipped++;
    c->skipped_in_row++;
    if (run->ranks->rank == 0)
        ESPL_WARN("step %lld: loss %g, gradient norm %g: %s, the step is skipped on all ranks (%lld in a row)", (long long)c->step + 1,
                  r->loss, r->grad_norm, spike ? "a spike" : "not finite", (long long)c->skipped_in_row);
    if (c->skipped_in_row <= config->train_max_nonfinite_steps)
        return ESPL_OK;
    r->bad_since = c->step + 2 - c->skipped_in_row;
    if (config->train_on_nonfinite == ESPL_ON_NONFINITE_STOP)
        ESPL_FAIL(
            ESPL_ERR_NUMERIC,
            "step %lld: %lld steps in a row were %s (train.max_nonfinite_steps is %lld); lower optim.lr, resume from an older checkpoint, "
            "or set train.on_nonfinite: rollback",
            (long long)c->step + 1, (long long)c->skipped_in_row, spike ? "spikes or not finite" : "not finite",
            (long long)config->train_max_nonfinite_steps);
    return ESPL_OK;
}

static void report_spike(const espl_run *run, const espl_step_result *r, const espl_spike *spike) {
    const char *done = espl_config_choice("train", "on_spike", run->config->train_on_spike);
    if (run->ranks->rank != 0)
        return;
    ESPL_WARN("step %lld: a spike: %s %g, above %g (the median of the last %lld steps is %g); train.on_spike: %s",
              (long long)run->counters.step + 1, spike->what, spike->value, spike->limit, (long long)run->spikes.window, spike->median,
              done);
    json_t *line = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:s}", "of", spike->what, "value", spike->value, "limit", spike->limit,
                             "median", spike->median, "loss", r->loss, "grad_norm", r->grad_norm, "done", done);
    espl_metrics_event(run->metrics, "spike", run->counters.step + 1, line);
    json_decref(line);
}

static espl_status judge_spike(espl_run *run, espl_step_result *r, const espl_spike *spike) {
    int64_t step = run->counters.step + 1;
    report_spike(run, r, spike);
    switch (run->config->train_on_spike) {
    case ESPL_ON_SPIKE_SKIP: return skip(run, r, true);
    case ESPL_ON_SPIKE_ROLLBACK: r->bad_since = step; return ESPL_OK;
    case ESPL_ON_SPIKE_STOP:
        ESPL_FAIL(ESPL_ERR_NUMERIC,
                  "step %lld: a spike: %s %g, above %g (train.on_spike: stop); look at its data, lower optim.lr, or set train.on_spike: "
                  "rollback",
                  (long long)step, spike->what, spike->value, spike->limit);
    default: return ESPL_OK;
    }
}

espl_status espl_run_judge(espl_run *run, espl_step_result *r) {
    espl_spike spike;
    if (!isfinite(r->loss) || !isfinite(r->grad_norm))
        return skip(run, r, false);
    if (run->config->train_on_spike != ESPL_ON_SPIKE_IGNORE && espl_spikes_judge(&run->spikes, r->loss, r->grad_norm, &spike))
        ESPL_TRY(judge_spike(run, r, &spike));
    if (r->skipped || r->bad_since > 0)
        return ESPL_OK;
    run->counters.skipped_in_row = 0;
    espl_spikes_add(&run->spikes, r->loss, r->grad_norm);
    return ESPL_OK;
}
