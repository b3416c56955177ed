#include "io/checkpoint/checkpoint_folder.h"

#include "io/fsio.h"
#include "io/checkpoint/manifest.h"
#include "src/core/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { OTHER, COMMITTED, OLD, TEMPORARY } kind;

char *espl__step_path(const char *folder, int64_t step) { return espl_format("%s/step-%08" PRId64, folder, step); }

char *espl__step_temporary(const char *folder, int64_t step, int64_t attempt) {
    return espl_format("%s/step-%08" PRId64 ".attempt-%" PRId64 ".tmp", folder, step, attempt);
}

espl_status espl__step_temporary_make(const char *folder, int64_t step, int64_t attempt) {
    char *temporary = espl__step_temporary(folder, step, attempt);
    espl_status status = espl_fs_remove_folder(temporary, NULL); /* of a save of this step that failed */
    if (status == ESPL_OK)
        status = espl_fs_make_folder(temporary);
    free(temporary);
    return status;
}

static char *step_old(const char *folder, int64_t step) { return espl_format("%s/step-%08" PRId64 ".old", folder, step); }

/* Only names made here, to the letter: nothing else in the folder is ever touched. */
static kind kind_of(const char *name, int64_t *step, int64_t *attempt) {
    char again[96];
    *step = *attempt = 0;
    if (sscanf(name, "step-%" SCNd64, step) != 1 || *step < 0)
        return OTHER;
    snprintf(again, sizeof again, "step-%08" PRId64, *step);
    if (strcmp(again, name) == 0)
        return COMMITTED;
    size_t stem = strlen(again);
    if (strncmp(again, name, stem) != 0)
        return OTHER;
    if (strcmp(name + stem, ".old") == 0)
        return OLD;
    if (sscanf(name + stem, ".attempt-%" SCNd64, attempt) != 1)
        return OTHER;
    snprintf(again + stem, sizeof again - stem, ".attempt-%" PRId64 ".tmp", *attempt);
    return strcmp(again, name) == 0 ? TEMPORARY : OTHER;
}

static espl_status has_manifest(const char *path, bool *has) {
    char *manifest = espl_format("%s/%s", path, ESPL_MANIFEST_NAME);
    espl_status status = espl_fs_present(manifest, has);
    free(manifest);
    return status;
}

/* Newest first; of one step the final name before .old. */
static int newest_first(const void *a, const void *b) {
    const espl_committed *x = a, *y = b;
    return x->step != y->step ? (x->step < y->step) - (x->step > y->step) : strcmp(x->path, y->path);
}

static espl_status collect(const char *folder, char *const *names, size_t n_names, espl_committed *list, size_t *n) {
    for (size_t i = 0; i < n_names; i++) {
        int64_t step, attempt;
        kind what = kind_of(names[i], &step, &attempt);
        bool has = false;
        if (what != COMMITTED && what != OLD)
            continue;
        char *path = espl_format("%s/%s", folder, names[i]);
        espl_status status = has_manifest(path, &has);
        if (status != ESPL_OK || !has)
            free(path);
        else
            list[(*n)++] = (espl_committed){step, path};
        ESPL_TRY(status);
    }
    qsort(list, *n, sizeof *list, newest_first);
    return ESPL_OK;
}

espl_status espl_checkpoint_list(const char *folder, espl_committed **list, size_t *n) {
    char **names = NULL;
    size_t n_names = 0;
    bool present = false;
    *list = NULL;
    *n = 0;
    ESPL_TRY(espl_fs_present(folder, &present));
    if (!present)
        return ESPL_OK;
    ESPL_TRY(espl_fs_list(folder, &names, &n_names));
    *list = espl_calloc(n_names, sizeof **list);
    espl_status status = collect(folder, names, n_names, *list, n);
    espl_fs_free_names(names, n_names);
    if (status != ESPL_OK) {
        espl_checkpoint_list_free(*list, *n);
        *list = NULL;
        *n = 0;
    }
    return status;
}

void espl_checkpoint_list_free(espl_committed *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        free(list[i].path);
    free(list);
}

/* ---- Attempts */

/* 0 when there was none yet. */
static espl_status read_counter(const char *folder, int64_t *attempt) {
    espl_buffer text = {0};
    bool present = false;
    char *path = espl_format("%s/attempt", folder);
    espl_status status = espl_fs_present(path, &present);
    if (status == ESPL_OK && present)
        status = espl_fs_read_file(path, 64, &text);
    *attempt = text.data != NULL ? strtoll(text.data, NULL, 10) : 0;
    espl_buffer_free(&text);
    free(path);
    return status;
}

/* The highest number any name speaks of, should the counter be damaged. */
static espl_status highest_attempt(const char *folder, int64_t *highest) {
    char **names = NULL;
    size_t n = 0;
    ESPL_TRY(read_counter(folder, highest));
    ESPL_TRY(espl_fs_list(folder, &names, &n));
    for (size_t i = 0; i < n; i++) {
        int64_t step, attempt;
        if (kind_of(names[i], &step, &attempt) == TEMPORARY && attempt > *highest)
            *highest = attempt;
    }
    espl_fs_free_names(names, n);
    return ESPL_OK;
}

espl_status espl__attempt_take(const char *folder, int64_t *attempt) {
    int64_t highest = 0;
    ESPL_TRY(highest_attempt(folder, &highest));
    *attempt = highest + 1;
    char *path = espl_format("%s/attempt", folder), *text = espl_format("%" PRId64 "\n", *attempt);
    espl_status status = espl_fs_write_file(path, text, strlen(text));
    free(text);
    free(path);
    return status;
}

espl_status espl__attempt_check(const char *folder, int64_t attempt) {
    int64_t current = 0;
    ESPL_TRY(read_counter(folder, &current));
    if (current != attempt)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: attempt %" PRId64 " has taken this folder over from this one, attempt %" PRId64 ", which must not write there",
                  folder, current, attempt);
    return ESPL_OK;
}

/* ---- Publishing and deleting */

static espl_status clean_old(const char *folder, int64_t step, const char *path) {
    bool newer = false;
    char *final = espl__step_path(folder, step);
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(has_manifest(final, &newer));
    if (newer) {
        ESPL_TRY_DONE(espl_fs_remove_folder(path, ESPL_MANIFEST_NAME));
    } else {
        ESPL_TRY_DONE(espl_fs_remove_folder(final, NULL));
        ESPL_TRY_DONE(espl_fs_rename(path, final));
    }
done:
    free(final);
    return status;
}

/* A writer of an older attempt may still be at work there: once the folder has another name, that writer can add nothing to it. */
static espl_status clean_temporary(const char *path, const char *own) {
    bool present = false;
    if (espl_fs_rename(path, own) == ESPL_OK)
        return espl_fs_remove_folder(own, ESPL_MANIFEST_NAME);
    espl_status status = espl_fs_present(path, &present);
    if (status == ESPL_OK && present)
        return ESPL_ERR_IO;
    espl_status_clear(); /* that writer has published or removed it */
    return status;
}

static espl_status clean_one(const char *folder, const char *name, int64_t own_attempt) {
    int64_t step, attempt;
    bool has = true;
    kind what = kind_of(name, &step, &attempt);
    char *path = espl_format("%s/%s", folder, name), *own = NULL;
    espl_status status = ESPL_OK;
    if (what == OTHER)
        goto done;
    if (what == TEMPORARY) {
        own = espl__step_temporary(folder, step, own_attempt);
        ESPL_TRY_DONE(clean_temporary(path, own));
        goto done;
    }
    ESPL_TRY_DONE(has_manifest(path, &has));
    if (!has)
        ESPL_TRY_DONE(espl_fs_remove_folder(path, ESPL_MANIFEST_NAME));
    else if (what == OLD)
        ESPL_TRY_DONE(clean_old(folder, step, path));
done:
    free(path);
    free(own);
    return status;
}

espl_status espl__folder_clean(const char *folder, int64_t attempt) {
    char **names = NULL;
    size_t n = 0;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_fs_list(folder, &names, &n));
    for (size_t i = 0; i < n; i++)
        ESPL_TRY_DONE(clean_one(folder, names[i], attempt));
done:
    espl_fs_free_names(names, n);
    return status;
}

/* What has the name steps aside, and comes back if the newer cannot take it. Nothing is deleted before: since the attempt was checked,
 * another may have taken over and saved this very step. Its opening has removed `temporary`, and so this fails. */
static espl_status replace(const char *temporary, const char *final, const char *old) {
    ESPL_TRY(espl_fs_remove_folder(old, ESPL_MANIFEST_NAME));
    espl_status status = espl_fs_rename(final, old);
    if (status == ESPL_OK)
        status = espl_fs_rename(temporary, final);
    if (status == ESPL_OK)
        return espl_fs_remove_folder(old, ESPL_MANIFEST_NAME);
    char *why = espl_strdup(espl_status_message());
    if (!espl_fs_is_folder(final) && espl_fs_rename(old, final) != ESPL_OK)
        ESPL_WARN("%s (the checkpoint is whole and will be found there)", espl_status_message());
    espl_status_set_message("%s", why);
    free(why);
    return status;
}

espl_status espl__step_publish(const char *folder, int64_t step, int64_t attempt) {
    char *temporary = espl__step_temporary(folder, step, attempt), *final = espl__step_path(folder, step), *old = step_old(folder, step);
    bool present = false;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl__attempt_check(folder, attempt));
    ESPL_TRY_DONE(espl_fs_present(final, &present));
    if (present)
        ESPL_TRY_DONE(replace(temporary, final, old));
    else
        ESPL_TRY_DONE(espl_fs_rename(temporary, final));
done:
    free(temporary);
    free(final);
    free(old);
    return status;
}

espl_status espl__step_leave(const char *folder, int64_t step, int64_t attempt) {
    char *path = espl__step_path(folder, step), *left = espl_format("%s.attempt-%" PRId64 ".left", path, attempt);
    espl_status status = espl_fs_remove_folder(left, NULL); /* of an earlier course of this attempt */
    if (status == ESPL_OK)
        status = espl_fs_rename(path, left);
    free(path);
    free(left);
    return status;
}

espl_status espl__step_delete(const char *folder, int64_t step) {
    char *path = espl__step_path(folder, step);
    espl_status status = espl_fs_remove_folder(path, ESPL_MANIFEST_NAME);
    free(path);
    return status;
}
