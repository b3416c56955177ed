/* From one row of logits to the next token.
 *
 * Order and meaning are those of the transformers package: first what looks at the tokens so far (repetition penalty, n-grams
 * that may not come twice, no end before a least length), which holds for greedy, sampled and beam decoding alike; then, for
 * sampling, temperature, top-k, top-p. A removed token has logit -inf. Pure functions: all memory is the caller's, random numbers
 * are a function of (seed, sequence, position). Logits must not be NaN. V vocabulary. */
#ifndef ESPL_EVAL_SAMPLING_H
#define ESPL_EVAL_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct espl_sampling {
    double repetition_penalty;  /* > 0; 1: off. Keskar et al. 2019 (CTRL), section 4.1; negative logits are multiplied */
    int64_t no_repeat_ngram;    /* no n-gram of this length twice; 0: off */
    int64_t min_new_tokens;     /* the end tokens are removed before this many are generated */
    double temperature;         /* divides the logits; 0: greedy */
    int64_t top_k;              /* keeps what is not below the k-th largest logit, so ties of it too; 0: off */
    double top_p;               /* keeps the smallest set of the likeliest tokens with this probability (Holtzman et al. 2020); 1: off */
    int64_t min_tokens_to_keep; /* top-k and top-p leave at least this many; at least 1 */
    const int32_t *eos;         /* end tokens; borrowed */
    int n_eos;
} espl_sampling;

/* The tokens of a sequence so far. */
typedef struct espl_context {
    const int32_t *ids; /* prompt and generated tokens; borrowed */
    int64_t n, n_new;   /* all of them; the generated ones */
} espl_context;

/* Local. Bytes of scratch memory, aligned to 8, that the functions below need for a vocabulary. */
size_t espl_sampling_scratch(int64_t vocab);

/* Local. Applies what looks at the tokens so far to logits [V], in place. For beam search the logits are log-probabilities. */
void espl_sampling_penalise(const espl_sampling *how, espl_context context, float *logits, int64_t vocab, void *scratch);

/* Local. Applies temperature (not 0), top-k and top-p to logits [V], in place. Among equal logits at the border of top-p those with
 * the higher index stay (what a stable ascending sort gives; transformers leaves it to an unstable one). */
void espl_sampling_warp(const espl_sampling *how, float *logits, int64_t vocab, void *scratch);

/* Local. Index of the first largest logit. */
int32_t espl_sampling_argmax(const float *logits, int64_t vocab);

/* Local. Logits [V] to log-probabilities, in place; sums in double. */
void espl_sampling_log_softmax(float *logits, int64_t vocab);

/* Local. A token drawn from softmax(logits), by the random number of position `position` of sequence `sequence` under `seed`. */
int32_t espl_sampling_draw(const float *logits, int64_t vocab, uint64_t seed, uint32_t sequence, uint32_t position);

/* Local. The next token: penalise, then argmax (temperature 0) or warp and draw. Changes the logits. */
int32_t espl_sampling_next(const espl_sampling *how, espl_context context, float *logits, int64_t vocab, uint64_t seed, uint32_t sequence,
                           void *scratch);

#endif
