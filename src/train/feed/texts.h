/* The texts behind a dataset, read from its files again: tokens do not tell how a text was spelled. */
#ifndef ESPL_TRAIN_TEXTS_H
#define ESPL_TRAIN_TEXTS_H

#include "io/labels.h"
#include "io/readers/readers.h"
#include "src/config/config.h"

/* Document `number`, counted as samples count them; its strings are valid during the call. */
typedef void espl_text_visit(void *context, int64_t number, const espl_document *document);

/* Local. Visits the documents of `paths` in order, read as the config has them read; `labels` are those of the dataset. Token stores hold
 * no texts and end it. Errors: data, io. */
espl_status espl_texts_read(const espl_config *config, const espl_strings *paths, const espl_labels *labels, espl_text_visit *visit,
                            void *context);

#endif
