// test: ranks=1+2+4 tier=short timeout=120
/* The emulated NCCL: every operation, between ranks that run their streams on different schedules; what non-blocking communicators promise;
 * a host that waits elsewhere; faults and how they end. */
#include "src/core/clock.h"
#include "tests/emu/emu_test.h"

#include "tests/emu/runtime/stream.h"
#include "tests/emu/simt/fault.h"

#include <mpi.h>
#include <nccl.h>

namespace {

int rank, size = 1; /* alone there is no MPI */

void barrier() {
    if (size > 1)
        MPI_Barrier(MPI_COMM_WORLD);
}

/* The other ranks would wait. */
void give_up() {
    if (size > 1)
        MPI_Abort(MPI_COMM_WORLD, EXIT_FAILURE);
    exit(EXIT_FAILURE);
}

void check_nccl(ncclResult_t got, ncclResult_t expected, const char *file, int line) {
    if (got != expected) {
        print_error("%s:%d: rank %d got %s, expected %s (%s)\n", file, line, rank, ncclGetErrorString(got), ncclGetErrorString(expected),
                    ncclGetLastError(nullptr));
        give_up();
    }
}
#define NCCL_IS(result, call) check_nccl((call), (result), __FILE__, __LINE__)
#define NCCL_OK(call) NCCL_IS(ncclSuccess, call)

ncclUniqueId new_identity() {
    ncclUniqueId id;
    if (rank == 0)
        NCCL_OK(ncclGetUniqueId(&id));
    if (size > 1)
        MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    return id;
}

/* Asks until what was begun is over; what it came to. */
ncclResult_t settle(ncclComm_t comm, double patience = 20.0) {
    ncclResult_t state = ncclInProgress;
    for (double until = espl_now() + patience; state == ncclInProgress && espl_now() < until; usleep(100))
        NCCL_OK(ncclCommGetAsyncError(comm, &state));
    return state;
}

ncclComm_t begin_joining(bool blocking) {
    ncclComm_t comm;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    ncclUniqueId id = new_identity();
    NCCL_IS(blocking ? ncclSuccess : ncclInProgress, ncclCommInitRankConfig(&comm, size, id, rank, &config));
    return comm;
}

/* A communicator and a stream; leaves in peace. */
struct member {
    bool blocking;
    ncclComm_t comm;
    cudaStream_t stream;
    explicit member(bool blocks = true) : blocking(blocks), comm(begin_joining(blocks)) {
        NCCL_OK(settle(comm));
        OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    }
    ~member() {
        OK(cudaStreamSynchronize(stream));
        NCCL_IS(blocking ? ncclSuccess : ncclInProgress, ncclCommFinalize(comm));
        NCCL_OK(settle(comm));
        NCCL_OK(ncclCommDestroy(comm));
        OK(cudaStreamDestroy(stream));
        barrier();
    }
    /* An operation has been started. */
    void started(ncclResult_t result) const {
        NCCL_IS(blocking ? ncclSuccess : ncclInProgress, result);
        NCCL_OK(settle(comm));
    }
};

/* Rank r takes another schedule than its neighbours. */
const char *schedule_of(int i) { return schedules[(i + rank) % 4]; }

template <class T> T value(int of_rank, size_t i) { return (T)((of_rank + 1) * (int)(i % 13) % 50); }

template <class T> std::vector<T> values(int of_rank, size_t n, size_t from = 0) {
    std::vector<T> v(n);
    for (size_t i = 0; i < n; i++)
        v[i] = value<T>(of_rank, from + i);
    return v;
}

template <class T> void check_values(const T *device, const std::vector<T> &expected, const char *what) {
    auto got = host_copy(device, expected.size());
    for (size_t i = 0; i < got.size(); i++)
        if (got[i] != expected[i]) {
            print_error("rank %d of %d: %s: element %zu is %g, expected %g\n", rank, size, what, i, (double)got[i], (double)expected[i]);
            give_up();
        }
}

template <class T> std::vector<T> sum_of_ranks(size_t n, size_t from = 0) {
    std::vector<T> sum(n);
    for (int r = 0; r < size; r++)
        for (size_t i = 0; i < n; i++)
            sum[i] = (T)(sum[i] + value<T>(r, from + i));
    return sum;
}

/* ---- Operations, each out of place and in place. */

template <class T> void reduce_scatter(const member &m, ncclDataType_t type, size_t n) {
    T *from = device_memory(values<T>(rank, n * (size_t)size)), *to = device_memory(std::vector<T>(n));
    m.started(ncclReduceScatter(from, to, n, type, ncclSum, m.comm, m.stream));
    m.started(ncclReduceScatter(from, from + n * (size_t)rank, n, type, ncclSum, m.comm, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    auto sum = sum_of_ranks<T>(n, n * (size_t)rank);
    check_values(to, sum, "reduce-scatter");
    check_values(from + n * (size_t)rank, sum, "reduce-scatter in place");
    OK(cudaFree(from));
    OK(cudaFree(to));
}

template <class T> void all_gather(const member &m, ncclDataType_t type, size_t n) {
    std::vector<T> all;
    for (int r = 0; r < size; r++)
        for (T x : values<T>(r, n))
            all.push_back(x);
    T *from = device_memory(values<T>(rank, n)), *to = device_memory(std::vector<T>(all.size())),
      *in_place = device_memory(std::vector<T>(all.size()));
    m.started(ncclAllGather(from, to, n, type, m.comm, m.stream));
    OK(cudaMemcpyAsync(in_place + n * (size_t)rank, from, n * sizeof(T), cudaMemcpyDeviceToDevice, m.stream));
    m.started(ncclAllGather(in_place + n * (size_t)rank, in_place, n, type, m.comm, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    check_values(to, all, "all-gather");
    check_values(in_place, all, "all-gather in place");
    for (T *p : {from, to, in_place})
        OK(cudaFree(p));
}

template <class T> void all_reduce(const member &m, ncclDataType_t type, size_t n) {
    T *from = device_memory(values<T>(rank, n)), *to = device_memory(std::vector<T>(n));
    m.started(ncclAllReduce(from, to, n, type, ncclSum, m.comm, m.stream));
    m.started(ncclAllReduce(from, from, n, type, ncclMax, m.comm, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    check_values(to, sum_of_ranks<T>(n), "all-reduce");
    std::vector<T> most = values<T>(0, n);
    for (int r = 1; r < size; r++)
        for (size_t i = 0; i < n; i++)
            most[i] = std::max(most[i], value<T>(r, i));
    check_values(from, most, "all-reduce of the largest");
    OK(cudaFree(from));
    OK(cudaFree(to));
}

template <class T> void broadcast(const member &m, ncclDataType_t type, size_t n) {
    int root = size - 1;
    T *from = device_memory(values<T>(rank, n)), *to = device_memory(std::vector<T>(n));
    m.started(ncclBroadcast(from, to, n, type, root, m.comm, m.stream));
    m.started(ncclBroadcast(from, from, n, type, 0, m.comm, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    check_values(to, values<T>(root, n), "broadcast");
    check_values(from, values<T>(0, n), "broadcast in place");
    OK(cudaFree(from));
    OK(cudaFree(to));
}

/* A part to every rank, itself too, all in one group. */
template <class T> void all_to_all(const member &m, ncclDataType_t type, size_t n) {
    T *from = device_memory(values<T>(rank, n * (size_t)size)), *to = device_memory(std::vector<T>(n * (size_t)size));
    NCCL_OK(ncclGroupStart());
    for (int i = 0; i < size; i++) {
        int peer = (rank + i) % size;
        NCCL_OK(ncclSend(from + n * (size_t)peer, n, type, peer, m.comm, m.stream));
        NCCL_OK(ncclRecv(to + n * (size_t)peer, n, type, peer, m.comm, m.stream));
    }
    m.started(ncclGroupEnd());
    OK(cudaStreamSynchronize(m.stream));
    for (int r = 0; r < size; r++)
        check_values(to + n * (size_t)r, values<T>(r, n, n * (size_t)rank), "all to all");
    OK(cudaFree(from));
    OK(cudaFree(to));
}

template <class T> void every_operation(const member &m, ncclDataType_t type, size_t n) {
    reduce_scatter<T>(m, type, n);
    all_gather<T>(m, type, n);
    all_reduce<T>(m, type, n);
    broadcast<T>(m, type, n);
    all_to_all<T>(m, type, n);
}

void test_operations(void **) {
    for (int i = 0; i < 4; i++) {
        with_setting schedule("EMU_STREAMS", schedule_of(i));
        member m(i % 2 == 0);
        for (size_t n : {1, 1000, 40000}) { /* the last is more than fits into the shared memory at once */
            every_operation<float>(m, ncclFloat32, n);
            every_operation<int64_t>(m, ncclInt64, n);
        }
        every_operation<uint8_t>(m, ncclUint8, 100);
        every_operation<int8_t>(m, ncclInt8, 100);
    }
}

/* Rounded at every step, in the order of ranks: 256 + 1 is 256 in bf16, so what is small is lost when it comes late. */
void test_bf16_sums(void **) {
    member m;
    const uint16_t large = 0x4380, one = 0x3f80; /* 256, 1 */
    uint16_t *x = device_memory<uint16_t>({rank == 0 ? large : one, rank == size - 1 ? large : one});
    m.started(ncclAllReduce(x, x, 2, ncclBfloat16, ncclSum, m.comm, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    auto got = host_copy(x, 2);
    assert_int_equal(got[0], large);
    assert_int_equal(got[1], size <= 2 ? large : 0x4382); /* 256 + 3, ties to even: 260 */
    OK(cudaFree(x));
}

void test_average(void **) {
    member m;
    float *x = device_memory<float>({(float)rank});
    m.started(ncclAllReduce(x, x, 1, ncclFloat32, ncclAvg, m.comm, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    assert_true(host_copy(x, 1)[0] == (float)(size - 1) / 2.0f);
    OK(cudaFree(x));
}

/* ---- Streams. */

/* An operation is behind what is on its stream, and what follows is behind it, whoever is early or late. */
void test_operations_stand_in_streams(void **) {
    for (int i = 0; i < 4; i++) {
        with_setting schedule("EMU_STREAMS", schedule_of(i));
        member m;
        cudaStream_t other;
        cudaEvent_t done;
        OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        OK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
        int64_t *x = device_memory<int64_t>({0, 0});
        for (int step = 0; step < 5; step++) {
            emu_enqueue(m.stream, "add", [=] { x[0] += 1; });
            m.started(ncclAllReduce(x, x, 1, ncclInt64, ncclSum, m.comm, m.stream));
            OK(cudaEventRecord(done, m.stream));
            OK(cudaStreamWaitEvent(other, done, 0));
            emu_enqueue(other, "copy", [=] { x[1] = x[0]; });
            OK(cudaEventRecord(done, other));
            OK(cudaStreamWaitEvent(m.stream, done, 0));
        }
        OK(cudaStreamSynchronize(other));
        int64_t expected = 0;
        for (int step = 0; step < 5; step++)
            expected = (expected + 1) * size;
        assert_int_equal(host_copy(x, 2)[1], expected);
        OK(cudaFree(x));
        OK(cudaEventDestroy(done));
        OK(cudaStreamDestroy(other));
    }
}

/* Rank 0 is as late as can be and waits in MPI for the others, who wait for its part of the sum. */
void test_hosts_that_wait_elsewhere(void **) {
    with_setting schedule("EMU_STREAMS", rank == 0 ? "late" : "early");
    member m;
    int64_t *x = device_memory<int64_t>({1});
    for (int step = 0; step < 3; step++) {
        m.started(ncclAllReduce(x, x, 1, ncclInt64, ncclSum, m.comm, m.stream));
        if (rank != 0)
            OK(cudaStreamSynchronize(m.stream));
        barrier();
    }
    assert_int_equal(host_copy(x, 1)[0], size * size * size);
    OK(cudaFree(x));
}

/* Without asking after it, an operation is not yet on the stream: an event recorded now does not wait for it. */
void test_non_blocking_launches(void **) {
    with_setting schedule("EMU_STREAMS", "late");
    member m(false);
    cudaEvent_t early, right;
    OK(cudaEventCreate(&early));
    OK(cudaEventCreate(&right));
    int64_t *x = device_memory<int64_t>({1});
    NCCL_IS(ncclInProgress, ncclAllReduce(x, x, 1, ncclInt64, ncclSum, m.comm, m.stream));
    NCCL_IS(ncclInvalidArgument, ncclAllReduce(x, x, 1, ncclInt64, ncclSum, m.comm, m.stream));
    OK(cudaEventRecord(early, m.stream));
    NCCL_OK(settle(m.comm));
    OK(cudaEventRecord(right, m.stream));
    OK(cudaEventSynchronize(early));
    assert_int_equal(host_copy(x, 1)[0], 1);
    barrier();
    OK(cudaEventSynchronize(right));
    assert_int_equal(host_copy(x, 1)[0], size);
    for (cudaEvent_t e : {early, right})
        OK(cudaEventDestroy(e));
    OK(cudaFree(x));
}

/* Operations of a communicator go in the order of their calls, on whatever streams, and whichever is waited for. */
void test_one_communicator_on_two_streams(void **) {
    for (int i = 0; i < 8; i++) {
        with_setting schedule("EMU_STREAMS", i == 0 ? "late" : schedules[(i + rank) % 8]);
        member m;
        cudaStream_t other;
        OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
        int64_t *x = device_memory<int64_t>({1, rank});
        m.started(ncclAllReduce(x, x, 1, ncclInt64, ncclSum, m.comm, m.stream));
        m.started(ncclBroadcast(x + 1, x + 1, 1, ncclInt64, size - 1, m.comm, other));
        OK(cudaStreamSynchronize(other));
        assert_int_equal(host_copy(x, 2)[1], size - 1);
        OK(cudaStreamSynchronize(m.stream));
        assert_int_equal(host_copy(x, 1)[0], size);
        OK(cudaFree(x));
        OK(cudaStreamDestroy(other));
    }
}

/* Two communicators and two streams at once, used in opposite order by even and odd ranks. */
void test_two_communicators(void **) {
    for (int i = 0; i < 4; i++) {
        with_setting schedule("EMU_STREAMS", schedule_of(i));
        member a, b;
        int64_t *x = device_memory<int64_t>({1, 10});
        for (int k = 0; k < 2; k++) {
            const member &m = k == rank % 2 ? a : b;
            int64_t *at = k == rank % 2 ? x : x + 1;
            m.started(ncclAllReduce(at, at, 1, ncclInt64, ncclSum, m.comm, m.stream));
        }
        OK(cudaDeviceSynchronize());
        auto got = host_copy(x, 2);
        assert_int_equal(got[0], size);
        assert_int_equal(got[1], 10 * size);
        OK(cudaFree(x));
    }
}

void test_wrong_use(void **) {
    member m;
    int32_t host[2] = {}, *x = device_memory<int32_t>({1, 2});
    void *handle;
    cudaGraph_t graph;
    NCCL_IS(ncclInvalidArgument, ncclBroadcast(x, x, 1, ncclInt32, size, m.comm, m.stream));
    NCCL_IS(ncclInvalidArgument, ncclAllReduce(x, x, 1, ncclFloat16, ncclSum, m.comm, m.stream));
    NCCL_IS(ncclInvalidArgument, ncclAllReduce(nullptr, x, 1, ncclInt32, ncclSum, m.comm, m.stream));
    NCCL_IS(ncclInvalidUsage, ncclGroupEnd());
    NCCL_IS(ncclInvalidArgument, ncclCommRegister(m.comm, host, sizeof host, &handle));
    NCCL_OK(ncclCommRegister(m.comm, x, 2 * sizeof *x, &handle));
    NCCL_OK(ncclCommDeregister(m.comm, handle));
    NCCL_IS(ncclInvalidArgument, ncclCommDeregister(m.comm, handle));
    OK(cudaStreamBeginCapture(m.stream, cudaStreamCaptureModeRelaxed));
    NCCL_IS(ncclInvalidUsage, ncclAllReduce(x, x, 1, ncclInt32, ncclSum, m.comm, m.stream));
    ERROR_IS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(m.stream, &graph));
    OK(cudaFree(x));
}

/* Operations may stand on registered memory alone; memory that is registered may not be freed. */
void test_registration(void **) {
    member m;
    int32_t *x = device_memory<int32_t>({1, 2, 3});
    void *handle;
    NCCL_OK(ncclCommRegister(m.comm, x + 1, 2 * sizeof *x, &handle));
    {
        with_setting refused("EMU_NCCL_REGISTERED", "1");
        NCCL_IS(ncclInvalidUsage, ncclAllReduce(x, x + 1, 1, ncclInt32, ncclSum, m.comm, m.stream));
        NCCL_IS(ncclInvalidUsage, ncclAllReduce(x + 1, x + 1, 3, ncclInt32, ncclSum, m.comm, m.stream));
        m.started(ncclAllReduce(x + 1, x + 1, 2, ncclInt32, ncclSum, m.comm, m.stream));
    }
    OK(cudaDeviceSynchronize());
    assert_int_equal(host_copy(x, 3)[2], 3 * size);
    OK(cudaFree(x));
    ERROR_IS(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    emu_forget_faults();
    NCCL_OK(ncclCommDeregister(m.comm, handle));
    OK(cudaDeviceSynchronize());
}

void test_allocation(void **) {
    void *p;
    NCCL_OK(ncclMemAlloc(&p, 1000));
    NCCL_OK(ncclMemFree(p));
    NCCL_IS(ncclUnhandledCudaError, ncclMemFree(p));
    (void)cudaGetLastError();
}

/* ---- Faults. Every rank ends its communicator; streams then come to their end. */

void abort_all(ncclComm_t comm, cudaStream_t stream) {
    NCCL_OK(ncclCommAbort(comm));
    if (stream) {
        OK(cudaStreamSynchronize(stream));
        OK(cudaStreamDestroy(stream));
    }
    barrier();
}

/* An operation that fails or hangs on rank 1: what rank 1 is told and that the others wait. */
void check_stuck(const char *fault, ncclResult_t told) {
    if (size == 1)
        return;
    with_setting fails("EMU_NCCL_FAIL", fault), schedule("EMU_STREAMS", rank == 0 ? "early" : "late");
    ncclComm_t comm = begin_joining(true);
    cudaStream_t stream;
    ncclResult_t state;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    float *x = device_memory<float>({1.0f});
    NCCL_OK(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, stream)); /* number 0 goes well */
    OK(cudaStreamSynchronize(stream));
    NCCL_OK(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, stream));
    for (int i = 0; i < 20; i++) {
        assert_int_equal(cudaStreamQuery(stream), cudaErrorNotReady);
        usleep(1000);
    }
    (void)cudaGetLastError();
    NCCL_OK(ncclCommGetAsyncError(comm, &state));
    NCCL_IS(rank == 1 ? told : ncclSuccess, state);
    barrier();
    abort_all(comm, stream);
    OK(cudaFree(x));
}

void test_asynchronous_error(void **) { check_stuck("async:1:1", ncclRemoteError); }
void test_hanging_operation(void **) { check_stuck("hang:1:1", ncclSuccess); }

void test_absent_rank(void **) {
    if (size == 1)
        return;
    with_setting absent("EMU_NCCL_FAIL", "absent:1");
    ncclComm_t comm = begin_joining(false);
    NCCL_IS(ncclInProgress, settle(comm, 0.1));
    abort_all(comm, nullptr);
}

void test_failing_start(void **) {
    with_setting fails("EMU_NCCL_FAIL", "init:0");
    ncclComm_t comm = begin_joining(false);
    NCCL_IS(rank == 0 ? ncclSystemError : ncclInProgress, settle(comm, 0.1));
    abort_all(comm, nullptr);
}

/* Ranks in different operations: NCCL would hang or give nonsense; here the rank that sees it says so. */
void test_mismatch_is_told(void **) {
    if (size == 1)
        return;
    ncclComm_t comm = begin_joining(true);
    cudaStream_t stream;
    ncclResult_t state = ncclSuccess;
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    float *x = device_memory<float>(std::vector<float>((size_t)size, 1.0f));
    if (rank == 0)
        NCCL_OK(ncclAllGather(x, x, 1, ncclFloat32, comm, stream));
    else
        NCCL_OK(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, stream));
    for (double until = espl_now() + 10.0; rank == 0 && state == ncclSuccess && espl_now() < until; usleep(100)) {
        (void)cudaStreamQuery(stream);
        NCCL_OK(ncclCommGetAsyncError(comm, &state));
    }
    (void)cudaGetLastError();
    NCCL_IS(rank == 0 ? ncclInvalidUsage : ncclSuccess, state);
    barrier();
    abort_all(comm, stream);
    OK(cudaFree(x));
}

void test_no_device_for_nccl(void **) {
    ncclComm_t comm;
    ncclUniqueId id = new_identity();
    with_setting none("EMU_DEVICES", "0");
    NCCL_IS(ncclUnhandledCudaError, ncclCommInitRank(&comm, size, id, rank));
}

} // namespace

int main(int argc, char **argv) {
    int provided;
    bool launched = getenv("OMPI_COMM_WORLD_SIZE") != nullptr;
    if (launched) {
        MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank);
        MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_bf16_sums),
        cmocka_unit_test(test_average),
        cmocka_unit_test(test_operations_stand_in_streams),
        cmocka_unit_test(test_hosts_that_wait_elsewhere),
        cmocka_unit_test(test_non_blocking_launches),
        cmocka_unit_test(test_one_communicator_on_two_streams),
        cmocka_unit_test(test_two_communicators),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_registration),
        cmocka_unit_test(test_allocation),
        cmocka_unit_test(test_asynchronous_error),
        cmocka_unit_test(test_hanging_operation),
        cmocka_unit_test(test_absent_rank),
        cmocka_unit_test(test_failing_start),
        cmocka_unit_test(test_mismatch_is_told),
        cmocka_unit_test(test_no_device_for_nccl),
    };
    int failed = cmocka_run_group_tests(tests, nullptr, nullptr);
    if (failed > 0)
        give_up();
    if (launched)
        MPI_Finalize();
    return 0;
}
