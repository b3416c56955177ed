#include "src/train/run_folder.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/core/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static espl_status make_folder(const char *path) {
    ESPL_TRY(espl_fs_make_folders(path));
    if (access(path, W_OK) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: the run folder cannot be written to: %s", path, strerror(errno));
    return ESPL_OK;
}

static espl_status write_config(const espl_config *config) {
    char *path = espl_format("%s/config.yaml", config->run_dir);
    FILE *file = fopen(path, "w");
    espl_status status = ESPL_OK;
    if (file == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    espl_config_print(config, file);
    if (fclose(file) != 0)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
done:
    free(path);
    return status;
}

espl_status espl_run_folder_open(const espl_config *config, FILE **log) {
    ESPL_TRY(make_folder(config->run_dir));
    char *done = espl_format("%s/done", config->run_dir), *text = espl_format("%s/log.txt", config->run_dir);
    espl_status status = espl_fs_unlink(done); /* the marker of a finished run goes until this one has finished, too */
    if (status == ESPL_OK)
        status = write_config(config);
    if (status == ESPL_OK) {
        *log = fopen(text, "a");
        espl_log_set(0, config->log_level, *log);
    }
    free(text);
    free(done);
    return status;
}

espl_status espl_run_folder_done(const espl_config *config, int64_t step) {
    char *path = espl_format("%s/done", config->run_dir), *text = espl_format("step %lld\n", (long long)step);
    espl_status status = espl_fs_write_file(path, text, strlen(text));
    free(text);
    free(path);
    return status;
}
