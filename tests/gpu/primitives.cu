/* What the kernels take for granted of a GPU, one primitive at a time: the same file runs on the emulator and on a GPU, and both must print
 * the same.
 *
 *   primitives > words.txt
 *
 * A line is "name kind word word ..."; words are hexadecimal. kind: exact, every bit is laid down; or near, floats that the hardware may
 * round in its own way, followed by as many floats that bound each of them in magnitude (sums of absolute values). primitives.py compares.
 */
#include "kernels/cuda/prims.cuh"
#include "src/core/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 32, THREADS = 128, WORDS = 4096, HALVES = 512 };

/* Numbers that differ in every bit position sooner or later. */
static __host__ __device__ inline uint32_t scramble(uint32_t x) {
    x = (x + 1) * 0x9E3779B1u;
    x ^= x >> 15;
    return x * 0x85EBCA77u ^ x >> 13;
}

/* bf16 -8 .. 7 as bits: sums of 16 products of two of them are exact in fp32. */
static __host__ __device__ inline uint16_t small_integer(uint32_t x) {
    return __bfloat16_as_ushort(__float2bfloat16_rn((float)(int)(scramble(x) >> 7 & 15u) - 8.0f));
}

/* bf16 of many magnitudes. */
static __host__ __device__ inline uint16_t any_number(uint32_t x) {
    uint32_t bits = scramble(x);
    return (uint16_t)((bits & 0x807Fu) | (120u + (bits >> 8 & 15u)) << 7);
}

static __global__ void __launch_bounds__(LANES) shuffles(uint32_t *out) {
    uint32_t lane = threadIdx.x, value = scramble(lane);
    float real = (float)(int)lane - 11.25f;
    uint32_t *mine = out + lane;
    *mine = __shfl_xor_sync(ALL_LANES, value, 5), mine += LANES;
    *mine = __shfl_xor_sync(ALL_LANES, value, 16), mine += LANES;
    *mine = __shfl_xor_sync(ALL_LANES, value, 3, 8), mine += LANES;
    *mine = __shfl_down_sync(ALL_LANES, value, 7u), mine += LANES;
    *mine = __shfl_down_sync(ALL_LANES, value, 2u, 16), mine += LANES;
    *mine = __shfl_up_sync(ALL_LANES, value, 9u), mine += LANES;
    *mine = __shfl_up_sync(ALL_LANES, value, 1u, 4), mine += LANES;
    *mine = __shfl_sync(ALL_LANES, value, (int)(lane * 7 % 32)), mine += LANES;
    *mine = __shfl_sync(ALL_LANES, value, 3, 8), mine += LANES;
    *mine = __float_as_uint(__shfl_xor_sync(ALL_LANES, real, 1)), mine += LANES;
    double wide = (double)lane * 1.5e10 + 0.25;
    *mine = (uint32_t)(unsigned long long)__double_as_longlong(__shfl_xor_sync(ALL_LANES, wide, 12)), mine += LANES;
    *mine = __float_as_uint(warp_sum(real)), mine += LANES;
    *mine = __float_as_uint(warp_max(real)), mine += LANES;
    *mine = __float_as_uint(quad_sum(real)), mine += LANES;
    *mine = __float_as_uint(quad_max(real));
}

static __global__ void __launch_bounds__(LANES) votes(uint32_t *out) {
    uint32_t lane = threadIdx.x, value = scramble(lane);
    uint32_t *mine = out + lane;
    *mine = __ballot_sync(ALL_LANES, (int)(value & 1u)), mine += LANES;
    *mine = __any_sync(ALL_LANES, lane == 17) != 0, mine += LANES;
    *mine = __all_sync(ALL_LANES, lane != 17) != 0, mine += LANES;
    *mine = __all_sync(ALL_LANES, lane < 32) != 0, mine += LANES;
    *mine = __match_any_sync(ALL_LANES, value & 3u), mine += LANES;
    *mine = __reduce_add_sync(ALL_LANES, value), mine += LANES;
    *mine = __reduce_min_sync(ALL_LANES, value), mine += LANES;
    *mine = __reduce_max_sync(ALL_LANES, value), mine += LANES;
    *mine = __reduce_or_sync(ALL_LANES, value & 0xF0F0u), mine += LANES;
    *mine = 0;
    if (lane >= 16) /* a part of a warp by itself */
        *mine = __ballot_sync(0xFFFF0000u, (int)(value >> 3 & 1u));
    __syncwarp();
}

static __global__ void __launch_bounds__(THREADS) barriers(uint32_t *out) {
    ESPL_SHARED(uint32_t, word, [THREADS]);
    ESPL_SHARED(float, partial, [THREADS / LANES]);
    uint32_t t = threadIdx.x;
    word[t] = scramble(t);
    __syncthreads();
    out[t] = word[THREADS - 1 - t];
    out[THREADS + t] = (uint32_t)__syncthreads_count((int)(scramble(t) & 1u));
    out[2 * THREADS + t] = __syncthreads_or(t == 77) != 0;
    out[3 * THREADS + t] = __syncthreads_and(t != 77) != 0;
    out[4 * THREADS + t] = __float_as_uint(block_sum((float)t - 3.5f, partial));
    out[5 * THREADS + t] = __float_as_uint(block_max((float)(scramble(t) & 1023u), partial));
}

/* Ties, halves of the smallest numbers, infinities and NaN among them. */
static __global__ void __launch_bounds__(THREADS) bf16_rounding(const uint32_t *in, uint32_t *out) {
    for (uint32_t i = threadIdx.x; i < HALVES; i += THREADS) {
        float x = __uint_as_float(in[i]), y = __uint_as_float(in[(i + 1) % HALVES]);
        uint32_t bits = __bfloat16_as_ushort(__float2bfloat16_rn(x)), packed = bf16_pack(x, y);
        out[i] = x == x ? bits : 1u; /* which NaN it is is not laid down */
        out[HALVES + i] = x == x && y == y ? packed : 1u;
        out[2 * HALVES + i] = __float_as_uint(bf16_low(in[i])), out[3 * HALVES + i] = __float_as_uint(bf16_high(in[i]));
    }
}

/* Groups of copies that are waited for one by one, and copies of zeros. */
static __global__ void __launch_bounds__(LANES) async_copies(const uint4 *in, uint32_t *out) {
    ESPL_SHARED_DYN(uint4, stage);
    uint32_t lane = threadIdx.x;
    for (int group = 0; group < 4; group++) {
        cp_async16(&stage[group * LANES + lane], &in[group * LANES + (lane ^ 3)], (scramble(lane + 32 * group) & 3u) != 0);
        cp_async_commit();
    }
    cp_async_wait<2>();
    __syncwarp();
    uint4 first = stage[lane ^ 1], second = stage[LANES + (lane ^ 2)];
    cp_async_wait<0>();
    __syncwarp();
    uint4 third = stage[2 * LANES + (lane ^ 4)], fourth = stage[3 * LANES + (lane ^ 8)];
    uint4 all[4] = {first, second, third, fourth};
    for (int group = 0; group < 4; group++) {
        uint32_t *mine = out + 4 * (group * LANES + lane);
        mine[0] = all[group].x, mine[1] = all[group].y, mine[2] = all[group].z, mine[3] = all[group].w;
    }
}

/* Rows in an order of their own, so that each lane's address counts. */
static __global__ void __launch_bounds__(LANES) matrix_loads(uint32_t *out) {
    ESPL_SHARED(uint4, rows, [LANES]);
    uint32_t lane = threadIdx.x, plain[4], turned[4];
    rows[lane] = make_uint4(scramble(4 * lane), scramble(4 * lane + 1), scramble(4 * lane + 2), scramble(4 * lane + 3));
    __syncwarp();
    ldmatrix_x4(plain, &rows[lane * 5 % LANES]);
    ldmatrix_x4_trans(turned, &rows[lane * 11 % LANES]);
    for (int i = 0; i < 4; i++)
        out[i * LANES + lane] = plain[i], out[(4 + i) * LANES + lane] = turned[i];
}

/* d += a b with fragments of the numbers of `kind`: 0 small integers, 1 any, 2 the absolute values of any. */
static __global__ void __launch_bounds__(LANES) products(uint32_t *out, int kind) {
    uint32_t lane = threadIdx.x, a[4], b[2];
    uint16_t half[12];
    for (uint32_t i = 0; i < 12; i++) {
        half[i] = kind == 0 ? small_integer(lane * 12 + i) : any_number(lane * 12 + i);
        half[i] = kind == 2 ? (uint16_t)(half[i] & 0x7FFFu) : half[i];
    }
    for (int i = 0; i < 4; i++)
        a[i] = half[2 * i] | (uint32_t)half[2 * i + 1] << 16;
    for (int i = 0; i < 2; i++)
        b[i] = half[8 + 2 * i] | (uint32_t)half[9 + 2 * i] << 16;
    float d[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++)
        d[i] = (float)(lane % 7) + d[i];
    mma_m16n8k16(d, a, b[0], b[1]);
    mma_m16n8k16(d, a, b[1], b[0]);
    for (int i = 0; i < 4; i++)
        out[i * LANES + lane] = __float_as_uint(d[i]);
}

static __global__ void __launch_bounds__(THREADS) random_numbers(uint32_t *out) {
    espl_rng_key key = {0x123456789ABCDEFull, ESPL_RNG_DROPOUT, 7, 3, 70000};
    for (uint32_t i = threadIdx.x; i < HALVES; i += THREADS) {
        out[i] = espl_rng_u32(&key, i);
        out[HALVES + i] = espl_rng_u32(&key, (uint64_t)i << 20 | 5u);
    }
}

/* Arithmetic that must be IEEE: subnormal numbers are kept, division and root are correctly rounded. */
static __global__ void __launch_bounds__(THREADS) arithmetic(const uint32_t *in, uint32_t *out) {
    for (uint32_t i = threadIdx.x; i < HALVES; i += THREADS) {
        float x = __uint_as_float(in[i]), y = __uint_as_float(in[(i + 1) % HALVES]), z = __uint_as_float(in[(i + 2) % HALVES]);
        float results[6] = {x + y, x * y, fmaf(x, y, z), x / y, sqrtf(fabsf(x)), fmaxf(x, y)};
        for (int k = 0; k < 6; k++)
            out[k * HALVES + i] = results[k] == results[k] ? __float_as_uint(results[k]) : 1u;
    }
}

static bool check(cudaError_t error, const char *what) {
    if (error != cudaSuccess)
        fprintf(stderr, "primitives: %s: %s\n", what, cudaGetErrorString(error));
    return error == cudaSuccess;
}

static void print(const char *name, const char *kind, const uint32_t *words, int n) {
    printf("%s %s", name, kind);
    for (int i = 0; i < n; i++)
        printf(" %08x", (unsigned)words[i]);
    printf("\n");
}

/* Device memory for what goes in and comes out. */
struct memory {
    uint32_t *in, *out;
    uint32_t words[WORDS];
};

static bool fetch(memory *m, const char *what) {
    return check(cudaGetLastError(), what) && check(cudaDeviceSynchronize(), what) &&
           check(cudaMemcpy(m->words, m->out, sizeof m->words, cudaMemcpyDeviceToHost), what);
}

static bool show(memory *m, const char *name, int n) {
    if (!fetch(m, name))
        return false;
    print(name, "exact", m->words, n);
    return check(cudaMemset(m->out, 0, sizeof m->words), name);
}

/* Bits of floats around what rounding decides: all exponents, ties to even on both sides, NaN and infinities. */
static bool write_numbers(memory *m) {
    static const uint32_t special[] = {0,           0x80000000u, 0x7F800000u, 0xFF800000u, 0x7FC00000u, 0x00000001u,
                                       0x00008000u, 0x00018000u, 0x7F7FFFFFu, 0x3F808000u, 0x3F818000u, 0x3F807FFFu,
                                       0x3F808001u, 0xBF808000u, 0x007FFFFFu, 0x7F7F8000u};
    for (uint32_t i = 0; i < WORDS; i++)
        m->words[i] = i < 16 ? special[i] : i % 3 == 0 ? (scramble(i) & 0xFFFF0000u) | 0x8000u : scramble(i);
    return check(cudaMemcpy(m->in, m->words, sizeof m->words, cudaMemcpyHostToDevice), "cudaMemcpy");
}

static bool run_products(memory *m) {
    uint32_t value[4 * LANES], bound[4 * LANES];
    ESPL_LAUNCH(products, dim3(1), dim3(LANES), 0, 0, m->out, 0);
    if (!show(m, "mma of small integers", 4 * LANES))
        return false;
    ESPL_LAUNCH(products, dim3(1), dim3(LANES), 0, 0, m->out, 1);
    if (!fetch(m, "mma"))
        return false;
    memcpy(value, m->words, sizeof value);
    ESPL_LAUNCH(products, dim3(1), dim3(LANES), 0, 0, m->out, 2);
    if (!fetch(m, "mma"))
        return false;
    memcpy(bound, m->words, sizeof bound);
    printf("mma near");
    for (int i = 0; i < 8 * LANES; i++)
        printf(" %08x", (unsigned)(i < 4 * LANES ? value[i] : bound[i - 4 * LANES]));
    printf("\n");
    return true;
}

static bool run_all(memory *m) {
    ESPL_LAUNCH(shuffles, dim3(1), dim3(LANES), 0, 0, m->out);
    if (!show(m, "shuffles", 15 * LANES))
        return false;
    ESPL_LAUNCH(votes, dim3(1), dim3(LANES), 0, 0, m->out);
    if (!show(m, "votes", 10 * LANES))
        return false;
    ESPL_LAUNCH(barriers, dim3(1), dim3(THREADS), 0, 0, m->out);
    if (!show(m, "barriers", 6 * THREADS))
        return false;
    ESPL_LAUNCH(bf16_rounding, dim3(1), dim3(THREADS), 0, 0, m->in, m->out);
    if (!show(m, "bf16 rounding", 4 * HALVES))
        return false;
    ESPL_LAUNCH(async_copies, dim3(1), dim3(LANES), 4 * LANES * sizeof(uint4), 0, (const uint4 *)m->in, m->out);
    if (!show(m, "cp.async", 16 * LANES))
        return false;
    ESPL_LAUNCH(matrix_loads, dim3(1), dim3(LANES), 0, 0, m->out);
    if (!show(m, "ldmatrix", 8 * LANES))
        return false;
    ESPL_LAUNCH(random_numbers, dim3(1), dim3(THREADS), 0, 0, m->out);
    if (!show(m, "philox", 2 * HALVES))
        return false;
    ESPL_LAUNCH(arithmetic, dim3(1), dim3(THREADS), 0, 0, m->in, m->out);
    return show(m, "arithmetic", 6 * HALVES) && run_products(m);
}

int main() {
    static memory m;
    bool ok = check(cudaMalloc((void **)&m.in, sizeof m.words), "cudaMalloc") &&
              check(cudaMalloc((void **)&m.out, sizeof m.words), "cudaMalloc") &&
              check(cudaMemset(m.out, 0, sizeof m.words), "cudaMemset") && write_numbers(&m) && run_all(&m);
    return ok ? 0 : 1;
}
