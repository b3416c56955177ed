#include "launch/recipe.h"

espl_status espl_recipe_read(const char *path, const espl_words *sets, espl_config *config) {
    if (path != NULL)
        ESPL_TRY(espl_config_read(config, path));
    for (int64_t i = 0; i < sets->n; i++)
        ESPL_TRY(espl_config_set(config, sets->items[i]));
    espl_config_resolve(config);
    return ESPL_OK;
}
