/* Gradual unfreezing (Howard & Ruder 2018): parameters that join what is trained later.
 *
 * Phase 0 trains what tune.train and the method name; each later one, from the time of its entries of tune.unfreeze on, also what those
 * name. What is trained in any phase has its place in buckets, optimizer state and checkpoints from the start. */
#ifndef ESPL_MODEL_PHASES_H
#define ESPL_MODEL_PHASES_H

#include "src/model/model.h"

/* Local. Makes the list of phases from options->unfreeze, SELECTION@STEP or SELECTION@EPOCHSe (select.h), one phase a time, and thaws the
 * parameters that are marked frozen so far and that an entry selects: they join in the first phase that does. Without entries there is one
 * phase. Errors: usage, for an entry of another shape, units that differ, or a selection that no parameter has. */
espl_status espl__phases_make(espl_model *model, const espl_model_options *options);

#endif
