/* A tokenizer's parts and its pool of scratch memory, for the files that open, encode and decode. */
#ifndef ESPL_IO_TOKENIZER_STATE_H
#define ESPL_IO_TOKENIZER_STATE_H

#include "io/tokenizer/tokenizer_parts.h"

#include <pthread.h>

struct espl_tokenizer {
    espl__vocab vocab;
    const espl__model_kind *kind;
    void *model;
    espl__normalizers normalizers;
    espl__pretokenizers pretokenizers;
    espl__post post;
    espl__decoders decoders;
    espl__added *added;
    uint64_t hash;
    pthread_mutex_t lock; /* of idle */
    espl__scratch *idle;
};

/* Local. A scratch that no other call holds; give it back when done. */
espl__scratch *espl__tokenizer_borrow(const espl_tokenizer *tokenizer);
void espl__tokenizer_return(const espl_tokenizer *tokenizer, espl__scratch *scratch);

#endif
