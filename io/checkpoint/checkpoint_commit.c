#include "io/checkpoint/checkpoint_saver.h"

#include "io/checkpoint/checkpoint_copies.h"
#include "io/checkpoint/checkpoint_folder.h"
#include "src/core/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { REPORT_TAG = 701, FILE_WORDS = 5, RANGE_WORDS = 2 };

#define INDEX_NAME "index.h5"

/* ---- What the writers tell rank 0: int64 words, the file's first, then offset and piece of each range */

static int64_t count_group_ranges(const espl_checkpoints *s, int group) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        int64_t begin, end;
        espl__group_range(s, i, group, &begin, &end);
        n += begin < end;
    }
    return n;
}

static size_t report_words(int64_t n_ranges) { return FILE_WORDS + (size_t)n_ranges * RANGE_WORDS; }

static void make_report(const espl_checkpoints *s, int64_t *words) {
    const espl_manifest_file *f = &s->shard;
    const int64_t file[FILE_WORDS] = {f->bytes, (int64_t)f->xxh3, f->sums_offset, f->n_sums, (int64_t)f->sums_xxh3};
    memcpy(words, file, sizeof file);
    for (int64_t k = 0; k < s->n_ranges; k++) {
        words[FILE_WORDS + k * RANGE_WORDS] = s->ranges[k].offset;
        words[FILE_WORDS + k * RANGE_WORDS + 1] = s->ranges[k].piece;
    }
}

static void take_report(const espl_checkpoints *s, int group, const int64_t *words, espl_manifest *m) {
    char *path = espl__shard_path("", group);
    m->files[group] = (espl_manifest_file){.name = espl_strdup(strrchr(path, '/') + 1),
                                           .bytes = words[0],
                                           .xxh3 = (uint64_t)words[1],
                                           .sums_offset = words[2],
                                           .n_sums = words[3],
                                           .sums_xxh3 = (uint64_t)words[4]};
    free(path);
    const int64_t *word = words + FILE_WORDS;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        int64_t begin, end;
        espl__group_range(s, i, group, &begin, &end);
        if (begin == end)
            continue;
        espl_manifest_tensor *t = &m->tensors[i];
        t->ranges[t->n_ranges++] = (espl_manifest_range){.file = group, .begin = begin, .end = end, .offset = word[0], .piece = word[1]};
        word += RANGE_WORDS;
    }
}

static espl_manifest *make_manifest(const espl_checkpoints *s) {
    espl_manifest *m = espl_calloc(1, sizeof *m);
    m->step = s->step;
    m->attempt = s->attempt;
    m->rating = s->rating;
    m->record = json_incref(s->record);
    m->n_files = s->n_writers;
    m->files = espl_calloc((size_t)s->n_writers + 1, sizeof *m->files); /* and the index */
    m->n_tensors = s->n_tensors;
    m->tensors = espl_calloc((size_t)s->n_tensors, sizeof *m->tensors);
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const espl_state_tensor *from = &s->tensors[i];
        espl_manifest_tensor *t = &m->tensors[i];
        t->group = espl_strdup(from->group);
        t->name = espl_strdup(from->name);
        t->dtype = from->dtype;
        t->n_dims = from->n_dims;
        memcpy(t->shape, from->shape, sizeof t->shape);
        t->count = espl_manifest_count(t->n_dims, t->shape);
        t->ranges = espl_calloc((size_t)s->n_writers, sizeof *t->ranges);
    }
    return m;
}

static espl_status receive_reports(espl_checkpoints *s, espl_manifest *m) {
    int64_t *words = espl_malloc(report_words(s->n_tensors) * sizeof *words);
    espl_status status = ESPL_OK;
    make_report(s, words);
    take_report(s, 0, words, m);
    for (int group = 1; group < s->n_writers; group++) {
        size_t bytes = report_words(count_group_ranges(s, group)) * sizeof *words;
        ESPL_TRY_DONE(espl_comm_recv(s->comm, words, bytes, espl__group_first(group, s->n_writers, s->ranks.size), REPORT_TAG));
        take_report(s, group, words, m);
    }
done:
    free(words);
    return status;
}

espl_status espl__commit_gather(espl_checkpoints *s) {
    if (s->ranks.rank == 0) {
        s->manifest = make_manifest(s);
        return receive_reports(s, s->manifest);
    }
    if (!espl__is_writer(s))
        return ESPL_OK;
    size_t bytes = report_words(s->n_ranges) * sizeof(int64_t);
    int64_t *words = espl_malloc(bytes);
    make_report(s, words);
    espl_status status = espl_comm_send(s->comm, words, bytes, 0, REPORT_TAG);
    free(words);
    return status;
}

/* ---- Retention */

static void add_kept(espl_checkpoints *s, int64_t step, double rating) {
    size_t at = 0;
    while (at < s->n_kept && s->kept[at].step != step)
        at++;
    if (at == s->n_kept)
        s->kept = espl_realloc(s->kept, ++s->n_kept * sizeof *s->kept);
    s->kept[at] = (espl__kept){step, rating};
}

espl_status espl__retention_open(espl_checkpoints *s) {
    espl_committed *list = NULL;
    size_t n = 0;
    ESPL_TRY(espl_checkpoint_list(s->options.folder, &list, &n));
    for (size_t i = 0; i < n; i++) {
        espl_manifest *m = NULL;
        if (espl_manifest_read(list[i].path, &m) == ESPL_OK)
            add_kept(s, list[i].step, m->rating);
        else
            ESPL_WARN("%s; it is left alone and not counted among those to keep", espl_status_message());
        espl_manifest_free(&m);
    }
    espl_status_clear();
    espl_checkpoint_list_free(list, n);
    return ESPL_OK;
}

static void forget_kept(espl_checkpoints *s, int64_t step) {
    size_t left = 0;
    for (size_t i = 0; i < s->n_kept; i++)
        if (s->kept[i].step != step)
            s->kept[left++] = s->kept[i];
    s->n_kept = left;
}

static espl_status leave_later(espl_checkpoints *s, int64_t step) {
    espl_committed *list = NULL;
    size_t n = 0;
    espl_status status = ESPL_OK;
    ESPL_TRY(espl_checkpoint_list(s->options.folder, &list, &n));
    for (size_t i = 0; i < n; i++) {
        if (list[i].step <= step)
            continue;
        ESPL_TRY_DONE(espl__step_leave(s->options.folder, list[i].step, s->attempt));
        forget_kept(s, list[i].step);
        ESPL_WARN("%s: the run begins at step %lld and leaves this checkpoint; it is kept as %s.attempt-%lld.left, delete it when it is "
                  "not needed",
                  list[i].path, (long long)step, list[i].path, (long long)s->attempt);
    }
done:
    espl_checkpoint_list_free(list, n);
    return status;
}

espl_status espl_checkpoints_begin(espl_checkpoints *s, int64_t step) {
    espl_status status = s->ranks.rank == 0 ? leave_later(s, step) : ESPL_OK;
    if (status == ESPL_OK)
        status = espl__copies_leave(s, step);
    return espl_comm_agree(s->comm, status, "leaving later checkpoints");
}

/* Of equal ones the later. */
int64_t espl_checkpoints_best(const espl_checkpoints *s) {
    int64_t best = -1;
    double lowest = INFINITY;
    for (size_t i = 0; i < s->n_kept; i++)
        if (s->kept[i].rating < lowest || (s->kept[i].rating == lowest && s->kept[i].step > best)) {
            lowest = s->kept[i].rating;
            best = s->kept[i].step;
        }
    return best;
}

int64_t espl_checkpoints_newest(const espl_checkpoints *s, int64_t most, int64_t every) {
    int64_t newest = -1;
    for (size_t i = 0; i < s->n_kept; i++)
        if (s->kept[i].step <= most && s->kept[i].step > newest && s->kept[i].step % every == 0)
            newest = s->kept[i].step;
    return newest;
}

static bool must_stay(const espl_checkpoints *s, int64_t step) {
    int newer = 0;
    for (size_t i = 0; i < s->n_kept; i++)
        newer += s->kept[i].step > step;
    return step == s->step || newer < s->options.keep_last || (s->options.keep_every > 0 && step % s->options.keep_every == 0) ||
           (s->options.keep_best && step == espl_checkpoints_best(s));
}

static void delete_spare(espl_checkpoints *s) {
    size_t left = 0, n = s->n_kept;
    bool *stays = espl_calloc(n, sizeof *stays);
    for (size_t i = 0; i < n; i++)
        stays[i] = must_stay(s, s->kept[i].step);
    for (size_t i = 0; i < n; i++) {
        if (!stays[i] && espl__step_delete(s->options.folder, s->kept[i].step) != ESPL_OK)
            ESPL_WARN("old checkpoint of step %lld not deleted: %s", (long long)s->kept[i].step, espl_status_message());
        if (stays[i])
            s->kept[left++] = s->kept[i];
    }
    s->n_kept = left;
    free(stays);
}

/* A checkpoint that cannot be deleted is no reason to lose the one just saved. What another attempt took over is for it to delete. */
static void retain(espl_checkpoints *s) {
    if (espl__attempt_check(s->options.folder, s->attempt) == ESPL_OK)
        delete_spare(s);
    espl_status_clear();
}

/* ---- The commit itself */

static espl_status write_index(const char *temporary, espl_manifest *m) {
    espl_manifest_file *index = &m->files[m->n_files];
    *index = (espl_manifest_file){.name = espl_strdup(INDEX_NAME)};
    espl_status status = espl_shard_write_index(temporary, m, index);
    m->n_files++;
    return status;
}

espl_status espl__commit_run(void *saver) {
    espl_checkpoints *s = saver;
    espl_status status = ESPL_OK;
    char *temporary = espl__step_temporary(s->options.folder, s->step, s->attempt);
    espl_manifest_sort(s->manifest);
    ESPL_TRY_DONE(write_index(temporary, s->manifest));
    ESPL_TRY_DONE(espl_manifest_write(temporary, s->manifest));
    ESPL_TRY_DONE(espl__step_publish(s->options.folder, s->step, s->attempt));
    add_kept(s, s->step, s->rating);
    retain(s);
done:
    free(temporary);
    return status;
}
