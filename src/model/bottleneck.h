/* Bottleneck adapters as rows (Houlsby et al. 2019): what the attention or the MLP of a layer makes, y, becomes
 * y + up(f(down(y))) before the residual stream is added and normed. `up` begins as zero. */
#ifndef ESPL_MODEL_BOTTLENECK_H
#define ESPL_MODEL_BOTTLENECK_H

#include "src/model/model.h"

/* Local. Appends the four parameters of an adapter (down and up, each with its bias) for those matrices from number `first` to the last
 * whose product `model->bottleneck` adapts. */
void espl__bottleneck_add_params(espl_model *model, int first);

/* Local. Appends the rows of the adapter of `branch` (a slot; -1: none), which is dropped before with probability `dropout`; returns the
 * slot of what it makes. Without an adapter it appends nothing and returns `branch`. */
int espl__bottleneck_add_rows(espl_model *model, int branch, float dropout);

#endif
