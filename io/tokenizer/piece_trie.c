/* A vocabulary as a tree of bytes, its edges in one hash table. */
#include "io/tokenizer/tokenizer_parts.h"

#include <stdlib.h>

static uint64_t slot_of(const espl__trie *trie, int32_t node, unsigned char byte) {
    uint64_t x = ((uint64_t)(uint32_t)node << 8 | byte) * 0x9E3779B97F4A7C15u; /* Fibonacci hashing: the high bits are mixed */
    return (x ^ x >> 29) >> 11 & trie->mask;
}

/* The slot of an edge, or the free one where it would be. */
static espl__trie_edge *find(const espl__trie *trie, int32_t node, unsigned char byte) {
    uint64_t slot = slot_of(trie, node, byte);
    while (trie->edges[slot].to && (trie->edges[slot].from != node || trie->edges[slot].byte != byte))
        slot = (slot + 1) & trie->mask;
    return &trie->edges[slot];
}

int32_t espl__trie_step(const espl__trie *trie, int32_t node, unsigned char byte) {
    int32_t to = find(trie, node, byte)->to;
    return to ? to : -1;
}

static void double_edges(espl__trie *trie) {
    espl__trie_edge *old = trie->edges;
    uint64_t n_old = trie->mask + 1;
    trie->mask = 2 * n_old - 1;
    trie->edges = espl_calloc(2 * n_old, sizeof *trie->edges);
    for (uint64_t i = 0; i < n_old; i++)
        if (old[i].to)
            *find(trie, old[i].from, old[i].byte) = old[i];
    free(old);
}

static int32_t add_node(espl__trie *trie) {
    ESPL__PUSH(&trie->ids, -1);
    return (int32_t)trie->ids.n - 1;
}

static void insert(espl__trie *trie, const char *token, size_t n, int32_t id) {
    int32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        espl__trie_edge *edge = find(trie, node, (unsigned char)token[i]);
        if (!edge->to)
            *edge = (espl__trie_edge){.from = node, .to = add_node(trie), .byte = (unsigned char)token[i]};
        node = edge->to;
        if (2 * trie->ids.n > trie->mask)
            double_edges(trie);
    }
    trie->ids.at[node] = id;
}

void espl__trie_make(const espl__vocab *vocab, espl__trie *trie) {
    enum { FIRST_EDGES = 1024 };
    size_t n;
    trie->mask = FIRST_EDGES - 1;
    trie->edges = espl_calloc(FIRST_EDGES, sizeof *trie->edges);
    add_node(trie);
    for (int64_t id = 0; id < vocab->n_ids; id++) {
        const char *token = espl__vocab_token(vocab, (int32_t)id, &n);
        if (token)
            insert(trie, token, n, (int32_t)id);
    }
}

void espl__trie_free(espl__trie *trie) {
    free(trie->edges);
    free(trie->ids.at);
    *trie = (espl__trie){0};
}
