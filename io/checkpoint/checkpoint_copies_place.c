#include "io/checkpoint/checkpoint_copies.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ORIGIN_NAME "checkpoints"

char *espl__copies_place(const char *folder) {
    bool given = folder != NULL && folder[0] != '\0';
    return espl_format("%s/espalier-%u", given ? folder : "/dev/shm", (unsigned)geteuid());
}

bool espl__copies_place_is_own(const char *place) {
    struct stat found;
    return lstat(place, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid() && (found.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static espl_status open_place(const char *place) {
    ESPL_TRY(espl_fs_make_folders(place));
    if (!espl__copies_place_is_own(place))
        ESPL_FAIL(ESPL_ERR_IO, "%s is not a folder of this user's that others cannot write in; remove it, or set checkpoint.memory_folder",
                  place);
    if (chmod(place, 0700) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be closed to others: %s", place, strerror(errno));
    return ESPL_OK;
}

espl_status espl__copies_root_make(const struct espl__copies *c) {
    char *origin = espl_format("%s/" ORIGIN_NAME, c->root);
    espl_status status = open_place(c->place);
    if (status == ESPL_OK)
        status = espl_fs_make_folders(c->root);
    if (status == ESPL_OK && !espl_fs_is_file(origin))
        status = espl_fs_write_file(origin, c->origin, strlen(c->origin));
    free(origin);
    return status;
}

espl_status espl__copies_origin_read(const char *root, espl_buffer *origin) {
    char *path = espl_format("%s/" ORIGIN_NAME, root);
    espl_status status = espl_fs_read_file(path, PATH_MAX, origin);
    free(path);
    return status;
}

char *espl__copies_attempt(const char *root, int64_t attempt) { return espl_format("%s/attempt-%08" PRId64, root, attempt); }

espl_status espl__copies_attempts(const char *root, int64_t **attempts, size_t *n) {
    char **names = NULL;
    size_t n_names = 0;
    bool present = false;
    *attempts = NULL;
    *n = 0;
    ESPL_TRY(espl_fs_present(root, &present));
    if (!present)
        return ESPL_OK;
    ESPL_TRY(espl_fs_list(root, &names, &n_names));
    *attempts = espl_calloc(n_names, sizeof **attempts);
    for (size_t i = 0; i < n_names; i++)
        *n += sscanf(names[i], "attempt-%" SCNd64, &(*attempts)[*n]) == 1;
    espl_fs_free_names(names, n_names);
    return ESPL_OK;
}

/* Whether it is no step's at all, or that of the copy that stays. */
static bool stays(const char *path, const char *name, const char *kept) {
    return strncmp(name, "step-", 5) != 0 || strcmp(path, kept) == 0;
}

/* The steps of an attempt but one, unfinished ones among them; when none is left, the attempt's folder, too. */
static espl_status remove_steps(const char *attempt, int64_t but) {
    char **names = NULL, *kept = espl__step_path(attempt, but);
    size_t n = 0, left = 0;
    espl_status status = espl_fs_list(attempt, &names, &n);
    for (size_t i = 0; i < n && status == ESPL_OK; i++) {
        char *path = espl_format("%s/%s", attempt, names[i]);
        if (stays(path, names[i], kept))
            left++;
        else
            status = espl_fs_remove_folder(path, ESPL_MANIFEST_NAME);
        free(path);
    }
    if (status == ESPL_OK && left == 0)
        status = espl_fs_remove_folder(attempt, NULL);
    espl_fs_free_names(names, n);
    free(kept);
    return status;
}

espl_status espl__copies_remove(const char *root, int64_t last, espl__copy but) {
    int64_t *attempts = NULL;
    size_t n = 0, left = 0;
    espl_status status = espl__copies_attempts(root, &attempts, &n);
    for (size_t i = 0; i < n && status == ESPL_OK; i++) {
        char *path = espl__copies_attempt(root, attempts[i]);
        if (attempts[i] <= last)
            status = remove_steps(path, attempts[i] == but.attempt ? but.step : -1);
        left += espl_fs_is_folder(path);
        free(path);
    }
    free(attempts);
    if (status == ESPL_OK && left == 0)
        status = espl_fs_remove_folder(root, NULL);
    return status;
}
