/* What runs over parameters: AdamW, sums that are exact, and plain moves. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"

enum {
    UPDATE_THREADS = 256,
    SHARE = 256,      /* elements of a warp: each lane has four, and four more HALF behind them */
    HALF = SHARE / 2, /* so that every access of a warp is one run of memory, 16 bytes a lane */
    MOST_RANGES = 32, /* of one launch; an argument of the kernel, so that all threads read them from the constant cache */
};

struct adamw_call {
    void *weight;
    float *master, *m, *v;
    const float *grad;
    int64_t start; /* of the first block */
    int n_ranges;
    bool aligned;
    float b1, b2, a1, a2, grad_scale, lr, eps, c1, c2;
    espl_rng_key rng;
    uint64_t first;
    espl_adamw_range range[MOST_RANGES];
};

/* The operations of kernels/cpu/update.c one by one (no contraction, exact division and root), so the bits are the CPU's. */
__device__ __forceinline__ void adamw_element(const adamw_call &s, float decay, float grad, float &weight, float &m, float &v) {
    float g = grad * s.grad_scale;
    m = s.b1 * m + s.a1 * g;
    v = s.b2 * v + s.a2 * g * g;
    weight -= s.lr * ((m / s.c1) / (sqrtf(v / s.c2) + s.eps) + decay * weight);
}

/* The range that element `at` lies in, or in front of; n_ranges behind all of them. */
__device__ __forceinline__ int range_at(const adamw_call &s, int64_t at) {
    int r = 0;
    while (r < s.n_ranges && s.range[r].end <= at)
        r++;
    return r;
}

template <class T, bool MASTER> __device__ __forceinline__ void adamw_one(const adamw_call &s, int64_t at) {
    int r = range_at(s, at);
    if (r == s.n_ranges || at < s.range[r].begin)
        return;
    T *weight = static_cast<T *>(s.weight) + at;
    float w = MASTER ? s.master[at] : reals<T>::load(weight);
    adamw_element(s, s.range[r].decay, s.grad[at], w, s.m[at], s.v[at]);
    if (MASTER)
        s.master[at] = w;
    if constexpr (MASTER || sizeof(T) == sizeof(float))
        reals<T>::store(weight, w);
    else
        *weight = __ushort_as_bfloat16(espl_bf16_from_float_noisy(w, espl_rng_u16(&s.rng, s.first + (uint64_t)at)));
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
template <class T, bool MASTER> __device__ __forceinline__ void adamw_share(const adamw_call &s, float decay, int64_t share) {
    constexpr bool narrow = sizeof(T) < sizeof(float);
    int lane = (int)threadIdx.x % 32;
    int64_t at = share + 4 * lane, packed = share + lane % 2 * HALF + lane / 2 * 8;
    T *weight = static_cast<T *>(s.weight);
    float w[8], m[8], v[8], grad[8];
    if constexpr (MASTER) {
        load_halves(s.master + at, w);
    } else if constexpr (narrow) {
        reals<T>::load(weight + packed, w);
    } else {
        load_halves(weight + at, w);
    }
    load_halves(s.m + at, m);
    load_halves(s.v + at, v);
    load_halves(s.grad + at, grad);
    if constexpr (narrow && !MASTER)
        trade(w); /* behind all loads: it waits */
#pragma unroll
    for (int i = 0; i < 8; i++)
        adamw_element(s, decay, grad[i], w[i], m[i], v[i]);
    store_halves(s.m + at, m);
    store_halves(s.v + at, v);
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

template <class T, bool MASTER> __global__ void __launch_bounds__(UPDATE_THREADS) adamw_all(const adamw_call s) {
    int64_t share = s.start + ((int64_t)blockIdx.x * (UPDATE_THREADS / 32) + threadIdx.x / 32) * SHARE;
    int r = range_at(s, share);
    if (s.aligned && r < s.n_ranges && s.range[r].begin <= share && share + SHARE <= s.range[r].end)
        adamw_share<T, MASTER>(s, s.range[r].decay, share);
    else
        for (int i = (int)threadIdx.x % 32; i < SHARE; i += 32)
            adamw_one<T, MASTER>(s, share + i);
}

template <class T, bool MASTER> static void adamw(const espl_adamw *step) {
    adamw_call s = {step->weight,
                    step->master,
                    step->m,
                    step->v,
                    step->grad,
                    0,
                    0,
                    aligned16(step->m, step->v, step->grad, step->master) && (uintptr_t)step->weight % 16 == 0 && step->first % 8 == 0,
                    (float)step->beta1,
                    (float)step->beta2,
                    (float)(1.0 - step->beta1),
                    (float)(1.0 - step->beta2),
                    step->grad_scale,
                    step->lr,
                    step->eps,
                    step->c1,
                    step->c2,
                    step->rng,
                    step->first,
                    {}};
    for (int done = 0; done < step->n_ranges; done += s.n_ranges) {
        int left = step->n_ranges - done;
        s.n_ranges = left < MOST_RANGES ? left : (int)MOST_RANGES;
        for (int r = 0; r < s.n_ranges; r++)
            s.range[r] = step->ranges[done + r];
        s.start = s.range[0].begin / SHARE * SHARE;
        unsigned blocks = (unsigned)pieces_of(s.range[s.n_ranges - 1].end - s.start, UPDATE_THREADS / 32 * SHARE);
        ESPL_LAUNCH((adamw_all<T, MASTER>), dim3(blocks), dim3(UPDATE_THREADS), 0, espl__cuda->compute, s);
    }
    espl__cuda_note(cudaGetLastError(), "adamw");
}

void espl__cuda_fp32_adamw(const espl_adamw *step) { adamw<float, false>(step); }
void espl__cuda_bf16_adamw(const espl_adamw *step) { step->master ? adamw<__nv_bfloat16, true>(step) : adamw<__nv_bfloat16, false>(step); }

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
