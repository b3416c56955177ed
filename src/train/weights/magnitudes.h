/* How the magnitudes of DoRA begin. */
#ifndef ESPL_TRAIN_MAGNITUDES_H
#define ESPL_TRAIN_MAGNITUDES_H

#include "src/train/weights/weights.h"

/* Local. Gives every magnitude the norm of its output's row, by the kernel that training computes norms with, so that their ratio is 1 to
 * the bit. All other weights are there, the Bs zero. Does nothing for models without magnitudes. Errors: usage, when the device has no
 * room for the norms. */
espl_status espl_magnitudes_start(const espl_model *model, const espl_weights *weights);

#endif
