// test: ranks=1 tier=short timeout=60
/* The emulated runtime: streams run in order and wait for events under every schedule; programs that forget to wait, or that use a staging
 * buffer again too early, give wrong results under some schedule; graphs; memory; the faults of the environment. */
#include "tests/emu/emu_test.h"

#include "tests/emu/runtime/stream.h"
#include "tests/emu/simt/fault.h"

#include <cmath>

namespace {

struct two_streams {
    cudaStream_t a, b;
    cudaEvent_t event;
    two_streams() {
        OK(cudaStreamCreateWithPriority(&a, cudaStreamNonBlocking, 0));
        OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
        OK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    }
    ~two_streams() {
        OK(cudaEventDestroy(event));
        OK(cudaStreamDestroy(b));
        OK(cudaStreamDestroy(a));
    }
};

/* In how many schedules `program` gives `right`. */
int schedules_right(int (*program)(), int right) {
    int n = 0;
    for (const char *schedule : schedules) {
        with_setting chosen("EMU_STREAMS", schedule);
        n += program() == right;
        OK(cudaDeviceSynchronize());
    }
    return n;
}

constexpr int all_schedules = sizeof schedules / sizeof *schedules;

void add(cudaStream_t stream, int *x, int factor, int summand) {
    emu_enqueue(stream, "add", [=] { *x = *x * factor + summand; });
}

int in_order() {
    two_streams s;
    int *x = device_memory<int>({0});
    for (int i = 1; i <= 5; i++)
        add(s.a, x, 10, i);
    OK(cudaStreamSynchronize(s.a));
    int result = host_copy(x, 1)[0];
    OK(cudaFree(x));
    return result;
}

void test_streams_keep_their_order(void **) { assert_int_equal(schedules_right(in_order, 12345), all_schedules); }

/* b reads what a wrote; `waits`: as it should. */
template <bool waits> int consumer() {
    two_streams s;
    int *x = device_memory<int>({0, 0});
    add(s.a, x, 0, 7);
    OK(cudaEventRecord(s.event, s.a));
    if (waits)
        OK(cudaStreamWaitEvent(s.b, s.event, 0));
    emu_enqueue(s.b, "read", [=] { x[1] = x[0]; });
    OK(cudaStreamSynchronize(s.b));
    int result = host_copy(x, 2)[1];
    OK(cudaDeviceSynchronize());
    OK(cudaFree(x));
    return result;
}

/* a overwrites what b is still to read. */
template <bool waits> int overwriter() {
    two_streams s;
    int *x = device_memory<int>({7, 0});
    emu_enqueue(s.b, "read", [=] { x[1] = x[0]; });
    OK(cudaEventRecord(s.event, s.b));
    if (waits)
        OK(cudaStreamWaitEvent(s.a, s.event, 0));
    add(s.a, x, 0, 9);
    OK(cudaStreamSynchronize(s.a));
    OK(cudaStreamSynchronize(s.b));
    int result = host_copy(x, 2)[1];
    OK(cudaFree(x));
    return result;
}

void test_events_order_streams(void **) {
    assert_int_equal(schedules_right(consumer<true>, 7), all_schedules);
    assert_int_equal(schedules_right(overwriter<true>, 7), all_schedules);
}

void test_missing_waits_show(void **) {
    assert_true(schedules_right(consumer<false>, 7) < all_schedules);
    assert_true(schedules_right(overwriter<false>, 7) < all_schedules);
}

/* A wait is for the latest record when it is called; records after it do not count, nor does an event that was never recorded. */
int latest_record() {
    two_streams s;
    int *x = device_memory<int>({0, 0});
    cudaEvent_t never;
    OK(cudaEventCreate(&never));
    OK(cudaStreamWaitEvent(s.b, never, 0));
    add(s.a, x, 0, 1);
    OK(cudaEventRecord(s.event, s.a));
    add(s.a, x, 0, 2);
    OK(cudaEventRecord(s.event, s.a));
    OK(cudaStreamWaitEvent(s.b, s.event, 0));
    emu_enqueue(s.b, "read", [=] { x[1] = x[0]; });
    OK(cudaEventRecord(s.event, s.b));
    OK(cudaEventSynchronize(s.event));
    int result = host_copy(x, 2)[1];
    OK(cudaEventDestroy(never));
    OK(cudaFree(x));
    return result;
}

void test_latest_record_counts(void **) { assert_int_equal(schedules_right(latest_record, 2), all_schedules); }

/* Late is as late as it may be: nothing of b runs for the sake of a, and the wait of the event is for the first record alone. */
void test_late_runs_only_what_is_needed(void **) {
    with_setting late("EMU_STREAMS", "late");
    two_streams s;
    static int x;
    x = 0;
    emu_enqueue(s.a, "first", [] { x |= 1; });
    OK(cudaEventRecord(s.event, s.a));
    emu_enqueue(s.a, "second", [] { x |= 2; });
    emu_enqueue(s.b, "other", [] { x |= 4; });
    assert_int_equal(x, 0);
    OK(cudaEventSynchronize(s.event));
    assert_int_equal(x, 1);
    OK(cudaStreamSynchronize(s.b));
    assert_int_equal(x, 5);
    OK(cudaDeviceSynchronize());
    assert_int_equal(x, 7);
}

void test_queries(void **) {
    for (const char *schedule : schedules) {
        with_setting chosen("EMU_STREAMS", schedule);
        two_streams s;
        cudaEvent_t begin, end;
        float ms = -1.0f;
        OK(cudaEventCreate(&begin));
        OK(cudaEventCreate(&end));
        OK(cudaEventQuery(begin)); /* never recorded: there */
        OK(cudaEventRecord(begin, s.a));
        emu_enqueue(s.a, "sleep", [] { usleep(2000); });
        OK(cudaEventRecord(end, s.a));
        bool late = strcmp(schedule, "late") == 0;
        cudaError_t first = cudaEventQuery(end);
        assert_true(!late || first == cudaErrorNotReady);
        if (late)
            ERROR_IS(cudaErrorNotReady, cudaEventElapsedTime(&ms, begin, end));
        while (first == cudaErrorNotReady)
            first = cudaEventQuery(end);
        OK(first);
        (void)cudaGetLastError();
        OK(cudaEventElapsedTime(&ms, begin, end));
        assert_true(ms >= 2.0f && ms < 1000.0f);
        ERROR_IS(cudaErrorInvalidResourceHandle, cudaEventElapsedTime(&ms, begin, s.event)); /* without timing */
        OK(cudaStreamQuery(s.a));
        OK(cudaEventDestroy(begin));
        OK(cudaEventDestroy(end));
    }
}

/* The NULL stream waits for blocking streams, and they for it. */
int null_stream() {
    cudaStream_t blocking;
    OK(cudaStreamCreate(&blocking));
    int *x = device_memory<int>({0});
    add(blocking, x, 10, 1);
    add(nullptr, x, 10, 2);
    add(blocking, x, 10, 3);
    OK(cudaStreamSynchronize(blocking));
    int result = host_copy(x, 1)[0];
    OK(cudaStreamDestroy(blocking));
    OK(cudaFree(x));
    return result;
}

void test_null_stream(void **) { assert_int_equal(schedules_right(null_stream, 123), all_schedules); }

/* ---- Copies. */

enum class staging { pinned_waits, pinned, pageable };

/* Two values through one host buffer. */
template <staging how> int staged() {
    two_streams s;
    static int pageable[1];
    int *x = device_memory<int>({0, 0}), *buffer = pageable;
    if (how != staging::pageable)
        OK(cudaMallocHost(reinterpret_cast<void **>(&buffer), sizeof(int)));
    for (int i = 0; i < 2; i++) {
        *buffer = i + 1;
        OK(cudaMemcpyAsync(x + i, buffer, sizeof(int), cudaMemcpyHostToDevice, s.a));
        OK(cudaEventRecord(s.event, s.a));
        if (how == staging::pinned_waits)
            OK(cudaEventSynchronize(s.event));
    }
    *buffer = 9;
    OK(cudaStreamSynchronize(s.a));
    auto result = host_copy(x, 2);
    if (how != staging::pageable)
        OK(cudaFreeHost(buffer));
    OK(cudaFree(x));
    return 10 * result[0] + result[1];
}

void test_staging(void **) {
    assert_int_equal(schedules_right(staged<staging::pinned_waits>, 12), all_schedules);
    assert_int_equal(schedules_right(staged<staging::pageable>, 12), all_schedules);
    assert_true(schedules_right(staged<staging::pinned>, 12) < all_schedules);
}

/* Reading a pinned buffer before the copy is done; pageable memory is there when the call returns. */
template <bool pinned> int read_back() {
    two_streams s;
    static int pageable[1];
    int *x = device_memory<int>({0}), *buffer = pageable;
    if (pinned)
        OK(cudaHostAlloc(reinterpret_cast<void **>(&buffer), sizeof(int), cudaHostAllocDefault));
    *buffer = 3;
    add(s.a, x, 0, 5);
    OK(cudaMemcpyAsync(buffer, x, sizeof(int), cudaMemcpyDeviceToHost, s.a));
    int result = *buffer;
    OK(cudaStreamSynchronize(s.a));
    if (pinned)
        OK(cudaFreeHost(buffer));
    OK(cudaFree(x));
    return result;
}

void test_reading_back(void **) {
    assert_int_equal(schedules_right(read_back<false>, 5), all_schedules);
    assert_true(schedules_right(read_back<true>, 5) < all_schedules);
}

void test_new_memory_is_not_zero(void **) {
    void *p;
    OK(cudaMalloc(&p, 8 * sizeof(float)));
    for (float x : host_copy(static_cast<float *>(p), 8))
        assert_true(std::isnan(x));
    OK(cudaMemset(p, 0, 8 * sizeof(float)));
    for (float x : host_copy(static_cast<float *>(p), 8))
        assert_true(x == 0.0f);
    OK(cudaFree(p));
    OK(cudaFree(nullptr));
    OK(cudaMallocHost(&p, 1));
    assert_int_equal(*static_cast<unsigned char *>(p), 0xff);
    OK(cudaFreeHost(p));
}

void test_wrong_copies(void **) {
    two_streams s;
    int host[4] = {}, *x = device_memory<int>({1, 2, 3, 4});
    ERROR_IS(cudaErrorInvalidValue, cudaMemcpyAsync(x, host, sizeof host, cudaMemcpyDeviceToHost, s.a));
    ERROR_IS(cudaErrorInvalidValue, cudaMemcpyAsync(x + 1, host, sizeof host, cudaMemcpyHostToDevice, s.a)); /* one too far */
    ERROR_IS(cudaErrorInvalidValue, cudaMemsetAsync(host, 0, sizeof host, s.a));
    ERROR_IS(cudaErrorInvalidValue, cudaFree(host));
    ERROR_IS(cudaErrorInvalidValue, cudaFreeHost(x));
    ERROR_IS(cudaErrorInvalidResourceHandle, cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(host)));
    OK(cudaHostRegister(host, sizeof host, cudaHostRegisterDefault));
    ERROR_IS(cudaErrorHostMemoryAlreadyRegistered, cudaHostRegister(host, sizeof host, cudaHostRegisterDefault));
    OK(cudaHostUnregister(host));
    ERROR_IS(cudaErrorHostMemoryNotRegistered, cudaHostUnregister(host));
    OK(cudaFree(x));
    ERROR_IS(cudaErrorInvalidValue, cudaFree(x));
}

void test_errors_are_remembered_once(void **) {
    assert_int_equal(cudaFree(reinterpret_cast<void *>(8)), cudaErrorInvalidValue);
    assert_int_equal(cudaPeekAtLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_string_equal(cudaGetErrorName(cudaErrorNoDevice), "cudaErrorNoDevice");
    assert_string_equal(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory");
}

/* ---- Graphs. */

struct recorded {
    cudaGraphExec_t exec;
    explicit recorded(cudaStream_t stream, void (*body)(cudaStream_t, int *, cudaEvent_t), int *x, cudaEvent_t event) {
        cudaGraph_t graph;
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        body(stream, x, event);
        OK(cudaStreamEndCapture(stream, &graph));
        OK(cudaGraphInstantiate(&exec, graph, 0));
        OK(cudaGraphDestroy(graph));
    }
    ~recorded() { OK(cudaGraphExecDestroy(exec)); }
};

void digits(cudaStream_t stream, int *x, cudaEvent_t) {
    add(stream, x, 10, 1);
    OK(cudaMemcpyAsync(x + 1, x, sizeof(int), cudaMemcpyDeviceToDevice, stream));
    add(stream, x, 10, 2);
}

int replayed() {
    two_streams s;
    int *x = device_memory<int>({0, 0});
    recorded graph(s.a, digits, x, s.event);
    int before = host_copy(x, 1)[0];
    OK(cudaGraphLaunch(graph.exec, s.a));
    add(s.a, x, 10, 3);
    OK(cudaGraphLaunch(graph.exec, s.a));
    OK(cudaStreamSynchronize(s.a));
    auto result = host_copy(x, 2);
    OK(cudaFree(x));
    return before == 0 && result[1] == 1231 ? result[0] : -1;
}

void test_graphs_run_when_launched(void **) { assert_int_equal(schedules_right(replayed, 12312), all_schedules); }

void mark_between(cudaStream_t stream, int *x, cudaEvent_t event) {
    add(stream, x, 1, 1);
    OK(cudaEventRecordWithFlags(event, stream, cudaEventRecordExternal));
    emu_enqueue(stream, "spoil", [=] { x[1] += 100; });
}

/* b works on x[0] as soon as the mark inside the graph is reached, at each launch anew. `waits` false: it does not wait. */
template <bool waits> int marked() {
    two_streams s;
    int *x = device_memory<int>({0, 0, 0}), result = 0;
    cudaEvent_t done;
    OK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    {
        recorded graph(s.a, mark_between, x, s.event);
        for (int launch = 0; launch < 3; launch++) {
            OK(cudaGraphLaunch(graph.exec, s.a));
            if (waits)
                OK(cudaStreamWaitEvent(s.b, s.event, 0));
            emu_enqueue(s.b, "read", [=] { x[2] = 10 * x[2] + x[0]; });
            OK(cudaEventRecord(done, s.b));
            OK(cudaStreamWaitEvent(s.a, done, 0));
        }
        OK(cudaStreamSynchronize(s.b));
        result = host_copy(x, 3)[2];
        OK(cudaDeviceSynchronize());
    }
    OK(cudaEventDestroy(done));
    OK(cudaFree(x));
    return result;
}

void test_marks_inside_graphs(void **) {
    assert_int_equal(schedules_right(marked<true>, 123), all_schedules);
    assert_true(schedules_right(marked<false>, 123) < all_schedules);
}

void wait_inside(cudaStream_t stream, int *x, cudaEvent_t event) {
    OK(cudaStreamWaitEvent(stream, event, cudaEventWaitExternal));
    emu_enqueue(stream, "read", [=] { x[1] = x[0]; });
}

int waiting_graph() {
    two_streams s;
    int *x = device_memory<int>({0, 0}), sum = 0;
    {
        recorded graph(s.b, wait_inside, x, s.event);
        for (int i = 1; i <= 2; i++) {
            add(s.a, x, 0, i);
            OK(cudaEventRecord(s.event, s.a));
            OK(cudaGraphLaunch(graph.exec, s.b));
            OK(cudaStreamSynchronize(s.b));
            sum = 10 * sum + host_copy(x, 2)[1];
        }
    }
    OK(cudaFree(x));
    return sum;
}

void test_waits_inside_graphs(void **) { assert_int_equal(schedules_right(waiting_graph, 12), all_schedules); }

/* Calls that a capture does not allow fail, and the capture with them. */
void check_breaks(cudaError_t (*call)(const two_streams &s, int *x), cudaError_t expected) {
    two_streams s;
    int *x = device_memory<int>({0});
    cudaGraph_t graph;
    cudaStreamCaptureStatus status;
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeThreadLocal));
    ERROR_IS(expected, call(s, x));
    OK(cudaStreamIsCapturing(s.a, &status));
    assert_int_equal(status, cudaStreamCaptureStatusInvalidated);
    ERROR_IS(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(s.a, &graph));
    OK(cudaStreamIsCapturing(s.a, &status));
    assert_int_equal(status, cudaStreamCaptureStatusNone);
    OK(cudaFree(x));
}

void test_what_captures_do_not_allow(void **) {
    static const cudaError_t unsupported = cudaErrorStreamCaptureUnsupported;
    check_breaks([](const two_streams &s, int *) { return cudaStreamSynchronize(s.a); }, unsupported);
    check_breaks([](const two_streams &, int *) { return cudaDeviceSynchronize(); }, unsupported);
    check_breaks([](const two_streams &s, int *) { return cudaStreamQuery(s.a); }, unsupported);
    check_breaks([](const two_streams &, int *x) { return cudaMemcpy(x, &unsupported, sizeof(int), cudaMemcpyHostToDevice); }, unsupported);
    check_breaks([](const two_streams &, int *x) { return cudaMalloc(reinterpret_cast<void **>(&x), 4); }, unsupported);
    check_breaks([](const two_streams &s, int *) { return cudaEventSynchronize(s.event); }, unsupported);
    check_breaks(/* would need the other stream's work */
                 [](const two_streams &s, int *) {
                     OK(cudaEventRecord(s.event, s.b));
                     return cudaStreamWaitEvent(s.a, s.event, 0);
                 },
                 cudaErrorStreamCaptureIsolation);
    check_breaks(/* would make the other stream a part of the capture */
                 [](const two_streams &s, int *) {
                     OK(cudaEventRecord(s.event, s.a));
                     return cudaStreamWaitEvent(s.b, s.event, 0);
                 },
                 unsupported);
}

void test_events_of_captures_are_places(void **) {
    two_streams s;
    cudaGraph_t graph;
    ERROR_IS(cudaErrorInvalidValue, cudaEventRecordWithFlags(s.event, s.a, cudaEventRecordExternal)); /* in captures alone */
    ERROR_IS(cudaErrorInvalidValue, cudaStreamWaitEvent(s.a, s.event, cudaEventWaitExternal));
    OK(cudaStreamBeginCapture(s.a, cudaStreamCaptureModeRelaxed));
    OK(cudaEventRecord(s.event, s.a));
    OK(cudaStreamWaitEvent(s.a, s.event, 0));
    OK(cudaStreamEndCapture(s.a, &graph));
    ERROR_IS(cudaErrorCapturedEvent, cudaEventQuery(s.event));
    ERROR_IS(cudaErrorCapturedEvent, cudaEventSynchronize(s.event));
    ERROR_IS(cudaErrorStreamCaptureUnmatched, cudaStreamEndCapture(s.a, &graph));
    OK(cudaGraphDestroy(graph));
}

/* ---- Faults. */

void test_no_device(void **) {
    int n = 5, version;
    void *p;
    with_setting none("EMU_DEVICES", "0");
    ERROR_IS(cudaErrorNoDevice, cudaGetDeviceCount(&n));
    assert_int_equal(n, 0);
    ERROR_IS(cudaErrorNoDevice, cudaMalloc(&p, 4));
    OK(cudaDriverGetVersion(&version));
    assert_int_equal(version, 13000);
}

void test_no_driver(void **) {
    int n, version;
    with_setting none("EMU_DEVICES", "-1");
    ERROR_IS(cudaErrorInsufficientDriver, cudaGetDeviceCount(&n));
    OK(cudaDriverGetVersion(&version));
    assert_int_equal(version, 0);
}

void test_old_driver(void **) {
    int n, version;
    with_setting old("EMU_DRIVER", "12040");
    ERROR_IS(cudaErrorInsufficientDriver, cudaGetDeviceCount(&n));
    OK(cudaDriverGetVersion(&version));
    assert_int_equal(version, 12040);
}

void test_busy_device(void **) {
    int n;
    with_setting busy("EMU_BUSY", "1");
    OK(cudaGetDeviceCount(&n));
    ERROR_IS(cudaErrorDevicesUnavailable, cudaSetDevice(0));
    ERROR_IS(cudaErrorDevicesUnavailable, cudaFree(nullptr));
}

void test_devices(void **) {
    int n, value;
    char address[32];
    cudaDeviceProp prop;
    with_setting two("EMU_DEVICES", "2"), name("EMU_DEVICE_NAME", "Other GPU"), capability("EMU_CAPABILITY", "75");
    OK(cudaGetDeviceCount(&n));
    assert_int_equal(n, 2);
    OK(cudaSetDevice(1));
    OK(cudaGetDeviceProperties(&prop, 1));
    assert_string_equal(prop.name, "Other GPU");
    assert_int_equal(prop.major * 10 + prop.minor, 75);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1));
    assert_int_equal(value, 32);
    OK(cudaDeviceGetPCIBusId(address, sizeof address, 1));
    assert_int_equal(strlen(address), 12);
    ERROR_IS(cudaErrorInvalidDevice, cudaSetDevice(2));
    OK(cudaSetDevice(0));
}

void test_out_of_memory(void **) {
    with_setting little("EMU_MEMORY", "1000000");
    size_t free_bytes, total;
    void *p, *q;
    OK(cudaMalloc(&p, 600000));
    ERROR_IS(cudaErrorMemoryAllocation, cudaMalloc(&q, 400001));
    assert_null(q);
    OK(cudaMemGetInfo(&free_bytes, &total));
    assert_int_equal(total, 1000000);
    assert_int_equal(free_bytes, 400000);
    OK(cudaMalloc(&q, 400000));
    OK(cudaFree(q));
    OK(cudaFree(p));
}

/* A kernel that fails is found by who waits, and from then on everything fails; work behind it does not run. */
void test_failing_kernel(void **) {
    for (const char *schedule : schedules) {
        with_setting chosen("EMU_STREAMS", schedule), which("EMU_LAUNCH_FAIL", "bad_kernel");
        two_streams s;
        static int ran;
        void *p;
        ran = 0;
        emu_enqueue(s.a, "good_kernel", [] { ran |= 1; });
        emu_enqueue(s.a, "bad_kernel", [] { ran |= 2; });
        emu_enqueue(s.a, "later_kernel", [] { ran |= 4; });
        assert_int_equal(cudaStreamSynchronize(s.a), cudaErrorIllegalAddress);
        assert_int_equal(ran, 1);
        assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
        assert_int_equal(cudaGetLastError(), cudaErrorIllegalAddress);
        assert_int_equal(cudaMalloc(&p, 4), cudaErrorIllegalAddress);
        emu_forget_faults();
    }
}

/* ---- EMU_PROTECT, in programs of their own. */

int touch_device_memory(bool by_the_host) {
    setenv("EMU_PROTECT", "1", 1);
    int value = 0, *x = device_memory<int>({41});
    emu_enqueue(nullptr, "add", [=] { *x += 1; });
    if (by_the_host)
        *const_cast<volatile int *>(x) = 1;
    OK(cudaMemcpy(&value, x, sizeof value, cudaMemcpyDeviceToHost));
    return value == 42 ? 0 : 3;
}

void test_protected_memory(void **) {
    ending good = run_again("kernel"), bad = run_again("host");
    assert_int_equal(good.status, 0);
    assert_true(bad.status != 0);
    assert_true(bad.text.find("the host touched device memory") != std::string::npos);
}

} // namespace

int main(int argc, char **argv) {
    if (argc > 1)
        return touch_device_memory(strcmp(argv[1], "host") == 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_keep_their_order),
        cmocka_unit_test(test_events_order_streams),
        cmocka_unit_test(test_missing_waits_show),
        cmocka_unit_test(test_latest_record_counts),
        cmocka_unit_test(test_late_runs_only_what_is_needed),
        cmocka_unit_test(test_queries),
        cmocka_unit_test(test_null_stream),
        cmocka_unit_test(test_staging),
        cmocka_unit_test(test_reading_back),
        cmocka_unit_test(test_new_memory_is_not_zero),
        cmocka_unit_test(test_wrong_copies),
        cmocka_unit_test(test_errors_are_remembered_once),
        cmocka_unit_test(test_graphs_run_when_launched),
        cmocka_unit_test(test_marks_inside_graphs),
        cmocka_unit_test(test_waits_inside_graphs),
        cmocka_unit_test(test_what_captures_do_not_allow),
        cmocka_unit_test(test_events_of_captures_are_places),
        cmocka_unit_test(test_no_device),
        cmocka_unit_test(test_no_driver),
        cmocka_unit_test(test_old_driver),
        cmocka_unit_test(test_busy_device),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_failing_kernel),
        cmocka_unit_test(test_protected_memory),
    };
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
