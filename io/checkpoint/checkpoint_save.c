#include "io/checkpoint/checkpoint_saver.h"

#include "io/checkpoint/checkpoint_copies.h"
#include "io/checkpoint/checkpoint_folder.h"
#include "io/fsio.h"
#include "src/core/clock.h"
#include "src/core/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Opening and closing */

static espl_status open_folder(espl_checkpoints *s) {
    ESPL_TRY(espl_fs_make_folders(s->options.folder));
    ESPL_TRY(espl__attempt_take(s->options.folder, &s->attempt));
    ESPL_TRY(espl__folder_clean(s->options.folder, s->attempt));
    ESPL_TRY(espl__retention_open(s));
    return ESPL_OK;
}

static void free_saver(espl_checkpoints *s) {
    espl_background_join(&s->populate);
    espl__copies_close(s);
    if (s->pinned)
        s->options.memory->unpin(s->options.memory->context, s->snapshot.base);
    espl_arena_free(&s->snapshot);
    espl_manifest_free(&s->manifest);
    json_decref(s->record);
    free(s->ranges);
    free(s->bounds);
    free(s->tensors);
    free(s->kept);
    free((char *)s->options.folder);
    free(s);
}

espl_status espl_checkpoints_open(espl_comm *comm, const espl_checkpoint_options *options, const espl_state_tensor *tensors, int64_t n,
                                  espl_checkpoints **saver) {
    espl_status status = ESPL_OK;
    espl_checkpoints *s = espl_calloc(1, sizeof *s);
    s->comm = comm;
    s->ranks = *espl_comm_ranks(comm);
    s->options = *options;
    s->options.folder = espl_strdup(options->folder);
    s->n_tensors = n;
    s->tensors = espl_calloc((size_t)n, sizeof *tensors);
    memcpy(s->tensors, tensors, (size_t)n * sizeof *tensors);
    if (s->ranks.rank == 0)
        status = open_folder(s);
    ESPL_TRY_DONE(espl_comm_agree(comm, status, "opening the checkpoint folder"));
    ESPL_TRY_DONE(espl_comm_bcast(comm, &s->attempt, sizeof s->attempt, 0));
    status = espl__plan_make(s);
    ESPL_TRY_DONE(espl_comm_agree(comm, status, "planning checkpoints"));
    ESPL_TRY_DONE(espl__copies_open(s));
done:
    if (status != ESPL_OK) {
        free_saver(s);
        s = NULL;
    }
    *saver = s;
    return status;
}

void espl_checkpoints_close(espl_checkpoints **saver) {
    espl_checkpoints *s = *saver;
    *saver = NULL;
    if (s == NULL)
        return;
    espl_checkpoints_wait(s); /* a failure has been logged */
    espl_background_join(&s->background);
    free_saver(s);
}

double espl_checkpoints_save_seconds(const espl_checkpoints *s) { return s->save_seconds; }
double espl_checkpoints_stall_seconds(const espl_checkpoints *s) { return s->stall_seconds; }
int64_t espl_checkpoints_under_way(const espl_checkpoints *s) { return s->phase == ESPL__IDLE || s->copying ? -1 : s->step; }
int64_t espl_checkpoints_bytes_written(const espl_checkpoints *s) { return s->bytes_written; }
int64_t espl_checkpoints_failures(const espl_checkpoints *s) { return s->failures; }

/* ---- The phases */

static void end_save(espl_checkpoints *s) {
    s->phase = ESPL__IDLE;
    s->copying = false;
    json_decref(s->record);
    s->record = NULL;
    espl_manifest_free(&s->manifest);
}

/* All ranks come here with the same failure. The checkpoints that exist are untouched. */
static espl_status abandon(espl_checkpoints *s, espl_status why) {
    char *reason = espl_strdup(espl_status_message());
    s->failures++;
    if (s->ranks.rank == 0) {
        char *temporary = espl__step_temporary(s->options.folder, s->step, s->attempt);
        ESPL_WARN("checkpoint of step %lld is not saved: %s; older checkpoints are kept", (long long)s->step, reason);
        if (espl_fs_remove_folder(temporary, ESPL_MANIFEST_NAME) != ESPL_OK)
            ESPL_WARN("%s (to be removed at the next start)", espl_status_message());
        free(temporary);
    }
    end_save(s);
    espl_status_fail(why, __FILE__, __LINE__, "checkpoint of step %lld is not saved: %s", (long long)s->step, reason);
    free(reason);
    return why;
}

char *espl__shard_path(const char *folder, int group) { return espl_format("%s/shard-%05d.h5", folder, group); }

static espl_status write_shard(void *saver) {
    espl_checkpoints *s = saver;
    const espl_state_memory *memory = s->options.memory;
    if (memory != NULL)
        ESPL_TRY(memory->fetched(memory->context));
    char *folder = espl__step_temporary(s->copying ? s->copies->folder : s->options.folder, s->step, s->attempt),
         *path = espl__shard_path(folder, s->group);
    espl_status status = espl_shard_write(path, s->step, s->attempt, s->ranges, s->n_ranges, &s->means, &s->shard);
    if (status == ESPL_OK)
        status = espl_fs_sync_folder(folder);
    free(path);
    free(folder);
    return status;
}

static espl_status begin_publishing(espl_checkpoints *s) {
    if (espl__is_writer(s))
        s->bytes_written += s->shard.bytes;
    s->phase = ESPL__PUBLISHING;
    ESPL_TRY(espl__commit_gather(s));
    if (s->ranks.rank == 0)
        espl_background_start(&s->background, s->options.background, espl__commit_run, s);
    return ESPL_OK;
}

/* All ranks come here with the same failure. What kept one copy from being made is hardly gone at the next: there is one warning, and no
 * failure of the run's. An older copy is untouched. */
static espl_status end_copies(espl_checkpoints *s, espl_status why) {
    bool of_files = why == ESPL_ERR_IO || why == ESPL_ERR_DATA;
    if (of_files && s->ranks.rank == 0)
        ESPL_WARN("in-memory copies are given up until the next start: %s; checkpoints are made as before", espl_status_message());
    s->copies->ended = true;
    espl__copies_abandon(s);
    end_save(s);
    if (!of_files)
        return why;
    espl_status_clear();
    return ESPL_OK;
}

static espl_status begin_spreading(espl_checkpoints *s) {
    espl_status status = espl_background_join(&s->background);
    ESPL_TRY(espl_comm_agree(s->comm, status, "writing an in-memory copy"));
    s->phase = ESPL__SPREADING;
    ESPL_TRY(espl__commit_gather(s));
    return espl__copies_announce(s);
}

/* Moves an in-memory copy on, to its end or by what is due at a step. */
static espl_status next_of_copy(espl_checkpoints *s, bool all) {
    bool arrived = false;
    espl_status status = s->phase == ESPL__WRITING ? begin_spreading(s) : ESPL_OK;
    if (status == ESPL_OK)
        status = espl__copies_spread(s, all, &arrived);
    if (status == ESPL_OK && arrived)
        status = espl__copies_publish(s);
    if (status != ESPL_OK)
        return end_copies(s, status);
    if (arrived)
        end_save(s);
    return ESPL_OK;
}

/* Ends the phase at hand, for which all ranks' threads must have ended or are waited for. */
static espl_status next_phase(espl_checkpoints *s) {
    if (s->copying)
        return next_of_copy(s, true);
    bool writing = s->phase == ESPL__WRITING;
    espl_status status = espl_background_join(&s->background);
    status = espl_comm_agree(s->comm, status, writing ? "writing a checkpoint" : "publishing a checkpoint");
    if (status != ESPL_OK)
        return abandon(s, status);
    if (writing)
        return begin_publishing(s);
    double seconds = espl_now() - s->begun;
    s->save_seconds = seconds > s->save_seconds ? seconds : s->save_seconds;
    if (s->ranks.rank == 0)
        ESPL_INFO("checkpoint of step %lld saved", (long long)s->step);
    end_save(s);
    return ESPL_OK;
}

static espl_status poll_phase(espl_checkpoints *s) {
    int64_t done = espl_background_done(&s->background);
    if (s->phase != ESPL__SPREADING)
        ESPL_TRY(espl_comm_allreduce_i64(s->comm, &done, 1, ESPL_MIN));
    if (!done)
        return ESPL_OK;
    return s->copying ? next_of_copy(s, false) : next_phase(s);
}

espl_status espl_checkpoints_poll(espl_checkpoints *s) {
    if (s->phase == ESPL__IDLE)
        return ESPL_OK;
    double start = espl_now();
    espl_status status = poll_phase(s);
    s->stall_seconds += espl_now() - start;
    return status;
}

espl_status espl_checkpoints_wait(espl_checkpoints *s) {
    double start = espl_now();
    espl_status status = ESPL_OK;
    while (s->phase != ESPL__IDLE && status == ESPL_OK)
        status = next_phase(s);
    s->stall_seconds += espl_now() - start;
    return status;
}

/* ---- Saving */

static espl_status make_temporary(espl_checkpoints *s) {
    ESPL_TRY(espl__attempt_check(s->options.folder, s->attempt));
    return espl__step_temporary_make(s->options.folder, s->step, s->attempt);
}

static espl_status begin_writing(espl_checkpoints *s) {
    ESPL_TRY(espl__snapshot_take(s));
    s->phase = ESPL__WRITING;
    if (espl__is_writer(s))
        espl_background_start(&s->background, s->options.background, write_shard, s);
    return ESPL_OK;
}

static espl_status begin_checkpoint(espl_checkpoints *s) {
    espl_status status = s->ranks.rank == 0 ? make_temporary(s) : ESPL_OK;
    status = espl_comm_agree(s->comm, status, "beginning a checkpoint");
    return status != ESPL_OK ? abandon(s, status) : begin_writing(s);
}

static espl_status begin_copy(espl_checkpoints *s) {
    s->copying = true;
    espl_status status = espl__copies_begin(s);
    return status != ESPL_OK ? end_copies(s, status) : begin_writing(s);
}

static espl_status begin(espl_checkpoints *s, int64_t step, const json_t *record, double rating, espl_status (*how)(espl_checkpoints *)) {
    double start = s->begun = espl_now();
    s->step = step;
    s->rating = rating;
    s->record = record != NULL ? json_deep_copy(record) : json_object();
    espl_status status = how(s);
    s->stall_seconds += espl_now() - start;
    return status != ESPL_OK || s->options.background ? status : espl_checkpoints_wait(s);
}

espl_status espl_checkpoints_save(espl_checkpoints *s, int64_t step, const json_t *record, double rating) {
    if (espl_checkpoints_wait(s) != ESPL_OK)
        espl_status_clear(); /* logged and counted; this save is the remedy */
    return begin(s, step, record, rating, begin_checkpoint);
}

bool espl_checkpoints_copies(const espl_checkpoints *s) {
    return s->copies != NULL && s->copies->every > 0 && !s->copies->ended && s->phase == ESPL__IDLE;
}

espl_status espl_checkpoints_copy(espl_checkpoints *s, int64_t step, const json_t *record) {
    ESPL_ASSERT(espl_checkpoints_copies(s), "an in-memory copy of step %lld while none can be made", (long long)step);
    return begin(s, step, record, (double)NAN, begin_copy);
}
