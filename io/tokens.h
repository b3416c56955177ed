/* The token store: one HDF5 file of tokenised documents, mapped for reading.
 *
 * Datasets (contiguous, little-endian): /ids uint16 or uint32 [n_tokens] (uint16 when the vocabulary allows), /documents int64
 * [n_documents + 1] offsets into ids, /mask uint8 [n_tokens] (1: a target) only where some token is not, /bytes int64 [1] bytes of text.
 * Attributes of the root: format (1), key (what it was made of), vocabulary; of each dataset: checksum (XXH3 of the XXH3s of its
 * chunks of 1 MiB, so that ranks compute it together). All are 64-bit integers; a store without them is not finished.
 * Readers map the datasets at their file offset (H5Dget_offset). HDF5 is not thread-safe: no other thread may be in it meanwhile. */
#ifndef ESPL_IO_TOKENS_H
#define ESPL_IO_TOKENS_H

#include "comm/comm.h"
#include "io/readers.h"
#include "io/tokenizer/tokenizer.h"
#include "src/core/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct espl_tokens {
    int64_t n_tokens, n_documents;
    int64_t vocabulary;       /* every id is below */
    int64_t n_bytes;          /* bytes of the text behind the tokens, for loss per byte */
    const int64_t *documents; /* [n_documents + 1]; mapped */
    const uint16_t *ids16;    /* one of the two is not NULL; mapped */
    const uint32_t *ids32;
    const uint8_t *mask; /* NULL: every token is a target; mapped */
    uint64_t key;
    void *mapping; /* private */
    size_t mapping_bytes;
} espl_tokens;

/* How text becomes tokens; borrowed strings. */
typedef struct espl_tokens_recipe {
    char *const *paths; /* files, folders or globs */
    int64_t n_paths;
    int format;             /* espl_read_format: data.format's choice */
    const char *text_field; /* "": text, then input */
    int document;           /* espl_read_unit: data.document's choice */
    bool append_eos;        /* where the tokenizer has not put it there itself */
    int32_t eos;            /* id to append */
    bool skip_bad;          /* data.on_error: skip, counted */
    const char *cache;      /* folder, made when absent */
    int threads;            /* a rank; 0: shares the node's cores among its ranks */
} espl_tokens_recipe;

/* Collective. Makes or reuses the store of a recipe: key = hash of file contents, tokenizer and recipe; ranks tokenise shares of the input
 * in parallel and the result does not depend on their number. A stale or corrupt cache is rebuilt, with a line that says why. Progress goes
 * to stderr. *path is the store's file (caller frees), its checksums verified. Format tokens: the one path is a store and used as it is;
 * `tokenizer` may then be NULL. Errors: data, with file:line of a bad record; empty dataset; usage; io. The same on all ranks. */
espl_status espl_tokens_prepare(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, char **path);

/* Local. Maps a store and checks its header; `verify` also its checksums. */
espl_status espl_tokens_open(const char *path, bool verify, espl_tokens *tokens);

/* Local. Unmaps; accepts a zeroed struct. */
void espl_tokens_close(espl_tokens *tokens);

#endif
