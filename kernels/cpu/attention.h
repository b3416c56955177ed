/* What forward and backward of ATTENTION share: how a micro-batch is cut into blocks, and how a block is laid out.
 *
 * A block is up to BLOCK queries of one head by up to BLOCK keys, both from multiples of BLOCK in their segment. Forward takes the keys
 * of a block of queries one block after another and holds scores as [key][query], so that everything that goes query by query (maximum,
 * sum) runs along vectors; backward takes the queries of a block of keys and holds them as [query][key]. What a thread needs again and
 * again is packed once: the queries in forward, the keys and values in backward. Where a block lies on the diagonal, products are cut
 * into strips of BLOCK_LANES, each no longer than the causal mask leaves it. */
#ifndef ESPL_KERNELS_CPU_ATTENTION_H
#define ESPL_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/blocks.h"
#include "kernels/cpu/dropout.h"

enum { BLOCK = 64 };

/* Positions here count from the start of the segment. */
typedef struct attention {
    const espl_args *args;
    const real *qkv;
    int64_t ld, d, width; /* of qkv; of a head; of a head, rounded up to BLOCK_LANES */
    int64_t heads, kv_heads, group;
    dropout drop;
} attention;

typedef struct span {
    int64_t start, tokens; /* of a segment in the micro-batch */
} span;

typedef struct block_unit {
    span segment;
    int64_t head, first; /* first: token of the block, from the start of the segment */
} block_unit;

static inline attention attention_of(const espl_args *args, dropout drop) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim;
    return (attention){.args = args,
                       .qkv = args->in[0],
                       .ld = (attrs->heads + 2 * attrs->kv_heads) * d,
                       .d = d,
                       .width = round_up(d, BLOCK_LANES),
                       .heads = attrs->heads,
                       .kv_heads = attrs->kv_heads,
                       .group = attrs->heads / attrs->kv_heads,
                       .drop = drop};
}

static inline const real *query_at(const attention *a, int64_t token, int64_t head) { return a->qkv + token * a->ld + head * a->d; }

static inline const real *key_at(const attention *a, int64_t token, int64_t kv_head) {
    return a->qkv + token * a->ld + (a->heads + kv_head) * a->d;
}

static inline const real *value_at(const attention *a, int64_t token, int64_t kv_head) {
    return a->qkv + token * a->ld + (a->heads + a->kv_heads + kv_head) * a->d;
}

/* The keys that queries q .. q + n - 1 may see: from a multiple of BLOCK. */
static inline int64_t first_key(const attention *a, int64_t q) {
    const espl_attrs *attrs = a->args->attrs;
    return attrs->causal && attrs->window > 0 && q >= attrs->window ? (q - attrs->window + 1) / BLOCK * BLOCK : 0;
}

static inline int64_t end_key(const attention *a, const span *s, int64_t q, int64_t n) {
    return a->args->attrs->causal ? min64(q + n, s->tokens) : s->tokens;
}

static inline bool on_diagonal(const attention *a, int64_t q, int64_t k) { return a->args->attrs->causal && q == k; }

/* Whether some of these queries may not see some of these keys. */
static inline bool is_masked(const attention *a, int64_t q, int64_t queries, int64_t k) {
    const espl_attrs *attrs = a->args->attrs;
    return attrs->causal && (q == k || (attrs->window > 0 && q + queries - 1 - k >= attrs->window));
}

/* Local. Blocks of BLOCK tokens in all segments. */
int64_t CPU(attention_blocks)(const espl_batch *batch);

/* Local. Unit number `unit` of blocks x heads: segment by segment, in it head by head, so that a head stays in cache. */
block_unit CPU(attention_unit)(const espl_batch *batch, int64_t unit, int64_t heads);

/* Local. to[c][i] = scale * x[i][c], BLOCK rows wide, 0 past `rows`. */
void CPU(pack_transposed)(const real *x, int64_t ld, int64_t rows, int64_t d, float scale, float *to);

/* Local. to[i][c] = x[c][i] for all BLOCK rows, `width` a row. */
void CPU(unpack_transposed)(const float *x, int64_t d, int64_t width, float *to);

/* Local. to[i][c] = scale * x[i][c], `width` wide, 0 past d. */
void CPU(pack_rows)(const real *x, int64_t ld, int64_t rows, int64_t d, int64_t width, float scale, float *to);

/* Local. mask[j][i] = 0 or 1 / (1 - p) of probabilities [key][query]; k is a multiple of 4. */
void CPU(attention_dropout)(const attention *a, const span *s, int64_t head, int64_t q, int64_t k, int64_t keys, float *mask);

#endif
