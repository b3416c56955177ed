#include "src/train/run.h"

#include "src/core/clock.h"

#include <math.h>

static espl_status after_call(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    espl_run *run = context;
    (void)batch;
    espl_comm_beat(run->comm, run->counters.step, tape->model->rows[tape->calls[call].row].name);
    return ESPL_OK;
}

static espl_status one_batch(espl_run *run, int64_t k, espl_exact *sum, int64_t *targets) {
    espl_sample *s = &run->memory.sample;
    const espl_hooks hooks = {.context = run, .after_call = after_call};
    espl_placement_fill(run->valid.placement, 0, k, s);
    espl_batch batch = {
        .n = s->n, .n_segments = s->n_segments, .segments = s->segments, .ids = s->ids, .positions = s->positions, .targets = s->targets};
    ESPL_TRY(espl_tape_run(&run->blueprint.eval, &batch, true, &hooks));
    const float *loss = espl_tape_buffer(&run->blueprint.eval, run->blueprint.eval.loss);
    for (int64_t i = 0; i < s->n; i++)
        espl_exact_add(sum, loss[i]);
    *targets += s->n_targets;
    return ESPL_OK;
}

espl_status espl_run_evaluate(espl_run *run, espl_eval_result *result) {
    double start = espl_now();
    int64_t n = espl_placement_count(run->valid.placement, 0), limit = run->config->train_eval_batches;
    int64_t words[ESPL_EXACT_WORDS + 1] = {0};
    espl_exact *sum = (espl_exact *)(void *)words;
    if (limit > 0 && limit < n)
        n = limit;
    for (int64_t k = run->ranks->rank; k < n; k += run->ranks->size)
        ESPL_TRY(one_batch(run, k, sum, &words[ESPL_EXACT_WORDS]));
    espl_exact_normalise(sum);
    ESPL_TRY(espl_comm_allreduce_i64(run->comm, words, ESPL_EXACT_WORDS + 1, ESPL_SUM));
    int64_t targets = words[ESPL_EXACT_WORDS];
    double total = sum->n_nonfinite > 0 ? NAN : espl_exact_value(sum);
    double share = (double)targets / (double)run->valid.n_tokens; /* all of the text, or the part that was looked at */
    *result = (espl_eval_result){.loss = total / (double)targets,
                                 .targets = targets,
                                 .bytes = (int64_t)((double)run->valid.n_bytes * share),
                                 .seconds = espl_now() - start};
    return ESPL_OK;
}
