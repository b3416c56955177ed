/* A decoder: the generation tape with a key/value cache, for several sequences at once; of an encoder-decoder with its encoder.
 *
 * Sequences live in cache rows; a model's soft prompt (soft_prompt.h) stands in front of each without being fed or counted.
 * espl_decoder_feed appends tokens to rows and gives the logits that follow the last one of each; long prompts go in pieces of at most the
 * planned tokens. Memory is taken once: in arenas of its own (espl_decoder_make), or in arenas that are somebody else's plan
 * (espl_decoder_plan, espl_decoder_take, espl_decoder_bind). */
#ifndef ESPL_EVAL_KV_DECODER_H
#define ESPL_EVAL_KV_DECODER_H

#include "kernels/engine.h"
#include "src/core/arena.h"
#include "src/model/tape.h"

typedef struct espl_decoder espl_decoder;

/* What a decoder's memory depends on; the model and the kernels are borrowed. */
typedef struct espl_decoder_size {
    const espl_model *model;
    const espl_kernels *kernels;
    bool remote; /* for a device whose memory the host cannot address */
    int threads;
    int rows;              /* sequences */
    int64_t capacity;      /* tokens of a sequence at most */
    int64_t tokens;        /* of one pass at most; no fewer than the rows are taken */
    int64_t source_tokens; /* of an encoder-decoder: of all sources together; else 0 */
} espl_decoder_size;

/* Local. A decoder without memory. */
espl_decoder *espl_decoder_plan(const espl_decoder_size *size);

/* Local. The layout: takes values and caches, kernels' scratch and what the host keeps from three arenas, which may be measuring. Arenas on
 * the device that others use between two generations must be zeroed again before the next. */
void espl_decoder_take(espl_decoder *decoder, espl_arena *act, espl_arena *work, espl_arena *host);

/* Local. Binds it to an engine and to `places`, of which it has act and work itself. Its micro-batches must be reserved
 * (espl_decoder_capacity) while it is used. */
void espl_decoder_bind(espl_decoder *decoder, const espl_engine *engine, const espl_places *places);

/* Local. Rows and segments of its micro-batches, [ESPL_N_STREAMS]. */
const espl_capacity *espl_decoder_capacity(const espl_decoder *decoder);

/* Local. How many sequences there are. */
int espl_decoder_rows(const espl_decoder *decoder);

/* What it runs on; borrowed. */
typedef struct espl_decoder_use {
    const espl_engine *engine;
    const espl_model *model;
    const void *weights; /* the flat space (one rank), real, on the engine's device */
    const float *rope;   /* as espl_places.rope */
    int threads;
    int64_t source_tokens; /* of an encoder-decoder: of all sources together; else 0 */
} espl_decoder_use;

/* Local. A decoder in memory of its own: `rows` sequences of at most `capacity` tokens; `tokens`: most tokens of one pass. Errors: usage,
 * when it does not fit. */
espl_status espl_decoder_make(const espl_decoder_use *use, int rows, int64_t capacity, int64_t tokens, espl_decoder **decoder);

/* Local. Of an encoder-decoder: encodes n sources, counts[s] tokens of ids each, one after another; cache rows s * rows_each and the
 * following see source s until the next time. Errors: usage, when they are more tokens than planned; what a kernel failed with. */
espl_status espl_decoder_encode(espl_decoder *decoder, int n, int rows_each, const int32_t *counts, const int32_t *ids);

/* Local. Appends counts[s] tokens of ids (one sequence after another) to cache row rows[s], for n sequences, and writes the logits behind
 * each sequence's last token to logits [n, V]. Errors: usage, when a row would exceed its capacity; what a kernel failed with. */
espl_status espl_decoder_feed(espl_decoder *decoder, int n, const int32_t *rows, const int32_t *counts, const int32_t *ids, float *logits);

/* Local. Room for the logits of all rows, [rows, V], for whoever feeds. */
float *espl_decoder_logits(espl_decoder *decoder);

/* Local. Row r becomes what row source[r] was, for the first n rows (beams). */
void espl_decoder_reorder(espl_decoder *decoder, int n, const int32_t *source);

/* Local. Forgets what is in a row. */
void espl_decoder_clear(espl_decoder *decoder, int row);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_decoder_free(espl_decoder **decoder);

#endif
