#include "src/plan/timeline.h"

#include "src/core/buffer.h"
#include "src/core/rng.h"
#include "src/core/status.h"

#include <math.h>
#include <stdlib.h>

enum { MOST_STEPS = 10000, DRAW_JITTER = 0, DRAW_STRAGGLER = 1 };

/* Two clocks: when compute is done with what it has begun, and when the network is. */
typedef struct clocks {
    double compute, network;
    double fetched, summed; /* when the network was done with the last weights, the last sum */
} clocks;

static double occupy(const espl_timeline *t, clocks *c, double seconds) {
    if (t->hidden) {
        c->network = fmax(c->network, c->compute) + seconds;
        return 0.0;
    }
    c->compute += seconds;
    c->network = c->compute;
    return seconds;
}

static double wait_until(clocks *c, double then) {
    double before = c->compute;
    c->compute = fmax(c->compute, then);
    return c->compute - before;
}

/* Compute waits for the network. */
static double wait(clocks *c) { return wait_until(c, c->network); }

/* A micro-batch call by call. */
typedef struct passage {
    const double *there; /* [buckets] when the weights of the last update are */
    bool first, last;    /* of the step */
    bool sums;
} passage;

/* Weights that a call needs, and those that come meanwhile; what this took of compute's time. */
static double fetching(const espl_timeline *t, const espl_event *event, const passage *p, clocks *c, double *gathers) {
    const double before = c->compute, exposed = p->first || !t->ahead ? event->exposed : 0.0,
                 later = event->fetch + (p->last ? 0.0 : event->next);
    if (exposed > 0.0) {
        occupy(t, c, exposed);
        wait(c);
    }
    if (event->arrives)
        wait_until(c, c->fetched);
    if (later > 0.0) {
        occupy(t, c, later);
        c->fetched = c->network;
    }
    *gathers += exposed + later;
    return c->compute - before;
}

static double micro_batch_seconds(const espl_timeline *t) {
    double seconds = 0.0;
    for (int i = 0; i < t->n_events; i++)
        seconds += t->events[i].seconds;
    return seconds;
}

/* Waits for those that event i is the first to use. */
static double arriving(const espl_timeline *t, int i, const passage *p, clocks *c) {
    double taken = 0.0;
    for (int b = 0; b < t->n_buckets && p->first; b++)
        if (t->buckets[b].first == i)
            taken += wait_until(c, p->there[b]);
    return taken;
}

/* What sums took of compute's time, or kept it waiting. */
static double micro_batch(const espl_timeline *t, double slowest, const passage *p, clocks *c, espl_step_times *times) {
    double taken = 0.0;
    for (int i = 0; i < t->n_events; i++) {
        const int bucket = t->events[i].bucket;
        times->gathers += arriving(t, i, p, c);
        times->gathers += fetching(t, &t->events[i], p, c, &times->all_gathers);
        c->compute += t->events[i].seconds * slowest;
        if (bucket < 0 || !p->sums)
            continue;
        if (t->flows)
            taken += wait_until(c, c->summed);
        taken += occupy(t, c, t->buckets[bucket].sum);
        c->summed = c->network;
        times->sums += t->buckets[bucket].sum;
    }
    return taken;
}

static double gather_sums(const espl_timeline *t, clocks *c) {
    double seconds = 0.0;
    for (int b = 0; b < t->n_buckets && t->replicated; b++)
        seconds += t->buckets[b].gather;
    c->compute += seconds;
    return seconds;
}

/* Returns what gathers of weights added to the updates; there: when each bucket's are done. */
static double update(const espl_timeline *t, clocks *c, double *there, espl_step_times *times) {
    double taken = 0.0;
    c->network = c->compute;
    for (int b = 0; b < t->n_buckets; b++) {
        c->compute += t->buckets[b].update;
        times->update += t->buckets[b].update;
        there[b] = 0.0;
        if (t->replicated || t->buckets[b].gather == 0.0)
            continue;
        taken += occupy(t, c, t->buckets[b].gather);
        times->all_gathers += t->buckets[b].gather;
        there[b] = c->network;
    }
    return taken;
}

/* The end of the update before is the beginning of a step: what it has left under way, counted from there. */
static clocks begin_step(const espl_timeline *t, double *there) {
    clocks c = {0};
    update(t, &c, there, &(espl_step_times){0});
    for (int b = 0; b < t->n_buckets; b++)
        there[b] -= c.compute;
    return (clocks){.network = fmax(c.network - c.compute, 0.0)};
}

espl_step_times espl_timeline_step(const espl_timeline *t, double slowest) {
    const double one = micro_batch_seconds(t) * slowest;
    double *there = espl_malloc((size_t)t->n_buckets * sizeof *there);
    espl_step_times times = {.data = (double)t->micro_batches * t->data, .compute = (double)t->micro_batches * (one + t->merge)};
    ESPL_ASSERT(t->micro_batches > 0, "%lld micro-batches", (long long)t->micro_batches);
    clocks c = begin_step(t, there);
    for (int64_t i = 0; i < t->micro_batches; i++) {
        const bool last = i == t->micro_batches - 1;
        const passage p = {.there = there, .first = i == 0, .last = last, .sums = t->flows || last};
        c.compute += t->data + t->merge;
        if (p.first || p.sums)
            times.waits += micro_batch(t, slowest, &p, &c, &times);
        else
            c.compute += one;
    }
    times.waits += wait(&c);
    const double gathered = gather_sums(t, &c);
    times.gathers += gathered;
    times.all_gathers += gathered;
    times.agree = t->agree;
    c.compute += t->agree;
    times.gathers += update(t, &c, there, &times);
    times.step = c.compute;
    free(there);
    return times;
}

double espl_unevenness_slowest(const espl_unevenness *u, int64_t step, int ranks) {
    const espl_rng_key jitter = {.seed = u->seed, .purpose = ESPL_RNG_SIMULATE, .step = (uint32_t)step, .op = DRAW_JITTER};
    const espl_rng_key straggler = {.seed = u->seed, .purpose = ESPL_RNG_SIMULATE, .step = (uint32_t)step, .op = DRAW_STRAGGLER};
    double slowest = 1.0;
    for (int r = 0; r < ranks && (u->jitter > 0.0 || u->stragglers > 0.0); r++) {
        double factor = u->jitter > 0.0 ? 1.0 + u->jitter * espl_rng_normal(&jitter, (uint64_t)r) : 1.0;
        if (u->stragglers > 0.0 && (double)espl_rng_uniform(espl_rng_u32(&straggler, (uint64_t)r)) < u->stragglers)
            factor *= 2.0;
        slowest = fmax(slowest, factor);
    }
    return slowest;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void add(espl_step_times *sum, const espl_step_times *t, double share) {
    sum->data += share * t->data;
    sum->compute += share * t->compute;
    sum->waits += share * t->waits;
    sum->agree += share * t->agree;
    sum->update += share * t->update;
    sum->gathers += share * t->gathers;
    sum->step += share * t->step;
    sum->sums += share * t->sums;
    sum->all_gathers += share * t->all_gathers;
}

espl_step_times espl_timeline_simulate(const espl_timeline *t, const espl_unevenness *u, int ranks, int steps, double *late) {
    double all[MOST_STEPS];
    espl_step_times mean = {0};
    ESPL_ASSERT(steps > 0 && steps <= MOST_STEPS, "%d steps", steps);
    for (int i = 0; i < steps; i++) {
        espl_step_times one = espl_timeline_step(t, espl_unevenness_slowest(u, i, ranks));
        add(&mean, &one, 1.0 / steps);
        all[i] = one.step;
    }
    qsort(all, (size_t)steps, sizeof *all, ascending);
    *late = all[(steps * 19 + 19) / 20 - 1];
    return mean;
}
