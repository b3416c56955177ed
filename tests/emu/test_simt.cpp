// test: ranks=1 tier=short timeout=60
/* The emulated multiprocessor: what its operations give, that order changes nothing, and that every kind of fault is found by each build
 * that can find it (fast, ASan, race). A faulty kernel runs in a process of its own, which ends in a status and a text. */
#include "kernels/cuda/prims.cuh"
#include "tests/emu/simt/fault.h"
#include "tests/emu/simt/simt_schedule.h"

#include <algorithm>
#include <numeric>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

extern "C" {
#include <cmocka.h>
}

#if defined(__SANITIZE_ADDRESS__)
constexpr int build = 1;
#elif defined(EMU_RACE)
constexpr int build = 2;
#else
constexpr int build = 0;
#endif

constexpr int warps = 4, threads = 32 * warps;

/* Device memory that goes when the test ends. */
template <class T> struct device_array {
    explicit device_array(size_t count) : n(count) { assert_int_equal(cudaMalloc(reinterpret_cast<void **>(&data), n * sizeof(T)), 0); }
    explicit device_array(const std::vector<T> &from) : device_array(from.size()) {
        assert_int_equal(cudaMemcpy(data, from.data(), n * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
    }
    ~device_array() { cudaFree(data); }
    device_array(const device_array &) = delete;
    device_array &operator=(const device_array &) = delete;
    std::vector<T> host() const {
        std::vector<T> to(n);
        assert_int_equal(cudaMemcpy(to.data(), data, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
        return to;
    }
    T *data = nullptr;
    size_t n;
};

template <class T> static std::vector<T> counting(size_t n, T first = T(0)) {
    std::vector<T> v(n);
    std::iota(v.begin(), v.end(), first);
    return v;
}

/* ---- operations ------------------------------------------------------------------------------------------------------------------ */

__global__ void shuffle_kernel(int *out) {
    int lane = (int)threadIdx.x;
    out[lane] = __shfl_sync(ALL_LANES, lane, 5);
    out[32 + lane] = __shfl_sync(ALL_LANES, lane, 5, 8);
    out[64 + lane] = __shfl_xor_sync(ALL_LANES, lane, 3);
    out[96 + lane] = __shfl_up_sync(ALL_LANES, lane, 2);
    out[128 + lane] = __shfl_down_sync(ALL_LANES, lane, 2, 16);
    out[160 + lane] = (int)__shfl_xor_sync(ALL_LANES, (double)lane, 16);
    if (lane < 16)
        out[192 + lane] = __shfl_xor_sync(0xffffu, lane, 1);
    else
        out[192 + lane] = __shfl_xor_sync(0xffff0000u, lane, 2);
}

static void test_shuffles(void **) {
    device_array<int> out(224);
    ESPL_LAUNCH(shuffle_kernel, dim3(1), dim3(32), 0, nullptr, out.data);
    std::vector<int> got = out.host();
    for (int lane = 0; lane < 32; lane++) {
        assert_int_equal(got[lane], 5);
        assert_int_equal(got[32 + lane], lane / 8 * 8 + 5);
        assert_int_equal(got[64 + lane], lane ^ 3);
        assert_int_equal(got[96 + lane], lane < 2 ? lane : lane - 2);
        assert_int_equal(got[128 + lane], lane % 16 >= 14 ? lane : lane + 2);
        assert_int_equal(got[160 + lane], lane ^ 16);
        assert_int_equal(got[192 + lane], lane < 16 ? lane ^ 1 : lane ^ 2);
    }
}

__global__ void vote_kernel(unsigned *out) {
    unsigned lane = threadIdx.x;
    out[lane] = __ballot_sync(ALL_LANES, lane % 3 == 0);
    out[32 + lane] = (unsigned)__any_sync(ALL_LANES, lane == 7);
    out[64 + lane] = (unsigned)__all_sync(ALL_LANES, lane != 7);
    out[96 + lane] = __match_any_sync(ALL_LANES, lane % 4);
    out[128 + lane] = __reduce_add_sync(ALL_LANES, lane);
    out[160 + lane] = __reduce_max_sync(ALL_LANES, lane ^ 5);
    out[192 + lane] = (unsigned)__reduce_min_sync(ALL_LANES, (int)lane - 3);
    out[224 + lane] = __reduce_or_sync(ALL_LANES, 1u << lane % 8);
    out[256 + lane] = __reduce_and_sync(ALL_LANES, lane | 64) + __reduce_xor_sync(ALL_LANES, lane);
}

static void test_votes_and_reductions(void **) {
    device_array<unsigned> out(288);
    ESPL_LAUNCH(vote_kernel, dim3(1), dim3(32), 0, nullptr, out.data);
    std::vector<unsigned> got = out.host();
    for (unsigned lane = 0; lane < 32; lane++) {
        assert_int_equal(got[lane], 0x49249249u);
        assert_int_equal(got[32 + lane], 1);
        assert_int_equal(got[64 + lane], 0);
        assert_int_equal(got[96 + lane], 0x11111111u << lane % 4);
        assert_int_equal(got[128 + lane], 31 * 32 / 2);
        assert_int_equal(got[160 + lane], 31);
        assert_int_equal((int)got[192 + lane], -3);
        assert_int_equal(got[224 + lane], 255);
        assert_int_equal(got[256 + lane], 64);
    }
}

__global__ void barrier_kernel(int *out, int n) {
    if ((int)threadIdx.x >= n)
        return; /* barriers do not wait for who has left */
    ESPL_SHARED(int, last, [1]);
    if ((int)threadIdx.x == n - 1)
        last[0] = 41;
    __syncthreads();
    out[threadIdx.x] = last[0] + 1;
    out[threads + threadIdx.x] = __syncthreads_count((int)threadIdx.x < 10);
    out[2 * threads + threadIdx.x] = __syncthreads_or((int)threadIdx.x == 3) * 2 + __syncthreads_and((int)threadIdx.x < 50);
}

static void test_barriers(void **) {
    constexpr int n = 50;
    device_array<int> out(3 * threads);
    ESPL_LAUNCH(barrier_kernel, dim3(1), dim3(threads), 0, nullptr, out.data, n);
    std::vector<int> got = out.host();
    for (int i = 0; i < n; i++) {
        assert_int_equal(got[i], 42);
        assert_int_equal(got[threads + i], 10);
        assert_int_equal(got[2 * threads + i], 3);
    }
    assert_int_equal(got[n], -1); /* as new memory is */
}

__global__ void coordinate_kernel(unsigned *out) {
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

static void test_coordinates(void **) {
    device_array<unsigned> out(24 * 30);
    ESPL_LAUNCH(coordinate_kernel, dim3(4, 3, 2), dim3(5, 3, 2), 0, nullptr, out.data);
    std::vector<unsigned> got = out.host();
    for (unsigned i = 0; i < got.size(); i++)
        assert_int_equal(got[i], i / 30 * 1000 + i % 30);
}

__global__ void atomic_kernel(unsigned long long *sum, int *most, unsigned *bits, unsigned *first) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(sum, (unsigned long long)i);
    atomicMax(most, (int)i);
    atomicOr(bits, 1u << i % 32);
    atomicCAS(first, 0, i + 1);
}

static void test_atomics(void **) {
    device_array<unsigned long long> sum(std::vector<unsigned long long>(1));
    device_array<int> most(std::vector<int>(1));
    device_array<unsigned> bits(std::vector<unsigned>(1)), first(std::vector<unsigned>(1));
    ESPL_LAUNCH(atomic_kernel, dim3(3), dim3(threads), 0, nullptr, sum.data, most.data, bits.data, first.data);
    assert_int_equal(sum.host()[0], 3 * threads * (3 * threads - 1) / 2);
    assert_int_equal(most.host()[0], 3 * threads - 1);
    assert_int_equal(bits.host()[0], ~0u);
    assert_int_not_equal(first.host()[0], 0);
}

template <class T> __global__ void reduction_kernel(const T *x, T *sums, T *most) {
    ESPL_SHARED(T, partial, [warps]);
    T value = x[blockIdx.x * blockDim.x + threadIdx.x];
    T sum = block_sum(value, partial), top = block_max(value, partial);
    if (threadIdx.x == 77)
        sums[blockIdx.x] = sum, most[blockIdx.x] = top;
}

static void test_block_reductions(void **) {
    device_array<float> x(counting<float>(3 * threads)), sums(3), most(3);
    ESPL_LAUNCH(reduction_kernel<float>, dim3(3), dim3(threads), 0, nullptr, x.data, sums.data, most.data);
    for (int block = 0; block < 3; block++) {
        assert_true(sums.host()[block] == (float)(threads * (threads * (2 * block + 1) - 1) / 2));
        assert_true(most.host()[block] == (float)(threads * (block + 1) - 1));
    }
}

/* ---- matrix instructions and copies, against their definition ------------------------------------------------------------------------ */

constexpr int M = 16, N = 8, K = 16;

static float small_number(int i) { return (float)(i * 37 % 31 - 15) / 8; } /* a bf16, and so that sums are exact */

/* d = a b + c of one warp: a (row-major) and b (k by n, row-major) come through shared memory, as in the kernels of the backend. */
__global__ void matrix_kernel(const __nv_bfloat16 *a, const __nv_bfloat16 *b, const float *c, float *d) {
    ESPL_SHARED_DYN(__nv_bfloat16, tile);
    __nv_bfloat16 *tile_b = tile + M * K;
    int lane = (int)threadIdx.x;
    cp_async16(tile + lane * 8, a + lane * 8, true);
    cp_async16(tile_b + lane * 8, b + lane % 16 * 8, lane < 16); /* beyond: zeros */
    cp_async_commit();
    cp_async_wait<0>();
    __syncthreads();
    uint32_t fa[4], fb[4];
    ldmatrix_x4(fa, tile + lane % 16 * K + lane / 16 * 8);
    ldmatrix_x4_trans(fb, tile_b + lane % 32 * N);
    int row = lane / 4, column = lane % 4 * 2;
    float f[4] = {c[row * N + column], c[row * N + column + 1], c[(row + 8) * N + column], c[(row + 8) * N + column + 1]};
    mma_m16n8k16(f, fa, fb[0], fb[1]);
    for (int i = 0; i < 4; i++)
        d[(row + i / 2 * 8) * N + column + i % 2] = f[i];
    mma_m16n8k16(f, fa, fb[2], fb[3]); /* the zeros */
    d[M * N + lane] = f[0];
}

static void test_matrix_product(void **) {
    std::vector<__nv_bfloat16> a(M * K), b(K * N);
    std::vector<float> c(M * N);
    for (int i = 0; i < M * K; i++)
        a[i] = __float2bfloat16_rn(small_number(i));
    for (int i = 0; i < K * N; i++)
        b[i] = __float2bfloat16_rn(small_number(i * 7 + 3));
    for (int i = 0; i < M * N; i++)
        c[i] = small_number(i * 5 + 1);
    device_array<__nv_bfloat16> device_a(a), device_b(b);
    device_array<float> device_c(c), d(M * N + 32);
    ESPL_LAUNCH(matrix_kernel, dim3(1), dim3(32), (M * K + 32 * 8) * 2, nullptr, device_a.data, device_b.data, device_c.data, d.data);
    std::vector<float> got = d.host();
    for (int row = 0; row < M; row++)
        for (int column = 0; column < N; column++) {
            float sum = c[row * N + column];
            for (int k = 0; k < K; k++)
                sum += __bfloat162float(a[row * K + k]) * __bfloat162float(b[k * N + column]);
            assert_true(got[row * N + column] == sum);
        }
    for (int lane = 0; lane < 32; lane++)
        assert_true(got[M * N + lane] == got[lane / 4 * N + lane % 4 * 2]);
}

__global__ void swizzle_kernel(int swizzled) {
    ESPL_SHARED(uint4, tile, [64]);
    unsigned lane = threadIdx.x;
    tile[lane] = tile[lane + 32] = make_uint4(0, 0, 0, 0);
    __syncthreads();
    unsigned row = lane % 8, chunk = swizzled ? (lane / 8) ^ row : lane / 8;
    uint32_t r[4];
    ldmatrix_x4(r, tile + row * 8 + chunk);
}

static uint64_t conflicts_of(int swizzled) {
    uint64_t before = simt::counted.bank_conflicts;
    ESPL_LAUNCH(swizzle_kernel, dim3(1), dim3(32), 0, nullptr, swizzled);
    return simt::counted.bank_conflicts - before;
}

static void test_bank_conflicts(void **) {
    assert_int_equal(conflicts_of(1), 0);
    assert_int_equal(conflicts_of(0), 4 * 7);
}

__global__ void real_kernel(const float *from, float *round_trip, uint32_t *packed) {
    ESPL_SHARED(__nv_bfloat16, half, [8]);
    float value[8], again[8];
    reals<float>::load(from, *reinterpret_cast<float(*)[4]>(value));
    reals<float>::load(from + 4, *reinterpret_cast<float(*)[4]>(value + 4));
    reals<__nv_bfloat16>::store(half, value);
    reals<__nv_bfloat16>::load(half, again);
    for (int i = 0; i < 8; i += 2)
        packed[i / 2] = bf16_pack(value[i], value[i + 1]);
    for (int i = 0; i < 8; i++)
        round_trip[i] = again[i];
}

static void test_bf16(void **) {
    float nan = __builtin_nanf("");
    /* Exact; a tie to even, down and up; above a tie; infinity; NaN; zero of either sign. */
    std::vector<float> from = {1.5f, 1.00390625f, 1.01171875f, 1.00390637f, INFINITY, nan, -0.0f, 3.4e38f};
    std::vector<uint16_t> bits = {0x3fc0, 0x3f80, 0x3f82, 0x3f81, 0x7f80, 0x7fff, 0x8000, 0x7f80};
    device_array<float> device_from(from), round_trip(8);
    device_array<uint32_t> packed(4);
    ESPL_LAUNCH(real_kernel, dim3(1), dim3(1), 0, nullptr, device_from.data, round_trip.data, packed.data);
    std::vector<float> got = round_trip.host();
    for (int i = 0; i < 8; i++) {
        assert_int_equal(__float_as_uint(got[i]), (unsigned)bits[i] << 16);
        assert_int_equal(packed.host()[i / 2] >> i % 2 * 16 & 0xffffu, bits[i]);
    }
}

static void test_integer_functions(void **) {
    assert_int_equal(__umulhi(0xD2511F53u, 0x9E3779B9u), 0x81fba4c3u);
    assert_int_equal(__mulhi(-5, 7), -1);
    assert_true(__umul64hi(~0ull, 2) == 1);
    assert_int_equal(__clz(1), 31);
    assert_int_equal(__clz(0), 32);
    assert_int_equal(__ffs(8), 4);
    assert_int_equal(__brev(1), 0x80000000u);
    assert_int_equal(__funnelshift_l(0x80000000u, 1, 1), 3);
    assert_true(max(__builtin_nanf(""), 1.0f) == 1.0f && max(1.0f, __builtin_nanf("")) == 1.0f);
}

/* ---- launches ------------------------------------------------------------------------------------------------------------------------ */

__global__ void big_shared_kernel(int *out) {
    ESPL_SHARED_DYN(int, tile);
    tile[threadIdx.x] = 1;
    out[threadIdx.x] = tile[threadIdx.x];
}

static void test_launch_limits(void **) {
    device_array<int> out(threads);
    ESPL_LAUNCH(big_shared_kernel, dim3(1), dim3(1025), 4, nullptr, out.data);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    ESPL_LAUNCH(big_shared_kernel, dim3(0), dim3(32), 4, nullptr, out.data);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    ESPL_LAUNCH(big_shared_kernel, dim3(1), dim3(32), 64 * 1024, nullptr, out.data);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaSuccess); /* told once */
    assert_int_equal(ESPL_ALLOW_SHARED(big_shared_kernel, 256 * 1024), cudaErrorInvalidValue);
    cudaGetLastError();
    assert_int_equal(ESPL_ALLOW_SHARED(big_shared_kernel, 64 * 1024), cudaSuccess);
    ESPL_LAUNCH(big_shared_kernel, dim3(1), dim3(32), 64 * 1024, nullptr, out.data);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(out.host()[31], 1);
}

__global__ void structure_kernel(int *out, int4 values) { out[threadIdx.x] = (&values.x)[threadIdx.x]; }

static void test_arguments_are_copied(void **) {
    device_array<int> out(4);
    int4 values = make_int4(1, 2, 3, 4);
    ESPL_LAUNCH(structure_kernel, dim3(1), dim3(4), 0, nullptr, out.data, values);
    values.x = 9;
    assert_int_equal(out.host()[0], 1);
    assert_int_equal(out.host()[3], 4);
}

static void test_schedules_are_read(void **) {
    assert_true(simt::set_schedule("random:17", "early"));
    assert_true(simt::schedule().order == simt::order::random && simt::schedule().copies_early);
    assert_true(simt::set_schedule("reverse", "late"));
    assert_false(simt::set_schedule("backwards", "late"));
    assert_false(simt::set_schedule("random:", "late"));
    assert_false(simt::set_schedule("random:7x", "late"));
    assert_false(simt::set_schedule("forward", "never"));
    assert_true(simt::schedule().order == simt::order::reverse);
    assert_true(simt::set_schedule("forward", "late"));
}

/* Who comes first differs between schedules: `ticket` shows that they are what they say. */
__global__ void order_kernel(unsigned *ticket, unsigned *taken) {
    __syncthreads();
    taken[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(ticket, 1u);
}

static std::vector<unsigned> order_under(const char *order) {
    device_array<unsigned> ticket(std::vector<unsigned>(1)), taken(2 * threads);
    assert_true(simt::set_schedule(order, "late"));
    ESPL_LAUNCH(order_kernel, dim3(2), dim3(threads), 0, nullptr, ticket.data, taken.data);
    assert_true(simt::set_schedule("forward", "late"));
    return taken.host();
}

static void test_schedules_differ(void **) {
    std::vector<unsigned> reverse = order_under("reverse"), one = order_under("random:1"), two = order_under("random:2");
    assert_true(reverse.front() > reverse.back());
    assert_true(one != two);
    assert_true(one == order_under("random:1"));
    std::sort(one.begin(), one.end());
    assert_true(one == counting<unsigned>(2 * threads));
}

/* ---- faults -------------------------------------------------------------------------------------------------------------------------- */

/* A variant of one kernel each: fault < 0 is the correct one. */
__global__ void shared_fault_kernel(int fault, float *out) {
    ESPL_SHARED(float, left, [threads]);
    ESPL_SHARED(float, right, [threads]);
    int i = (int)threadIdx.x;
    left[i] = (float)i;
    if (fault != 0)
        right[i] = 1;
    if (fault == 1)
        left[i + 1] = 2; /* the last one beyond the end */
    if (fault != 2)
        __syncthreads();
    float sum = left[(i + 40) % threads] + right[i];
    if (fault == 3)
        left[i] = 3; /* while others may still read */
    out[blockIdx.x * threads + threadIdx.x] = sum;
}

__global__ void warp_fault_kernel(int fault, int *out) {
    ESPL_SHARED(int, staged, [threads]);
    int lane = (int)threadIdx.x % 32, value = lane;
    if (fault == 0 && lane < 16)
        value = __shfl_sync(0xffffu, value, 20); /* of a lane outside the mask */
    if (fault == 1)
        value = lane < 16 ? __shfl_xor_sync(ALL_LANES, value, 1) : value; /* half a warp */
    if (fault == 2)
        value = lane < 16 ? __shfl_xor_sync(0xffff0000u, value, 1) : value; /* not in the own mask */
    if (fault == 3)
        value = __any_sync(lane < 16 ? ALL_LANES : ALL_LANES ^ 2u, lane); /* masks that differ */
    if (fault == 4 && lane == 3)
        return;
    value = __shfl_xor_sync(ALL_LANES, value, 1); /* fault 4: without lane 3 */
    staged[threadIdx.x] = value;
    if (fault != 5)
        __syncwarp();
    out[threadIdx.x] = staged[threadIdx.x ^ 1];
}

__global__ void barrier_fault_kernel(int fault, int *out) {
    if (fault == 0) {
        if (threadIdx.x < 64)
            __syncthreads();
        else
            __syncthreads();
    }
    if (fault == 1) {
        if (threadIdx.x % 32 < 31)
            __syncwarp();
        else
            __syncthreads();
    }
    out[threadIdx.x] = 1;
}

__global__ void copy_fault_kernel(int fault, const __nv_bfloat16 *from, uint32_t *out) {
    ESPL_SHARED(__nv_bfloat16, tile, [2 * 32 * 8]);
    ESPL_SHARED(__nv_bfloat16, more, [8]);
    int lane = (int)threadIdx.x;
    int off = fault == 0 ? 1 : 0;
    cp_async16(tile + lane * 8 + off, from + lane * 8, true);
    cp_async_commit();
    if (fault == 1) /* to where is no shared memory */
        cp_async16(out, from, true);
    cp_async16(tile + (32 + lane) * 8, from + lane * 8, true);
    cp_async_commit();
    if (fault == 2)
        cp_async_wait<1>(); /* the second group is not there yet */
    else if (fault != 3)
        cp_async_wait<0>();
    if (fault != 4)
        __syncwarp();
    uint32_t r[4];
    ldmatrix_x4(r, fault == 5   ? (const void *)(tile + lane * 8 + 4)
                   : fault == 6 ? (const void *)from
                                : (const void *)(tile + (32 + (lane ^ 1)) * 8));
    out[lane] = r[0];
    if (fault == 2)
        cp_async_wait<0>();
    if (fault == 7)
        cp_async16(more, from, true); /* and leaves */
}

__global__ void global_fault_kernel(int fault, float *x, const float *host, int n) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (fault == 0)
        x[i + 1] = 1; /* the last beyond the end */
    if (fault == 1)
        x[i / 2] = (float)i; /* two write one */
    if (fault == 2)
        x[i] = x[(i + threads) % n]; /* of another block */
    if (fault == 3)
        x[i] = *reinterpret_cast<const double *>(reinterpret_cast<const char *>(x) + 4) != 0; /* no multiple of 8 */
    if (fault == 4)
        x[i] = host[i];
    if (fault == 5)
        x[i] = x[i] + 1; /* never written */
    if (fault == 6)
        x[i] = reinterpret_cast<const float4 *>(x + 1)->x; /* no multiple of 16 */
    if (fault < 0)
        x[i] = 1;
}

__global__ void no_dynamic_kernel(int *out) {
    ESPL_SHARED_DYN(int, tile);
    tile[threadIdx.x] = 1;
    out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void static_shared_kernel(char *out) {
    ESPL_SHARED(char, tile, [49 * 1024]);
    tile[0] = 1;
    out[0] = tile[0];
}

static void shared_fault(int fault) {
    device_array<float> out(2 * threads);
    ESPL_LAUNCH(shared_fault_kernel, dim3(2), dim3(threads), 0, nullptr, fault, out.data);
    cudaDeviceSynchronize();
}

static void warp_fault(int fault) {
    device_array<int> out(threads);
    ESPL_LAUNCH(warp_fault_kernel, dim3(1), dim3(threads), 0, nullptr, fault, out.data);
    cudaDeviceSynchronize();
}

static void barrier_fault(int fault) {
    device_array<int> out(threads);
    ESPL_LAUNCH(barrier_fault_kernel, dim3(1), dim3(threads), 0, nullptr, fault, out.data);
    cudaDeviceSynchronize();
}

/* Wrong numbers are a fault here as in the tests of kernels. */
static void copy_fault(int fault) {
    std::vector<__nv_bfloat16> from(32 * 8, __float2bfloat16_rn(1));
    device_array<__nv_bfloat16> device_from(from);
    device_array<uint32_t> out(32);
    ESPL_LAUNCH(copy_fault_kernel, dim3(1), dim3(32), 0, nullptr, fault, device_from.data, out.data);
    if (cudaDeviceSynchronize() == cudaSuccess && out.host()[9] != 0x3f803f80u)
        emu_fault(cudaErrorLaunchFailure, "wrong numbers");
}

static void global_fault(int fault) {
    constexpr int blocks = 2, n = blocks * threads;
    std::vector<float> host(n);
    device_array<float> x(n);
    if (fault != 5)
        cudaMemset(x.data, 0, n * sizeof(float));
    ESPL_LAUNCH(global_fault_kernel, dim3(blocks), dim3(threads), 0, nullptr, fault, x.data, host.data(), n);
    cudaDeviceSynchronize();
}

static void no_dynamic_fault(int fault) {
    device_array<int> out(threads);
    ESPL_LAUNCH(no_dynamic_kernel, dim3(1), dim3(threads), fault == 0 ? 0 : threads * sizeof(int) - (fault == 1 ? 4 : 0), nullptr,
                out.data);
    cudaDeviceSynchronize();
}

static void static_shared_fault(int) {
    device_array<char> out(1);
    ESPL_LAUNCH(static_shared_kernel, dim3(1), dim3(1), 0, nullptr, out.data);
    cudaDeviceSynchronize();
}

/* text[build]: what is printed, NULL where the build cannot see it. */
struct seeded {
    void (*run)(int fault);
    int fault;
    const char *text[3];
};

#define EVERY(text)                                                                                                                        \
    { text, text, text }

static const seeded faults[] = {
    {shared_fault, 0, {nullptr, nullptr, "uninitialised: read of byte"}},
    {shared_fault, 1, {"behind the end of left", "out of bounds for type", "race: write"}},
    {shared_fault, 2, {nullptr, nullptr, "uninitialised: read of byte"}},
    {shared_fault, 3, {nullptr, nullptr, "race: write of byte"}},
    {warp_fault, 0, EVERY("not in the mask 0000ffff")},
    {warp_fault, 1, EVERY("lanes of a warp part")},
    {warp_fault, 2, EVERY("is not in its own mask")},
    {warp_fault, 3, EVERY("deadlock: no thread can go on")},
    {warp_fault, 4, EVERY("have left the kernel: 00000008")},
    {warp_fault, 5, {nullptr, nullptr, "uninitialised"}},
    {barrier_fault, 0, EVERY("divergent barrier")},
    {barrier_fault, 1, EVERY("deadlock: no thread can go on")},
    {copy_fault, 0, EVERY("not both multiples of 16")},
    {copy_fault, 1, EVERY("destination is not in shared memory")},
    {copy_fault, 2, {"wrong numbers", "wrong numbers", "uninitialised"}},
    {copy_fault, 3, {"asynchronous copies under way", "asynchronous copies under way", "uninitialised"}},
    {copy_fault, 4, {nullptr, nullptr, "race: "}},
    {copy_fault, 5, EVERY("no multiple of 16")},
    {copy_fault, 6, EVERY("not in shared memory")},
    {copy_fault, 7, EVERY("asynchronous copies under way")},
    {global_fault, 0, {nullptr, "AddressSanitizer", "out of bounds: write of 4 bytes"}},
    {global_fault, 1, {nullptr, nullptr, "race: write of byte"}},
    {global_fault, 2, {nullptr, nullptr, "race: "}},
    {global_fault, 3, {nullptr, "misaligned address", "misaligned: read of 8 bytes"}},
    {global_fault, 4, {nullptr, nullptr, "out of bounds: read of 4 bytes"}},
    {global_fault, 5, {nullptr, nullptr, "uninitialised: read of byte"}},
    {global_fault, 6, {nullptr, "misaligned address", nullptr}},
    {no_dynamic_fault, 0, EVERY("but the launch has none")},
    {no_dynamic_fault, 1, {"behind the end of dynamic shared memory", "AddressSanitizer", "out of bounds: write of 4 bytes"}},
    {static_shared_fault, 0, EVERY("bytes of static shared memory")},
};

static const seeded no_faults[] = {
    {shared_fault, -1, {}}, {warp_fault, -1, {}},   {barrier_fault, -1, {}},
    {copy_fault, -1, {}},   {global_fault, -1, {}}, {no_dynamic_fault, -1, {}},
};

struct outcome {
    bool failed;
    std::string text;
};

/* Runs it in a process of its own. */
static outcome outcome_of(const seeded &one) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    fflush(nullptr);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        one.run(one.fault);
        _exit(emu_sticky_error() == cudaSuccess && cudaGetLastError() == cudaSuccess ? 0 : 1);
    }
    close(ends[1]);
    outcome seen = {};
    char part[4096];
    for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;)
        seen.text.append(part, (size_t)n);
    close(ends[0]);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    seen.failed = status != 0;
    return seen;
}

static void test_faults_are_found(void **) {
    for (const char *order : {"forward", "reverse", "random:3"})
        for (const seeded &one : faults) {
            if (!one.text[build])
                continue;
            assert_true(simt::set_schedule(order, "late"));
            outcome seen = outcome_of(one);
            if (!seen.failed || seen.text.find(one.text[build]) == std::string::npos)
                fail_msg("fault %d of test_simt.cpp (%s): expected '%s', failed: %d, printed: %s", (int)(&one - faults), order,
                         one.text[build], seen.failed, seen.text.c_str());
        }
    assert_true(simt::set_schedule("forward", "late"));
}

static void test_correct_kernels_have_none(void **) {
    for (const char *order : {"forward", "reverse", "random:3"})
        for (const char *copies : {"late", "early"})
            for (const seeded &one : no_faults) {
                assert_true(simt::set_schedule(order, copies));
                outcome seen = outcome_of(one);
                if (seen.failed || !seen.text.empty())
                    fail_msg("%s, %s: %s", order, copies, seen.text.c_str());
            }
    assert_true(simt::set_schedule("forward", "late"));
}

/* The place in the source is part of what is told. */
static void test_faults_name_their_place(void **) {
    outcome seen = outcome_of(faults[11]);
    assert_true(seen.text.find("wait for __syncwarp at ") != std::string::npos && seen.text.find("test_simt.cpp:") != std::string::npos);
    if (build == 2) {
        seen = outcome_of(faults[3]);
        assert_true(seen.text.find("test_simt.cpp:") != std::string::npos && seen.text.find("shared_fault_kernel") != std::string::npos);
    }
}

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffles),
        cmocka_unit_test(test_votes_and_reductions),
        cmocka_unit_test(test_barriers),
        cmocka_unit_test(test_coordinates),
        cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_block_reductions),
        cmocka_unit_test(test_matrix_product),
        cmocka_unit_test(test_bank_conflicts),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_integer_functions),
        cmocka_unit_test(test_launch_limits),
        cmocka_unit_test(test_arguments_are_copied),
        cmocka_unit_test(test_schedules_are_read),
        cmocka_unit_test(test_schedules_differ),
        cmocka_unit_test(test_faults_are_found),
        cmocka_unit_test(test_correct_kernels_have_none),
        cmocka_unit_test(test_faults_name_their_place),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
