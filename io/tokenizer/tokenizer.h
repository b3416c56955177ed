/* Tokenizers, from a Hugging Face tokenizer.json: text to ids and back, exactly as the reference package does it.
 *
 * Opened once, then read-only: any number of threads may encode with one tokenizer. */
#ifndef ESPL_IO_TOKENIZER_TOKENIZER_H
#define ESPL_IO_TOKENIZER_TOKENIZER_H

#include "src/core/buffer.h"
#include "src/core/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct espl_tokenizer espl_tokenizer;

typedef struct espl_encoding {
    int32_t *ids;         /* [n] */
    int64_t *begin, *end; /* [n] byte offsets of each token in the text; NULL unless asked for */
    int64_t n, capacity;
    bool want_offsets; /* set by the caller before encoding */
} espl_encoding;

/* Local. Reads `path`: a tokenizer.json, or a folder that holds one. Errors: data, naming the file and the part that is unknown. */
espl_status espl_tokenizer_open(const char *path, espl_tokenizer **tokenizer);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_tokenizer_close(espl_tokenizer **tokenizer);

/* Local. Appends the ids of `text` to `out` (which may hold ids already). `special`: let the post-processor add its tokens.
 * Special tokens written in the text are recognised, as the reference does. Invalid UTF-8 is replaced by U+FFFD. */
espl_status espl_tokenizer_encode(const espl_tokenizer *tokenizer, const char *text, size_t size, bool special, espl_encoding *out);

/* Local. Appends the text of ids to `out`; special tokens are left out when `skip_special`. */
espl_status espl_tokenizer_decode(const espl_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip_special, espl_buffer *out);

/* Local. Entries, added tokens included. */
int64_t espl_tokenizer_size(const espl_tokenizer *tokenizer);

/* Local. Id of a token by its exact content, -1 when there is none. */
int32_t espl_tokenizer_id(const espl_tokenizer *tokenizer, const char *token);

/* Local. Hash of tokenizer.json's bytes (XXH3), part of the token store's key. */
uint64_t espl_tokenizer_hash(const espl_tokenizer *tokenizer);

/* Local. Frees what an encoding holds; keeps want_offsets. */
void espl_encoding_free(espl_encoding *encoding);

#endif
