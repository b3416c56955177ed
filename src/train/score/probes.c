#include "src/train/score/probes.h"

#include "src/core/buffer.h"
#include "src/core/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- Names: "name=path", or the file's own up to its first point. */

static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

/* Cuts an entry of data.probe into name (a new string) and path (within the entry). */
static espl_status split_entry(const char *entry, char **name, const char **path) {
    size_t n = strspn(entry, letters), size = strlen(entry);
    *path = n > 0 && entry[n] == '=' ? entry + n + 1 : entry;
    while (size > 1 && entry[size - 1] == '/')
        size--;
    const char *from = *path == entry ? entry : NULL;
    for (size_t i = 0; from != NULL && i < size; i++)
        if (entry[i] == '/')
            from = entry + i + 1;
    if (from != NULL) {
        n = strspn(from, letters);
        bool whole = n > 0 && (from + n == entry + size || from[n] == '.');
        if (!whole)
            ESPL_FAIL(ESPL_ERR_USAGE, "data.probe: '%s' needs a name of letters, digits, '_' and '-'; write name=%s", entry, entry);
    }
    if (**path == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "data.probe: '%s' has no path behind its name", entry);
    *name = espl_format("%.*s", (int)n, from != NULL ? from : entry);
    return ESPL_OK;
}

static void free_names(espl_probes *probes) {
    for (int64_t i = 0; i < probes->n; i++) {
        free(probes->items[i].name);
        free(probes->items[i].path);
        free(probes->items[i].tag);
    }
    free(probes->items);
    *probes = (espl_probes){0};
}

static espl_status name_sets(const espl_strings *given, espl_probes *probes) {
    *probes = (espl_probes){.items = espl_calloc((size_t)given->n, sizeof *probes->items), .step = -1};
    for (int64_t i = 0; i < given->n; i++) {
        espl_probe *p = &probes->items[i];
        const char *path;
        ESPL_TRY(split_entry(given->items[i], &p->name, &path));
        *p = (espl_probe){
            .name = p->name, .path = espl_strdup(path), .tag = espl_format("probe/%s", p->name), .before = (double)NAN, .now = (double)NAN};
        probes->n++;
        for (int64_t k = 0; k < i; k++)
            if (strcmp(probes->items[k].name, p->name) == 0)
                ESPL_FAIL(ESPL_ERR_USAGE, "data.probe: two sets are called '%s'; write another name in front: name=%s", p->name, path);
    }
    return ESPL_OK;
}

espl_status espl_probes_check(const espl_config *config) {
    espl_probes probes;
    espl_status status = name_sets(&config->data_probe, &probes);
    free_names(&probes);
    ESPL_TRY(status);
    if (config->train_max_forgetting > 0.0 && config->data_probe.n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "train.max_forgetting is %g, but data.probe is empty: it names the sets that are watched",
                  config->train_max_forgetting);
    if (config->train_on_forgetting == ESPL_FORGETTING_STOP && config->train_max_forgetting == 0.0)
        ESPL_FAIL(ESPL_ERR_USAGE, "train.on_forgetting is stop, but train.max_forgetting sets no limit");
    return ESPL_OK;
}

/* ---- Opening and evaluating. */

/* Whether all of a set's files hold running text, not records. */
static espl_status is_plain(espl_comm *comm, const espl_config *config, char *const *path, bool *plain) {
    espl_inputs inputs;
    ESPL_TRY(espl_inputs_share(comm, path, 1, (espl_read_format)config->data_format, &inputs));
    *plain = true;
    for (int64_t i = 0; i < inputs.n; i++)
        *plain = *plain && inputs.items[i].format == ESPL_READ_TEXT;
    espl_inputs_free(&inputs);
    return ESPL_OK;
}

/* As the other data are read; but what a model knew before its first conversation is often plain text. */
static espl_status open_one(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use,
                            espl_probe *p) {
    espl_config own = *config;
    bool plain = false;
    ESPL_TRY(is_plain(comm, config, &p->path, &plain));
    if (plain)
        own.data_records = ESPL_RECORDS_TEXT;
    return espl_dataset_open(comm, &own, tokenizer, &(espl_strings){.items = &p->path, .n = 1}, use, &p->data);
}

espl_status espl_probes_open(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use,
                             espl_probes *probes) {
    ESPL_TRY(name_sets(&config->data_probe, probes));
    for (int64_t i = 0; i < probes->n; i++)
        ESPL_TRY(open_one(comm, config, tokenizer, use, &probes->items[i]));
    return ESPL_OK;
}

espl_status espl_probes_evaluate(espl_probes *probes, const espl_evaluation *how) {
    for (int64_t i = 0; i < probes->n; i++) {
        espl_probe *p = &probes->items[i];
        espl_evaluation evaluation = *how;
        espl_eval_result result;
        evaluation.data = &p->data;
        evaluation.predictions = NULL;
        ESPL_TRY(espl_evaluate(&evaluation, &result));
        if (!isnan(p->before) && result.targets != p->targets) {
            ESPL_WARN("probe %s: now the mean over %" PRId64 " targets, before over %" PRId64 ": its rise is counted anew from here",
                      p->name, result.targets, p->targets);
            p->before = (double)NAN;
        }
        if (isnan(p->before))
            p->before = result.loss;
        p->targets = result.targets;
        p->now = result.loss;
        p->seconds = result.seconds;
    }
    probes->step = how->step;
    return ESPL_OK;
}

bool espl_probes_new(const espl_probes *probes) {
    for (int64_t i = 0; i < probes->n; i++)
        if (isnan(probes->items[i].before))
            return true;
    return false;
}

double espl_probe_rise(const espl_probe *probe) { return probe->now - probe->before; }

bool espl_probe_forgets(const espl_config *config, const espl_probe *probe) {
    return config->train_max_forgetting > 0.0 && !isnan(probe->before) && !(espl_probe_rise(probe) <= config->train_max_forgetting);
}

const espl_probe *espl_probes_forgetting(const espl_config *config, const espl_probes *probes) {
    for (int64_t i = 0; i < probes->n; i++)
        if (espl_probe_forgets(config, &probes->items[i]))
            return &probes->items[i];
    return NULL;
}

/* ---- Into checkpoints and evaluations. */

static json_t *number(double value) { return isfinite(value) ? json_real(value) : json_null(); }

static json_t *hash_of(const espl_probe *probe) { return json_sprintf("%016" PRIx64, espl_dataset_hash(&probe->data)); }

json_t *espl_probes_to_json(const espl_probes *probes) {
    json_t *object = json_object();
    for (int64_t i = 0; i < probes->n; i++) {
        const espl_probe *p = &probes->items[i];
        json_object_set_new(object, p->name,
                            json_pack("{s:o, s:I, s:o, s:o}", "data", hash_of(p), "targets", (json_int_t)p->targets, "before",
                                      number(p->before), "now", number(p->now)));
    }
    return object;
}

void espl_probes_from_json(const json_t *object, espl_probes *probes) {
    for (int64_t i = 0; i < probes->n; i++) {
        espl_probe *p = &probes->items[i];
        const json_t *saved = json_object_get(object, p->name), *before = json_object_get(saved, "before"), *now;
        json_t *hash = hash_of(p);
        bool same = json_equal(json_object_get(saved, "data"), hash);
        json_decref(hash);
        if (same && json_is_number(before)) {
            now = json_object_get(saved, "now");
            p->before = json_number_value(before);
            p->now = json_is_number(now) ? json_number_value(now) : (double)NAN;
            p->targets = json_integer_value(json_object_get(saved, "targets"));
        } else {
            ESPL_WARN("probe %s: %s; its rise is counted from here on", p->name,
                      saved == NULL ? "the checkpoint does not know it" : "its data differ from those of the checkpoint");
        }
    }
}

json_t *espl_probes_report(const espl_probes *probes) {
    json_t *all = json_array();
    for (int64_t i = 0; i < probes->n; i++) {
        const espl_probe *p = &probes->items[i];
        json_array_append_new(all, json_pack("{s:s, s:o, s:o, s:o, s:I}", "name", p->name, "before", number(p->before), "after",
                                             number(p->now), "rise", number(espl_probe_rise(p)), "targets", (json_int_t)p->targets));
    }
    return all;
}

void espl_probes_close(espl_probes *probes) {
    for (int64_t i = 0; i < probes->n; i++)
        espl_dataset_close(&probes->items[i].data);
    free_names(probes);
}
