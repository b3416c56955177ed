/* Generation: several prompts at once, greedy, sampled or by beams, over a decoder. Tokens in, tokens out. */
#ifndef ESPL_EVAL_GENERATE_H
#define ESPL_EVAL_GENERATE_H

#include "src/eval/beam.h"
#include "src/eval/kv_decoder.h"
#include "src/eval/sampling.h"

typedef struct espl_generate_options {
    espl_sampling sampling; /* its end tokens end beams too */
    int beams;              /* 1: greedy or sampled, by sampling.temperature */
    double length_penalty;
    espl_beam_early early;
    int64_t max_new;
    uint64_t seed;
} espl_generate_options;

typedef struct espl_prompt {
    const int32_t *ids;    /* borrowed; of an encoder-decoder what the decoder's text begins with */
    int64_t n;             /* at least 1 */
    const int32_t *source; /* of an encoder-decoder: what is encoded; else NULL */
    int64_t n_source;
} espl_prompt;

/* What came out of one prompt: its new tokens, the end token included. */
typedef struct espl_generated {
    int32_t *ids; /* [n], owned by the caller: free() */
    int64_t n;
    float score; /* of the beam; 0 otherwise */
} espl_generated;

/* Called for each new token as it is chosen (not with beams, which may change their minds). */
typedef void espl_token_sink(void *context, int prompt, int32_t token);

/* Local. Generates from n prompts. The decoder needs n * beams rows, cleared, each with room for its prompt and max_new tokens.
 * `sink` may be NULL. Errors: usage, when a sequence does not fit. */
espl_status espl_generate(espl_decoder *decoder, const espl_generate_options *options, int n, const espl_prompt *prompts, int64_t vocab,
                          espl_token_sink *sink, void *context, espl_generated *out);

#endif
