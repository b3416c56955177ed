/* Beam search as a state machine that knows no model: log-probabilities go in, tokens and cache rows to continue from come out.
 *
 * The rules are those of the transformers package (version 5, generate with num_beams). Each step looks at the best
 * (1 + number of end tokens, at least 2) x beams continuations of an item; those that end are scored by their summed
 * log-probability / (generated tokens, the end token included) ^ length_penalty and kept if they are among the item's best `beams`; only
 * the first `beams` of the continuations may end. The best `beams` others go on. Arithmetic is float, as there. A batch holds independent
 * items that step together. Steps take no memory. */
#ifndef ESPL_EVAL_BEAM_H
#define ESPL_EVAL_BEAM_H

#include <stdbool.h>
#include <stdint.h>

/* When an item stops before max_new: as soon as it has `beams` finished sequences (ALWAYS), when the best running one cannot
 * get better than the worst finished one at its present length (HEURISTIC, the default), or at the length that suits it best (NEVER). */
typedef enum espl_beam_early { ESPL_BEAM_HEURISTIC, ESPL_BEAM_ALWAYS, ESPL_BEAM_NEVER } espl_beam_early;

typedef struct espl_beam_options {
    int batch, beams;
    int64_t vocab, max_new;
    double length_penalty;
    espl_beam_early early;
    const int32_t *eos; /* end tokens; borrowed until espl_beam_free */
    int n_eos;
} espl_beam_options;

typedef struct espl_beam espl_beam;

/* Local. A search at its start. */
espl_beam *espl_beam_make(const espl_beam_options *options);

/* Local. Takes log-probabilities [batch * beams, vocab] of the next token of each row, and writes for each row the token to append
 * (tokens [batch * beams]) to what row source [batch * beams] was. Before the first step only the prompt stands in the rows of an item,
 * so of those only the first row is read. Returns whether another step is wanted; if not, tokens and source mean nothing. */
bool espl_beam_step(espl_beam *beam, const float *log_probs, int32_t *tokens, int32_t *source);

/* Local. Generated tokens of row `row` that are to be continued (for espl_sampling_penalise), and their number. */
const int32_t *espl_beam_running(const espl_beam *beam, int row, int64_t *n);

/* Local. The finished sequence of rank `rank` (0 the best) of an item: its n generated tokens, the end token included, and its score; NULL
 * when there are not so many. Borrowed. */
const int32_t *espl_beam_result(const espl_beam *beam, int item, int rank, int64_t *n, float *score);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_beam_free(espl_beam **beam);

#endif
