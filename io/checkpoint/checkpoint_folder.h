/* The folder of a run's checkpoints: names, the attempt counter, publishing, leftovers, deleting. Internal to io, but for the list.
 *
 *   attempt                      the newest attempt's number
 *   step-00001000                committed: its presence, with a manifest, is the commit
 *   step-00001000.attempt-3.tmp  being written by attempt 3
 *   step-00001000.old            an earlier save of the same step, while the newer takes its place
 *   step-00001000.attempt-3.left of a course that attempt 3 left by starting from an earlier step; not looked at again
 *
 * One attempt owns the folder: it took the highest number. An older one, whose ranks may still be alive behind a broken
 * network, finds a number that is not its own, or its temporary folder gone, and cannot publish. */
#ifndef ESPL_IO_CHECKPOINT_FOLDER_H
#define ESPL_IO_CHECKPOINT_FOLDER_H

#include "src/core/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct espl_committed {
    int64_t step;
    char *path;
} espl_committed;

/* Local. Committed checkpoints of a folder, newest first; none when the folder is absent. Looks at names and at the presence of
 * manifests only. Errors: io. */
espl_status espl_checkpoint_list(const char *folder, espl_committed **list, size_t *n);

/* Local. Frees a list. */
void espl_checkpoint_list_free(espl_committed *list, size_t n);

/* Local. Paths; the caller frees. */
char *espl__step_path(const char *folder, int64_t step);
char *espl__step_temporary(const char *folder, int64_t step, int64_t attempt);

/* Local. Makes the attempt's temporary folder of a step, empty. Errors: io. */
espl_status espl__step_temporary_make(const char *folder, int64_t step, int64_t attempt);

/* Local. Takes the next attempt's number, for good once it returns. Errors: io. */
espl_status espl__attempt_take(const char *folder, int64_t *attempt);

/* Local. Fails when another attempt took the folder over. Errors: io. */
espl_status espl__attempt_check(const char *folder, int64_t attempt);

/* Local. Removes what unfinished saves and deletions left before `attempt`, and puts back an .old whose successor never came. Errors: io.
 */
espl_status espl__folder_clean(const char *folder, int64_t attempt);

/* Local. Gives the attempt's temporary folder of a step its final name, in the place of an earlier save of that step. Errors: io. */
espl_status espl__step_publish(const char *folder, int64_t step, int64_t attempt);

/* Local. Renames a committed checkpoint to .left. Errors: io. */
espl_status espl__step_leave(const char *folder, int64_t step, int64_t attempt);

/* Local. Deletes a committed checkpoint, its manifest first. Errors: io. */
espl_status espl__step_delete(const char *folder, int64_t step);

#endif
