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
#include "kernels/relative_bias.h"

enum { BLOCK = 64 };

/* Queries, keys and values of a call. Positions here count from the start of the segment. */
typedef struct attention {
    const espl_args *args;
    const espl_batch *keyed;         /* whose tokens are keys; queries are those of args->batch */
    const int32_t *key_segment;      /* of a segment of queries; NULL: it has the same number */
    const real *query, *key, *value; /* of token 0, head 0 */
    real *dquery, *dkey, *dvalue;
    bool query_add, key_add;  /* gradients are added to what is there */
    int64_t query_ld, key_ld; /* from token to token */
    int64_t d, width;         /* of a head; of a head, rounded up to BLOCK_LANES */
    int64_t heads, kv_heads, group;
    int32_t causal, window;
    int64_t entries; /* of a head's table of biases; 0: no bias */
    float *bias;     /* [heads, entries] */
    dropout drop;
} attention;

typedef struct span {
    int64_t start, tokens; /* of a segment in the micro-batch */
} span;

typedef struct block_unit {
    int32_t segment;
    int64_t head, first, block; /* token of the block, from the start of the segment; number of the block in all segments */
} block_unit;

static inline span span_of(const espl_batch *batch, int32_t segment) {
    return (span){batch->segments[segment], batch->segments[segment + 1] - batch->segments[segment]};
}

static inline span keys_of(const attention *a, int32_t segment) {
    return span_of(a->keyed, a->key_segment ? a->key_segment[segment] : segment);
}

static inline const real *query_at(const attention *a, int64_t token, int64_t head) { return a->query + token * a->query_ld + head * a->d; }

/* Elements from the place of token 0, head 0 of keys and values. */
static inline int64_t key_place(const attention *a, int64_t token, int64_t kv_head) { return token * a->key_ld + kv_head * a->d; }

/* The keys that queries q .. q + n - 1 may see, of `keys`: from a multiple of BLOCK. */
static inline int64_t first_key(const attention *a, int64_t q) {
    return a->window > 0 && q >= a->window ? (q - a->window + 1) / BLOCK * BLOCK : 0;
}

static inline int64_t end_key(const attention *a, const span *keys, int64_t q, int64_t n) {
    return a->causal ? min64(q + n, keys->tokens) : keys->tokens;
}

static inline bool on_diagonal(const attention *a, int64_t q, int64_t k) { return a->causal && q == k; }

/* Whether some of these queries may not see some of these keys. */
static inline bool is_masked(const attention *a, int64_t q, int64_t queries, int64_t k) {
    return a->causal && (q == k || (a->window > 0 && q + queries - 1 - k >= a->window));
}

/* The place in a head's table of the bias of a block's first query and key, `offset` entries from the middle; where all of the block is
 * beyond rel_distance, that of a block which is just so. */
static inline int64_t bias_place(const attention *a, int64_t offset) {
    int64_t middle = a->entries / 2, most = middle - BLOCK;
    return middle + min64(max64(offset, -most), most);
}

/* Local. The call as ATTENTION has it: queries, keys and values in one row of qkv. Its table of biases lies at `bias`. */
attention CPU(self_attention)(const espl_args *args, float *bias);

/* Local. The call as CROSS_ATTENTION has it: queries of one batch, keys and values in one row of its source. */
attention CPU(cross_attention)(const espl_args *args);

/* Local. Floats of the tables of biases; 0: the row has none. */
int64_t CPU(bias_floats)(const espl_attrs *attrs);

/* Local. Fills the tables of biases [heads, entries], entries going up (direction 1) or down (-1) with the key. */
void CPU(fill_bias)(const espl_args *args, bool causal, int direction, float *table);

/* The keys and values of one head, row by row as they lie, and the biases of a query that sees the last of them. */
typedef struct key_rows {
    const real *key, *value; /* of row 0 */
    int64_t ld, d;           /* from row to row; of a head */
    const float *bias;       /* of the last key: the head's table, going up with the key, at its middle; NULL: none */
    int64_t reach;           /* entries before that */
} key_rows;

/* Local. One query, times the scale, over keys from .. to - 1; fills o[d] and returns the log-sum-exp. */
float CPU(attend_rows)(const float *q, const key_rows *rows, int64_t from, int64_t to, float *o);

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

/* Local. mask[j][i] = 0 or 1 / (1 - p) of probabilities [key][query] of a segment of queries; k is a multiple of 4. */
void CPU(attention_dropout)(const attention *a, const span *segment, int64_t head, int64_t q, int64_t k, int64_t keys, float *mask);

#endif
