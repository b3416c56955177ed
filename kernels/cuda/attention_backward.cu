#include "kernels/cuda/attention_rows.cuh"
#include "kernels/cuda/attention_simt.cuh"
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/cudnn_attention.h"

/* FlashAttention-2, algorithm 2 (Dao 2023). With P = e^(scale S - lse), M the dropout mask and r = rowsum(dO * O):
 *   dV = (P * M)^T dO;  dS = P * (M * (dO V^T) - r);  dQ = scale dS K;  dK = scale dS^T Q.
 * Two passes, each of which owns what it sums, so that there is one order of every sum and no atomics: a block of the first has a tile of
 * keys and goes over the queries that see it, of all heads that share it; a block of the second has a tile of queries. Both compute the
 * scores again. The next tile arrives while one is worked on. */
struct backward_rows {
    const float *lse2, *delta; /* [H, padded] */
    float *slopes;             /* [H, parts, entries] sums of dS by offset, a part for each tile of queries; NULL: not wanted */
    int padded;
};

/* Pass 1. Scores are held transposed, [key][query], so that they are left factors of dV and dK as they stand. With `split` warps to a
 * slab of keys each has that part of the columns of dK and dV; the scores they compute each for itself. */
template <int D> struct keys_shape {
    static constexpr int mt = D <= 64 ? 2 : 1, split = D <= 128 ? 1 : 2, warps = D <= 128 ? 4 : 8, threads = 32 * warps;
    static constexpr int keys = 16 * mt * warps / split, queries = D == 80 || D == 96 ? 64 : 32, columns = D / split;
    static constexpr int stage_bytes = 2 * queries * tile_of<D>::stride * 2 + 2 * queries * 4 + queries * (keys / 32) * 4;
    static constexpr int shared_bytes = 2 * keys * tile_of<D>::stride * 2 + 2 * stage_bytes;
};

/* One tile of queries of one head, as it lies in shared memory. */
template <int D> struct query_stage {
    bf16 *queries, *douts;
    float *lse2, *delta;
    uint32_t *kept; /* bits of [query][keys] */
};

template <int D> static __device__ __forceinline__ query_stage<D> query_stage_at(unsigned char *at) {
    typedef keys_shape<D> shape;
    query_stage<D> stage;
    stage.queries = reinterpret_cast<bf16 *>(at);
    stage.douts = stage.queries + shape::queries * tile_of<D>::stride;
    stage.lse2 = reinterpret_cast<float *>(stage.douts + shape::queries * tile_of<D>::stride);
    stage.delta = stage.lse2 + shape::queries;
    stage.kept = reinterpret_cast<uint32_t *>(stage.delta + shape::queries);
    return stage;
}

template <int D>
static __device__ __forceinline__ void load_stage(const attention &a, const attention_tensors<bf16> &t, const backward_rows &r,
                                                  const query_stage<D> &stage, int head, int row, int n) {
    typedef keys_shape<D> shape;
    load_tile<D, shape::queries, shape::threads>(stage.queries, t.query + head * a.d, a.query_ld, row, n, a.d);
    load_tile<D, shape::queries, shape::threads>(stage.douts, t.dout + head * a.d, a.heads * a.d, row, n, a.d);
    int piece = threadIdx.x;
    if (piece < shape::queries / 2) { /* both statistics, four queries a piece; padded rows are there */
        const float *from = (piece < shape::queries / 4 ? r.lse2 : r.delta) + (size_t)head * r.padded + row;
        cp_async16(stage.lse2 + piece * 4, from + piece % (shape::queries / 4) * 4, true);
    }
    cp_async_commit();
}

/* s: S^T becomes drop(P^T); dp: (dO V^T)^T becomes dS^T. `kept`: the word of this warp's keys in the first row, `words` a row; `bit` of key
 * 0. */
template <int D, bool DROP, int MT, int QT>
static __device__ __forceinline__ void score_gradients(float (&s)[MT][QT][4], float (&dp)[MT][QT][4], const query_stage<D> &stage,
                                                       float scale_log2, float factor, int key) {
    constexpr int words = keys_shape<D>::keys / 32;
#pragma unroll
    for (int i = 0; i < QT; i++)
#pragma unroll
        for (int side = 0; side < 2; side++) {
            int column = 8 * i + lane_column() + side;
            float lse2 = stage.lse2[column], delta = stage.delta[column];
            uint32_t kept = DROP ? stage.kept[column * words + key / 32] >> (key % 32 + lane_row()) : 0;
#pragma unroll
            for (int m = 0; m < MT; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    float &score = s[m][i][2 * half + side], &slope = dp[m][i][2 * half + side];
                    float p = power_of_two(fmaf(score, scale_log2, -lse2));
                    float keep = !DROP ? 1.0f : kept >> (16 * m + 8 * half) & 1 ? factor : 0.0f;
                    score = DROP ? p * keep : p;
                    slope = p * (DROP ? fmaf(keep, slope, -delta) : slope - delta);
                }
        }
}

template <int D, bool DROP, bool BIAS>
__global__ void __launch_bounds__(keys_shape<D>::threads) attention_backward_keys(attention a, attention_tensors<bf16> t, backward_rows r) {
    typedef keys_shape<D> shape;
    constexpr int mt = shape::mt, nt = shape::columns / 8, qt = shape::queries / 8, stride = tile_of<D>::stride;
    ESPL_SHARED_DYN(bf16, keys);
    bf16 *values = keys + shape::keys * stride;
    unsigned char *stages = reinterpret_cast<unsigned char *>(values + shape::keys * stride);
    int kv_head = blockIdx.y, n = a.batch->n, first = (int)blockIdx.x * shape::keys, warp = threadIdx.x >> 5;
    int warp_key = warp / shape::split * 16 * mt, column = warp % shape::split * shape::columns;
    stretch all = stretch_of_rows(a, queries_of, first, shape::keys, a.keyed->n);
    warp_stretches seen = warp_stretches_of<mt>(a, queries_of, first + warp_key);
    int from = all.first / shape::queries * shape::queries, q = from;
    int head = kv_head * a.group, last_head = all.first < all.last ? head + a.group : head;
    dropout drop = {};
    if (DROP)
        drop = dropout_begin(a.drop, a.batch);
    float dk[mt][nt][4], dv[mt][nt][4];
    clear(dk);
    clear(dv);
    load_tile<D, shape::keys, shape::threads>(keys, t.key + key_column(a, kv_head), a.key_ld, first, a.keyed->n, a.d);
    load_tile<D, shape::keys, shape::threads>(values, t.key + value_column(a, kv_head), a.key_ld, first, a.keyed->n, a.d);
    load_stage<D>(a, t, r, query_stage_at<D>(stages), head, from, n);
    for (int now = 0, next_q, next_head; head < last_head; now = 1 - now, q = next_q, head = next_head) {
        query_stage<D> stage = query_stage_at<D>(stages + now * shape::stage_bytes);
        next_q = q + shape::queries < all.last ? q + shape::queries : from;
        next_head = head + (next_q == from);
        if (DROP)
            for (int w = threadIdx.x; w < shape::queries * (shape::keys / 32); w += shape::threads)
                stage.kept[w] = kept_keys(a, drop, head, q + w / (shape::keys / 32), first + w % (shape::keys / 32) * 32);
        cp_async_wait<0>();
        __syncthreads(); /* this stage is here; nobody reads the other one */
        if (next_head < last_head)
            load_stage<D>(a, t, r, query_stage_at<D>(stages + (1 - now) * shape::stage_bytes), next_head, next_q, n);
        if (!meets(seen.all, q, shape::queries))
            continue;
        float s[mt][qt][4], dp[mt][qt][4];
        if (BIAS)
            put_bias<-1>(s, a.bias + (size_t)head * a.entries + bias_place(a, first + warp_key - q));
        else
            clear(s);
        multiply_rows<D>(s, keys + warp_key * stride, stage.queries);
        if (!covers(seen.every, q, shape::queries))
            mask_scores(s, a, queries_of, first + warp_key, q);
        clear(dp);
        multiply_rows<D>(dp, values + warp_key * stride, stage.douts);
        score_gradients<D, DROP>(s, dp, stage, a.scale_log2, DROP && drop.on ? drop.scale : 1.0f, warp_key);
        multiply_columns<D>(dv, s, stage.douts + column);
        multiply_columns<D>(dk, dp, stage.queries + column);
    }
    cp_async_wait<0>();
    int row = first + warp_key;
    float ones[mt][2], scale[mt][2];
    for (int m = 0; m < 2 * mt; m++) {
        ones[m / 2][m % 2] = 1.0f;
        scale[m / 2][m % 2] = a.scale;
    }
    bf16 *to = t.dkey + (size_t)row * a.key_ld + column;
    put_rows(to + key_column(a, kv_head), a.key_ld, a.keyed_tokens - row, a.d - column, dk, scale, t.key_add);
    put_rows(to + value_column(a, kv_head), a.key_ld, a.keyed_tokens - row, a.d - column, dv, ones, t.key_add);
}

/* Pass 2: scores as in forward, [query][key]. */
template <int D> struct queries_shape {
    static constexpr int mt = D <= 64 ? 2 : 1, warps = 4, threads = 32 * warps, queries = 16 * mt * warps;
    static constexpr int keys = D == 80 || D == 96 ? 64 : 32;
    static constexpr int stage_bytes = 2 * keys * tile_of<D>::stride * 2 + queries * (keys / 32) * 4;
    static constexpr int shared_bytes = 2 * queries * tile_of<D>::stride * 2 + 2 * stage_bytes;
};

template <int D>
static __device__ __forceinline__ void load_keys(const attention &a, const attention_tensors<bf16> &t, bf16 *keys, int kv_head, int k,
                                                 int n) {
    typedef queries_shape<D> shape;
    load_tile<D, shape::keys, shape::threads>(keys, t.key + key_column(a, kv_head), a.key_ld, k, n, a.d);
    load_tile<D, shape::keys, shape::threads>(keys + shape::keys * tile_of<D>::stride, t.key + value_column(a, kv_head), a.key_ld, k, n,
                                              a.d);
    cp_async_commit();
}

/* The gradient of biases: a warp's sums of dS by offset, as [entries], and room for those of a block of scores on the way there. */
template <int D> struct slopes_shape {
    typedef queries_shape<D> shape;
    static constexpr int rows = 16 * shape::mt, diagonals = 2 * shape::mt - 1 + shape::keys / 8; /* of fragments of 8 x 8 */
    static constexpr int stride = 72;                                                            /* of one: lanes read different banks */
    static constexpr int bytes(int entries) { return shape::warps * (diagonals * stride + entries) * 4; }
};

/* Adds a warp's dS, `offset` being that of its first row and column. Fragments on one diagonal are summed first, by each lane for the
 * elements it holds; then each lane sums the eight elements on one of the warp's diagonals. */
template <int D, int MT, int KT>
static __device__ __forceinline__ void add_slopes(const attention &a, float *slopes, const float (&ds)[MT][KT][4], int offset) {
    typedef slopes_shape<D> shape;
    float *sums = slopes + a.entries, fragment[shape::diagonals][2];
    int lane = threadIdx.x & 31;
#pragma unroll
    for (int e = 0; e < 2 * shape::diagonals; e++)
        fragment[e / 2][e % 2] = 0.0f;
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int i = 0; i < KT; i++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                fragment[2 * MT - 1 + i - 2 * m - c / 2][c % 2] += ds[m][i][c];
#pragma unroll
    for (int e = 0; e < 2 * shape::diagonals; e++)
        sums[e / 2 * shape::stride + lane_row() * 8 + lane_column() + e % 2] = fragment[e / 2][e % 2];
    __syncwarp();
    float *to = slopes + bias_place(a, offset) - (shape::rows - 1);
    for (int x = lane; x < shape::rows + 8 * KT - 1; x += 32) {
        float sum = 0.0f;
#pragma unroll
        for (int row = 0; row < 8; row++) { /* of a fragment; element (row, u) of number e is 8 e + u - row + 7 */
            int e = (x + row + 1) / 8 - 1;
            sum += e >= 0 && e < shape::diagonals ? sums[e * shape::stride + row * 8 + (x + row + 1) % 8] : 0.0f;
        }
        to[x] += sum;
    }
    __syncwarp();
}

/* Writes the sums of all warps. */
template <int D> static __device__ __forceinline__ void put_slopes(const attention &a, const float *slopes, float *to) {
    typedef slopes_shape<D> shape;
    __syncthreads();
    for (int x = threadIdx.x; x < a.entries; x += shape::shape::threads) {
        float sum = 0.0f;
        for (int warp = 0; warp < shape::shape::warps; warp++)
            sum += slopes[warp * (shape::diagonals * shape::stride + a.entries) + x];
        to[x] = sum;
    }
}

/* s: S; dp: dO V^T becomes dS. `kept`: bits of [query][keys], from the warp's first query. */
template <bool DROP, int MT, int KT>
static __device__ __forceinline__ void score_gradients(const float (&s)[MT][KT][4], float (&dp)[MT][KT][4], const float (&lse2)[MT][2],
                                                       const float (&delta)[MT][2], const uint32_t *kept, float scale_log2, float factor) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int i = 0; i < KT; i++) {
                int column = 8 * i + lane_column();
                uint32_t bits = DROP ? kept[(16 * m + 8 * half + lane_row()) * (KT / 4) + i / 4] >> column % 32 : 0;
#pragma unroll
                for (int side = 0; side < 2; side++) {
                    float &slope = dp[m][i][2 * half + side];
                    float p = power_of_two(fmaf(s[m][i][2 * half + side], scale_log2, -lse2[m][half]));
                    float keep = bits >> side & 1 ? factor : 0.0f;
                    slope = p * (DROP ? fmaf(keep, slope, -delta[m][half]) : slope - delta[m][half]);
                }
            }
}

template <int D, bool DROP, bool BIAS>
__global__ void __launch_bounds__(queries_shape<D>::threads)
    attention_backward_queries(attention a, attention_tensors<bf16> t, backward_rows r) {
    typedef queries_shape<D> shape;
    constexpr int mt = shape::mt, nt = D / 8, kt = shape::keys / 8, stride = tile_of<D>::stride;
    ESPL_SHARED_DYN(bf16, queries);
    bf16 *douts = queries + shape::queries * stride;
    unsigned char *stages = reinterpret_cast<unsigned char *>(douts + shape::queries * stride);
    int head = blockIdx.y, kv_head = head / a.group, n = a.keyed->n;
    int first = (int)(gridDim.x - 1 - blockIdx.x) * shape::queries, warp_row = (int)(threadIdx.x >> 5) * 16 * mt; /* longest rows first */
    float *all_slopes = reinterpret_cast<float *>(stages + 2 * shape::stage_bytes);
    float *slopes = all_slopes + (threadIdx.x >> 5) * (slopes_shape<D>::diagonals * slopes_shape<D>::stride + a.entries);
    stretch all = stretch_of_rows(a, keys_of, first, shape::queries, a.batch->n);
    warp_stretches seen = warp_stretches_of<mt>(a, keys_of, first + warp_row);
    dropout drop = {};
    if (DROP)
        drop = dropout_begin(a.drop, a.batch);
    float dq[mt][nt][4], lse2[mt][2], delta[mt][2], scale[mt][2];
    clear(dq);
    for (int m = 0; m < 2 * mt; m++) {
        size_t at = (size_t)head * r.padded + first + warp_row + 8 * m + lane_row();
        lse2[m / 2][m % 2] = r.lse2[at];
        delta[m / 2][m % 2] = r.delta[at];
        scale[m / 2][m % 2] = a.scale;
    }
    for (int x = threadIdx.x & 31; BIAS && r.slopes != NULL && x < a.entries; x += 32)
        slopes[x] = 0.0f;
    int from = all.first / shape::keys * shape::keys;
    load_tile<D, shape::queries, shape::threads>(queries, t.query + head * a.d, a.query_ld, first, a.batch->n, a.d);
    load_tile<D, shape::queries, shape::threads>(douts, t.dout + head * a.d, a.heads * a.d, first, a.batch->n, a.d);
    load_keys<D>(a, t, reinterpret_cast<bf16 *>(stages), kv_head, from, n);
    for (int k = from; k < all.last; k += shape::keys) {
        int now = (k - from) / shape::keys % 2;
        bf16 *keys = reinterpret_cast<bf16 *>(stages + now * shape::stage_bytes), *values = keys + shape::keys * stride;
        uint32_t *kept = reinterpret_cast<uint32_t *>(values + shape::keys * stride);
        if (DROP)
            for (int w = threadIdx.x; w < shape::queries * (shape::keys / 32); w += shape::threads)
                kept[w] = kept_keys(a, drop, head, first + w / (shape::keys / 32), k + w % (shape::keys / 32) * 32);
        cp_async_wait<0>();
        __syncthreads(); /* this stage is here; nobody reads the other one */
        if (k + shape::keys < all.last)
            load_keys<D>(a, t, reinterpret_cast<bf16 *>(stages + (1 - now) * shape::stage_bytes), kv_head, k + shape::keys, n);
        if (!meets(seen.all, k, shape::keys))
            continue;
        float s[mt][kt][4], dp[mt][kt][4];
        if (BIAS)
            put_bias<1>(s, a.bias + (size_t)head * a.entries + bias_place(a, k - first - warp_row));
        else
            clear(s);
        multiply_rows<D>(s, queries + warp_row * stride, keys);
        if (!covers(seen.every, k, shape::keys))
            mask_scores(s, a, keys_of, first + warp_row, k);
        clear(dp);
        multiply_rows<D>(dp, douts + warp_row * stride, values);
        score_gradients<DROP>(s, dp, lse2, delta, kept + warp_row * (shape::keys / 32), a.scale_log2, DROP && drop.on ? drop.scale : 1.0f);
        if (BIAS && r.slopes != NULL)
            add_slopes<D>(a, slopes, dp, k - first - warp_row);
        multiply_columns<D>(dq, dp, keys);
    }
    cp_async_wait<0>();
    int row = first + warp_row;
    put_rows(t.dquery + (size_t)row * a.query_ld + head * a.d, a.query_ld, a.tokens - row, a.d, dq, scale, t.query_add);
    if (BIAS && r.slopes != NULL)
        put_slopes<D>(a, all_slopes, r.slopes + ((size_t)head * gridDim.x + blockIdx.x) * a.entries);
}

template <int D, bool DROP, bool BIAS>
static void launch_backward(const attention &a, const attention_tensors<bf16> &t, const backward_rows &r, const espl_args *args) {
    typedef keys_shape<D> by_keys;
    typedef queries_shape<D> by_queries;
    auto attention_keys = attention_backward_keys<D, DROP, BIAS>;
    auto attention_queries = attention_backward_queries<D, DROP, BIAS>;
    int queries_bytes = by_queries::shared_bytes + (BIAS ? slopes_shape<D>::bytes(a.entries) : 0);
    dim3 tiles((unsigned)(a.tokens + by_queries::queries - 1) / by_queries::queries, (unsigned)a.heads);
    ESPL_ALLOW_SHARED(attention_keys, by_keys::shared_bytes);
    ESPL_ALLOW_SHARED(attention_queries, queries_bytes);
    ESPL_LAUNCH(attention_keys, dim3((unsigned)(a.keyed_tokens + by_keys::keys - 1) / by_keys::keys, (unsigned)a.kv_heads),
                dim3(by_keys::threads), (size_t)by_keys::shared_bytes, espl__cuda->compute, a, t, r);
    ESPL_LAUNCH(attention_queries, tiles, dim3(by_queries::threads), (size_t)queries_bytes, espl__cuda->compute, a, t, r);
    if (r.slopes != NULL)
        espl__cuda_bias_gradient(args, r.slopes, (int)tiles.x);
}

static void attend_backward(const attention &a, const attention_tensors<bf16> &t, const espl_args *args) {
    if (!attention_is_tiled(args)) {
        attention_simt_backward<bf16>(a, t, args);
        return;
    }
    espl__attention_layout layout = espl__attention_layout_of(args->attrs, a.tokens, 1);
    float *work = (float *)args->work;
    backward_rows r = {work + layout.lse2, work + layout.delta, a.bias != NULL && args->dparam[0] != NULL ? work + layout.slopes : NULL,
                       (int)espl__attention_padded_rows(a.tokens)};
    attention_row_statistics<bf16, 8>(a, args);
    with_head_size(a.d, a.bias != NULL, [&](auto size, auto bias) {
        if (a.drop.on)
            launch_backward<decltype(size)::value, true, decltype(bias)::value>(a, t, r, args);
        else
            launch_backward<decltype(size)::value, false, decltype(bias)::value>(a, t, r, args);
    });
}

static void attend_backward(const attention &a, const attention_tensors<float> &t, const espl_args *args) {
    attention_simt_backward<float>(a, t, args);
}

template <class real> static void attention_backward(const espl_args *args) {
    attention a = self_attention_of(args);
    put_bias_tables<real>(a, args, 1);
    attend_backward(a, self_tensors_of<real>(args), args);
}

extern "C" void espl__cuda_bf16_attention_backward(const espl_args *args) {
    if (!espl__cudnn_backward(args, attention_backward<bf16>))
        attention_backward<bf16>(args);
}

extern "C" void espl__cuda_fp32_attention_backward(const espl_args *args) { attention_backward<float>(args); }

template <class real> static void cross_attention_backward(const espl_args *args) {
    attend_backward(cross_attention_of(args), cross_tensors_of<real>(args), args);
}

extern "C" void espl__cuda_bf16_cross_attention_backward(const espl_args *args) { cross_attention_backward<bf16>(args); }
extern "C" void espl__cuda_fp32_cross_attention_backward(const espl_args *args) { cross_attention_backward<float>(args); }
