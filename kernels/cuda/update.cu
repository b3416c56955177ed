/* What runs over parameters: AdamW, sums that are exact, and plain moves. */
#include "kernels/cuda/dialect.cuh"
#include "kernels/cuda/entries.h"
#include "kernels/cuda/rows.cuh"

enum { UPDATE_THREADS = 256 };

struct adamw_arrays {
    float *weight, *m, *v;
    const float *grad;
    void *copy; /* of real, or NULL */
    int64_t n;
    float b1, b2, a1, a2, grad_scale, lr, eps, decay, c1, c2;
};

/* The operations of kernels/cpu/update.c one by one (no contraction, exact division and root), so the bits are the CPU's. */
__device__ __forceinline__ void adamw_element(const adamw_arrays &s, float grad, float &weight, float &m, float &v) {
    float g = grad * s.grad_scale;
    m = s.b1 * m + s.a1 * g;
    v = s.b2 * v + s.a2 * g * g;
    weight -= s.lr * ((m / s.c1) / (sqrtf(v / s.c2) + s.eps) + s.decay * weight);
}

/* N elements a thread, 1 or 4. */
template <class T, int N> __global__ void __launch_bounds__(UPDATE_THREADS) adamw_all(adamw_arrays s) {
    int64_t at = ((int64_t)blockIdx.x * UPDATE_THREADS + threadIdx.x) * N;
    T *copy = static_cast<T *>(s.copy);
    if (at + N > s.n) {
        for (; at < s.n; at++) {
            adamw_element(s, s.grad[at], s.weight[at], s.m[at], s.v[at]);
            if (copy)
                reals<T>::store(copy + at, s.weight[at]);
        }
        return;
    }
    float weight[N], m[N], v[N], grad[N];
    load_floats(s.weight + at, weight);
    load_floats(s.m + at, m);
    load_floats(s.v + at, v);
    load_floats(s.grad + at, grad);
#pragma unroll
    for (int i = 0; i < N; i++)
        adamw_element(s, grad[i], weight[i], m[i], v[i]);
    store_floats(s.weight + at, weight);
    store_floats(s.m + at, m);
    store_floats(s.v + at, v);
    if (copy)
        store_narrow(copy + at, weight);
}

template <class T> static void adamw(const espl_adamw *step) {
    if (step->n == 0)
        return;
    adamw_arrays s = {step->weight,
                      step->m,
                      step->v,
                      step->grad,
                      step->copy,
                      step->n,
                      (float)step->beta1,
                      (float)step->beta2,
                      (float)(1.0 - step->beta1),
                      (float)(1.0 - step->beta2),
                      step->grad_scale,
                      step->lr,
                      step->eps,
                      step->decay,
                      step->c1,
                      step->c2};
    if (aligned16(s.weight, s.m, s.v, s.grad) && (uintptr_t)s.copy % (4 * sizeof(T)) == 0)
        ESPL_LAUNCH((adamw_all<T, 4>), dim3((unsigned)pieces_of(s.n, 4 * UPDATE_THREADS)), dim3(UPDATE_THREADS), 0, espl__cuda->compute, s);
    else
        ESPL_LAUNCH((adamw_all<T, 1>), dim3((unsigned)pieces_of(s.n, UPDATE_THREADS)), dim3(UPDATE_THREADS), 0, espl__cuda->compute, s);
    espl__cuda_note(cudaGetLastError(), "adamw");
}

void espl__cuda_fp32_adamw(const espl_adamw *step) { adamw<float>(step); }
void espl__cuda_bf16_adamw(const espl_adamw *step) { adamw<__nv_bfloat16>(step); }

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
