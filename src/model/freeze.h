/* Which parameters are trained; the others are frozen: no gradient, no optimizer state, no backward below the lowest trained row. */
#ifndef ESPL_MODEL_FREEZE_H
#define ESPL_MODEL_FREEZE_H

#include "src/model/model.h"

/* Local. Sets `frozen` and `phase` of all parameters from the options' selections (select.h), and makes the list of phases (phases.h). No
 * selections: all are trained; with a method its own parameters, a new head, and what is selected. Errors: usage, for a selection that no
 * parameter has, and for one that takes a part of parameters which are one matrix here (q, k and v; gate and up). */
espl_status espl__model_freeze(espl_model *model, const espl_model_options *options);

#endif
