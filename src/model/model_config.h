/* config.json: which family, which dimensions. Internal to src/model. */
#ifndef ESPL_MODEL_MODEL_CONFIG_H
#define ESPL_MODEL_MODEL_CONFIG_H

#include "src/model/family.h"

/* Local. Reads `path` (config.json or a folder that holds it). *config is the whole JSON (caller: json_decref). Errors: data. */
espl_status espl__model_config_read(const char *path, const espl_family **family, espl_dims *dims, json_t **config);

#endif
