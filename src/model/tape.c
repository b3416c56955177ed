#include "src/model/tape.h"
#include "src/model/lifetimes.h"

#include "src/config/config.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* Making a tape: values and gradients of slots are followed as buffer numbers while calls are written down. */
typedef struct maker {
    espl_tape *tape;
    const espl_model *model;
    int recompute;
    int *value, *gradient; /* [n_slots] buffers that hold them now, -1 none */
    bool *kept;            /* [n_slots] values that stay from forward to backward */
    bool *written;         /* [n_params] a call has written this gradient */
    bool *needed;          /* [n_slots] values that something trained goes into: they have gradients */
    bool *back;            /* [n_rows] rows with a backward */
} maker;

static int new_life(maker *k, int slot, bool gradient) {
    espl_tape *t = k->tape;
    const espl_slot *s = &k->model->slots[slot];
    espl_dtype dtype = s->stat ? t->kernels->stat : t->kernels->real;
    t->lives[t->n_lives] = (espl_life){.name = s->name,
                                       .layer = s->layer,
                                       .stream = s->stream,
                                       .width = s->width,
                                       .stat = s->stat,
                                       .gradient = gradient,
                                       .fixed = s->fixed,
                                       .bytes = (size_t)(s->width * (s->fixed ? 1 : t->n_rows[s->stream])) * espl_dtype_size(dtype),
                                       .first = t->n_calls,
                                       .last = t->n_calls};
    return t->n_lives++;
}

static espl_call *new_call(maker *k, espl_call_kind kind, int row) {
    espl_call *c = &k->tape->calls[k->tape->n_calls];
    memset(c, 0, sizeof *c);
    c->kind = kind;
    c->row = row;
    for (int i = 0; i < ESPL_MAX_IN; i++)
        c->in[i] = c->din[i] = -1;
    for (int i = 0; i < ESPL_MAX_OUT; i++)
        c->out[i] = c->dout[i] = -1;
    return c;
}

static void touch(espl_tape *t, int life) {
    if (life >= 0)
        t->lives[life].last = t->n_calls;
}

static void end_call(maker *k, const espl_call *c) {
    for (int i = 0; i < ESPL_MAX_IN; i++) {
        touch(k->tape, c->in[i]);
        touch(k->tape, c->din[i]);
    }
    for (int i = 0; i < ESPL_MAX_OUT; i++) {
        touch(k->tape, c->out[i]);
        touch(k->tape, c->dout[i]);
    }
    k->tape->n_calls++;
}

/* Whether a use runs a row at all. Training computes the loss in its backward. */
static bool has_forward(const espl_tape *t, const espl_row *r) {
    bool loss = espl_ops[r->op].flags & ESPL_OP_LOSS;
    if (r->noise)
        return t->use == ESPL_USE_TRAIN;
    return r->scored ? t->use == ESPL_USE_EVAL : !loss || t->use == ESPL_USE_EVAL;
}

/* ---- Forward. */

static void bind_outputs(maker *k, const espl_row *r, espl_call *c, int first) {
    for (int i = first; i < ESPL_MAX_OUT; i++)
        if (r->out[i] >= 0) {
            if (k->value[r->out[i]] < 0)
                k->value[r->out[i]] = new_life(k, r->out[i], false);
            c->out[i] = k->value[r->out[i]];
        }
}

/* The outputs from `first` on: 0, or 1 of an op that is ALONE. */
static void forward_call(maker *k, int row, bool again, int first) {
    const espl_row *r = &k->model->rows[row];
    espl_call *c = new_call(k, ESPL_CALL_FORWARD, row);
    c->again = again;
    for (int i = 0; i < ESPL_MAX_IN; i++)
        c->in[i] = r->in[i] >= 0 ? k->value[r->in[i]] : -1;
    bind_outputs(k, r, c, first);
    end_call(k, c);
}

/* RENEW: the other outputs again from output 0, which is still there. */
static void renew_call(maker *k, int row) {
    const espl_row *r = &k->model->rows[row];
    espl_call *c = new_call(k, ESPL_CALL_FORWARD, row);
    c->again = true;
    c->in[0] = k->value[r->out[0]];
    bind_outputs(k, r, c, 0);
    end_call(k, c);
}

static void ensure(maker *k, int slot);

/* What changes a value in place stands close behind the row that makes it. */
static void finish(maker *k, int slot) {
    const espl_model *m = k->model;
    for (int row = m->slots[slot].producer + 1; row < m->n_rows; row++) {
        const espl_row *r = &m->rows[row];
        if (!(espl_ops[r->op].flags & ESPL_OP_IN_PLACE) || r->out[0] != slot)
            continue;
        for (int i = 0; i < ESPL_MAX_IN; i++)
            ensure(k, r->in[i]);
        forward_call(k, row, true, 0);
    }
}

/* Makes sure that a slot's value is there, computing its producer again (and first what that needs). */
static void ensure(maker *k, int slot) {
    if (slot < 0 || k->value[slot] >= 0)
        return;
    int row = k->model->slots[slot].producer;
    const espl_row *r = &k->model->rows[row];
    if ((espl_ops[r->op].flags & ESPL_OP_RENEW) && k->value[r->out[0]] >= 0) {
        renew_call(k, row);
        return;
    }
    for (int i = 0; i < ESPL_MAX_IN; i++)
        ensure(k, r->in[i]);
    forward_call(k, row, true, espl_ops[r->op].flags & ESPL_OP_ALONE && slot != r->out[0] ? 1 : 0);
    finish(k, slot);
}

/* ---- What has a backward. */

static bool is_trained(const maker *k, int param) { return espl_model_trains(k->model, param, k->tape->phase); }

/* Nothing below the lowest trained row has one. */
static void mark_backward(maker *k) {
    const espl_model *m = k->model;
    for (int row = 0; row < m->n_rows; row++) {
        const espl_row *r = &m->rows[row];
        bool back = espl_ops[r->op].flags & ESPL_OP_LOSS, in_place = espl_ops[r->op].flags & ESPL_OP_IN_PLACE;
        for (int i = 0; i < ESPL_MAX_PARAM; i++)
            back |= is_trained(k, r->param[i]);
        for (int i = 0; i < ESPL_MAX_IN; i++)
            back |= r->in[i] >= 0 && k->needed[r->in[i]];
        k->back[row] = back && !r->scored && !(espl_ops[r->op].flags & ESPL_OP_FORWARD);
        for (int i = 0; i < ESPL_MAX_OUT; i++)
            if (r->out[i] >= 0 && (m->slots[r->out[i]].producer == row || in_place)) /* a norm may pass its input on */
                k->needed[r->out[i]] |= k->back[row];
    }
}

/* Whether a row's backward reads input i: some only for the gradient of the matrix that multiplies it. */
static bool reads_input(const maker *k, const espl_row *r, int i) {
    const espl_op_desc *d = &espl_ops[r->op];
    bool for_matrix = i == 0 && (d->flags & ESPL_OP_FOR_MATRIX);
    return r->in[i] >= 0 && (d->bwd_in >> i & 1) && (!for_matrix || is_trained(k, r->param[0]));
}

/* ---- What stays between forward and backward. */

static bool same_block(const espl_row *a, const espl_row *b) { return a->section == b->section && a->layer == b->layer; }

/* The norm through which the stream enters a layer (pre-norm), or leaves it (post-norm). */
static bool norm_at_edge(const espl_model *m, int row) {
    const espl_row *r = &m->rows[row];
    return r->op == ESPL_OP_RESNORM && espl_section_has_layers(r->section) && (!same_block(r, r - 1) || !same_block(r, r + 1));
}

static bool kept_by(const maker *k, int slot) {
    const espl_slot *s = &k->model->slots[slot];
    const espl_row *r = &k->model->rows[s->producer];
    unsigned flags = espl_ops[r->op].flags;
    if (s->fixed)
        return true; /* small, and dear */
    if (!espl_section_has_layers(r->section) || k->recompute == ESPL_RECOMPUTE_NONE)
        return true;
    if (k->recompute == ESPL_RECOMPUTE_FULL)
        return s->output == 0 && norm_at_edge(k->model, s->producer);
    if (flags & ESPL_OP_RENEW)
        return s->output != 1;
    return !(flags & ESPL_OP_CHEAP);
}

static void mark_kept(maker *k) {
    const espl_model *m = k->model;
    for (int row = 0; row < m->n_rows; row++) {
        const espl_row *r = &m->rows[row];
        const espl_op_desc *d = &espl_ops[r->op];
        if (!k->back[row])
            continue;
        for (int i = 0; i < ESPL_MAX_IN; i++)
            if (reads_input(k, r, i))
                k->kept[r->in[i]] = true;
        for (int i = 0; i < ESPL_MAX_OUT; i++)
            if ((d->bwd_out >> i & 1) && r->out[i] >= 0)
                k->kept[r->out[i]] = true;
    }
    for (int s = 0; s < m->n_slots; s++)
        k->kept[s] = k->kept[s] && kept_by(k, s);
    if (k->recompute == ESPL_RECOMPUTE_FULL) /* the stream at the edge of each layer, also where no backward reads it */
        for (int row = 1; row < m->n_rows; row++)
            if (norm_at_edge(m, row) && k->back[row])
                k->kept[m->rows[row].out[0]] = true;
}

/* ---- Backward. */

/* A buffer may hold the gradients of two slots (of a norm's stream and branch). Who adds to one must find the other used up: its producer
 * stands behind this row. */
static void check_add(const maker *k, int row, int slot) {
    for (int s = 0; s < k->model->n_slots; s++)
        ESPL_ASSERT(s == slot || k->gradient[s] != k->gradient[slot] || k->model->slots[s].producer >= row,
                    "row %s adds to a gradient that row %s still needs", k->model->rows[row].name, k->model->slots[s].name);
}

/* Gradient buffers of a row's inputs. What a later row has left there is added to. A norm passes the stream's gradient on in place, and to
 * its branch too when nothing is dropped; an activation works in place. */
static void bind_input_gradients(maker *k, const espl_row *r, espl_call *c) {
    bool in_place = r->op == ESPL_OP_RESNORM || r->op == ESPL_OP_ACT;
    bool always = !(espl_ops[r->op].flags & (ESPL_OP_FOR_MATRIX | ESPL_OP_LOSS)); /* others write all their din */
    for (int i = 0; i < ESPL_MAX_IN; i++) {
        if (r->in[i] < 0 || !(k->needed[r->in[i]] || always))
            continue;
        int *gradient = &k->gradient[r->in[i]];
        bool passes = r->in[i] == r->out[0]; /* the gradient that is there is dout0, which the norm itself passes on */
        bool shares = r->op == ESPL_OP_RESNORM && i == 1 && r->attrs.dropout == 0.0f && *gradient < 0;
        c->din_add[i] = *gradient >= 0 && !passes;
        if (c->din_add[i])
            check_add(k, c->row, r->in[i]);
        if (*gradient < 0)
            *gradient = shares ? c->din[0] : in_place && i == 0 && c->dout[0] >= 0 ? c->dout[0] : new_life(k, r->in[i], true);
        c->din[i] = shares ? -1 : *gradient;
    }
}

static void backward_call(maker *k, int row) {
    const espl_row *r = &k->model->rows[row];
    const espl_op_desc *d = &espl_ops[r->op];
    for (int i = 0; i < ESPL_MAX_IN; i++)
        if (reads_input(k, r, i))
            ensure(k, r->in[i]);
    for (int i = 0; i < ESPL_MAX_OUT; i++)
        if (d->bwd_out >> i & 1)
            ensure(k, r->out[i]);
    espl_call *c = new_call(k, ESPL_CALL_BACKWARD, row);
    for (int i = 0; i < ESPL_MAX_IN; i++)
        c->in[i] = reads_input(k, r, i) ? k->value[r->in[i]] : -1;
    for (int i = 0; i < ESPL_MAX_OUT; i++) {
        c->out[i] = (d->bwd_out >> i & 1) && r->out[i] >= 0 ? k->value[r->out[i]] : -1;
        c->dout[i] = r->out[i] >= 0 ? k->gradient[r->out[i]] : -1;
    }
    if (d->flags & ESPL_OP_LOSS)
        c->out[0] = k->tape->loss = new_life(k, r->out[0], false);
    bind_input_gradients(k, r, c);
    for (int i = 0; i < ESPL_MAX_PARAM; i++)
        if (r->param[i] >= 0) {
            c->first_write[i] = !k->written[r->param[i]];
            k->written[r->param[i]] = true;
        }
    end_call(k, c);
}

/* Marks, behind the last call that writes into it, that a bucket is complete. */
static void add_bucket_marks(maker *k) {
    espl_tape *t = k->tape;
    const espl_model *m = k->model;
    int *last = espl_malloc((size_t)m->n_buckets * sizeof *last);
    for (int b = 0; b < m->n_buckets; b++)
        last[b] = -1;
    for (int c = 0; c < t->n_calls; c++)
        for (int i = 0; i < ESPL_MAX_PARAM && t->calls[c].kind == ESPL_CALL_BACKWARD; i++)
            if (is_trained(k, m->rows[t->calls[c].row].param[i]))
                last[m->params[m->rows[t->calls[c].row].param[i]].bucket] = c;
    for (int at = t->n_calls - 1; at >= 0; at--)
        for (int b = 0; b < m->n_buckets; b++)
            if (last[b] == at) {
                memmove(&t->calls[at + 2], &t->calls[at + 1], (size_t)(t->n_calls - at - 1) * sizeof *t->calls);
                t->calls[at + 1] = (espl_call){.kind = ESPL_CALL_BUCKET, .row = -1, .bucket = b};
                espl__lives_shift(t->lives, t->n_lives, at);
                t->n_calls++;
            }
    free(last);
}

static void make_training(maker *k) {
    const espl_model *m = k->model;
    mark_backward(k);
    mark_kept(k);
    for (int row = 0; row < m->n_rows; row++)
        if (has_forward(k->tape, &m->rows[row]))
            forward_call(k, row, false, 0);
    for (int s = 0; s < m->n_slots; s++)
        if (!k->kept[s])
            k->value[s] = -1;
    for (int row = m->n_rows - 1; row >= 0; row--)
        if (k->back[row])
            backward_call(k, row);
    add_bucket_marks(k);
}

/* What generation runs once: the encoder's rows, and what depends on no token. */
static bool runs_once(const maker *k, const espl_row *r) {
    return r->attrs.stream == ESPL_STREAM_SOURCE || (r->out[0] >= 0 && k->model->slots[r->out[0]].fixed);
}

static bool stays(const espl_tape *t, const espl_life *life) {
    return (life->stream == ESPL_STREAM_SOURCE || life->fixed) && life->last >= t->n_encode;
}

/* Then the others for every token: those come behind, and what they read of the first stays. */
static void make_forward(maker *k) {
    const espl_model *m = k->model;
    bool generates = k->tape->use == ESPL_USE_GENERATE;
    for (int pass = generates ? 0 : 1; pass < 2; pass++)
        for (int row = 0; row < m->n_rows; row++) {
            const espl_row *r = &m->rows[row];
            if (!has_forward(k->tape, r) || (generates && runs_once(k, r) != (pass == 0)))
                continue;
            forward_call(k, row, false, 0);
            k->tape->logits = r->scored ? k->value[r->out[0]] : k->tape->logits;
            k->tape->n_encode += pass == 0;
        }
    const espl_row *head = &m->rows[m->n_rows - 1];
    k->tape->loss = generates ? -1 : k->value[head->out[0]];
    k->tape->hidden = k->value[head->in[0]];
    if (!generates)
        return;
    touch(k->tape, k->tape->hidden);
    for (int life = 0; life < k->tape->n_lives; life++)
        if (stays(k->tape, &k->tape->lives[life]))
            touch(k->tape, life);
}

/* ---- The whole. */

static size_t largest_work(const espl_tape *t, int threads) {
    size_t most = 0;
    for (int i = 0; i < t->n_calls; i++) {
        const espl_call *c = &t->calls[i];
        if (c->kind == ESPL_CALL_BUCKET)
            continue;
        const espl_row *r = &t->model->rows[c->row];
        size_t bytes =
            t->kernels->work_bytes(espl_tape_op(t, r), &r->attrs, t->n_rows[r->attrs.stream], threads, c->kind == ESPL_CALL_BACKWARD);
        most = bytes > most ? bytes : most;
    }
    return most;
}

void espl_tape_make(const espl_model *model, const espl_kernels *kernels, espl_use use, int recompute, int phase,
                    const espl_capacity capacity[ESPL_N_STREAMS], int threads, espl_tape *tape) {
    size_t slots = (size_t)model->n_slots, rows = (size_t)model->n_rows;
    *tape = (espl_tape){.model = model, .kernels = kernels, .use = use, .phase = phase, .loss = -1, .hidden = -1, .logits = -1};
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        tape->n_rows[s] = capacity[s].rows;
    tape->calls = espl_calloc(4 * rows + (size_t)model->n_buckets, sizeof *tape->calls);
    tape->lives = espl_calloc(4 * slots + 16, sizeof *tape->lives);
    maker k = {.tape = tape,
               .model = model,
               .recompute = recompute,
               .value = espl_malloc(slots * sizeof(int)),
               .gradient = espl_malloc(slots * sizeof(int)),
               .kept = espl_calloc(slots, sizeof(bool)),
               .written = espl_calloc((size_t)model->n_params, sizeof(bool)),
               .needed = espl_calloc(slots, sizeof(bool)),
               .back = espl_calloc(rows, sizeof(bool))};
    for (size_t s = 0; s < slots; s++)
        k.value[s] = k.gradient[s] = -1;
    if (use == ESPL_USE_TRAIN)
        make_training(&k);
    else
        make_forward(&k);
    touch(tape, tape->loss);
    touch(tape, tape->logits);
    tape->act_bytes = espl__lives_place(tape->lives, tape->n_lives);
    tape->work_bytes = largest_work(tape, threads);
    free(k.value);
    free(k.gradient);
    free(k.kept);
    free(k.written);
    free(k.needed);
    free(k.back);
}

void espl_tape_free(espl_tape *tape) {
    free(tape->calls);
    free(tape->lives);
    free(tape->args);
    *tape = (espl_tape){0};
}
