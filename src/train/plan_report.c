#include "src/train/plan_report.h"

#include "src/core/buffer.h"
#include "src/plan/costs.h"
#include "src/plan/peak.h"
#include "src/train/machine/preflight.h"
#include "src/train/run.h"
#include "src/train/memory/state_list.h"
#include "src/train/weights/weights.h"

#include <stdlib.h>
#include <string.h>

#define COPY_SECONDS 0.1

/* A number of ranks. */
typedef struct row {
    espl_times times;
    double memory;        /* bytes of a rank where tensors lie */
    espl_wire_bytes wire; /* that it sends in a step */
} row;

/* Everything the report is made from. */
typedef struct facts {
    const espl_config *config;
    const espl_plan_request *request;
    espl_model *model;
    const char *device;
    bool remote;
    const espl_kernels *kernels;
    espl_blueprint blueprint; /* of rank 0, which has the most */
    size_t bytes[ESPL_N_ARENAS], process;
    size_t device_bytes; /* of all arenas that are not the host's */
    size_t copies;       /* in-memory copies of the state, of the host */
    size_t total;        /* of the host */
    int threads, ranks_per_node;
    int64_t length, most_local; /* longest segment; micro-batches of the rank that has the most */
    double flops, rank_flops;   /* of a step, of all ranks and of that rank */
    espl_wire_bytes wire;
    double peak, compute_seconds;
    espl_times_request times;
    row *rows; /* of a table over ranks, the last one of the ranks asked for; n_rows 0: no times are */
    int n_rows;
} facts;

static const char *const arena_help[ESPL_N_ARENAS] = {
    "compute weights (run.sharding: all, or a part and those in use)",
    "gradients in fp32 (run.sharding: all, or those under way), partial sums, stages of sums over ranks",
    "what the optimizer keeps, master weights (optim.master; on the host by run.offload)",
    "activations and their gradients, shared by lifetime",
    "scratch of kernels, sums",
    "micro-batch, checkpoint snapshot"};

static int on_host(const facts *f, int ranks) { return ranks < f->ranks_per_node ? ranks : f->ranks_per_node; }

/* Rank 0's place in such a job. */
static espl_ranks ranks_of(const facts *f, int ranks) {
    const int node = on_host(f, ranks), group = espl_blueprint_group(f->config, ranks, node);
    return (espl_ranks){
        .size = ranks, .node_size = node, .n_nodes = (ranks + node - 1) / node, .group_size = group, .n_groups = ranks / group};
}

/* The snapshot that a save in the background holds, or the stage of one in the foreground. */
static size_t snapshot_of(const facts *f, const espl_blueprint *blueprint) {
    espl_state_tensor *saved;
    int64_t n = espl_state_list(blueprint, NULL, true, &saved);
    const espl_ranks ranks = ranks_of(f, blueprint->owner.ranks);
    static const espl_state_memory far = {0}; /* that it is none of the host's is what counts here */
    espl_checkpoint_options options = {.folder = "",
                                       .writers = (int)f->config->checkpoint_writers,
                                       .keep_last = 1,
                                       .background = blueprint->saves_behind,
                                       .memory = f->remote ? &far : NULL};
    size_t bytes = espl_checkpoint_snapshot_bytes(&ranks, &options, saved, n);
    free(saved);
    return bytes;
}

/* In-memory copies of the state and of the next host's. */
static size_t copies_of(const facts *f, const espl_blueprint *blueprint) {
    espl_state_tensor *saved;
    if (f->config->checkpoint_memory_every == 0)
        return 0;
    int64_t n = espl_state_list(blueprint, NULL, true, &saved);
    espl_ranks ranks = ranks_of(f, blueprint->owner.ranks);
    size_t bytes = espl_checkpoint_copy_bytes(&ranks, saved, n);
    free(saved);
    return bytes;
}

/* Of a rank: as told, or else the cores of a host, shared. */
static int threads_of(const facts *f, int ranks) {
    int64_t told = f->request->threads > 0 ? f->request->threads : f->config->run_threads;
    int cores = (int)f->request->times.cores / on_host(f, ranks);
    return told > 0 ? (int)told : cores > 1 ? cores : 1;
}

static espl_status draw_up(const facts *f, int ranks, espl_blueprint *blueprint, size_t bytes[ESPL_N_ARENAS]) {
    const espl_ranks place = ranks_of(f, ranks);
    espl_blueprint_make(f->config, f->model, f->kernels, f->remote, &place, threads_of(f, ranks), blueprint);
    blueprint->snapshot_bytes = snapshot_of(f, blueprint);
    return espl_memory_measure(blueprint, bytes);
}

static espl_status measure_memory(facts *f) {
    ESPL_TRY(draw_up(f, f->request->ranks, &f->blueprint, f->bytes));
    f->process = espl_runinfo_rss();
    f->total = f->process + f->copies;
    for (espl_arena_id i = 0; i < ESPL_N_ARENAS; i++) {
        const bool far = espl_blueprint_on_host(&f->blueprint, i);
        f->device_bytes += far ? 0 : f->bytes[i];
        f->total += far || !f->remote ? f->bytes[i] : 0;
    }
    f->copies = copies_of(f, &f->blueprint);
    return ESPL_OK;
}

/* Of the phase that trains all that is ever trained. */
static const espl_tape *last_tape(const facts *f) { return &f->blueprint.train[f->model->n_phases - 1]; }

/* In what gradients travel to their owners, and what comes back. */
static espl_dtype dtype_there(const facts *f) { return f->blueprint.narrow ? ESPL_BF16 : ESPL_F32; }
static espl_dtype dtype_back(const facts *f) { return f->blueprint.owner.replicated ? ESPL_F32 : f->kernels->real; }

/* Micro-batches of the rank that has the most. */
static int64_t most_local(const facts *f, int ranks) { return (f->blueprint.micro_batches + ranks - 1) / ranks; }

/* How often all weights are fetched in a micro-batch, where they are cut over the ranks. */
static double fetches(const facts *f) {
    return (double)f->blueprint.flows[f->model->n_phases - 1].fetched_bytes /
           ((double)espl_model_flat_size(f->model, f->blueprint.owner.ranks) * (double)espl_dtype_size(f->kernels->real));
}

static espl_wire_bytes wire_of(const facts *f, int ranks) {
    const espl_wire wire = {.part = espl_dtype_size(dtype_there(f)),
                            .back = espl_dtype_size(dtype_back(f)),
                            .sums = f->blueprint.sharded ? (double)most_local(f, ranks) : 1.0,
                            .backs = f->blueprint.owner.cut ? (double)most_local(f, ranks) * fetches(f) : 1.0};
    return espl_costs_wire_bytes(f->model, f->model->n_phases - 1, ranks, ranks_of(f, ranks).group_size, &wire);
}

/* Of a micro-batch. */
static espl_amount amount_of(const facts *f) { return espl_costs_amount(f->model, f->blueprint.capacity, (double)f->length); }

static double phase_flops(const facts *f, int phase) {
    espl_amount amount = amount_of(f);
    return espl_costs_train_flops(&f->blueprint.train[phase], &amount);
}

static void estimate_step(facts *f) {
    double flops = phase_flops(f, f->model->n_phases - 1);
    f->most_local = most_local(f, f->request->ranks);
    f->flops = flops * (double)f->blueprint.micro_batches;
    f->rank_flops = flops * (double)f->most_local;
    f->wire = wire_of(f, f->request->ranks);
    f->compute_seconds = f->peak > 0.0 ? f->rank_flops / f->peak : 0.0;
}

/* ---- Times. */

/* Rates of GPUs stand in a table, of bf16; this machine's are measured, those of another machine's CPU cannot be. */
static espl_status check_rates(const facts *f) {
    const bool known = f->request->times.pace.peak > 0.0;
    if (known != f->remote)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s",
                  known ? "--gpu gives the rates of a GPU, but the plan is for CPUs; add --device cuda"
                        : "how fast the GPUs are is not known here: give --gpu");
    if (known && f->kernels->real != ESPL_BF16 && !(f->request->peak > 0.0))
        ESPL_FAIL(ESPL_ERR_USAGE, "the rates of --gpu are those of bf16, but run.dtype is fp32; give --peak, or set run.dtype: bf16");
    return ESPL_OK;
}

/* Of a CPU: attention as fast as products, and a copy reads and writes. */
static void pace_of_host(facts *f) {
    espl_pace *pace = &f->times.pace;
    double copied = espl_preflight_copy_rate(COPY_SECONDS);
    snprintf(pace->name, sizeof pace->name, "this machine's CPU");
    pace->peak = pace->matrix = pace->attention = f->peak;
    pace->memory = 2.0 * copied;
    pace->host = copied;
    f->times.pace_cores = f->threads;
}

static espl_status measure_row(facts *f, int ranks, row *row) {
    espl_blueprint blueprint = {0};
    size_t bytes[ESPL_N_ARENAS];
    espl_status status = ESPL_OK;
    const espl_amount amount = amount_of(f);
    const espl_net_job job = {.ranks = ranks, .per_host = f->ranks_per_node, .cores = f->times.cores / on_host(f, ranks)};
    ESPL_TRY_DONE(draw_up(f, ranks, &blueprint, bytes));
    ESPL_TRY_DONE(espl_times_make(&blueprint, &amount, &job, &f->times, &row->times));
    row->wire = wire_of(f, ranks);
    row->memory = f->remote ? 0.0 : (double)f->process;
    for (espl_arena_id i = 0; i < ESPL_N_ARENAS; i++)
        row->memory += f->remote && espl_blueprint_on_host(&blueprint, i) ? 0.0 : (double)bytes[i];
done:
    espl_blueprint_free(&blueprint);
    return status;
}

/* One rank or a full host, twice as many, and so on up to those asked for. */
static espl_status measure_rows(facts *f) {
    enum { MOST = 32 };
    const int asked = f->request->ranks, least = asked > f->ranks_per_node ? f->ranks_per_node : 1;
    if (!f->request->timed)
        return ESPL_OK;
    ESPL_TRY(check_rates(f));
    if (!f->remote)
        pace_of_host(f);
    f->rows = espl_calloc(MOST, sizeof *f->rows);
    for (int64_t ranks = least; f->n_rows + 1 < MOST && ranks < asked; ranks *= 2)
        if (espl_blueprint_check_ranks(f->config, (int)ranks, on_host(f, (int)ranks)) == ESPL_OK)
            ESPL_TRY(measure_row(f, (int)ranks, &f->rows[f->n_rows++]));
    espl_status_clear(); /* of numbers in between that the config does not allow */
    return measure_row(f, asked, &f->rows[f->n_rows++]);
}

static double all_of(espl_wire_bytes wire) { return wire.inside + wire.across; }

static void print_rows(const facts *f, FILE *out) {
    if (f->n_rows == 0)
        return;
    espl_times_print(&f->rows[f->n_rows - 1].times, &f->times, out);
    espl_times_print_row(NULL, NULL, 0.0, 0.0, out);
    for (int i = 0; i < f->n_rows; i++)
        espl_times_print_row(&f->rows[i].times, &f->rows[0].times, f->rows[i].memory, all_of(f->rows[i].wire), out);
}

static json_t *rows_to_json(const facts *f) {
    json_t *list = json_array();
    for (int i = 0; i < f->n_rows; i++) {
        json_t *one = espl_times_to_json(&f->rows[i].times);
        json_object_set_new(one, "memory_bytes", json_real(f->rows[i].memory));
        json_object_set_new(one, "wire_bytes_per_rank", json_real(all_of(f->rows[i].wire)));
        json_array_append_new(list, one);
    }
    return list;
}

/* ---- What is planned for. */

/* Nothing is looked for on this machine: a plan for GPUs is made on a laptop. */
static espl_status choose_kernels(facts *f) {
    int device = f->config->run_device == ESPL_DEVICE_AUTO ? ESPL_DEVICE_CPU : f->config->run_device;
    f->device = f->request->device != NULL ? f->request->device : espl_config_choice("run", "device", device);
    f->remote = strcmp(f->device, "cpu") != 0;
    if (f->remote && strcmp(f->device, "cuda") != 0 && strcmp(f->device, "emu") != 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "--device %s: cpu, cuda or emu is expected", f->device);
    f->kernels = espl_backend_planned(f->device, f->config->run_dtype == ESPL_RUN_BF16 ? ESPL_BF16 : ESPL_F32);
    return ESPL_OK;
}

/* A GPU's is not known here, unless it is given. */
static espl_status find_peak(facts *f) {
    f->peak = f->request->peak;
    if (f->peak > 0.0 || f->remote)
        return ESPL_OK;
    espl_engine host;
    espl_engine_host(f->kernels->real, &host);
    return espl_peak_measure(&host, f->threads, 1, 0, 0.2, &f->peak);
}

static espl_status gather_facts(facts *f) {
    const espl_config *c = f->config;
    const char *source = c->model_config[0] != '\0' ? c->model_config : c->model_path;
    if (source[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "neither model.path nor model.config is set: a Hugging Face folder or a config.json is needed");
    ESPL_TRY(espl_blueprint_check(c));
    f->ranks_per_node = f->request->ranks_per_node > 0 ? f->request->ranks_per_node : f->request->ranks;
    ESPL_TRY(espl_blueprint_check_ranks(c, f->request->ranks, on_host(f, f->request->ranks)));
    const espl_model_options options = espl_model_options_of(c);
    ESPL_TRY(espl_weights_model(source, &options, &f->model));
    f->length = espl_blueprint_length(c, f->model);
    ESPL_TRY(espl_model_reach(f->model, espl_blueprint_reach(c, f->model)));
    ESPL_TRY(choose_kernels(f));
    f->threads = threads_of(f, f->request->ranks);
    espl_kernels_set_threads(f->threads);
    ESPL_TRY(find_peak(f));
    ESPL_TRY(measure_memory(f));
    estimate_step(f);
    f->times = f->request->times;
    return measure_rows(f);
}

static double mib(size_t bytes) { return (double)bytes / 1048576.0; }

static void print_arenas(const facts *f, bool host, FILE *out) {
    for (espl_arena_id i = 0; i < ESPL_N_ARENAS; i++)
        if (espl_blueprint_on_host(&f->blueprint, i) == host)
            fprintf(out, "  %-22s %12.1f  %s\n", espl_arena_name(i), mib(f->bytes[i]), arena_help[i]);
}

/* A part of ACT, not beside it. */
static void print_texts(const facts *f, FILE *out) {
    if (f->blueprint.texts != NULL)
        fprintf(out, "  %-22s %12.1f  of ACT, lent to evaluations: caches and values of %d sequences that are generated at once\n", "texts",
                mib(f->blueprint.texts_act), espl_decoder_rows(f->blueprint.texts));
}

static int64_t quantised_numel(const facts *f) {
    int64_t n = 0;
    for (int i = 0; i < f->model->n_params; i++)
        n += f->model->params[i].quant != ESPL_QUANT_NONE ? f->model->params[i].numel : 0;
    return n;
}

/* What of it the number of parameters decides. */
static void print_state(const facts *f, FILE *out) {
    double rule = espl_rule_tensors_bytes(&f->blueprint.tensors, f->model, f->blueprint.rule);
    size_t weight = espl_dtype_size(f->kernels->real), master = f->blueprint.master ? sizeof(float) : 0;
    if (f->model->frozen_numel > 0)
        fprintf(out, "  %-22s %6zu bytes  weight, the same on every rank\n", "for each frozen", weight);
    if (f->model->quant_bytes > 0)
        fprintf(out, "  %-22s %6.4g bytes  %lld weights in %s\n", "for each quantised",
                (double)f->model->quant_bytes / (double)quantised_numel(f), (long long)quantised_numel(f),
                espl_quant_name(f->model->quant));
    fprintf(out, "  %-22s %6.4g bytes  weight %zu, gradient 4, %s %.4g%s%s%s\n",
            f->model->frozen_numel > 0 ? "for each trained" : "for each parameter", (double)(weight + master) + 4.0 + rule, weight,
            espl_rules[f->blueprint.rule].name, rule, f->blueprint.master ? ", master weight 4" : "",
            f->request->ranks == 1          ? ""
            : f->blueprint.owner.replicated ? "; all of it on every rank"
            : f->blueprint.owner.cut        ? "; all of it is cut over the ranks"
            : f->blueprint.sharded          ? "; what follows the weight is cut over the ranks"
                                            : "; what follows the gradient is cut over the ranks",
            f->blueprint.owner.n_groups > 1 && !f->blueprint.owner.replicated ? " of a group" : "");
}

static void print_memory(const facts *f, FILE *out) {
    fprintf(out, f->remote ? "memory of a rank's GPU           MiB\n" : "memory of a rank                 MiB\n");
    print_arenas(f, false, out);
    print_texts(f, out);
    print_state(f, out);
    if (f->remote) {
        fprintf(out, "  %-22s %12.1f  and what the driver, cuBLASLt and NCCL take for themselves, which no plan knows\n", "total",
                mib(f->device_bytes));
        fprintf(out, "memory of a rank on the host     MiB\n");
    }
    print_arenas(f, true, out);
    if (f->copies > 0)
        fprintf(out, "  %-22s %12.1f  in-memory copies of the state (checkpoint.memory_every), two in turn%s\n", "copies", mib(f->copies),
                ranks_of(f, f->request->ranks).n_nodes > 1 ? ", and those of another host" : "");
    fprintf(out, "  %-22s %12.1f  the program and its libraries, as resident here now\n", "process", mib(f->process));
    fprintf(out, "  %-22s %12.1f  times %d ranks a node: %.1f MiB\n", "total", mib(f->total), f->ranks_per_node,
            mib(f->total) * f->ranks_per_node);
}

static void print_work(const facts *f, FILE *out) {
    fprintf(out, "work of a step\n");
    fprintf(out, "  tokens                 up to %lld: %lld micro-batches of %lld, at most %lld on a rank\n",
            (long long)f->blueprint.micro_batches * (long long)f->blueprint.micro_batch_tokens, (long long)f->blueprint.micro_batches,
            (long long)f->blueprint.micro_batch_tokens, (long long)f->most_local);
    fprintf(out, "  flops                  %.4g of all ranks, %.4g of one (recomputation not counted)\n", f->flops, f->rank_flops);
    fprintf(out, "  sent by a rank         %.1f MiB (gradients in %s%s, %s in %s%s)\n", all_of(f->wire) / 1048576.0,
            espl_dtype_name(dtype_there(f)), f->blueprint.sharded ? ", in every micro-batch" : "",
            f->blueprint.owner.replicated ? "their sums" : "weights", espl_dtype_name(dtype_back(f)),
            f->blueprint.owner.cut ? ", for each use" : "");
    if (f->blueprint.owner.n_groups > 1)
        fprintf(out, "  to other groups        %.1f MiB of that; %d groups of %d ranks\n", f->wire.across / 1048576.0,
                f->blueprint.owner.n_groups, f->blueprint.owner.shards);
    if (f->peak > 0.0)
        fprintf(out, "  at %.4g GFLOP/s a rank  %.3g s if every product ran at the %s matrix peak\n", f->peak * 1e-9, f->compute_seconds,
                f->request->peak > 0.0 ? "given" : "measured");
}

/* What stands above is that of the most demanding of them. */
static void print_phases(const facts *f, FILE *out) {
    fprintf(out, "phases                        trained     ACT MiB  flops of a step\n");
    for (int i = 0; i < f->model->n_phases; i++) {
        const espl_phase *p = &f->model->phases[i];
        char *when = i == 0 ? espl_strdup("from the start") : espl_format("after %g %s", p->at, p->epochs ? "epochs" : "steps");
        fprintf(out, "  %-22s %12lld %11.1f %16.4g  %s\n", when, (long long)espl_model_phase_numel(f->model, i),
                mib(f->blueprint.train[i].act_bytes), phase_flops(f, i) * (double)f->blueprint.micro_batches, p->what);
        free(when);
    }
}

static void print_tensors(const facts *f, FILE *out) {
    fprintf(out, "parameters\n");
    for (int i = 0; i < f->model->n_params; i++) {
        const espl_param *p = &f->model->params[i];
        fprintf(out, "  %-56s %8lld x %-8lld %12.3f MiB  ", p->name, (long long)p->shape[0], (long long)(p->n_dims > 1 ? p->shape[1] : 1),
                mib(espl_model_param_bytes(f->model, i, f->kernels->real)));
        if (p->frozen)
            fprintf(out, "%s\n", p->quant != ESPL_QUANT_NONE ? "frozen, quantised" : "frozen");
        else
            fprintf(out, "bucket %d  rate x%.4g%s\n", p->bucket, p->rate, p->decay ? "" : "  no decay");
    }
    fprintf(out, "buffers of the training tape (lives in calls, places in ACT)\n");
    for (int i = 0; i < last_tape(f)->n_lives; i++) {
        const espl_life *l = &last_tape(f)->lives[i];
        fprintf(out, "  %-28s %s layer %3d  calls %5d .. %-5d  at %14zu  %12.3f MiB\n", l->name, l->gradient ? "gradient" : "value   ",
                l->layer, l->first, l->last, l->offset, mib(l->bytes));
    }
}

static json_t *phases_to_json(const facts *f) {
    json_t *list = json_array();
    for (int i = 0; i < f->model->n_phases; i++) {
        const espl_phase *p = &f->model->phases[i];
        json_array_append_new(list, json_pack("{s:s, s:f, s:s, s:I, s:I, s:f}", "what", p->what, "after", p->at, "unit",
                                              p->epochs ? "epochs" : "steps", "trained_parameters",
                                              (json_int_t)espl_model_phase_numel(f->model, i), "act_bytes",
                                              (json_int_t)f->blueprint.train[i].act_bytes, "flops_per_step",
                                              phase_flops(f, i) * (double)f->blueprint.micro_batches));
    }
    return list;
}

static void print_json(const facts *f, FILE *out) {
    json_t *arenas = json_object();
    for (int i = 0; i < ESPL_N_ARENAS; i++)
        json_object_set_new(arenas, espl_arena_name(i), json_integer((json_int_t)f->bytes[i]));
    json_t *plan = json_pack("{s:s, s:I, s:i, s:o, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f}", "device", f->device, "device_bytes",
                             (json_int_t)(f->remote ? f->device_bytes : 0), "ranks", f->request->ranks, "arenas", arenas, "process_bytes",
                             (json_int_t)f->process, "copy_bytes", (json_int_t)f->copies, "total_bytes", (json_int_t)f->total, "parameters",
                             (json_int_t)espl_model_numel(f->model), "trained_parameters", (json_int_t)espl_model_trained_numel(f->model),
                             "flops_per_step", f->flops, "wire_bytes_per_rank", all_of(f->wire), "wire_bytes_across_groups", f->wire.across,
                             "peak_flops", f->peak, "compute_seconds", f->compute_seconds);
    json_object_set_new(plan, "phases", phases_to_json(f));
    if (f->n_rows > 0)
        json_object_set_new(plan, "times", rows_to_json(f));
    json_dumpf(plan, out, JSON_INDENT(2));
    fputc('\n', out);
    json_decref(plan);
}

espl_status espl_plan_print(const espl_config *config, const espl_plan_request *request, FILE *out) {
    facts f = {.config = config, .request = request};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(gather_facts(&f));
    ESPL_ASSERT(f.model != NULL, "facts without a model");
    if (request->json) {
        print_json(&f, out);
        goto done;
    }
    fprintf(out, "%s, %.1f M parameters, %s, %d rank%s of %d thread%s, recompute %s, reduction %s\n", f.model->family->model_type,
            (double)espl_model_numel(f.model) * 1e-6, f.kernels->name, request->ranks, request->ranks > 1 ? "s" : "", f.threads,
            f.threads > 1 ? "s" : "", espl_config_choice("model", "recompute", config->model_recompute),
            espl_config_choice("run", "reduction", config->run_reduction));
    if (f.model->frozen_numel > 0)
        fprintf(out, "trained: %lld parameters (%.4g %%), the others are frozen\n", (long long)espl_model_trained_numel(f.model),
                100.0 * (double)espl_model_trained_numel(f.model) / (double)espl_model_numel(f.model));
    print_memory(&f, out);
    print_work(&f, out);
    if (f.model->n_phases > 1)
        print_phases(&f, out);
    print_rows(&f, out);
    if (request->tensors)
        print_tensors(&f, out);
done:
    free(f.rows);
    espl_blueprint_free(&f.blueprint);
    espl_model_free(&f.model);
    return status;
}
