/* Replicas: what every rank, or one of every group of ranks, holds a copy of, compared between ranks. A copy that has gone astray (a
 * flipped bit, a faulty link, other files on a host) is found and named before it gets into a checkpoint. */
#ifndef ESPL_TRAIN_REPLICAS_H
#define ESPL_TRAIN_REPLICAS_H

#include "comm/comm.h"
#include "kernels/engine.h"
#include "src/train/memory/memory.h"

#include <stdbool.h>

/* One tensor, or this rank's part of it, that ranks must hold alike. */
typedef struct espl_replica {
    const char *kind, *name; /* kind: "weights", "master weights", or what the optimizer calls its state; both borrowed */
    int bucket;              /* -1: frozen, in none */
    const void *data;        /* on the device */
    size_t bytes;
} espl_replica;

typedef struct espl_replicas {
    espl_replica *items;
    int64_t n, n_whole; /* the first are of all ranks; the others of the ranks in one place of all groups (run.shard_group) */
    uint64_t *digests;  /* [n] XXH3 */
    char *piece;        /* of a remote device's tensor, under way; else NULL */
    void *hash;         /* XXH3 of a tensor in pieces; else NULL */
    int64_t checked;    /* the step of the last comparison; -1: none */
} espl_replicas;

/* Local. Lists what all ranks hold: the weights that are not cut over them; masters and element-wise state of an optimizer that is not
 * sharded. And where there are groups, of what is cut over the ranks of each what this rank keeps. */
void espl_replicas_open(const espl_blueprint *blueprint, const espl_memory *memory, espl_replicas *replicas);

/* Collective. Compares the digests of all items in one reduction of two numbers, and another of as many for each place in a group; where
 * they differ, finds the ranks and the first of their tensors. `comm` hears beats of `step`. Errors: numeric, with the same message on all
 * ranks; what the device says. */
espl_status espl_replicas_compare(espl_replicas *replicas, espl_comm *comm, const espl_engine *engine, int64_t step);

/* Local. Frees and zeroes. */
void espl_replicas_free(espl_replicas *replicas);

#endif
