#include "src/train/run.h"

#include "src/core/clock.h"
#include "src/core/log.h"
#include "src/optim/schedule.h"
#include "src/plan/costs.h"
#include "src/train/feed/streams.h"

#include <math.h>
#include <string.h>

/* ---- Which micro-batches. */

typedef struct place {
    int64_t epoch, k;
} place;

static place next_place(espl_run *run, place p) {
    p.k++;
    while (p.k >= espl_placement_count(run->data.placement, p.epoch)) {
        p.epoch++;
        p.k = 0;
    }
    return p;
}

void espl_run_pass(espl_run *run, int64_t steps) {
    place p = {run->counters.epoch, run->counters.cursor};
    for (int64_t i = 0; i < steps * run->blueprint.micro_batches; i++)
        p = next_place(run, p);
    run->counters.epoch = p.epoch;
    run->counters.cursor = p.k;
}

/* All targets of a step, on all ranks, and what the sum of their losses is divided by: every rank counts the same in the same order. */
typedef struct goal {
    int64_t targets;
    double weight;
} goal;

/* Walks the step's micro-batches: counts the targets of all, notes where this rank's begin, and returns where the next step begins. */
static place survey(espl_run *run, int64_t first, place *mine, goal *all) {
    place p = {run->counters.epoch, run->counters.cursor};
    *all = (goal){0};
    for (int64_t i = 0; i < run->blueprint.micro_batches; i++) {
        if (i == first)
            *mine = p;
        double weight;
        all->targets += espl_placement_targets(run->data.placement, p.epoch, p.k, &weight);
        all->weight += weight;
        p = next_place(run, p);
    }
    return p;
}

static void fill_streams(const espl_run *run, int64_t micro, float loss_scale, espl_streams *streams) {
    espl_batch common = {.loss_scale = loss_scale,
                         .training = 1,
                         .rng = {.seed = (uint64_t)run->config->run_seed,
                                 .purpose = ESPL_RNG_DROPOUT,
                                 .step = (uint32_t)run->counters.step,
                                 .micro = (uint32_t)micro}};
    espl_streams_fill(run->model, &run->memory.sample, &common, streams);
}

/* Where gradients lie all the step long; else they are zeroed when a bucket opens. */
static void zero_gaps(const espl_run *run) {
    for (int b = 0; b < run->model->n_buckets && !run->blueprint.sharded; b++)
        if (run->phases.buckets[b])
            espl_run_zero_gaps(run, b);
}

static espl_status micro_batches(espl_run *run, place mine, const espl_micro_share *share, float loss_scale, espl_step_result *result) {
    espl_streams streams;
    for (int64_t i = 0; i < share->count; i++) {
        double before = espl_now();
        espl_placement_fill(run->data.placement, mine.epoch, mine.k, &run->memory.sample);
        result->data_seconds += espl_now() - before;
        fill_streams(run, share->first + i * share->stride, loss_scale, &streams);
        espl_reducer_begin(run->memory.reducer, i);
        ESPL_TRY(espl_run_micro_batch(run, &streams.main, i, share->count));
        espl_reducer_done(run->memory.reducer, i);
        result->tokens += streams.main.n + streams.source.n;
        for (int64_t k = 0; k < share->stride; k++)
            mine = next_place(run, mine);
    }
    return espl_reducer_finish(run->memory.reducer);
}

/* ---- Agreeing. */

enum { VOTE_STOP = 2 * ESPL_EXACT_WORDS, VOTE_WALLTIME, VOTE_TOKENS, VOTE_TIMES };

_Static_assert((int)VOTE_TIMES == (int)ESPL_STEP_VOTES, "each rank's time stands behind what all add up");

/* Squares of the gradients that this rank counts, then both sums: the only time in a step that the host waits for its device. */
static espl_status own_sums(espl_run *run, espl_exact sums[ESPL_N_SUMS]) {
    for (int b = 0; b < run->model->n_buckets; b++) {
        int64_t n;
        if (!run->phases.buckets[b])
            continue;
        const float *counted = espl_memory_counted(&run->blueprint, &run->memory, b, &n);
        run->engine.kernels->sum_squares(counted, n, &run->memory.sums[ESPL_SUM_SQUARES]);
    }
    espl_comm_beat(run->comm, run->counters.step + 1, "waiting for the device");
    return run->engine.calls->read(run->engine.device, sums, run->memory.sums, ESPL_N_SUMS * sizeof *sums);
}

/* Rank 0's, whose votes alone count: what the job's end asks for, knowing what is evaluated before the next vote. */
static espl_walltime_vote ask_walltime(espl_run *run) {
    int64_t step = run->counters.step + 1, every = run->config->train_eval_every;
    return espl_walltime_decide(&run->walltime, espl_now(), espl_run_due(every, step) + espl_run_due(every, step + 1));
}

/* One reduction of integers: loss and squared norm as exact sums, stop votes, the job's end, tokens, and what each rank took, which has a
 * place of its own for each. All ranks see the same. */
static espl_status agree(espl_run *run, espl_exact sums[ESPL_N_SUMS], const goal *all, espl_step_result *result) {
    espl_exact *loss = &sums[ESPL_SUM_LOSS], *squares = &sums[ESPL_SUM_SQUARES];
    int64_t *words = run->votes, *times = words + VOTE_TIMES;
    espl_exact_normalise(loss);
    espl_exact_normalise(squares);
    memcpy(&words[0], loss, sizeof *loss);
    memcpy(&words[ESPL_EXACT_WORDS], squares, sizeof *squares);
    words[VOTE_STOP] = run->stop_requested != NULL && run->stop_requested();
    words[VOTE_WALLTIME] = ask_walltime(run);
    words[VOTE_TOKENS] = result->tokens;
    memset(times, 0, (size_t)run->ranks->size * sizeof *times);
    times[run->ranks->rank] = (int64_t)(1e9 * result->own_seconds);
    espl_comm_beat(run->comm, run->counters.step + 1, "agreeing on loss and norm");
    ESPL_TRY(espl_comm_allreduce_i64(run->comm, words, VOTE_TIMES + (size_t)run->ranks->size, ESPL_SUM));
    memcpy(loss, &words[0], sizeof *loss);
    memcpy(squares, &words[ESPL_EXACT_WORDS], sizeof *squares);
    result->loss = loss->n_nonfinite > 0 ? NAN : espl_exact_value(loss) / (all->weight > 0.0 ? all->weight : 1.0);
    result->grad_norm = squares->n_nonfinite > 0 ? NAN : sqrt(espl_exact_value(squares));
    result->stop = words[VOTE_STOP] > 0;
    result->walltime = (espl_walltime_vote)words[VOTE_WALLTIME];
    result->tokens = words[VOTE_TOKENS];
    result->targets = all->targets > 0 ? all->targets : 1;
    return ESPL_OK;
}

/* ---- Judging. */

static espl_status judge(espl_run *run, espl_step_result *result) {
    espl_counters *c = &run->counters;
    const espl_vitals vitals = {
        .step = c->step + 1, .loss = result->loss, .grad_norm = result->grad_norm, .skipped_in_row = c->skipped_in_row};
    espl_verdict verdict;
    ESPL_TRY(espl_judge(run->config, &vitals, &run->spikes, run->metrics, &verdict));
    result->skipped = verdict.skip;
    result->bad_since = verdict.bad_since;
    c->skipped += verdict.skip;
    c->skipped_in_row = verdict.skip ? c->skipped_in_row + 1 : 0;
    return ESPL_OK;
}

/* ---- Updating. */

static double clip_factor(const espl_config *config, double norm) {
    double factor = config->train_clip_norm / (norm + 1e-6);
    return config->train_clip_norm > 0.0 && factor < 1.0 ? factor : 1.0;
}

/* Bucket after bucket, in the order in which forward reads them: update what is ours, send it on its way, update the next. The next
 * forward waits for what it needs (flow.h). What a checkpoint's snapshot still reads is changed first here: the device waits for it, if it
 * has to. */
static espl_status update(espl_run *run, const espl_step_result *result) {
    double scale = clip_factor(run->config, result->grad_norm);
    ESPL_TRY(run->engine.calls->let_fetch(run->engine.device));
    for (int b = 0; b < run->model->n_buckets; b++) {
        if (!run->phases.buckets[b])
            continue;
        espl_optimizer_update(&run->optimizer, b, run->counters.updates, result->lr, scale);
        if (!run->blueprint.owner.replicated && run->memory.gather != NULL)
            ESPL_TRY(espl_gather_start(run->memory.gather, b));
    }
    return ESPL_OK;
}

/* ---- Phases. */

static void tell_phase(const espl_run *run) {
    const espl_model *m = run->model;
    int now = run->phases.now;
    const char *what = m->phases[now].what;
    espl_amount amount = espl_costs_amount(m, run->blueprint.capacity, (double)espl_blueprint_length(run->config, m));
    double flops = espl_costs_train_flops(espl_run_tape(run), &amount);
    espl_metrics_work(run->metrics, flops / (amount.rows[ESPL_STREAM_MAIN] + amount.rows[ESPL_STREAM_SOURCE]));
    if (m->n_phases > 1 && run->ranks->rank == 0)
        ESPL_INFO("phase %d of %d from step %lld on%s%s: %lld of %lld parameters are trained", now + 1, m->n_phases,
                  (long long)run->phases.steps[now] + 1,
                  now > 0           ? ", with "
                  : what[0] != '\0' ? ", "
                                    : "",
                  what, (long long)espl_model_phase_numel(m, now), (long long)espl_model_numel(m));
}

/* Another tape from here on: what was recorded of the last one goes, once the device is done with it. */
static espl_status begin_phase(espl_run *run) {
    ESPL_TRY(run->engine.calls->sync(run->engine.device));
    espl_run_forget(run);
    run->tried = false;
    run->optimizer.phase = run->phases.now;
    espl_reducer_use(run->memory.reducer, run->phases.buckets);
    if (run->blueprint.sharded) {
        const espl_flow *flow = &run->blueprint.flows[run->phases.now];
        espl_reducer_place(run->memory.reducer, flow->gradients, flow->stages);
    }
    tell_phase(run);
    return ESPL_OK;
}

/* ---- The step. */

espl_status espl_run_step(espl_run *run, espl_step_result *result) {
    espl_exact sums[ESPL_N_SUMS];
    const espl_micro_share share = espl_blueprint_share(&run->blueprint);
    goal all;
    place mine = {0, 0};
    double start = espl_now(), waited = espl_comm_wait_seconds(run->comm);
    *result = (espl_step_result){.epoch = run->counters.epoch};
    if (espl_phases_enter(&run->phases, run->counters.step, run->counters.updates))
        ESPL_TRY(espl_run_device(run, begin_phase(run)));
    place next = survey(run, share.first, &mine, &all);
    zero_gaps(run);
    run->engine.kernels->zero(run->memory.sums, sizeof sums);
    float scale = all.weight > 0.0 ? (float)(1.0 / all.weight) : 0.0f;
    ESPL_TRY(espl_run_device(run, micro_batches(run, mine, &share, scale, result)));
    ESPL_TRY(espl_run_device(run, own_sums(run, sums)));
    result->own_seconds = (espl_now() - start - (espl_comm_wait_seconds(run->comm) - waited)) / (double)share.count;
    ESPL_TRY(agree(run, sums, &all, result));
    ESPL_TRY(judge(run, result));
    double before_update = espl_now();
    result->lr = espl_schedule_rate(run->config, run->counters.step + 1, run->total_steps);
    run->counters.epoch = next.epoch;
    run->counters.cursor = next.k;
    if (result->bad_since > 0)
        return ESPL_OK;
    if (!result->skipped) {
        run->counters.updates++;
        ESPL_TRY(espl_run_device(run, update(run, result)));
    }
    run->counters.step++;
    run->counters.tokens += result->tokens;
    result->update_seconds = espl_now() - before_update;
    result->wait_seconds = espl_comm_wait_seconds(run->comm) - waited;
    result->seconds = espl_now() - start;
    return ESPL_OK;
}
