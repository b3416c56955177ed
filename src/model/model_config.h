/* config.json: which family, which dimensions. Internal to src/model. */
#ifndef ESPL_MODEL_MODEL_CONFIG_H
#define ESPL_MODEL_MODEL_CONFIG_H

#include "src/model/model.h"

/* Local. Loads `path` (config.json or a folder that holds it) as JSON; the caller decrefs. Errors: data, with the line. */
espl_status espl__model_config_load(const char *path, json_t **config);

/* Local. Finds the family and reads its dimensions; `path` stands for the JSON in messages. Errors: data. */
espl_status espl__model_config_parse(const json_t *config, const char *path, const espl_family **family, espl_dims *dims);

/* Local. The activation of this name, as config.json has it. Errors: data. */
espl_status espl__model_config_activation(const char *name, const char *path, espl_dims *dims);

/* Local. Heads that share the width evenly, each with keys and values of its own, and the usual scale. Errors: data. */
espl_status espl__model_config_equal_heads(espl_dims *dims, const char *path);

/* Local. The table of the head that is wanted; auto: the one that the config's architectures name, else the family's first. Errors: usage,
 * when the family does not have it. */
espl_status espl__model_config_head(const json_t *config, const char *path, const espl_family *family, espl_head wanted,
                                    const espl_head_table **head);

/* Local. Puts into a model's dimensions and its config.json what the options have decided: the head's class, labels, a tied head. The
 * config is copied before it is changed. Errors: usage, when a classifier's labels are others. */
espl_status espl__model_config_settle(espl_model *model, const char *path, const espl_model_options *options);

#endif
