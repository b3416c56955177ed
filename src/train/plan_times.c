#include "src/train/plan_times.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>

enum { STEPS = 200, MOST_FAILURES = 1000000 };
#define SIMULATED_SECONDS (30.0 * 86400.0)

/* What a timeline is made from. */
typedef struct maker {
    const espl_blueprint *b;
    const espl_amount *amount;
    const espl_net_job *job;
    const espl_times_request *request;
    const espl_tape *tape;
    espl_event *events;
    espl_bucket_times *buckets;
    double slower; /* a rank's calls than the pace's, as ranks share cores */
} maker;

/* ---- Compute. */

/* By how much a rank's calls are slower than what was measured with other cores. */
static double fewer_cores(const maker *m) {
    const espl_times_request *r = m->request;
    double measured = r->measured.compute > 0.0 ? r->measured.cores : r->pace_cores;
    return r->pace_cores > 0.0 ? measured / fmin((double)m->b->threads, m->job->cores) : 1.0;
}

/* Calls by their pace; where a run was measured, all of them scaled so that a micro-batch takes what it took there. */
static void make_events(maker *m) {
    const espl_measured *measured = &m->request->measured;
    double seconds = 0.0;
    for (int i = 0; i < m->tape->n_calls; i++) {
        const espl_call *c = &m->tape->calls[i];
        m->events[i] = (espl_event){.seconds = espl_pace_call(m->tape, i, m->amount, &m->request->pace),
                                    .bucket = c->kind == ESPL_CALL_BUCKET ? c->bucket : -1};
        seconds += m->events[i].seconds;
    }
    m->slower = fewer_cores(m);
    for (int i = 0; i < m->tape->n_calls; i++)
        m->events[i].seconds *= m->slower * (measured->compute > 0.0 ? measured->compute / seconds : 1.0);
}

/* Of an element: what the rule keeps, and the master. */
static double states_bytes(const maker *m) {
    return espl_rule_tensors_bytes(&m->b->tensors, m->b->model, m->b->rule) + (m->b->master ? sizeof(float) : 0.0);
}

/* Bytes that are read and written to update an element: its gradient, twice as it is also squared for the norm; states there and back;
 * masters there and back and the weight there, or the weight there and back. */
static double update_bytes(const maker *m) {
    const double weight = (double)espl_dtype_size(m->b->kernels->real);
    return 8.0 + 2.0 * states_bytes(m) + (m->b->master ? weight : 2.0 * weight);
}

/* Elements of all buckets that take part, as one rank has them. */
static double flat_of(const maker *m) {
    double flat = 0.0;
    for (int i = 0; i < m->b->model->n_buckets; i++)
        if (espl_model_trains_bucket(m->b->model, i, m->tape->phase))
            flat += (double)espl_model_bucket_size(m->b->model, i, 1);
    return flat;
}

/* What lies on the host goes over the bus, both ways at once. */
static double update_seconds(const maker *m, double elements) {
    const espl_measured *measured = &m->request->measured;
    if (measured->compute > 0.0)
        return measured->update * elements / flat_of(m) * m->slower;
    const double far = m->b->offloads ? 2.0 * states_bytes(m) : 0.0, near = update_bytes(m) - far;
    return elements * fmax(near / m->request->pace.memory, 0.5 * far / m->request->pace.host) * m->slower;
}

/* ---- Ranks. */

/* A group of ranks. */
static espl_net_job inside_job(const maker *m) {
    espl_net_job job = *m->job;
    job.ranks = m->b->owner.shards;
    return job;
}

/* Of a shard's elements: a sum over the groups, and back. As many go on at once as a host has ranks of a group, and share its links. */
static double across_seconds(const maker *m, espl_net_op op, double elements) {
    const int group = m->b->owner.shards, of_host = group < m->job->per_host ? group : m->job->per_host;
    const espl_net_job job = {.ranks = m->b->owner.n_groups, .per_host = m->job->per_host / of_host, .cores = m->job->cores};
    double bytes = elements * sizeof(float) * (espl_net_hosts(&job) > 1 ? of_host : 1);
    return espl_network_seconds(m->request->network, op, &job, bytes) +
           espl_network_seconds(m->request->network, ESPL_NET_GATHER, &job, bytes);
}

/* Pieces of an exchange follow each other. */
static double sum_seconds(const maker *m, double elements) {
    const espl_net_op op = m->b->narrow ? ESPL_NET_EXCHANGE : m->b->tree ? ESPL_NET_TREE : ESPL_NET_RING;
    const espl_net_job job = inside_job(m);
    double pieces = m->b->narrow ? ceil(elements / (double)espl_reducer_chunk(job.ranks)) : 1.0,
           bytes = elements * (m->b->narrow ? 2.0 : 4.0);
    return pieces * espl_network_seconds(m->request->network, op, &job, bytes / pieces) + across_seconds(m, op, elements / job.ranks);
}

static double gather_seconds(const maker *m, double elements) {
    double size = (double)espl_dtype_size(m->b->owner.replicated ? ESPL_F32 : m->b->kernels->real);
    const espl_net_job job = inside_job(m);
    return espl_network_seconds(m->request->network, ESPL_NET_GATHER, &job, elements * size);
}

static void make_buckets(maker *m) {
    const espl_model *model = m->b->model;
    for (int i = 0; i < model->n_buckets; i++) {
        if (!espl_model_trains_bucket(model, i, m->tape->phase))
            continue;
        double elements = (double)espl_model_bucket_size(model, i, m->job->ranks);
        m->buckets[i].update = update_seconds(m, m->b->owner.replicated ? elements : elements / m->b->owner.shards);
        if (m->job->ranks > 1) {
            m->buckets[i].sum = sum_seconds(m, elements);
            m->buckets[i].gather = m->b->owner.cut ? 0.0 : gather_seconds(m, elements);
        }
    }
}

static void make_fetch(maker *m, const espl_move *move) {
    espl_event *event = &m->events[move->call];
    double *seconds = move->next ? &event->next : move->window == 0 ? &event->exposed : &event->fetch;
    *seconds += gather_seconds(m, (double)espl_model_bucket_size(m->b->model, move->bucket, m->job->ranks));
}

/* Which weights calls wait for: those of the last update, and those that are gathered for each use. */
static void make_moves(maker *m) {
    const espl_flow *flow = &m->b->flows[m->tape->phase];
    for (int i = 0; i < flow->n_moves; i++) {
        const espl_move *move = &flow->moves[i];
        if (move->kind == ESPL_MOVE_UPDATED)
            m->buckets[move->bucket].first = move->call;
        if (move->kind == ESPL_MOVE_FETCH)
            make_fetch(m, move);
        if (move->kind == ESPL_MOVE_ARRIVE)
            m->events[move->call].arrives = true;
    }
}

/* A reduction of a few words: there and back through a binary tree. */
static double agree_seconds(const maker *m) {
    const espl_network *n = m->request->network;
    double hosts = espl_net_hosts(m->job), local = fmin(m->job->ranks, m->job->per_host);
    if (m->job->ranks == 1)
        return 0.0;
    return 2.0 * (log2(local) * n->within[ESPL_NET_GATHER].latency + log2(hosts) * n->between[ESPL_NET_GATHER].latency);
}

/* A tree adds up micro-batches one by one: two are read and one is written. What was measured has it. */
static double merge_seconds(const maker *m, int64_t micro_batches) {
    if (!m->b->tree || micro_batches == 1 || m->request->measured.compute > 0.0)
        return 0.0;
    return 3.0 * sizeof(float) * flat_of(m) / m->request->pace.memory * m->slower;
}

static espl_timeline make_timeline(maker *m) {
    int64_t most = (m->b->micro_batches + m->job->ranks - 1) / m->job->ranks;
    make_events(m);
    make_buckets(m);
    make_moves(m);
    return (espl_timeline){.events = m->events,
                           .n_events = m->tape->n_calls,
                           .micro_batches = most,
                           .data = m->request->measured.data * m->slower,
                           .merge = merge_seconds(m, most),
                           .buckets = m->buckets,
                           .n_buckets = m->b->model->n_buckets,
                           .hidden = m->job->ranks > 1 && (m->request->network->hidden || espl_net_hosts(m->job) > 1),
                           .replicated = m->b->owner.replicated && m->job->ranks > 1,
                           .ahead = m->b->flows[m->tape->phase].ahead,
                           .flows = m->b->sharded,
                           .agree = agree_seconds(m)};
}

/* ---- A long run. */

/* A save in the background holds training up while the snapshot is copied; on a GPU that is hidden, but counted as if it were not. */
static void make_failures(const maker *m, espl_times *times) {
    const espl_times_request *r = m->request;
    const espl_blueprint *b = m->b;
    double element = (double)espl_dtype_size(espl_blueprint_truth(b)) + espl_rule_tensors_bytes(&b->tensors, b->model, b->rule);
    times->checkpoint = element * (double)espl_model_trained_numel(b->model);
    times->failures.write = times->checkpoint / r->write;
    times->failures.hold = b->saves_behind ? (double)b->snapshot_bytes / r->pace.host : times->failures.write;
    times->failures.mtbf = r->host_mtbf / espl_net_hosts(m->job);
    times->failures.restart = r->restart + times->failures.write;
    times->young = espl_interval_young(&times->failures);
    times->daly = espl_interval_daly(&times->failures);
    times->interval = fmax(times->daly, times->failures.write);
    times->goodput = espl_failures_goodput(&times->failures, times->interval);
    times->costs = espl_failures_simulate(&times->failures, times->interval, SIMULATED_SECONDS, r->uneven.seed, MOST_FAILURES);
}

espl_status espl_times_make(const espl_blueprint *b, const espl_amount *amount, const espl_net_job *job, const espl_times_request *request,
                            espl_times *times) {
    *times = (espl_times){.job = *job};
    if (job->ranks > 1 && request->network == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "times of %d ranks depend on the network: give --network", job->ranks);
    if (job->ranks > 1)
        ESPL_TRY(espl_network_check(request->network, job));
    if (request->measured.compute > 0.0 && request->measured.tokens != b->micro_batch_tokens)
        ESPL_FAIL(ESPL_ERR_USAGE, "--like is a run with train.micro_batch_tokens %lld, the plan is for %lld; measure one of the same",
                  (long long)request->measured.tokens, (long long)b->micro_batch_tokens);
    maker m = {.b = b, .amount = amount, .job = job, .request = request, .tape = &b->train[b->model->n_phases - 1]};
    m.events = espl_calloc((size_t)m.tape->n_calls, sizeof *m.events);
    m.buckets = espl_calloc((size_t)b->model->n_buckets, sizeof *m.buckets);
    const espl_timeline timeline = make_timeline(&m);
    times->step = espl_timeline_simulate(&timeline, &request->uneven, job->ranks, STEPS, &times->late);
    times->tokens = (double)b->micro_batches * (double)b->micro_batch_tokens;
    times->flops = espl_costs_train_flops(m.tape, amount) * (double)b->micro_batches;
    make_failures(&m, times);
    free(m.events);
    free(m.buckets);
    return ESPL_OK;
}

/* ---- Printing. */

static double mfu(const espl_times *t, double peak) { return t->flops / (t->step.step * t->job.ranks * peak); }

static void print_step(const espl_times *t, const espl_times_request *r, FILE *out) {
    const espl_step_times *s = &t->step;
    fprintf(out, "a step, simulated               seconds  on %s%s%s\n", r->pace.name, t->job.ranks > 1 ? ", network " : "",
            t->job.ranks > 1 ? r->network->name : "");
    fprintf(out, "  %-22s %12.6f  forward and backward%s\n", "compute", s->compute, r->measured.compute > 0.0 ? ", as measured" : "");
    if (s->data > 0.0)
        fprintf(out, "  %-22s %12.6f\n", "data", s->data);
    if (t->job.ranks > 1) {
        fprintf(out, "  %-22s %12.6f  of %.6f in all; the rest is hidden under backward\n", "sums of gradients", s->waits, s->sums);
        fprintf(out, "  %-22s %12.6f\n", "agreeing", s->agree);
        fprintf(out, "  %-22s %12.6f  of %.6f in all; the rest is hidden under updates and forward\n", "gathers", s->gathers,
                s->all_gathers);
    }
    fprintf(out, "  %-22s %12.6f\n", "update", s->update);
    fprintf(out, "  %-22s %12.6f  95 %% of steps under %.6f; %.0f tokens/s, %.1f %% of the peak\n", "step", s->step, t->late,
            t->tokens / s->step, 100.0 * mfu(t, r->pace.peak));
}

static void print_failures(const espl_times *t, const espl_times_request *r, FILE *out) {
    const espl_failures *f = &t->failures;
    const espl_failure_costs *c = &t->costs;
    const double all = c->kept + c->saving + c->lost + c->down;
    fprintf(out, "a long run\n");
    fprintf(out, "  checkpoint             %.1f GB, written in %.1f s at %.4g GB/s; holds training up for %.2f s\n", t->checkpoint * 1e-9,
            f->write, r->write * 1e-9, f->hold);
    fprintf(out,
            "  a failure              every %.1f h (a host's every %.0f h, of %d): %.0f steps again, on average, %.0f s until training "
            "goes on\n",
            f->mtbf / 3600.0, r->host_mtbf / 3600.0, espl_net_hosts(&t->job), (0.5 * t->interval + f->write) / t->step.step, f->restart);
    fprintf(out, "  between saves          %.0f s by Young, %.0f s by Daly; taken: %.0f s, checkpoint.every %.0f\n", t->young, t->daly,
            t->interval, ceil(t->interval / t->step.step));
    fprintf(out, "  goodput                %.2f %% by Daly's formula; simulated %.2f %%, %lld failures in %.0f days of work\n",
            100.0 * t->goodput, 100.0 * c->kept / all, (long long)c->failures, c->kept / 86400.0);
    fprintf(out, "  time lost              %.2f %% saving, %.2f %% work done again, %.2f %% restarting\n", 100.0 * c->saving / all,
            100.0 * c->lost / all, 100.0 * c->down / all);
}

void espl_times_print(const espl_times *times, const espl_times_request *request, FILE *out) {
    print_step(times, request, out);
    print_failures(times, request, out);
}

void espl_times_print_row(const espl_times *t, const espl_times *first, double memory, double wire, FILE *out) {
    if (t == NULL) {
        fprintf(out, "ranks    hosts      step s      tokens/s  efficiency  waiting   MiB a rank    MiB sent  goodput\n");
        return;
    }
    double speed = t->tokens / t->step.step, alone = first->tokens / first->step.step / first->job.ranks;
    fprintf(out, "%5d %8d %11.5f %13.0f %9.1f %% %6.1f %% %12.0f %11.1f %6.2f %%\n", t->job.ranks, espl_net_hosts(&t->job), t->step.step,
            speed, 100.0 * speed / t->job.ranks / alone, 100.0 * (t->step.waits + t->step.agree + t->step.gathers) / t->step.step,
            memory / 1048576.0, wire / 1048576.0, 100.0 * t->goodput);
}

json_t *espl_times_to_json(const espl_times *t) {
    const espl_step_times *s = &t->step;
    const espl_failure_costs *c = &t->costs;
    json_t *step = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "data", s->data, "compute", s->compute, "waits",
                             s->waits, "agree", s->agree, "update", s->update, "gathers", s->gathers, "step", s->step, "late", t->late,
                             "sums", s->sums, "all_gathers", s->all_gathers);
    json_t *run = json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "checkpoint_bytes", t->checkpoint,
                            "write", t->failures.write, "hold", t->failures.hold, "mtbf", t->failures.mtbf, "restart", t->failures.restart,
                            "young", t->young, "daly", t->daly, "interval", t->interval, "goodput", t->goodput, "kept", c->kept, "saving",
                            c->saving, "lost", c->lost, "down", c->down, "failures", (json_int_t)c->failures);
    return json_pack("{s:i, s:i, s:f, s:o, s:o}", "ranks", t->job.ranks, "hosts", espl_net_hosts(&t->job), "tokens_per_second",
                     t->tokens / s->step, "step_seconds", step, "run", run);
}
