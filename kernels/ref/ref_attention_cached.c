#include "kernels/ref/ref.h"

#include <string.h>

/* The row of the cache that belongs to a segment: capacity tokens of 2 G d, k then v. */
static real *cache_row(const espl_args *args, int32_t segment) {
    const espl_cache *cache = args->batch->cache;
    int64_t width = 2 * args->attrs->kv_heads * args->attrs->head_dim;
    return (real *)cache->data + ((int64_t)args->layer * cache->rows + cache->row[segment]) * cache->capacity * width;
}

/* Token `i` of the micro-batch is number `at` of its row: k and v lie side by side in qkv as in the cache. */
static void append(const espl_args *args, int64_t i, real *row, int64_t at) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, width = 2 * attrs->kv_heads * d;
    const real *kv = (const real *)args->in[0] + i * (attrs->heads * d + width) + attrs->heads * d;
    memcpy(row + at * width, kv, (size_t)width * sizeof(real));
}

static void query_row(const espl_args *args, const espl__rel_buckets *buckets, int64_t h, int64_t i, const real *row, int64_t at) {
    const espl_attrs *attrs = args->attrs;
    int64_t d = attrs->head_dim, group = h / (attrs->heads / attrs->kv_heads), width = 2 * attrs->kv_heads * d;
    int64_t first = attrs->window > 0 && at - attrs->window + 1 > 0 ? at - attrs->window + 1 : 0;
    const real *keys = row + first * width + group * d;
    ref_view view = {.query = (const real *)args->in[0] + i * (attrs->heads * d + width) + h * d,
                     .keys = keys,
                     .values = keys + attrs->kv_heads * d,
                     .stride = width,
                     .count = at + 1 - first,
                     .width = d,
                     .scale = (real)attrs->scale,
                     .offset = first - at,
                     .bias_stride = attrs->heads};
    if (attrs->rel_buckets > 0) {
        view.buckets = buckets;
        view.bias = (const real *)args->param[0] + h;
    }
    REF(attend)(&view, (real *)args->out[0] + (i * attrs->heads + h) * d);
}

/* As ATTENTION, keys and values from the cache. */
void REF(attention_cached_forward)(const espl_args *args) {
    const espl_batch *batch = args->batch;
    espl__rel_buckets buckets = espl__rel_buckets_of(args->attrs, true);
    for (int32_t s = 0; s < batch->n_segments; s++) {
        real *row = cache_row(args, s);
        for (int64_t i = batch->segments[s]; i < batch->segments[s + 1]; i++) {
            int64_t at = batch->cache->length[s] + i - batch->segments[s];
            append(args, i, row, at);
            for (int64_t h = 0; h < args->attrs->heads; h++)
                query_row(args, &buckets, h, i, row, at);
        }
    }
}
