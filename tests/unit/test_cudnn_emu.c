// test: libs=kernels,core ranks=1 tier=short timeout=120
/* Attention by cuDNN's plans, over the emulated library (tests/emu/runtime/dnn.h): where it is taken and where not, values, lengths of
 * segments that change under a recording, and what becomes of a library that is missing, too old, or wrong.
 *
 *   test_cudnn_emu          all of it
 *   test_cudnn_emu rule     every case by the 2x rule alone; prints how many shapes cuDNN had
 *
 * ESPL_TEST_BACKEND=cuda: `rule` on a GPU, where cuDNN itself is asked (tests/gpu/run.sh). */
#include "tests/unit/op_run.h"

#include "kernels/backend.h"
#include "kernels/cuda/cudnn_attention.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define TWO_TILES                                                                                                                          \
    { 0, 1, 96, 97, 190 }
#define EVEN_SEGMENTS                                                                                                                      \
    { 0, 64, 128, 192 }
#define sqrt_of_12 3.46410162f
#define sqrt_of_72 8.48528137f
#define sqrt_of_128 11.3137085f

static const op_case cases[] = {
    OP_ATTENTION_ROW("d64", OP_LARGE, TWO_TILES, 2, 2, 64, 1, 0, 0),
    OP_ATTENTION_ROW("d64 four heads share keys", OP_LARGE, TWO_TILES, 4, 1, 64, 1, 0, 0),
    OP_ATTENTION_ROW("d64 full", OP_LARGE, EVEN_SEGMENTS, 2, 1, 64, 0, 0, 0),
    OP_ATTENTION_ROW("d72", OP_LARGE, EVEN_SEGMENTS, 3, 3, 72, 1, 0, 0),
    OP_ATTENTION_ROW("d128", OP_LARGE, OP_ONE_SEGMENT, 2, 1, 128, 1, 0, 0),
};

/* Not cuDNN's. */
static const op_case other_cases[] = {
    OP_ATTENTION_ROW("dropout", OP_LARGE, TWO_TILES, 2, 2, 64, 1, 0, 0.1f),
    OP_ATTENTION_ROW("window", OP_LARGE, TWO_TILES, 2, 2, 64, 1, 30, 0),
    OP_ATTENTION_ROW("d12", OP_LARGE, TWO_TILES, 2, 2, 12, 1, 0, 0),
    OP_ATTENTION_ROW("short segments", 0, OP_SHORT_SEGMENTS, 2, 2, 64, 1, 0, 0),
};

enum { N_CASES = sizeof cases / sizeof *cases, N_OTHERS = sizeof other_cases / sizeof *other_cases };

static const espl_backend *backend;
static const espl_device_calls *calls;
static espl_device *device;
static op_work work;
static char library[4096];
static espl__cudnn_counts (*count)(void);

static void open_device(void) {
    if (device == NULL)
        op_must(calls->open(0, &device));
}

static void close_device(void) {
    if (device == NULL)
        return;
    op_backend b = op_backend_of(backend->bf16, 1);
    b.calls = calls;
    b.device = device;
    op_work_resize(&b, &work, 0);
    calls->close(&device);
}

/* Anew, with these in the environment; NULL: not set. */
static void open_with(const char *attention, const char *cudnn, const char *fault) {
    const char *const names[] = {"ESPL_CUDA_ATTENTION", "ESPL_CUDNN_LIBRARY", "EMU_CUDNN_FAULT"};
    const char *const values[] = {attention, cudnn, fault};
    close_device();
    for (int i = 0; i < 3; i++)
        if (values[i] != NULL)
            setenv(names[i], values[i], 1);
        else
            unsetenv(names[i]);
    open_device();
}

static op_backend bf16(void) {
    op_backend b = op_backend_of(backend->bf16, 1);
    b.calls = calls;
    b.device = device;
    b.work = &work;
    return b;
}

static void keep_the_rule(const op_case *c, int64_t more_rows) {
    op_backend b = bf16();
    b.more_rows = more_rows;
    if (op_worst_2x(&b, c, stdout) > 1)
        fail_msg("%s, %lld rows of padding: more than twice the error", c->name, (long long)more_rows);
}

static void expect_told(const char *part) {
    espl_device_info info;
    calls->info(device, &info);
    if (strstr(info.attention, part) == NULL)
        fail_msg("'%s' is not in: %s", part, info.attention);
}

static void cases_keep_the_rule(void **state) {
    (void)state;
    open_with(NULL, library, NULL);
    for (int i = 0; i < N_CASES; i++)
        for (int64_t more_rows = 0; more_rows <= 21; more_rows += 21)
            keep_the_rule(&cases[i], more_rows);
    assert_int_equal(count().shapes, 2 * N_CASES);
    assert_int_equal(count().chosen, 2 * N_CASES);
    expect_told("cuDNN's, by its engines 13 forward and 13 backward");
    assert_int_equal(count().refused, 0);
}

static void what_does_not_fit_is_ours(void **state) {
    (void)state;
    open_with(NULL, library, NULL);
    for (int i = 0; i < N_OTHERS; i++)
        keep_the_rule(&other_cases[i], 0);
    assert_int_equal(count().shapes, 0);
    assert_true(count().why[0] != '\0');
    op_backend unaligned = bf16();
    unaligned.shift = sizeof(float);
    assert_true(op_worst_2x(&unaligned, &cases[0], stdout) <= 1);
    assert_int_equal(count().shapes, 0);
}

static void expect_ours(const char *cudnn, const char *fault, int64_t refused, const char *why) {
    open_with(NULL, cudnn, fault);
    keep_the_rule(&cases[1], 0);
    expect_told("our own kernels");
    assert_int_equal(count().chosen, 0);
    assert_int_equal(count().refused, refused);
    if (strstr(count().why, why) == NULL)
        fail_msg("'%s' is not in: %s", why, count().why);
}

static void what_cudnn_cannot_is_ours(void **state) {
    (void)state;
    expect_ours(NULL, NULL, 0, "there is no cuDNN here");
    expect_ours(library, "no_backward", 0, "has no engine for backward");
    expect_ours(library, "unordered", 0, "ordered dQ");
    expect_ours(library, "large", 0, "bytes of work where");
    expect_ours(library, "execute", 1, "CUDNN_STATUS_EXECUTION_FAILED");
    expect_ours(library, "wrong_forward", 1, "forward gives other values than ours");
    expect_ours(library, "wrong_backward", 1, "backward gives other values than ours");
    expect_ours(library, "unsteady", 1, "backward does not give the same bits again");
    setenv("EMU_CUDNN", "91900", 1);
    expect_ours(library, NULL, 0, "cuDNN is 9.19.0, and fused attention needs 9.28");
    unsetenv("EMU_CUDNN");
    open_with("own", library, NULL);
    keep_the_rule(&cases[0], 0);
    assert_int_equal(count().shapes, 0);
}

static void libraries_are_named(void **state) {
    (void)state;
    espl_device_info info;
    open_with(NULL, library, NULL);
    calls->info(device, &info);
    assert_non_null(strstr(info.libraries, ", cuDNN 9.28.0"));
    open_with("own", library, NULL);
    calls->info(device, &info);
    assert_null(strstr(info.libraries, "cuDNN"));
    open_with(NULL, NULL, NULL);
    calls->info(device, &info);
    assert_null(strstr(info.libraries, "cuDNN"));
}

/* ---- Calls of our own: attention over rows of a micro-batch, on the device. */

enum { ROWS = 96, SEGMENTS = 6, LONGEST = 48, HEADS = 2, KV_HEADS = 1, HEAD = 64, WIDTH = (HEADS + 2 * KV_HEADS) * HEAD };

typedef struct call {
    espl_attrs attrs;
    espl_args args;
    espl_batch batch;
    void *memory[6]; /* qkv, out, lse, dout, dqkv, work */
    size_t bytes[6];
} call;

static void make_call(call *c, float dropout) {
    static int32_t zeros[ROWS];
    size_t bytes[6] = {ROWS * WIDTH * 2, ROWS * HEADS * HEAD * 2, ROWS * HEADS * 4, ROWS * HEADS * HEAD * 2, ROWS * WIDTH * 2, 0};
    uint16_t numbers[ROWS * WIDTH];
    espl_rng_key key = {.seed = 5, .purpose = ESPL_RNG_TEST};
    *c = (call){.attrs = {.heads = HEADS, .kv_heads = KV_HEADS, .head_dim = HEAD, .causal = 1, .scale = 0.125f, .dropout = dropout}};
    c->batch = (espl_batch){.ids = zeros, .positions = zeros, .targets = zeros, .training = 1};
    for (int pass = 0; pass < 2; pass++) {
        size_t needed = backend->bf16->work_bytes(ESPL_OP_ATTENTION, &c->attrs, ROWS, 1, pass);
        bytes[5] = needed > bytes[5] ? needed : bytes[5];
    }
    for (int i = 0; i < ROWS * WIDTH; i++) {
        float x = (float)espl_rng_normal(&key, (uint64_t)i);
        espl_dtype_convert(&numbers[i], ESPL_BF16, &x, ESPL_F32, 1);
    }
    for (int i = 0; i < 6; i++) {
        op_must(calls->alloc(device, "test", c->bytes[i] = bytes[i], &c->memory[i]));
        if (i == 0 || i == 3)
            op_must(calls->write(device, c->memory[i], numbers, bytes[i]));
    }
    c->args = (espl_args){.attrs = &c->attrs,
                          .batch = &c->batch,
                          .in = {c->memory[0]},
                          .out = {c->memory[1], c->memory[2]},
                          .dout = {c->memory[3]},
                          .din = {c->memory[4]},
                          .work = c->memory[5]};
    op_must(calls->reserve(device, (const espl_capacity[ESPL_N_STREAMS]){{ROWS, SEGMENTS, LONGEST}}));
}

static void free_call(call *c) {
    for (int i = 0; i < 6; i++)
        calls->release(device, c->memory[i], c->bytes[i]);
}

static void begin(call *c, const int32_t *segments, int32_t n_segments) {
    c->batch.segments = segments;
    c->batch.n_segments = n_segments;
    c->batch.n = segments[n_segments];
    op_must(calls->begin(device, &c->batch));
}

static void run(const call *c) {
    backend->bf16->forward[ESPL_OP_ATTENTION](&c->args);
    backend->bf16->backward[ESPL_OP_ATTENTION](&c->args);
}

/* Forward's and backward's results, after dirt lay there. */
static void results(const call *c, espl_graph *graph, unsigned char *to) {
    static unsigned char dirt[ROWS * WIDTH * 2];
    memset(dirt, 0x41, sizeof dirt);
    for (int i = 1; i <= 4; i++)
        if (i != 3)
            op_must(calls->write(device, c->memory[i], dirt, c->bytes[i]));
    if (graph != NULL)
        op_must(calls->replay(device, graph));
    else
        run(c);
    for (int i = 1; i <= 4; i++)
        if (i != 3) {
            op_must(calls->read(device, to, c->memory[i], c->bytes[i]));
            to += c->bytes[i];
        }
}

static void recordings_follow_the_segments(void **state) {
    (void)state;
    static const int32_t first[] = {0, 48, 96}, second[] = {0, 1, 30, 31, 70}, third[] = {0, 20, 40, 60, 80, 88, 96};
    static const struct {
        const int32_t *segments;
        int32_t n;
    } batches[] = {{second, 4}, {third, 6}, {first, 2}};
    enum { BYTES = ROWS * (HEADS * HEAD * 2 + HEADS * 4 + WIDTH * 2) };
    static unsigned char replayed[BYTES], called[BYTES], before[BYTES];
    call c;
    espl_graph *graph;
    open_with(NULL, library, NULL);
    make_call(&c, 0);
    begin(&c, first, 2);
    run(&c);
    op_must(calls->record(device));
    run(&c);
    op_must(calls->recorded(device, &graph));
    for (int i = 0; i < 3; i++) {
        begin(&c, batches[i].segments, batches[i].n);
        results(&c, graph, replayed);
        results(&c, NULL, called);
        assert_memory_equal(replayed, called, BYTES);
        assert_memory_not_equal(replayed, before, BYTES); /* other segments, other values */
        memcpy(before, replayed, BYTES);
    }
    assert_int_equal(count().chosen, 1);
    calls->forget(device, &graph);
    free_call(&c);
}

static void a_shape_first_met_in_a_recording_is_ours(void **state) {
    (void)state;
    static const int32_t segments[] = {0, 48, 96};
    call c;
    espl_graph *graph;
    open_with(NULL, library, NULL);
    make_call(&c, 0);
    begin(&c, segments, 2);
    op_must(calls->record(device));
    run(&c);
    op_must(calls->recorded(device, &graph));
    op_must(calls->replay(device, graph));
    run(&c); /* and stays so */
    op_must(calls->sync(device));
    assert_int_equal(count().shapes, 1);
    assert_int_equal(count().chosen, 0);
    calls->forget(device, &graph);
    free_call(&c);
}

static void who_wants_cudnn_is_told_why_not(void **state) {
    (void)state;
    static const int32_t segments[] = {0, 48, 96};
    call c;
    for (int with_dropout = 0; with_dropout < 2; with_dropout++) {
        open_with("cudnn", library, NULL);
        make_call(&c, with_dropout ? 0.1f : 0);
        begin(&c, segments, 2);
        run(&c);
        assert_int_equal(calls->sync(device) != ESPL_OK, with_dropout);
        if (with_dropout) {
            assert_non_null(strstr(espl_status_message(), "ESPL_CUDA_ATTENTION=cudnn"));
            assert_non_null(strstr(espl_status_message(), "dropout"));
        }
        espl_status_clear();
        free_call(&c);
    }
}

static int find_libraries(const char *name) {
    const char *folder = getenv("ESPL_BACKEND_DIR");
    snprintf(library, sizeof library, "%s/libespalier_%s.so", folder != NULL ? folder : ".", name);
    op_must(espl_backend_open(name, &backend));
    void *opened = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    *(void **)&count = opened != NULL ? dlsym(opened, "espl__cudnn_count") : NULL;
    calls = backend->device;
    return count != NULL ? 0 : 1;
}

static int rule_alone(bool emulated) {
    if (emulated)
        setenv("ESPL_CUDNN_LIBRARY", library, 1);
    open_device();
    double worst = 0;
    for (int i = 0; i < N_CASES; i++) {
        op_backend b = bf16();
        double here = op_worst_2x(&b, &cases[i], stdout);
        worst = here > worst ? here : worst;
    }
    printf("{\"shapes\": %lld, \"chosen\": %lld, \"refused\": %lld, \"why\": \"%s\", \"worst\": %.4g}\n", (long long)count().shapes,
           (long long)count().chosen, (long long)count().refused, count().why, worst);
    close_device();
    return worst > 1;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cases_keep_the_rule),
        cmocka_unit_test(what_does_not_fit_is_ours),
        cmocka_unit_test(what_cudnn_cannot_is_ours),
        cmocka_unit_test(libraries_are_named),
        cmocka_unit_test(recordings_follow_the_segments),
        cmocka_unit_test(a_shape_first_met_in_a_recording_is_ours),
        cmocka_unit_test(who_wants_cudnn_is_told_why_not),
    };
    const char *name = getenv("ESPL_TEST_BACKEND");
    if (find_libraries(name != NULL ? name : "emu") != 0)
        return 1;
    if (argc > 1 && strcmp(argv[1], "rule") == 0)
        return rule_alone(name == NULL || strcmp(name, "emu") == 0);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_device();
    return failed;
}
