#include "io/checkpoint/checkpoint_copies.h"

#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "src/core/log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* Of one host; more than two are there only where attempts died one after the other. */
enum { MAX_OFFERS = 8 };

/* A copy, as a host has its manifest. */
typedef struct offer {
    int64_t attempt, step;
    uint64_t hash; /* of the manifest's text */
    int64_t bytes; /* of it; 0: no offer */
    int64_t rank;  /* that offers it */
} offer;

enum { WANTED = 1, WHOLE = 2 }; /* what a rank says about a file of a copy */

/* ---- What the hosts have */

static char *offer_path(const espl_checkpoints *s, const offer *o) {
    char *attempt = espl__copies_attempt(s->copies->root, o->attempt), *path = espl__step_path(attempt, o->step);
    free(attempt);
    return path;
}

static void offer_attempt(const espl_checkpoints *s, int64_t attempt, offer *offers, int *n) {
    espl_committed *list = NULL;
    size_t n_list = 0;
    char *folder = espl__copies_attempt(s->copies->root, attempt);
    espl_status status = espl_checkpoint_list(folder, &list, &n_list);
    for (size_t i = 0; i < n_list && *n < MAX_OFFERS && status == ESPL_OK; i++) {
        espl_buffer text = {0};
        if (espl_manifest_load_text(list[i].path, &text) == ESPL_OK)
            offers[(*n)++] = (offer){attempt, list[i].step, XXH3_64bits(text.data, text.size), (int64_t)text.size, (int64_t)s->ranks.rank};
        espl_buffer_free(&text);
    }
    espl_status_clear(); /* what cannot be read is no offer */
    espl_checkpoint_list_free(list, n_list);
    free(folder);
}

static int newest_first(const void *a, const void *b) {
    const offer *x = a, *y = b;
    if (x->attempt != y->attempt)
        return (x->attempt < y->attempt) - (x->attempt > y->attempt);
    if (x->step != y->step)
        return (x->step < y->step) - (x->step > y->step);
    if (x->hash != y->hash)
        return (x->hash < y->hash) - (x->hash > y->hash);
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Collective. All that any host offers, newest first; the caller frees. Those of a host stand in `mine` on its ranks. */
static espl_status gather_offers(const espl_checkpoints *s, offer **all, int *n) {
    offer mine[MAX_OFFERS] = {{0}};
    int64_t *attempts = NULL;
    size_t n_attempts = 0;
    int n_mine = 0, n_all = 0;
    bool looks = espl__copies_leader(s) && espl__copies_place_is_own(s->copies->place);
    if (looks && espl__copies_attempts(s->copies->root, &attempts, &n_attempts) != ESPL_OK)
        espl_status_clear();
    for (size_t i = n_attempts; i-- > 0;)
        offer_attempt(s, attempts[i], mine, &n_mine);
    free(attempts);
    *all = espl_calloc((size_t)s->ranks.size * MAX_OFFERS, sizeof **all);
    ESPL_TRY(espl_comm_allgather(s->comm, mine, sizeof mine, *all));
    for (int i = 0; i < s->ranks.size * MAX_OFFERS; i++)
        if ((*all)[i].bytes > 0)
            (*all)[n_all++] = (*all)[i];
    qsort(*all, (size_t)n_all, sizeof **all, newest_first);
    *n = n_all;
    return ESPL_OK;
}

/* ---- Bringing one together */

/* All hosts' offers, and what this rank will load. */
typedef struct search {
    espl_checkpoints *saver;
    const espl_state_tensor *tensors;
    int64_t n_tensors;
    offer *offers; /* newest first */
    int n, at;     /* at: the next to be looked at */
} search;

/* Of a copy that is looked at. */
typedef struct trial {
    espl_checkpoints *saver;
    const search *search;
    const offer *offers; /* of the same manifest, the first of them is its source */
    int n_offers;
    char *path;
    espl_buffer text;
    espl_manifest *manifest;
    char *marks; /* [nodes][files] of all ranks of a node */
} trial;

/* Collective. The manifest comes from the host of the first offer. */
static espl_status share_text(trial *t) {
    const espl_checkpoints *s = t->saver;
    const offer *o = t->offers;
    espl_status status = s->ranks.rank == o->rank ? espl_manifest_load_text(t->path, &t->text) : ESPL_OK;
    if (status == ESPL_OK && s->ranks.rank == o->rank && (int64_t)t->text.size != o->bytes)
        status = espl_status_fail(ESPL_ERR_DATA, __FILE__, __LINE__, "%s: its manifest has changed", t->path);
    ESPL_TRY(espl_comm_agree(s->comm, status, "reading an in-memory copy's manifest"));
    espl_buffer_reserve(&t->text, (size_t)o->bytes - t->text.size);
    t->text.size = (size_t)o->bytes;
    ESPL_TRY(espl_comm_bcast(s->comm, t->text.data, t->text.size, (int)o->rank));
    t->text.data[t->text.size] = '\0';
    return espl_manifest_parse(t->text.data, t->text.size, t->path, &t->manifest);
}

/* A host without this copy begins one, to be filled with the files that its ranks need. */
static espl_status make_place(const trial *t) {
    for (int i = 0; i < t->n_offers; i++)
        if (t->offers[i].rank == t->saver->ranks.rank)
            return ESPL_OK;
    ESPL_TRY(espl__copies_root_make(t->saver->copies));
    char *manifest = espl_format("%s/" ESPL_MANIFEST_NAME, t->path);
    espl_status status = espl_fs_remove_folder(t->path, ESPL_MANIFEST_NAME);
    if (status == ESPL_OK)
        status = espl_fs_make_folders(t->path);
    if (status == ESPL_OK)
        status = espl_fs_write_file(manifest, t->text.data, t->text.size);
    free(manifest);
    return status;
}

static char *file_path(const trial *t, int64_t file) { return espl_format("%s/%s", t->path, t->manifest->files[file].name); }

/* One that is damaged goes: its partner's takes its place. */
static bool is_whole(const trial *t, espl_shards *shards, int64_t file) {
    char *path = file_path(t, file);
    bool whole = espl_fs_is_file(path) && espl_shards_check_file(shards, file) == ESPL_OK;
    if (!whole && espl_fs_is_file(path)) {
        ESPL_WARN("in-memory copy on %s: %s; it is not used", t->saver->ranks.host, espl_status_message());
        espl_fs_unlink(path);
    }
    espl_status_clear();
    free(path);
    return whole;
}

/* The ranks of a host share its files among them. */
static void check_files(const trial *t, char *marks) {
    const espl_ranks *ranks = &t->saver->ranks;
    espl_shards *shards;
    espl_shards_open(t->path, t->manifest, &shards);
    for (int64_t i = ranks->node_rank; i < t->manifest->n_files; i += ranks->node_size)
        if (is_whole(t, shards, i))
            marks[i] |= WHOLE;
    espl_shards_close(&shards);
}

static void mark_wanted(const trial *t, char *marks) {
    for (int64_t i = 0; i < t->search->n_tensors; i++) {
        const espl_state_tensor *want = &t->search->tensors[i];
        const espl_manifest_tensor *found = espl_manifest_find(t->manifest, want->group, want->name);
        for (int64_t k = 0; found != NULL && k < found->n_ranges; k++)
            if (want->begin < found->ranges[k].end && found->ranges[k].begin < want->end)
                marks[found->ranges[k].file] |= WANTED;
    }
}

/* Collective. What the ranks of each host want, and which files it has. */
static espl_status mark_files(trial *t) {
    const espl_checkpoints *s = t->saver;
    const struct espl__copies *c = s->copies;
    const size_t n = (size_t)t->manifest->n_files;
    char *mine = espl_calloc(n, 1), *all = espl_calloc(n, (size_t)s->ranks.size);
    check_files(t, mine);
    mark_wanted(t, mine);
    espl_status status = espl_comm_allgather(s->comm, mine, n, all);
    t->marks = espl_calloc(n, (size_t)s->ranks.n_nodes);
    for (int node = 0; node < s->ranks.n_nodes; node++)
        for (int i = c->starts[node]; i < c->starts[node + 1]; i++)
            for (size_t k = 0; k < n; k++)
                t->marks[(size_t)node * n + k] |= all[(size_t)c->members[i] * n + k];
    free(mine);
    free(all);
    return status;
}

/* The k-th of those hosts that have a file, counted around; -1: none has it. */
static int holder(const trial *t, int64_t file, int k) {
    const int n_nodes = t->saver->ranks.n_nodes;
    int holders = 0;
    for (int node = 0; node < n_nodes; node++)
        holders += (t->marks[(int64_t)node * t->manifest->n_files + file] & WHOLE) != 0;
    for (int node = 0, at = 0; node < n_nodes && holders > 0; node++)
        if ((t->marks[(int64_t)node * t->manifest->n_files + file] & WHOLE) != 0 && at++ == k % holders)
            return node;
    return -1;
}

/* Of a host the rank that carries a file. */
static int carrier_of(const trial *t, int node, int64_t file) {
    const struct espl__copies *c = t->saver->copies;
    return c->members[c->starts[node] + (int)(file % (c->starts[node + 1] - c->starts[node]))];
}

/* Collective. A file goes to all hosts that want it and lack it. */
static espl_status spread_file(trial *t, int64_t file) {
    espl_checkpoints *s = t->saver;
    const int64_t bytes = t->manifest->files[file].bytes;
    espl_status status = ESPL_OK;
    char *path = file_path(t, file);
    for (int node = 0, k = 0; node < s->ranks.n_nodes; node++) {
        if (t->marks[(int64_t)node * t->manifest->n_files + file] != WANTED)
            continue;
        int from = holder(t, file, k++);
        if (from < 0)
            ESPL_FAIL_DONE(ESPL_ERR_DATA, "%s is whole on none of the hosts that are here", t->manifest->files[file].name);
        int sender = carrier_of(t, from, file), receiver = carrier_of(t, node, file);
        if (s->ranks.rank == sender)
            ESPL_TRY_DONE(espl_carrier_send(&s->copies->carry, path, 0, bytes, receiver));
        if (s->ranks.rank == receiver)
            ESPL_TRY_DONE(espl_carrier_receive(&s->copies->carry, path, 0, bytes, sender));
    }
done:
    free(path);
    return status;
}

/* Collective. Nothing travels unless all that is wanted is somewhere. */
static espl_status bring_together(trial *t) {
    for (int64_t i = 0; i < t->manifest->n_files; i++)
        for (int node = 0; node < t->saver->ranks.n_nodes; node++)
            if ((t->marks[(int64_t)node * t->manifest->n_files + i] & WANTED) != 0 && holder(t, i, 0) < 0)
                ESPL_FAIL(ESPL_ERR_DATA, "%s is whole on none of the hosts that are here", t->manifest->files[i].name);
    for (int64_t i = 0; i < t->manifest->n_files; i++)
        ESPL_TRY(spread_file(t, i));
    return espl_carrier_agree(&t->saver->copies->carry, "bringing an in-memory copy together");
}

/* Collective. The same result on all ranks. */
static espl_status look_at(trial *t) {
    const espl_checkpoints *s = t->saver;
    ESPL_TRY(share_text(t));
    ESPL_TRY(espl_comm_agree(s->comm, espl__copies_leader(s) ? make_place(t) : ESPL_OK, "making room for an in-memory copy"));
    ESPL_TRY(mark_files(t));
    return bring_together(t);
}

/* Collective. *found stays NULL where the copy is not whole, which is told. */
static espl_status try_offers(const search *search, int n, char **found) {
    const offer *offers = search->offers + search->at;
    trial t = {.saver = search->saver, .search = search, .offers = offers, .n_offers = n, .path = offer_path(search->saver, offers)};
    espl_status status = look_at(&t);
    if (status == ESPL_OK) {
        search->saver->copies->newest = (espl__copy){offers->attempt, offers->step};
        *found = t.path;
        t.path = NULL;
    } else if (search->saver->ranks.rank == 0) {
        ESPL_WARN("the in-memory copy of step %" PRId64 " is skipped: %s", offers->step, espl_status_message());
    }
    espl_status_clear();
    free(t.path);
    free(t.marks);
    espl_buffer_free(&t.text);
    espl_manifest_free(&t.manifest);
    return ESPL_OK;
}

/* ---- Which counts */

/* Where a checkpoint stands among copies; before all of them, where it cannot be read. */
static offer place_of(const char *path) {
    offer place = {.attempt = -1, .step = -1};
    espl_manifest *m = NULL;
    if (espl_manifest_read(path, &m) == ESPL_OK) {
        place.attempt = m->attempt;
        place.step = m->step;
    }
    espl_status_clear();
    espl_manifest_free(&m);
    return place;
}

/* Rank 0. Of the newest checkpoint whose manifest can be read. */
static offer newest_checkpoint(const espl_checkpoints *s) {
    offer place = {.attempt = -1, .step = -1};
    espl_committed *list = NULL;
    size_t n = 0;
    if (espl_checkpoint_list(s->options.folder, &list, &n) != ESPL_OK)
        espl_status_clear(); /* the search among checkpoints will tell */
    for (size_t i = 0; i < n && place.attempt < 0; i++)
        place = place_of(list[i].path);
    espl_checkpoint_list_free(list, n);
    return place;
}

static bool counts_more(const offer *o, const offer *than) {
    return o->attempt > than->attempt || (o->attempt == than->attempt && o->step >= than->step);
}

static bool same_manifest(const offer *a, const offer *b) { return a->attempt == b->attempt && a->step == b->step && a->hash == b->hash; }

/* Collective. Looks at offers that count more than a checkpoint at `than`, rank 0's, until one is whole. */
static espl_status try_until(search *f, offer than, char **found) {
    ESPL_TRY(espl_comm_bcast(f->saver->comm, &than, sizeof than, 0));
    while (*found == NULL && f->at < f->n && counts_more(&f->offers[f->at], &than)) {
        int same = 1;
        while (f->at + same < f->n && same_manifest(&f->offers[f->at], &f->offers[f->at + same]))
            same++;
        ESPL_TRY(try_offers(f, same, found));
        f->at += same;
    }
    return ESPL_OK;
}

/* Collective. The offers that are left count if no checkpoint verifies, or an older one than was hoped. */
static espl_status find_checkpoint(search *f, char **found, bool *in_memory) {
    const espl_checkpoints *s = f->saver;
    char *copy = NULL;
    offer than = {.attempt = -1, .step = -1};
    espl_status status = espl_checkpoint_find(s->comm, s->options.folder, NULL, found);
    if (f->at == f->n || (status != ESPL_OK && status != ESPL_ERR_DATA))
        return status;
    char *message = espl_strdup(espl_status_message());
    if (*found != NULL && s->ranks.rank == 0)
        than = place_of(*found);
    espl_status tried = try_until(f, than, &copy);
    if (copy != NULL) {
        free(*found);
        *found = copy;
        *in_memory = true;
        status = ESPL_OK;
    } else if (tried == ESPL_OK && status != ESPL_OK) {
        espl_status_fail(status, __FILE__, __LINE__, "%s", message);
    }
    free(message);
    return tried != ESPL_OK ? tried : status;
}

espl_status espl_checkpoints_find(espl_checkpoints *s, const espl_state_tensor *tensors, int64_t n, char **found, bool *in_memory) {
    search f = {.saver = s, .tensors = tensors, .n_tensors = n};
    espl_status status = ESPL_OK;
    *found = NULL;
    *in_memory = false;
    if (s->copies == NULL || s->copies->root == NULL)
        return espl_checkpoint_find(s->comm, s->options.folder, NULL, found);
    s->copies->newest = (espl__copy){s->copies->step < 0 ? -1 : s->attempt, s->copies->step};
    ESPL_TRY_DONE(gather_offers(s, &f.offers, &f.n));
    ESPL_TRY_DONE(try_until(&f, s->ranks.rank == 0 ? newest_checkpoint(s) : (offer){0}, found));
    *in_memory = *found != NULL;
    if (*found == NULL)
        ESPL_TRY_DONE(find_checkpoint(&f, found, in_memory));
done:
    free(f.offers);
    return status;
}
