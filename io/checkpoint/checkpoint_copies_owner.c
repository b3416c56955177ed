#include "io/checkpoint/checkpoint_copies.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "src/core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>
#include <xxhash.h>

enum { IDENTITY_BYTES = 64 };

/* What a run's folder is called on all hosts, and what it is called so after. */
typedef struct owner {
    char origin[PATH_MAX];
    char name[24]; /* "": no identity */
} owner;

static char *identity_path(const char *folder) { return espl_format("%s/memory", folder); }

static void name_after(owner *o, const espl_buffer *identity) {
    espl_buffer text = {0};
    espl_buffer_append(&text, identity->data, identity->size);
    espl_buffer_append(&text, o->origin, strlen(o->origin));
    snprintf(o->name, sizeof o->name, "run-%016" PRIx64, XXH3_64bits(text.data, text.size));
    espl_buffer_free(&text);
}

static espl_status make_identity(const char *path, espl_buffer *identity) {
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        ESPL_FAIL(ESPL_ERR_IO, "the system gives no random numbers: %s", strerror(errno));
    espl_buffer_printf(identity, "%016" PRIx64 "\n", random);
    return espl_fs_write_file(path, identity->data, identity->size);
}

/* Rank 0. */
static espl_status find_owner(const espl_checkpoints *s, bool make, owner *o) {
    char *path = identity_path(s->options.folder);
    espl_buffer identity = {0};
    bool present = false;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_fs_present(path, &present));
    if (!present && !make)
        goto done;
    ESPL_TRY_DONE(present ? espl_fs_read_file(path, IDENTITY_BYTES, &identity) : make_identity(path, &identity));
    if (realpath(s->options.folder, o->origin) == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: %s", s->options.folder, strerror(errno));
    name_after(o, &identity);
done:
    espl_buffer_free(&identity);
    free(path);
    return status;
}

espl_status espl__copies_identify(espl_checkpoints *s, bool make) {
    struct espl__copies *c = s->copies;
    owner o = {0};
    espl_status status = s->ranks.rank == 0 ? find_owner(s, make, &o) : ESPL_OK;
    ESPL_TRY(espl_comm_agree(s->comm, status, "looking for in-memory copies"));
    ESPL_TRY(espl_comm_bcast(s->comm, &o, sizeof o, 0));
    if (o.name[0] == '\0')
        return ESPL_OK;
    c->origin = espl_strdup(o.origin);
    c->root = espl_format("%s/%s", c->place, o.name);
    c->folder = espl__copies_attempt(c->root, s->attempt);
    return ESPL_OK;
}

espl_status espl__copies_disown(const espl_checkpoints *s) {
    if (espl__attempt_check(s->options.folder, s->attempt) != ESPL_OK) {
        espl_status_clear();
        return ESPL_OK;
    }
    char *path = identity_path(s->options.folder);
    espl_status status = espl_fs_unlink(path);
    free(path);
    return status;
}

/* ---- What no run looks for */

/* Whether the folder is there in which the run's folder is or was, in which the checkpoint folder is or was. */
static bool neighbours_are_there(const char *origin) {
    char *path = espl_strdup(origin);
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(path, '/');
        if (slash != NULL)
            *slash = '\0';
    }
    bool there = espl_fs_is_folder(path);
    free(path);
    return there;
}

/* A run whose folder cannot be reached from here may still be alive. */
static bool may_be_needed(const owner *o) {
    owner now = *o;
    espl_buffer identity = {0};
    char *path = identity_path(o->origin);
    bool present = true, needed = true;
    espl_status status = espl_fs_present(path, &present);
    if (status == ESPL_OK && present)
        status = espl_fs_read_file(path, IDENTITY_BYTES, &identity);
    if (status == ESPL_OK && present) {
        name_after(&now, &identity);
        needed = strcmp(now.name, o->name) == 0;
    } else if (status == ESPL_OK) {
        needed = !neighbours_are_there(o->origin);
    }
    espl_status_clear();
    espl_buffer_free(&identity);
    free(path);
    return needed;
}

/* What does not say whose it is stays. */
static bool read_owner(const char *root, const char *name, owner *o) {
    espl_buffer origin = {0};
    bool known =
        strlen(name) < sizeof o->name && espl__copies_origin_read(root, &origin) == ESPL_OK && origin.size > 0 && origin.size < PATH_MAX;
    if (known) {
        memcpy(o->origin, origin.data, origin.size + 1);
        memcpy(o->name, name, strlen(name) + 1);
    }
    espl_status_clear();
    espl_buffer_free(&origin);
    return known;
}

static void sweep_one(const espl_checkpoints *s, const char *name) {
    const struct espl__copies *c = s->copies;
    owner o;
    char *root = espl_format("%s/%s", c->place, name);
    bool own = c->root != NULL && strcmp(c->root, root) == 0;
    if (!own && read_owner(root, name, &o) && !may_be_needed(&o)) {
        if (espl__copies_remove(root, INT64_MAX, ESPL__NO_COPY) == ESPL_OK)
            ESPL_INFO("removed from %s: %s, in-memory copies of %s that no start looks for any more", s->ranks.host, root, o.origin);
        else
            ESPL_WARN("%s on %s: %s", root, s->ranks.host, espl_status_message());
        espl_status_clear();
    }
    free(root);
}

void espl__copies_sweep(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    char **names = NULL;
    size_t n = 0;
    if (!espl__copies_place_is_own(c->place))
        return;
    if (espl_fs_list(c->place, &names, &n) != ESPL_OK)
        espl_status_clear();
    for (size_t i = 0; i < n; i++)
        sweep_one(s, names[i]);
    espl_fs_free_names(names, n);
    rmdir(c->place); /* unless copies are left */
}
