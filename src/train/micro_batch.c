/* Forward and backward of a micro-batch: the tape call by call, or replayed as the device has recorded it; and what leaves meanwhile. */
#include "src/train/run.h"

#include "src/core/log.h"

espl_status espl_run_device(espl_run *run, espl_status status) {
    if (status == ESPL_OK || run->ranks->size == 1)
        return status;
    espl_log(ESPL_LOG_ERROR, "step %lld: %s", (long long)run->counters.step + 1, espl_status_message());
    espl_comm_abort(run->comm, status);
}

static espl_status after_call(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    espl_run *run = context;
    ESPL_TRY(espl_tape_log_call(run->tape_log, tape, call, batch));
    espl_comm_beat(run->comm, run->counters.step + 1, tape->model->rows[tape->calls[call].row].name);
    return espl_comm_progress(run->comm);
}

static espl_status sum_bucket(void *context, int bucket) {
    espl_run *run = context;
    espl_reducer_merge(run->memory.reducer, bucket);
    return espl_reducer_start(run->memory.reducer, bucket);
}

static espl_status mark_bucket(void *context, int bucket) {
    espl_run *run = context;
    espl_reducer_merge(run->memory.reducer, bucket);
    return run->engine.calls->mark(run->engine.device, bucket);
}

const espl_tape *espl_run_tape(const espl_run *run) { return &run->blueprint.train[run->phases.now]; }

static const espl_flow *flow_of(const espl_run *run) { return &run->blueprint.flows[run->phases.now]; }

static void zero_range(const espl_run *run, float *bucket, int64_t begin, int64_t end) {
    if (begin < end)
        run->engine.kernels->zero(bucket + begin, (size_t)(end - begin) * sizeof(float));
}

/* A reduction leaves anything it likes in what other ranks own, gaps between parameters included, and so does another bucket in the same
 * place; a gap must stay zero, or it would be summed again and again and show in the norm. So must parameters of later phases. */
void espl_run_zero_gaps(const espl_run *run, int b) {
    const espl_model *m = run->model;
    float *bucket = run->blueprint.sharded ? (float *)((char *)run->memory.gradients + flow_of(run)->gradients[b])
                                           : run->memory.gradients + run->memory.buckets[b].offset;
    int64_t end = 0;
    for (int i = 0; i < m->n_params; i++) {
        if (m->params[i].bucket != b || !espl_model_trains(m, i, run->phases.now))
            continue;
        zero_range(run, bucket, end, m->params[i].offset);
        end = m->params[i].offset + m->params[i].numel;
    }
    zero_range(run, bucket, end, run->memory.buckets[b].n);
}

/* ---- Stretches of the tape, between the moves of its flow. */

/* A micro-batch on its way, the first, last of the step or not: gradients are assigned (`fresh`) or added up; those that stay leave in the
 * last. */
typedef struct passage {
    espl_run *run;
    const espl_batch *batch;
    bool first, last, fresh, replays;
} passage;

static espl_status run_stretch(const passage *p, int from, int to) {
    espl_run *run = p->run;
    const espl_tape *tape = espl_run_tape(run);
    const bool leave = p->last && !run->blueprint.sharded;
    const espl_hooks hooks = {.context = run, .after_call = after_call, .bucket = !leave ? NULL : p->replays ? mark_bucket : sum_bucket};
    ESPL_TRY(espl_tape_run_part(tape, from, to, p->batch, p->fresh, &hooks));
    if (to == tape->n_calls)
        espl_tape_sum_loss(tape, &run->engine, p->batch, &run->memory.sums[ESPL_SUM_LOSS]);
    return ESPL_OK;
}

static espl_status replay_stretch(const passage *p, int from, int to, espl_graph **graph) {
    espl_run *run = p->run;
    const espl_device_calls *calls = run->engine.calls;
    if (*graph == NULL) {
        ESPL_TRY(calls->record(run->engine.device));
        ESPL_TRY(run_stretch(p, from, to));
        ESPL_TRY(calls->recorded(run->engine.device, graph));
    }
    espl_comm_beat(run->comm, run->counters.step + 1, "replaying the tape");
    ESPL_TRY(calls->replay(run->engine.device, *graph));
    return espl_comm_progress(run->comm);
}

/* Where gradients stay, no move is behind the first call of backward, so backward is in what is behind them all. */
static espl_status stretch(void *context, int number, int from, int to) {
    const passage *p = context;
    const bool backward = number == flow_of(p->run)->n_moves && !p->run->blueprint.sharded;
    if (!p->replays)
        return run_stretch(p, from, to);
    return replay_stretch(p, from, to, &p->run->graphs[number + (backward ? 2 * p->fresh + p->last : 0)]);
}

static espl_status make_move(void *context, const espl_move *move) {
    const passage *p = context;
    const espl_memory *m = &p->run->memory;
    switch (move->kind) {
    case ESPL_MOVE_FETCH:
        if (!espl_flow_fetches(flow_of(p->run), move, p->first, p->last))
            return ESPL_OK;
        return espl_memory_move_weights(m, flow_of(p->run), move);
    case ESPL_MOVE_UPDATED:
    case ESPL_MOVE_ARRIVE: return espl_memory_move_weights(m, flow_of(p->run), move);
    case ESPL_MOVE_SETTLE: return espl_reducer_settle(m->reducer);
    case ESPL_MOVE_OPEN: espl_run_zero_gaps(p->run, move->bucket); return ESPL_OK;
    case ESPL_MOVE_SUM: return espl_reducer_start(m->reducer, move->bucket);
    }
    return ESPL_OK;
}

/* Of a recorded tape: each sum over ranks begins on the device when its mark is reached, long after this has returned. */
static espl_status start_sums(espl_run *run) {
    const espl_tape *tape = espl_run_tape(run);
    for (int i = 0; i < tape->n_calls; i++) {
        const espl_call *c = &tape->calls[i];
        if (c->kind != ESPL_CALL_BUCKET)
            continue;
        run->engine.calls->after(run->engine.device, c->bucket);
        ESPL_TRY(espl_reducer_start(run->memory.reducer, c->bucket));
    }
    return ESPL_OK;
}

/* A device that can record replays, but for the first micro-batch of the process or of a phase: then each call runs by itself, as on the
 * host, and libraries choose their algorithms on what the calls hand them, which they cannot inside a recording. Under run.debug_tape this
 * goes on, and the tensors of each call are looked at. */
espl_status espl_run_micro_batch(espl_run *run, const espl_batch *batch, int64_t i, int64_t count) {
    passage p = {.run = run,
                 .batch = batch,
                 .first = i == 0,
                 .last = i + 1 == count,
                 .fresh = !espl_reducer_accumulates(run->memory.reducer, i),
                 .replays = run->engine.calls->record != NULL && run->tape_log == NULL && run->tried};
    const espl_flow_hooks hooks = {.context = &p, .stretch = stretch, .move = make_move};
    espl_comm_beat(run->comm, run->counters.step + 1, "waiting for the device");
    ESPL_TRY(run->engine.calls->begin(run->engine.device, batch));
    run->tried = true;
    ESPL_TRY(espl_flow_run(flow_of(run), espl_run_tape(run), &hooks));
    return p.replays && p.last && !run->blueprint.sharded ? start_sums(run) : ESPL_OK;
}
