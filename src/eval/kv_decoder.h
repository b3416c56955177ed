/* A decoder: the generation tape with a key/value cache, for several sequences at once; of an encoder-decoder with its encoder.
 *
 * Sequences live in cache rows. espl_decoder_feed appends tokens to rows and gives the logits that follow the last one of each; long
 * prompts go in pieces of at most the planned tokens. Memory is taken once, when it is made. */
#ifndef ESPL_EVAL_KV_DECODER_H
#define ESPL_EVAL_KV_DECODER_H

#include "kernels/engine.h"
#include "src/model/tape.h"

typedef struct espl_decoder espl_decoder;

/* What it runs on; borrowed. */
typedef struct espl_decoder_use {
    const espl_engine *engine;
    const espl_model *model;
    const void *weights; /* the flat space (one rank), real, on the engine's device */
    const float *rope;   /* as espl_places.rope */
    int threads;
    int64_t source_tokens; /* of an encoder-decoder: of all sources together; else 0 */
} espl_decoder_use;

/* Local. `rows` sequences of at most `capacity` tokens; `tokens`: most tokens of one pass. Errors: usage, when it does not fit. */
espl_status espl_decoder_make(const espl_decoder_use *use, int rows, int64_t capacity, int64_t tokens, espl_decoder **decoder);

/* Local. Of an encoder-decoder: encodes n sources, counts[s] tokens of ids each, one after another; cache rows s * rows_each and the
 * following see source s until the next time. Errors: usage, when they are more tokens than planned; what a kernel failed with. */
espl_status espl_decoder_encode(espl_decoder *decoder, int n, int rows_each, const int32_t *counts, const int32_t *ids);

/* Local. Appends counts[s] tokens of ids (one sequence after another) to cache row rows[s], for n sequences, and writes the logits behind
 * each sequence's last token to logits [n, V]. Errors: usage, when a row would exceed its capacity; what a kernel failed with. */
espl_status espl_decoder_feed(espl_decoder *decoder, int n, const int32_t *rows, const int32_t *counts, const int32_t *ids, float *logits);

/* Local. Row r becomes what row source[r] was, for the first n rows (beams). */
void espl_decoder_reorder(espl_decoder *decoder, int n, const int32_t *source);

/* Local. Forgets what is in a row. */
void espl_decoder_clear(espl_decoder *decoder, int row);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_decoder_free(espl_decoder **decoder);

#endif
