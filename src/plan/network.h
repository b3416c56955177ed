/* How long sums and gathers over ranks take: the model that `espalier bench comm` fits and `espalier plan` computes with.
 *
 * An operation over R ranks, L on each of H hosts, on an array of S bytes as it travels:
 *
 *   around a ring  R - 1 messages behind each other, H - 1 of them between hosts; each rank sends (R - 1)/R S, and so does each host
 *                  latency (R - H) a + (H - 1) A, and (R - 1)/R S over the slower of the two bandwidths (Thakur et al. 2005; NCCL's own
 *                  model, src/graph/tuning.cc, has the same terms)
 *   straight       each rank sends its R - 1 messages of S/R at once, R - L of them between hosts, where those of a host share its link
 *                  latency (L - 1) a + (R - L) A, and the longer of (L - 1) S/R over the one and L (R - L) S/R over the other bandwidth
 *
 * a and A are seconds a message; bandwidths are bytes a second, of one rank within a host, of a whole host between hosts. Local, all. */
#ifndef ESPL_PLAN_NETWORK_H
#define ESPL_PLAN_NETWORK_H

#include "src/core/status.h"

#include <stdbool.h>

/* RING: the fast sum; TREE: of the same bits on any number of ranks; EXCHANGE: of what travels as bf16; GATHER: of weights or sums. */
typedef enum espl_net_op { ESPL_NET_RING, ESPL_NET_TREE, ESPL_NET_EXCHANGE, ESPL_NET_GATHER, ESPL_N_NET_OPS } espl_net_op;

typedef struct espl_net_link {
    double latency, bandwidth; /* seconds a message, bytes a second; bandwidth 0: not known */
} espl_net_link;

typedef struct espl_network {
    char name[64];
    bool ring_gather; /* gathers go around a ring, too (NCCL); else straight (MPI) */
    bool hidden;      /* within a host sums go on under compute; else the cores that compute copy */
    double cores;     /* of a rank, at most 1, when it was measured; 0: nothing depends on it */
    espl_net_link within[ESPL_N_NET_OPS], between[ESPL_N_NET_OPS]; /* hosts */
} espl_network;

/* Where a job's ranks are. */
typedef struct espl_net_job {
    int ranks, per_host;
    double cores; /* of a rank; less than 1 where ranks share */
} espl_net_job;

/* The known networks, by name; NULL: no such one. espl_network_names: all of them, for messages. */
const espl_network *espl_network_preset(const char *name);
const char *espl_network_names(void);

/* "ring", "tree", "exchange", "gather". */
const char *espl_net_op_name(espl_net_op op);

/* Hosts of a job. */
int espl_net_hosts(const espl_net_job *job);

/* Seconds of an operation on an array of `bytes`; 0 for one rank. */
double espl_network_seconds(const espl_network *network, espl_net_op op, const espl_net_job *job, double bytes);

/* Whether what the job needs is known. Errors: usage, when the network was measured on one host and the job has several, or the reverse. */
espl_status espl_network_check(const espl_network *network, const espl_net_job *job);

/* Of an operation: how many messages count, and the bytes that go over the link, within a host or between hosts. */
void espl_network_terms(const espl_network *network, espl_net_op op, const espl_net_job *job, double bytes, bool between, double *messages,
                        double *volume);

/* One measurement: seconds = messages x latency + volume / bandwidth. */
typedef struct espl_net_sample {
    double messages, volume, seconds;
} espl_net_sample;

/* The latency and bandwidth that make the sum of squared errors, each over its seconds, smallest; neither is negative. `error`: the largest
 * relative one. Where nothing can be said (no samples) all are 0. */
espl_net_link espl_network_fit(const espl_net_sample *samples, int n, double *error);

#endif
