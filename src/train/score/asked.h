/* What an evaluation asks a model to write: one prompt for each text of a dataset, as tokens.
 *
 * An encoder's are the sources as the token store has them. Else they are made from the files again: the prompt and data.separator of a
 * record of data.records: prompts; the turns before the assistant's last one, with the template's generation prompt, of a conversation.
 * eval.shots examples stand before them as such records do: prompt, separator and response, and eval.shots_between behind; or turns behind
 * the system's. Examples come from eval.shots_from, and none of them stands in the evaluated data, too. */
#ifndef ESPL_TRAIN_ASKED_H
#define ESPL_TRAIN_ASKED_H

#include "src/train/feed/dataset.h"
#include "src/train/feed/ends.h"

typedef struct espl_asked_text {
    int64_t document; /* its number, as src/train/feed/texts.h counts */
    int64_t begin, n; /* tokens of ids */
} espl_asked_text;

typedef struct espl_asked {
    espl_asked_text *texts; /* in the order of documents; owned, as is all else */
    int64_t n, longest;     /* longest: tokens of a prompt */
    int32_t *ids;
    int64_t n_ids;
    espl_chat *chat; /* NULL: records are no conversations */
    espl_ends ends;
} espl_asked;

/* What prompts are made of; borrowed. */
typedef struct espl_asked_use {
    const espl_config *config;
    const espl_model *model;
    const espl_tokenizer *tokenizer;
    const char *folder; /* where the model's generation_config.json may be; "": nowhere */
    const espl_dataset *data;
    const espl_strings *paths; /* the data's */
    const espl_labels *labels;
    int64_t most; /* tokens of a prompt and of what is generated behind it; 0: an encoder's, of any length */
} espl_asked_use;

/* Local. Whether evaluations by this config write texts; and whether its eval.shots go with its data. Errors: usage. */
bool espl_asked_writes(const espl_config *config);
espl_status espl_asked_check(const espl_config *config);

/* Local. The prompts of the data, of the first eval.generate_texts at most; the same on all ranks. A prompt that does not fit loses
 * examples, the last ones first; one that does not fit without is left out; both are counted and said. Errors: data, usage, io. */
espl_status espl_asked_make(const espl_asked_use *use, espl_asked *asked);

/* Local. Of a record of the data what is shown as its prompt, and what the model should have written; the caller frees them. */
void espl_asked_describe(const espl_asked *asked, const espl_document *document, char **input, char **reference);

/* Local. Frees and zeroes. */
void espl_asked_free(espl_asked *asked);

#endif
