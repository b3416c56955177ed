/* Selections: the words by which a config names parameters. */
#ifndef ESPL_MODEL_SELECT_H
#define ESPL_MODEL_SELECT_H

#include "src/model/model.h"

/* Local. Whether a parameter is meant: by `head` (the head's own parameters; a language model's head may be tied, then there is none),
 * `embeddings`, `layers.A-B` or `layers.A` (of the only stack, or the decoder; 0 is the first), `encoder.layers.A-B`, or a glob (fnmatch)
 * on full names. */
bool espl__selects(const char *selection, const espl_param *param);

/* Local. Errors: usage, for a selection that no parameter of the model has; `key` is the config's, for the message. */
espl_status espl__select_check(const espl_model *model, const char *key, const char *selection);

/* Local. Whether a parameter is a matrix of a layer that rows multiply with, of attention or the MLP. */
bool espl__is_layer_matrix(const espl_param *param);

#endif
