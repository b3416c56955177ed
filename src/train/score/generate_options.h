/* How text is generated, by the generate.* keys. */
#ifndef ESPL_TRAIN_GENERATE_OPTIONS_H
#define ESPL_TRAIN_GENERATE_OPTIONS_H

#include "src/config/config.h"
#include "src/eval/generate.h"
#include "src/train/feed/ends.h"

/* Local. `ends` are borrowed by what is returned. */
espl_generate_options espl_generate_options_of(const espl_config *config, const espl_ends *ends);

#endif
