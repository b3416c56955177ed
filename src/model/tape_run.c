#include "src/model/flow.h"

#include "src/core/buffer.h"

void *espl_tape_buffer(const espl_tape *tape, int life) { return life < 0 ? NULL : tape->act + tape->lives[life].offset; }

/* Of the weights that a call has; those that it does not read may be nowhere then. */
static const void *weight_at(const espl_tape *t, const espl_places *places, int call, int param) {
    if (param < 0)
        return NULL;
    const espl_param *p = &t->model->params[param];
    const size_t real = espl_dtype_size(t->kernels->real), at = espl_model_weights_at(t->model, param, places->ranks, t->kernels->real);
    if (places->windows == NULL)
        return (char *)places->weights + at;
    if (p->frozen)
        return (char *)places->weights + at - (size_t)espl_model_flat_size(t->model, places->ranks) * real;
    const espl_window *window = espl_flow_window(places->flow, p->bucket, call);
    return window == NULL ? NULL : (char *)places->windows + window->offset + (size_t)p->offset * real;
}

static void *gradient_at(const espl_tape *t, const espl_places *places, int param) {
    if (places->gradients == NULL || !espl_model_trains(t->model, param, t->phase))
        return NULL;
    if (places->flow != NULL)
        return (char *)places->gradients + places->flow->gradients[t->model->params[param].bucket] +
               (size_t)t->model->params[param].offset * espl_dtype_size(t->kernels->stat);
    return (char *)places->gradients + (size_t)espl_model_place(t->model, param, places->ranks) * espl_dtype_size(t->kernels->stat);
}

static void bind_call(espl_tape *t, int index, const espl_places *places) {
    const espl_call *c = &t->calls[index];
    if (c->kind == ESPL_CALL_BUCKET)
        return;
    const espl_row *r = &t->model->rows[c->row];
    espl_args *a = &t->args[index];
    *a = (espl_args){.attrs = &r->attrs, .work = places->work, .layer = r->layer};
    if (r->op == ESPL_OP_QKV || r->op == ESPL_OP_ROPE)
        a->rope = places->rope != NULL ? places->rope : t->model->rope;
    for (int i = 0; i < ESPL_MAX_IN; i++) {
        a->in[i] = espl_tape_buffer(t, c->in[i]);
        a->din[i] = espl_tape_buffer(t, c->din[i]);
        a->din_add[i] = c->din_add[i];
    }
    for (int i = 0; i < ESPL_MAX_OUT; i++) {
        a->out[i] = espl_tape_buffer(t, c->out[i]);
        a->dout[i] = espl_tape_buffer(t, c->dout[i]);
    }
    for (int i = 0; i < ESPL_MAX_PARAM; i++) {
        a->param[i] = weight_at(t, places, index, r->param[i]);
        a->dparam[i] = gradient_at(t, places, r->param[i]);
    }
}

void espl_tape_bind(espl_tape *tape, const espl_places *places) {
    tape->act = places->act;
    if (tape->args == NULL)
        tape->args = espl_calloc((size_t)tape->n_calls, sizeof *tape->args);
    for (int i = 0; i < tape->n_calls; i++)
        bind_call(tape, i, places);
}

const espl_batch *espl_tape_stream(const espl_batch *batch, espl_stream stream) {
    return stream == ESPL_STREAM_MAIN ? batch : stream == ESPL_STREAM_SOURCE ? batch->source : batch->pooled;
}

espl_op espl_tape_op(const espl_tape *t, const espl_row *r) {
    bool cached = t->use == ESPL_USE_GENERATE && r->op == ESPL_OP_ATTENTION && r->attrs.stream == ESPL_STREAM_MAIN;
    return cached ? ESPL_OP_ATTENTION_CACHED : r->op;
}

static void run_call(const espl_tape *t, int index, const espl_batch *batch, bool fresh) {
    const espl_call *c = &t->calls[index];
    const espl_row *r = &t->model->rows[c->row];
    espl_args *a = &t->args[index];
    a->batch = espl_tape_stream(batch, r->attrs.stream);
    if (c->kind == ESPL_CALL_BACKWARD) {
        for (int i = 0; i < ESPL_MAX_PARAM; i++)
            a->dparam_add[i] = !(fresh && c->first_write[i]);
        t->kernels->backward[r->op](a);
    } else {
        t->kernels->forward[espl_tape_op(t, r)](a);
    }
}

espl_status espl_tape_encode(const espl_tape *tape, const espl_batch *batch) {
    for (int i = 0; i < tape->n_encode; i++)
        run_call(tape, i, batch, true);
    return ESPL_OK;
}

espl_status espl_tape_run_part(const espl_tape *tape, int from, int to, const espl_batch *batch, bool fresh, const espl_hooks *hooks) {
    for (int i = from; i < to; i++) {
        const espl_call *c = &tape->calls[i];
        if (c->kind == ESPL_CALL_BUCKET) {
            if (hooks != NULL && hooks->bucket != NULL)
                ESPL_TRY(hooks->bucket(hooks->context, c->bucket));
            continue;
        }
        run_call(tape, i, batch, fresh);
        if (hooks != NULL && hooks->after_call != NULL)
            ESPL_TRY(hooks->after_call(hooks->context, tape, i, batch));
    }
    return ESPL_OK;
}

espl_status espl_tape_run(const espl_tape *tape, const espl_batch *batch, bool fresh, const espl_hooks *hooks) {
    return espl_tape_run_part(tape, tape->n_encode, tape->n_calls, batch, fresh, hooks);
}

void espl_tape_sum_loss(const espl_tape *tape, const espl_engine *engine, const espl_batch *batch, espl_exact *sum) {
    espl_stream stream = tape->lives[tape->loss].stream;
    int64_t rows = espl_engine_rows(engine, espl_tape_stream(batch, stream)->n, tape->n_rows[stream]);
    engine->kernels->sum(espl_tape_buffer(tape, tape->loss), rows, sum);
}
