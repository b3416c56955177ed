#include "kernels/cpu/attention.h"
#include "kernels/cpu/table.h"
#include "kernels/cpu/vmath.h"

#include <math.h>
#include <omp.h>

enum { KEYS = 128 /* scored at a time */, AHEAD = 12 /* tokens asked for before they are read: they lie too far apart for the hardware */ };

typedef struct layout {
    int64_t d, heads, kv_heads, group, ld, token; /* ld: of qkv; token: reals of one token in the cache */
    real *data;                                   /* of this layer */
} layout;

static layout layout_of(const espl_args *args) {
    const espl_attrs *attrs = args->attrs;
    const espl_cache *cache = args->batch->cache;
    int64_t d = attrs->head_dim, token = 2 * attrs->kv_heads * d;
    return (layout){.d = d,
                    .heads = attrs->heads,
                    .kv_heads = attrs->kv_heads,
                    .group = attrs->heads / attrs->kv_heads,
                    .ld = (attrs->heads + 2 * attrs->kv_heads) * d,
                    .token = token,
                    .data = (real *)cache->data + args->layer * cache->rows * cache->capacity * token};
}

static int32_t segment_of(const espl_batch *batch, int64_t token) {
    int32_t i = 0;
    while (batch->segments[i + 1] <= token)
        i++;
    return i;
}

/* Where a segment's row of the cache begins, and the number in it of one of the new tokens. */
static real *row_of(const espl_args *args, const layout *l, int64_t token, int64_t *number) {
    const espl_batch *batch = args->batch;
    int32_t s = segment_of(batch, token);
    *number = batch->cache->length[s] + (token - batch->segments[s]);
    return l->data + batch->cache->row[s] * batch->cache->capacity * l->token;
}

static void append(const espl_args *args, const layout *l, int64_t token) {
    int64_t number;
    real *row = row_of(args, l, token, &number);
    memcpy(row + number * l->token, (const real *)args->in[0] + token * l->ld + l->heads * l->d, (size_t)l->token * sizeof(real));
}

static inline void prefetch_row(const real *x, int64_t d) {
    for (int64_t c = 0; c < d; c += 64 / (int64_t)sizeof(real))
        __builtin_prefetch(x + c, 0, 3);
}

static float dot(const float *q, const real *k, int64_t d) {
    lanes16 sum = {0}, x;
    int64_t i = 0;
    for (; i + LANES16 <= d; i += LANES16) {
        load_lanes(&x, k + i);
        sum += *(const lanes16 *)(q + i) * x;
    }
    float total = sum_lanes(&sum);
    for (; i < d; i++)
        total += q[i] * load(k + i);
    return total;
}

/* With a running maximum as in attention.c. */
float CPU(attend_rows)(const float *q, const key_rows *rows, int64_t from, int64_t to, float *o) {
    float top = -1e30f, sum = 0.0f, p[KEYS];
    int64_t d = rows->d, ld = rows->ld;
    memset(o, 0, (size_t)d * sizeof *o);
    for (int64_t k = from; k < to; k += KEYS) {
        int64_t n = min64(KEYS, to - k);
        const float *bias = rows->bias ? rows->bias + max64(k - to + 1, -rows->reach) : NULL;
        float next = top;
        for (int64_t j = 0; j < n; j++) {
            prefetch_row(rows->key + (k + j + AHEAD) * ld, d);
            prefetch_row(rows->value + (k + j) * ld, d);
            p[j] = dot(q, rows->key + (k + j) * ld, d);
            if (bias)
                p[j] += bias[j];
            next = p[j] > next ? p[j] : next;
        }
        float shrink = v_exp(top - next);
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            p[j] = v_exp(p[j] - next);
        for (int64_t c = 0; c < d; c++)
            o[c] *= shrink;
        sum *= shrink;
        for (int64_t j = 0; j < n; j++) {
            const real *value = rows->value + (k + j) * ld;
            sum += p[j];
#pragma omp simd
            for (int64_t c = 0; c < d; c++)
                o[c] = fma1(p[j], load(value + c), o[c]);
        }
        top = next;
    }
    for (int64_t c = 0; c < d; c++)
        o[c] /= sum;
    return top + logf(sum);
}

/* The query heads of one token that share a key head, so that its keys are read from memory once. */
static void attend_group(const espl_args *args, const layout *l, int64_t token, int64_t kv_head, float *work) {
    int64_t number, window = args->attrs->window, entries = espl__rel_entries(args->attrs);
    const real *keys = row_of(args, l, token, &number) + kv_head * l->d;
    int64_t from = window > 0 ? max64(0, number - window + 1) : 0;
    key_rows rows = {.key = keys, .value = keys + l->kv_heads * l->d, .ld = l->token, .d = l->d, .reach = entries / 2};
    float *q = work, *o = work + l->d;
    for (int64_t head = kv_head * l->group; head < (kv_head + 1) * l->group; head++) {
        const real *x = (const real *)args->in[0] + token * l->ld + head * l->d;
        real *out = (real *)args->out[0] + (token * l->heads + head) * l->d;
        for (int64_t c = 0; c < l->d; c++)
            q[c] = args->attrs->scale * load(x + c);
        if (entries > 0)
            rows.bias = (const float *)args->work + head * entries + entries / 2;
        CPU(attend_rows)(q, &rows, from, number + 1, o);
        for (int64_t c = 0; c < l->d; c++)
            store(out + c, o[c]);
    }
}

void CPU(attention_cached_forward)(const espl_args *args) {
    layout l = layout_of(args);
    int64_t n = args->batch->n;
    float *work = (float *)args->work + CPU(bias_floats)(args->attrs);
    CPU(fill_bias)(args, true, 1, args->work);
#pragma omp parallel
    {
#pragma omp for
        for (int64_t token = 0; token < n; token++)
            append(args, &l, token);
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < n * l.kv_heads; unit++)
            attend_group(args, &l, unit / l.kv_heads, unit % l.kv_heads, work + omp_get_thread_num() * 2 * l.d);
    }
}

size_t CPU(attention_cached_work)(const espl_attrs *attrs, int64_t n, int threads, int backward) {
    (void)n, (void)backward;
    return (size_t)(CPU(bias_floats)(attrs) + threads * 2 * attrs->head_dim) * sizeof(float);
}
