/* How fast the ranks of a job are together: the very sums and gathers that training uses, over sizes, and latency and bandwidth of each. */
#ifndef ESPL_TRAIN_BENCH_COMM_H
#define ESPL_TRAIN_BENCH_COMM_H

#include "comm/comm.h"
#include "src/config/config.h"
#include "src/plan/network.h"

#include <stdio.h>

enum { ESPL_BENCH_SIZES = 16 };

typedef struct espl_bench_comm {
    espl_ranks ranks;
    espl_net_job job;
    int n_sizes;
    double bytes[ESPL_BENCH_SIZES]; /* of the array, in fp32 */
    double seconds[ESPL_N_NET_OPS + 1]
                  [ESPL_BENCH_SIZES]; /* medians; NAN: not measured. The last row: a sum that all ranks get (ring and gather) */
    espl_network network;
    double error[ESPL_N_NET_OPS]; /* the largest relative error of a fit */
} espl_bench_comm;

typedef struct espl_bench_options {
    int64_t largest; /* bytes of the largest array */
    int64_t rounds;  /* of each size */
} espl_bench_options;

/* Collective. Measures on the device of the config; the result is the same on all ranks. Errors: usage, no device, one rank alone. */
espl_status espl_bench_comm_measure(espl_comm *comm, const espl_config *config, const espl_bench_options *options, espl_bench_comm *bench);

/* Local. The table, and what was fitted. */
void espl_bench_comm_print(const espl_bench_comm *bench, FILE *out);

#endif
