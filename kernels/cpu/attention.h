/* What forward and backward of ATTENTION share: how a micro-batch is cut into blocks, and how a block is laid out.
 *
 * A block is up to BLOCK queries of one head by up to BLOCK keys. Scores are held transposed, [key][query], so that everything
 * that goes query by query (maximum, sum, mask, dropout) runs along vectors, and keys and values are read where they lie. */
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

/* Local. to[c][i] = scale * x[i][c], BLOCK queries wide, 0 past `rows`. */
void CPU(pack_transposed)(const real *x, int64_t ld, int64_t rows, int64_t d, float scale, float *to);

/* Local. to[i][c] = scale * x[c][i] for all BLOCK queries, `width` a row. */
void CPU(unpack_transposed)(const float *x, int64_t d, int64_t width, float scale, float *to);

/* Local. to[i][c] = scale * x[i][c], `width` wide, 0 past d. */
void CPU(pack_rows)(const real *x, int64_t ld, int64_t rows, int64_t d, int64_t width, float scale, float *to);

/* Local. rows x d of x as floats: x itself where real is float (ld stays), else a copy in `to` (ld becomes d). */
const float *CPU(view_rows)(const real *x, int64_t *ld, int64_t rows, int64_t d, float *to);

/* Local. Scores [keys][BLOCK] that a query may not see become -inf. */
void CPU(mask_scores)(const attention *a, int64_t q, int64_t queries, int64_t k, int64_t keys, float *scores);

/* Local. mask[j][i] = 0 or 1 / (1 - p) of the block's probabilities; k is a multiple of 4. */
void CPU(attention_dropout)(const attention *a, const span *s, int64_t head, int64_t q, int64_t k, int64_t keys, float *mask);

#endif
