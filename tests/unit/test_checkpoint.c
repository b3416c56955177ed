// test: libs=io,core ranks=1 tier=short timeout=120
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/background.h"
#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "io/h5.h"
#include "io/checkpoint/manifest.h"
#include "io/checkpoint/shard.h"
#include "tests/unit/checkpoint_state.h"
#include "tests/unit/scratch.h"
#include "tests/unit/thread_ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

/* What one run of ranks does; the body's asserts are ESPL_ASSERTs, for cmocka's belong to the main thread. */
typedef struct job {
    const char *folder;
    int writers, generation;
    bool background;
    int64_t step;
    double loss;
    int keep_last, keep_every;
    bool keep_best;
} job;

#define MUST(call)                                                                                                                         \
    do {                                                                                                                                   \
        if ((call) != ESPL_OK) {                                                                                                           \
            espl_status_print_trail(stderr);                                                                                               \
            abort();                                                                                                                       \
        }                                                                                                                                  \
    } while (0)

static espl_checkpoint_options options_of(const job *j) {
    return (espl_checkpoint_options){.folder = j->folder,
                                     .writers = j->writers,
                                     .background = j->background,
                                     .keep_last = j->keep_last > 0 ? j->keep_last : 100,
                                     .keep_every = j->keep_every,
                                     .keep_best = j->keep_best};
}

static json_t *make_record(const job *j) { return json_pack("{s:I, s:i}", "step", (json_int_t)j->step, "generation", j->generation); }

/* A rank's state of the job's generation, and a saver of it. */
static void open_state(espl_comm *comm, const job *j, state *s, espl_checkpoints **saver) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_checkpoint_options options = options_of(j);
    state_make(s, ranks->rank, ranks->size);
    state_fill(s, j->generation);
    MUST(espl_checkpoints_open(comm, &options, s->tensors, STATE_TENSORS, saver));
}

static void save_body(espl_comm *comm, void *context) {
    const job *j = context;
    espl_checkpoints *saver;
    state s;
    open_state(comm, j, &s, &saver);
    json_t *record = make_record(j);
    MUST(espl_checkpoints_save(saver, j->step, record, j->loss));
    json_decref(record);
    if (j->background)
        state_fill(&s, j->generation + 1000); /* training goes on: the snapshot must not see it */
    for (int i = 0; i < 3; i++)
        MUST(espl_checkpoints_poll(saver));
    MUST(espl_checkpoints_wait(saver));
    ESPL_ASSERT(espl_checkpoints_failures(saver) == 0, "a save failed");
    espl_checkpoints_close(&saver);
    state_free(&s);
}

static void load_body(espl_comm *comm, void *context) {
    const job *j = context;
    const espl_ranks *ranks = espl_comm_ranks(comm);
    state s;
    char *found = NULL;
    json_t *record = NULL;
    state_make(&s, ranks->rank, ranks->size);
    MUST(espl_checkpoint_find(comm, j->folder, NULL, &found));
    ESPL_ASSERT(found != NULL, "no checkpoint in %s", j->folder);
    MUST(espl_checkpoint_load(comm, found, NULL, s.tensors, STATE_TENSORS, &record));
    int differs = state_differs(&s, j->generation);
    ESPL_ASSERT(differs < 0, "rank %d of %d: tensor %s is not what was saved", ranks->rank, ranks->size, s.tensors[differs].name);
    ESPL_ASSERT(json_integer_value(json_object_get(record, "step")) == j->step, "the record is of another step");
    json_decref(record);
    free(found);
    state_free(&s);
}

static void save(const job *j, int ranks, int per_node) { ranks_run(ranks, per_node, save_body, (void *)j); }
static void load(const job *j, int ranks) { ranks_run(ranks, ranks, load_body, (void *)j); }

static uint64_t digest_of(const job *j) {
    uint64_t digest = 0;
    char *path = espl__step_path(j->folder, j->step);
    assert_int_equal(espl_checkpoint_verify(path), ESPL_OK);
    assert_int_equal(espl_checkpoint_digest(path, &digest), ESPL_OK);
    free(path);
    return digest;
}

/* ---- Saved on some ranks, loaded on others */

static void any_ranks_to_any_ranks(void **unused) {
    (void)unused;
    static const struct {
        int ranks, per_node, writers;
        bool background;
    } rows[] = {{1, 1, 0, true}, {1, 1, 0, false}, {2, 2, 0, true}, {2, 1, 0, false}, {3, 3, 3, true},
                {3, 2, 0, true}, {4, 4, 0, true},  {4, 4, 3, true}, {4, 2, 0, false}, {4, 4, 9, true}};
    uint64_t first = 0;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char *folder = make_scratch();
        job j = {
            .folder = folder, .writers = rows[i].writers, .generation = 5, .background = rows[i].background, .step = 1000, .loss = NAN};
        save(&j, rows[i].ranks, rows[i].per_node);
        for (int ranks = 1; ranks <= 4; ranks++)
            load(&j, ranks);
        uint64_t digest = digest_of(&j);
        first = i == 0 ? digest : first;
        assert_int_equal(digest, first);
        remove_scratch(folder);
    }
}

static void digest_sees_a_change(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .generation = 1, .step = 1, .loss = NAN};
    save(&j, 1, 1);
    uint64_t one = digest_of(&j);
    j.step = j.generation = 2;
    save(&j, 1, 1);
    assert_true(one != digest_of(&j));
    remove_scratch(folder);
}

/* ---- Past the page cache */

static const espl_fs_table *libc;
static _Atomic int direct_fd;
static _Atomic int64_t direct_bytes;
static bool direct_refused;

/* On any file system: a direct descriptor is an ordinary one that is remembered. */
static int direct_open(const char *path, int flags, mode_t mode) {
    if (flags & O_DIRECT && direct_refused) {
        errno = EINVAL;
        return -1;
    }
    int fd = libc->open(path, flags & ~O_DIRECT, mode);
    if (flags & O_DIRECT)
        direct_fd = fd;
    return fd;
}

static int direct_close(int fd) {
    if (fd == direct_fd)
        direct_fd = -1;
    return libc->close(fd);
}

static ssize_t direct_pwrite(int fd, const void *from, size_t n, off_t offset) {
    if (fd == direct_fd)
        direct_bytes += (int64_t)n;
    return libc->pwrite(fd, from, n, offset);
}

/* From a snapshot all whole blocks of the one long tensor, and the same checkpoint without. */
static void long_tensors_go_past_the_page_cache(void **unused) {
    (void)unused;
    uint64_t digests[2];
    for (int refused = 0; refused < 2; refused++) {
        char *folder = make_scratch();
        job j = {.folder = folder, .generation = 5, .background = true, .step = 1000, .loss = NAN};
        espl_fs_table table = *espl_fs_set_table(NULL);
        table.open = direct_open;
        table.close = direct_close;
        table.pwrite = direct_pwrite;
        direct_refused = refused;
        direct_bytes = 0;
        direct_fd = -1;
        libc = espl_fs_set_table(&table);
        save(&j, 1, 1);
        espl_fs_set_table(NULL);
        assert_int_equal(direct_bytes, refused ? 0 : 1277 * 511 * 4 / ESPL_FS_BLOCK * ESPL_FS_BLOCK);
        load(&j, 2);
        digests[refused] = digest_of(&j);
        remove_scratch(folder);
    }
    assert_int_equal(digests[0], digests[1]);
}

/* ---- The index, as h5py would read it */

static void index_shows_whole_tensors(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .writers = 3, .generation = 3, .step = 7, .loss = NAN};
    save(&j, 3, 3);
    char *path = espl_format("%s/step-00000007/index.h5", folder);
    espl_h5_lock();
    espl_h5_id file;
    MUST(espl_h5_open(path, &file));
    state s;
    state_make(&s, 0, 1);
    for (int i = 0; i < STATE_TENSORS; i++) {
        espl_state_tensor *t = &s.tensors[i];
        char *name = espl_format("/%s/%s", t->group, t->name);
        if (t->end == 0)
            t->end = state_count(i), t->data = espl_realloc(t->data, (size_t)t->end * espl_dtype_size(t->dtype));
        MUST(espl_h5_read(file, name, t->dtype, state_count(i), t->data));
        free(name);
    }
    assert_int_equal(state_differs(&s, 3), -1);
    MUST(espl_h5_close(&file, path));
    espl_h5_unlock();
    state_free(&s);
    free(path);
    remove_scratch(folder);
}

/* ---- Damage */

static void flip_byte(const char *path, int64_t at) {
    int fd = open(path, O_RDWR);
    unsigned char byte;
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* Bytes spread over the whole of each file, metadata first: no region may be blind. */
static void every_flipped_byte_is_found(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .writers = 2, .generation = 4, .step = 9, .loss = NAN};
    save(&j, 2, 2);
    char *step = espl__step_path(folder, 9);
    static const char *const names[] = {"manifest.json", "shard-00000.h5", "shard-00001.h5", "index.h5"};
    for (size_t f = 0; f < sizeof names / sizeof names[0]; f++) {
        char *path = espl_format("%s/%s", step, names[f]);
        int64_t bytes = 0;
        assert_int_equal(espl_fs_path_size(path, &bytes), ESPL_OK);
        for (int k = 0; k < 60; k++) {
            int64_t at = k < 30 ? bytes * k * k / 3600 : bytes - 1 - (bytes - 1) * (k - 30) / 60;
            flip_byte(path, at);
            if (espl_checkpoint_verify(step) != ESPL_ERR_DATA)
                fail_msg("%s: flipped byte %lld was not found", names[f], (long long)at);
            assert_non_null(strstr(espl_status_message(), names[f]));
            flip_byte(path, at);
        }
        assert_int_equal(espl_checkpoint_verify(step), ESPL_OK);
        free(path);
    }
    free(step);
    remove_scratch(folder);
}

typedef enum harm { SHARD_MISSING, SHARD_SHORT, SHARD_FLIPPED, MANIFEST_TORN, MANIFEST_FOREIGN, INDEX_MISSING, N_HARMS } harm;

static void replace_text(const char *path, const char *from, const char *to) {
    espl_buffer text = {0};
    assert_int_equal(espl_fs_read_file(path, 1 << 24, &text), ESPL_OK);
    char *at = strstr(text.data, from);
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    assert_int_equal(espl_fs_write_file(path, text.data, text.size), ESPL_OK);
    espl_buffer_free(&text);
}

static void do_harm(const char *step, harm h) {
    char *shard = espl_format("%s/shard-00001.h5", step), *manifest = espl_format("%s/manifest.json", step),
         *index = espl_format("%s/index.h5", step);
    int64_t bytes = 0;
    assert_int_equal(espl_fs_path_size(h == MANIFEST_TORN ? manifest : shard, &bytes), ESPL_OK);
    switch (h) {
    case SHARD_MISSING: assert_int_equal(unlink(shard), 0); break;
    case SHARD_SHORT: assert_int_equal(truncate(shard, bytes - 1), 0); break;
    case SHARD_FLIPPED: flip_byte(shard, bytes * 2 / 3); break;
    case MANIFEST_TORN: assert_int_equal(truncate(manifest, bytes / 2), 0); break;
    case MANIFEST_FOREIGN: replace_text(manifest, "\"version\": 3", "\"version\": 7"); break;
    default: assert_int_equal(unlink(index), 0);
    }
    free(shard);
    free(manifest);
    free(index);
}

/* The newer of two is harmed: loading falls back to the older and says why; only the index is not needed. */
static void harmed_checkpoints_are_skipped(void **unused) {
    (void)unused;
    for (int h = 0; h < N_HARMS; h++) {
        char *folder = make_scratch();
        job older = {.folder = folder, .writers = 2, .generation = 1, .step = 10, .loss = NAN};
        job newer = {.folder = folder, .writers = 2, .generation = 2, .step = 20, .loss = NAN};
        save(&older, 2, 2);
        save(&newer, 2, 2);
        char *step = espl__step_path(folder, 20);
        do_harm(step, (harm)h);
        assert_true(espl_checkpoint_verify(step) != ESPL_OK);
        for (int ranks = 1; ranks <= 3; ranks++)
            load(h == INDEX_MISSING ? &newer : &older, ranks);
        free(step);
        remove_scratch(folder);
    }
}

static void none_body(espl_comm *comm, void *context) {
    char *found = NULL;
    ESPL_ASSERT(espl_checkpoint_find(comm, context, NULL, &found) == ESPL_ERR_DATA, "a damaged checkpoint was taken, or silently ignored");
    ESPL_ASSERT(found == NULL, "found %s", found);
}

static void empty_body(espl_comm *comm, void *context) {
    char *found = NULL;
    MUST(espl_checkpoint_find(comm, context, NULL, &found));
    ESPL_ASSERT(found == NULL, "found %s", found);
}

static void no_checkpoint_and_none_that_verifies(void **unused) {
    (void)unused;
    char *folder = make_scratch(), *absent = espl_format("%s/absent", folder);
    ranks_run(2, 2, empty_body, absent);
    ranks_run(2, 2, empty_body, folder);
    job j = {.folder = folder, .writers = 2, .generation = 1, .step = 10, .loss = NAN};
    save(&j, 2, 2);
    char *step = espl__step_path(folder, 10);
    do_harm(step, SHARD_FLIPPED);
    ranks_run(2, 2, none_body, folder);
    free(step);
    free(absent);
    remove_scratch(folder);
}

static void mismatch_body(espl_comm *comm, void *context) {
    const job *j = context;
    char *path = espl__step_path(j->folder, j->step);
    json_t *record;
    espl_state_tensor t = state_rows[0].tensor;
    float data[37 * 5];
    t.end = 0;
    t.data = data;
    t.shape[1] = 6;
    ESPL_ASSERT(espl_checkpoint_load(comm, path, NULL, &t, 1, &record) == ESPL_ERR_DATA, "another shape was accepted");
    ESPL_ASSERT(strstr(espl_status_message(), "model/wte.weight is [37, 5] of fp32, expected [37, 6] of fp32") != NULL, "%s",
                espl_status_message());
    t.name = "wpe.weight";
    ESPL_ASSERT(espl_checkpoint_load(comm, path, NULL, &t, 1, &record) == ESPL_ERR_DATA, "an absent tensor was accepted");
    ESPL_ASSERT(strstr(espl_status_message(), "model/wpe.weight is not in this checkpoint") != NULL, "%s", espl_status_message());
    free(path);
}

static void mismatches_are_named(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .generation = 1, .step = 10, .loss = NAN};
    save(&j, 1, 1);
    ranks_run(1, 1, mismatch_body, &j);
    remove_scratch(folder);
}

/* ---- Retention, replacement, attempts */

static bool is_kept(const char *folder, int64_t step) {
    espl_committed *list;
    size_t n;
    bool found = false;
    assert_int_equal(espl_checkpoint_list(folder, &list, &n), ESPL_OK);
    for (size_t i = 0; i < n; i++)
        found |= list[i].step == step;
    espl_checkpoint_list_free(list, n);
    return found;
}

static void retention_body(espl_comm *comm, void *context) {
    const job *j = context;
    static const double losses[] = {3, 1, 2, NAN, 2, 2, 4};
    espl_checkpoint_options options = options_of(j);
    espl_checkpoints *saver;
    state s;
    state_make(&s, espl_comm_ranks(comm)->rank, espl_comm_ranks(comm)->size);
    MUST(espl_checkpoints_open(comm, &options, s.tensors, STATE_TENSORS, &saver));
    for (int i = 0; i < 7; i++)
        MUST(espl_checkpoints_save(saver, (i + 1) * 10, NULL, losses[i]));
    espl_checkpoints_close(&saver);
    state_free(&s);
}

static void retention_keeps_last_every_and_best(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .background = true, .keep_last = 2, .keep_every = 40, .keep_best = true};
    ranks_run(2, 2, retention_body, &j);
    static const int64_t kept[] = {20, 40, 60, 70}, gone[] = {10, 30, 50};
    for (int i = 0; i < 4; i++)
        assert_true(is_kept(folder, kept[i]));
    for (int i = 0; i < 3; i++)
        assert_false(is_kept(folder, gone[i]));
    job later = {.folder = folder, .step = 80, .loss = 0.5, .keep_last = 1, .keep_best = true};
    save(&later, 1, 1); /* a new attempt knows what the last one left */
    assert_true(is_kept(folder, 80));
    assert_false(is_kept(folder, 20) || is_kept(folder, 40) || is_kept(folder, 60) || is_kept(folder, 70));
    remove_scratch(folder);
}

/* A run that goes back twice to the same step, within one attempt, as after two spikes. */
static void go_back_body(espl_comm *comm, void *context) {
    const job *j = context;
    espl_checkpoints *saver;
    state s;
    open_state(comm, j, &s, &saver);
    for (int64_t course = 0; course < 3; course++)
        for (int64_t step = course == 0 ? 4 : 8; step <= 13; step += step >= 12 ? 1 : 4) {
            MUST(espl_checkpoints_save(saver, step, NULL, NAN));
            ESPL_ASSERT(espl_checkpoints_under_way(saver) == -1, "a save in the foreground is under way");
            if (step < 13)
                continue;
            ESPL_ASSERT(espl_comm_ranks(comm)->rank > 0 || espl_checkpoints_newest(saver, INT64_MAX, 1) == 13,
                        "the newest is not of step 13");
            ESPL_ASSERT(espl_comm_ranks(comm)->rank > 0 || espl_checkpoints_newest(saver, INT64_MAX, 4) == 12,
                        "the newest multiple of 4 is not 12");
            ESPL_ASSERT(espl_comm_ranks(comm)->rank > 0 || espl_checkpoints_newest(saver, 11, 4) == 8,
                        "the newest multiple of 4 before that is not 8");
            MUST(espl_checkpoints_begin(saver, 4));
            ESPL_ASSERT(espl_comm_ranks(comm)->rank > 0 || espl_checkpoints_newest(saver, INT64_MAX, 1) == 4,
                        "the later ones are still counted");
        }
    ESPL_ASSERT(espl_comm_ranks(comm)->rank > 0 || espl_checkpoints_newest(saver, 3, 1) == -1, "there is one from before the first");
    espl_checkpoints_close(&saver);
    state_free(&s);
}

static void a_run_goes_back_again(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    const job j = {.folder = folder, .writers = 1, .generation = 3, .step = 4};
    ranks_run(2, 2, go_back_body, (void *)&j);
    int found = 0;
    for (int64_t step = 4; step <= 13; step++) {
        char *path = espl__step_path(j.folder, step), *left = espl_format("%s.attempt-1.left", path);
        assert_int_equal(espl_fs_is_folder(path), step == 4);
        assert_int_equal(espl_fs_is_folder(left), step == 8 || step == 12 || step == 13);
        found += espl_fs_is_folder(left);
        free(path);
        free(left);
    }
    assert_int_equal(found, 3);
    remove_scratch(folder);
}

static void same_step_is_replaced(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .generation = 1, .step = 10, .loss = NAN, .writers = 3};
    save(&j, 3, 3);
    j.generation = 2;
    save(&j, 2, 2);
    load(&j, 3);
    espl_committed *list;
    size_t n;
    assert_int_equal(espl_checkpoint_list(folder, &list, &n), ESPL_OK);
    assert_int_equal(n, 1);
    espl_checkpoint_list_free(list, n);
    remove_scratch(folder);
}

/* An attempt whose folder another took over can neither publish nor delete. */
static void fenced_body(espl_comm *comm, void *context) {
    const job *j = context;
    espl_checkpoint_options options = options_of(j);
    espl_checkpoints *older, *newer;
    state s;
    state_make(&s, 0, 1);
    state_fill(&s, 1);
    MUST(espl_checkpoints_open(comm, &options, s.tensors, STATE_TENSORS, &older));
    MUST(espl_checkpoints_save(older, 10, NULL, NAN));
    MUST(espl_checkpoints_wait(older));
    MUST(espl_checkpoints_save(older, 20, NULL, NAN));
    MUST(espl_checkpoints_open(comm, &options, s.tensors, STATE_TENSORS, &newer));
    ESPL_ASSERT(espl_checkpoints_wait(older) == ESPL_ERR_IO, "an attempt that lost its folder published");
    ESPL_ASSERT(espl_checkpoints_save(older, 30, NULL, NAN) == ESPL_ERR_USAGE, "an attempt that lost its folder began a save");
    ESPL_ASSERT(strstr(espl_status_message(), "attempt 2 has taken this folder over") != NULL, "%s", espl_status_message());
    ESPL_ASSERT(espl_checkpoints_failures(older) == 2, "failures are not counted");
    state_fill(&s, 2);
    MUST(espl_checkpoints_save(newer, 15, NULL, NAN));
    MUST(espl_checkpoints_wait(newer));
    espl_checkpoints_close(&older);
    espl_checkpoints_close(&newer);
    state_free(&s);
}

static void older_attempts_are_fenced_out(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .background = true};
    ranks_run(1, 1, fenced_body, &j);
    assert_true(is_kept(folder, 10) && is_kept(folder, 15));
    assert_false(is_kept(folder, 20) || is_kept(folder, 30));
    remove_scratch(folder);
}

/* What a crash between two renames leaves: the earlier save under .old, or both. */
static void an_old_save_comes_back(void **unused) {
    (void)unused;
    char *folder = make_scratch();
    job j = {.folder = folder, .generation = 1, .step = 10, .loss = NAN};
    save(&j, 1, 1);
    char *final = espl__step_path(folder, 10), *old = espl_format("%s.old", final);
    assert_int_equal(rename(final, old), 0);
    load(&j, 2);
    job next = {.folder = folder, .generation = 2, .step = 20, .loss = NAN};
    save(&next, 1, 1);
    assert_true(espl_fs_is_folder(final));
    assert_false(espl_fs_is_folder(old));
    assert_int_equal(espl_checkpoint_verify(final), ESPL_OK);
    free(final);
    free(old);
    remove_scratch(folder);
}

/* ---- The plan */

static void snapshot_is_what_the_plan_says(void **unused) {
    (void)unused;
    state s;
    state_make(&s, 0, 1);
    espl_ranks alone = {.rank = 0, .size = 1, .n_nodes = 1}, second = {.rank = 1, .size = 4, .n_nodes = 2},
               third = {.rank = 2, .size = 4, .n_nodes = 2};
    espl_checkpoint_options background = {.background = true}, foreground = {.background = false};
    size_t bytes = 0;
    for (int i = 0; i < STATE_TENSORS; i++)
        bytes += (size_t)(s.tensors[i].end - s.tensors[i].begin) * espl_dtype_size(s.tensors[i].dtype);
    size_t planned = espl_checkpoint_snapshot_bytes(&alone, &background, s.tensors, STATE_TENSORS);
    assert_true(planned >= bytes && planned < bytes + STATE_TENSORS * 512 + ESPL_FS_BLOCK); /* the one long tensor begins at a block */
    size_t stage = espl_checkpoint_snapshot_bytes(&alone, &foreground, s.tensors, STATE_TENSORS);
    assert_true(stage >= ESPL_SHARD_WRITE && stage <= (size_t)ESPL_MAX_LANES * ESPL_SHARD_WRITE + 512);
    assert_int_equal(espl_checkpoint_snapshot_bytes(&alone, &foreground, s.tensors, 1), 0); /* nothing long enough */
    assert_int_equal(espl_checkpoint_snapshot_bytes(&second, &background, s.tensors, STATE_TENSORS), 0);
    assert_true(espl_checkpoint_snapshot_bytes(&third, &foreground, s.tensors, STATE_TENSORS) >= 2 * bytes);
    state_free(&s);
}

/* test_checkpoint --write FOLDER RANKS: leaves step 7 of generation 3 in FOLDER, for readers in other languages. */
int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--write") == 0) {
        int ranks = atoi(argv[3]);
        job j = {.folder = argv[2], .writers = ranks, .generation = 3, .background = true, .step = 7, .loss = 1.5};
        save(&j, ranks, ranks);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_ranks_to_any_ranks),
        cmocka_unit_test(digest_sees_a_change),
        cmocka_unit_test(long_tensors_go_past_the_page_cache),
        cmocka_unit_test(index_shows_whole_tensors),
        cmocka_unit_test(every_flipped_byte_is_found),
        cmocka_unit_test(harmed_checkpoints_are_skipped),
        cmocka_unit_test(no_checkpoint_and_none_that_verifies),
        cmocka_unit_test(mismatches_are_named),
        cmocka_unit_test(retention_keeps_last_every_and_best),
        cmocka_unit_test(same_step_is_replaced),
        cmocka_unit_test(a_run_goes_back_again),
        cmocka_unit_test(older_attempts_are_fenced_out),
        cmocka_unit_test(an_old_save_comes_back),
        cmocka_unit_test(snapshot_is_what_the_plan_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
