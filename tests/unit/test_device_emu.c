// test: libs=kernels,core ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/cuda/state.h"

#include <dlfcn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/emu_device.h"

enum { TOKENS = 96, SEGMENTS = 8, WIDTH = 5, VOCAB = 40 };

/* ---- Memory. */

static void memory_is_zeroed(void **state) {
    (void)state;
    enum { BYTES = 100003 };
    char *memory = on_device(BYTES), *other = on_device(1), back[BYTES];
    assert_true((uintptr_t)memory % 256 == 0 && (uintptr_t)other % 256 == 0);
    memset(back, 1, BYTES);
    assert_ok(calls->read(device, back, memory, BYTES));
    for (int i = 0; i < BYTES; i++)
        assert_int_equal(back[i], 0);
    calls->release(device, memory, BYTES);
    calls->release(device, other, 1);
    void *nothing;
    assert_ok(calls->alloc(device, "empty", 0, &nothing));
    assert_null(nothing);
}

/* The host's, but zeroed, copied and reached by kernels as the device's; a host that cannot pin so much says so. */
static void far_memory_is_memory(void **state) {
    (void)state;
    enum { N = 5003 };
    float values[N], back[N], *near = on_device(sizeof values);
    void *far, *nothing;
    assert_ok(calls->alloc_far(device, "OPT", sizeof values, &far));
    assert_ok(calls->read(device, back, far, sizeof back));
    for (int i = 0; i < N; i++) {
        assert_true(back[i] == 0.0f);
        values[i] = (float)i;
    }
    assert_ok(calls->write(device, far, values, sizeof values));
    backend->fp32->copy(near, far, sizeof values);
    backend->fp32->add(far, near, N);
    assert_ok(calls->fetch(device, back, far, sizeof back));
    assert_ok(calls->fetched(device));
    for (int i = 0; i < N; i++)
        assert_true(back[i] == (float)(2 * i));
    calls->release_far(device, far, sizeof values);
    calls->release(device, near, sizeof values);
    assert_ok(calls->alloc_far(device, "empty", 0, &nothing));
    assert_null(nothing);
    setenv("EMU_HOST", "4095", 1);
    assert_int_equal(calls->alloc_far(device, "OPT", 4096, &nothing), ESPL_ERR_USAGE);
    unsetenv("EMU_HOST");
    assert_message("arena OPT needs ");
    assert_message("run.offload: none");
}

/* Several pieces of staging, one of them short; what was written may change at once. */
static void big_copies_arrive(void **state) {
    (void)state;
    const size_t bytes = ((size_t)13 << 20) + 7;
    unsigned char *from = malloc(bytes), *back = malloc(bytes), *memory = on_device(bytes);
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < bytes; i++)
            from[i] = (unsigned char)(i * 7 + i / 251 + (size_t)round);
        assert_ok(calls->write(device, memory, from, bytes));
        memset(from, 0, bytes);
    }
    assert_ok(calls->read(device, back, memory, bytes));
    for (size_t i = 0; i < bytes; i++)
        if (back[i] != (unsigned char)(i * 7 + i / 251 + 1))
            fail_msg("byte %zu", i);
    assert_ok(calls->read(device, back, memory, 0));
    calls->release(device, memory, bytes);
    free(from);
    free(back);
}

static void too_much_memory_is_told(void **state) {
    (void)state;
    void *memory;
    setenv("EMU_MEMORY", "67108864", 1);
    assert_int_equal(calls->alloc(device, "GRAD", (size_t)100 << 20, &memory), ESPL_ERR_USAGE);
    unsetenv("EMU_MEMORY");
    assert_null(memory);
    assert_message("GPU 0: arena GRAD needs 100.0 MiB, of 64.0 MiB only ");
    assert_message(" MiB too little");
    assert_message("train.micro_batch_tokens");
    assert_message("model.recompute: full");
    assert_message("run.sharding: optimizer");
    assert_ok(calls->alloc(device, "GRAD", 1 << 20, &memory)); /* it was that one's failure alone */
    assert_ok(calls->sync(device));
    calls->release(device, memory, 1 << 20);
}

static void the_device_is_described(void **state) {
    (void)state;
    espl_device_info info;
    calls->info(device, &info);
    assert_true(strcmp(calls->kind, "emu") == 0 && calls->remote && info.ordinal == 0 && info.n_devices == 1);
    assert_string_equal(info.name, "Emulated GPU");
    assert_true(strstr(info.libraries, "CUDA 13.0, driver for 13.0, cuBLASLt ") == info.libraries && strstr(info.libraries, ", NCCL 2."));
    assert_true(info.address[0] != '\0' && info.bytes_free <= info.bytes_total && info.bytes_total == (size_t)8 << 30);
}

/* ---- Micro-batches. */

static int32_t ids[TOKENS], positions[TOKENS], targets[TOKENS], segments[SEGMENTS + 1];

static espl__rows *main_rows; /* of the device */

static espl_status reserve_main(int64_t tokens, int64_t n_segments) {
    const espl_capacity capacity[ESPL_N_STREAMS] = {{tokens, n_segments, 0}};
    main_rows = &device->rows[ESPL_STREAM_MAIN];
    return calls->reserve(device, capacity);
}

/* n tokens in three segments, or two with a cache. */
static espl_batch make_batch(int32_t n, int salt) {
    for (int i = 0; i < n; i++) {
        ids[i] = (i * 3 + salt) % VOCAB;
        positions[i] = i % 7;
        targets[i] = i % 5 == 0 ? -1 : (i + salt) % VOCAB;
    }
    segments[0] = 0, segments[1] = n / 3, segments[2] = n / 2, segments[3] = n;
    return (espl_batch){.n = n,
                        .n_segments = 3,
                        .segments = segments,
                        .ids = ids,
                        .positions = positions,
                        .targets = targets,
                        .loss_scale = 0.5f / (float)(salt + 1),
                        .rng = {.seed = 7, .purpose = ESPL_RNG_DROPOUT, .step = 3, .micro = (uint32_t)salt},
                        .training = 1};
}

static const int32_t *read_ints(const int32_t *from, int64_t n) {
    static int32_t to[TOKENS + 1];
    assert_ok(calls->read(device, to, from, (size_t)n * sizeof *to));
    return to;
}

static void assert_ints(const int32_t *from, const int32_t *expected, int64_t n, int64_t end, int32_t padding) {
    const int32_t *there = read_ints(from, end);
    for (int64_t i = 0; i < end; i++)
        assert_int_equal(there[i], i < n ? expected[i] : padding);
}

static void assert_rows(const int32_t *begins, const int32_t *ends, const espl_batch *batch, int64_t end) {
    int32_t begin[TOKENS] = {0}, stop[TOKENS] = {0};
    for (int s = 0; s < batch->n_segments; s++)
        for (int i = batch->segments[s]; i < batch->segments[s + 1]; i++)
            begin[i] = batch->segments[s], stop[i] = batch->segments[s + 1];
    assert_ints(begins, begin, batch->n, end, 0);
    assert_ints(ends, stop, batch->n, end, 0);
}

static void assert_header(const espl_batch *batch) {
    espl__batch header;
    assert_ok(calls->read(device, &header, main_rows->batch, sizeof header));
    assert_true(header.n == batch->n && header.n_segments == batch->n_segments && header.training == batch->training);
    assert_true(header.loss_scale == batch->loss_scale && memcmp(&header.rng, &batch->rng, sizeof header.rng) == 0);
}

static void short_batches_are_padded(void **state) {
    (void)state;
    assert_ok(reserve_main(TOKENS, SEGMENTS));
    for (int32_t n = TOKENS; n >= 0; n -= 19) {
        espl_batch batch = make_batch(n, n);
        assert_ok(calls->begin(device, &batch));
        assert_true(main_rows->tokens == TOKENS && main_rows->capacity == TOKENS);
        assert_header(&batch);
        assert_ints(main_rows->ids, ids, n, TOKENS, 0);
        assert_ints(main_rows->positions, positions, n, TOKENS, 0);
        assert_ints(main_rows->targets, targets, n, TOKENS, -1);
        assert_rows(main_rows->row_begin, main_rows->row_end, &batch, TOKENS);
        assert_ints(main_rows->segments, segments, 4, SEGMENTS + 1, n);
    }
}

static void generation_takes_its_own_rows(void **state) {
    (void)state;
    const int32_t row[] = {2, 0, 5}, length[] = {4, 1, 9};
    espl_cache cache = {.row = row, .length = length};
    assert_ok(reserve_main(TOKENS, SEGMENTS));
    espl_batch batch = make_batch(31, 1);
    batch.cache = &cache;
    assert_ok(calls->begin(device, &batch));
    assert_int_equal(main_rows->tokens, 31);
    assert_ints(main_rows->ids, ids, 31, 31, 0);
    assert_rows(main_rows->row_begin, main_rows->row_end, &batch, 31);
    assert_ints(main_rows->cache_row, row, 3, 3, 0);
    assert_ints(main_rows->cache_length, length, 3, 3, 0);
    batch.cache = NULL;
    assert_ok(calls->begin(device, &batch));
    assert_int_equal(main_rows->tokens, TOKENS);
}

static void room_grows(void **state) {
    (void)state;
    assert_ok(reserve_main(10, 2));
    assert_ok(reserve_main(TOKENS, SEGMENTS));
    espl_batch batch = make_batch(TOKENS, 0);
    assert_ok(calls->begin(device, &batch));
    assert_ints(main_rows->ids, ids, TOKENS, TOKENS, 0);
    const int32_t *before = main_rows->ids;
    assert_ok(reserve_main(40, 3));
    assert_true(main_rows->ids == before && main_rows->capacity == 40);
    batch = make_batch(20, 0);
    assert_ok(calls->begin(device, &batch));
    assert_true(main_rows->tokens == 40);
    assert_ints(main_rows->targets, targets, 20, 40, -1);
}

static void assert_floats(const float *from, const float *expected, int64_t n, int64_t end, float padding) {
    float there[TOKENS];
    assert_ok(calls->read(device, there, from, (size_t)end * sizeof *there));
    for (int64_t i = 0; i < end; i++)
        assert_true(there[i] == (i < n ? expected[i] : padding));
}

enum { SOURCES = 24, ROOM_OF_SOURCES = 40, ROOM_OF_POOLED = 6 };

static const espl_capacity all_streams[ESPL_N_STREAMS] = {{TOKENS, SEGMENTS, 0}, {ROOM_OF_SOURCES, SEGMENTS, 0}, {ROOM_OF_POOLED, 0, 0}};

/* The encoder's tokens, in three segments, and a label for each segment of the main stream. */
static void assert_streams(const espl_batch *main) {
    const espl__rows *own = &device->rows[ESPL_STREAM_MAIN], *source = &device->rows[ESPL_STREAM_SOURCE],
                     *pooled = &device->rows[ESPL_STREAM_POOLED];
    int32_t begin[TOKENS] = {0}, end[TOKENS] = {0};
    for (int s = 0; s < main->n_segments; s++)
        for (int i = main->segments[s]; i < main->segments[s + 1]; i++) {
            begin[i] = main->source->segments[main->source_segment ? main->source_segment[s] : s];
            end[i] = main->source->segments[(main->source_segment ? main->source_segment[s] : s) + 1];
        }
    assert_ints(own->cross_begin, begin, main->n, TOKENS, 0);
    assert_ints(own->cross_end, end, main->n, TOKENS, 0);
    assert_true(own->tokens == TOKENS && source->tokens == ROOM_OF_SOURCES && pooled->tokens == ROOM_OF_POOLED);
    assert_ints(source->ids, main->source->ids, SOURCES, ROOM_OF_SOURCES, 0);
    assert_rows(source->row_begin, source->row_end, main->source, ROOM_OF_SOURCES);
    assert_ints(source->types, NULL, 0, ROOM_OF_SOURCES, 0);
    assert_floats(source->weights, NULL, 0, ROOM_OF_SOURCES, 1.0f);
    assert_ints(own->types, main->types, main->n, TOKENS, 0);
    assert_floats(own->weights, main->weights, main->n, TOKENS, 1.0f);
    assert_ints(pooled->targets, main->pooled->targets, 3, ROOM_OF_POOLED, -1);
    assert_floats(pooled->weights, main->pooled->weights, 3, ROOM_OF_POOLED, 1.0f);
}

static void streams_lie_side_by_side(void **state) {
    (void)state;
    static const int32_t source_segments[] = {0, 7, 8, SOURCES}, which[] = {2, 0, 1}, labels[] = {1, 0, 4};
    static const float label_weights[] = {0.5f, 2.0f, 0.25f};
    int32_t types[TOKENS], source_ids[SOURCES], source_positions[SOURCES];
    float weights[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        types[i] = i % 3, weights[i] = 0.25f * (float)i;
    for (int i = 0; i < SOURCES; i++)
        source_ids[i] = 3 * i + 1, source_positions[i] = i % 5;
    const espl_batch pooled = {.n = 3, .targets = labels, .weights = label_weights};
    const espl_batch source = {
        .n = SOURCES, .n_segments = 3, .segments = source_segments, .ids = source_ids, .positions = source_positions};
    assert_ok(calls->reserve(device, all_streams));
    for (int shuffled = 0; shuffled < 2; shuffled++) {
        espl_batch batch = make_batch(70, 1);
        batch.types = types, batch.weights = weights, batch.source = &source, batch.pooled = &pooled;
        batch.source_segment = shuffled ? which : NULL;
        assert_ok(calls->begin(device, &batch));
        assert_streams(&batch);
    }
    espl_batch alone = make_batch(70, 2); /* nothing is left of the one before */
    assert_ok(calls->begin(device, &alone));
    assert_ints(device->rows[ESPL_STREAM_MAIN].cross_end, NULL, 0, TOKENS, 0);
    assert_ints(device->rows[ESPL_STREAM_SOURCE].ids, NULL, 0, ROOM_OF_SOURCES, 0);
    assert_ints(device->rows[ESPL_STREAM_POOLED].targets, NULL, 0, ROOM_OF_POOLED, -1);
}

/* What the plan says of a micro-batch grows with its streams, and those that are absent take nothing. */
static void streams_take_what_they_need(void **state) {
    (void)state;
    const espl_capacity main_only[ESPL_N_STREAMS] = {{1024, 64, 0}};
    const espl_capacity pooled[ESPL_N_STREAMS] = {{1024, 64, 0}, {0, 0, 0}, {64, 0, 0}};
    const espl_capacity source[ESPL_N_STREAMS] = {{1024, 64, 0}, {4096, 64, 0}, {0, 0, 0}};
    size_t bytes = espl_backend_batch_bytes(main_only);
    assert_true(bytes >= 7 * 4096 && bytes < 7 * 4096 + 2048);
    assert_int_equal(espl_backend_batch_bytes(pooled) - bytes, 3 * 256);
    assert_int_equal(espl_backend_batch_bytes(source) - bytes, 256 + 7 * 4 * 4096 + 512 + 2 * 4 * 4096 + 2 * 4096);
}

/* ---- Kernels: rows of a table by the ids of the micro-batch. */

static float *table, *rows;

static void make_table(void) {
    float values[VOCAB * WIDTH];
    for (int i = 0; i < VOCAB * WIDTH; i++)
        values[i] = (float)i;
    table = on_device(sizeof values);
    rows = on_device(TOKENS * WIDTH * sizeof *rows);
    assert_ok(calls->write(device, table, values, sizeof values));
}

static void free_table(void) {
    calls->release(device, table, VOCAB * WIDTH * sizeof *table);
    calls->release(device, rows, TOKENS * WIDTH * sizeof *rows);
}

static void look_up(void) {
    static const espl_attrs attrs = {.n_out = WIDTH, .vocab = VOCAB, .scale = 1.0f};
    static const espl_batch none; /* whatever varies comes from the device */
    const espl_args args = {.attrs = &attrs, .batch = &none, .out = {rows}, .param = {table}};
    backend->fp32->forward[ESPL_OP_EMBED](&args);
}

static void assert_looked_up(const float *from, int n, int salt) {
    float there[TOKENS * WIDTH];
    assert_ok(calls->read(device, there, from, sizeof there));
    for (int i = 0; i < TOKENS; i++)
        for (int j = 0; j < WIDTH; j++)
            assert_true(there[i * WIDTH + j] == (float)((i < n ? (i * 3 + salt) % VOCAB : 0) * WIDTH + j));
}

/* Five micro-batches without a look at the first: more than there are pinned blocks. */
static void many_micro_batches_follow_each_other(bool recorded) {
    enum { MANY = 5 };
    const size_t bytes = TOKENS * WIDTH * sizeof(float);
    espl_graph *graph = NULL;
    assert_ok(reserve_main(TOKENS, SEGMENTS));
    make_table();
    float *kept = on_device(MANY * bytes);
    if (recorded) {
        assert_ok(calls->record(device));
        look_up();
        assert_ok(calls->recorded(device, &graph));
    }
    for (int k = 0; k < MANY; k++) {
        espl_batch batch = make_batch(TOKENS - 11 * k, k);
        assert_ok(calls->begin(device, &batch));
        if (recorded)
            assert_ok(calls->replay(device, graph));
        else
            look_up();
        backend->fp32->copy((char *)kept + (size_t)k * bytes, rows, bytes);
    }
    for (int k = 0; k < MANY; k++)
        assert_looked_up((const float *)((const char *)kept + (size_t)k * bytes), TOKENS - 11 * k, k);
    calls->forget(device, &graph);
    calls->release(device, kept, MANY * bytes);
    free_table();
}

static void micro_batches_wait_their_turn(void **state) {
    (void)state;
    many_micro_batches_follow_each_other(false);
}

static void a_recording_works_on_each_micro_batch(void **state) {
    (void)state;
    many_micro_batches_follow_each_other(true);
}

static void a_recording_runs_nothing(void **state) {
    (void)state;
    float marker = 77, there;
    assert_ok(reserve_main(TOKENS, SEGMENTS));
    make_table();
    espl_batch batch = make_batch(TOKENS, 1);
    assert_ok(calls->begin(device, &batch));
    assert_ok(calls->write(device, rows, &marker, sizeof marker));
    espl_graph *graph;
    assert_ok(calls->record(device));
    look_up();
    assert_ok(calls->mark(device, 9));
    assert_ok(calls->recorded(device, &graph));
    assert_ok(calls->read(device, &there, rows, sizeof there));
    assert_true(there == marker);
    assert_ok(calls->replay(device, graph));
    assert_looked_up(rows, TOKENS, 1);
    calls->after(device, 9);
    calls->forget(device, &graph);
    calls->forget(device, &graph);
    free_table();
}

/* ---- Snapshots. */

enum { PIECES = 3, PIECE_FLOATS = 1000 };

static char *page_aligned(size_t bytes) {
    char *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(memory, 0x55, bytes);
    return memory;
}

/* Work that changes nothing goes on beside a copy that is put off; work that changes what is copied waits for it on the device. */
static void snapshots_are_of_their_moment(void **state) {
    (void)state;
    enum { ROUNDS = 3 };
    const size_t piece = PIECE_FLOATS * sizeof(float), bytes = PIECES * piece;
    float *memory = on_device(bytes), *other = on_device(piece), values[PIECE_FLOATS];
    float *snapshot = (float *)page_aligned(bytes);
    assert_ok(calls->let_fetch(device)); /* nothing is under way */
    assert_ok(calls->fetched(device));
    assert_ok(calls->pin(device, snapshot, bytes));
    for (int round = 1; round <= ROUNDS; round++) {
        for (int i = 0; i < PIECE_FLOATS; i++)
            values[i] = (float)(i + 10000 * round);
        setenv("EMU_COPIES", "late:1000000", 1);
        for (int k = 0; k < PIECES; k++) {
            assert_ok(calls->write(device, memory + k * PIECE_FLOATS, values, piece));
            assert_ok(calls->fetch(device, snapshot + k * PIECE_FLOATS, memory + k * PIECE_FLOATS, piece));
        }
        backend->fp32->copy(other, memory, piece);
        assert_ok(calls->read(device, values, other, piece));
        assert_true(values[7] == (float)(7 + 10000 * round) && snapshot[7] != values[7]);
        assert_ok(calls->let_fetch(device));
        backend->fp32->zero(memory, bytes);
        assert_ok(calls->read(device, values, memory, piece));
        assert_true(values[7] == 0);
        unsetenv("EMU_COPIES");
        assert_ok(calls->fetched(device));
        for (int i = 0; i < PIECES * PIECE_FLOATS; i++)
            assert_true(snapshot[i] == (float)(i % PIECE_FLOATS + 10000 * round));
    }
    calls->unpin(device, snapshot);
    calls->release(device, memory, bytes);
    calls->release(device, other, piece);
    free(snapshot);
}

/* Such memory takes copies as well. */
static void memory_that_cannot_be_pinned_is_told(void **state) {
    (void)state;
    float value = 3, *memory = on_device(sizeof value), *snapshot = (float *)page_aligned(sizeof value);
    setenv("EMU_PINNED", "4000", 1);
    assert_int_equal(calls->pin(device, snapshot, 4096), ESPL_ERR_USAGE);
    unsetenv("EMU_PINNED");
    assert_message("0.0 MiB of host memory cannot be pinned for copies from GPU 0: out of memory");
    assert_ok(calls->write(device, memory, &value, sizeof value));
    assert_ok(calls->fetch(device, snapshot, memory, sizeof value));
    assert_ok(calls->let_fetch(device));
    backend->fp32->zero(memory, sizeof value);
    assert_ok(calls->fetched(device));
    assert_true(*snapshot == 3);
    calls->release(device, memory, sizeof value);
    free(snapshot);
}

/* ---- Failures. A device that has failed stays so for the process, so each has one of its own. */

static void in_child(void (*body)(void)) {
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void need(bool holds, const char *what) {
    if (holds)
        return;
    fprintf(stderr, "%s: %s\n", what, espl_status_message());
    _exit(1);
}

static void fail_in_kernel(void) {
    open_device(NULL);
    need(reserve_main(TOKENS, SEGMENTS) == ESPL_OK, "reserve");
    make_table();
    espl_batch batch = make_batch(TOKENS, 1);
    need(calls->begin(device, &batch) == ESPL_OK && calls->sync(device) == ESPL_OK, "before");
    setenv("EMU_LAUNCH_FAIL", "embed", 1);
    look_up();
    need(calls->sync(device) == ESPL_ERR_IO, "sync");
    const bool at_once = strcmp(getenv("EMU_STREAMS"), "early") == 0; /* as under CUDA_LAUNCH_BLOCKING=1 */
    need(!at_once || strstr(espl_status_message(), "GPU 0 failed in embed"), "named");
    need(strstr(espl_status_message(), "cudaErrorIllegalAddress") != NULL, "said");
    need(strstr(espl_status_message(), "CUDA_LAUNCH_BLOCKING=1") != NULL, "what to do");
    float there;
    need(calls->read(device, &there, rows, sizeof there) == ESPL_ERR_IO, "and again");
    need(calls->fetched(device) == ESPL_ERR_IO, "and to who waits for a snapshot");
    calls->close(&device);
}

static void a_failing_kernel_is_told(void **state) {
    (void)state;
    in_child(fail_in_kernel);
}

static void fail_to_launch(void) {
    open_device(NULL);
    need(reserve_main(TOKENS, SEGMENTS) == ESPL_OK, "reserve");
    make_table();
    espl_attrs attrs = {.n_out = WIDTH, .vocab = VOCAB, .scale = 1.0f};
    espl_args args = {.attrs = &attrs, .out = {rows}, .param = {table}};
    main_rows->tokens = (int64_t)1 << 40; /* more blocks than a grid has */
    backend->fp32->forward[ESPL_OP_EMBED](&args);
    need(calls->sync(device) == ESPL_ERR_IO, "sync");
    need(strstr(espl_status_message(), "GPU 0 failed in embed") != NULL, "named");
    need(strstr(espl_status_message(), "CUDA_LAUNCH_BLOCKING") == NULL, "it is sure");
    calls->close(&device);
}

static void a_refused_launch_is_named(void **state) {
    (void)state;
    in_child(fail_to_launch);
}

/* ---- No device. */

static void expect_no_device(const char *variable, const char *value, const char *message) {
    int n = 99;
    setenv(variable, value, 1);
    assert_int_equal(calls->count(&n), ESPL_ERR_USAGE);
    unsetenv(variable);
    assert_int_equal(n, 0);
    assert_message(message);
    espl_status_clear();
}

static void absent_devices_are_told(void **state) {
    (void)state;
    int n = 0;
    expect_no_device("EMU_DEVICES", "-1", "there is no NVIDIA driver on this machine");
    expect_no_device("EMU_DRIVER", "12040", "is made for CUDA 12.4, this build needs 13.0: update the driver");
    expect_no_device("EMU_DEVICES", "0", "no GPU that this process may use (CUDA_VISIBLE_DEVICES is not set)");
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    expect_no_device("EMU_DEVICES", "0", "CUDA_VISIBLE_DEVICES is set to nothing");
    unsetenv("CUDA_VISIBLE_DEVICES");
    setenv("EMU_DEVICES", "3", 1);
    assert_true(calls->count(&n) == ESPL_OK && n == 3);
    unsetenv("EMU_DEVICES");
}

static void expect_closed(const char *variable, const char *value, int ordinal, const char *message) {
    espl_device *other;
    setenv(variable, value, 1);
    assert_int_equal(calls->open(ordinal, &other), ESPL_ERR_USAGE);
    unsetenv(variable);
    assert_null(other);
    assert_message(message);
    espl_status_clear();
}

static void devices_that_do_not_open_are_told(void **state) {
    (void)state;
    expect_closed("EMU_BUSY", "1", 0, "GPU 0 is taken: another process uses it");
    expect_closed("EMU_CAPABILITY", "75", 0, "has compute capability 7.5; the kernels need 8.0 or newer");
    expect_closed("EMU_DEVICES", "-1", 0, "there is no NVIDIA driver on this machine");
    expect_closed("EMU_DEVICES", "2", 5, "GPU 5 is asked for, this process may use 2");
    espl_device *none = NULL;
    calls->close(&none);
}

static void another_version_is_refused(void **state) {
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s/libespalier_emu.so", getenv("ESPL_BACKEND_DIR"));
    void *library = dlopen(path, RTLD_NOW);
    assert_non_null(library);
    espl_backend_get_fn *get;
    *(void **)&get = dlsym(library, "espl_backend_get");
    assert_non_null(get(ESPL_DEVICE_VERSION));
    assert_null(get(ESPL_DEVICE_VERSION + 1));
    dlclose(library);
}

#define ON_DEVICE(test) cmocka_unit_test_setup_teardown(test, open_device, close_device)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_devices_are_told),
        cmocka_unit_test(devices_that_do_not_open_are_told),
        cmocka_unit_test(another_version_is_refused),
        ON_DEVICE(far_memory_is_memory),
        ON_DEVICE(memory_is_zeroed),
        ON_DEVICE(big_copies_arrive),
        ON_DEVICE(too_much_memory_is_told),
        ON_DEVICE(the_device_is_described),
        ON_DEVICE(short_batches_are_padded),
        ON_DEVICE(generation_takes_its_own_rows),
        ON_DEVICE(room_grows),
        ON_DEVICE(streams_lie_side_by_side),
        ON_DEVICE(streams_take_what_they_need),
        ON_DEVICE(micro_batches_wait_their_turn),
        ON_DEVICE(a_recording_works_on_each_micro_batch),
        ON_DEVICE(a_recording_runs_nothing),
        ON_DEVICE(snapshots_are_of_their_moment),
        ON_DEVICE(memory_that_cannot_be_pinned_is_told),
        cmocka_unit_test(a_failing_kernel_is_told),
        cmocka_unit_test(a_refused_launch_is_named),
    };
    int failed = 0;
    find_emulator();
    for (int i = 0; i < N_SCHEDULES; i++) {
        setenv("EMU_STREAMS", schedules[i], 1);
        failed += cmocka_run_group_tests_name(schedules[i], tests, NULL, NULL);
    }
    return failed;
}
