#include "src/train/dataset.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <xxhash.h>

static espl_status open_source(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, int32_t eos, char *const *path,
                               char **store, espl_tokens *tokens) {
    char *cache = config->data_cache[0] != '\0' ? espl_strdup(config->data_cache) : espl_format("%s/cache", config->run_dir);
    espl_tokens_recipe recipe = {.paths = path,
                                 .n_paths = 1,
                                 .format = config->data_format,
                                 .text_field = config->data_text_field,
                                 .document = config->data_document,
                                 .append_eos = config->data_append_eos,
                                 .eos = eos,
                                 .skip_bad = config->data_on_error == ESPL_ON_ERROR_SKIP,
                                 .cache = cache};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_tokens_prepare(comm, tokenizer, &recipe, store));
    ESPL_TRY_DONE(espl_comm_agree(comm, espl_tokens_open(*store, false, tokens), "opening the token store"));
done:
    free(cache);
    return status;
}

static void describe_source(const espl_config *config, const espl_dataset_use *use, int64_t i, espl_dataset *d, const char *name) {
    const espl_tokens *t = &d->stores[i];
    d->sources[i] = (espl_source){.name = name,
                                  .n_tokens = t->n_tokens,
                                  .n_documents = t->n_documents,
                                  .documents = t->documents,
                                  .ids16 = t->ids16,
                                  .ids32 = t->ids32,
                                  .mask = t->mask};
    if (use->training && config->data_weights.n > 0)
        d->sources[i].weight = config->data_weights.items[i];
    d->n_tokens += t->n_tokens;
    d->n_bytes += t->n_bytes;
}

espl_status espl_dataset_open(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, int32_t eos,
                              const espl_strings *paths, const espl_dataset_use *use, espl_dataset *d) {
    size_t n = (size_t)paths->n;
    *d = (espl_dataset){.stores = espl_calloc(n, sizeof *d->stores),
                        .sources = espl_calloc(n, sizeof *d->sources),
                        .paths = espl_calloc(n, sizeof *d->paths),
                        .n = paths->n};
    if (use->training && config->data_weights.n > 0 && config->data_weights.n != paths->n)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.weights has %lld entries, data.train %lld: one weight an entry is expected",
                  (long long)config->data_weights.n, (long long)paths->n);
    for (int64_t i = 0; i < paths->n; i++) {
        ESPL_TRY(open_source(comm, config, tokenizer, eos, &paths->items[i], &d->paths[i], &d->stores[i]));
        describe_source(config, use, i, d, paths->items[i]);
    }
    espl_placement_options options = {.task = config->data_task,
                                      .room = use->room,
                                      .length = use->length,
                                      .windows = config->data_placement == ESPL_WINDOWS,
                                      .shuffle = use->training,
                                      .seed = (uint64_t)config->run_seed};
    return espl_comm_agree(comm, espl_placement_make(d->sources, d->n, &options, &d->placement), "placing the data");
}

uint64_t espl_dataset_hash(const espl_dataset *dataset) {
    uint64_t hash = 0;
    for (int64_t i = 0; i < dataset->n; i++)
        hash = XXH3_64bits_withSeed(&dataset->stores[i].key, sizeof dataset->stores[i].key, hash);
    return hash;
}

void espl_dataset_close(espl_dataset *dataset) {
    espl_placement_free(&dataset->placement);
    for (int64_t i = 0; i < dataset->n; i++) {
        espl_tokens_close(&dataset->stores[i]);
        free(dataset->paths[i]);
    }
    free(dataset->stores);
    free(dataset->sources);
    free(dataset->paths);
    *dataset = (espl_dataset){0};
}
