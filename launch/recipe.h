/* The config of a verb: a file, then every --set. */
#ifndef ESPL_LAUNCH_RECIPE_H
#define ESPL_LAUNCH_RECIPE_H

#include "launch/options.h"
#include "src/config/config.h"

/* Local. Reads `path` (NULL: defaults alone) and the overrides, in order, over a config that was made, and resolves it. Errors: usage, with
 * file:line. */
espl_status espl_recipe_read(const char *path, const espl_words *sets, espl_config *config);

#endif
