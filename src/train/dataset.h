/* The run's data: token stores made or reused, mapped, and placed into micro-batches. */
#ifndef ESPL_TRAIN_DATASET_H
#define ESPL_TRAIN_DATASET_H

#include "comm/comm.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokens.h"
#include "src/config/config.h"
#include "src/data/placement.h"

typedef struct espl_dataset {
    espl_tokens *stores; /* one a source, mapped */
    espl_source *sources;
    char **paths;
    int64_t n;
    espl_placement *placement;
    int64_t n_tokens, n_bytes; /* over all sources */
} espl_dataset;

/* How micro-batches are cut from it. */
typedef struct espl_dataset_use {
    espl_room room; /* of a micro-batch */
    int64_t length; /* longest piece of a document, or document */
    bool training; /* shuffled and mixed; else natural order */
} espl_dataset_use;

/* Collective. Prepares every entry of `paths` (one source each; data.weights apply to training) and places them. Errors: data. */
espl_status espl_dataset_open(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, int32_t eos,
                              const espl_strings *paths, const espl_dataset_use *use, espl_dataset *dataset);

/* Local. Unmaps and frees; accepts a zeroed struct. */
void espl_dataset_close(espl_dataset *dataset);

/* Local. The hash of all sources' keys: what the data was. */
uint64_t espl_dataset_hash(const espl_dataset *dataset);

#endif
