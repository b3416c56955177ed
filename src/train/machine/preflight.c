#include "src/train/machine/preflight.h"

#include "io/fsio.h"
#include "src/core/clock.h"
#include "src/plan/peak.h"
#include "src/train/machine/choose_device.h"
#include "src/train/machine/clocks.h"
#include "src/train/machine/ping.h"
#include "src/train/machine/threads.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GPU_TOKENS = 4096, COPY_BYTES = 64 << 20 };

typedef struct preflight {
    espl_comm *comm;
    const espl_ranks *ranks;
    const espl_config *config;
    const espl_preflight_options *options;
    espl_preflight_host *hosts;
    int n_hosts, host; /* host: this rank's */
    int *leaders;      /* [n_hosts] the lowest rank of each */
    int *host_of;      /* [size] */
} preflight;

/* ---- Hosts, by the name that the batch system knows them by: that is the one to exclude. */

static espl_status list_hosts(preflight *p) {
    int size = p->ranks->size;
    char mine[sizeof p->hosts->name] = "", (*names)[sizeof mine] = espl_calloc((size_t)size, sizeof mine);
    const char *node = getenv("SLURMD_NODENAME");
    snprintf(mine, sizeof mine, "%s", node != NULL && node[0] != '\0' ? node : p->ranks->host);
    p->hosts = espl_calloc((size_t)size, sizeof *p->hosts);
    p->leaders = espl_calloc((size_t)size, sizeof *p->leaders);
    p->host_of = espl_calloc((size_t)size, sizeof *p->host_of);
    espl_status status = espl_comm_allgather(p->comm, mine, sizeof mine, names);
    for (int r = 0; r < size && status == ESPL_OK; r++) {
        int h = 0;
        while (h < p->n_hosts && strcmp(p->hosts[h].name, names[r]) != 0)
            h++;
        if (h == p->n_hosts) {
            p->leaders[p->n_hosts++] = r;
            memcpy(p->hosts[h].name, names[r], sizeof mine);
        }
        p->hosts[h].ranks++;
        p->host_of[r] = h;
    }
    p->host = p->host_of[p->ranks->rank];
    free(names);
    return status;
}

static bool leads(const preflight *p) { return p->leaders[p->host] == p->ranks->rank; }

/* ---- What a host does by itself. */

static espl_status measure_matrix(preflight *p, double *flops) {
    espl_engine engine = {0};
    char why[ESPL_MESSAGE_BYTES];
    int threads;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_choose_device(p->comm, p->config, &engine, why));
    ESPL_TRY_DONE(espl_threads_choose(p->comm, p->config->run_threads, &threads));
    espl_kernels_set_threads(threads);
    const espl_capacity capacity[ESPL_N_STREAMS] = {[ESPL_STREAM_MAIN] = {.rows = GPU_TOKENS, .segments = 1}};
    status = engine.calls->reserve(engine.device, capacity);
    ESPL_TRY_DONE(espl_comm_agree(p->comm, status, "reserving the device"));
    status = espl_peak_measure(&engine, threads, 1, GPU_TOKENS, p->options->seconds, flops);
    ESPL_TRY_DONE(espl_comm_agree(p->comm, status, "measuring the matrix rate"));
done:
    espl_engine_close(&engine);
    return status;
}

double espl_preflight_copy_rate(double seconds) {
    char *from = espl_malloc(COPY_BYTES), *to = espl_malloc(COPY_BYTES);
    memset(from, 1, COPY_BYTES);
    memset(to, 2, COPY_BYTES); /* the system gives the pages now, not while it is timed */
    int64_t copies = 0;
    double start = espl_now(), now = start;
    for (; copies == 0 || now - start < seconds; copies++) {
        memcpy(copies % 2 == 0 ? to : from, copies % 2 == 0 ? from : to, COPY_BYTES);
        now = espl_now();
    }
    free(from);
    free(to);
    return (double)copies * COPY_BYTES / (now - start);
}

static espl_status write_blocks(const char *path, int64_t bytes) {
    const int64_t block = 4 << 20;
    int fd = -1;
    char *data = espl_malloc((size_t)block);
    memset(data, 0x5a, (size_t)block);
    espl_status status = espl_fs_open_write(path, &fd);
    for (int64_t at = 0; at < bytes && status == ESPL_OK; at += block)
        status = espl_fs_write(fd, data, (size_t)(bytes - at < block ? bytes - at : block), at, path);
    if (status == ESPL_OK)
        status = espl_fs_sync(fd, path);
    espl_fs_discard(&fd);
    free(data);
    return status;
}

static espl_status measure_disk(const preflight *p, double *rate) {
    char *path = espl_format("%s/preflight-%s-%d", p->options->folder, p->hosts[p->host].name, (int)getpid());
    double start = espl_now();
    espl_status status = write_blocks(path, p->options->disk_bytes);
    *rate = (double)p->options->disk_bytes / (espl_now() - start);
    unlink(path);
    free(path);
    return status;
}

/* ---- What is between hosts. */

static espl_status measure_clocks(preflight *p) {
    if (p->ranks->rank != 0)
        return leads(p) ? espl_clock_answer(p->comm, 0) : ESPL_OK;
    for (int h = 1; h < p->n_hosts; h++)
        ESPL_TRY(espl_clock_ask(p->comm, p->leaders[h], &p->hosts[h].values[ESPL_CLOCK]));
    return ESPL_OK;
}

/* The host to exchange with in a round: 0-1 2-3 ..., then 1-2 3-4 ... and around; -1: none. */
static int neighbour(const preflight *p, int round) {
    int n = p->n_hosts, at = p->host;
    bool first = (at % 2 == 0) == (round == 0);
    int other = first ? at + 1 : at - 1;
    if (n % 2 == 0 && n > 2)
        return (other + n) % n;
    return other >= 0 && other < n && (n > 2 || round == 0) ? other : -1;
}

static espl_status link_rate(const preflight *p, int other, char *message, double *rate) {
    double seconds;
    ESPL_TRY(espl_ping(p->comm, other, message, (size_t)p->options->message_bytes, &seconds));
    *rate = (double)p->options->message_bytes / seconds;
    return ESPL_OK;
}

/* The better of two: a slow host pulls its neighbours' links down, but each of those has another one. */
static espl_status measure_links(preflight *p, double *best) {
    char *message = espl_calloc(1, (size_t)p->options->message_bytes);
    espl_status status = ESPL_OK;
    for (int round = 0; round < 2 && status == ESPL_OK; round++) {
        int other = leads(p) ? neighbour(p, round) : -1;
        double rate = NAN;
        if (other >= 0)
            status = link_rate(p, p->leaders[other], message, &rate);
        *best = fmax(*best, rate);
        if (status == ESPL_OK)
            status = espl_comm_barrier(p->comm);
    }
    free(message);
    return status;
}

/* ---- All of it. Each point is a beat for the watchdog. */

static espl_status collect(preflight *p, const double mine[ESPL_N_MEASURES]) {
    int size = p->ranks->size;
    double(*all)[ESPL_N_MEASURES] = espl_calloc((size_t)size, sizeof *all);
    espl_status status = espl_comm_allgather(p->comm, mine, sizeof *all, all);
    for (int r = 0; r < size; r++) {
        double *values = p->hosts[p->host_of[r]].values;
        bool first = p->leaders[p->host_of[r]] == r;
        values[ESPL_MATRIX] = first ? all[r][ESPL_MATRIX] : fmin(values[ESPL_MATRIX], all[r][ESPL_MATRIX]);
        values[ESPL_COPY] = (first ? 0.0 : values[ESPL_COPY]) + all[r][ESPL_COPY];
        if (first) {
            values[ESPL_DISK] = all[r][ESPL_DISK];
            values[ESPL_LINK] = all[r][ESPL_LINK];
        }
    }
    free(all);
    return status;
}

static espl_status measure(preflight *p) {
    double mine[ESPL_N_MEASURES] = {[ESPL_DISK] = NAN, [ESPL_LINK] = NAN};
    espl_comm_point(p->comm, "measuring the matrix rate");
    ESPL_TRY(measure_matrix(p, &mine[ESPL_MATRIX]));
    espl_comm_point(p->comm, "measuring memory");
    ESPL_TRY(espl_comm_barrier(p->comm));
    mine[ESPL_COPY] = espl_preflight_copy_rate(p->options->seconds);
    espl_comm_point(p->comm, "measuring the disk");
    ESPL_TRY(espl_comm_barrier(p->comm));
    ESPL_TRY(espl_comm_agree(p->comm, leads(p) ? measure_disk(p, &mine[ESPL_DISK]) : ESPL_OK, "measuring the disk"));
    espl_comm_point(p->comm, "measuring links");
    ESPL_TRY(measure_links(p, &mine[ESPL_LINK]));
    espl_comm_point(p->comm, "comparing clocks");
    ESPL_TRY(measure_clocks(p));
    ESPL_TRY(collect(p, mine));
    return espl_comm_bcast(p->comm, p->hosts, (size_t)p->n_hosts * sizeof *p->hosts, 0);
}

espl_status espl_preflight_measure(espl_comm *comm, const espl_config *config, const espl_preflight_options *options,
                                   espl_preflight_host **hosts, int *n) {
    preflight p = {.comm = comm, .ranks = espl_comm_ranks(comm), .config = config, .options = options};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(list_hosts(&p));
    ESPL_TRY_DONE(espl_comm_watch(comm, config->run_watchdog));
    ESPL_TRY_DONE(measure(&p));
done:
    free(p.leaders);
    free(p.host_of);
    if (status != ESPL_OK)
        free(p.hosts);
    *hosts = status == ESPL_OK ? p.hosts : NULL;
    *n = status == ESPL_OK ? p.n_hosts : 0;
    return status;
}
