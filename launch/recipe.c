#include "launch/recipe.h"
#include "launch/session.h"

#include "io/share_files.h"
#include "src/core/job_files.h"

espl_status espl_recipe_read(const char *path, const espl_words *sets, espl_config *config) {
    if (path != NULL)
        ESPL_TRY(espl_config_read(config, path));
    for (int64_t i = 0; i < sets->n; i++)
        ESPL_TRY(espl_config_set(config, sets->items[i]));
    espl_config_resolve(config);
    return ESPL_OK;
}

espl_status espl_recipe_share(espl_comm *comm, const char *path, const espl_words *sets, espl_config *config) {
    if (path != NULL)
        ESPL_TRY(espl_files_share(comm, &path, 1));
    espl_status status = espl_session_agree(comm, espl_recipe_read(path, sets, config), "reading the config");
    espl_job_files_forget();
    return status;
}
