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
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

enum { COPY_TAG = 702, GENERATIONS = 2 };

bool espl__copies_leader(const espl_checkpoints *s) { return s->ranks.node_rank == 0; }

/* ---- Where copies are */

bool espl__copies_place_is_own(const char *place) {
    struct stat found;
    return lstat(place, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid();
}

espl_status espl__copies_place_open(const char *place) {
    ESPL_TRY(espl_fs_make_folders(place));
    if (!espl__copies_place_is_own(place))
        ESPL_FAIL(ESPL_ERR_IO, "%s is not a folder of this user's; set checkpoint.memory_folder", place);
    if (chmod(place, 0700) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: cannot be closed to others: %s", place, strerror(errno));
    return ESPL_OK;
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

/* The steps after `step` of an attempt, unfinished ones among them; when none is left, the attempt's folder, too. */
static espl_status remove_steps(const char *attempt, int64_t step) {
    char **names = NULL;
    size_t n = 0, left = 0;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_fs_list(attempt, &names, &n));
    for (size_t i = 0; i < n; i++) {
        int64_t found = -1;
        if (sscanf(names[i], "step-%" SCNd64, &found) != 1 || found <= step) {
            left++;
            continue;
        }
        char *path = espl_format("%s/%s", attempt, names[i]);
        status = espl_fs_remove_folder(path, ESPL_MANIFEST_NAME);
        free(path);
        ESPL_TRY_DONE(status);
    }
    if (left == 0)
        ESPL_TRY_DONE(espl_fs_remove_folder(attempt, NULL));
done:
    espl_fs_free_names(names, n);
    return status;
}

espl_status espl__copies_remove(const char *root, int64_t last, int64_t step) {
    int64_t *attempts = NULL;
    size_t n = 0, left = 0;
    espl_status status = espl__copies_attempts(root, &attempts, &n);
    for (size_t i = 0; i < n && status == ESPL_OK; i++) {
        char *path = espl__copies_attempt(root, attempts[i]);
        if (attempts[i] <= last)
            status = remove_steps(path, step);
        left += espl_fs_is_folder(path);
        free(path);
    }
    free(attempts);
    if (status == ESPL_OK && left == 0)
        status = espl_fs_remove_folder(root, NULL);
    return status;
}

static char *identity_path(const espl_checkpoints *s) { return espl_format("%s/memory", s->options.folder); }

/* Rank 0. What names the run's folder on a host; unchanged, when there is no identity and none is to be made. */
static espl_status find_name(const espl_checkpoints *s, bool make, uint64_t *name) {
    char *path = identity_path(s), folder[PATH_MAX];
    espl_buffer text = {0};
    bool present = false;
    espl_status status = ESPL_OK;
    uint64_t random;
    ESPL_TRY_DONE(espl_fs_present(path, &present));
    if (!present && !make)
        goto done;
    if (!present) {
        if (getrandom(&random, sizeof random, 0) != sizeof random)
            ESPL_FAIL_DONE(ESPL_ERR_IO, "the system gives no random numbers: %s", strerror(errno));
        espl_buffer_printf(&text, "%016" PRIx64 "\n", random);
        ESPL_TRY_DONE(espl_fs_write_file(path, text.data, text.size));
    } else {
        ESPL_TRY_DONE(espl_fs_read_file(path, 64, &text));
    }
    if (realpath(s->options.folder, folder) == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: %s", s->options.folder, strerror(errno));
    espl_buffer_append(&text, folder, strlen(folder));
    *name = XXH3_64bits(text.data, text.size);
done:
    espl_buffer_free(&text);
    free(path);
    return status;
}

static void leave_root(struct espl__copies *c) {
    free(c->root);
    free(c->folder);
    c->root = c->folder = NULL;
}

/* Collective. Rank 0's name becomes everyone's; 0 is none. */
static espl_status share_root(espl_checkpoints *s, bool make) {
    struct espl__copies *c = s->copies;
    uint64_t name = 0;
    espl_status status = s->ranks.rank == 0 ? find_name(s, make, &name) : ESPL_OK;
    ESPL_TRY(espl_comm_agree(s->comm, status, "looking for in-memory copies"));
    ESPL_TRY(espl_comm_bcast(s->comm, &name, sizeof name, 0));
    if (name == 0)
        return ESPL_OK;
    c->root = espl_format("%s/run-%016" PRIx64, c->place, name);
    c->folder = espl__copies_attempt(c->root, s->attempt);
    return ESPL_OK;
}

/* ---- Who keeps what */

static espl_status list_members(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    const int mine[2] = {s->ranks.node, s->ranks.node_rank};
    int(*all)[2] = espl_calloc((size_t)s->ranks.size, sizeof *all);
    espl_status status = espl_comm_allgather(s->comm, mine, sizeof mine, all);
    c->members = espl_calloc((size_t)s->ranks.size, sizeof *c->members);
    c->starts = espl_calloc((size_t)s->ranks.n_nodes + 1, sizeof *c->starts);
    for (int r = 0; r < s->ranks.size && status == ESPL_OK; r++)
        c->starts[all[r][0] + 1]++;
    for (int node = 0; node < s->ranks.n_nodes; node++)
        c->starts[node + 1] += c->starts[node];
    for (int r = 0; r < s->ranks.size && status == ESPL_OK; r++)
        c->members[c->starts[all[r][0]] + all[r][1]] = r;
    free(all);
    return status;
}

static int node_of(const espl_checkpoints *s, int rank, int *node_rank) {
    const struct espl__copies *c = s->copies;
    for (int node = 0; node < s->ranks.n_nodes; node++)
        for (int i = c->starts[node]; i < c->starts[node + 1]; i++)
            if (c->members[i] == rank) {
                *node_rank = i - c->starts[node];
                return node;
            }
    ESPL_ASSERT(false, "rank %d is on no node", rank);
    return -1;
}

/* A ring of nodes: the even ones send, then the odd ones, then, of an odd number, the last one. So nobody waits for the whole ring. */
static int turn_of(int node, int n_nodes) { return n_nodes % 2 == 1 && node == n_nodes - 1 ? 2 : node % 2; }

static void choose_partners(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    int at = 0, n_nodes = s->ranks.n_nodes, j;
    c->partners = espl_calloc((size_t)s->n_writers, sizeof *c->partners);
    c->order = espl_calloc((size_t)s->n_writers, sizeof *c->order);
    for (int g = 0; g < s->n_writers; g++) {
        int next = (node_of(s, espl__group_first(g, s->n_writers, s->ranks.size), &j) + 1) % n_nodes;
        c->partners[g] = n_nodes > 1 ? c->members[c->starts[next] + j % (c->starts[next + 1] - c->starts[next])] : -1;
    }
    for (int turn = 0; turn < 3; turn++)
        for (int g = 0; g < s->n_writers; g++)
            if (turn_of(node_of(s, espl__group_first(g, s->n_writers, s->ranks.size), &j), n_nodes) == turn)
                c->order[at++] = g;
}

espl_status espl__copies_open(espl_checkpoints *s) {
    const espl_checkpoint_options *o = &s->options;
    struct espl__copies *c = s->copies = espl_calloc(1, sizeof *c);
    c->every = o->copy_every;
    c->step = -1;
    c->place = o->copy_folder != NULL && o->copy_folder[0] != '\0' ? espl_strdup(o->copy_folder)
                                                                   : espl_format("/dev/shm/espalier-%u", (unsigned)geteuid());
    ESPL_TRY(share_root(s, false));
    if (c->every == 0 && c->root == NULL) {
        espl__copies_close(s);
        return ESPL_OK;
    }
    ESPL_TRY(list_members(s));
    choose_partners(s);
    c->sizes = espl_calloc((size_t)s->n_writers, sizeof *c->sizes);
    c->carry = (espl_carrier){.comm = s->comm, .tag = COPY_TAG, .piece = espl_malloc(ESPL_CARRY_BYTES)};
    return ESPL_OK;
}

void espl__copies_close(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    s->copies = NULL;
    if (c == NULL)
        return;
    espl_buffer_free(&c->text);
    leave_root(c);
    free(c->place);
    free(c->members);
    free(c->starts);
    free(c->partners);
    free(c->order);
    free(c->sizes);
    free(c->carry.piece);
    free(c->carry.message);
    free(c);
}

/* ---- Room */

static size_t group_bytes(const espl_checkpoints *s, int group) {
    size_t bytes = 0;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        int64_t begin, end;
        espl__group_range(s, i, group, &begin, &end);
        bytes += (size_t)(end - begin) * espl_dtype_size(s->tensors[i].dtype);
    }
    return bytes;
}

/* Bytes of the tensors that this host keeps, of its own ranks and its partner's. */
static size_t host_bytes(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    size_t bytes = 0;
    for (int i = c->starts[s->ranks.node]; i < c->starts[s->ranks.node + 1]; i++)
        for (int g = 0; g < s->n_writers; g++)
            if (espl__group_first(g, s->n_writers, s->ranks.size) == c->members[i] || c->partners[g] == c->members[i])
                bytes += group_bytes(s, g);
    return bytes;
}

size_t espl_checkpoint_copy_bytes(const espl_ranks *ranks, const espl_state_tensor *tensors, int64_t n) {
    size_t bytes = 0;
    for (int64_t i = 0; i < n; i++)
        bytes += (size_t)(tensors[i].end - tensors[i].begin) * espl_dtype_size(tensors[i].dtype);
    return bytes * GENERATIONS * (ranks->n_nodes > 1 ? 2 : 1);
}

/* Of an earlier attempt's copies one generation is there. */
static espl_status check_room(const espl_checkpoints *s) {
    const struct espl__copies *c = s->copies;
    struct statvfs room;
    const size_t needed = host_bytes(s) * (espl_fs_is_folder(c->root) ? GENERATIONS - 1 : GENERATIONS);
    if (statvfs(c->place, &room) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "%s: %s", c->place, strerror(errno));
    const size_t left = (size_t)room.f_bavail * (size_t)room.f_frsize;
    if (left < needed)
        ESPL_FAIL(ESPL_ERR_IO, "%s on %s has room for %.1f MiB, the copies that the host is to keep take %.1f MiB", c->place, s->ranks.host,
                  (double)left / 1048576.0, (double)needed / 1048576.0);
    return ESPL_OK;
}

/* ---- A copy at hand */

static espl_status make_temporary(const espl_checkpoints *s, bool first) {
    if (first) {
        ESPL_TRY(espl__copies_place_open(s->copies->place));
        ESPL_TRY(check_room(s));
    }
    ESPL_TRY(espl_fs_make_folders(s->copies->folder));
    return espl__step_temporary_make(s->copies->folder, s->step, s->attempt);
}

espl_status espl__copies_begin(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    bool first = c->step < 0;
    c->sent = 0;
    if (c->root == NULL)
        ESPL_TRY(share_root(s, true));
    return espl_comm_agree(s->comm, espl__copies_leader(s) ? make_temporary(s, first) : ESPL_OK, "beginning an in-memory copy");
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
    ESPL_TRY(espl__copies_remove(c->root, s->attempt - 1, -1));
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

/* ---- Leaving them */

/* Rank 0. An attempt that was taken over has no say in what the run's copies are called. */
static espl_status remove_identity(const espl_checkpoints *s) {
    if (espl__attempt_check(s->options.folder, s->attempt) != ESPL_OK) {
        espl_status_clear();
        return ESPL_OK;
    }
    char *path = identity_path(s);
    espl_status status = espl_fs_unlink(path);
    free(path);
    return status;
}

espl_status espl__copies_leave(espl_checkpoints *s, int64_t step) {
    struct espl__copies *c = s->copies;
    if (c == NULL || c->root == NULL)
        return ESPL_OK;
    if (c->step > step)
        c->step = -1;
    return espl__copies_leader(s) ? espl__copies_remove(c->root, s->attempt, step) : ESPL_OK;
}

espl_status espl_checkpoints_forget(espl_checkpoints *s) {
    struct espl__copies *c = s->copies;
    if (c == NULL || c->root == NULL)
        return ESPL_OK;
    ESPL_TRY(espl_checkpoints_wait(s));
    espl_status status = s->ranks.rank == 0 ? remove_identity(s) : ESPL_OK;
    if (espl__copies_leader(s)) {
        if (espl__copies_remove(c->root, s->attempt, -1) != ESPL_OK)
            ESPL_WARN("%s on %s: %s", c->root, s->ranks.host, espl_status_message());
        rmdir(c->place); /* unless other runs have copies there */
    }
    leave_root(c);
    c->step = -1;
    return espl_comm_agree(s->comm, status, "leaving in-memory copies");
}

int64_t espl_checkpoints_copied(const espl_checkpoints *s) { return s->copies != NULL ? s->copies->step : -1; }
