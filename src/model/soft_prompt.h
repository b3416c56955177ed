/* Soft prompts (Lester et al. 2021): rows of numbers in the place of token embeddings, in front of every text; nothing else is trained.
 * They are what ids behind the vocabulary stand for, so whoever fills a micro-batch puts those ids in front of its segments. Of an
 * encoder-decoder the encoder has them. */
#ifndef ESPL_MODEL_SOFT_PROMPT_H
#define ESPL_MODEL_SOFT_PROMPT_H

#include "src/model/model.h"

/* Local. Appends the prompt, or the prefix (layer_prefix.h), where `section` is the one that embeds what it stands in front of, and
 * `model->prompt` has a length. */
void espl__prompt_add_param(espl_model *model, espl_section section);

/* Local. Gives a row that embeds tokens the prompt of its section, where there is one. */
void espl__prompt_bind(const espl_model *model, espl_row *row);

#endif
