/* Learning rates that differ between parameters (discriminative rates: Howard & Ruder 2018).
 *
 * With `layer_decay` d a parameter that stands k places below the head has the rate d^k: layer i of L has k = L - i, embeddings have
 * L + 1 (the head of an encoder-decoder stands on the decoder's layers, those on the encoder's, those on the embeddings). That is what
 * ULMFiT (d = 1 / 2.6) and BEiT have; ELECTRA's program has one place more between the head and the last layer. */
#ifndef ESPL_MODEL_RATES_H
#define ESPL_MODEL_RATES_H

#include "src/model/model.h"

/* Local. Sets `rate` of all parameters, before they get their places; options->rates win over options->layer_decay, later ones over earlier
 * ones. Errors: usage, for an entry that is not SELECTION=FACTOR, or whose selection no parameter has. */
espl_status espl__model_rates(espl_model *model, const espl_model_options *options);

#endif
