/* The README.md of an exported model or adapter: front matter that model hubs read, and in plain words where the model comes from. */
#ifndef ESPL_TRAIN_MODEL_CARD_H
#define ESPL_TRAIN_MODEL_CARD_H

#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>

/* Local. Writes folder/README.md from a checkpoint's record. The last line holds a hash of those above it: a file without it, or that was
 * changed since, is the user's and stays, with a warning. Errors: io. */
espl_status espl_model_card_write(const json_t *record, bool adapter, const char *folder);

#endif
