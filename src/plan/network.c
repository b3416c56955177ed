#include "src/plan/network.h"

#include <math.h>
#include <string.h>

#define NETWORK_REACHED 0.8 /* of a bandwidth on paper */

/* In the order of espl_net_op. */
#define LINK(gbs, us)                                                                                                                      \
    { .latency = (us)*1e-6, .bandwidth = (gbs)*1e9 * NETWORK_REACHED }
#define LINKS(gbs, ring, straight)                                                                                                         \
    { LINK(gbs, ring), LINK(gbs, straight), LINK(gbs, straight), LINK(gbs, ring) }

static const espl_network presets[] = {
#define NETWORK(id, within_gbs, between_gbs, within_us, between_us, straight_us, what)                                                     \
    {.name = id,                                                                                                                           \
     .ring_gather = true,                                                                                                                  \
     .hidden = true,                                                                                                                       \
     .within = LINKS(within_gbs, within_us, straight_us),                                                                                  \
     .between = LINKS(between_gbs, between_us, straight_us)},
#include "src/plan/networks.def"
#undef NETWORK
};

static const char names[] = ""
#define NETWORK(id, within_gbs, between_gbs, within_us, between_us, straight_us, what) ", " id " (" what ")"
#include "src/plan/networks.def"
#undef NETWORK
    ;

const espl_network *espl_network_preset(const char *name) {
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++)
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    return NULL;
}

const char *espl_network_names(void) { return names + 2; } /* without the first comma */

const char *espl_net_op_name(espl_net_op op) {
    static const char *const titles[ESPL_N_NET_OPS] = {"ring", "tree", "exchange", "gather"};
    return titles[op];
}

int espl_net_hosts(const espl_net_job *job) { return (job->ranks + job->per_host - 1) / job->per_host; }

/* Ranks of the fullest host. */
static int on_host(const espl_net_job *job) { return job->ranks < job->per_host ? job->ranks : job->per_host; }

static bool in_ring(const espl_network *network, espl_net_op op) {
    return op == ESPL_NET_RING || (op == ESPL_NET_GATHER && network->ring_gather);
}

void espl_network_terms(const espl_network *network, espl_net_op op, const espl_net_job *job, double bytes, bool between, double *messages,
                        double *volume) {
    double ranks = job->ranks, local = on_host(job), hosts = espl_net_hosts(job), shard = bytes / ranks;
    if (in_ring(network, op)) {
        *messages = between ? hosts - 1.0 : ranks - hosts;
        *volume = (between ? hosts > 1.0 : local > 1.0) ? (ranks - 1.0) * shard : 0.0;
    } else {
        *messages = between ? ranks - local : local - 1.0;
        *volume = between ? local * (ranks - local) * shard : (local - 1.0) * shard;
    }
}

/* Copies within a host are the cores' work: of fewer cores they take longer. */
static double copying(const espl_network *network, const espl_net_job *job) {
    return !network->hidden && network->cores > 0.0 && job->cores > 0.0 ? network->cores / fmin(job->cores, 1.0) : 1.0;
}

double espl_network_seconds(const espl_network *network, espl_net_op op, const espl_net_job *job, double bytes) {
    double latency = 0.0, longest = 0.0;
    for (int between = 0; between < 2 && job->ranks > 1; between++) {
        const espl_net_link *link = between ? &network->between[op] : &network->within[op];
        double messages, volume, slower = between ? 1.0 : copying(network, job);
        espl_network_terms(network, op, job, bytes, between, &messages, &volume);
        if (messages > 0.0)
            latency += messages * link->latency * slower;
        if (volume > 0.0 && link->bandwidth > 0.0)
            longest = fmax(longest, volume / link->bandwidth * slower);
    }
    return latency + longest;
}

espl_status espl_network_check(const espl_network *network, const espl_net_job *job) {
    bool several = espl_net_hosts(job) > 1;
    if (several && !(network->between[ESPL_NET_RING].bandwidth > 0.0))
        ESPL_FAIL(ESPL_ERR_USAGE, "network '%s' says nothing of links between hosts, and %d ranks are on %d hosts; measure it on two hosts",
                  network->name, job->ranks, espl_net_hosts(job));
    if (!several && job->ranks > 1 && !(network->within[ESPL_NET_RING].bandwidth > 0.0))
        ESPL_FAIL(ESPL_ERR_USAGE, "network '%s' says nothing of links within a host, and %d ranks are on one; measure it on one host",
                  network->name, job->ranks);
    return ESPL_OK;
}

/* m a + v b = t by least squares, each square over t: so that neither the many small arrays nor the few large ones decide alone. */
typedef struct equations {
    double mm, mv, vv, m, v;
} equations;

static equations sum_up(const espl_net_sample *samples, int n) {
    equations e = {0};
    for (int i = 0; i < n; i++) {
        double m = samples[i].messages, v = samples[i].volume, t = samples[i].seconds;
        e.mm += m * m / t;
        e.mv += m * v / t;
        e.vv += v * v / t;
        e.m += m;
        e.v += v;
    }
    return e;
}

espl_net_link espl_network_fit(const espl_net_sample *samples, int n, double *error) {
    const equations e = sum_up(samples, n);
    double det = e.mm * e.vv - e.mv * e.mv;
    double a = det > 1e-12 * e.mm * e.vv ? (e.m * e.vv - e.v * e.mv) / det : -1.0;
    double b = det > 1e-12 * e.mm * e.vv ? (e.v * e.mm - e.m * e.mv) / det : -1.0;
    *error = 0.0;
    if (!(e.vv > 0.0))
        return (espl_net_link){0};
    if (a < 0.0) { /* what is below zero is left out, and the other fitted alone */
        a = 0.0;
        b = e.v / e.vv;
    } else if (b <= 0.0) {
        b = 1e-15;
        a = e.m / e.mm;
    }
    for (int i = 0; i < n; i++)
        *error = fmax(*error, fabs((samples[i].messages * a + samples[i].volume * b) / samples[i].seconds - 1.0));
    return (espl_net_link){.latency = a, .bandwidth = 1.0 / b};
}
