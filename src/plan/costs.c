#include "src/plan/costs.h"

double espl_costs_train_flops(const espl_model *model, double n, double pairs) {
    double forward = 0.0;
    for (int i = 0; i < model->n_rows; i++)
        forward += espl_op_flops(model->rows[i].op, &model->rows[i].attrs, n, pairs);
    return 3.0 * forward;
}

double espl_costs_pairs(double n, double length) { return n * (length + 1.0) / 2.0; }

double espl_costs_wire_bytes(const espl_model *model, int ranks, int weight_bytes) {
    double flat = (double)espl_model_flat_size(model, ranks);
    return flat * (ranks - 1) / ranks * (4.0 + weight_bytes);
}
