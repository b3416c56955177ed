#include "src/core/rng.h"
#include "src/data/pieces.h"

enum { DRAW_WHETHER, DRAW_HOW, DRAW_WHICH }; /* what the numbers of a token's block are for */

/* A draw below this has happened with the probability. */
static uint64_t threshold(double probability) { return (uint64_t)(probability * 4294967296.0); }

/* The first token of the word that a token is of; the text may have been cut within a word. */
static int64_t word_begin(const espl_source *source, int64_t token) {
    while (token > 0 && source->words[token] == ESPL_WORD_GOES_ON)
        token--;
    return token;
}

static int32_t shown_id(const espl_masking *masking, const espl_rng4 *draw, int32_t id) {
    if (draw->v[DRAW_HOW] < threshold(0.8))
        return masking->mask;
    if (draw->v[DRAW_HOW] < threshold(0.9))
        return (int32_t)((uint64_t)draw->v[DRAW_WHICH] * (uint64_t)masking->vocabulary >> 32);
    return id;
}

int64_t espl__mask_tokens(const espl_placement_options *options, const espl_source *source, const espl_piece *piece, int32_t *shown,
                          int32_t *targets) {
    const espl_masking *masking = &options->masking;
    espl_rng_key key = {.seed = options->seed, .purpose = ESPL_RNG_MASK, .step = (uint32_t)piece->pass, .op = (uint32_t)piece->source};
    uint64_t chance = threshold(masking->probability);
    bool masked = false;
    int64_t n = 0;
    for (int32_t i = 0; i < piece->length; i++) {
        int64_t token = piece->begin + i;
        uint8_t word = source->words[token];
        espl_rng4 draw = espl_rng_block(&key, (uint64_t)token);
        if (!masking->whole_words || word != ESPL_WORD_GOES_ON)
            masked = draw.v[DRAW_WHETHER] < chance;
        else if (i == 0)
            masked = espl_rng_block(&key, (uint64_t)word_begin(source, token)).v[DRAW_WHETHER] < chance;
        bool guessed = masked && word != ESPL_WORD_SPECIAL;
        int32_t id = espl__id_at(source, token);
        if (shown != NULL)
            shown[i] = guessed ? shown_id(masking, &draw, id) : id;
        if (targets != NULL)
            targets[i] = guessed ? id : -1;
        n += guessed;
    }
    return n;
}
