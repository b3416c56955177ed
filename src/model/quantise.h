/* Which parameters are held quantised (kernels/quant.h): the frozen matrices of layers. Embeddings, norms, biases and heads stay as they
 * are: they are few, and what a quantised head loses shows in every logit (bitsandbytes leaves the same ones). */
#ifndef ESPL_MODEL_QUANTISE_H
#define ESPL_MODEL_QUANTISE_H

#include "src/model/model.h"

/* Local. Marks them, once it is known what is frozen. Errors: usage, when there are none. */
espl_status espl__model_quantise(espl_model *model, int format);

/* Local. How the matrix of an op lies that begins with parameter `param`, and those that are used as one with it. */
espl_quant espl__model_matrix_quant(const espl_model *model, int param);

#endif
