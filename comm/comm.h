/* Ranks: one interface, two implementations (self: one rank without MPI; mpi: Open MPI); bulk operations can be a device's (bulk.h).
 *
 * Functions marked Collective are entered by all ranks in the same order. A rank never leaves alone:
 * whatever it finds by itself goes through espl_comm_agree at a named point, and all ranks take the
 * same branch. Not thread-safe: one thread of a rank speaks; the watchdog only watches. */
#ifndef ESPL_COMM_COMM_H
#define ESPL_COMM_COMM_H

#include "src/core/rank_parts.h"
#include "src/core/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct espl_comm espl_comm;

typedef struct espl_ranks {
    int rank, size;           /* in the job */
    int node_rank, node_size; /* among the ranks of this node */
    int node, n_nodes;        /* nodes numbered by their lowest rank */
    int place, group_size;    /* in the group that bulk operations cut arrays over (espl_comm_group): at first all ranks */
    int group, n_groups;
    char host[64];
} espl_ranks;

typedef enum espl_reduce { ESPL_SUM, ESPL_MAX, ESPL_MIN } espl_reduce;

/* Local. The launcher's number of this process, 0 without a launcher: all that a rank knows of itself before it is opened. */
int espl_comm_launched_rank(void);

/* Collective. Opens the job's ranks: mpi when a launcher started us (or `use_mpi` is set), else self. Once in a process. A rank that the
 * others have not met after ESPL_START_SECONDS of the environment (600; 0: it waits) says so and leaves with exit code 5.
 * Errors: usage, when a multi-task Slurm step left this process a singleton (says which --mpi to use). */
espl_status espl_comm_open(espl_comm **comm, int use_mpi);

/* Local. The MPI that the program runs with: "Open MPI v4.1.4". */
const char *espl_comm_library(void);

/* Local. Where this rank stands; borrowed. */
const espl_ranks *espl_comm_ranks(const espl_comm *comm);

/* Collective when the job is healthy. Closes; takes the address, nulls it, accepts NULL. */
void espl_comm_close(espl_comm **comm);

/* Local. Ends the whole job at once with this exit code (after printing one line); does not return. */
void espl_comm_abort(espl_comm *comm, int code) __attribute__((noreturn));

/* Collective. The worst status over ranks (bug, io, numeric, data, usage, stopped, OK); the message of the lowest rank that has it
 * ("rank 3: ...") becomes the message of all. `where`, a string constant, names the point for the watchdog. */
espl_status espl_comm_agree(espl_comm *comm, espl_status mine, const char *where);

/* Collective. Elementwise reduction over ranks, in place. Integers, so the result has no order. */
espl_status espl_comm_allreduce_i64(espl_comm *comm, int64_t *values, size_t n, espl_reduce how);

/* Collective. Copies `bytes` of rank `root` to all. */
espl_status espl_comm_bcast(espl_comm *comm, void *data, size_t bytes, int root);

/* Collective. Rank r's `bytes` land at all + r * bytes on every rank. */
espl_status espl_comm_allgather(espl_comm *comm, const void *mine, size_t bytes, void *all);

/* Collective. Waits for all ranks. */
espl_status espl_comm_barrier(espl_comm *comm);

/* Local (both sides must call). Blocking point to point, any size; tag below 1000. */
espl_status espl_comm_send(espl_comm *comm, const void *data, size_t bytes, int to, int tag);
espl_status espl_comm_recv(espl_comm *comm, void *data, size_t bytes, int from, int tag);

/* ---- Bulk operations that overlap with compute. Started in the same order on all ranks; at most ESPL_MAX_REQUESTS under way.
 *
 * They cut arrays over the ranks of a group, of which each has a shard; groups are replicas of each other. In what follows `size` is that
 * of a group, `rank` a place in it: without espl_comm_group, those of the job. */

/* Local, the same on all ranks, before the first bulk operation and espl_comm_use_bulk. Groups of `size` neighbouring ranks; size divides
 * the number of ranks, and is at least 2 where there are several. */
void espl_comm_group(espl_comm *comm, int size);

enum { ESPL_MAX_REQUESTS = 256 };

typedef int espl_request; /* index of an operation under way; -1 none */

/* Collective. Sum of float[n] over all ranks of the job where rank r of each group keeps elements [r n/size, (r+1) n/size) (n divisible by
 * the job's ranks), in place: the other elements are undefined afterwards. First within each group, then shard by shard over the groups.
 * tree = 0: an order that depends on the numbers of ranks and groups alone; `stage` holds n/size floats. tree = 1: the fixed binary tree
 * over the job's ranks ((0+1)+(2+3))+..., of which groups are nodes, a power of two of ranks; `stage` holds n floats.
 * `data` and `stage` stay the operation's until it is done. */
espl_status espl_comm_reduce_scatter_start(espl_comm *comm, float *data, float *stage, size_t n, int tree, espl_request *request);

/* How a sum over ranks travels as bf16: a stage that lasts, and kernels (those of memory that a device's bulk operations work on are the
 * device's own). */
typedef struct espl_exchange {
    espl_bf16 *outgoing, *incoming; /* size * piece elements each, the same for all exchanges: they follow each other */
    int64_t piece;                  /* of a shard, that is under way at a time */
    espl_parts_round *round;
    espl_parts_add *add;
} espl_exchange;

/* Collective. The sum of espl_comm_reduce_scatter_start, of n floats that travel as bf16: a rank rounds each of its parts of others' shards
 * once, and adds what it gets for its own shard in fp32, in the order of the ranks; its own part is not rounded. Of one group alone.
 * `exchange` is borrowed until the operation is done. */
espl_status espl_comm_exchange_start(espl_comm *comm, const espl_exchange *exchange, float *data, size_t n, espl_request *request);

/* Collective. Rank r's bytes [r n/size, (r+1) n/size) of `data` spread to all ranks of its group, in place; n in bytes, divisible by size.
 */
espl_status espl_comm_allgather_start(espl_comm *comm, void *data, size_t bytes, espl_request *request);

/* Local. Moves operations forward; called between op rows, this is what makes communication proceed under compute. */
espl_status espl_comm_progress(espl_comm *comm);

/* Collective. Waits for one operation (or with -1 for none) and forgets it. */
espl_status espl_comm_wait(espl_comm *comm, espl_request request);

/* Local. Seconds this rank has spent waiting inside espl_comm_wait since opening: communication that was not hidden. */
double espl_comm_wait_seconds(const espl_comm *comm);

/* Local. Seconds since opening with at least one bulk operation under way; less the waiting, they were hidden behind compute. */
double espl_comm_busy_seconds(const espl_comm *comm);

/* Local. Bytes this rank sent in bulk operations since opening. */
int64_t espl_comm_bytes_sent(const espl_comm *comm);

/* ---- Watchdog: a thread that ends the job when nothing moves. */

/* Local. Starts it: when no espl_comm_beat comes for `seconds`, prints rank, host, step and op, and of the other ranks of the node which
 * are there, too, and where the others are, and aborts the job with the exit code of a network that failed (5): what is left of a job that
 * lost a host ends so. 0: not started. */
espl_status espl_comm_watch(espl_comm *comm, double seconds);

/* Local. Progress was made; `op` is a string constant, `step` the training step. Cheap: a few stores. */
void espl_comm_beat(espl_comm *comm, int64_t step, const char *op);

/* Local. The same without a new step: entering something in which ranks wait for each other. */
void espl_comm_point(espl_comm *comm, const char *op);

#endif
