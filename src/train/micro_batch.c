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

static void zero_range(const espl_run *run, float *bucket, int64_t begin, int64_t end) {
    if (begin < end)
        run->engine.kernels->zero(bucket + begin, (size_t)(end - begin) * sizeof(float));
}

/* A reduction leaves anything it likes in what other ranks own, gaps between parameters included, and so does another bucket in the same
 * place; a gap must stay zero, or it would be summed again and again and show in the norm. So must parameters of later phases. */
void espl_run_zero_gaps(const espl_run *run, int b) {
    const espl_model *m = run->model;
    const espl_flow *flow = run->blueprint.flows != NULL ? &run->blueprint.flows[run->phases.now] : NULL;
    float *bucket = flow != NULL ? (float *)((char *)run->memory.gradients + flow->gradients[b])
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

/* ---- A stretch of the tape. */

/* Some calls of the tape, and whether gradients are assigned there; the last stretch ends with the sum of the losses. */
typedef struct stretch {
    int from, to;
    bool fresh;
    const espl_hooks *hooks;
} stretch;

static espl_status run_stretch(espl_run *run, const espl_batch *batch, const stretch *s) {
    const espl_tape *tape = espl_run_tape(run);
    ESPL_TRY(espl_tape_run_part(tape, s->from, s->to, batch, s->fresh, s->hooks));
    if (s->to == tape->n_calls)
        espl_tape_sum_loss(tape, &run->engine, batch, &run->memory.sums[ESPL_SUM_LOSS]);
    return ESPL_OK;
}

static espl_status replay_stretch(espl_run *run, const espl_batch *batch, const stretch *s, espl_graph **graph) {
    const espl_device_calls *calls = run->engine.calls;
    if (*graph == NULL) {
        ESPL_TRY(calls->record(run->engine.device));
        ESPL_TRY(run_stretch(run, batch, s));
        ESPL_TRY(calls->recorded(run->engine.device, graph));
    }
    espl_comm_beat(run->comm, run->counters.step + 1, "replaying the tape");
    ESPL_TRY(calls->replay(run->engine.device, *graph));
    return espl_comm_progress(run->comm);
}

/* ---- Gradients that stay: buckets leave in the last micro-batch. */

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

static espl_status whole_tape(espl_run *run, const espl_batch *batch, bool fresh, bool last, bool replays) {
    const espl_hooks hooks = {.context = run, .after_call = after_call, .bucket = !last ? NULL : replays ? mark_bucket : sum_bucket};
    const stretch all = {.to = espl_run_tape(run)->n_calls, .fresh = fresh, .hooks = &hooks};
    if (!replays)
        return run_stretch(run, batch, &all);
    ESPL_TRY(replay_stretch(run, batch, &all, &run->graphs[2 * fresh + last]));
    return last ? start_sums(run) : ESPL_OK;
}

/* ---- Gradients that flow: what moves does so between stretches, in every micro-batch. */

typedef struct flowing {
    espl_run *run;
    const espl_batch *batch;
    bool replays;
} flowing;

static espl_status make_move(void *context, const espl_move *move) {
    const flowing *f = context;
    const espl_memory *m = &f->run->memory;
    switch (move->kind) {
    case ESPL_MOVE_FETCH:
    case ESPL_MOVE_ARRIVE: return espl_memory_move_weights(m, &f->run->blueprint.flows[f->run->phases.now], move);
    case ESPL_MOVE_SETTLE: return espl_reducer_settle(m->reducer);
    case ESPL_MOVE_OPEN: espl_run_zero_gaps(f->run, move->bucket); return ESPL_OK;
    case ESPL_MOVE_SUM: return espl_reducer_start(m->reducer, move->bucket);
    }
    return ESPL_OK;
}

static espl_status run_part(void *context, int number, int from, int to) {
    const flowing *f = context;
    const espl_hooks hooks = {.context = f->run, .after_call = after_call};
    const stretch s = {.from = from, .to = to, .fresh = true, .hooks = &hooks};
    return f->replays ? replay_stretch(f->run, f->batch, &s, &f->run->graphs[number]) : run_stretch(f->run, f->batch, &s);
}

static espl_status flowing_tape(espl_run *run, const espl_batch *batch, bool replays) {
    flowing f = {.run = run, .batch = batch, .replays = replays};
    const espl_flow_hooks hooks = {.context = &f, .stretch = run_part, .move = make_move};
    return espl_flow_run(&run->blueprint.flows[run->phases.now], espl_run_tape(run), &hooks);
}

/* A device that can record replays, but for the first micro-batch of the process or of a phase: then each call runs by itself, as on the
 * host, and libraries choose their algorithms on what the calls hand them, which they cannot inside a recording. Under run.debug_tape this
 * goes on, and the tensors of each call are looked at. */
espl_status espl_run_micro_batch(espl_run *run, const espl_batch *batch, bool fresh, bool last) {
    const bool replays = run->engine.calls->record != NULL && run->tape_log == NULL && run->tried;
    espl_comm_beat(run->comm, run->counters.step + 1, "waiting for the device");
    ESPL_TRY(run->engine.calls->begin(run->engine.device, batch));
    run->tried = true;
    return run->blueprint.flows != NULL ? flowing_tape(run, batch, replays) : whole_tape(run, batch, fresh, last, replays);
}
