// test: libs=kernels,comm,core ranks=1+2+4 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/bulk.h"
#include "src/core/clock.h"

#include <string.h>

#include "tests/unit/emu_device.h"

enum { N_SIZES = 4, PIECE = 9000 /* elements of a shard that are exchanged at a time */ };
static const size_t per_rank[N_SIZES] = {1, 256, 1003, 70004}; /* elements; odd ones are not added by fours */

static espl_comm *comm;
static const espl_ranks *ranks;
static float *expected[N_SIZES];  /* own shards of trees, as MPI adds them */
static float *exchanged[N_SIZES]; /* and of sums that travel as bf16, by MPI and the reference's kernels */

static size_t total(int size) { return per_rank[size] * (size_t)ranks->size; }
static size_t shard_of(int size) { return total(size) / (size_t)ranks->group_size; }

/* Sums of such numbers depend on the order. */
static float *make_values(int size) {
    float *values = malloc(total(size) * sizeof *values);
    espl_rng_key key = {.seed = 5, .purpose = ESPL_RNG_TEST, .micro = (uint32_t)ranks->rank, .op = (uint32_t)size};
    for (size_t i = 0; i < total(size); i++)
        values[i] = (float)espl_rng_normal(&key, i);
    return values;
}

static espl_exchange exchange_in(void *outgoing, void *incoming) {
    const espl_kernels *ref = espl_kernels_ref(ESPL_F32);
    return (espl_exchange){outgoing, incoming, PIECE, ref->round_parts, ref->add_parts};
}

static size_t stage_bytes(void) { return (size_t)PIECE * (size_t)ranks->size * sizeof(espl_bf16); }

static float *own_shard(const float *values, int s) {
    float *own = malloc(shard_of(s) * sizeof *own);
    memcpy(own, values + (size_t)ranks->place * shard_of(s), shard_of(s) * sizeof *own);
    return own;
}

/* All under way at once, in one stage. */
static void exchange_by_mpi(void) {
    espl_exchange exchange = exchange_in(malloc(stage_bytes()), malloc(stage_bytes()));
    float *values[N_SIZES];
    espl_request request[N_SIZES];
    for (int s = 0; s < N_SIZES; s++) {
        values[s] = make_values(s);
        assert_ok(espl_comm_exchange_start(comm, &exchange, values[s], total(s), &request[s]));
    }
    for (int s = N_SIZES - 1; s >= 0; s--) {
        assert_ok(espl_comm_wait(comm, request[s]));
        exchanged[s] = own_shard(values[s], s);
        free(values[s]);
    }
    free(exchange.outgoing);
    free(exchange.incoming);
}

/* Before the device brings its own operations. */
static void add_by_mpi(void) {
    if (ranks->n_groups == 1)
        exchange_by_mpi();
    for (int s = 0; s < N_SIZES; s++) {
        float *values = make_values(s), *stage = malloc(total(s) * sizeof *stage);
        espl_request request;
        assert_ok(espl_comm_reduce_scatter_start(comm, values, stage, total(s), 1, &request));
        assert_ok(espl_comm_wait(comm, request));
        expected[s] = own_shard(values, s);
        free(values);
        free(stage);
    }
}

/* Memory of operations stays until the bulk is closed. */
static void *taken[64];
static int n_taken;

static void *take(size_t bytes) {
    assert_true(n_taken < 64);
    return taken[n_taken++] = on_device(bytes);
}

static void release_taken(void) {
    while (n_taken > 0)
        calls->release(device, taken[--n_taken], 0);
}

static int begin_bulk(void **state) {
    if (open_device(state) != 0)
        return 1;
    setenv("EMU_NCCL_REGISTERED", "1", 1);
    assert_ok(espl_comm_use_bulk(comm, backend->bulk, device, 60.0));
    return 0;
}

static int end_bulk(void **state) {
    espl_comm_end_bulk(comm);
    release_taken();
    assert_ok(calls->sync(device)); /* nothing was freed under NCCL */
    unsetenv("EMU_NCCL_REGISTERED");
    return close_device(state);
}

static float *to_device(const float *values, size_t n) {
    float *memory = take(n * sizeof *values);
    assert_ok(calls->write(device, memory, values, n * sizeof *values));
    return memory;
}

/* All under way at once. */
static void trees_have_the_bits_of_mpi(void **state) {
    (void)state;
    float *data[N_SIZES], *stage[N_SIZES];
    espl_request request[N_SIZES];
    for (int s = 0; s < N_SIZES; s++) {
        float *values = make_values(s);
        data[s] = to_device(values, total(s));
        stage[s] = take(total(s) * sizeof(float));
        assert_ok(espl_comm_reduce_scatter_start(comm, data[s], stage[s], total(s), 1, &request[s]));
        assert_ok(espl_comm_progress(comm));
        free(values);
    }
    for (int s = 0; s < N_SIZES; s++) {
        float *own = malloc(shard_of(s) * sizeof *own);
        assert_ok(espl_comm_wait(comm, request[s]));
        assert_ok(calls->read(device, own, data[s] + (size_t)ranks->place * shard_of(s), shard_of(s) * sizeof *own));
        assert_memory_equal(own, expected[s], shard_of(s) * sizeof *own);
        free(own);
    }
}

/* All under way at once; the largest in eight pieces, the last of which is not added by eights. What travels is half. */
static void exchanges_have_the_bits_of_mpi(void **state) {
    (void)state;
    const espl_exchange exchange = exchange_in(take(stage_bytes()), take(stage_bytes()));
    float *data[N_SIZES];
    espl_request request[N_SIZES];
    int64_t sent = espl_comm_bytes_sent(comm), elements = 0;
    bool differs = false;
    for (int s = 0; s < N_SIZES; s++) {
        float *values = make_values(s);
        data[s] = to_device(values, total(s));
        assert_ok(espl_comm_exchange_start(comm, &exchange, data[s], total(s), &request[s]));
        assert_ok(espl_comm_progress(comm));
        elements += (int64_t)per_rank[s];
        free(values);
    }
    for (int s = 0; s < N_SIZES; s++) {
        float *own = malloc(per_rank[s] * sizeof *own);
        assert_ok(espl_comm_wait(comm, request[s]));
        assert_ok(calls->read(device, own, data[s] + (size_t)ranks->rank * per_rank[s], per_rank[s] * sizeof *own));
        assert_memory_equal(own, exchanged[s], per_rank[s] * sizeof *own);
        differs |= memcmp(own, expected[s], per_rank[s] * sizeof *own) != 0;
        free(own);
    }
    assert_true(differs == (ranks->size > 1)); /* control: sums of fp32 have other bits */
    assert_int_equal(espl_comm_bytes_sent(comm) - sent, elements * 2 * (ranks->size - 1));
}

/* Integers: the sum is exact in any order. */
static void fast_sums_are_right(void **state) {
    (void)state;
    for (int s = 0; s < N_SIZES; s++) {
        float *values = malloc(total(s) * sizeof *values);
        for (size_t i = 0; i < total(s); i++)
            values[i] = (float)((i * 7 + (size_t)ranks->rank * 13) % 1000);
        float *data = to_device(values, total(s)), *stage = take(shard_of(s) * sizeof *stage);
        espl_request request;
        assert_ok(espl_comm_reduce_scatter_start(comm, data, stage, total(s), 0, &request));
        assert_ok(espl_comm_wait(comm, request));
        size_t begin = (size_t)ranks->place * shard_of(s);
        assert_ok(calls->read(device, values, data + begin, shard_of(s) * sizeof *values));
        for (size_t i = 0; i < shard_of(s); i++) {
            float sum = 0;
            for (size_t r = 0; r < (size_t)ranks->size; r++)
                sum += (float)(((begin + i) * 7 + r * 13) % 1000);
            assert_true(values[i] == sum);
        }
        free(values);
    }
}

/* The lowest rank of the group. */
static int first_rank(void) { return ranks->rank - ranks->place; }

static void gathers_spread_bytes(void **state) {
    (void)state;
    enum { SHARD = 1001 };
    size_t bytes = (size_t)SHARD * (size_t)ranks->group_size;
    unsigned char *values = calloc(1, bytes), *data = take(bytes);
    memset(values + (size_t)ranks->place * SHARD, 40 + ranks->rank, SHARD);
    assert_ok(calls->write(device, data, values, bytes));
    espl_request request;
    assert_ok(espl_comm_allgather_start(comm, data, bytes, &request));
    assert_ok(espl_comm_wait(comm, request));
    assert_ok(calls->read(device, values, data, bytes));
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(values[i], 40 + (size_t)first_rank() + i / SHARD);
    free(values);
}

/* A recording copies what is sent, sets a mark and overwrites what it was copied from; the gather may not begin before the mark of its own
 * replay, and what follows on the compute stream not before the gather. */
static void gathers_begin_at_marks(void **state) {
    (void)state;
    enum { SHARD = 64, STEPS = 6, MARK = 3 };
    const size_t n = (size_t)SHARD * (size_t)ranks->group_size, bytes = n * sizeof(float);
    float *source = take(bytes), *data = take(bytes), *kept = take(STEPS * bytes), *values = malloc(STEPS * bytes);
    espl_graph *graph;
    assert_ok(calls->record(device));
    backend->fp32->copy(data, source, bytes);
    assert_ok(calls->mark(device, MARK));
    backend->fp32->zero(source, bytes);
    assert_ok(espl_comm_progress(comm)); /* as between the calls of a tape */
    assert_ok(calls->recorded(device, &graph));
    for (int step = 0; step < STEPS; step++) {
        espl_request request;
        for (size_t i = 0; i < n; i++)
            values[i] = (float)(100 * step + ranks->rank);
        assert_ok(calls->write(device, source, values, bytes));
        assert_ok(calls->replay(device, graph));
        calls->after(device, MARK);
        assert_ok(espl_comm_allgather_start(comm, data, bytes, &request));
        assert_ok(espl_comm_wait(comm, request));
        backend->fp32->copy(kept + (size_t)step * n, data, bytes);
    }
    assert_ok(calls->read(device, values, kept, STEPS * bytes));
    for (int step = 0; step < STEPS; step++)
        for (size_t i = 0; i < n; i++)
            assert_true(values[(size_t)step * n + i] == (float)(100 * step + first_rank() + (int)(i / SHARD)));
    calls->forget(device, &graph);
    free(values);
}

/* A mark holds for one operation: the next is behind all that is enqueued. What that copies is itself behind the first operation, so that a
 * schedule at random could begin the second too early. */
static void a_mark_holds_once(void **state) {
    (void)state;
    enum { SHARD = 64, MARK = 5, ROUNDS = 12 };
    const size_t n = (size_t)SHARD * (size_t)ranks->group_size, bytes = n * sizeof(float);
    float *source = take(bytes), *first = take(bytes), *second = take(bytes), *values = malloc(bytes);
    for (int round = 0; round < ROUNDS; round++) {
        espl_request request;
        for (size_t i = 0; i < n; i++)
            values[i] = (float)(10 * round + ranks->rank);
        assert_ok(calls->write(device, source, values, bytes));
        assert_ok(calls->mark(device, MARK));
        calls->after(device, MARK);
        assert_ok(espl_comm_allgather_start(comm, first, bytes, &request));
        assert_ok(espl_comm_wait(comm, request));
        backend->fp32->copy(second, source, bytes);
        assert_ok(espl_comm_allgather_start(comm, second, bytes, &request));
        for (int i = 0; i < 4; i++)
            assert_ok(calls->mark(device, MARK)); /* calls, at which a schedule may run something */
        assert_ok(espl_comm_wait(comm, request));
        assert_ok(calls->read(device, values, second, bytes));
        for (size_t i = 0; i < n; i++)
            assert_true(values[i] == (float)(10 * round + first_rank() + (int)(i / SHARD)));
    }
    free(values);
}

/* More operations than there are places for, one after the other. */
static void time_and_bytes_are_counted(void **state) {
    (void)state;
    enum { SHARD = 512, OPERATIONS = ESPL_MAX_REQUESTS + 40 };
    const size_t n = (size_t)SHARD * (size_t)ranks->group_size;
    float *data = take(n * sizeof *data), first;
    int64_t sent = espl_comm_bytes_sent(comm);
    for (int i = 0; i < OPERATIONS; i++) {
        espl_request request;
        assert_ok(espl_comm_allgather_start(comm, data, n * sizeof *data, &request));
        assert_true(ranks->size > 1 ? request >= 0 : request == -1);
        assert_ok(espl_comm_wait(comm, request));
    }
    assert_ok(calls->read(device, &first, data, sizeof first));
    assert_int_equal(espl_comm_bytes_sent(comm) - sent, (int64_t)OPERATIONS * SHARD * 4 * (ranks->group_size - 1));
    double busy = espl_comm_busy_seconds(comm), waiting = espl_comm_wait_seconds(comm);
    assert_true(ranks->size > 1 ? busy > 0 : busy == 0);
    assert_true(waiting >= 0 && busy < 60 && waiting < 60);
}

/* Within a group as if there were no others; then of a shard a sum over the groups, there and back. */
static void groups_send_shards(void **state) {
    (void)state;
    enum { PART = 512 };
    const size_t n = (size_t)PART * (size_t)ranks->size;
    float *data = take(n * sizeof *data), *stage = take(n * sizeof *stage);
    for (int tree = 0; tree < 2; tree++) {
        int64_t sent = espl_comm_bytes_sent(comm);
        espl_request request;
        assert_ok(espl_comm_reduce_scatter_start(comm, data, stage, n, tree, &request));
        assert_ok(espl_comm_wait(comm, request));
        int64_t inside = (int64_t)PART * ranks->n_groups * (ranks->group_size - 1), across = (int64_t)2 * PART * (ranks->n_groups - 1);
        assert_int_equal(espl_comm_bytes_sent(comm) - sent, 4 * (inside + across));
    }
}

/* ---- Failures. */

static espl_status use_with_fault(const char *fault, double seconds) {
    setenv("EMU_NCCL_FAIL", fault, 1);
    espl_status status = espl_comm_use_bulk(comm, backend->bulk, device, seconds);
    unsetenv("EMU_NCCL_FAIL");
    return status;
}

static void a_rank_that_never_comes_is_told(void **state) {
    (void)state;
    double start = espl_now();
    if (ranks->size == 1)
        return;
    assert_int_equal(use_with_fault("absent:1", 1.0), ESPL_ERR_IO);
    assert_true(espl_now() - start < 20);
    int teller, waiter; /* whoever gives up first */
    assert_int_equal(sscanf(espl_status_message(), "rank %d: rank %d of ", &teller, &waiter), 2);
    assert_int_equal(teller, waiter);
    assert_message(" waited 1 s for NCCL 2.");
    assert_message(" to find the other ranks, and MPI says that they are there");
    assert_ok(espl_comm_barrier(comm));
}

/* The others are waiting for it, and learn it from MPI at once. Afterwards all can begin anew. */
static void a_rank_that_cannot_start_is_told(void **state) {
    (void)state;
    double start = espl_now();
    char fault[32], expected[96];
    const int bad = ranks->size - 1;
    if (ranks->size == 1)
        return;
    snprintf(fault, sizeof fault, "init:%d", bad);
    snprintf(expected, sizeof expected, "rank %d: NCCL failed on rank %d of %d in start: unhandled system error", bad, bad, ranks->size);
    assert_int_equal(use_with_fault(fault, 600.0), ESPL_ERR_IO);
    assert_message(expected);
    assert_true(espl_now() - start < 20);
    assert_ok(espl_comm_use_bulk(comm, backend->bulk, device, 60.0));
    espl_comm_end_bulk(comm);
}

/* Ranks come late by themselves, each at another time. */
static void ranks_find_each_other_by_themselves(espl_bulk *bulk) {
    const espl_bulk_calls *table = backend->bulk;
    double start = espl_now();
    for (bool all = false; !all;) {
        assert_ok(table->joined(bulk, &all));
        assert_true(espl_now() - start < 20);
    }
}

static espl_status gather(espl_bulk *bulk, void *data) {
    const espl_bulk_calls *table = backend->bulk;
    espl_request request;
    ESPL_TRY(table->allgather_start(bulk, data, (size_t)ranks->size * 4096, &request));
    return table->wait(bulk, request);
}

/* The first goes well, the second on one rank not: it says so at once or while it waits for its device, which would never come. */
static void an_error_on_the_way_is_told(void **state) {
    (void)state;
    const espl_bulk_calls *table = backend->bulk;
    espl_bulk *bulk;
    double start = espl_now();
    if (ranks->size == 1)
        return;
    espl_bulk_team teams[2] = {{.rank = ranks->rank, .size = ranks->size}, {.size = 1}};
    if (ranks->rank == 0)
        assert_ok(table->identity(teams[0].identity));
    assert_ok(espl_comm_bcast(comm, teams[0].identity, sizeof teams[0].identity, 0));
    setenv("EMU_NCCL_FAIL", "async:1:1", 1);
    assert_ok(table->open(device, teams, &bulk));
    ranks_find_each_other_by_themselves(bulk);
    float *data = on_device((size_t)ranks->size * 4096), there;
    assert_ok(gather(bulk, data));
    assert_ok(calls->read(device, &there, data, sizeof there));
    assert_ok(espl_comm_barrier(comm));
    espl_status status = gather(bulk, data);
    if (ranks->rank == 1) {
        if (status == ESPL_OK)
            status = calls->read(device, &there, data, sizeof there);
        assert_int_equal(status, ESPL_ERR_IO);
        assert_message("NCCL failed on rank 1 of ");
        assert_message(" in all-gather of 0.0");
        assert_message("number 3 of NCCL's operations: remote process exited");
    }
    assert_true(espl_now() - start < 20);
    assert_ok(espl_comm_barrier(comm));
    table->abort(bulk); /* what the watchdog does */
    table->close(&bulk);
    unsetenv("EMU_NCCL_FAIL");
}

#define WITH_BULK(test) cmocka_unit_test_setup_teardown(test, begin_bulk, end_bulk)
#define ON_DEVICE(test) cmocka_unit_test_setup_teardown(test, open_device, close_device)

static int run_all(void) {
    const struct CMUnitTest tests[] = {
        WITH_BULK(trees_have_the_bits_of_mpi),     WITH_BULK(fast_sums_are_right),
        WITH_BULK(gathers_spread_bytes),           WITH_BULK(a_mark_holds_once),
        WITH_BULK(gathers_begin_at_marks),         WITH_BULK(time_and_bytes_are_counted),
        WITH_BULK(exchanges_have_the_bits_of_mpi),
    };
    const struct CMUnitTest failures[] = {
        ON_DEVICE(a_rank_that_never_comes_is_told),
        ON_DEVICE(a_rank_that_cannot_start_is_told),
        ON_DEVICE(an_error_on_the_way_is_told),
    };
    int failed = 0;
    for (int i = 0; i < N_SCHEDULES; i++) {
        setenv("EMU_STREAMS", schedules[i], 1);
        failed += cmocka_run_group_tests_name(schedules[i], tests, NULL, NULL);
        if (i < 2) /* an error that is there when it is asked for, and one that comes while the host waits */
            failed += cmocka_run_group_tests_name("failures", failures, NULL, NULL);
    }
    return failed;
}

/* In the schedules in which operations are latest, and in one that no rule has made. */
static int run_in_groups(void) {
    const struct CMUnitTest tests[] = {
        WITH_BULK(trees_have_the_bits_of_mpi),
        WITH_BULK(fast_sums_are_right),
        WITH_BULK(gathers_spread_bytes),
        WITH_BULK(groups_send_shards),
    };
    int failed = 0;
    for (int i = 1; i < 3; i++) {
        setenv("EMU_STREAMS", schedules[i], 1);
        failed += cmocka_run_group_tests_name("groups of two", tests, NULL, NULL);
    }
    return failed;
}

static int with_expected(int (*run)(void)) {
    add_by_mpi();
    int failed = run();
    for (int s = 0; s < N_SIZES; s++)
        free(expected[s]);
    return failed;
}

int main(void) {
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return 1;
    ranks = espl_comm_ranks(comm);
    find_emulator();
    int failed = with_expected(run_all);
    if (ranks->size == 4) {
        espl_comm_group(comm, 2);
        failed += with_expected(run_in_groups);
    }
    espl_comm_close(&comm);
    for (int s = 0; s < N_SIZES; s++)
        free(exchanged[s]);
    return failed;
}
