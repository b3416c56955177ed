/* Checkpoints: sharded HDF5, committed atomically, read back on any number of ranks.
 *
 * The state of a run is a list of tensors, each cut over ranks by ranges of its elements in row-major order, and a small
 * record of JSON (counters, cursor, config, provenance). Layout, commit protocol and guarantees: src/DESIGN.md. */
#ifndef ESPL_IO_CHECKPOINT_H
#define ESPL_IO_CHECKPOINT_H

#include "comm/comm.h"
#include "io/safetensors/safetensors.h"

#include <jansson.h>
#include <stdbool.h>

/* One tensor of the state and the part of it that this rank owns. */
typedef struct espl_state_tensor {
    const char *group; /* "model", "exp_avg", "exp_avg_sq": the HDF5 group */
    const char *name;  /* Hugging Face name */
    espl_dtype dtype;
    int n_dims;
    int64_t shape[ESPL_MAX_DIMS];
    int64_t begin, end; /* this rank's elements; over the ranks in order they tile the tensor; may be empty */
    void *data;         /* end - begin elements; borrowed: read by save, written by load */
} espl_state_tensor;

/* How the data of tensors is reached where the host cannot address it. */
typedef struct espl_state_memory {
    void *context;
    /* Copies between it and host memory, done when they return. */
    espl_status (*read)(void *context, void *to, const void *data, size_t bytes);
    espl_status (*write)(void *context, void *data, const void *from, size_t bytes);
    /* A snapshot: `fetch` begins a copy of what the data is now, to memory between pin and unpin; `fetched` waits until all that were begun
     * have arrived. Any thread may call but for `fetch`. Where memory cannot be pinned (a warning tells), `fetch` takes its time. */
    espl_status (*pin)(void *context, void *memory, size_t bytes);
    void (*unpin)(void *context, void *memory);
    espl_status (*fetch)(void *context, void *to, const void *data, size_t bytes);
    espl_status (*fetched)(void *context);
} espl_state_memory;

typedef struct espl_checkpoint_options {
    const char *folder; /* run.dir/checkpoints */
    int writers;        /* 0: one a node, or, of memory that the host cannot address, every rank */
    int keep_last, keep_every;
    bool keep_best;
    bool background;                 /* write in a thread, from a snapshot */
    const espl_state_memory *memory; /* of the tensors; borrowed; NULL: plain memory. Else there is always a snapshot. */
    int64_t copy_every;              /* steps between in-memory copies, which paces what travels between hosts; 0: none are made */
    const char *copy_folder;         /* they are in its espalier-UID on every host; NULL or "": /dev/shm */
} espl_checkpoint_options;

typedef struct espl_checkpoints espl_checkpoints; /* the saver: owns snapshot memory and the writer thread */

/* Collective. Opens the folder (made if absent), takes the next attempt number (a fence against writers of an older attempt: open
 * before looking for what to resume from), removes leftovers of unfinished saves, and plans who writes what. `tensors` fixes names,
 * shapes, ranges and addresses for all saves; the names stay borrowed. Ranks form `writers` contiguous groups, the first of each writes. */
espl_status espl_checkpoints_open(espl_comm *comm, const espl_checkpoint_options *options, const espl_state_tensor *tensors, int64_t n,
                                  espl_checkpoints **saver);

/* Collective. The run begins at `step`, once it is known what it resumed from. In-memory copies go, but for the one that it resumed from.
 * Checkpoints of later steps belong to a course that it left and must not be taken for its newest: they are renamed to
 * step-N.attempt-A.left and never looked at again, with a line that says so. Errors: io. */
espl_status espl_checkpoints_begin(espl_checkpoints *saver, int64_t step);

/* Local. Bytes of snapshot memory that a saver with these tensors will hold on this rank (part of the plan): its own alone in its
 * group, exactly; else as if each rank of the group had as much, the others what they send from. In the foreground without a group, of
 * plain memory, there is no snapshot, but a stage where a tensor is long. */
size_t espl_checkpoint_snapshot_bytes(const espl_ranks *ranks, const espl_checkpoint_options *options, const espl_state_tensor *tensors,
                                      int64_t n);

/* Collective. Snapshots the tensors and starts writing step `step`; waits first for a save still under way. `record` (rank 0's) is copied.
 * `rating` decides keep_best, lower is better; NAN when there is none. A step saved before is replaced. When it returns the tensors may
 * change; those in other `memory` as soon as that may change what is being fetched. A failed write is logged as a warning, counted, and
 * returned on all ranks by the poll or wait that finds it (by save itself in the foreground): its files are removed, older checkpoints
 * kept, the run may go on. Errors: io; usage, when another attempt has taken the folder over. */
espl_status espl_checkpoints_save(espl_checkpoints *saver, int64_t step, const json_t *record, double rating);

/* Local, the same on all ranks. Whether an in-memory copy can begin now: they are wanted, none failed, and nothing is under way. */
bool espl_checkpoints_copies(const espl_checkpoints *saver);

/* Collective, when espl_checkpoints_copies says yes. Begins an in-memory copy of the state as it is now: in files of the hosts' memory, of
 * each rank's shard on its own host and, through poll and wait, on the next one, so that it outlives the ranks and any one host. A copy
 * that fails (no room) is a warning, the last one of its kind, and no error. Errors: those of communication. */
espl_status espl_checkpoints_copy(espl_checkpoints *saver, int64_t step, const json_t *record);

/* Local, the same on all ranks. The step of the newest in-memory copy that this process made whole; -1: none. */
int64_t espl_checkpoints_copied(const espl_checkpoints *saver);

/* Collective. Removes in-memory copies from all hosts that are here; none made so far, here or elsewhere, will be found again (what is
 * elsewhere is removed by the user's next start there). A save under way is waited for, and may fail. Errors: io. */
espl_status espl_checkpoints_forget(espl_checkpoints *saver);

/* Collective. What the newest state of the run is in: as espl_checkpoint_find without a path, but an in-memory copy counts where its
 * attempt is newer, or its step in the same attempt, and its files are whole on the hosts that are here. The files that hold
 * `tensors`, what this rank will load, then lie on its host, *in_memory is set, and espl_checkpoint_load reads them. What is damaged or
 * lacking is told, and the next one is taken. */
espl_status espl_checkpoints_find(espl_checkpoints *saver, const espl_state_tensor *tensors, int64_t n, char **found, bool *in_memory);

/* Local. Bytes of host memory that in-memory copies of such tensors take for this rank, its partner's included: two generations. */
size_t espl_checkpoint_copy_bytes(const espl_ranks *ranks, const espl_state_tensor *tensors, int64_t n);

/* Collective. Moves a background save on (agreement and commit happen here, on the thread that owns comm); free when there is none.
 * All ranks call it at the same points. */
espl_status espl_checkpoints_poll(espl_checkpoints *saver);

/* Local, the same on all ranks. The step of the save under way; -1: none is. */
int64_t espl_checkpoints_under_way(const espl_checkpoints *saver);

/* Collective. Waits until the save under way is committed. */
espl_status espl_checkpoints_wait(espl_checkpoints *saver);

/* Local. The best step of the checkpoints that are kept, on the rank that keeps the list (0); -1 where none has a rating. */
int64_t espl_checkpoints_best(const espl_checkpoints *saver);

/* Local. The newest step that is kept and a multiple of `every`, of `most` or before, on the rank that keeps the list (0); -1: none. */
int64_t espl_checkpoints_newest(const espl_checkpoints *saver, int64_t most, int64_t every);

/* Local. Seconds of the longest save so far, from its beginning to its commit; 0: none was committed. */
double espl_checkpoints_save_seconds(const espl_checkpoints *saver);

/* Local. So far: seconds the loop has been held up by saves, bytes this rank wrote, saves that failed. */
double espl_checkpoints_stall_seconds(const espl_checkpoints *saver);
int64_t espl_checkpoints_bytes_written(const espl_checkpoints *saver);
int64_t espl_checkpoints_failures(const espl_checkpoints *saver);

/* Collective. Waits, then frees; takes the address, nulls it, accepts NULL. Enters no collective when nothing is under way. */
void espl_checkpoints_close(espl_checkpoints **saver);

/* Collective. Finds what to resume from: `path` NULL: the newest checkpoint in `folder` whose manifest and checksums verify (says what it
 * skipped and why); else exactly `path`. *found is NULL when the folder has none. The caller frees *found.
 * Errors: data, when there are checkpoints and none verifies (to start afresh is the user's decision); io. */
espl_status espl_checkpoint_find(espl_comm *comm, const char *folder, const char *path, char **found);

/* Collective. Reads this rank's ranges of all tensors, verifying checksums of what it reads, and the record (caller: json_decref).
 * `memory`: of the tensors; NULL: plain. A tensor absent from the checkpoint, or with another shape, is an error that names it. */
espl_status espl_checkpoint_load(espl_comm *comm, const char *path, const espl_state_memory *memory, const espl_state_tensor *tensors,
                                 int64_t n, json_t **record);

/* Local. Reads whole tensors of one group in order of name and calls `visit` for each; used by export, inspect and verify. */
typedef espl_status espl_tensor_visit(const espl_tensor_out *tensor, void *context);
espl_status espl_checkpoint_visit(const char *path, const char *group, espl_tensor_visit *visit, void *context);

/* Local. Checks manifest, sizes and every checksum. Errors: data, naming file and tensor. */
espl_status espl_checkpoint_verify(const char *path);

/* Local. Digest of group "model": XXH3 over names, shapes and whole tensors' bytes; the same whatever ranks wrote it. */
espl_status espl_checkpoint_digest(const char *path, uint64_t *digest);

/* Local. The record alone (caller: json_decref). */
espl_status espl_checkpoint_record(const char *path, json_t **record);

#endif
