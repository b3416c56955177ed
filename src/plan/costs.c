#include "src/plan/costs.h"

espl_amount espl_costs_amount(const espl_model *model, const espl_capacity capacity[ESPL_N_STREAMS], double length) {
    espl_amount a;
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        a.rows[s] = (double)capacity[s].rows;
    double source = a.rows[ESPL_STREAM_SOURCE], main = source > 0.0 ? length * a.rows[ESPL_STREAM_MAIN] / source : length;
    a.pairs[ESPL_STREAM_MAIN] = a.rows[ESPL_STREAM_MAIN] * (model->family->bidirectional ? main : (main + 1.0) / 2.0);
    a.pairs[ESPL_STREAM_SOURCE] = source * length;
    a.pairs[ESPL_STREAM_POOLED] = 0.0;
    a.cross = source > 0.0 ? a.rows[ESPL_STREAM_MAIN] * length : 0.0;
    return a;
}

double espl_costs_train_flops(const espl_model *model, const espl_amount *amount) {
    double forward = 0.0;
    for (int i = 0; i < model->n_rows; i++) {
        const espl_row *r = &model->rows[i];
        double pairs = r->op == ESPL_OP_CROSS_ATTENTION ? amount->cross : amount->pairs[r->attrs.stream];
        if (!r->scored)
            forward += espl_op_flops(r->op, &r->attrs, amount->rows[r->attrs.stream], pairs);
    }
    return 3.0 * forward;
}

double espl_costs_wire_bytes(const espl_model *model, int ranks, int weight_bytes) {
    double flat = (double)espl_model_flat_size(model, ranks);
    return flat * (ranks - 1) / ranks * (4.0 + weight_bytes);
}
