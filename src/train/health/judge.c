#include "src/train/health/judge.h"

#include "src/core/log.h"

#include <math.h>

/* One more step without an update; too many in a row end the run, or take it back to before them. */
static espl_status skip(const espl_config *config, const espl_vitals *v, bool spike, bool tell, espl_verdict *verdict) {
    long long in_row = v->skipped_in_row + 1;
    verdict->skip = true;
    if (tell)
        ESPL_WARN("step %lld: loss %g, gradient norm %g: %s, the step is skipped on all ranks (%lld in a row)", (long long)v->step, v->loss,
                  v->grad_norm, spike ? "a spike" : "not finite", in_row);
    if (in_row <= config->train_max_nonfinite_steps)
        return ESPL_OK;
    verdict->bad_since = v->step + 1 - in_row;
    if (config->train_on_nonfinite == ESPL_ON_NONFINITE_STOP)
        ESPL_FAIL(
            ESPL_ERR_NUMERIC,
            "step %lld: %lld steps in a row were %s (train.max_nonfinite_steps is %lld); lower optim.lr, resume from an older checkpoint, "
            "or set train.on_nonfinite: rollback",
            (long long)v->step, in_row, spike ? "spikes or not finite" : "not finite", (long long)config->train_max_nonfinite_steps);
    return ESPL_OK;
}

static void report_spike(const espl_config *config, const espl_vitals *v, const espl_spike *spike, espl_metrics *metrics) {
    const char *done = espl_config_choice("train", "on_spike", config->train_on_spike);
    ESPL_WARN("step %lld: a spike: %s %g, above %g (the median of the last %lld steps is %g); train.on_spike: %s", (long long)v->step,
              spike->what, spike->value, spike->limit, (long long)config->train_spike_window, spike->median, done);
    json_t *line = json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:s}", "of", spike->what, "value", spike->value, "limit", spike->limit,
                             "median", spike->median, "loss", v->loss, "grad_norm", v->grad_norm, "done", done);
    espl_metrics_event(metrics, "spike", v->step, line);
    json_decref(line);
}

static espl_status judge_spike(const espl_config *config, const espl_vitals *v, const espl_spike *spike, bool tell, espl_verdict *verdict) {
    switch (config->train_on_spike) {
    case ESPL_ON_SPIKE_SKIP: return skip(config, v, true, tell, verdict);
    case ESPL_ON_SPIKE_ROLLBACK: verdict->bad_since = v->step; return ESPL_OK;
    case ESPL_ON_SPIKE_STOP:
        ESPL_FAIL(ESPL_ERR_NUMERIC,
                  "step %lld: a spike: %s %g, above %g (train.on_spike: stop); look at its data, lower optim.lr, or set train.on_spike: "
                  "rollback",
                  (long long)v->step, spike->what, spike->value, spike->limit);
    default: return ESPL_OK;
    }
}

espl_status espl_judge(const espl_config *config, const espl_vitals *v, espl_spikes *spikes, espl_metrics *metrics, espl_verdict *verdict) {
    espl_spike spike;
    *verdict = (espl_verdict){0};
    if (!isfinite(v->loss) || !isfinite(v->grad_norm))
        return skip(config, v, false, metrics != NULL, verdict);
    if (config->train_on_spike != ESPL_ON_SPIKE_IGNORE && espl_spikes_judge(spikes, v->loss, v->grad_norm, &spike)) {
        if (metrics != NULL)
            report_spike(config, v, &spike, metrics);
        ESPL_TRY(judge_spike(config, v, &spike, metrics != NULL, verdict));
    }
    if (!verdict->skip && verdict->bad_since == 0)
        espl_spikes_add(spikes, v->loss, v->grad_norm);
    return ESPL_OK;
}
