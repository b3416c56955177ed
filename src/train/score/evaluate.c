#include "src/train/score/evaluate.h"

#include "src/core/clock.h"
#include "src/train/feed/streams.h"

#include <math.h>
#include <string.h>

static espl_status after_call(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    const espl_evaluation *e = context;
    (void)batch;
    espl_comm_beat(e->comm, e->step, tape->model->rows[tape->calls[call].row].name);
    return e->flow != NULL ? espl_comm_progress(e->comm) : ESPL_OK;
}

typedef struct passing {
    const espl_evaluation *evaluation;
    const espl_batch *batch; /* NULL: none is left for this rank */
} passing;

static espl_status run_part(void *context, int number, int from, int to) {
    const passing *p = context;
    const espl_hooks hooks = {.context = (void *)(uintptr_t)p->evaluation, .after_call = after_call};
    (void)number;
    return p->batch != NULL ? espl_tape_run_part(p->evaluation->tape, from, to, p->batch, true, &hooks) : ESPL_OK;
}

static espl_status make_move(void *context, const espl_move *move) {
    const passing *p = context;
    espl_comm_beat(p->evaluation->comm, p->evaluation->step, "weights of other ranks");
    return p->evaluation->move(p->evaluation->context, move);
}

static espl_status pass(const espl_evaluation *e, const espl_batch *batch) {
    static const espl_flow still = {0};
    passing p = {.evaluation = e, .batch = batch};
    const espl_flow_hooks hooks = {.context = &p, .stretch = run_part, .move = make_move};
    return espl_flow_run(e->flow != NULL ? e->flow : &still, e->tape, &hooks);
}

static espl_status one_batch(const espl_evaluation *e, int64_t k, int64_t *targets) {
    espl_sample *s = e->sample;
    espl_placement_fill(e->data->placement, 0, k, s);
    espl_streams streams;
    espl_streams_fill(e->tape->model, s, &(espl_batch){0}, &streams);
    ESPL_TRY(e->engine->calls->begin(e->engine->device, &streams.main));
    ESPL_TRY(pass(e, &streams.main));
    espl_tape_sum_loss(e->tape, e->engine, &streams.main, e->sum);
    *targets += s->n_targets;
    return e->predictions != NULL ? espl_predictions_take(e->predictions, e->engine, e->tape, s) : ESPL_OK;
}

/* This rank's micro-batches, and their sum, brought to the host by the only wait for the device. */
static espl_status own_batches(const espl_evaluation *e, int64_t n, espl_exact *sum, int64_t *targets) {
    const espl_ranks *ranks = espl_comm_ranks(e->comm);
    e->engine->kernels->zero(e->sum, sizeof *e->sum);
    for (int64_t first = 0; first < n; first += ranks->size) {
        int64_t k = first + ranks->rank;
        ESPL_TRY(k < n ? one_batch(e, k, targets) : pass(e, NULL));
    }
    espl_comm_beat(e->comm, e->step, "waiting for the device");
    ESPL_TRY(e->engine->calls->read(e->engine->device, sum, e->sum, sizeof *sum));
    espl_exact_normalise(sum);
    return ESPL_OK;
}

espl_status espl_evaluate(const espl_evaluation *e, espl_eval_result *result) {
    double start = espl_now();
    int64_t n = espl_placement_count(e->data->placement, 0), words[ESPL_EXACT_WORDS + 1] = {0};
    espl_exact sum = {0};
    if (e->most > 0 && e->most < n)
        n = e->most;
    espl_status status = own_batches(e, n, &sum, &words[ESPL_EXACT_WORDS]);
    ESPL_TRY(espl_comm_agree(e->comm, status, "evaluating"));
    memcpy(words, &sum, sizeof sum);
    ESPL_TRY(espl_comm_allreduce_i64(e->comm, words, ESPL_EXACT_WORDS + 1, ESPL_SUM));
    memcpy(&sum, words, sizeof sum);
    int64_t targets = words[ESPL_EXACT_WORDS];
    if (e->predictions != NULL)
        ESPL_TRY(espl_predictions_gather(e->comm, e->predictions));
    double total = sum.n_nonfinite > 0 ? (double)NAN : espl_exact_value(&sum);
    double share = (double)targets / (double)e->data->n_tokens; /* all of the text, or the part that was looked at */
    *result = (espl_eval_result){.loss = total / (double)targets,
                                 .targets = targets,
                                 .bytes = (int64_t)((double)e->data->n_bytes * share),
                                 .seconds = espl_now() - start};
    return ESPL_OK;
}
