/* What a step costs: floating-point operations and bytes on the wire. Pure functions of the model and a few integers. */
#ifndef ESPL_PLAN_COSTS_H
#define ESPL_PLAN_COSTS_H

#include "src/model/model.h"

/* Local. Flops of forward and backward over n tokens whose attention spans `pairs` (query, key) pairs, recomputation not counted:
 * 3 times the forward matrix products (Kaplan et al. 2020, section 2.1, with the attention term and without the look-ups). */
double espl_costs_train_flops(const espl_model *model, double n, double pairs);

/* Local. (query, key) pairs of segments of `length` tokens each that fill n tokens, causal. */
double espl_costs_pairs(double n, double length);

/* Local. Bytes that one rank sends in a step: gradients reduce-scattered in fp32, weights gathered in `weight_bytes` each. */
double espl_costs_wire_bytes(const espl_model *model, int ranks, int weight_bytes);

#endif
