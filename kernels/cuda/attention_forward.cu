#include "kernels/cuda/attention_row.h"
#include "kernels/cuda/attention_simt.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/cudnn_attention.h"

/* FlashAttention-2, algorithm 1 (Dao 2023): for a tile of queries, running maximum m and sum l over tiles of keys,
 *   S = Q K^T;  m' = max(m, S);  P = e^(scale (S - m'));  l = l e^(scale (m - m')) + sum P;  O = O e^(scale (m - m')) + drop(P) V.
 * Powers are of two: e^x = 2^(x log2 e). While scores are computed the values of the tile arrive, then the keys of the next. */
template <int D> struct forward_shape {
    static constexpr int mt = D <= 128 ? 2 : 1, warps = 4, queries = 16 * mt * warps, threads = 32 * warps, keys = D <= 64 ? 64 : 32;
    static constexpr int shared_bytes = (queries + 2 * keys) * tile_of<D>::stride * 2 + queries * (keys / 32) * 4;
};

/* The running state of a warp's queries. Each lane sums the columns it holds; lanes of a row are summed at the end. */
template <int MT, int NT> struct softmax_state {
    float top[MT][2], sum[MT][2];
    float out[MT][NT][4];
};

/* Scores become probabilities, not yet over their sum; what was summed under an older maximum shrinks. */
template <int MT, int NT, int KT>
static __device__ __forceinline__ void online_softmax(softmax_state<MT, NT> &state, float (&s)[MT][KT][4], float scale_log2) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = state.top[m][half];
#pragma unroll
            for (int i = 0; i < KT; i++)
                top = fmaxf(top, fmaxf(s[m][i][2 * half], s[m][i][2 * half + 1]));
            top = quad_max(top);
            float base = top == -INFINITY ? 0.0f : top * scale_log2; /* no key seen yet: powers of -inf, not of NaN */
            float sum = 0.0f;
            if (__any_sync(ALL_LANES, top > state.top[m][half])) { /* later it seldom rises */
                float shrink = power_of_two(fmaf(state.top[m][half], scale_log2, -base));
#pragma unroll
                for (int i = 0; i < NT; i++) {
                    state.out[m][i][2 * half] *= shrink;
                    state.out[m][i][2 * half + 1] *= shrink;
                }
                state.sum[m][half] *= shrink;
            }
#pragma unroll
            for (int i = 0; i < KT; i++)
#pragma unroll
                for (int c = 2 * half; c < 2 * half + 2; c++) {
                    s[m][i][c] = power_of_two(fmaf(s[m][i][c], scale_log2, -base));
                    sum += s[m][i][c];
                }
            state.sum[m][half] += sum;
            state.top[m][half] = top;
        }
}

/* Probabilities that are dropped become 0. `kept`: bits of [query][keys], from the warp's first query. */
template <int MT, int KT> static __device__ __forceinline__ void drop_probabilities(float (&p)[MT][KT][4], const uint32_t *kept) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < KT; i++) {
                uint32_t bits = kept[(16 * m + 8 * half + lane_row()) * (KT / 4) + i / 4] >> (i % 4 * 8 + lane_column());
                p[m][i][2 * half] = bits & 1 ? p[m][i][2 * half] : 0.0f;
                p[m][i][2 * half + 1] = bits & 2 ? p[m][i][2 * half + 1] : 0.0f;
            }
}

/* O / l, and m + log l. A padding row has l = 0: out and log-sum-exp are 0. */
template <int D, int MT, int NT>
static __device__ __forceinline__ void put_queries(const attention &a, softmax_state<MT, NT> &state, int head, int row, float factor,
                                                   bf16 *out, float *lse) {
    float scale[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = quad_sum(state.sum[m][half]);
            int i = row + 16 * m + 8 * half + lane_row();
            scale[m][half] = sum == 0.0f ? 0.0f : factor / sum;
            if (lane_column() == 0 && i < a.tokens)
                lse[(size_t)i * a.heads + head] = sum == 0.0f ? 0.0f : fmaf(state.top[m][half], a.scale, logf(sum));
        }
    put_rows(out + ((size_t)row * a.heads + head) * a.d, (size_t)a.heads * a.d, a.tokens - row, a.d, state.out, scale, false);
}

template <int D, bool DROP, bool BIAS>
__global__ void __launch_bounds__(forward_shape<D>::threads, 2)
    attention_forward_tiled(attention a, attention_tensors<bf16> t, bf16 *__restrict__ out, float *__restrict__ lse) {
    typedef forward_shape<D> shape;
    constexpr int mt = shape::mt, nt = D / 8, kt = shape::keys / 8, stride = tile_of<D>::stride;
    ESPL_SHARED_DYN(bf16, queries);
    bf16 *keys = queries + shape::queries * stride, *values = keys + shape::keys * stride;
    uint32_t *kept = reinterpret_cast<uint32_t *>(values + shape::keys * stride);
    int head = blockIdx.y, kv_head = head / a.group, n = a.keyed->n;
    int first = (int)(gridDim.x - 1 - blockIdx.x) * shape::queries, warp_row = (int)(threadIdx.x >> 5) * 16 * mt; /* longest rows first */
    const bf16 *key_at = t.key + key_column(a, kv_head), *value_at = t.key + value_column(a, kv_head);
    const float *bias = BIAS ? a.bias + (size_t)head * a.entries : NULL;
    stretch all = stretch_of_rows(a, keys_of, first, shape::queries, a.batch->n);
    warp_stretches seen = warp_stretches_of<mt>(a, keys_of, first + warp_row);
    dropout drop = {};
    if (DROP)
        drop = dropout_begin(a.drop, a.batch);
    softmax_state<mt, nt> state;
    clear(state.out);
    for (int m = 0; m < 2 * mt; m++) {
        state.top[m / 2][m % 2] = -INFINITY;
        state.sum[m / 2][m % 2] = 0.0f;
    }
    int k = all.first / shape::keys * shape::keys;
    load_tile<D, shape::queries, shape::threads>(queries, t.query + head * a.d, a.query_ld, first, a.batch->n, a.d);
    load_tile<D, shape::keys, shape::threads>(keys, key_at, a.key_ld, k, n, a.d);
    cp_async_commit();
    for (; k < all.last; k += shape::keys) {
        bool meeting = meets(seen.all, k, shape::keys);
        float s[mt][kt][4];
        cp_async_wait<0>();
        __syncthreads(); /* the keys are here; nobody reads the values before these */
        load_tile<D, shape::keys, shape::threads>(values, value_at, a.key_ld, k, n, a.d);
        cp_async_commit();
        if (meeting) {
            if (BIAS)
                put_bias<1>(s, bias + bias_place(a, k - first - warp_row));
            else
                clear(s);
            multiply_rows<D>(s, queries + warp_row * stride, keys);
        }
        if (DROP)
            for (int w = threadIdx.x; w < shape::queries * (shape::keys / 32); w += shape::threads)
                kept[w] = kept_keys(a, drop, head, first + w / (shape::keys / 32), k + w % (shape::keys / 32) * 32);
        cp_async_wait<0>();
        __syncthreads(); /* the values are here; nobody reads these keys */
        if (k + shape::keys < all.last)
            load_tile<D, shape::keys, shape::threads>(keys, key_at, a.key_ld, k + shape::keys, n, a.d);
        cp_async_commit();
        if (!meeting)
            continue;
        if (!covers(seen.every, k, shape::keys))
            mask_scores(s, a, keys_of, first + warp_row, k);
        online_softmax(state, s, a.scale_log2);
        if (DROP)
            drop_probabilities(s, kept + warp_row * (shape::keys / 32));
        multiply_columns<D>(state.out, s, values);
    }
    cp_async_wait<0>();
    put_queries<D>(a, state, head, first + warp_row, DROP && drop.on ? drop.scale : 1.0f, out, lse);
}

template <int D, bool DROP, bool BIAS>
static void launch_forward(const attention &a, const attention_tensors<bf16> &t, const espl_args *args) {
    typedef forward_shape<D> shape;
    auto attention_forward = attention_forward_tiled<D, DROP, BIAS>;
    ESPL_ALLOW_SHARED(attention_forward, shape::shared_bytes);
    ESPL_LAUNCH(attention_forward, dim3((unsigned)(a.tokens + shape::queries - 1) / shape::queries, (unsigned)a.heads),
                dim3(shape::threads), (size_t)shape::shared_bytes, espl__cuda->compute, a, t, (bf16 *)args->out[0], (float *)args->out[1]);
}

static void attend(const attention &a, const attention_tensors<bf16> &t, const espl_args *args) {
    if (!attention_is_tiled(args)) {
        attention_simt_forward<bf16>(a, t, args);
        return;
    }
    with_head_size(a.d, a.bias != NULL, [&](auto size, auto bias) {
        if (a.drop.on)
            launch_forward<decltype(size)::value, true, decltype(bias)::value>(a, t, args);
        else
            launch_forward<decltype(size)::value, false, decltype(bias)::value>(a, t, args);
    });
}

static void attend(const attention &a, const attention_tensors<float> &t, const espl_args *args) {
    attention_simt_forward<float>(a, t, args);
}

template <class real> static void attention_forward(const espl_args *args) {
    attention a = self_attention_of(args);
    put_bias_tables<real>(a, args, 0);
    attend(a, self_tensors_of<real>(args), args);
}

extern "C" void espl__cuda_bf16_attention_forward(const espl_args *args) {
    if (!espl__cudnn_forward(args, attention_forward<bf16>))
        attention_forward<bf16>(args);
}

extern "C" void espl__cuda_fp32_attention_forward(const espl_args *args) { attention_forward<float>(args); }

/* In generation there are few queries, and their segments choose among those of the source. */
template <class real> static void cross_attention_forward(const espl_args *args) {
    if (args->batch->cache != NULL || args->batch->source_segment != NULL)
        espl__cuda_cross_by_rows(args, dtype_of<real>);
    else
        attend(cross_attention_of(args), cross_tensors_of<real>(args), args);
}

extern "C" void espl__cuda_bf16_cross_attention_forward(const espl_args *args) { cross_attention_forward<bf16>(args); }
extern "C" void espl__cuda_fp32_cross_attention_forward(const espl_args *args) { cross_attention_forward<float>(args); }
