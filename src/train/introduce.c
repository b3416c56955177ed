#include "src/train/introduce.h"

#include "src/core/clock.h"
#include "src/core/log.h"

static void introduce_device(const espl_run *run) {
    const espl_engine *e = &run->engine;
    if (run->device_reason[0] != '\0')
        ESPL_INFO("run.device is auto: the CPU, because %s", run->device_reason);
    else if (run->config->run_device == ESPL_DEVICE_AUTO)
        ESPL_INFO("run.device is auto: GPUs, because every rank has one");
    if (e->calls->remote)
        ESPL_INFO("%s number %d of %d (%s), %.1f of %.1f MiB free; %s", e->info.name, e->info.ordinal, e->info.n_devices, e->name,
                  (double)e->info.bytes_free / 1048576.0, (double)e->info.bytes_total / 1048576.0, e->info.libraries);
}

static void introduce_rates(const espl_run *run) {
    double low, high, peak = run->config->optim_lr;
    espl_model_rate_span(run->model, &low, &high);
    if (low != 1.0 || high != 1.0)
        ESPL_INFO("learning rates differ between parameters: optim.lr times %.4g to %.4g, %.3g to %.3g at its peak", low, high, peak * low,
                  peak * high);
}

/* What is planned for a time that the run does not see is most likely a slip. */
static void warn_of_phases(const espl_run *run) {
    for (int i = 1; i < run->model->n_phases; i++)
        if (run->phases.steps[i] >= run->total_steps)
            ESPL_WARN("tune.unfreeze: %s would join after %lld steps, but the run has %lld: it is never trained",
                      run->model->phases[i].what, (long long)run->phases.steps[i], (long long)run->total_steps);
}

static void introduce_groups(const espl_run *run) {
    const espl_ranks *r = run->ranks;
    if (r->n_groups > 1)
        ESPL_INFO("run.shard_group %s: %d groups of %d ranks; what run.sharding: %s cuts is cut within a group",
                  run->config->run_shard_group, r->n_groups, r->group_size,
                  espl_config_choice("run", "sharding", run->config->run_sharding));
}

static void introduce_optimizer(const espl_run *run) {
    if (run->blueprint.offloads)
        ESPL_INFO("run.offload optimizer: what the optimizer keeps (%.1f MiB) lies in pinned memory of the host",
                  (double)run->memory.arenas[ESPL_ARENA_OPT].capacity / 1048576.0);
    else if (run->config->run_offload == ESPL_OFFLOAD_OPTIMIZER)
        ESPL_INFO("run.offload optimizer: kernels run on the CPU, so what the optimizer keeps is in the host's memory anyway");
    if (run->blueprint.tensors.of != NULL && run->ranks->size > 1 && run->config->run_sharding == ESPL_SHARDING_OPTIMIZER)
        ESPL_INFO("optim.name %s works on whole matrices: every rank keeps all of its state, as with run.sharding: none",
                  espl_rules[run->blueprint.rule].name);
}

void espl_run_introduce(const espl_run *run) {
    const espl_dims *d = &run->model->dims;
    introduce_device(run);
    ESPL_INFO("%s: %.1f M parameters, %lld layers, width %lld, %d heads, vocabulary %lld", run->model->family->model_type,
              (double)espl_model_numel(run->model) * 1e-6, (long long)d->layers, (long long)d->width, d->heads, (long long)d->vocab);
    if (run->model->frozen_numel > 0)
        ESPL_INFO("trained: %lld of %lld parameters (%.4g %%), the others are frozen", (long long)espl_model_trained_numel(run->model),
                  (long long)espl_model_numel(run->model),
                  100.0 * (double)espl_model_trained_numel(run->model) / (double)espl_model_numel(run->model));
    introduce_rates(run);
    warn_of_phases(run);
    introduce_groups(run);
    introduce_optimizer(run);
    ESPL_INFO("%s, %d rank%s on %d node%s, %d thread%s each; matrix peak %.0f GFLOP/s",
              run->engine.calls->remote ? run->engine.kernels->name : espl_kernels_describe(), run->ranks->size,
              run->ranks->size > 1 ? "s" : "", run->ranks->n_nodes, run->ranks->n_nodes > 1 ? "s" : "", run->blueprint.threads,
              run->blueprint.threads > 1 ? "s" : "", run->peak_flops * 1e-9);
    ESPL_INFO("data: %lld tokens in %lld micro-batches; %lld steps of %lld micro-batches of up to %lld tokens",
              (long long)run->data.n_tokens, (long long)espl_placement_count(run->data.placement, 0), (long long)run->total_steps,
              (long long)run->blueprint.micro_batches, (long long)run->blueprint.micro_batch_tokens);
    espl_walltime_tell(&run->walltime, espl_now());
}
