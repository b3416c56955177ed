#include "kernels/cpu/attention.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/transpose.h"

int64_t CPU(attention_blocks)(const espl_batch *batch) {
    int64_t count = 0;
    for (int32_t i = 0; i < batch->n_segments; i++)
        count += pieces(span_of(batch, i).tokens, BLOCK);
    return count;
}

block_unit CPU(attention_unit)(const espl_batch *batch, int64_t unit, int64_t heads) {
    block_unit found = {0};
    int64_t blocks;
    for (; unit >= (blocks = pieces(span_of(batch, found.segment).tokens, BLOCK)) * heads; found.segment++) {
        unit -= blocks * heads;
        found.block += blocks;
    }
    found.head = unit / blocks;
    found.first = unit % blocks * BLOCK;
    found.block += unit % blocks;
    return found;
}

attention CPU(self_attention)(const espl_args *args, float *bias) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, key = attrs->heads * d, value = key + attrs->kv_heads * d;
    const real *qkv = args->in[0];
    real *din = args->din[0];
    attention a = {.args = args,
                   .keyed = args->batch,
                   .query = qkv,
                   .key = qkv + key,
                   .value = qkv + value,
                   .query_add = args->din_add[0],
                   .key_add = args->din_add[0],
                   .query_ld = value + attrs->kv_heads * d,
                   .key_ld = value + attrs->kv_heads * d,
                   .d = d,
                   .width = round_up(d, BLOCK_LANES),
                   .heads = attrs->heads,
                   .kv_heads = attrs->kv_heads,
                   .group = attrs->heads / attrs->kv_heads,
                   .causal = attrs->causal,
                   .window = attrs->causal ? attrs->window : 0,
                   .entries = espl__rel_entries(attrs),
                   .bias = bias,
                   .drop = CPU(dropout_of)(args)};
    if (din) {
        a.dquery = din;
        a.dkey = din + key;
        a.dvalue = din + value;
    }
    return a;
}

attention CPU(cross_attention)(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, value = attrs->kv_heads * d;
    attention a = {.args = args,
                   .keyed = args->batch->source,
                   .key_segment = args->batch->source_segment,
                   .query = args->in[0],
                   .key = args->in[1],
                   .value = (const real *)args->in[1] + value,
                   .dquery = args->din[0],
                   .dkey = args->din[1],
                   .dvalue = args->din[1] ? (real *)args->din[1] + value : NULL,
                   .query_add = args->din_add[0],
                   .key_add = args->din_add[1],
                   .query_ld = attrs->heads * d,
                   .key_ld = 2 * value,
                   .d = d,
                   .width = round_up(d, BLOCK_LANES),
                   .heads = attrs->heads,
                   .kv_heads = attrs->kv_heads,
                   .group = attrs->heads / attrs->kv_heads,
                   .drop = CPU(dropout_of)(args)};
    return a;
}

int64_t CPU(bias_floats)(const espl_attrs *attrs) { return round_up(attrs->heads * espl__rel_entries(attrs), LANES16); }

void CPU(fill_bias)(const espl_args *args, bool causal, int direction, float *table) {
    int64_t heads = args->attrs->heads, entries = espl__rel_entries(args->attrs);
    espl__rel_buckets buckets = espl__rel_buckets_of(args->attrs, causal);
    for (int64_t x = 0; x < entries; x++) {
        const real *row = (const real *)args->param[0] + espl__rel_bucket(&buckets, (int32_t)(direction * (x - entries / 2))) * heads;
        for (int64_t head = 0; head < heads; head++)
            table[head * entries + x] = load(row + head);
    }
}

/* A row of the next head lies behind that of this one, and rows are too far apart for the hardware to foresee: it is asked for here. */
static inline void prefetch_next(const real *x, int64_t d) {
    for (int64_t c = 0; c < d; c += 64 / (int64_t)sizeof(real))
        __builtin_prefetch(x + d + c, 0, 2);
}

void CPU(pack_transposed)(const real *x, int64_t ld, int64_t rows, int64_t d, float scale, float *to) {
    for (int64_t i = 0; i < rows; i++)
        prefetch_next(x + i * ld, d);
    for (int64_t c = 0; c < d; c += LANES16)
        for (int64_t i = 0; i < BLOCK; i += LANES16) {
            lanes16 tile[LANES16] = {{0}};
            for (int64_t r = 0; r < min64(LANES16, rows - i); r++) {
                load_some(&tile[r], x + (i + r) * ld + c, d - c);
                tile[r] *= scale;
            }
            transpose(tile);
            for (int64_t j = 0; j < min64(LANES16, d - c); j++)
                *(lanes16 *)(to + (c + j) * BLOCK + i) = tile[j];
        }
}

void CPU(unpack_transposed)(const float *x, int64_t d, int64_t width, float *to) {
    for (int64_t c = 0; c < d; c += LANES16)
        for (int64_t i = 0; i < BLOCK; i += LANES16) {
            lanes16 tile[LANES16] = {{0}};
            for (int64_t r = 0; r < min64(LANES16, d - c); r++)
                tile[r] = *(const lanes16 *)(x + (c + r) * BLOCK + i);
            transpose(tile);
            for (int64_t j = 0; j < LANES16; j++)
                *(lanes16 *)(to + (i + j) * width + c) = tile[j];
        }
}

void CPU(pack_rows)(const real *x, int64_t ld, int64_t rows, int64_t d, int64_t width, float scale, float *to) {
    for (int64_t i = 0; i < rows; i++) {
        prefetch_next(x + i * ld, d);
        for (int64_t c = 0; c < d; c++)
            to[i * width + c] = scale * load(x + i * ld + c);
        for (int64_t c = d; c < width; c++)
            to[i * width + c] = 0.0f;
    }
}

void CPU(attention_dropout)(const attention *a, const span *segment, int64_t head, int64_t q, int64_t k, int64_t keys, float *mask) {
    uint64_t row = (uint64_t)(head * a->args->batch->n + segment->start + q);
    philox stream = philox_of(&a->drop.key);
    for (int64_t j = 0; j < keys; j += 4)
        for (int64_t i = 0; i < BLOCK; i += PHILOX_BLOCKS) {
            uint32_t number[4][PHILOX_BLOCKS];
            philox_numbers(&stream, (((row + (uint64_t)i) << 20) + (uint64_t)(k + j)) >> 2, (uint64_t)1 << 18, number);
            for (int l = 0; l < 4; l++)
                dropout_keep(&a->drop, number[l], mask + (j + l) * BLOCK + i, PHILOX_BLOCKS);
        }
}
