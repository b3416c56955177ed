/* The config of a verb: a file, then every --set. */
#ifndef ESPL_LAUNCH_RECIPE_H
#define ESPL_LAUNCH_RECIPE_H

#include "launch/options.h"
#include "comm/comm.h"
#include "src/config/config.h"

/* Local. Reads `path` (NULL: defaults alone) and the overrides, in order, over a config that was made, and resolves it. Errors: usage, with
 * file:line. */
espl_status espl_recipe_read(const char *path, const espl_words *sets, espl_config *config);

/* Collective. The same on the ranks of a job, for which rank 0 reads the file. All ranks have the same status and message. */
espl_status espl_recipe_share(espl_comm *comm, const char *path, const espl_words *sets, espl_config *config);

#endif
