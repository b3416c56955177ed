#include "src/plan/costs.h"

espl_amount espl_costs_amount(const espl_model *model, const espl_capacity capacity[ESPL_N_STREAMS], double length) {
    espl_amount a;
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        a.rows[s] = (double)capacity[s].rows;
    double source = a.rows[ESPL_STREAM_SOURCE];
    length += (double)espl_model_prompt(model, source > 0.0 ? ESPL_STREAM_SOURCE : ESPL_STREAM_MAIN);
    double main = source > 0.0 ? length * a.rows[ESPL_STREAM_MAIN] / source + (double)espl_model_prompt(model, ESPL_STREAM_MAIN) : length;
    a.pairs[ESPL_STREAM_MAIN] = a.rows[ESPL_STREAM_MAIN] * (model->family->bidirectional ? main : (main + 1.0) / 2.0);
    a.pairs[ESPL_STREAM_SOURCE] = source * length;
    a.pairs[ESPL_STREAM_POOLED] = 0.0;
    a.cross = source > 0.0 ? a.rows[ESPL_STREAM_MAIN] * length : 0.0;
    return a;
}

static double forward_flops(const espl_row *r, const espl_amount *amount) {
    double pairs = r->op == ESPL_OP_CROSS_ATTENTION ? amount->cross : amount->pairs[r->attrs.stream];
    return espl_op_flops(r->op, &r->attrs, amount->rows[r->attrs.stream], pairs);
}

/* In units of the forward's: one product for the gradient of what goes in, one for that of the matrix, where they are asked for. */
static double backward_products(const espl_tape *tape, const espl_call *c) {
    const espl_row *r = &tape->model->rows[c->row];
    bool loss = espl_ops[r->op].flags & ESPL_OP_LOSS; /* which has its forward in there */
    if (r->param[0] < 0 || r->op == ESPL_OP_ATTENTION)
        return 2.0;
    return (c->din[0] >= 0) + espl_model_trains(tape->model, r->param[0], tape->phase) + loss;
}

/* What is computed again of an MLP is its first matrix alone. */
static double again_share(const espl_row *r, const espl_call *c) {
    bool alone = (espl_ops[r->op].flags & ESPL_OP_ALONE) && c->out[0] < 0;
    return alone ? (double)r->attrs.n_in / (double)(r->attrs.n_in + r->attrs.n_out) : 1.0;
}

double espl_costs_call_flops(const espl_tape *tape, const espl_call *c, const espl_amount *amount) {
    const espl_row *r = c->kind == ESPL_CALL_BUCKET ? NULL : &tape->model->rows[c->row];
    if (c->kind == ESPL_CALL_FORWARD)
        return again_share(r, c) * forward_flops(r, amount);
    return c->kind == ESPL_CALL_BACKWARD ? backward_products(tape, c) * forward_flops(r, amount) : 0.0;
}

double espl_costs_train_flops(const espl_tape *tape, const espl_amount *amount) {
    double flops = 0.0;
    for (int i = 0; i < tape->n_calls; i++)
        if (!tape->calls[i].again)
            flops += espl_costs_call_flops(tape, &tape->calls[i], amount);
    return flops;
}

espl_wire_bytes espl_costs_wire_bytes(const espl_model *model, int phase, int ranks, int group, const espl_wire *wire) {
    const double groups = (double)ranks / group;
    double flat = 0.0;
    for (int b = 0; b < model->n_buckets; b++)
        flat += espl_model_trains_bucket(model, b, phase) ? (double)espl_model_bucket_size(model, b, ranks) : 0.0;
    return (espl_wire_bytes){.inside = flat * (group - 1) / group * ((double)wire->part * wire->sums + (double)wire->back * wire->backs),
                             .across = flat / group * 2.0 * (groups - 1.0) / groups * sizeof(float) * wire->sums};
}
