#include "src/train/provenance.h"

#include "src/core/buffer.h"
#include "src/train/weights/licence.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_FILES = 256 }; /* of a set that are listed one by one */

/* The name of each node once, in the order of their lowest ranks. */
static espl_status add_hosts(espl_run *run) {
    typedef struct place {
        int32_t node;
        char host[64];
    } place;
    int size = run->ranks->size;
    place mine = {.node = run->ranks->node}, *all = espl_calloc((size_t)size, sizeof *all);
    memcpy(mine.host, run->ranks->host, sizeof mine.host);
    espl_status status = espl_comm_allgather(run->comm, &mine, sizeof mine, all);
    json_t *hosts = json_array();
    int32_t seen = -1;
    for (int r = 0; r < size && status == ESPL_OK; r++)
        if (all[r].node > seen) {
            seen = all[r].node;
            json_array_append_new(hosts, json_string(all[r].host));
        }
    free(all);
    json_object_set_new(run->provenance, "hosts", hosts);
    json_object_set_new(run->provenance, "ranks", json_integer(size));
    return status;
}

static void add_base(espl_run *run) {
    const espl_config *c = run->config;
    const char *path = c->model_path[0] != '\0' ? c->model_path : c->model_config;
    json_t *base = json_pack("{s:s, s:s}", "path", path, "family", run->model->family->model_type),
           *licence = c->model_path[0] != '\0' ? espl_licence_of(path) : NULL;
    if (licence != NULL)
        json_object_set_new(base, "licence", licence);
    json_object_set_new(run->provenance, "base", base);
}

/* What was read: a long list is cut, the hash of all of it stands in the checkpoint anyway (data_hash). */
static void add_set(json_t *sets, const char *name, const espl_dataset *d) {
    if (d->n == 0)
        return;
    size_t n = json_array_size(d->files);
    json_t *files = json_array();
    for (size_t i = 0; i < n && i < MOST_FILES; i++)
        json_array_append(files, json_array_get(d->files, i));
    json_t *set = json_pack("{s:o, s:I, s:I, s:I}", "files", files, "n_files", (json_int_t)n, "documents", (json_int_t)d->n_documents,
                            "tokens", (json_int_t)d->n_tokens);
    json_object_set_new(sets, name, set);
}

static void add_data(espl_run *run) {
    json_t *sets = json_object();
    add_set(sets, "train", &run->data);
    add_set(sets, "valid", &run->valid);
    for (int64_t i = 0; i < run->probes.n; i++) {
        char *name = espl_format("probe %s", run->probes.items[i].name);
        add_set(sets, name, &run->probes.items[i].data);
        free(name);
    }
    json_object_set_new(run->provenance, "data", sets);
}

espl_status espl_provenance_make(espl_run *run, const espl_run_options *options) {
    const espl_engine *e = &run->engine;
    json_t *about = run->provenance = espl_runinfo_make(options->libraries, options->n_libraries);
    json_object_set_new(about, "command_line", json_string(options->command_line));
    json_object_set_new(about, "device",
                        json_pack("{s:s, s:s, s:s}", "backend", e->name, "name", e->info.name, "libraries", e->info.libraries));
    json_object_set_new(about, "seeds",
                        json_pack("{s:I, s:I}", "run", (json_int_t)run->config->run_seed, "init", (json_int_t)run->config->run_init_seed));
    add_base(run);
    add_data(run);
    return add_hosts(run);
}
