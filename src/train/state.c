#include "src/train/run.h"

#include "io/share_files.h"
#include "src/core/buffer.h"
#include "src/core/job_files.h"
#include "src/core/log.h"
#include "src/train/weights/adapter.h"
#include "src/train/weights/base.h"
#include "src/train/memory/state_list.h"
#include "src/train/weights/weights.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Tensors. */

static espl_status read_state(void *context, void *to, const void *data, size_t bytes) {
    espl_run *run = context;
    return espl_run_device(run, run->engine.calls->read(run->engine.device, to, data, bytes));
}

static espl_status write_state(void *context, void *data, const void *from, size_t bytes) {
    const espl_run *run = context;
    return run->engine.calls->write(run->engine.device, data, from, bytes);
}

static espl_status pin_snapshot(void *context, void *memory, size_t bytes) {
    const espl_run *run = context;
    return run->engine.calls->pin(run->engine.device, memory, bytes);
}

static void unpin_snapshot(void *context, void *memory) {
    const espl_run *run = context;
    run->engine.calls->unpin(run->engine.device, memory);
}

static espl_status fetch_state(void *context, void *to, const void *data, size_t bytes) {
    espl_run *run = context;
    return espl_run_device(run, run->engine.calls->fetch(run->engine.device, to, data, bytes));
}

static espl_status state_fetched(void *context) {
    const espl_run *run = context;
    return run->engine.calls->fetched(run->engine.device);
}

const espl_state_memory *espl_run_state_memory(const espl_run *run) { return run->engine.calls->remote ? &run->state_memory : NULL; }

void espl_run_list_state(espl_run *run) {
    run->state_memory = (espl_state_memory){.context = run,
                                            .read = read_state,
                                            .write = write_state,
                                            .pin = pin_snapshot,
                                            .unpin = unpin_snapshot,
                                            .fetch = fetch_state,
                                            .fetched = state_fetched};
    run->n_state = espl_state_list(&run->blueprint, &run->memory, false, &run->state);
    espl_state_list(&run->blueprint, &run->memory, true, &run->saved);
}

/* ---- Counters. */

static const struct {
    const char *name;
    size_t offset;
    bool real;
} counter_rows[] = {
    {"step", offsetof(espl_counters, step), false},
    {"updates", offsetof(espl_counters, updates), false},
    {"epoch", offsetof(espl_counters, epoch), false},
    {"cursor", offsetof(espl_counters, cursor), false},
    {"tokens", offsetof(espl_counters, tokens), false},
    {"skipped", offsetof(espl_counters, skipped), false},
    {"skipped_in_row", offsetof(espl_counters, skipped_in_row), false},
    {"best_rating", offsetof(espl_counters, best_rating), true},
    {"worse", offsetof(espl_counters, worse), false},
};
enum { N_COUNTERS = sizeof counter_rows / sizeof counter_rows[0] };

static json_t *counters_to_json(const espl_counters *counters) {
    json_t *object = json_object();
    for (int i = 0; i < N_COUNTERS; i++) {
        const void *field = (const char *)counters + counter_rows[i].offset;
        if (counter_rows[i].real) {
            double x = *(const double *)field;
            json_object_set_new(object, counter_rows[i].name, isfinite(x) ? json_real(x) : json_null());
        } else {
            json_object_set_new(object, counter_rows[i].name, json_integer(*(const int64_t *)field));
        }
    }
    return object;
}

static espl_status counters_from_json(const json_t *object, const char *path, espl_counters *counters) {
    for (int i = 0; i < N_COUNTERS; i++) {
        const json_t *value = json_object_get(object, counter_rows[i].name);
        void *field = (char *)counters + counter_rows[i].offset;
        if (counter_rows[i].real)
            *(double *)field = json_is_number(value) ? json_number_value(value) : (double)NAN;
        else if (json_is_integer(value))
            *(int64_t *)field = json_integer_value(value);
        else
            ESPL_FAIL(ESPL_ERR_DATA, "%s: the record has no counter '%s'; it is not a checkpoint of this program's training", path,
                      counter_rows[i].name);
    }
    return ESPL_OK;
}

/* ---- The record: counters, what must match on resume, and where it all came from. */

static void set_hash(json_t *object, const char *name, uint64_t hash) {
    json_object_set_new(object, name, json_sprintf("%016" PRIx64, hash));
}

static const char *rule_name(const espl_run *run) { return espl_rules[run->blueprint.rule].name; }

static json_t *make_record(const espl_run *run) {
    json_t *record = json_object();
    char *text = NULL, saved[32];
    size_t size = 0;
    FILE *memory = open_memstream(&text, &size);
    espl_config_print(run->config, memory);
    fclose(memory);
    json_object_set_new(record, "counters", counters_to_json(&run->counters));
    json_object_set_new(record, "probes", espl_probes_to_json(&run->probes));
    json_object_set_new(record, "phases", espl_phases_to_json(&run->phases));
    json_object_set_new(record, "spikes", espl_spikes_to_json(&run->spikes));
    json_object_set_new(record, "total_steps", json_integer(run->total_steps));
    json_object_set_new(record, "config", json_string(text));
    set_hash(record, "config_hash", espl_config_hash(run->config));
    set_hash(record, "data_hash", espl_dataset_hash(&run->data));
    json_object_set(record, "model_config", run->model->config);
    json_object_set_new(record, "weights", json_string(espl_dtype_name(espl_blueprint_truth(&run->blueprint))));
    json_object_set_new(record, "optimizer", json_string(rule_name(run)));
    json_object_set_new(record, "ranks", json_integer(run->ranks->size));
    json_object_set(record, "provenance", run->provenance);
    espl_runinfo_time(saved);
    json_object_set_new(record, "saved", json_string(saved));
    if (run->base != NULL)
        json_object_set(record, "base", run->base);
    json_t *adapter = espl_adapter_describe(run->config);
    if (adapter != NULL)
        json_object_set_new(record, "adapter", adapter);
    free(text);
    return record;
}

static espl_status newest_checkpoint(espl_run *run, int64_t *step) {
    ESPL_TRY(espl_checkpoints_wait(run->saver)); /* what is under way was compared before it began */
    *step = run->ranks->rank == 0 ? espl_checkpoints_newest(run->saver, INT64_MAX, 1) : 0;
    return espl_comm_bcast(run->comm, step, sizeof *step, 0);
}

/* The failure, with what to do about it. */
static espl_status replicas_differ(espl_run *run) {
    char *what = espl_strdup(espl_status_message());
    int64_t newest = -1;
    espl_status status = newest_checkpoint(run, &newest);
    if (status == ESPL_OK && run->counters.step == run->first_step)
        espl_status_set_message("%s; it was read from there, or changed since: do all hosts see the same files?", what);
    else if (status == ESPL_OK && newest >= 0)
        espl_status_set_message("%s; nothing of it is saved: go on from the checkpoint of step %" PRId64 ", without that host", what,
                                newest);
    else if (status == ESPL_OK)
        espl_status_set_message("%s; there is no checkpoint yet: begin again, without that host", what);
    free(what);
    return status != ESPL_OK ? status : ESPL_ERR_NUMERIC;
}

espl_status espl_run_compare(espl_run *run) {
    int64_t step = run->counters.step;
    if (run->config->run_check_replicas_every == 0 || run->ranks->size == 1 || run->replicas.checked == step)
        return ESPL_OK;
    ESPL_TRY(espl_run_device(run, espl_memory_settle(&run->memory)));
    espl_status status = espl_replicas_compare(&run->replicas, run->comm, &run->engine, step);
    run->replicas.checked = step;
    return status == ESPL_ERR_NUMERIC ? replicas_differ(run) : status;
}

espl_status espl_run_save(espl_run *run) {
    ESPL_TRY(espl_run_compare(run));
    json_t *record = make_record(run);
    espl_comm_beat(run->comm, run->counters.step, "saving a checkpoint");
    espl_status status =
        espl_checkpoints_save(run->saver, run->counters.step, record, run->rated == run->counters.step ? run->rating : (double)NAN);
    json_decref(record);
    return status;
}

espl_status espl_run_copy(espl_run *run) {
    if (!espl_checkpoints_copies(run->saver))
        return ESPL_OK;
    json_t *record = make_record(run);
    espl_comm_beat(run->comm, run->counters.step, "making an in-memory copy");
    espl_status status = espl_checkpoints_copy(run->saver, run->counters.step, record);
    json_decref(record);
    return status;
}

/* ---- Resuming. */

static void warn_of_changes(const espl_run *run, const json_t *record) {
    char hash[17];
    snprintf(hash, sizeof hash, "%016" PRIx64, espl_dataset_hash(&run->data));
    const char *before = json_string_value(json_object_get(record, "data_hash"));
    if (before != NULL && strcmp(before, hash) != 0)
        ESPL_WARN("the training data differ from those of the checkpoint; the cursor is kept, but it points into other text");
    json_int_t steps = json_integer_value(json_object_get(record, "total_steps"));
    if (steps != run->total_steps)
        ESPL_WARN("the run now has %" PRId64 " steps, the checkpoint's had %" JSON_INTEGER_FORMAT
                  ": the learning rate follows the new number",
                  run->total_steps, steps);
}

static espl_status check_model(const espl_run *run, const json_t *record, const char *path) {
    const char *type = json_string_value(json_object_get(json_object_get(record, "model_config"), "model_type"));
    if (type == NULL || strcmp(type, run->model->family->model_type) != 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: the checkpoint is of a %s model, the config asks for %s; start in another run.dir, or give --resume never", path,
                  type != NULL ? type : "foreign", run->model->family->model_type);
    return ESPL_OK;
}

/* Weights that were rounded to bf16 are not those that a master would have, and a master's last bits are not to be lost unasked. */
static espl_status check_weights(const espl_run *run, const json_t *record, const char *path) {
    const char *found = json_string_value(json_object_get(record, "weights")), *fp32 = espl_dtype_name(ESPL_F32);
    const char *wanted = espl_dtype_name(espl_blueprint_truth(&run->blueprint));
    if (strcmp(found != NULL ? found : fp32, wanted) != 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s: the checkpoint's weights are %s, this run keeps %s: set optim.master: %s as they were trained, or export them and "
                  "start from model.path",
                  path, found != NULL ? found : fp32, wanted, strcmp(wanted, fp32) == 0 ? "none" : "fp32");
    return ESPL_OK;
}

/* What one rule keeps is nothing to another. The first checkpoints had no line for it: there was one rule. */
static espl_status check_optimizer(const espl_run *run, const json_t *record, const char *path) {
    const char *found = json_string_value(json_object_get(record, "optimizer")), *first = espl_rules[ESPL_RULE_ADAMW].name;
    found = found != NULL ? found : first;
    if (strcmp(found, rule_name(run)) != 0)
        ESPL_FAIL(
            ESPL_ERR_USAGE,
            "%s: the checkpoint's optimizer is %s, this run's is %s: set optim.name: %s to go on, or start from its weights with a fresh "
            "optimizer: model.checkpoint with this path, in another run.dir",
            path, found, rule_name(run), found);
    return ESPL_OK;
}

static espl_status check_record(const espl_run *run, const char *path) {
    json_t *record = NULL;
    ESPL_TRY(espl_checkpoint_record(path, &record));
    espl_status status = check_model(run, record, path);
    if (status == ESPL_OK)
        status = check_weights(run, record, path);
    if (status == ESPL_OK)
        status = check_optimizer(run, record, path);
    if (status == ESPL_OK)
        status = espl_base_check(record, path, run->base);
    if (status == ESPL_OK)
        status = espl_adapter_check(record, path, run->config);
    json_decref(record);
    return status;
}

static espl_status load(espl_run *run, const char *path) {
    json_t *record = NULL;
    ESPL_TRY(espl_comm_agree(run->comm, check_record(run, path), "reading the checkpoint's record"));
    ESPL_TRY(espl_checkpoint_load(run->comm, path, espl_run_state_memory(run), run->state, run->n_state, &record));
    espl_status status = counters_from_json(json_object_get(record, "counters"), path, &run->counters);
    if (status == ESPL_OK)
        status = espl_phases_from_json(json_object_get(record, "phases"), path, &run->phases);
    if (status == ESPL_OK)
        status = espl_spikes_from_json(json_object_get(record, "spikes"), path, &run->spikes);
    if (status == ESPL_OK && run->ranks->rank == 0)
        warn_of_changes(run, record);
    espl_probes_from_json(json_object_get(record, "probes"), &run->probes);
    json_decref(record);
    return espl_comm_agree(run->comm, status, "reading the checkpoint's counters");
}

static espl_status spread_buckets(espl_run *run, const espl_bucket *buckets, int n, void *array, size_t size) {
    espl_gather *gather = NULL;
    espl_status status = ESPL_OK;
    espl_gather_make(run->comm, buckets, n, array, size, &gather);
    for (int b = 0; b < n; b++)
        ESPL_TRY_DONE(espl_gather_start(gather, b));
    ESPL_TRY_DONE(espl_gather_finish(gather));
done:
    espl_gather_free(&gather);
    return status;
}

/* Spreads the pieces that ranks read to all of them, in an array that has a number for each `block` elements of the flat space. */
static espl_status spread(espl_run *run, void *array, size_t size, int64_t block) {
    int n = run->model->n_buckets;
    espl_bucket *buckets = espl_malloc((size_t)n * sizeof *buckets);
    for (int b = 0; b < n; b++)
        buckets[b] = (espl_bucket){.offset = run->memory.buckets[b].offset / block, .n = run->memory.buckets[b].n / block};
    espl_status status = spread_buckets(run, buckets, n, array, size);
    free(buckets);
    return status;
}

static espl_status spread_rule_state(espl_run *run, int k) {
    const espl_rule_state *state = &espl_rules[run->blueprint.rule].states[k];
    const espl_bucket whole = {.offset = 0, .n = run->blueprint.tensors.size[k]};
    size_t size = espl_dtype_size(state->dtype);
    return state->block > 0 ? spread(run, run->memory.states[k], size, state->block)
                            : spread_buckets(run, &whole, 1, run->memory.states[k], size);
}

/* After reading: a run needs all weights, unless they are cut over the ranks, and a replicated one the optimizer's state too. */
static espl_status spread_state(espl_run *run) {
    const espl_rule_desc *rule = &espl_rules[run->blueprint.rule];
    espl_memory *m = &run->memory;
    espl_dtype real = run->engine.kernels->real;
    espl_weights weights = {.flat = m->weights, .real = real, .master = m->master, .owner = run->blueprint.owner, .engine = &run->engine};
    if (run->blueprint.owner.replicated) {
        for (int i = 0; i < rule->n_states; i++)
            ESPL_TRY(spread_rule_state(run, i));
        if (m->master != NULL)
            ESPL_TRY(spread(run, m->master, sizeof(float), 1));
    }
    ESPL_TRY(espl_run_device(run, espl_weights_from_master(run->model, &weights)));
    return run->blueprint.owner.cut ? ESPL_OK : spread(run, m->weights, espl_dtype_size(real), 1);
}

static espl_status find(espl_run *run, const char *resume, char **found, bool *in_memory) {
    *found = NULL;
    *in_memory = false;
    if (strcmp(resume, "never") == 0)
        return ESPL_OK;
    if (strcmp(resume, "auto") == 0)
        return espl_checkpoints_find(run->saver, run->state, run->n_state, found, in_memory);
    return espl_checkpoint_find(run->comm, NULL, resume, found);
}

/* Every host has the files of an in-memory copy that its ranks need. */
static espl_status load_found(espl_run *run, const char *found, bool in_memory) {
    if (!in_memory)
        ESPL_TRY(espl_files_share(run->comm, (const char *const[]){found}, 1));
    espl_status status = load(run, found);
    espl_job_files_forget(); /* a folder that is saved to changes */
    ESPL_TRY(status);
    ESPL_TRY(spread_state(run));
    ESPL_INFO("resumed from %s%s: step %" PRId64 " of %" PRId64, in_memory ? "the in-memory copy " : "", found, run->counters.step,
              run->total_steps);
    return ESPL_OK;
}

espl_status espl_run_resume(espl_run *run, const char *resume, bool *loaded) {
    char *found;
    bool in_memory;
    espl_status status = find(run, resume, &found, &in_memory);
    *loaded = status == ESPL_OK && found != NULL;
    if (*loaded)
        status = load_found(run, found, in_memory);
    if (status == ESPL_OK && strcmp(resume, "auto") != 0)
        status = espl_checkpoints_forget(run->saver); /* they are of a course that the run leaves */
    free(found);
    return status;
}
