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
    int64_t *begin, *end; /* [n] byte offsets of each token in its text; NULL unless asked for */
    uint8_t *types;       /* [n] token type by the template: 0, or 1 for the second text of a pair; NULL unless asked for */
    uint8_t *words;       /* [n] espl_token_word; NULL unless asked for */
    int64_t n, capacity;
    bool want_offsets, want_kinds; /* set by the caller before encoding; kinds: types and words */
} espl_encoding;

/* A word is what the pre-tokenizer cuts out. Special tokens, the unknown token among them, belong to none. */
enum { ESPL_TOKEN_GOES_ON, ESPL_TOKEN_BEGINS_WORD, ESPL_TOKEN_SPECIAL };

/* What is kept of a text that is too long: its head, its tail, or a quarter from the head and the rest from the tail (Sun et al., "How to
 * Fine-Tune BERT for Text Classification?", 2019: 128 + 382 of 510). Of a pair the longer text is cut first. */
typedef enum espl_truncation { ESPL_KEEP_HEAD, ESPL_KEEP_TAIL, ESPL_KEEP_HEAD_TAIL } espl_truncation;

/* One text, or two that the template for pairs joins. */
typedef struct espl_encode_input {
    const char *text, *second; /* second NULL: none */
    size_t size, second_size;
    bool special;   /* let the post-processor add its tokens */
    int64_t length; /* most tokens, special ones included, which are never cut; 0: any number */
    espl_truncation truncation;
    size_t prefix; /* bytes at the text's begin that are kept under each truncation */
} espl_encode_input;

/* Local. Reads `path`: a tokenizer.json, or a folder that holds one. Errors: data, naming the file and the part that is unknown. */
espl_status espl_tokenizer_open(const char *path, espl_tokenizer **tokenizer);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_tokenizer_close(espl_tokenizer **tokenizer);

/* Local. Appends the ids of `text` to `out` (which may hold ids already). `special`: let the post-processor add its tokens.
 * Special tokens written in the text are recognised, as the reference does. Invalid UTF-8 is replaced by U+FFFD. */
espl_status espl_tokenizer_encode(const espl_tokenizer *tokenizer, const char *text, size_t size, bool special, espl_encoding *out);

/* Local. The same of one text or a pair, cut to `length` tokens: *lost (NULL: not asked for) tokens were left out. With `length` there is
 * room for one token of each text at least beside the special ones. */
espl_status espl_tokenizer_encode_input(const espl_tokenizer *tokenizer, const espl_encode_input *input, espl_encoding *out, int64_t *lost);

/* Local. Appends tokens [begin, end) of `text`, encoded without special ones, within the template for single texts. */
void espl_tokenizer_wrap(const espl_tokenizer *tokenizer, const espl_encoding *text, int64_t begin, int64_t end, espl_encoding *out);

/* Local. Special tokens that the template adds to one text, or to a pair. */
int64_t espl_tokenizer_specials(const espl_tokenizer *tokenizer, bool pair);

/* Local. Room for `more` tokens. */
void espl_encoding_reserve(espl_encoding *encoding, int64_t more);

/* Local. Appends the text of ids to `out`; special tokens are left out when `skip_special`. */
espl_status espl_tokenizer_decode(const espl_tokenizer *tokenizer, const int32_t *ids, int64_t n, bool skip_special, espl_buffer *out);

/* Local. Entries, added tokens included. */
int64_t espl_tokenizer_size(const espl_tokenizer *tokenizer);

/* Local. Id of a token by its exact content, -1 when there is none. */
int32_t espl_tokenizer_id(const espl_tokenizer *tokenizer, const char *token);

/* Local. Hash of tokenizer.json's bytes (XXH3), part of the token store's key. */
uint64_t espl_tokenizer_hash(const espl_tokenizer *tokenizer);

/* Local. Frees what an encoding holds; keeps what it wants. */
void espl_encoding_free(espl_encoding *encoding);

#endif
