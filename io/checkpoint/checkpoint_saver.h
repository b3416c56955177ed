/* The saver, as the files of its making see it. Internal to io.
 *
 * A save runs through phases. WRITING: each writer's thread writes its shard. Then all agree, rank 0 hears where everything lies,
 * and in PUBLISHING its thread writes index and manifest, publishes and clears old checkpoints away. Then all agree again. Threads
 * touch files only; ranks speak on the thread that owns comm. An in-memory copy is written the same way into the hosts' memory; then, in
 * SPREADING, the files go to partners, and the copy is committed there and then. */
#ifndef ESPL_IO_CHECKPOINT_SAVER_H
#define ESPL_IO_CHECKPOINT_SAVER_H

#include "io/background.h"
#include "io/checkpoint/checkpoint.h"
#include "io/checkpoint/shard.h"
#include "src/core/arena.h"

typedef enum espl__phase { ESPL__IDLE, ESPL__WRITING, ESPL__SPREADING, ESPL__PUBLISHING } espl__phase;

/* A committed checkpoint, as retention weighs it. */
typedef struct espl__kept {
    int64_t step;
    double rating;
} espl__kept;

struct espl_checkpoints {
    espl_comm *comm;
    espl_ranks ranks;
    espl_checkpoint_options options; /* folder owned */
    espl_state_tensor *tensors;      /* owned; names borrowed */
    int64_t n_tensors;
    int64_t *bounds;      /* [size][n_tensors][2]: begin, end of every rank */
    int n_writers, group; /* files of a save, and the one this rank belongs to */
    int64_t attempt;

    espl_shard_range *ranges; /* writers: the not empty ones of its group, in order of tensor */
    int64_t n_ranges;
    espl_arena snapshot;      /* writers; what the others send from */
    espl_shard_means means;   /* writers; the stage is the snapshot's */
    espl_background populate; /* of the snapshot, until the first save */
    bool pinned;              /* the snapshot, for options.memory */
    char *sent;               /* of the others: one piece */
    espl_manifest_file shard; /* writers: what was written */
    espl_background background;

    struct espl__copies *copies; /* in the hosts' memory (checkpoint_copies.h); NULL: there are none and none are made */

    espl__phase phase;
    bool copying; /* an in-memory copy is at hand, no checkpoint */
    int64_t step;
    double rating;
    json_t *record;          /* a copy */
    espl_manifest *manifest; /* rank 0, while publishing */
    espl__kept *kept;        /* rank 0 */
    size_t n_kept;

    double begun, save_seconds; /* of the save at hand; the longest that was committed */
    double stall_seconds;
    int64_t bytes_written;
    int64_t failures;
};

/* Local. The path of a group's file; the caller frees. */
char *espl__shard_path(const char *folder, int group);

/* ---- Who writes what (checkpoint_plan.c) */

/* Local. Ranks [first, last) of group g when n_writers files are written by `size` ranks; first is its writer. */
int espl__group_first(int group, int n_writers, int size);

/* Local. The part of tensor i that group g owns: *begin == *end when none. */
void espl__group_range(const espl_checkpoints *saver, int64_t i, int group, int64_t *begin, int64_t *end);

/* Local. Whether this rank writes. */
bool espl__is_writer(const espl_checkpoints *saver);

/* Collective. Learns all ranks' ranges, checks that they tile, and makes this rank's ranges and snapshot. */
espl_status espl__plan_make(espl_checkpoints *saver);

/* Collective. Brings the group's tensors into the writer's snapshot. */
espl_status espl__snapshot_take(espl_checkpoints *saver);

/* ---- The commit (checkpoint_commit.c) */

/* Collective. Rank 0 hears what each writer wrote and makes the manifest. */
espl_status espl__commit_gather(espl_checkpoints *saver);

/* Local, rank 0, in the thread: index, manifest, publishing, retention. `saver` is the context. */
espl_status espl__commit_run(void *saver);

/* Local. Reads what the folder holds already, for retention. */
espl_status espl__retention_open(espl_checkpoints *saver);

#endif
