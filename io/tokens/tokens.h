/* The token store: one HDF5 file of tokenised documents, mapped for reading.
 *
 * Datasets (contiguous, little-endian): /ids uint16 or uint32 [n_tokens] (uint16 when the vocabulary allows), /documents int64
 * [n_documents + 1] offsets into ids, /bytes int64 [1] bytes of text. Those that are there where there is something to say:
 *   /mask   uint8 [n_tokens] 1: a target                     /labels  int32 [n_documents] number of the document's label
 *   /types  uint8 [n_tokens] token types                     /split   int32 [n_documents] its first tokens, which are the encoder's
 *   /words  uint8 [n_tokens] 1: begins a word, 2: special    /hashes  uint64 [n_documents] XXH3 of the text (of a pair: both; of source and
 *   /names  uint8, the labels, a NUL behind each                      target: the source), before truncation
 *   /cut    int64 [2] documents that were cut, tokens that they lost; [3] and documents left out, as no part of them fits
 * Attributes of the root: format (2; 1 is without the second list, but for mask), key (what it was made of), vocabulary; of each dataset:
 * checksum (XXH3 of the XXH3s of its chunks of 1 MiB, so that ranks compute it together). All are 64-bit integers; a store without them is
 * not finished.
 * Readers map the datasets at their file offset (H5Dget_offset). HDF5 is not thread-safe: no other thread may be in it meanwhile. */
#ifndef ESPL_IO_TOKENS_H
#define ESPL_IO_TOKENS_H

#include "comm/comm.h"
#include "io/chat/chat.h"
#include "io/labels.h"
#include "io/readers/readers.h"
#include "io/tokenizer/tokenizer.h"
#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct espl_tokens {
    int64_t n_tokens, n_documents;
    int64_t vocabulary;       /* every id is below */
    int64_t n_bytes;          /* bytes of the text behind the tokens, for loss per byte */
    const int64_t *documents; /* [n_documents + 1]; mapped */
    const uint16_t *ids16;    /* one of the two is not NULL; mapped */
    const uint32_t *ids32;
    const uint8_t *mask;    /* NULL: every token is a target; mapped, as are those that follow, NULL where there are none */
    const uint8_t *types;   /* [n_tokens] */
    const uint8_t *words;   /* [n_tokens] 0: goes on, 1: begins a word, 2: special */
    const int32_t *labels;  /* [n_documents] */
    const int32_t *split;   /* [n_documents] */
    const uint64_t *hashes; /* [n_documents] */
    espl_labels names;      /* of the labels; owned */
    int64_t n_cut, n_lost;  /* documents that were cut or left out, and tokens that they lost */
    int64_t n_left_out;     /* of those that were cut the ones that are not there at all */
    uint64_t key;
    void *mapping; /* private */
    size_t mapping_bytes;
} espl_tokens;

/* What a record becomes: the choices of data.task in their order. */
typedef enum espl_tokens_task { ESPL_TOKENS_LM, ESPL_TOKENS_MLM, ESPL_TOKENS_CLASSIFICATION, ESPL_TOKENS_SEQ2SEQ } espl_tokens_task;

/* How text becomes tokens; borrowed strings. */
typedef struct espl_tokens_recipe {
    char *const *paths; /* files, folders or globs */
    int64_t n_paths;
    int format;                                          /* espl_read_format: data.format's choice */
    int task;                                            /* espl_tokens_task */
    const char *text_field, *second_field, *label_field; /* NULL or "": the usual ones */
    int document;                                        /* espl_read_unit: data.document's choice */
    bool append_eos;                                     /* lm, seq2seq: where the tokenizer has not put it there itself */
    int32_t eos;                                         /* id to append */
    bool skip_bad;                                       /* data.on_error: skip, counted */

    const espl_labels *labels;  /* classification: the known ones */
    bool some_labels;           /* class folders of other names are left out, not errors */
    const char *prefix;         /* seq2seq: begins every source; NULL: none */
    const espl_chat *chat;      /* lm: records are conversations; NULL: they are not */
    const char *separator;      /* lm: records are prompts and responses, with this between them; NULL: they are not */
    bool learns_prompt;         /* prompts are learned like responses */
    int64_t length;             /* most tokens of a text or source: mlm begins a new document behind, others cut; 0: any; not lm's texts */
    int64_t target_length;      /* seq2seq: the same of a target */
    espl_truncation truncation; /* what is kept; of a target always its head */

    const char *cache; /* folder, made when absent */
    json_t *files;     /* an array that gets {"path", "bytes", "xxh3"} of every file (above 8 MiB: the XXH3 of the XXH3s of its blocks of
                        * 8 MiB); of a store its "key" instead. NULL: not wanted */
    int threads;       /* a rank; 0: shares the node's cores among its ranks */
} espl_tokens_recipe;

/* Local. How a recipe has records read. */
espl_reader_options espl_tokens_reading(const espl_tokens_recipe *recipe);

/* Collective. Makes or reuses the store of a recipe: key = hash of file contents, tokenizer and recipe; ranks tokenise shares of the input
 * in parallel and the result does not depend on their number. A stale or corrupt cache is rebuilt, with a line that says why. Progress goes
 * to stderr. *path is the store's file (caller frees), its checksums verified. Format tokens: the one path is a store and used as it is;
 * `tokenizer` may then be NULL. Errors: data, with file:line of a bad record; empty dataset; usage; io. The same on all ranks. */
espl_status espl_tokens_prepare(espl_comm *comm, const espl_tokenizer *tokenizer, const espl_tokens_recipe *recipe, char **path);

/* Local. Maps a store and checks its header; `verify` also its checksums. */
espl_status espl_tokens_open(const char *path, bool verify, espl_tokens *tokens);

/* Collective. The same without `verify` on all ranks: rank 0 looks at the header, and the ranks of a host map the file by one descriptor
 * (espl_files_share). */
espl_status espl_tokens_open_all(espl_comm *comm, const char *path, espl_tokens *tokens);

/* Local. Unmaps; accepts a zeroed struct. */
void espl_tokens_close(espl_tokens *tokens);

#endif
