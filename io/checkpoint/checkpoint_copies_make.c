#include "io/checkpoint/checkpoint_copies.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "src/core/log.h"

#include <stdlib.h>

static espl_status make_temporary(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    ESPL_TRY(espl__copies_root_make(c));
    if (c->step < 0)
        ESPL_TRY(espl__copies_check_room(s));
    ESPL_TRY(espl_fs_make_folders(c->folder));
    return espl__step_temporary_make(c->folder, s->step, s->attempt);
}

espl_status espl__copies_begin(espl_checkpoints *s) {
    s->copies->sent = 0;
    if (s->copies->root == NULL)
        ESPL_TRY(espl__copies_identify(s, true));
    return espl_comm_agree(s->comm, espl__copies_leader(s) ? make_temporary(s) : ESPL_OK, "beginning an in-memory copy");
}

espl_status espl__copies_announce(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    c->text.size = 0;
    if (s->ranks.rank == 0) {
        espl_manifest_sort(s->manifest);
        espl_manifest_print(s->manifest, &c->text);
        for (int g = 0; g < s->n_writers; g++)
            c->sizes[g] = s->manifest->files[g].bytes;
    }
    int64_t size = (int64_t)c->text.size;
    ESPL_TRY(espl_comm_bcast(s->comm, c->sizes, (size_t)s->n_writers * sizeof *c->sizes, 0));
    ESPL_TRY(espl_comm_bcast(s->comm, &size, sizeof size, 0));
    espl_buffer_reserve(&c->text, (size_t)size - c->text.size);
    c->text.size = (size_t)size;
    return espl_comm_bcast(s->comm, c->text.data, (size_t)size, 0);
}

static int64_t less(int64_t a, int64_t b) { return a < b ? a : b; }

/* Bytes [c->sent, until) of one file. */
static espl_status carry(espl_checkpoints *s, int group, int64_t until) {
    struct espl__copies *c = s->copies;
    int writer = espl__group_first(group, s->n_writers, s->ranks.size), partner = c->partners[group];
    int64_t from = less(c->sent, c->sizes[group]), to = less(until, c->sizes[group]);
    if (from >= to || (s->ranks.rank != writer && s->ranks.rank != partner))
        return ESPL_OK;
    char *folder = espl__step_temporary(c->folder, s->step, s->attempt), *path = espl__shard_path(folder, group);
    espl_status status = s->ranks.rank == writer ? espl_carrier_send(&c->carry, path, from, to, partner)
                                                 : espl_carrier_receive(&c->carry, path, from, to, writer);
    free(path);
    free(folder);
    return status;
}

espl_status espl__copies_spread(espl_checkpoints *s, bool all, bool *done) {
    struct espl__copies *c = s->copies;
    int64_t largest = 0, polls = c->every > 3 ? c->every / 2 : 1; /* it has arrived long before the next one begins */
    for (int g = 0; g < s->n_writers; g++)
        largest = c->sizes[g] > largest ? c->sizes[g] : largest;
    int64_t share = all || s->ranks.n_nodes == 1 ? largest : (largest + polls - 1) / polls;
    int64_t until = less(largest, c->sent + (share + ESPL_CARRY_BYTES - 1) / ESPL_CARRY_BYTES * ESPL_CARRY_BYTES);
    for (int i = 0; i < s->n_writers && s->ranks.n_nodes > 1; i++)
        ESPL_TRY(carry(s, c->order[i], until));
    c->sent = until;
    *done = until == largest;
    return *done ? espl_carrier_agree(&c->carry, "copying to partners") : ESPL_OK;
}

static espl_status write_manifest(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    char *folder = espl__step_temporary(c->folder, s->step, s->attempt), *path = espl_format("%s/" ESPL_MANIFEST_NAME, folder);
    espl_status status = espl_fs_write_file(path, c->text.data, c->text.size);
    free(path);
    free(folder);
    return status;
}

static espl_status rename_copy(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    char *temporary = espl__step_temporary(c->folder, s->step, s->attempt), *final = espl__step_path(c->folder, s->step);
    espl_status status = espl_fs_remove_folder(final, ESPL_MANIFEST_NAME);
    if (status == ESPL_OK)
        status = espl_fs_rename(temporary, final);
    free(temporary);
    free(final);
    return status;
}

/* What is older, now that this one is whole on all hosts. */
static espl_status remove_older(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    ESPL_TRY(espl__copies_remove(c->root, s->attempt - 1, ESPL__NO_COPY));
    if (c->step < 0 || c->step == s->step)
        return ESPL_OK;
    char *path = espl__step_path(c->folder, c->step);
    espl_status status = espl_fs_remove_folder(path, ESPL_MANIFEST_NAME);
    free(path);
    return status;
}

espl_status espl__copies_publish(espl_checkpoints *s) {
    bool leader = espl__copies_leader(s);
    ESPL_TRY(espl_comm_agree(s->comm, leader ? write_manifest(s) : ESPL_OK, "writing an in-memory copy's manifest"));
    ESPL_TRY(espl_comm_agree(s->comm, leader ? rename_copy(s) : ESPL_OK, "publishing an in-memory copy"));
    espl_status status = leader ? remove_older(s) : ESPL_OK;
    s->copies->step = s->step;
    s->copies->newest = (espl__copy){s->attempt, s->step};
    return espl_comm_agree(s->comm, status, "removing the older in-memory copy");
}

void espl__copies_abandon(espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    if (!espl__copies_leader(s) || c->folder == NULL)
        return;
    char *temporary = espl__step_temporary(c->folder, s->step, s->attempt);
    if (espl_fs_remove_folder(temporary, ESPL_MANIFEST_NAME) != ESPL_OK)
        ESPL_WARN("%s", espl_status_message());
    espl_status_clear();
    free(temporary);
}
