#include "src/train/run.h"

#include "comm/bulk.h"
#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/job_files.h"
#include "src/core/log.h"
#include "src/plan/peak.h"
#include "src/train/weights/adapter.h"
#include "src/train/weights/base.h"
#include "src/train/machine/choose_device.h"
#include "src/train/machine/likeness.h"
#include "src/train/weights/companions.h"
#include "src/train/introduce.h"
#include "src/train/weights/magnitudes.h"
#include "src/train/weights/peft_folder.h"
#include "src/train/weights/prompt_text.h"
#include "src/train/provenance.h"
#include "src/train/run_folder.h"
#include "src/train/machine/threads.h"
#include "src/train/weights/weights.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Config. */

static espl_status check_same_program(espl_run *run, const espl_run_options *options) {
    char build[64];
    espl_likeness rows[] = {{.what = "program", .must = true}, {.what = "MPI library"}, {.what = "config", .must = true}};
    espl_build_id(build);
    snprintf(rows[0].text, ESPL_LIKENESS_TEXT, "espalier %s, build %.16s", options->libraries[0].version, build);
    snprintf(rows[1].text, ESPL_LIKENESS_TEXT, "%s", espl_comm_library());
    snprintf(rows[2].text, ESPL_LIKENESS_TEXT, "one of hash %016llx", (unsigned long long)espl_config_hash(run->config));
    return espl_likeness_check(run->comm, rows, 3);
}

static espl_status check_same_kernels(espl_run *run) {
    espl_likeness row = {.what = "kernels"};
    snprintf(row.text, sizeof row.text, "%s", espl_kernels_describe());
    return espl_likeness_check(run->comm, &row, 1);
}

/* However the two are spelled; a run folder that is not there yet is no other folder. */
static bool same_folder(const char *a, const char *b) {
    struct stat x, y;
    return strcmp(a, b) == 0 || (stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino);
}

static espl_status check_rollback(const espl_config *c) {
    bool spikes = c->train_on_spike == ESPL_ON_SPIKE_ROLLBACK;
    if (c->checkpoint_every == 0 && (spikes || c->train_on_nonfinite == ESPL_ON_NONFINITE_ROLLBACK))
        ESPL_FAIL(ESPL_ERR_USAGE, "train.%s is rollback, but checkpoint.every is 0: there would be nothing to go back to; set it",
                  spikes ? "on_spike" : "on_nonfinite");
    return ESPL_OK;
}

static espl_status check_config(const espl_run *run) {
    const espl_config *c = run->config;
    ESPL_TRY(espl_blueprint_check(c));
    ESPL_TRY(espl_probes_check(c));
    ESPL_TRY(espl_walltime_check(c));
    ESPL_TRY(check_rollback(c));
    if (c->run_dir[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "run.dir is not set: the folder that gets checkpoints, metrics and logs");
    if (c->model_path[0] != '\0' && same_folder(c->run_dir, c->model_path))
        ESPL_FAIL(ESPL_ERR_USAGE, "run.dir is model.path (%s): a base model is never written to; give another run.dir", c->run_dir);
    if (c->data_train.n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.train is empty: files, folders or globs of training data are needed");
    return espl_blueprint_check_ranks(c, run->ranks->size, run->ranks->node_size);
}

/* Nodes are groups only where each has as many ranks, one behind the other. */
static espl_status check_nodes(const espl_run *run) {
    const espl_ranks *r = run->ranks;
    if (strcmp(run->config->run_shard_group, "node") == 0 &&
        (r->n_nodes * r->node_size != r->size || r->rank != r->node * r->node_size + r->node_rank))
        ESPL_FAIL(
            ESPL_ERR_USAGE,
            "run.shard_group is node: each node must have the same number of ranks, numbered one behind the other, but %s has %d of %d "
            "on %d nodes, rank %d among them; start as many a node (mpirun --map-by ppr:N:node), or set run.shard_group: all",
            r->host, r->node_size, r->size, r->n_nodes, r->rank);
    return ESPL_OK;
}

/* Before anything is cut over the ranks. */
static espl_status form_groups(espl_run *run) {
    ESPL_TRY(espl_comm_agree(run->comm, check_nodes(run), "forming groups of ranks"));
    ESPL_TRY(check_config(run));
    espl_comm_group(run->comm, espl_blueprint_group(run->config, run->ranks->size, run->ranks->node_size));
    return ESPL_OK;
}

/* ---- Model and tokenizer. */

static const char *model_source(const espl_config *c) { return c->model_config[0] != '\0' ? c->model_config : c->model_path; }

static int64_t sequence_length(const espl_run *run) { return espl_blueprint_length(run->config, run->model); }

/* Pretrained weights know the ids of their own tokenizer; another one's of the same size would pass every other check. */
static espl_status compare_tokenizers(const espl_run *run) {
    const espl_config *c = run->config;
    espl_tokenizer *own = NULL;
    char *path = espl_format("%s/tokenizer.json", c->model_path);
    espl_status status = ESPL_OK;
    if (espl_file_is_there(path))
        ESPL_TRY_DONE(espl_tokenizer_open(path, &own));
    if (own != NULL && espl_tokenizer_hash(own) != espl_tokenizer_hash(run->tokenizer) && run->ranks->rank == 0)
        ESPL_WARN("data.tokenizer, %s, is not the tokenizer of the pretrained model, %s: its weights know other ids; leave data.tokenizer "
                  "empty to take the model's own",
                  c->data_tokenizer, path);
done:
    espl_tokenizer_close(&own);
    free(path);
    return status;
}

/* Whether model.checkpoint has updates, which must be those of the config: another alpha would change what they add, without a word. */
static espl_status checkpoint_has_updates(const espl_run *run, bool *has) {
    const char *path = run->config->model_checkpoint;
    json_t *record = NULL;
    ESPL_TRY(espl_checkpoint_record(path, &record));
    *has = json_object_get(record, "adapter") != NULL;
    espl_status status = *has ? espl_adapter_check(record, path, run->config) : ESPL_OK;
    json_decref(record);
    return status;
}

static espl_status open_model(espl_run *run) {
    const espl_config *c = run->config;
    espl_model_options options = espl_model_options_of(c);
    options.labels = run->labels.names;
    options.n_labels = run->labels.n;
    bool pretrained, updates;
    if (c->model_checkpoint[0] != '\0')
        ESPL_TRY(checkpoint_has_updates(run, &updates));
    ESPL_TRY(espl_weights_pretrained(c, &pretrained));
    ESPL_TRY(espl_weights_model(model_source(c), &options, &run->model));
    if (c->model_adapter[0] != '\0')
        ESPL_TRY(espl_peft_check(run->model, c->model_adapter));
    ESPL_TRY(espl_model_reach(run->model, espl_blueprint_reach(c, run->model)));
    const char *tokenizer = c->data_tokenizer[0] != '\0' ? c->data_tokenizer : c->model_path;
    if (tokenizer[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "data.tokenizer is not set, and there is no model.path to take tokenizer.json from");
    ESPL_TRY(espl_tokenizer_open(tokenizer, &run->tokenizer));
    if (espl_tokenizer_size(run->tokenizer) > run->model->dims.vocab)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: the tokenizer has %lld entries, the model's vocab_size is %lld: they do not belong together",
                  tokenizer, (long long)espl_tokenizer_size(run->tokenizer), (long long)run->model->dims.vocab);
    return pretrained && c->data_tokenizer[0] != '\0' ? compare_tokenizers(run) : ESPL_OK;
}

static espl_status keep_companions(const espl_run *run) {
    const espl_config *c = run->config;
    char *folder = espl_format("%s/tokenizer", c->run_dir);
    espl_status status = espl_companions_copy(c->data_tokenizer[0] != '\0' ? c->data_tokenizer : c->model_path, c->model_path, folder);
    if (status == ESPL_OK && c->data_chat_template[0] != '\0')
        status = espl_companions_template(c->data_chat_template, folder);
    free(folder);
    return status;
}

/* ---- Data. */

static espl_status open_data(espl_run *run) {
    const espl_config *c = run->config;
    const espl_dims *dims = &run->model->dims;
    espl_dataset_use use = {.room = espl_blueprint_room(c, run->model),
                            .length = sequence_length(run),
                            .prompt = espl_model_prompt(run->model, ESPL_STREAM_MAIN),
                            .source_prompt = espl_model_prompt(run->model, ESPL_STREAM_SOURCE),
                            .prompt_id = espl_model_prompt_id(run->model),
                            .eos = dims->eos,
                            .start = dims->start,
                            .labels = &run->labels};
    ESPL_TRY(espl_dataset_open_run(run->comm, c, run->tokenizer, &use, &run->data, &run->valid));
    ESPL_TRY(espl_probes_open(run->comm, c, run->tokenizer, &use, &run->probes));
    int64_t count = espl_placement_count(run->data.placement, 0);
    if (count < c->train_micro_batches)
        ESPL_FAIL(ESPL_ERR_DATA,
                  "the training data make %lld micro-batches of %lld tokens, fewer than one step takes (train.micro_batches %lld); lower "
                  "it or train.micro_batch_tokens",
                  (long long)count, (long long)c->train_micro_batch_tokens, (long long)c->train_micro_batches);
    run->total_steps = c->train_steps > 0 ? c->train_steps : (int64_t)(c->train_epochs * (double)count / (double)c->train_micro_batches);
    if (run->total_steps < 1)
        ESPL_FAIL(ESPL_ERR_USAGE, "train.epochs %g makes no whole step of %lld micro-batches; raise it or set train.steps", c->train_epochs,
                  (long long)c->train_micro_batches);
    espl_phases_open(run->model, (double)count / (double)c->train_micro_batches, &run->phases);
    return ESPL_OK;
}

/* ---- Device. */

/* MPI's ranks are all there by then: what may take so long is the network that bulk operations find for themselves. */
#define NETWORK_SECONDS 120.0

static espl_status open_device(espl_run *run) {
    ESPL_TRY(espl_choose_device(run->comm, run->config, &run->engine, run->device_reason));
    if (run->engine.backend->bulk == NULL || run->ranks->size == 1)
        return ESPL_OK;
    return espl_comm_use_bulk(run->comm, run->engine.backend->bulk, run->engine.device, NETWORK_SECONDS);
}

/* What steps agree with, and where the ranks are. */
static espl_status open_votes(espl_run *run) {
    const espl_ranks *ranks = run->ranks;
    char(*hosts)[sizeof ranks->host] = espl_calloc((size_t)ranks->size, sizeof *hosts);
    run->votes = espl_calloc(ESPL_STEP_VOTES + (size_t)ranks->size, sizeof *run->votes);
    espl_status status = espl_comm_allgather(run->comm, ranks->host, sizeof *hosts, hosts);
    if (ranks->rank != 0) {
        free(hosts);
        return status;
    }
    run->hosts = hosts;
    espl_stragglers_open(&run->stragglers, run->config->run_straggler_factor, run->config->run_straggler_steps, ranks->size);
    return status;
}

/* ---- Memory, optimizer, saver. */

/* Puts a range behind the others of a bucket, or makes the last one longer. */
static void add_range(espl_update_range *ranges, int *n, const espl_update_range *range) {
    espl_update_range *last = ranges + *n - 1;
    if (*n > 0 && range->tensor == NULL && last->end == range->begin && last->decay == range->decay && last->rate == range->rate &&
        last->phase == range->phase)
        last->end = range->end;
    else
        ranges[(*n)++] = *range;
}

/* By which a parameter's rate is multiplied. Under muon what is no matrix may have a rate of its own. */
static double rate_of(const espl_run *run, int param) {
    const espl_config *c = run->config;
    bool other = run->blueprint.rule == ESPL_RULE_MUON && !run->blueprint.tensors.of[param].matrix && c->optim_adamw_lr >= 0.0;
    return run->model->params[param].rate * (other && c->optim_lr > 0.0 ? c->optim_adamw_lr / c->optim_lr : 1.0);
}

/* One update a bucket: its parameters lie in it in order. */
static void list_updates(espl_run *run) {
    const espl_model *model = run->model;
    espl_update_range *ranges = run->ranges = espl_malloc((size_t)model->n_params * sizeof *ranges);
    const espl_rule_tensor *tensors = run->blueprint.tensors.of;
    espl_segment *segments;
    espl_owner_updates(model, &run->blueprint.owner, &segments);
    run->updates = espl_calloc((size_t)model->n_buckets, sizeof *run->updates);
    for (int b = 0; b < model->n_buckets; b++) {
        espl_update *u = &run->updates[b];
        int64_t flat;
        espl_owner_stretch(model, &run->blueprint.owner, b, &flat, &u->state);
        u->weight = run->blueprint.owner.cut ? u->state : flat;
        u->gradient = run->blueprint.sharded ? u->state : flat;
        u->place = flat - run->memory.buckets[b].offset;
        for (int i = 0; i < model->n_params; i++) {
            const espl_segment *s = &segments[i];
            const espl_param *p = &model->params[i];
            const espl_update_range range = {.begin = s->flat - flat,
                                             .end = s->flat - flat + s->end - s->begin,
                                             .rate = rate_of(run, i),
                                             .decay = p->decay ? (float)run->config->optim_weight_decay : 0.0f,
                                             .phase = p->phase,
                                             .tensor = tensors != NULL ? &tensors[i] : NULL};
            if (p->bucket == b && s->begin < s->end)
                add_range(ranges, &u->n_ranges, &range);
        }
        u->ranges = ranges;
        ranges += u->n_ranges;
    }
    free(segments);
}

static void open_optimizer(espl_run *run) {
    const espl_memory *m = &run->memory;
    list_updates(run);
    run->optimizer = (espl_optimizer){.kernels = run->engine.kernels,
                                      .master = m->master,
                                      .weights = m->weights,
                                      .gradients = espl_reducer_sums(m->reducer),
                                      .updates = run->updates,
                                      .ranges = espl_calloc((size_t)run->model->n_params, sizeof *run->optimizer.ranges),
                                      .born = run->phases.born,
                                      .work = m->work};
    memcpy(run->optimizer.states, m->states, sizeof m->states);
    espl_optimizer_configure(&run->optimizer, run->config);
}

/* Room for what is recorded of any phase's tape: the stretches between its moves, and behind them the rest in up to four ways. */
static void open_graphs(espl_run *run) {
    int most = 0;
    for (int p = 0; p < run->model->n_phases; p++)
        most = run->blueprint.flows[p].n_moves > most ? run->blueprint.flows[p].n_moves : most;
    run->n_graphs = most + ESPL_TAPE_GRAPHS;
    run->graphs = espl_calloc((size_t)run->n_graphs, sizeof *run->graphs);
}

static espl_status open_memory(espl_run *run) {
    espl_memory_return(); /* of tokenising and reading */
    run->process_bytes = espl_runinfo_rss();
    espl_blueprint_make(run->config, run->model, run->engine.kernels, run->engine.calls->remote, run->ranks, run->threads, &run->blueprint);
    ESPL_TRY(espl_memory_bind(&run->blueprint, &run->engine, run->comm, &run->memory));
    open_optimizer(run);
    open_graphs(run);
    espl_run_list_state(run);
    espl_replicas_open(&run->blueprint, &run->memory, &run->replicas);
    return ESPL_OK;
}

static espl_status open_saver(espl_run *run) {
    const espl_config *c = run->config;
    char *folder = espl_format("%s/checkpoints", c->run_dir);
    espl_checkpoint_options options = {.folder = folder,
                                       .writers = (int)c->checkpoint_writers,
                                       .keep_last = (int)c->checkpoint_keep_last,
                                       .keep_every = (int)c->checkpoint_keep_every,
                                       .keep_best = c->checkpoint_keep_best,
                                       .background = run->blueprint.saves_behind,
                                       .memory = espl_run_state_memory(run),
                                       .copy_every = c->checkpoint_memory_every,
                                       .copy_folder = c->checkpoint_memory_folder};
    run->blueprint.snapshot_bytes = espl_checkpoint_snapshot_bytes(run->ranks, &options, run->saved, run->n_state);
    espl_status status = espl_checkpoints_open(run->comm, &options, run->saved, run->n_state, &run->saver);
    free(folder);
    return status;
}

/* ---- Weights. */

static espl_weights weights_of(const espl_run *run) {
    return (espl_weights){.flat = run->memory.weights,
                          .real = run->engine.kernels->real,
                          .master = run->memory.master,
                          .owner = run->blueprint.owner,
                          .engine = &run->engine};
}

/* From files or from nothing, those that are frozen or those that are trained. */
static espl_status start_weights(espl_run *run, const bool *wanted, uint64_t *hashes) {
    const espl_config *c = run->config;
    espl_weights weights = weights_of(run);
    weights.wanted = wanted;
    weights.hashes = hashes;
    bool pretrained;
    if (c->model_checkpoint[0] != '\0')
        return espl_base_weights(run->model, c->model_checkpoint, NULL, (uint64_t)c->run_init_seed, &weights);
    ESPL_TRY(espl_weights_pretrained(c, &pretrained));
    if (!pretrained)
        return espl_weights_init(run->model, (uint64_t)c->run_init_seed, &weights);
    return espl_weights_read(run->model, c->model_path, (uint64_t)c->run_init_seed, &weights);
}

/* What a checkpoint has of them is there already. */
static espl_status start_updates(espl_run *run) {
    const espl_weights weights = weights_of(run);
    bool held = false;
    if (run->config->model_checkpoint[0] != '\0')
        ESPL_TRY(checkpoint_has_updates(run, &held));
    if (!held)
        ESPL_TRY(espl_magnitudes_start(run->model, &weights));
    if (!held)
        ESPL_TRY(espl_prompt_text_start(run->model, run->tokenizer, run->config->tune_prompt_text, &weights));
    return run->config->model_adapter[0] != '\0' ? espl_peft_weights(run->model, run->config->model_adapter, &weights) : ESPL_OK;
}

static espl_status start_trained(espl_run *run) {
    const espl_model *m = run->model;
    if (m->frozen_numel == 0)
        return start_weights(run, NULL, NULL);
    bool *wanted = espl_malloc((size_t)m->n_params * sizeof *wanted);
    for (int i = 0; i < m->n_params; i++)
        wanted[i] = !m->params[i].frozen;
    espl_status status = start_weights(run, wanted, NULL);
    free(wanted);
    if (status == ESPL_OK && espl_model_is_adapted(m))
        status = start_updates(run);
    return status;
}

/* No checkpoint holds them, so they are read at every start. */
static espl_status start_frozen(espl_run *run) {
    const espl_model *m = run->model;
    if (m->frozen_numel == 0)
        return ESPL_OK;
    bool *wanted = espl_malloc((size_t)m->n_params * sizeof *wanted);
    uint64_t *hashes = espl_calloc((size_t)m->n_params, sizeof *hashes);
    for (int i = 0; i < m->n_params; i++)
        wanted[i] = m->params[i].frozen;
    espl_status status = start_weights(run, wanted, hashes);
    if (status == ESPL_OK)
        run->base = espl_base_describe(run->config, m, hashes);
    free(wanted);
    free(hashes);
    return status;
}

/* ---- Reporting. */

static espl_status sum_peaks(espl_run *run) {
    double flops;
    const espl_blueprint *b = &run->blueprint;
    double crowd = espl_threads_crowd(run->ranks, b->threads);
    espl_comm_point(run->comm, "measuring the rate of products"); /* which busy cores make long */
    ESPL_TRY(espl_run_device(run, espl_peak_measure(&run->engine, b->threads, crowd, b->micro_batch_tokens, 0.1, &flops)));
    int64_t mega = (int64_t)(flops * 1e-6);
    espl_comm_point(run->comm, "summing the rates of products");
    ESPL_TRY(espl_comm_allreduce_i64(run->comm, &mega, 1, ESPL_SUM));
    run->peak_flops = (double)mega * 1e6;
    return ESPL_OK;
}

static espl_status open_metrics(espl_run *run) {
    size_t bytes[ESPL_N_ARENAS], planned = 0, on_device = 0;
    ESPL_TRY(espl_memory_measure(&run->blueprint, bytes));
    for (espl_arena_id i = 0; i < ESPL_N_ARENAS; i++) {
        planned += bytes[i];
        on_device += espl_blueprint_on_host(&run->blueprint, i) ? 0 : bytes[i];
    }
    espl_metrics_start start = {.resume_step = run->counters.step,
                                .total_steps = run->total_steps,
                                .tokens = run->counters.tokens,
                                .skipped_steps = run->counters.skipped,
                                .peak_flops = run->peak_flops,
                                .peak_name = "of peak",
                                .planned_bytes = planned,
                                .process_bytes = run->process_bytes,
                                .device_bytes = run->engine.calls->remote ? on_device : 0,
                                .n_nodes = run->ranks->n_nodes,
                                .about = run->provenance};
    espl_model_rate_span(run->model, &start.rate_low, &start.rate_high);
    return espl_metrics_open(&run->metrics, run->config, run->config->run_dir, &start);
}

/* Rank 0's clock alone counts. */
static void open_walltime(espl_run *run, const espl_run_options *options) {
    run->walltime = (espl_walltime){.ends = INFINITY};
    if (run->ranks->rank == 0)
        espl_walltime_begin(&run->walltime, run->config, options->started, &options->job_end, espl_now());
}

/* ---- Opening and closing. */

/* What every rank needs of the model and the tokenizer, read once. */
static espl_status share_files(const espl_run *run) {
    const espl_config *c = run->config;
    const char *const paths[] = {c->model_path, c->model_config, c->model_adapter, c->data_tokenizer, c->data_chat_template};
    ESPL_TRY(espl_base_share(run->comm, c->model_checkpoint));
    return espl_files_share(run->comm, paths, (int)(sizeof paths / sizeof paths[0]));
}

static espl_status open_all(const espl_config *config, espl_comm *comm, const espl_run_options *options, espl_run *run) {
    bool loaded;
    *run = (espl_run){.config = config,
                      .comm = comm,
                      .ranks = espl_comm_ranks(comm),
                      .stop_requested = options->stop_requested,
                      .counters = {.best_rating = NAN},
                      .copied = -1,
                      .rated = -1,
                      .best_written = -1};
    ESPL_TRY(check_same_program(run, options));
    ESPL_TRY(form_groups(run));
    espl_spikes_open(config, &run->spikes);
    ESPL_TRY(open_device(run));
    ESPL_TRY(espl_comm_agree(comm, run->ranks->rank == 0 ? espl_run_folder_open(config, &run->log) : ESPL_OK, "opening the run folder"));
    ESPL_TRY(espl_threads_choose(comm, config->run_threads, &run->threads));
    espl_kernels_set_threads(run->threads);
    ESPL_TRY(check_same_kernels(run));
    ESPL_TRY(share_files(run));
    ESPL_TRY(espl_dataset_labels(comm, config, &run->labels));
    ESPL_TRY(espl_comm_agree(comm, open_model(run), "opening the model"));
    ESPL_TRY(espl_comm_agree(comm, run->ranks->rank == 0 ? keep_companions(run) : ESPL_OK, "copying the tokenizer"));
    ESPL_TRY(open_data(run));
    ESPL_TRY(espl_comm_watch(comm, config->run_watchdog)); /* not before: tokenising may take long, and ranks wait for the slowest */
    ESPL_TRY(espl_comm_agree(comm, open_memory(run), "taking memory"));
    ESPL_TRY(open_saver(run));
    ESPL_TRY(espl_provenance_make(run, options));
    ESPL_TRY(espl_comm_agree(comm, start_frozen(run), "reading the frozen weights"));
    ESPL_TRY(espl_run_resume(run, options->resume, &loaded));
    if (!loaded)
        ESPL_TRY(espl_comm_agree(comm, start_trained(run), "reading the weights"));
    run->first_step = run->counters.step;
    ESPL_TRY(espl_run_compare(run));
    ESPL_TRY(espl_checkpoints_begin(run->saver, run->first_step));
    if (config->run_debug_tape)
        ESPL_TRY(espl_comm_agree(comm, espl_tape_log_open(config->run_dir, run->ranks->rank, &run->engine, &run->tape_log),
                                 "opening the tape log"));
    ESPL_TRY(sum_peaks(run));
    espl_memory_return(); /* of weights as they were made or read */
    open_walltime(run, options);
    ESPL_TRY(open_votes(run));
    if (run->ranks->rank == 0)
        espl_run_introduce(run);
    return espl_comm_agree(comm, run->ranks->rank == 0 ? open_metrics(run) : ESPL_OK, "opening the metrics");
}

espl_status espl_run_open(const espl_config *config, espl_comm *comm, const espl_run_options *options, espl_run *run) {
    espl_status status = open_all(config, comm, options, run);
    espl_job_files_forget(); /* files change while a run lasts */
    return status;
}

void espl_run_forget(espl_run *run) {
    for (int i = 0; i < run->n_graphs; i++)
        if (run->graphs[i] != NULL)
            run->engine.calls->forget(run->engine.device, &run->graphs[i]);
}

/* What is under way needs the memory. Of a run that failed it may fail, too, and goes no further then. */
static void settle(espl_run *run) {
    if (run->memory.gather != NULL && espl_memory_settle(&run->memory) == ESPL_OK)
        (void)run->engine.calls->sync(run->engine.device);
}

void espl_run_release(espl_run *run) {
    espl_run_forget(run);
    settle(run);
    espl_comm_end_bulk(run->comm);
    espl_memory_free(&run->memory);
}

void espl_run_close(espl_run *run) {
    espl_checkpoints_close(&run->saver);
    espl_metrics_close(&run->metrics);
    espl_tape_log_close(&run->tape_log);
    espl_run_release(run);
    espl_blueprint_free(&run->blueprint);
    espl_dataset_close(&run->data);
    espl_dataset_close(&run->valid);
    espl_probes_close(&run->probes);
    espl_labels_free(&run->labels);
    espl_tokenizer_close(&run->tokenizer);
    espl_model_free(&run->model);
    json_decref(run->provenance);
    json_decref(run->base);
    free(run->graphs);
    free(run->updates);
    free(run->ranges);
    free(run->optimizer.ranges);
    espl_phases_free(&run->phases);
    espl_spikes_free(&run->spikes);
    espl_replicas_free(&run->replicas);
    espl_stragglers_free(&run->stragglers);
    free(run->votes);
    free(run->hosts);
    free(run->state);
    free(run->saved);
    espl_engine_close(&run->engine);
    espl_log_set(run->ranks->rank, run->config->log_level, NULL);
    if (run->log != NULL)
        fclose(run->log);
    *run = (espl_run){0};
}
