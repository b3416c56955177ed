/* In-memory copies: the state in files of the hosts' memory, which outlive the ranks. Internal to io.
 *
 *   FOLDER/run-<identity>/attempt-00000003/step-00000012   on every host: the shards that its ranks wrote, those that the ranks of the host
 *                                                          before it wrote (its partner's, n_nodes > 1), and the manifest
 *
 * The identity is a random number, which the checkpoint folder's file "memory" holds, and that folder's path: what another run left, or
 * this one before it left its course, is never found. Of several copies the one of the newest attempt counts, and of that the newest step;
 * a committed checkpoint counts by the same order. */
#ifndef ESPL_IO_CHECKPOINT_COPIES_H
#define ESPL_IO_CHECKPOINT_COPIES_H

#include "io/checkpoint/carry_file.h"
#include "io/checkpoint/checkpoint_saver.h"

struct espl__copies {
    int64_t every;      /* steps between copies, which paces what travels; 0: none are made, older ones are looked for */
    char *place;        /* the folder of all runs on a host */
    char *root;         /* the run's in it; NULL: there is none yet */
    char *folder;       /* this attempt's in that; NULL as well */
    bool ended;         /* none are made any more */
    int *members;       /* [size] ranks by node and rank in the node */
    int *starts;        /* [n_nodes + 1] of each node in them */
    int *partners;      /* [n_writers] the rank that keeps the second copy of a file; -1: none */
    int *order;         /* [n_writers] files in the order in which they travel */
    int64_t *sizes;     /* [n_writers] bytes of the files at hand */
    int64_t sent;       /* bytes of each that have travelled */
    espl_buffer text;   /* the manifest at hand */
    espl_carrier carry; /* with its piece */
    int64_t step;       /* of the newest copy that is whole; -1: none by this process */
};

/* Collective. Opens what the options and earlier attempts ask for; leaves saver->copies NULL where that is nothing. Errors: io. */
espl_status espl__copies_open(espl_checkpoints *saver);

/* Local. Frees; accepts that there are none. */
void espl__copies_close(espl_checkpoints *saver);

/* Local. Whether this rank works on its host's folder for all ranks there. */
bool espl__copies_leader(const espl_checkpoints *saver);

/* Local. Makes the folder of all runs on this host, and closes it to others: what they had put there would be taken for a copy. Errors: io,
 * when it is not the user's. */
espl_status espl__copies_place_open(const char *place);

/* Local. Whether that folder is there and the user's. */
bool espl__copies_place_is_own(const char *place);

/* Local. The folder of an attempt, and those attempts' numbers that this host has folders of; the caller frees. Errors: io. */
char *espl__copies_attempt(const char *root, int64_t attempt);
espl_status espl__copies_attempts(const char *root, int64_t **attempts, size_t *n);

/* Local. Removes attempts up to `last`, or in them what is of steps after `step`, or all (-1). Errors: io. */
espl_status espl__copies_remove(const char *root, int64_t last, int64_t step);

/* ---- A copy at hand. Failures are all ranks' alike. */

/* Collective. Makes the folder that gets it. Errors: io. */
espl_status espl__copies_begin(espl_checkpoints *saver);

/* Collective. All ranks hear manifest and sizes, from rank 0's saver->manifest. */
espl_status espl__copies_announce(espl_checkpoints *saver);

/* Collective. Files travel to partners, all that is left or what is due at a step; *done when all have arrived. Errors: io, at the end. */
espl_status espl__copies_spread(espl_checkpoints *saver, bool all, bool *done);

/* Collective. Commits the copy on all hosts and removes what is older. Errors: io. */
espl_status espl__copies_publish(espl_checkpoints *saver);

/* Local. Removes what was made of it. */
void espl__copies_abandon(espl_checkpoints *saver);

/* Local. The run begins at `step`: removes copies of later ones that this host has. Errors: io. */
espl_status espl__copies_leave(espl_checkpoints *saver, int64_t step);

#endif
