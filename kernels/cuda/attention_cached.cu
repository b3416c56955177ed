#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_row.h"

/* ATTENTION_CACHED: first the new keys and values are appended, then a block takes one query of one head. Its groups of lanes go over the
 * keys one after another, each with a softmax of its own that runs along; at the end these are put together in the order of the groups.
 * A batch with a cache is never recorded, so its cache is taken from the arguments. CROSS_ATTENTION goes the same way in generation, over
 * rows of the source. */
constexpr int CACHED_THREADS = 256, CACHED_UNROLL = 4, CACHED_WIDEST = 1024;

struct cached_call {
    attention a;
    const int32_t *segments, *row, *length; /* NULL: keys are those of a.key_begin, a.key_end */
    int64_t capacity;
};

/* A token of the micro-batch: the first token of its row of the layer's cache, and its own number in the row. */
struct cached_place {
    int64_t begin;
    int at;
};

static __device__ __forceinline__ cached_place cached_place_of(const cached_call &c, int token) {
    int low = 0, high = c.a.batch->n_segments; /* segments[low] <= token < segments[high] */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (c.segments[middle] <= token)
            low = middle;
        else
            high = middle;
    }
    return {c.row[low] * c.capacity, c.length[low] + token - c.segments[low]};
}

/* Keys first .. last behind row `begin`; none: last is before first. */
struct seen_rows {
    int64_t begin;
    int first, last;
};

static __device__ __forceinline__ seen_rows seen_rows_of(const cached_call &c, int token) {
    if (token >= c.a.batch->n)
        return {0, 0, -1};
    if (c.length == NULL) {
        stretch seen = keys_of(c.a, token);
        return {0, seen.first, seen.last - 1};
    }
    cached_place place = cached_place_of(c, token);
    return {place.begin, c.a.window > 0 ? max(0, place.at - c.a.window + 1) : 0, place.at};
}

/* A block a token. */
template <class real> __global__ void __launch_bounds__(CACHED_THREADS) attention_append(cached_call c, const real *qkv, real *cache) {
    int token = blockIdx.x, width = 2 * c.a.kv_heads * c.a.d;
    if (token >= c.a.batch->n)
        return;
    cached_place place = cached_place_of(c, token);
    const real *from = qkv + (size_t)token * c.a.query_ld + c.a.heads * c.a.d;
    real *to = cache + (place.begin + place.at) * width;
    for (int e = threadIdx.x; e < width; e += CACHED_THREADS)
        to[e] = from[e];
}

/* What a lane holds of a head: elements VECTOR (lane + LANES p) and the VECTOR - 1 behind each. */
template <class real, int VECTOR, int ELEMENTS, int LANES> struct head_part {
    float x[ELEMENTS];

    __device__ __forceinline__ void load(const real *head, int d, bool valid) {
#pragma unroll
        for (int e = 0; e < ELEMENTS; e += VECTOR) {
            float some[VECTOR] = {};
            int column = VECTOR * (int)(threadIdx.x % LANES) + LANES * e;
            if (valid && column < d)
                load_stretch(head + column, some);
#pragma unroll
            for (int i = 0; i < VECTOR; i++)
                x[e + i] = some[i];
        }
    }

    __device__ __forceinline__ float dot(const head_part &other) const {
        float sum = 0.0f;
#pragma unroll
        for (int e = 0; e < ELEMENTS; e++)
            sum = fmaf(x[e], other.x[e], sum);
#pragma unroll
        for (int lanes = LANES / 2; lanes > 0; lanes /= 2)
            sum += __shfl_xor_sync(ALL_LANES, sum, lanes);
        return sum;
    }
};

/* A group's softmax over the keys it has seen. */
template <class part> struct cached_state {
    float top, sum;
    part out;
};

/* Keys `key`, `key` + step, ... of one group, as far as `last`; keys and values are d wide and `width` apart. `bias`: of the last key, as
 * far back as `reach`. */
template <bool BIAS, class part, class real>
static __device__ __forceinline__ void add_keys(cached_state<part> &state, const part &query, const real *keys, const real *values,
                                                size_t width, int key, int step, int last, int d, float scale, const float *bias,
                                                int reach) {
    float s[CACHED_UNROLL], top = state.top;
    part one;
#pragma unroll
    for (int u = 0; u < CACHED_UNROLL; u++) {
        bool seen = key + u * step <= last;
        one.load(keys + (size_t)(key + u * step) * width, d, seen);
        s[u] = query.dot(one);
        if (BIAS && seen)
            s[u] += bias[max(key + u * step - last, -reach)];
        s[u] *= scale;
        s[u] = seen ? s[u] : -INFINITY;
        top = fmaxf(top, s[u]);
    }
    float base = top == -INFINITY ? 0.0f : top, shrink = expf(state.top - base);
    state.sum *= shrink;
#pragma unroll
    for (float &x : state.out.x)
        x *= shrink;
#pragma unroll
    for (int u = 0; u < CACHED_UNROLL; u++) {
        float p = expf(s[u] - base);
        one.load(values + (size_t)(key + u * step) * width, d, key + u * step <= last);
        state.sum += p;
#pragma unroll
        for (int e = 0; e < (int)(sizeof one.x / sizeof *one.x); e++)
            state.out.x[e] = fmaf(p, one.x[e], state.out.x[e]);
    }
    state.top = top;
}

/* out[d]: the groups' states put together, and their log-sum-exp unless that is NULL; zeros where no key was seen. memory: [groups][d],
 * then tops and sums of the groups. */
template <class real, int VECTOR, int ELEMENTS, int LANES>
static __device__ __forceinline__ void merge_groups(float *memory, const cached_state<head_part<real, VECTOR, ELEMENTS, LANES>> &state,
                                                    int d, real *out, float *lse) {
    constexpr int groups = CACHED_THREADS / LANES;
    int group = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    float *tops = memory + groups * d, *sums = tops + groups;
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
        int column = VECTOR * lane + LANES * (e / VECTOR * VECTOR) + e % VECTOR;
        if (column < d)
            memory[group * d + column] = state.out.x[e];
    }
    if (lane == 0) {
        tops[group] = state.top;
        sums[group] = state.sum;
    }
    __syncthreads();
    float top = tops[0];
    for (int g = 1; g < groups; g++)
        top = fmaxf(top, tops[g]);
    float base = top == -INFINITY ? 0.0f : top;
    for (int column = threadIdx.x; column < d; column += CACHED_THREADS) {
        float sum = 0.0f, x = 0.0f;
        for (int g = 0; g < groups; g++) {
            float weight = expf(tops[g] - base);
            sum = fmaf(weight, sums[g], sum);
            x = fmaf(weight, memory[g * d + column], x);
        }
        reals<real>::store(out + column, sum == 0.0f ? 0.0f : x / sum);
        if (lse != NULL && column == 0)
            *lse = sum == 0.0f ? 0.0f : top + logf(sum);
    }
}

template <class real, int VECTOR, int ELEMENTS, int LANES, bool BIAS>
__global__ void __launch_bounds__(CACHED_THREADS)
    attention_over_cache(cached_call c, const real *queries, const real *cache, real *out, float *lse) {
    typedef head_part<real, VECTOR, ELEMENTS, LANES> part;
    constexpr int groups = CACHED_THREADS / LANES;
    ESPL_SHARED_DYN(float, memory);
    const attention &a = c.a;
    int token = blockIdx.x, head = blockIdx.y, kv_head = head / a.group, group = threadIdx.x / LANES;
    size_t row = (size_t)token * a.heads + head, width = (size_t)(2 * a.kv_heads * a.d);
    seen_rows seen = seen_rows_of(c, token);
    const real *keys = cache + seen.begin * (int64_t)width + kv_head * a.d, *values = keys + a.kv_heads * a.d;
    part query;
    query.load(queries + (size_t)token * a.query_ld + head * a.d, a.d, true);
    cached_state<part> state = {-INFINITY, 0.0f, {}};
    const float *bias = BIAS ? a.bias + (size_t)head * a.entries + a.entries / 2 : NULL;
    for (int key = seen.first; key <= seen.last; key += groups * CACHED_UNROLL)
        add_keys<BIAS>(state, query, keys, values, width, key + group, groups, seen.last, a.d, a.scale, bias, a.entries / 2);
    merge_groups(memory, state, a.d, out + row * a.d, lse != NULL ? lse + row : NULL);
}

template <class real, int VECTOR, int ELEMENTS, int LANES>
static void launch_over_cache(const cached_call &c, const espl_args *args, const real *cache) {
    constexpr size_t groups = CACHED_THREADS / LANES;
    auto attention_cached = c.a.bias != NULL ? attention_over_cache<real, VECTOR, ELEMENTS, LANES, true>
                                             : attention_over_cache<real, VECTOR, ELEMENTS, LANES, false>;
    ESPL_LAUNCH(attention_cached, dim3((unsigned)c.a.tokens, (unsigned)c.a.heads), dim3(CACHED_THREADS),
                groups * (size_t)(c.a.d + 2) * sizeof(float), espl__cuda->compute, c, (const real *)args->in[0], cache,
                (real *)args->out[0], (float *)args->out[1]);
}

template <class real> static void attend_by_rows(const cached_call &c, const espl_args *args, const real *cache) {
    constexpr int vector = reals<real>::vector;
    int d = c.a.d;
    ESPL_ASSERT(d <= CACHED_WIDEST, "attention over a cache: head_dim is %d, at most %d fit", d, CACHED_WIDEST);
    if (!whole_stretches<real>(d) || d > 256 || !aligned16(args->in[0], (const void *)cache))
        launch_over_cache<real, 1, CACHED_WIDEST / 32, 32>(c, args, cache);
    else if (d <= 64)
        launch_over_cache<real, vector, 8, 8>(c, args, cache);
    else if (d <= 128)
        launch_over_cache<real, vector, 16, 8>(c, args, cache);
    else
        launch_over_cache<real, vector, 32, 8>(c, args, cache);
}

template <class real> static void attention_cached_forward(const espl_args *args) {
    const espl_cache *cache = args->batch->cache;
    const espl__rows *rows = espl__rows_of(args);
    cached_call c = {self_attention_of(args), rows->segments, rows->cache_row, rows->cache_length, cache->capacity};
    real *layer = (real *)cache->data + args->layer * cache->rows * cache->capacity * 2 * c.a.kv_heads * c.a.d;
    c.a.causal = 1;
    put_bias_tables<real>(c.a, args, 0);
    ESPL_LAUNCH(attention_append<real>, dim3((unsigned)c.a.tokens), dim3(CACHED_THREADS), (size_t)0, espl__cuda->compute, c,
                (const real *)args->in[0], layer);
    attend_by_rows<real>(c, args, layer);
}

template <class real> static void cross_by_rows(const espl_args *args) {
    cached_call c = {cross_attention_of(args), NULL, NULL, NULL, 0};
    attend_by_rows<real>(c, args, (const real *)args->in[1]);
}

extern "C" void espl__cuda_fp32_attention_cached_forward(const espl_args *args) { attention_cached_forward<float>(args); }
extern "C" void espl__cuda_bf16_attention_cached_forward(const espl_args *args) { attention_cached_forward<__nv_bfloat16>(args); }

extern "C" void espl__cuda_cross_by_rows(const espl_args *args, espl_dtype real) {
    if (real == ESPL_BF16)
        cross_by_rows<__nv_bfloat16>(args);
    else
        cross_by_rows<float>(args);
}
