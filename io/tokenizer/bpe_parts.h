/* What the two files of byte pair encoding share: the model, which bpe_load.c makes, and a call's working memory. Local, all. */
#ifndef ESPL_IO_TOKENIZER_BPE_PARTS_H
#define ESPL_IO_TOKENIZER_BPE_PARTS_H

#include "io/tokenizer/tokenizer_parts.h"

enum {
    ESPL__BPE_CHARS = 0x10000, /* characters whose ids are in a table */
    ESPL__MEMOS = 1 << 15,     /* remembered pieces, 64 bytes each */
    ESPL__MEMO_KEY = 28,
    ESPL__MEMO_IDS = 6
};

typedef struct espl__bpe_merge {
    int32_t left, right; /* left -1: free */
    uint32_t rank;
    int32_t id;
} espl__bpe_merge;

typedef struct espl__bpe {
    const espl__vocab *vocab;
    espl__bpe_merge *merges; /* open addressing, linear probing */
    uint64_t mask;
    int32_t *char_ids;     /* [ESPL__BPE_CHARS] */
    int32_t byte_ids[256]; /* of <0xHH>, -1: none */
    int32_t raw_ids[256];  /* of the byte-level characters */
    espl__vocab raw_vocab; /* with raw_bytes and ignore_merges: the same ids by the bytes that byte-level tokens stand for */
    int32_t unk;           /* -1: unknown characters vanish */
    espl_buffer prefix, suffix;
    bool fuse_unk, byte_fallback, ignore_merges, cuts_at_mark, raw_bytes;
} espl__bpe;

typedef struct espl__bpe_node {
    int32_t id, size; /* size 0: merged into an earlier one */
    int32_t previous, next;
} espl__bpe_node;

typedef struct espl__bpe_entry {
    uint64_t key; /* rank << 32 | position */
    int32_t id;   /* what the pair becomes */
} espl__bpe_entry;

typedef struct espl__bpe_memo {
    uint32_t hash;
    uint8_t n_key, n_ids, sizes[ESPL__MEMO_IDS];
    int32_t ids[ESPL__MEMO_IDS];
    char key[ESPL__MEMO_KEY];
} espl__bpe_memo;

typedef struct espl__bpe_work {
    struct {
        espl__bpe_node *at;
        size_t n, capacity;
    } nodes;
    struct {
        espl__bpe_entry *at;
        size_t n, capacity;
    } heap;
    espl__bpe_memo *memos; /* [ESPL__MEMOS], direct mapped */
    espl_buffer affixed;
} espl__bpe_work;

static inline uint64_t espl__bpe_slot(const espl__bpe *bpe, int32_t left, int32_t right) {
    uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u; /* Fibonacci hashing: the high bits are mixed */
    return (x ^ x >> 29) >> 11 & bpe->mask;
}

/* Local. The merge of a pair, or NULL. */
static inline const espl__bpe_merge *espl__bpe_find(const espl__bpe *bpe, int32_t left, int32_t right) {
    for (uint64_t slot = espl__bpe_slot(bpe, left, right); bpe->merges[slot].left >= 0; slot = (slot + 1) & bpe->mask)
        if (bpe->merges[slot].left == left && bpe->merges[slot].right == right)
            return &bpe->merges[slot];
    return NULL;
}

espl_status espl__bpe_parse(const espl__where *where, json_t *json, espl__vocab *vocab, void **model);
void espl__bpe_free(void *model);
bool espl__bpe_takes_bytes(const void *model);
void espl__bpe_use_bytes(void *model);

#endif
