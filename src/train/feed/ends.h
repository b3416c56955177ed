/* What a model is asked to go on from as tokens, and the tokens that end what it says. */
#ifndef ESPL_TRAIN_ENDS_H
#define ESPL_TRAIN_ENDS_H

#include "io/chat/chat.h"
#include "io/tokenizer/tokenizer.h"
#include "src/model/model.h"

typedef struct espl_ends {
    int32_t *ids; /* owned */
    int n;
} espl_ends;

/* Local. The eos_token_id, one or a list, of generation_config.json in `folder` ("": none), else of the model's config.json, as
 * transformers has it; with a `chat` (else NULL) the special token with which its template ends an assistant's turn, too: a base model that
 * learned a conversation has said that one, whatever its config names. Errors: data, when a file is no JSON. */
espl_status espl_ends_find(const char *folder, const espl_model *model, const espl_tokenizer *tokenizer, const espl_chat *chat,
                           espl_ends *ends);

/* Local. Frees and zeroes. */
void espl_ends_free(espl_ends *ends);

/* Local. Encodes a text for a model without encoder to go on from: an end token that the tokenizer closes texts with is left out.
 * `special`: let the tokenizer add its tokens, which a chat template has written itself. */
espl_status espl_ends_prompt(const espl_tokenizer *tokenizer, const espl_ends *ends, const char *text, size_t size, bool special,
                             espl_encoding *prompt);

#endif
