/* In-memory copies: the state in files of the hosts' memory, which outlive the ranks. Internal to io.
 *
 *   FOLDER/espalier-UID/run-<name>/             on every host, closed to others
 *     checkpoints                               the path of the checkpoint folder that the copies belong to
 *     attempt-00000003/step-00000012            the shards that its ranks wrote, those that the ranks of the host before it wrote (its
 *                                               partner's, n_nodes > 1), and the manifest
 *
 * The name is a hash of the run's identity, a random number in the checkpoint folder's file "memory", and of that folder's path: what
 * another run left, or this one before it left its course, is never found. Of several copies the one of the newest attempt counts, and of
 * that the newest step; a committed checkpoint counts by the same order. */
#ifndef ESPL_IO_CHECKPOINT_COPIES_H
#define ESPL_IO_CHECKPOINT_COPIES_H

#include "io/checkpoint/carry_file.h"
#include "io/checkpoint/checkpoint_saver.h"

typedef struct espl__copy {
    int64_t attempt, step;
} espl__copy;

#define ESPL__NO_COPY ((espl__copy){-1, -1})

/* A rank's place: the node, and the how manieth it is there. */
typedef struct espl__seat {
    int node, node_rank;
} espl__seat;

struct espl__copies {
    int64_t every;      /* steps between copies, which paces what travels; 0: none are made, older ones are looked for */
    char *place;        /* the user's folder of all runs on a host */
    char *origin;       /* the checkpoint folder, as rank 0 resolves it; NULL: the run has no identity yet */
    char *root;         /* the run's folder in the place; NULL as well */
    char *folder;       /* this attempt's in that; NULL as well */
    bool ended;         /* none are made any more */
    espl__seat *seats;  /* [size] of each rank */
    int *members;       /* [size] ranks by node and rank in the node */
    int *starts;        /* [n_nodes + 1] of each node in them */
    int *partners;      /* [n_writers] the rank that keeps the second copy of a file; -1: none */
    int *order;         /* [n_writers] files in the order in which they travel */
    int64_t *sizes;     /* [n_writers] bytes of the files at hand */
    int64_t sent;       /* bytes of each that have travelled */
    espl_buffer text;   /* the manifest at hand */
    espl_carrier carry; /* with its piece */
    espl__copy newest;  /* that is whole: found or made; the only one that may be needed again */
    int64_t step;       /* of the newest that this process made whole; -1: none */
};

/* ---- A saver's copies (checkpoint_copies.c) */

/* Collective. Opens what the options and earlier attempts ask for, and removes from the hosts what no run looks for; leaves saver->copies
 * NULL where nothing is to be made or found. Errors: io. */
espl_status espl__copies_open(espl_checkpoints *saver);

/* Local. Frees; accepts that there are none. */
void espl__copies_close(espl_checkpoints *saver);

/* Local. Whether this rank works on its host's folder for all ranks there. */
bool espl__copies_leader(const espl_checkpoints *saver);

/* Local. The run begins at `step`: removes all copies that this host has but the newest whole one, and that, too, if it is of a later step.
 * Errors: io. */
espl_status espl__copies_leave(espl_checkpoints *saver, int64_t step);

/* ---- Whose they are (checkpoint_copies_owner.c) */

/* Collective. Learns origin, root and folder from the run's identity, which is made where there is none and `make` is set; else all three
 * stay NULL. Errors: io. */
espl_status espl__copies_identify(espl_checkpoints *saver, bool make);

/* Local, rank 0. Removes the identity, but not when another attempt has taken the run over. Errors: io. */
espl_status espl__copies_disown(const espl_checkpoints *saver);

/* Local. Removes from this host the copies of all runs but this one of which it is certain that no start will look for them: their
 * checkpoint folder names others or none, or has gone from the folder of its run's neighbours. */
void espl__copies_sweep(const espl_checkpoints *saver);

/* ---- Where they are on a host (checkpoint_copies_place.c) */

/* Local. The user's folder of all runs in `folder`, /dev/shm when that is NULL or ""; the caller frees. */
char *espl__copies_place(const char *folder);

/* Local. Whether the place is there, the user's and no one else's to write in: what others put there would be taken for a copy. */
bool espl__copies_place_is_own(const char *place);

/* Local. Makes place and root, closed to others, with the origin's path in it. Errors: io, also when the place is not the user's. */
espl_status espl__copies_root_make(const struct espl__copies *copies);

/* Local. Appends the origin's path that a root holds. Errors: io; data. */
espl_status espl__copies_origin_read(const char *root, espl_buffer *origin);

/* Local. The folder of an attempt, and those attempts' numbers that a root has folders of; the caller frees. Errors: io. */
char *espl__copies_attempt(const char *root, int64_t attempt);
espl_status espl__copies_attempts(const char *root, int64_t **attempts, size_t *n);

/* Local. Removes attempts up to `last` but for one copy (or ESPL__NO_COPY), and the root when nothing is left in it. Errors: io. */
espl_status espl__copies_remove(const char *root, int64_t last, espl__copy but);

/* ---- Who keeps what (checkpoint_copies_partners.c) */

/* Collective. Learns where all ranks are and chooses partners and order. */
espl_status espl__copies_partners_choose(espl_checkpoints *saver);

/* Local. Bytes of the tensors that this host keeps in a copy, of its own ranks and the host's before it. */
size_t espl__copies_host_bytes(const espl_checkpoints *saver);

/* ---- Room (checkpoint_copies_room.c) */

/* Local. Fails where the copies that this host is to keep do not fit into its memory, beside what is there already. Errors: io. */
espl_status espl__copies_check_room(const espl_checkpoints *saver);

/* ---- A copy at hand (checkpoint_copies_make.c). Failures are all ranks' alike. */

/* Collective. Makes the folder that gets it. Errors: io. */
espl_status espl__copies_begin(espl_checkpoints *saver);

/* Collective. All ranks hear manifest and sizes, from rank 0's saver->manifest. */
espl_status espl__copies_announce(espl_checkpoints *saver);

/* Collective. Files travel to partners, all that is left or what is due at a step; *done when all have arrived. Errors: io; data, when a
 * file is not what was written; both at the end. */
espl_status espl__copies_spread(espl_checkpoints *saver, bool all, bool *done);

/* Collective. Commits the copy on all hosts and removes what is older. Errors: io. */
espl_status espl__copies_publish(espl_checkpoints *saver);

/* Local. Removes what was made of it. */
void espl__copies_abandon(espl_checkpoints *saver);

#endif
