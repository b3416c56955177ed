/* The run's data: token stores made or reused, mapped, and placed into micro-batches. */
#ifndef ESPL_TRAIN_DATASET_H
#define ESPL_TRAIN_DATASET_H

#include "comm/comm.h"
#include "io/labels.h"
#include "io/tokenizer/tokenizer.h"
#include "io/tokens/tokens.h"
#include "src/config/config.h"
#include "src/data/placement.h"

typedef struct espl_dataset {
    espl_tokens *stores; /* one a source, mapped */
    espl_source *sources;
    char **paths;
    int64_t **chosen; /* one a source: the documents that are used; NULL: all */
    int64_t n;
    float *class_weights; /* or NULL */
    json_t *files;        /* what was read, on rank 0 (io/tokens/tokens.h) */
    espl_placement *placement;
    int64_t n_tokens, n_bytes, n_documents; /* that are used, over all sources */
} espl_dataset;

/* How micro-batches are cut from data. */
typedef struct espl_dataset_use {
    espl_room room;                /* of a micro-batch */
    int64_t length;                /* longest piece of a document, text or source */
    int64_t prompt, source_prompt; /* tokens in front of every segment, */
    int32_t prompt_id;             /* and the first of their ids (placement.h) */
    bool training;                 /* shuffled, mixed and with class weights; else natural order */
    int32_t eos, start;            /* the model's end-of-text token, and what a decoder's input begins with; -1: none */
    const espl_labels *labels;     /* classification */
} espl_dataset_use;

/* Collective. The labels of a classification: data.labels, or those of the training data (validation data where
 * there is no other); of other tasks none. Errors: data; usage. */
espl_status espl_dataset_labels(espl_comm *comm, const espl_config *config, espl_labels *labels);

/* Collective. Prepares every entry of `paths` (one source each; data.weights apply to training) and places them. Errors: data. */
espl_status espl_dataset_open(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_strings *paths,
                              const espl_dataset_use *use, espl_dataset *dataset);

/* Collective. Training data and, where data.valid or data.valid_fraction give some, validation data (else zeroed), compared with each
 * other: texts that are in both, repeats, what was cut and how full micro-batches are is logged. Errors: data; usage. */
espl_status espl_dataset_open_run(espl_comm *comm, const espl_config *config, const espl_tokenizer *tokenizer, const espl_dataset_use *use,
                                  espl_dataset *train, espl_dataset *valid);

/* Local. How many documents of a source are used, and which of all the i-th of them is. */
int64_t espl_source_used(const espl_source *source);
int64_t espl_source_document(const espl_source *source, int64_t i);

/* Local. The chat template of the config, or of the tokenizer's `folder`, whatever the records are. Errors: usage, when there is none;
 * data. */
espl_status espl_dataset_chat(const espl_config *config, const char *folder, espl_chat_loss loss, espl_chat **chat);

/* Local. How the config has records read. */
espl_reader_options espl_dataset_reading(const espl_config *config);

/* Local. Unmaps and frees; accepts a zeroed struct. */
void espl_dataset_close(espl_dataset *dataset);

/* Local. The hash of all sources' keys: what the data was. */
uint64_t espl_dataset_hash(const espl_dataset *dataset);

#endif
