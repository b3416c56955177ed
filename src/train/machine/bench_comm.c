#include "src/train/machine/bench_comm.h"

#include "comm/bulk.h"
#include "comm/reducer.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/train/machine/choose_device.h"
#include "src/train/machine/ping.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

enum { SMALLEST = 1 << 16, GROWTH = 4, IN_FLIGHT = 4, ALL_REDUCE = ESPL_N_NET_OPS, N_MEASURED = ESPL_N_NET_OPS + 1, MOST_ROUNDS = 99 };

#define NETWORK_SECONDS 120.0

static const char *const titles[N_MEASURED] = {"sum, ring", "sum, tree", "sum in bf16", "gather", "sum for all"};

/* What operations work on, on the device. */
typedef struct bench {
    espl_comm *comm;
    espl_engine engine;
    espl_arena arena;
    float *data, *stage;
    espl_exchange exchange;
    int64_t n, at; /* elements of several of the largest arrays; where the next array begins: none is in a cache */
    int64_t rounds;
    espl_bench_comm *out;
} bench;

/* ---- One operation. */

static size_t elements_of(const bench *b, int size) {
    return (size_t)espl_shard_pad((int64_t)(b->out->bytes[size] / sizeof(float)), b->out->job.ranks);
}

static espl_status start(bench *b, int what, size_t n, espl_request *request) {
    float *data = b->data + b->at, *stage = b->stage + b->at;
    b->at = b->at + 2 * (int64_t)n <= b->n ? b->at + (int64_t)n : 0;
    switch (what) {
    case ESPL_NET_EXCHANGE: return espl_comm_exchange_start(b->comm, &b->exchange, data, n, request);
    case ESPL_NET_GATHER: return espl_comm_allgather_start(b->comm, data, n * sizeof(float), request);
    default: return espl_comm_reduce_scatter_start(b->comm, data, stage, n, what == ESPL_NET_TREE, request);
    }
}

/* As buckets do, several follow each other without a wait in between. */
static espl_status run_through(bench *b, int what, size_t n) {
    espl_request requests[IN_FLIGHT];
    for (int i = 0; i < IN_FLIGHT; i++)
        ESPL_TRY(start(b, what, n, &requests[i]));
    for (int i = 0; i < IN_FLIGHT; i++)
        ESPL_TRY(espl_comm_wait(b->comm, requests[i]));
    return what == ALL_REDUCE ? run_through(b, ESPL_NET_GATHER, n) : ESPL_OK;
}

/* Seconds from the time that all ranks are there until the last one is done. */
static espl_status time_once(bench *b, int what, size_t n, double *seconds) {
    if (b->engine.backend->bulk != NULL)
        b->at = 0; /* the same places again, as in training: each is registered once */
    ESPL_TRY(b->engine.calls->sync(b->engine.device));
    ESPL_TRY(espl_comm_barrier(b->comm));
    double begin = espl_now();
    ESPL_TRY(run_through(b, what, n));
    ESPL_TRY(b->engine.calls->sync(b->engine.device));
    int64_t ns = (int64_t)(1e9 * (espl_now() - begin));
    ESPL_TRY(espl_comm_allreduce_i64(b->comm, &ns, 1, ESPL_MAX));
    *seconds = 1e-9 * (double)(ns > 1 ? ns : 1) / IN_FLIGHT;
    return ESPL_OK;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median: a step meets what usually happens, not the best case. The first round makes connections. */
static espl_status time_size(bench *b, int what, int size) {
    double all[MOST_ROUNDS], first;
    const size_t n = elements_of(b, size);
    b->at = 0;
    espl_comm_point(b->comm, titles[what]);
    ESPL_TRY(time_once(b, what, n, &first));
    for (int i = 0; i < b->rounds; i++)
        ESPL_TRY(time_once(b, what, n, &all[i]));
    qsort(all, (size_t)b->rounds, sizeof *all, ascending);
    b->out->seconds[what][size] = all[b->rounds / 2];
    return ESPL_OK;
}

static bool measured(const bench *b, int what) {
    int ranks = b->out->job.ranks;
    return what != ESPL_NET_TREE || (ranks & (ranks - 1)) == 0;
}

static espl_status time_all(bench *b) {
    for (int what = 0; what < N_MEASURED; what++)
        for (int size = 0; size < b->out->n_sizes; size++) {
            b->out->seconds[what][size] = NAN;
            if (measured(b, what))
                ESPL_TRY(time_size(b, what, size));
        }
    return ESPL_OK;
}

/* ---- Links within hosts, where the operations went between hosts: pairs of neighbours, all at once. Of host memory: a GPU's own links are
 * not what MPI would measure. */

static espl_status ping_neighbour(bench *b, char *message, double bytes, double *seconds) {
    const espl_ranks *r = &b->out->ranks;
    int other = r->node_rank % 2 == 0 ? r->rank + 1 : r->rank - 1;
    bool paired = r->node_rank % 2 == 1 || r->node_rank + 1 < r->node_size;
    *seconds = 0.0;
    if (paired)
        ESPL_TRY(espl_ping(b->comm, other, message, (size_t)bytes, seconds));
    int64_t ns = (int64_t)(1e9 * *seconds);
    ESPL_TRY(espl_comm_allreduce_i64(b->comm, &ns, 1, ESPL_MAX));
    *seconds = 1e-9 * (double)ns;
    return ESPL_OK;
}

/* Ranks of a host follow each other, else a neighbour's number is not known here. */
static espl_status hosts_are_pairs(bench *b, bool *yes) {
    const espl_ranks *r = &b->out->ranks;
    int64_t count[2] = {r->rank - r->node_rank == r->node * b->out->job.per_host, b->out->job.per_host > 1 && !b->engine.calls->remote};
    ESPL_TRY(espl_comm_allreduce_i64(b->comm, count, 2, ESPL_MIN));
    *yes = count[0] == 1 && count[1] == 1;
    return ESPL_OK;
}

static espl_status fit_within(bench *b) {
    espl_net_sample samples[ESPL_BENCH_SIZES];
    espl_bench_comm *out = b->out;
    double error;
    bool pairs = false;
    ESPL_TRY(hosts_are_pairs(b, &pairs));
    if (!pairs)
        return ESPL_OK;
    char *message = espl_calloc(1, (size_t)out->bytes[out->n_sizes - 1]);
    espl_status status = ESPL_OK;
    for (int i = 0; i < out->n_sizes && status == ESPL_OK; i++) {
        samples[i] = (espl_net_sample){.messages = 1.0, .volume = out->bytes[i]};
        status = ping_neighbour(b, message, out->bytes[i], &samples[i].seconds);
    }
    free(message);
    ESPL_TRY(status);
    for (int op = 0; op < ESPL_N_NET_OPS; op++)
        out->network.within[op] = espl_network_fit(samples, out->n_sizes, &error);
    return ESPL_OK;
}

/* ---- Fitting. */

/* As it travels: of what goes as bf16, half. */
static double wire_bytes(const bench *b, int op, int size) { return (double)elements_of(b, size) * (op == ESPL_NET_EXCHANGE ? 2.0 : 4.0); }

static void fit(bench *b, espl_net_op op) {
    espl_bench_comm *out = b->out;
    espl_net_sample samples[ESPL_BENCH_SIZES];
    const bool several = out->ranks.n_nodes > 1;
    for (int i = 0; i < out->n_sizes; i++) {
        double bytes = wire_bytes(b, op, i), messages, volume;
        espl_network_terms(&out->network, op, &out->job, bytes, false, &messages, &volume);
        samples[i].seconds = out->seconds[op][i] - (several ? messages * out->network.within[op].latency : 0.0);
        samples[i].seconds = fmax(samples[i].seconds, 0.01 * out->seconds[op][i]);
        espl_network_terms(&out->network, op, &out->job, bytes, several, &samples[i].messages, &samples[i].volume);
    }
    *(several ? &out->network.between[op] : &out->network.within[op]) = espl_network_fit(samples, out->n_sizes, &out->error[op]);
}

static espl_status fit_all(bench *b) {
    if (b->out->ranks.n_nodes > 1)
        ESPL_TRY(fit_within(b));
    for (int op = 0; op < ESPL_N_NET_OPS; op++)
        if (measured(b, op))
            fit(b, op);
    if (!measured(b, ESPL_NET_TREE)) { /* the same messages at once as a gather sends */
        b->out->network.within[ESPL_NET_TREE] = b->out->network.within[ESPL_NET_GATHER];
        b->out->network.between[ESPL_NET_TREE] = b->out->network.between[ESPL_NET_GATHER];
    }
    return ESPL_OK;
}

/* ---- All of it. */

static void layout(bench *b) {
    const int ranks = b->out->job.ranks;
    int64_t most = espl_reducer_chunk(ranks) / ranks / ESPL_SHARD_UNIT * ESPL_SHARD_UNIT, piece = b->n / IN_FLIGHT / ranks;
    b->exchange =
        (espl_exchange){.piece = piece < most ? piece : most, .round = b->engine.kernels->round_parts, .add = b->engine.kernels->add_parts};
    const size_t stage = (size_t)(b->exchange.piece * ranks) * sizeof(espl_bf16);
    b->data = espl_arena_take(&b->arena, (size_t)b->n * sizeof(float));
    b->stage = espl_arena_take(&b->arena, (size_t)b->n * sizeof(float));
    b->exchange.outgoing = espl_arena_take(&b->arena, stage);
    b->exchange.incoming = espl_arena_take(&b->arena, stage);
}

static espl_status open_device(bench *b, const espl_config *config) {
    char why[ESPL_MESSAGE_BYTES];
    ESPL_TRY(espl_choose_device(b->comm, config, &b->engine, why));
    b->arena = espl_arena_measure("BENCH");
    layout(b);
    espl_status status = espl_engine_take(&b->engine, &b->arena, "BENCH", b->arena.used);
    ESPL_TRY(espl_comm_agree(b->comm, status, "taking memory"));
    layout(b);
    if (b->engine.backend->bulk == NULL)
        return ESPL_OK;
    return espl_comm_use_bulk(b->comm, b->engine.backend->bulk, b->engine.device, NETWORK_SECONDS);
}

static espl_status describe(bench *b, const espl_bench_options *options) {
    espl_bench_comm *out = b->out;
    int64_t per_host = out->ranks.node_size;
    ESPL_TRY(espl_comm_allreduce_i64(b->comm, &per_host, 1, ESPL_MAX));
    double share = (double)sysconf(_SC_NPROCESSORS_ONLN) / (double)per_host;
    out->job = (espl_net_job){.ranks = out->ranks.size, .per_host = (int)per_host, .cores = share};
    for (int64_t bytes = SMALLEST; bytes <= options->largest && out->n_sizes < ESPL_BENCH_SIZES; bytes *= GROWTH)
        out->bytes[out->n_sizes++] = (double)bytes;
    b->n = IN_FLIGHT * (int64_t)elements_of(b, out->n_sizes - 1);
    return ESPL_OK;
}

static void name_network(bench *b) {
    espl_network *n = &b->out->network;
    const bool remote = b->engine.backend->bulk != NULL;
    snprintf(n->name, sizeof n->name, "%d ranks on %d host%s, %s", b->out->job.ranks, b->out->ranks.n_nodes,
             b->out->ranks.n_nodes > 1 ? "s" : "", b->engine.name);
    n->ring_gather = n->hidden = remote;
    n->cores = remote ? 0.0 : fmin(b->out->job.cores, 1.0);
}

espl_status espl_bench_comm_measure(espl_comm *comm, const espl_config *config, const espl_bench_options *options, espl_bench_comm *out) {
    bench b = {.comm = comm, .rounds = options->rounds < MOST_ROUNDS ? options->rounds : MOST_ROUNDS, .out = out};
    espl_status status = ESPL_OK;
    *out = (espl_bench_comm){.ranks = *espl_comm_ranks(comm)};
    if (out->ranks.size == 1)
        ESPL_FAIL(ESPL_ERR_USAGE, "bench comm measures what is between ranks, and there is one; start it under mpirun or srun");
    ESPL_TRY_DONE(describe(&b, options));
    ESPL_TRY_DONE(open_device(&b, config));
    ESPL_TRY_DONE(espl_comm_watch(comm, config->run_watchdog));
    name_network(&b);
    ESPL_TRY_DONE(time_all(&b));
    ESPL_TRY_DONE(fit_all(&b));
done:
    espl_comm_end_bulk(comm);
    espl_engine_give_back(&b.engine, &b.arena);
    espl_engine_close(&b.engine);
    return status;
}

/* ---- Printing. */

static void print_fit(const espl_bench_comm *bench, int op, const char *where, const espl_net_link *link, FILE *out) {
    if (!(link->bandwidth > 0.0))
        return;
    fprintf(out, "  %-14s %-14s %10.2f %10.3f", titles[op], where, link->latency * 1e6, link->bandwidth * 1e-9);
    bool own = bench->ranks.n_nodes == 1 || link == &bench->network.between[op];
    if (own && bench->error[op] > 0.0)
        fprintf(out, "   up to %.0f %% off", 100.0 * bench->error[op]);
    fputc('\n', out);
}

void espl_bench_comm_print(const espl_bench_comm *bench, FILE *out) {
    const double share = (bench->job.ranks - 1.0) / bench->job.ranks;
    fprintf(out, "%s: medians; GB/s that a rank sends\n  %-14s %10s %12s %10s\n", bench->network.name, "", "MiB", "ms", "GB/s");
    for (int what = 0; what < N_MEASURED; what++)
        for (int i = 0; i < bench->n_sizes; i++)
            if (!isnan(bench->seconds[what][i]))
                fprintf(out, "  %-14s %10.3f %12.4f %10.3f\n", titles[what], bench->bytes[i] / 1048576.0, 1e3 * bench->seconds[what][i],
                        1e-9 * share * bench->bytes[i] *
                            (what == ESPL_NET_EXCHANGE ? 0.5
                             : what == ALL_REDUCE      ? 2.0
                                                       : 1.0) /
                            bench->seconds[what][i]);
    fprintf(out, "fitted\n  %-14s %-14s %10s %10s\n", "", "", "us a step", "GB/s");
    for (int op = 0; op < ESPL_N_NET_OPS; op++) {
        print_fit(bench, op, "within a host", &bench->network.within[op], out);
        print_fit(bench, op, "between hosts", &bench->network.between[op], out);
    }
}
