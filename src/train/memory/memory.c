#include "src/train/memory/memory.h"

#include "src/core/buffer.h"
#include "src/optim/optimizer.h"
#include "src/train/feed/streams.h"
#include "src/train/score/text_scores.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[ESPL_N_ARENAS] = {"PARAM", "GRAD", "OPT", "ACT", "WORK", "STAGE"};

const char *espl_arena_name(espl_arena_id id) { return names[id]; }

/* A score that the task does not have would leave every evaluation without a rating. */
static espl_status check_best(const espl_config *config) {
    const char *best = espl_config_choice("eval", "best", config->eval_best), *task = espl_config_choice("data", "task", config->data_task);
    bool texts = espl_text_scores_rate(config);
    if (config->eval_best == ESPL_BEST_LOSS)
        return ESPL_OK;
    if (texts && !config->eval_generate)
        ESPL_FAIL(ESPL_ERR_USAGE, "eval.best is %s, a score of texts, but eval.generate is false: none would be written", best);
    if (texts && !espl_asked_writes(config))
        ESPL_FAIL(
            ESPL_ERR_USAGE,
            "eval.best is %s, a score of texts, which data.task: seq2seq writes and lm with data.records prompts or chat, but data.task is "
            "%s%s",
            best, task, config->data_task == ESPL_TASK_LM ? " with data.records text" : "");
    if (!texts && config->data_task != ESPL_TASK_CLASSIFICATION)
        ESPL_FAIL(ESPL_ERR_USAGE, "eval.best is %s, a score of classifiers, but data.task is %s; expected loss%s", best, task,
                  espl_asked_writes(config) ? " or a score of texts, such as rougeL" : "");
    return ESPL_OK;
}

/* A rank that writes texts needs all weights for every token, and writes as many as it likes. */
static espl_status check_cut_weights(const espl_config *config) {
    if (config->tune_method != ESPL_TUNE_FULL || config->model_adapter[0] != '\0')
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.sharding is parameters, which cuts the weights that are trained, but tune.method %s leaves those frozen that take "
                  "the room, on every rank; set run.sharding: gradients, and tune.base: nf4 for less",
                  espl_config_choice("tune", "method", config->tune_method));
    if (espl_text_scores_rate(config))
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.sharding is parameters, but eval.best %s has texts written during training, which needs all weights on every rank; "
                  "set eval.best: loss, or run.sharding: gradients (espalier evaluate scores the texts of a checkpoint)",
                  espl_config_choice("eval", "best", config->eval_best));
    return ESPL_OK;
}

/* 0: by another word than a number. */
static int group_asked(const espl_config *config) {
    char *end;
    long n = strtol(config->run_shard_group, &end, 10);
    return end != config->run_shard_group && *end == '\0' && n > 1 && n <= INT_MAX ? (int)n : 0;
}

static bool group_is(const espl_config *config, const char *word) { return strcmp(config->run_shard_group, word) == 0; }

int espl_blueprint_group(const espl_config *config, int ranks, int node_size) {
    int size = group_is(config, "all") ? ranks : group_is(config, "node") ? node_size : group_asked(config);
    return size < ranks ? size : ranks;
}

static espl_status check_group(const espl_config *config, int ranks, int node_size) {
    const int size = espl_blueprint_group(config, ranks, node_size);
    if (size == ranks)
        return ESPL_OK;
    if (size < 2)
        ESPL_FAIL(ESPL_ERR_USAGE, "run.shard_group is node, but each node has one rank, which has nobody to share with; set it to all");
    if (ranks % size != 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "run.shard_group is %s: groups of %d ranks must divide the number of ranks (%d); set another, or all",
                  config->run_shard_group, size, ranks);
    if (config->run_reduction_dtype == ESPL_REDUCTION_BF16)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.reduction_dtype is bf16, but run.shard_group %s makes %d groups of %d ranks, whose sums would be rounded again from "
                  "group to group; set run.reduction_dtype: fp32, or run.shard_group: all",
                  config->run_shard_group, ranks / size, size);
    return ESPL_OK;
}

espl_status espl_blueprint_check(const espl_config *config) {
    if (!group_is(config, "all") && !group_is(config, "node") && group_asked(config) == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "run.shard_group is '%s'; expected all, node, or the ranks of a group, a number from 2 on",
                  config->run_shard_group);
    if (config->optim_master == ESPL_MASTER_NONE && config->run_dtype != ESPL_RUN_BF16)
        ESPL_FAIL(ESPL_ERR_USAGE, "optim.master is none, but run.dtype is fp32, whose weights are their own masters; set run.dtype: bf16");
    if (config->run_reduction == ESPL_REDUCTION_TREE && config->run_reduction_dtype == ESPL_REDUCTION_BF16)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.reduction_dtype is bf16, but run.reduction is tree, which gives the same bits on any number of ranks: what one rank "
                  "sums in fp32 several would round; set run.reduction: fast, or run.reduction_dtype: fp32");
    if (config->run_sharding > ESPL_SHARDING_OPTIMIZER && espl_rules[espl_optimizer_rule(config)].matrices != ESPL_MATRICES_NONE)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.sharding is %s, but optim.name %s works on whole matrices, so every rank needs all gradients; set %s",
                  espl_config_choice("run", "sharding", config->run_sharding), espl_config_choice("optim", "name", config->optim_name),
                  "run.sharding: none, or another optim.name");
    if (config->run_sharding == ESPL_SHARDING_PARAMETERS)
        ESPL_TRY(check_cut_weights(config));
    if (config->run_offload != ESPL_OFFLOAD_NONE && espl_rules[espl_optimizer_rule(config)].matrices != ESPL_MATRICES_NONE)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.offload is %s, but optim.name %s reads what it keeps many times an update, over the bus; set run.offload: none, or "
                  "another optim.name",
                  espl_config_choice("run", "offload", config->run_offload), espl_config_choice("optim", "name", config->optim_name));
    if (espl_config_has_prompt(config) && config->tune_prompt_length >= config->train_micro_batch_tokens)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "tune.prompt_length is %lld, which leaves no room for text in a micro-batch of train.micro_batch_tokens %lld; raise that",
                  (long long)config->tune_prompt_length, (long long)config->train_micro_batch_tokens);
    ESPL_TRY(espl_asked_check(config));
    return check_best(config);
}

/* Of a tree over the sums of rounds, each round a node of the tree over micro-batches. */
static bool is_power_of_two(int64_t n) { return (n & (n - 1)) == 0; }

static espl_status check_cut(const espl_config *config, int ranks) {
    const char *sharding = espl_config_choice("run", "sharding", config->run_sharding);
    const long long n = (long long)config->train_micro_batches;
    if (n % ranks != 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.sharding is %s: the number of ranks (%d) must divide train.micro_batches (%lld), as all ranks sum each of theirs "
                  "together; or set run.sharding: optimizer",
                  sharding, ranks, n);
    if (config->run_reduction == ESPL_REDUCTION_TREE && !is_power_of_two(n))
        ESPL_FAIL(
            ESPL_ERR_USAGE,
            "run.sharding is %s and run.reduction tree: train.micro_batches (%lld) must be a power of two, so that what the ranks sum "
            "at a time is a node of the tree; or set run.sharding: optimizer",
            sharding, n);
    return ESPL_OK;
}

espl_status espl_blueprint_check_ranks(const espl_config *config, int ranks, int node_size) {
    const long long n = (long long)config->train_micro_batches;
    if (n < ranks)
        ESPL_FAIL(ESPL_ERR_USAGE, "%d ranks, but train.micro_batches is %lld: a step needs at least one micro-batch a rank", ranks, n);
    if (config->run_reduction == ESPL_REDUCTION_TREE && (!is_power_of_two(ranks) || n % ranks != 0))
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "run.reduction: tree: the number of ranks (%d) must be a power of two that divides train.micro_batches (%lld); start "
                  "another number, or set run.reduction: fast",
                  ranks, n);
    ESPL_TRY(check_group(config, ranks, node_size));
    return ranks > 1 && config->run_sharding > ESPL_SHARDING_OPTIMIZER ? check_cut(config, ranks) : ESPL_OK;
}

espl_room espl_blueprint_room(const espl_config *config, const espl_model *model) {
    return espl_room_of(config, espl_model_positions(model), espl_model_prompt(model, ESPL_STREAM_MAIN));
}

int64_t espl_blueprint_length(const espl_config *config, const espl_model *model) {
    int64_t length = config->data_sequence_length > 0 ? config->data_sequence_length : espl_model_positions(model);
    const espl_stream first = model->dims.source_layers > 0 ? ESPL_STREAM_SOURCE : ESPL_STREAM_MAIN;
    int64_t most = config->train_micro_batch_tokens - espl_model_prompt(model, first);
    return length < most ? length : most;
}

static int64_t more(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t espl_blueprint_reach(const espl_config *config, const espl_model *model) {
    const int64_t length = espl_blueprint_length(config, model), positions = espl_model_positions(model),
                  whole = length + config->generate_max_new_tokens;
    if (!espl_text_scores_rate(config) || config->data_task == ESPL_TASK_SEQ2SEQ)
        return length;
    return more(length, whole < positions ? whole : positions);
}

/* The decoder that writes texts for evaluations: a part of the plan, like a tape. */
static void plan_texts(const espl_config *config, espl_blueprint *b) {
    espl_arena act = espl_arena_measure("ACT"), work = espl_arena_measure("WORK"), host = espl_arena_measure("STAGE");
    memcpy(b->reserved, b->capacity, sizeof b->reserved);
    if (!espl_text_scores_rate(config))
        return;
    espl_decoder_size size = espl_text_scores_size(config, espl_blueprint_length(config, b->model));
    size.model = b->model;
    size.kernels = b->kernels;
    size.remote = b->remote;
    size.threads = b->threads;
    b->texts = espl_decoder_plan(&size);
    espl_decoder_take(b->texts, &act, &work, &host);
    b->texts_act = act.used;
    b->texts_work = work.used;
    b->texts_host = host.used;
    const espl_capacity *own = espl_decoder_capacity(b->texts);
    for (int s = 0; s < ESPL_N_STREAMS; s++)
        b->reserved[s] = (espl_capacity){more(b->capacity[s].rows, own[s].rows), more(b->capacity[s].segments, own[s].segments), 0};
}

static void make_flows(espl_blueprint *b) {
    espl_flow_way way = {.ranks = b->owner.ranks,
                         .shards = b->owner.shards,
                         .updates = b->owner.ranks > 1 && !b->owner.replicated && !b->owner.cut,
                         .gradients = b->sharded,
                         .weights = b->owner.cut,
                         .ahead = true,
                         .tree = b->tree,
                         .narrow = b->narrow};
    b->flows = espl_malloc((size_t)b->model->n_phases * sizeof *b->flows);
    for (int p = 0; p < b->model->n_phases; p++)
        espl_flow_make(&b->train[p], &way, &b->flows[p]);
    way.updates = way.gradients = way.ahead = false;
    espl_flow_make(&b->eval, &way, &b->eval_flow);
}

static espl_owner owner_of(const espl_ranks *r) {
    return (espl_owner){
        .rank = r->rank, .ranks = r->size, .shard = r->place, .shards = r->group_size, .group = r->group, .n_groups = r->n_groups};
}

void espl_blueprint_make(const espl_config *config, const espl_model *model, const espl_kernels *kernels, bool remote,
                         const espl_ranks *ranks, int threads, espl_blueprint *b) {
    const bool several = ranks->size > 1;
    *b = (espl_blueprint){.model = model,
                          .kernels = kernels,
                          .remote = remote,
                          .owner = owner_of(ranks),
                          .threads = threads,
                          .room = espl_blueprint_room(config, model),
                          .micro_batch_tokens = config->train_micro_batch_tokens,
                          .micro_batches = config->train_micro_batches,
                          .tree = config->run_reduction == ESPL_REDUCTION_TREE,
                          .narrow = config->run_reduction_dtype == ESPL_REDUCTION_BF16,
                          .rule = espl_optimizer_rule(config),
                          .saves_behind =
                              config->checkpoint_background && (config->checkpoint_every > 0 || config->checkpoint_memory_every > 0),
                          .offloads = remote && config->run_offload == ESPL_OFFLOAD_OPTIMIZER,
                          .master = kernels->real != ESPL_F32 && config->optim_master == ESPL_MASTER_FP32};
    espl_rule_tensors_make(model, b->rule, config->optim_muon_scale == ESPL_MUON_SCALE_MATCH_RMS_ADAMW, ranks->size, &b->tensors);
    b->rule_work = espl_rule_tensors_work(&b->tensors, model, kernels, b->rule, threads);
    b->owner.replicated = config->run_sharding == ESPL_SHARDING_NONE || b->tensors.of != NULL;
    b->owner.cut = several && config->run_sharding == ESPL_SHARDING_PARAMETERS;
    b->sharded = several && config->run_sharding > ESPL_SHARDING_OPTIMIZER;
    espl_streams_capacity(model, &b->room, b->capacity);
    b->train = espl_calloc((size_t)model->n_phases, sizeof *b->train);
    for (int p = 0; p < model->n_phases; p++)
        espl_tape_make(model, kernels, ESPL_USE_TRAIN, config->model_recompute, p, b->capacity, threads, &b->train[p]);
    espl_tape_make(model, kernels, ESPL_USE_EVAL, 0, 0, b->capacity, threads, &b->eval);
    make_flows(b);
    plan_texts(config, b);
}

void espl_blueprint_free(espl_blueprint *blueprint) {
    for (int p = 0; blueprint->train != NULL && p < blueprint->model->n_phases; p++)
        espl_tape_free(&blueprint->train[p]);
    for (int p = 0; blueprint->flows != NULL && p < blueprint->model->n_phases; p++)
        espl_flow_free(&blueprint->flows[p]);
    espl_flow_free(&blueprint->eval_flow);
    free(blueprint->train);
    free(blueprint->flows);
    blueprint->train = NULL;
    blueprint->flows = NULL;
    espl_tape_free(&blueprint->eval);
    espl_decoder_free(&blueprint->texts);
    espl_rule_tensors_free(&blueprint->tensors);
}

espl_dtype espl_blueprint_truth(const espl_blueprint *b) { return b->master ? ESPL_F32 : b->kernels->real; }

espl_micro_share espl_blueprint_share(const espl_blueprint *b) {
    const int64_t rank = b->owner.rank, ranks = b->owner.ranks, first = b->micro_batches * rank / ranks;
    if (b->sharded)
        return (espl_micro_share){.first = rank, .count = b->micro_batches / ranks, .stride = ranks};
    return (espl_micro_share){.first = first, .count = b->micro_batches * (rank + 1) / ranks - first, .stride = 1};
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

_Static_assert((int)ESPL_PIECE == (int)ESPL_SHARD_UNIT, "a model pads its buckets to what ranks are cut into");
_Static_assert((int)ESPL_PIECE % (int)ESPL_STATE_BLOCK == 0, "ranks are cut at blocks of the optimizer");

static void list_buckets(const espl_blueprint *b, espl_memory *m) {
    int ranks = b->owner.ranks;
    m->buckets = espl_malloc((size_t)b->model->n_buckets * sizeof *m->buckets);
    for (int i = 0; i < b->model->n_buckets; i++)
        m->buckets[i] =
            (espl_bucket){.offset = espl_model_bucket_start(b->model, i, ranks), .n = espl_model_bucket_size(b->model, i, ranks)};
}

static espl_status take_reducer(const espl_blueprint *b, espl_comm *comm, espl_memory *m) {
    espl_reducer_plan plan = {.buckets = m->buckets,
                              .n_buckets = b->model->n_buckets,
                              .rank = b->owner.shard,
                              .size = b->owner.shards,
                              .n_local = espl_blueprint_share(b).count,
                              .tree = b->tree,
                              .narrow = b->narrow,
                              .replicated = b->owner.replicated,
                              .sharded = b->sharded,
                              .add = b->kernels->add,
                              .copy = b->kernels->copy,
                              .round_parts = b->kernels->round_parts,
                              .add_parts = b->kernels->add_parts};
    return espl_reducer_make(&plan, comm, m->gradients, &m->arenas[ESPL_ARENA_GRAD], &m->reducer);
}

/* Texts are generated where the tapes have their values and scratch; without red zones, which would stand in the tapes' way. The decoder
 * itself is laid out only when there is memory: a plan of a run that is under way is measured, too. */
static void take_texts(const espl_blueprint *b, espl_memory *m) {
    void *lists = espl_arena_take(&m->arenas[ESPL_ARENA_STAGE], b->texts_host);
    espl_arena act, work, host;
    if (b->texts == NULL || lists == NULL)
        return;
    espl_arena_adopt(&act, names[ESPL_ARENA_ACT], m->act, b->texts_act, false);
    espl_arena_adopt(&work, names[ESPL_ARENA_WORK], m->work, b->texts_work, false);
    espl_arena_adopt(&host, names[ESPL_ARENA_STAGE], lists, b->texts_host, true);
    espl_decoder_take(b->texts, &act, &work, &host);
}

static void take_states(const espl_blueprint *b, espl_memory *m) {
    const espl_rule_desc *rule = &espl_rules[b->rule];
    int64_t n = espl_owner_state_size(b->model, &b->owner);
    for (int i = 0; i < rule->n_states; i++) {
        const espl_rule_state *s = &rule->states[i];
        size_t bytes = s->block > 0 ? espl_rule_state_bytes(s, n) : (size_t)b->tensors.size[i] * espl_dtype_size(s->dtype);
        m->states[i] = espl_arena_take(&m->arenas[ESPL_ARENA_OPT], bytes);
    }
    m->master = b->master ? espl_arena_take(&m->arenas[ESPL_ARENA_OPT], (size_t)n * sizeof *m->master) : NULL;
}

/* Values and scratch of what needs the most: the phases of training, evaluation, texts, updates. They never run at once. */
static void take_values(const espl_blueprint *b, espl_memory *m) {
    size_t act = larger(b->eval.act_bytes, b->texts_act), work = larger(larger(b->eval.work_bytes, b->texts_work), b->rule_work);
    for (int p = 0; p < b->model->n_phases; p++) {
        act = larger(act, b->train[p].act_bytes);
        work = larger(work, b->train[p].work_bytes);
    }
    m->act = espl_arena_take(&m->arenas[ESPL_ARENA_ACT], act);
    m->work = espl_arena_take(&m->arenas[ESPL_ARENA_WORK], work);
}

/* Gradients of all buckets, or of as many as are under way at a time, in the phase that needs the most. */
static size_t gradient_bytes(const espl_blueprint *b) {
    size_t bytes = 0;
    if (!b->sharded)
        return (size_t)espl_model_flat_size(b->model, b->owner.ranks) * sizeof(float);
    for (int p = 0; p < b->model->n_phases; p++)
        bytes = larger(bytes, b->flows[p].gradient_bytes);
    return bytes;
}

static size_t window_bytes(const espl_blueprint *b) {
    size_t bytes = b->eval_flow.window_bytes;
    for (int p = 0; p < b->model->n_phases; p++)
        bytes = larger(bytes, b->flows[p].window_bytes);
    return bytes;
}

/* The layout: every tensor of the run, in order. */
static espl_status layout(const espl_blueprint *b, espl_comm *comm, espl_memory *m) {
    espl_arena *a = m->arenas;
    m->weights = espl_arena_take(&a[ESPL_ARENA_PARAM], espl_owner_weights_bytes(b->model, &b->owner, b->kernels->real));
    if (b->owner.cut)
        m->windows = espl_arena_take(&a[ESPL_ARENA_PARAM], window_bytes(b));
    if (b->remote && b->model->rope != NULL)
        m->rope = espl_arena_take(&a[ESPL_ARENA_PARAM], (size_t)b->model->rope_numel * sizeof(float));
    m->gradients = espl_arena_take(&a[ESPL_ARENA_GRAD], gradient_bytes(b));
    take_states(b, m);
    take_values(b, m);
    m->sums = espl_arena_take(&a[ESPL_ARENA_WORK], ESPL_N_SUMS * sizeof *m->sums);
    espl_sample_take(&a[ESPL_ARENA_STAGE], &b->room, &m->sample);
    take_texts(b, m);
    return take_reducer(b, comm, m);
}

static espl_status measure(const espl_blueprint *b, size_t bytes[ESPL_N_ARENAS]) {
    espl_memory m = {0};
    for (int i = 0; i < ESPL_N_ARENAS; i++)
        m.arenas[i] = espl_arena_measure(names[i]);
    list_buckets(b, &m);
    espl_status status = layout(b, NULL, &m);
    for (int i = 0; i < ESPL_N_ARENAS; i++)
        bytes[i] = m.arenas[i].used;
    espl_memory_free(&m);
    return status;
}

/* What the device takes for micro-batches itself; counted under WORK, but no part of that arena. */
static size_t batch_bytes(const espl_blueprint *b) { return b->remote ? espl_backend_batch_bytes(b->reserved) : 0; }

espl_status espl_memory_measure(const espl_blueprint *blueprint, size_t bytes[ESPL_N_ARENAS]) {
    ESPL_TRY(measure(blueprint, bytes));
    bytes[ESPL_ARENA_WORK] += batch_bytes(blueprint);
    bytes[ESPL_ARENA_STAGE] += blueprint->snapshot_bytes;
    return ESPL_OK;
}

bool espl_blueprint_on_host(const espl_blueprint *b, espl_arena_id id) {
    return id == ESPL_ARENA_STAGE || (id == ESPL_ARENA_OPT && b->offloads);
}

/* All of it is asked for at once, so that the message says what is missing in all, and what would help. */
static espl_status check_room(const espl_blueprint *b, const espl_engine *engine, const size_t bytes[ESPL_N_ARENAS]) {
    const double mib = 1048576.0;
    size_t needed = batch_bytes(b);
    for (espl_arena_id i = 0; i < ESPL_N_ARENAS; i++)
        needed += espl_blueprint_on_host(b, i) ? 0 : bytes[i];
    espl_device_info info;
    engine->calls->info(engine->device, &info);
    if (!b->remote || needed <= info.bytes_free)
        return ESPL_OK;
    ESPL_FAIL(ESPL_ERR_USAGE,
              "the run takes %.1f MiB of device memory (PARAM %.1f, GRAD %.1f, OPT %.1f, ACT %.1f, WORK %.1f), but %s number %d has %.1f "
              "free: %.1f MiB too much; %s (`espalier plan` shows what would fit)",
              (double)needed / mib, (double)bytes[ESPL_ARENA_PARAM] / mib, (double)bytes[ESPL_ARENA_GRAD] / mib,
              b->offloads ? 0.0 : (double)bytes[ESPL_ARENA_OPT] / mib, (double)bytes[ESPL_ARENA_ACT] / mib,
              (double)bytes[ESPL_ARENA_WORK] / mib, info.name, info.ordinal, (double)info.bytes_free / mib,
              (double)(needed - info.bytes_free) / mib,
              bytes[ESPL_ARENA_ACT] + bytes[ESPL_ARENA_WORK] > needed / 2
                  ? "lower train.micro_batch_tokens or set model.recompute: full"
                  : "use more ranks with run.sharding: gradients, run.dtype: bf16 with optim.master: none, or run.offload: optimizer");
}

static espl_status take_arenas(const espl_blueprint *b, const espl_engine *engine, espl_memory *memory) {
    size_t bytes[ESPL_N_ARENAS];
    ESPL_TRY(measure(b, bytes));
    ESPL_TRY(check_room(b, engine, bytes));
    memory->offloads = b->offloads;
    for (espl_arena_id i = 0; i < ESPL_ARENA_STAGE; i++)
        ESPL_TRY((espl_blueprint_on_host(b, i) ? espl_engine_take_far : espl_engine_take)(engine, &memory->arenas[i], names[i], bytes[i]));
    ESPL_TRY(espl_arena_bind(&memory->arenas[ESPL_ARENA_STAGE], names[ESPL_ARENA_STAGE], bytes[ESPL_ARENA_STAGE]));
    ESPL_TRY(engine->calls->reserve(engine->device, b->reserved));
    return engine->calls->reserve(engine->device, b->capacity);
}

/* What brings weights to where they are used: after each update, or each time. */
static void make_movers(const espl_blueprint *b, espl_comm *comm, espl_memory *m) {
    const espl_fetcher_plan plan = {.buckets = m->buckets,
                                    .n_buckets = b->model->n_buckets,
                                    .shards = m->weights,
                                    .element = espl_dtype_size(b->kernels->real),
                                    .copy = b->kernels->copy};
    if (b->owner.cut)
        espl_fetcher_make(comm, &plan, &m->fetcher);
    else
        espl_gather_make(comm, m->buckets, plan.n_buckets, m->weights, plan.element, &m->gather);
}

/* What is frozen lies behind what this rank keeps. */
static void *bound_weights(const espl_blueprint *b, const espl_memory *m) {
    size_t kept = (size_t)(espl_model_flat_size(b->model, b->owner.ranks) / b->owner.shards) * espl_dtype_size(b->kernels->real);
    return (char *)m->weights + (b->owner.cut ? kept : 0);
}

static void bind_tapes(espl_blueprint *b, const espl_engine *engine, const espl_memory *m) {
    espl_places places = {.weights = bound_weights(b, m),
                          .windows = m->windows,
                          .gradients = m->gradients,
                          .ranks = b->owner.ranks,
                          .act = m->act,
                          .work = m->work,
                          .rope = m->rope};
    for (int p = 0; p < b->model->n_phases; p++) {
        places.flow = b->sharded ? &b->flows[p] : NULL;
        espl_tape_bind(&b->train[p], &places);
    }
    places.gradients = NULL;
    places.flow = &b->eval_flow;
    espl_tape_bind(&b->eval, &places);
    if (b->texts != NULL)
        espl_decoder_bind(b->texts, engine, &places);
}

espl_status espl_memory_bind(espl_blueprint *blueprint, const espl_engine *engine, espl_comm *comm, espl_memory *memory) {
    const espl_model *model = blueprint->model;
    *memory = (espl_memory){.engine = engine};
    ESPL_TRY(take_arenas(blueprint, engine, memory));
    list_buckets(blueprint, memory);
    ESPL_TRY(layout(blueprint, comm, memory));
    if (memory->rope != NULL)
        ESPL_TRY(espl_engine_put(engine, memory->rope, ESPL_F32, model->rope, ESPL_F32, (size_t)model->rope_numel));
    make_movers(blueprint, comm, memory);
    bind_tapes(blueprint, engine, memory);
    return ESPL_OK;
}

espl_status espl_memory_settle(const espl_memory *m) { return m->gather != NULL ? espl_gather_finish(m->gather) : ESPL_OK; }

espl_status espl_memory_move_weights(const espl_memory *m, const espl_flow *flow, const espl_move *move) {
    if (move->kind == ESPL_MOVE_UPDATED)
        return espl_gather_wait(m->gather, move->bucket);
    if (move->kind == ESPL_MOVE_ARRIVE)
        return espl_fetcher_wait(m->fetcher, move->bucket);
    return espl_fetcher_start(m->fetcher, move->bucket, (char *)m->windows + flow->windows[move->window].offset);
}

float *espl_memory_counted(const espl_blueprint *b, const espl_memory *m, int bucket, int64_t *n) {
    int64_t begin, end, piece, unused;
    espl_owner_counted(b->model, &b->owner, bucket, &begin, &end);
    espl_owner_piece(b->model, &b->owner, bucket, &piece, &unused);
    *n = end - begin;
    return espl_reducer_sums(m->reducer) + (b->sharded ? m->buckets[bucket].offset / b->owner.shards + begin - piece : begin);
}

espl_status espl_memory_begin_texts(const espl_blueprint *b, const espl_memory *m) {
    m->engine->kernels->zero(m->act, b->texts_act);
    return m->engine->calls->reserve(m->engine->device, espl_decoder_capacity(b->texts));
}

espl_status espl_memory_end_texts(const espl_blueprint *b, const espl_memory *m) {
    return m->engine->calls->reserve(m->engine->device, b->capacity);
}

void espl_memory_free(espl_memory *memory) {
    espl_fetcher_free(&memory->fetcher);
    espl_gather_free(&memory->gather);
    espl_reducer_free(&memory->reducer);
    free(memory->buckets);
    if (memory->engine != NULL && memory->offloads)
        espl_engine_give_back_far(memory->engine, &memory->arenas[ESPL_ARENA_OPT]);
    for (int i = 0; i < ESPL_ARENA_STAGE && memory->engine != NULL; i++)
        espl_engine_give_back(memory->engine, &memory->arenas[i]);
    espl_arena_free(&memory->arenas[ESPL_ARENA_STAGE]);
    *memory = (espl_memory){0};
}
