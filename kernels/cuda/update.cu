/* What runs over parameters: the update rules, sums that are exact, and plain moves. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"
#include "kernels/cuda/weights.cuh"
#include "kernels/dynamic_map.h"

enum {
    UPDATE_THREADS = 256,
    SHARE = 256,      /* elements of a warp: each lane has four, and four more HALF behind them */
    HALF = SHARE / 2, /* so that every access of a warp is one run of memory, 16 bytes a lane */
    MOST_RANGES = 32, /* of one launch; an argument of the kernel, so that all threads read them from the constant cache */
};

/* An espl_rule_step, with what all elements share worked out. */
struct update_call {
    void *weight;
    float *master;
    void *state[ESPL_MAX_STATES];
    const float *grad;
    int64_t start; /* of the first block */
    int n_ranges;
    bool aligned, nesterov;
    float b1, b2, a1, a2, grad_scale, eps, momentum;
    espl_rng_key rng;
    uint64_t first;
    espl_rule_range range[MOST_RANGES];
};

/* The operations of kernels/cpu/update.c one by one (no contraction, exact division and root), so the bits are the CPU's. A rule's states
 * that are floats, one an element, are x[0] and on. */
struct adamw_rule {
    static constexpr int states = 2;
    static __device__ __forceinline__ void element(const update_call &s, const espl_rule_range &r, float grad, float &weight,
                                                   float (&x)[states]) {
        float g = grad * s.grad_scale;
        x[0] = s.b1 * x[0] + s.a1 * g;
        x[1] = s.b2 * x[1] + s.a2 * g * g;
        weight -= r.lr * ((x[0] / r.c1) / (sqrtf(x[1] / r.c2) + s.eps) + r.decay * weight);
    }
};

struct lion_rule {
    static constexpr int states = 1;
    static __device__ __forceinline__ void element(const update_call &s, const espl_rule_range &r, float grad, float &weight,
                                                   float (&x)[states]) {
        float g = grad * s.grad_scale, ahead = s.b1 * x[0] + s.a1 * g;
        x[0] = s.b2 * x[0] + s.a2 * g;
        weight -= r.lr * ((float)((ahead > 0) - (ahead < 0)) + r.decay * weight);
    }
};

struct sgd_rule {
    static constexpr int states = 1;
    static __device__ __forceinline__ void element(const update_call &s, const espl_rule_range &r, float grad, float &weight,
                                                   float (&x)[states]) {
        float g = grad * s.grad_scale + r.decay * weight;
        x[0] = s.momentum * x[0] + g;
        weight -= r.lr * (s.nesterov ? g + s.momentum * x[0] : x[0]);
    }
};

/* The range that element `at` lies in, or in front of; n_ranges behind all of them. */
__device__ __forceinline__ int range_at(const update_call &s, int64_t at) {
    int r = 0;
    while (r < s.n_ranges && s.range[r].end <= at)
        r++;
    return r;
}

__device__ __forceinline__ float *state_of(const update_call &s, int i) { return static_cast<float *>(s.state[i]); }

template <class RULE, class T, bool MASTER> __device__ __forceinline__ void update_one(const update_call &s, int64_t at) {
    int r = range_at(s, at);
    if (r == s.n_ranges || at < s.range[r].begin)
        return;
    float w = load_weight<T, MASTER>(s, at), x[RULE::states];
#pragma unroll
    for (int k = 0; k < RULE::states; k++)
        x[k] = state_of(s, k)[at];
    RULE::element(s, s.range[r], s.grad[at], w, x);
#pragma unroll
    for (int k = 0; k < RULE::states; k++)
        state_of(s, k)[at] = x[k];
    store_weight<T, MASTER>(s, at, w);
}

__device__ __forceinline__ void load_halves(const float *from, float (&x)[8]) {
    float half[4];
    load_floats(from, half);
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[i] = half[i];
    load_floats(from + HALF, half);
#pragma unroll
    for (int i = 0; i < 4; i++)
        x[4 + i] = half[i];
}

__device__ __forceinline__ void store_halves(float *to, const float (&x)[8]) {
    store_floats(to, {x[0], x[1], x[2], x[3]});
    store_floats(to + HALF, {x[4], x[5], x[6], x[7]});
}

/* Lanes 2 c and 2 c + 1 trade, so that the even one has eight elements of the first half, 8 c and on, and the odd one those of the second;
 * or back. */
__device__ __forceinline__ void trade(float (&x)[8]) {
    bool odd = threadIdx.x % 2;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float got = __shfl_xor_sync(ALL_LANES, odd ? x[i] : x[4 + i], 1);
        x[i] = odd ? got : x[i];
        x[4 + i] = odd ? x[4 + i] : got;
    }
}

/* Eight elements of bf16, from place `first` of the stream on, a multiple of 8. */
__device__ __forceinline__ void store_noisy(__nv_bfloat16 *to, const float (&x)[8], const espl_rng_key *rng, uint64_t first) {
    espl_rng4 number = espl_rng_block(rng, first / 8);
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        word[i] = espl_bf16_from_float_noisy(x[2 * i], number.v[i] & 0xFFFFu) |
                  (uint32_t)espl_bf16_from_float_noisy(x[2 * i + 1], number.v[i] >> 16) << 16;
    __stwb(reinterpret_cast<uint4 *>(to), make_uint4(word[0], word[1], word[2], word[3]));
}

/* A warp's share, all of it in one range. */
template <class RULE, class T, bool MASTER>
__device__ __forceinline__ void update_share(const update_call &s, const espl_rule_range &r, int64_t share) {
    constexpr bool narrow = sizeof(T) < sizeof(float);
    int lane = (int)threadIdx.x % 32;
    int64_t at = share + 4 * lane, packed = share + lane % 2 * HALF + lane / 2 * 8;
    T *weight = static_cast<T *>(s.weight);
    float w[8], x[RULE::states][8], grad[8];
    if constexpr (MASTER) {
        load_halves(s.master + at, w);
    } else if constexpr (narrow) {
        reals<T>::load(weight + packed, w);
    } else {
        load_halves(weight + at, w);
    }
#pragma unroll
    for (int k = 0; k < RULE::states; k++)
        load_halves(state_of(s, k) + at, x[k]);
    load_halves(s.grad + at, grad);
    if constexpr (narrow && !MASTER)
        trade(w); /* behind all loads: it waits */
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float own[RULE::states];
#pragma unroll
        for (int k = 0; k < RULE::states; k++)
            own[k] = x[k][i];
        RULE::element(s, r, grad[i], w[i], own);
#pragma unroll
        for (int k = 0; k < RULE::states; k++)
            x[k][i] = own[k];
    }
#pragma unroll
    for (int k = 0; k < RULE::states; k++)
        store_halves(state_of(s, k) + at, x[k]);
    if constexpr (MASTER)
        store_halves(s.master + at, w);
    if constexpr (!narrow) {
        store_halves(weight + at, w);
    } else {
        trade(w);
        if constexpr (MASTER)
            reals<T>::store(weight + packed, w);
        else
            store_noisy(weight + packed, w, &s.rng, s.first + (uint64_t)packed);
    }
}

template <class RULE, class T, bool MASTER> __global__ void __launch_bounds__(UPDATE_THREADS) update_all(const update_call s) {
    int64_t share = s.start + ((int64_t)blockIdx.x * (UPDATE_THREADS / 32) + threadIdx.x / 32) * SHARE;
    int r = range_at(s, share);
    if (s.aligned && r < s.n_ranges && s.range[r].begin <= share && share + SHARE <= s.range[r].end)
        update_share<RULE, T, MASTER>(s, s.range[r], share);
    else
        for (int i = (int)threadIdx.x % 32; i < SHARE; i += 32)
            update_one<RULE, T, MASTER>(s, share + i);
}

static update_call call_of(const espl_rule_step *step) {
    update_call s = {};
    s.weight = step->weight;
    s.master = step->master;
    s.grad = step->grad;
    s.aligned = aligned16(step->grad, step->master) && (uintptr_t)step->weight % 16 == 0 && step->first % 8 == 0;
    for (int i = 0; i < ESPL_MAX_STATES; i++) {
        s.state[i] = step->state[i];
        s.aligned = s.aligned && (uintptr_t)step->state[i] % 16 == 0;
    }
    s.nesterov = step->nesterov;
    s.b1 = (float)step->beta1;
    s.b2 = (float)step->beta2;
    s.a1 = (float)(1.0 - step->beta1);
    s.a2 = (float)(1.0 - step->beta2);
    s.grad_scale = step->grad_scale;
    s.eps = step->eps;
    s.momentum = step->momentum;
    s.rng = step->rng;
    s.first = step->first;
    return s;
}

/* The next ranges from element *from on that a launch takes; returns how many blocks it has, 0 behind the last range. Where there are more
 * than it can take it ends with a share, so that no share is updated twice, unless it would be empty. */
static unsigned next_ranges(const espl_rule_step *step, int64_t *from, update_call *s) {
    int r = 0;
    while (r < step->n_ranges && step->ranges[r].end <= *from)
        r++;
    s->n_ranges = 0;
    for (; r < step->n_ranges && s->n_ranges < MOST_RANGES; r++) {
        s->range[s->n_ranges] = step->ranges[r];
        if (s->range[s->n_ranges].begin < *from)
            s->range[s->n_ranges].begin = *from;
        s->n_ranges++;
    }
    if (s->n_ranges == 0)
        return 0;
    int64_t end = s->range[s->n_ranges - 1].end, whole = end / SHARE * SHARE;
    *from = r < step->n_ranges && whole > s->range[0].begin ? whole : end;
    while (s->range[s->n_ranges - 1].begin >= *from)
        s->n_ranges--;
    if (s->range[s->n_ranges - 1].end > *from)
        s->range[s->n_ranges - 1].end = *from;
    s->start = s->range[0].begin / SHARE * SHARE;
    return (unsigned)pieces_of(s->range[s->n_ranges - 1].end - s->start, UPDATE_THREADS / 32 * SHARE);
}

template <class RULE, class T, bool MASTER> static void update(const espl_rule_step *step) {
    update_call s = call_of(step);
    int64_t from = 0;
    for (unsigned blocks; (blocks = next_ranges(step, &from, &s)) > 0;)
        ESPL_LAUNCH((update_all<RULE, T, MASTER>), dim3(blocks), dim3(UPDATE_THREADS), 0, espl__cuda->compute, s);
    espl__cuda_note(cudaGetLastError(), "update");
}

template <class RULE> static void update_bf16(const espl_rule_step *step) {
    step->master ? update<RULE, __nv_bfloat16, true>(step) : update<RULE, __nv_bfloat16, false>(step);
}

void espl__cuda_fp32_adamw(const espl_rule_step *step) { update<adamw_rule, float, false>(step); }
void espl__cuda_bf16_adamw(const espl_rule_step *step) { update_bf16<adamw_rule>(step); }
void espl__cuda_fp32_lion(const espl_rule_step *step) { update<lion_rule, float, false>(step); }
void espl__cuda_bf16_lion(const espl_rule_step *step) { update_bf16<lion_rule>(step); }
void espl__cuda_fp32_sgd(const espl_rule_step *step) { update<sgd_rule, float, false>(step); }
void espl__cuda_bf16_sgd(const espl_rule_step *step) { update_bf16<sgd_rule>(step); }

/* ---- AdamW with moments of a byte: a warp a block of them. */

static_assert((int)SHARE == (int)ESPL_STATE_BLOCK, "a warp's share is a block of the states");

struct byte_maps {
    float with_sign[ESPL_MAP_SIZE], without[ESPL_MAP_SIZE];
};

/* The moments of a lane's elements 32 apart, from their bytes. */
__device__ __forceinline__ void widen(const float *map, const uint8_t *code, float scale, float (&x)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = map[code[32 * i]] * scale;
}

/* And back; returns the largest magnitude of the warp. */
__device__ __forceinline__ float narrow(const float *map, const float (&x)[8], uint8_t *code) {
    float scale = 0;
#pragma unroll
    for (int i = 0; i < 8; i++)
        scale = fmaxf(scale, fabsf(x[i]));
    scale = warp_max(scale);
#pragma unroll
    for (int i = 0; i < 8; i++)
        code[32 * i] = (uint8_t)espl_map_nearest(map, scale > 0 ? x[i] / scale : 0.0f);
    return scale;
}

/* Elements of the block at `at`, which m and v are of. Whether any of the warp's was in a range. */
template <class T, bool MASTER>
__device__ __forceinline__ bool update_block(const update_call &s, int64_t at, float (&m)[8], float (&v)[8]) {
    bool any = false;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int64_t place = at + 32 * i;
        int r = range_at(s, place);
        if (r == s.n_ranges || place < s.range[r].begin) {
            m[i] = v[i] = 0.0f;
            continue;
        }
        float w = load_weight<T, MASTER>(s, place), x[2] = {m[i], v[i]};
        adamw_rule::element(s, s.range[r], s.grad[place], w, x);
        m[i] = x[0];
        v[i] = x[1];
        store_weight<T, MASTER>(s, place, w);
        any = true;
    }
    return __any_sync(ALL_LANES, any);
}

template <class T, bool MASTER> __global__ void __launch_bounds__(UPDATE_THREADS) adamw8bit_all(const update_call s, const byte_maps maps) {
    ESPL_SHARED(float, with_sign, [ESPL_MAP_SIZE]);
    ESPL_SHARED(float, without, [ESPL_MAP_SIZE]);
    for (int i = (int)threadIdx.x; i < ESPL_MAP_SIZE; i += UPDATE_THREADS) {
        with_sign[i] = maps.with_sign[i];
        without[i] = maps.without[i];
    }
    __syncthreads();
    int64_t share = s.start + ((int64_t)blockIdx.x * (UPDATE_THREADS / 32) + threadIdx.x / 32) * SHARE;
    int lane = (int)threadIdx.x % 32;
    if (share >= s.range[s.n_ranges - 1].end)
        return;
    int64_t at = share + lane;
    uint8_t *m_code = static_cast<uint8_t *>(s.state[0]) + at, *v_code = static_cast<uint8_t *>(s.state[1]) + at;
    float *m_scale = state_of(s, 2) + share / SHARE, *v_scale = state_of(s, 3) + share / SHARE;
    float m[8], v[8];
    widen(with_sign, m_code, *m_scale, m);
    widen(without, v_code, *v_scale, v);
    if (!update_block<T, MASTER>(s, at, m, v))
        return;
    float most_m = narrow(with_sign, m, m_code), most_v = narrow(without, v, v_code);
    __syncwarp(); /* all lanes have read the scales */
    if (lane == 0) {
        *m_scale = most_m;
        *v_scale = most_v;
    }
}

template <class T, bool MASTER> static void adamw8bit(const espl_rule_step *step) {
    update_call s = call_of(step);
    byte_maps maps;
    int64_t from = 0;
    espl_map_fill(maps.with_sign, true);
    espl_map_fill(maps.without, false);
    for (unsigned blocks; (blocks = next_ranges(step, &from, &s)) > 0;)
        ESPL_LAUNCH((adamw8bit_all<T, MASTER>), dim3(blocks), dim3(UPDATE_THREADS), 0, espl__cuda->compute, s, maps);
    espl__cuda_note(cudaGetLastError(), "update of bytes");
}

void espl__cuda_fp32_adamw8bit(const espl_rule_step *step) { adamw8bit<float, false>(step); }
void espl__cuda_bf16_adamw8bit(const espl_rule_step *step) {
    step->master ? adamw8bit<__nv_bfloat16, true>(step) : adamw8bit<__nv_bfloat16, false>(step);
}

/* Exact sums: each warp adds into an accumulator of its own in shared memory; a block adds the limbs of its warps to the one in device
 * memory, as integers, so that no order shows. */
enum { EXACT_WARPS = 8, EXACT_BLOCKS = 528, SQUARES = 256 /* elements whose squares are summed in double (kernels.h) */ };

typedef int64_t exact_words[ESPL_EXACT_WORDS];

__device__ __forceinline__ void exact_clear(exact_words *words) {
    for (int i = (int)threadIdx.x; i < EXACT_WARPS * ESPL_EXACT_WORDS; i += EXACT_WARPS * 32)
        words[i / ESPL_EXACT_WORDS][i % ESPL_EXACT_WORDS] = 0;
    __syncthreads();
}

/* Adds x, which all lanes of the warp hold: a lane a limb. */
__device__ __forceinline__ void exact_add(int64_t *words, double x) {
    int lane = (int)threadIdx.x % 32, limb;
    int64_t part[3];
    if (espl_exact_split(x, &limb, part)) {
        if (lane < 3)
            words[limb + lane] += lane == 0 ? part[0] : lane == 1 ? part[1] : part[2];
    } else if (lane == 0) {
        words[ESPL_EXACT_LIMBS]++;
    }
    __syncwarp();
}

__device__ __forceinline__ void exact_finish(exact_words *words, espl_exact *sum) {
    __syncthreads();
    int word = (int)threadIdx.x;
    if (word >= ESPL_EXACT_WORDS)
        return;
    int64_t total = 0;
    for (int warp = 0; warp < EXACT_WARPS; warp++)
        total += words[warp][word];
    if (total != 0)
        atomicAdd(reinterpret_cast<unsigned long long *>(sum) + word, (unsigned long long)total);
}

/* The squares of one block by themselves, where their sum is not finite. */
__device__ __forceinline__ void exact_add_each(int64_t *words, const float *x, int64_t count) {
    for (int64_t first = 0; first < SQUARES && first < count; first += 32) {
        int64_t at = first + threadIdx.x % 32;
        double square = at < count ? (double)x[at] * x[at] : 0;
        for (int lane = 0; lane < 32 && first + lane < count; lane++)
            exact_add(words, __shfl_sync(ALL_LANES, square, lane));
    }
}

/* A warp takes four blocks of 256 elements at a time, eight lanes each. */
__global__ void __launch_bounds__(EXACT_WARPS * 32) sum_squares_all(const float *x, int64_t n, espl_exact *sum) {
    ESPL_SHARED(int64_t, words, [EXACT_WARPS][ESPL_EXACT_WORDS]);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    exact_clear(words);
    for (int64_t first = ((int64_t)blockIdx.x * EXACT_WARPS + warp) * 4 * SQUARES; first < n;
         first += (int64_t)gridDim.x * EXACT_WARPS * 4 * SQUARES) {
        const float *block = x + first + lane / 8 * SQUARES + lane % 8;
        int64_t count = n - (first + lane / 8 * SQUARES + lane % 8);
        double squares = 0;
#pragma unroll 8
        for (int i = 0; i < SQUARES; i += 8) {
            double value = i < count ? block[i] : 0;
            squares += value * value;
        }
        squares += __shfl_xor_sync(ALL_LANES, squares, 1);
        squares += __shfl_xor_sync(ALL_LANES, squares, 2);
        squares += __shfl_xor_sync(ALL_LANES, squares, 4);
        for (int b = 0; b < 4 && first + b * SQUARES < n; b++) {
            double total = __shfl_sync(ALL_LANES, squares, 8 * b);
            if (isfinite(total))
                exact_add(words[warp], total);
            else
                exact_add_each(words[warp], x + first + b * SQUARES, n - first - b * SQUARES);
        }
    }
    exact_finish(words, sum);
}

__global__ void __launch_bounds__(EXACT_WARPS * 32) sum_all(const float *x, int64_t n, espl_exact *sum) {
    ESPL_SHARED(int64_t, words, [EXACT_WARPS][ESPL_EXACT_WORDS]);
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    exact_clear(words);
    for (int64_t first = ((int64_t)blockIdx.x * EXACT_WARPS + warp) * 32; first < n; first += (int64_t)gridDim.x * EXACT_WARPS * 32) {
        float value = first + lane < n ? x[first + lane] : 0;
        for (int l = 0; l < 32 && first + l < n; l++)
            exact_add(words[warp], __shfl_sync(ALL_LANES, value, l));
    }
    exact_finish(words, sum);
}

static dim3 exact_grid(int64_t n, int64_t a_warp) {
    int64_t blocks = pieces_of(n, a_warp * EXACT_WARPS);
    return dim3((unsigned)(blocks < EXACT_BLOCKS ? blocks : (int64_t)EXACT_BLOCKS));
}

void espl__cuda_sum_squares(const float *x, int64_t n, espl_exact *sum) {
    if (n == 0)
        return;
    ESPL_LAUNCH(sum_squares_all, exact_grid(n, 4 * SQUARES), dim3(EXACT_WARPS * 32), 0, espl__cuda->compute, x, n, sum);
    espl__cuda_note(cudaGetLastError(), "sum of squares");
}

void espl__cuda_sum(const float *x, int64_t n, espl_exact *sum) {
    if (n == 0)
        return;
    ESPL_LAUNCH(sum_all, exact_grid(n, 32), dim3(EXACT_WARPS * 32), 0, espl__cuda->compute, x, n, sum);
    espl__cuda_note(cudaGetLastError(), "sum");
}

template <int N> __global__ void __launch_bounds__(UPDATE_THREADS) add_all(float *to, const float *from, int64_t n) {
    int64_t at = ((int64_t)blockIdx.x * UPDATE_THREADS + threadIdx.x) * N;
    if (at + N > n) {
        for (; at < n; at++)
            to[at] += from[at];
        return;
    }
    float x[N], y[N];
    load_floats(to + at, x);
    load_floats(from + at, y);
#pragma unroll
    for (int i = 0; i < N; i++)
        x[i] += y[i];
    store_floats(to + at, x);
}

void espl__cuda_add(float *to, const float *from, int64_t n) {
    const unsigned pieces = (unsigned)pieces_of(n, (aligned16(to, from) ? 4 : 1) * UPDATE_THREADS);
    if (n == 0)
        return;
    if (aligned16(to, from))
        ESPL_LAUNCH(add_all<4>, dim3(pieces), dim3(UPDATE_THREADS), 0, espl__cuda->compute, to, from, n);
    else
        ESPL_LAUNCH(add_all<1>, dim3(pieces), dim3(UPDATE_THREADS), 0, espl__cuda->compute, to, from, n);
    espl__cuda_note(cudaGetLastError(), "add");
}

/* Units of 16 bytes or of one; bytes behind the last whole unit are those of the thread behind its. `from` NULL: zeros. */
template <class U> __global__ void __launch_bounds__(UPDATE_THREADS) move_all(unsigned char *to, const unsigned char *from, int64_t bytes) {
    int64_t at = ((int64_t)blockIdx.x * UPDATE_THREADS + threadIdx.x) * (int64_t)sizeof(U);
    if (at + (int64_t)sizeof(U) <= bytes)
        *reinterpret_cast<U *>(to + at) = from ? *reinterpret_cast<const U *>(from + at) : U();
    else
        for (; at < bytes; at++)
            to[at] = from ? from[at] : 0;
}

static void move(void *to, const void *from, size_t bytes, const char *what) {
    if (bytes == 0)
        return;
    unsigned char *target = static_cast<unsigned char *>(to);
    const unsigned char *source = static_cast<const unsigned char *>(from);
    int64_t n = (int64_t)bytes;
    if (aligned16(target, source))
        ESPL_LAUNCH(move_all<uint4>, dim3((unsigned)pieces_of(n, 16 * UPDATE_THREADS)), dim3(UPDATE_THREADS), 0, espl__cuda->compute,
                    target, source, n);
    else
        ESPL_LAUNCH(move_all<unsigned char>, dim3((unsigned)pieces_of(n, UPDATE_THREADS)), dim3(UPDATE_THREADS), 0, espl__cuda->compute,
                    target, source, n);
    espl__cuda_note(cudaGetLastError(), what);
}

void espl__cuda_zero(void *to, size_t bytes) { move(to, nullptr, bytes, "zero"); }
void espl__cuda_copy(void *to, const void *from, size_t bytes) { move(to, from, bytes, "copy"); }
