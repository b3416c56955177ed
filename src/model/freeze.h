/* Which parameters are trained; the others are frozen: no gradient, no optimizer state, no backward below the lowest trained row. */
#ifndef ESPL_MODEL_FREEZE_H
#define ESPL_MODEL_FREEZE_H

#include "src/model/model.h"

/* Local. Sets `frozen` of all parameters from selections (select.h). None: all are trained; with LoRA its own parameters, a new head, and
 * what is selected. Errors: usage, for a selection that no parameter has, and for one that takes a part of parameters which are one matrix
 * here (q, k and v; gate and up). */
espl_status espl__model_freeze(espl_model *model, char *const *selections, int64_t n);

#endif
