/* Placing: which tokens micro-batch k of epoch e holds.
 *
 * A pure function of (seed, epoch, k): a keyed permutation, no state but a cursor. packed: whole documents (split at `length`) are
 * packed into micro-batches of at most `budget` tokens without padding, each piece a segment of its own; windows: fixed windows
 * of the running text, shifted by a keyed offset each epoch. Several sources are mixed by weight, also as a pure function.
 *
 * An epoch holds as many tokens as all sources together. By size, that is every token exactly once. By weight, source s gives the
 * share weight / sum of weights of it: its documents follow each other in passes without end, each pass in an order of its own,
 * and an epoch goes on where the one before ended; a small source is so repeated, a large one is not begun anew.
 * A piece's last token targets the next token of its document, also when that stands in another piece.
 *
 * Classification and seq2seq take whole documents, as many as a second limit allows: texts, or tokens of the encoder. Masks of a masked LM
 * are drawn for each token by (seed, pass over the source, token), so a text is masked anew in each epoch, wherever it stands.
 *
 * The plan of an epoch is made when it is first asked for (one pass over document lengths) and takes a few numbers for every 4096
 * pieces; micro-batches near the last one asked for are cheap. So a placement holds caches: one thread at a time. */
#ifndef ESPL_DATA_PLACEMENT_H
#define ESPL_DATA_PLACEMENT_H

#include "src/config/config.h"
#include "src/core/arena.h"
#include "src/core/status.h"

#include <stdbool.h>
#include <stdint.h>

/* One source of documents; arrays borrowed for the life of the placement. */
typedef struct espl_source {
    const char *name; /* for messages */
    int64_t n_tokens, n_documents;
    const int64_t *documents; /* [n_documents + 1] */
    const uint16_t *ids16;    /* one of the two */
    const uint32_t *ids32;
    const uint8_t *mask;   /* [n_tokens] 1: a target; or NULL: all */
    const uint8_t *types;  /* [n_tokens] token types, or NULL: all 0 */
    const uint8_t *words;  /* [n_tokens] espl_word; masked LM */
    const int32_t *labels; /* [n_documents] classes, -1: none; classification */
    const int32_t *split;  /* [n_documents] the first of a document's tokens that are the encoder's; seq2seq */
    const int64_t *chosen; /* [n_chosen] the documents that are used, or NULL: all; not with windows */
    int64_t n_chosen;
    double weight; /* relative share of tokens in an epoch's mix; where any source has <= 0, all are mixed by size */
} espl_source;

/* What a token is to a mask over words. */
enum { ESPL_WORD_GOES_ON, ESPL_WORD_BEGINS, ESPL_WORD_SPECIAL };

/* Which tokens a masked LM has to guess: each word or token with `probability`; of those 80 % become `mask`, 10 % any id below
 * `vocabulary`, 10 % stay (Devlin et al., "BERT", 2018). Special tokens never are. */
typedef struct espl_masking {
    double probability;
    bool whole_words;
    int32_t mask, vocabulary;
} espl_masking;

/* How much a micro-batch holds at most. */
typedef struct espl_room {
    int64_t tokens;        /* of the main stream */
    int64_t source_tokens; /* of the encoder's stream; seq2seq, else 0 */
    int64_t sequences;     /* segments, at most `tokens` */
    int64_t longest;       /* tokens of a segment of the main stream, its prompt included; 0: up to all */
} espl_room;

typedef struct espl_placement_options {
    int task; /* data.task's choice: what becomes of a document */
    espl_room room;
    int64_t length; /* longest document piece or window, with its prompt <= room.tokens; classification and seq2seq take whole documents */
    int64_t prompt, source_prompt; /* tokens in front of every segment, of the main stream and of the encoder's; no targets */
    int32_t prompt_id;             /* their ids: this and the following */
    bool windows;                  /* fixed windows instead of packed documents; lm and mlm */
    bool shuffle;                  /* off for evaluation: natural order, each source once, every epoch alike */
    uint64_t seed;
    espl_masking masking;       /* mlm */
    int32_t start;              /* seq2seq: the id that the decoder's input begins with */
    int64_t n_classes;          /* classification: labels are below */
    const float *class_weights; /* [n_classes], borrowed, or NULL: all 1 */
} espl_placement_options;

typedef struct espl_placement espl_placement;

/* The encoder's tokens of a micro-batch; segment s goes with the main stream's segment s. */
typedef struct espl_sample_source {
    int64_t n;
    int32_t *segments, *ids, *positions;
} espl_sample_source;

/* One micro-batch as plain arrays, owned by the caller, with as much room as the placement's (one more segment offset). */
typedef struct espl_sample {
    int64_t n;
    int32_t n_segments;
    int32_t *segments, *ids, *positions;
    int32_t *targets;     /* [n] lm: the next token of the text, -1 at its end or where masked; mlm: what stood there, -1 where nothing was
                           * done; seq2seq: the next token of the target; classification: -1 */
    int32_t *types;       /* [n] token types */
    int64_t *documents;   /* [n_segments] what each segment is (a piece) of: documents counted through all sources; -1: windows */
    int32_t *labels;      /* [n_segments] class, -1: none; classification */
    float *label_weights; /* [n_segments] the class's weight */
    int64_t n_targets;    /* tokens, or labelled segments */
    double weight;        /* of all targets together: what the sum of losses is divided by; n_targets where no class has a weight */
    espl_sample_source source; /* seq2seq; else n = 0 */
    espl_arena memory;         /* of espl_sample_make */
} espl_sample;

/* Local. Plans the placement. Errors: data, when the sources hold no target at all, lack what the task needs, or hold a document that is
 * taken as a whole and does not fit. */
espl_status espl_placement_make(const espl_source *sources, int64_t n_sources, const espl_placement_options *options,
                                espl_placement **placement);

/* Local. Micro-batches of epoch `epoch`. Two epochs may differ by a few (packing differs). */
int64_t espl_placement_count(espl_placement *placement, int64_t epoch);

/* What an epoch holds; tokens / (micro_batches x room.tokens) is how full its micro-batches are. */
typedef struct espl_filling {
    int64_t micro_batches, sequences, tokens, source_tokens;
} espl_filling;

/* Local. Counts an epoch. */
espl_filling espl_placement_filling(espl_placement *placement, int64_t epoch);

/* Local. Fills micro-batch k of the epoch; k >= count gives n = 0. */
void espl_placement_fill(espl_placement *placement, int64_t epoch, int64_t k, espl_sample *sample);

/* Local. Targets of micro-batch k and their weight (NULL: not asked for), without filling it. */
int64_t espl_placement_targets(espl_placement *placement, int64_t epoch, int64_t k, double *weight);

/* Local. The room that a config gives a micro-batch of a model with so many positions for text, behind a prompt in the main stream. */
espl_room espl_room_of(const espl_config *config, int64_t positions, int64_t prompt);

/* Local. Takes a sample's arrays from an arena; all are there, whatever the task, but those of the source without its tokens. */
void espl_sample_take(espl_arena *arena, const espl_room *room, espl_sample *sample);

/* Local. A sample in memory of its own, and its release (which accepts a zeroed one). */
espl_status espl_sample_make(const espl_room *room, espl_sample *sample);
void espl_sample_free(espl_sample *sample);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_placement_free(espl_placement **placement);

#endif
