/* How a soft prompt begins that tune.prompt_text gives a text. */
#ifndef ESPL_TRAIN_PROMPT_TEXT_H
#define ESPL_TRAIN_PROMPT_TEXT_H

#include "io/tokenizer/tokenizer.h"
#include "src/train/weights/weights.h"

/* Local. Gives the rows of the model's soft prompt the embeddings of the text's tokens, special ones included, repeated or cut to as many
 * (as peft.PromptEmbedding); the embeddings are there. Does nothing for models without a prompt, and for an empty text. Errors: usage, for
 * a text without tokens; what the tokenizer fails with. */
espl_status espl_prompt_text_start(const espl_model *model, const espl_tokenizer *tokenizer, const char *text, const espl_weights *weights);

#endif
