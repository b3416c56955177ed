/* Prefix tuning (Li & Liang 2021): keys and values in front of those of every layer's attention, which every token sees; nothing else is
 * trained. They take the place of what tokens in front of every segment would have, in the main stream alone: the other values of those
 * tokens go nowhere, so it does not matter which they are. */
#ifndef ESPL_MODEL_LAYER_PREFIX_H
#define ESPL_MODEL_LAYER_PREFIX_H

#include "src/model/model.h"

/* Local. Whether the model can have the prefix of `model->prompt`. Errors: usage. */
espl_status espl__prefix_check(const espl_model *model);

/* Local. Numbers of a row of the prefix: those of all layers. */
int64_t espl__prefix_columns(const espl_dims *dims);

/* Local. Behind the queries, keys and values that the last row has made: the prefix's in the place of the first ones'. */
void espl__prefix_add_row(espl_model *model);

/* Local. A row that takes the first token of a segment takes the first one behind the prefix. */
void espl__prefix_pass_over(const espl_model *model, espl_row *row);

#endif
