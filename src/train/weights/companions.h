/* The files that travel with weights: the tokenizer's, chat template, generation settings.
 *
 * A run copies them into run.dir/tokenizer when it starts, so that its checkpoints can be generated from and exported wherever the run
 * folder is, whatever became of the folders that it started from. */
#ifndef ESPL_TRAIN_COMPANIONS_H
#define ESPL_TRAIN_COMPANIONS_H

#include "src/core/status.h"

/* Local. Copies the files of `tokenizer` (a tokenizer.json or its folder) into `folder`, made if absent; generation_config.json comes from
 * `model` (a Hugging Face folder, or "") when it is there. Files that do not exist are left out. Errors: io. */
espl_status espl_companions_copy(const char *tokenizer, const char *model, const char *folder);

/* Local. A chat template of its own goes into `folder` as chat_template.jinja, in the place of one that was there. Errors: io. */
espl_status espl_companions_template(const char *template, const char *folder);

/* Local. The companions of a checkpoint: `tokenizer` beside the `checkpoints` that it lies in; NULL when there is none. The caller frees.
 */
char *espl_companions_of(const char *checkpoint);

#endif
