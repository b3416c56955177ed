/* What the hosts of a job can do, measured before it is trusted with a run: the matrix rate of the run's own kernels, memory, disk, links
 * and clocks. */
#ifndef ESPL_TRAIN_PREFLIGHT_H
#define ESPL_TRAIN_PREFLIGHT_H

#include "comm/comm.h"
#include "src/config/config.h"

#include <stdio.h>

typedef enum espl_measure { ESPL_MATRIX, ESPL_COPY, ESPL_DISK, ESPL_LINK, ESPL_CLOCK, ESPL_N_MEASURES } espl_measure;

/* A host; rates are NAN where nothing was measured (one host has no link). */
typedef struct espl_preflight_host {
    char name[64]; /* Slurm's name of the node, or else the host's own */
    int ranks;
    /* MATRIX: flops a second of its slowest rank, all at work. COPY: bytes a second that its ranks copy together. DISK: bytes a second of a
     * file that is written and fsynced, hosts at once. LINK: bytes a second to the better one of its two neighbours. CLOCK: seconds that
     * its clock is ahead of the first host's, less what the way may explain. */
    double values[ESPL_N_MEASURES];
    bool marked[ESPL_N_MEASURES];
} espl_preflight_host;

typedef struct espl_preflight_options {
    const char *folder; /* of the disk's file */
    double seconds;     /* of each rate that is repeated */
    int64_t disk_bytes; /* of the file */
    int64_t message_bytes;
} espl_preflight_options;

/* Collective. Measures; the hosts, in the order of their lowest ranks, are the same on all ranks (caller: free). Errors: usage, no device;
 * io, the folder cannot be written to. */
espl_status espl_preflight_measure(espl_comm *comm, const espl_config *config, const espl_preflight_options *options,
                                   espl_preflight_host **hosts, int *n);

/* Local. Marks rates below `share` of the median over the hosts, and clocks further off than `clock` seconds. Writes the medians; returns
 * the number of hosts with a mark. */
int espl_preflight_judge(espl_preflight_host *hosts, int n, double share, double clock, double medians[ESPL_N_MEASURES]);

/* Local. The table, a line a host and one of the medians; marked values have a star. */
void espl_preflight_print(const espl_preflight_host *hosts, int n, const double medians[ESPL_N_MEASURES], FILE *out);

/* Local. Bytes a second that one thread copies, measured for so long. */
double espl_preflight_copy_rate(double seconds);

/* Local. Whether any value of the host is marked. */
bool espl_preflight_marked(const espl_preflight_host *host);

#endif
