// test: libs=comm,core ranks=1+2+3+4 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/comm.h"

#include <stdlib.h>
#include <string.h>

static espl_comm *comm;
static const espl_ranks *ranks;

static void ranks_are_numbered(void **state) {
    (void)state;
    assert_in_range(ranks->rank, 0, ranks->size - 1);
    int64_t sum = ranks->rank;
    assert_int_equal(espl_comm_allreduce_i64(comm, &sum, 1, ESPL_SUM), ESPL_OK);
    assert_int_equal(sum, ranks->size * (ranks->size - 1) / 2);
    assert_true(strlen(ranks->host) > 0);
}

/* Holds on one machine (where mpirun.sh runs this) and on several: nodes are numbered by their lowest rank, ranks within them in order. */
static void nodes_are_numbered(void **state) {
    (void)state;
    espl_ranks all[64];
    int n_nodes = 0;
    assert_int_equal(espl_comm_allgather(comm, ranks, sizeof *ranks, all), ESPL_OK);
    for (int r = 0; r < ranks->size; r++) {
        int before = 0, size = 0;
        for (int q = 0; q < ranks->size; q++) {
            before += q < r && all[q].node == all[r].node;
            size += all[q].node == all[r].node;
        }
        assert_true(all[r].rank == r && all[r].node_rank == before && all[r].node_size == size);
        if (before == 0)
            assert_int_equal(all[r].node, n_nodes++);
    }
    assert_int_equal(ranks->n_nodes, n_nodes);
    if (getenv("SLURM_STEP_NUM_NODES") != NULL)
        assert_int_equal(n_nodes, atoi(getenv("SLURM_STEP_NUM_NODES")));
    else
        assert_int_equal(n_nodes, 1);
}

static void integers_are_reduced(void **state) {
    (void)state;
    const int64_t big = INT64_C(1) << 40;
    int64_t v[2] = {ranks->rank * big, -ranks->rank}, w[2] = {v[0], v[1]};
    assert_int_equal(espl_comm_allreduce_i64(comm, v, 2, ESPL_MAX), ESPL_OK);
    assert_int_equal(espl_comm_allreduce_i64(comm, w, 2, ESPL_MIN), ESPL_OK);
    assert_true(v[0] == (ranks->size - 1) * big && v[1] == 0);
    assert_true(w[0] == 0 && w[1] == 1 - ranks->size);
}

static void bytes_travel(void **state) {
    (void)state;
    for (int root = 0; root < ranks->size; root++) {
        char text[32] = "";
        if (ranks->rank == root)
            snprintf(text, sizeof text, "from %d", root);
        assert_int_equal(espl_comm_bcast(comm, text, sizeof text, root), ESPL_OK);
        char expected[32];
        snprintf(expected, sizeof expected, "from %d", root);
        assert_string_equal(text, expected);
    }
    int32_t mine[2] = {ranks->rank, 7}, all[2 * 64];
    assert_int_equal(espl_comm_allgather(comm, mine, sizeof mine, all), ESPL_OK);
    for (int r = 0; r < ranks->size; r++)
        assert_true(all[2 * r] == r && all[2 * r + 1] == 7);
    assert_int_equal(espl_comm_barrier(comm), ESPL_OK);
}

/* Each rank but the last passes a growing message up; empty ones count. */
static void messages_arrive_in_order(void **state) {
    (void)state;
    enum { MOST = 1 << 20 };
    char *buffer = malloc(MOST);
    for (size_t bytes = 0; bytes <= MOST; bytes = bytes == 0 ? 1 : bytes * 32) {
        if (ranks->rank > 0) {
            memset(buffer, 0, MOST);
            assert_int_equal(espl_comm_recv(comm, buffer, bytes, ranks->rank - 1, 5), ESPL_OK);
            for (size_t i = 0; i < bytes; i++)
                assert_int_equal(buffer[i], (char)(i % 101));
        }
        for (size_t i = 0; i < bytes; i++)
            buffer[i] = (char)(i % 101);
        if (ranks->rank + 1 < ranks->size)
            assert_int_equal(espl_comm_send(comm, buffer, bytes, ranks->rank + 1, 5), ESPL_OK);
    }
    free(buffer);
}

static espl_status fail_data(void) { ESPL_FAIL(ESPL_ERR_DATA, "line %d is bad", 40 + ranks->rank); }
static espl_status fail_io(void) { ESPL_FAIL(ESPL_ERR_IO, "disk %d is full", ranks->rank); }

static void all_ranks_agree(void **state) {
    (void)state;
    assert_int_equal(espl_comm_agree(comm, ESPL_OK, "test"), ESPL_OK);
    const int last = ranks->size - 1;
    espl_status mine = ranks->rank == last ? fail_data() : ESPL_OK;
    assert_int_equal(espl_comm_agree(comm, mine, "test"), ESPL_ERR_DATA);
    char expected[64];
    snprintf(expected, sizeof expected, "rank %d: line %d is bad", last, 40 + last);
    assert_string_equal(espl_status_message(), ranks->size > 1 ? expected : "line 40 is bad");
    espl_status_clear();
    assert_int_equal(espl_comm_agree(comm, ESPL_OK, "test"), ESPL_OK);
}

/* Every rank fails in its own way: the worst wins, and of equals the lowest rank. */
static void the_worst_status_wins(void **state) {
    (void)state;
    if (ranks->size < 3)
        return;
    espl_status mine = ranks->rank == 0 ? ESPL_STOPPED : ranks->rank == 1 ? fail_data() : fail_io();
    assert_int_equal(espl_comm_agree(comm, mine, "test"), ESPL_ERR_IO);
    assert_string_equal(espl_status_message(), "rank 2: disk 2 is full");
    espl_status_clear();
}

/* Small integers: sums are exact in any order, so one expectation serves ring and tree. */
static float value_of(int rank, size_t i) { return (float)((int)((i * 7 + (size_t)rank * 13) % 1000) - 500); }

static float sum_of(size_t i) {
    float sum = 0;
    for (int r = 0; r < ranks->size; r++)
        sum += value_of(r, i);
    return sum;
}

static void check_reduce_scatter(size_t n, int tree) {
    size_t shard = n / (size_t)ranks->size, begin = shard * (size_t)ranks->rank;
    float *data = malloc(n * sizeof *data + 1), *stage = malloc(n * sizeof *stage + 1);
    for (size_t i = 0; i < n; i++)
        data[i] = value_of(ranks->rank, i);
    espl_request request;
    assert_int_equal(espl_comm_reduce_scatter_start(comm, data, stage, n, tree, &request), ESPL_OK);
    assert_int_equal(espl_comm_wait(comm, request), ESPL_OK);
    for (size_t i = begin; i < begin + shard; i++)
        assert_true(data[i] == sum_of(i));
    assert_int_equal(espl_comm_allgather_start(comm, data, n * sizeof *data, &request), ESPL_OK);
    assert_int_equal(espl_comm_wait(comm, request), ESPL_OK);
    for (size_t i = 0; i < n; i++)
        assert_true(data[i] == sum_of(i));
    free(data);
    free(stage);
}

static void shards_are_summed(void **state) {
    (void)state;
    const size_t sizes[] = {0, 1, 5, 1031, 65536};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
        check_reduce_scatter(sizes[k] * (size_t)ranks->size, 0);
        if ((ranks->size & (ranks->size - 1)) == 0)
            check_reduce_scatter(sizes[k] * (size_t)ranks->size, 1);
    }
}

static float tree_sum(const float *parts, int a, int b) {
    if (b - a == 1)
        return parts[a];
    int mid = a + (b - a) / 2;
    return tree_sum(parts, a, mid) + tree_sum(parts, mid, b);
}

/* Values whose sum depends on the order: only the stated association gives these bits. */
static void the_tree_is_the_stated_one(void **state) {
    (void)state;
    if ((ranks->size & (ranks->size - 1)) != 0)
        return;
    const size_t shard = 700, n = shard * (size_t)ranks->size;
    float *all = malloc(n * (size_t)ranks->size * sizeof *all), *data = malloc(n * sizeof *data), *stage = malloc(n * sizeof *stage);
    int depends = 0;
    srand(1);
    for (size_t i = 0; i < n * (size_t)ranks->size; i++)
        all[i] = (float)rand() / (float)(1 + rand() % 1000);
    memcpy(data, all + n * (size_t)ranks->rank, n * sizeof *data);
    espl_request request;
    assert_int_equal(espl_comm_reduce_scatter_start(comm, data, stage, n, 1, &request), ESPL_OK);
    assert_int_equal(espl_comm_wait(comm, request), ESPL_OK);
    for (size_t i = shard * (size_t)ranks->rank; i < shard * (size_t)(ranks->rank + 1); i++) {
        float parts[64], chain = 0;
        for (int r = 0; r < ranks->size; r++)
            chain += parts[r] = all[n * (size_t)r + i];
        float expected = tree_sum(parts, 0, ranks->size);
        assert_memory_equal(&data[i], &expected, sizeof expected);
        depends += chain != expected;
    }
    assert_true(ranks->size < 4 || depends > 0); /* the check can see a wrong order */
    free(all);
    free(data);
    free(stage);
}

/* Many at once, finished in another order than started, with collectives between. */
static void operations_overlap(void **state) {
    (void)state;
    enum { OPS = 40 };
    const size_t n = 512 * (size_t)ranks->size, shard = 512, begin = shard * (size_t)ranks->rank;
    float *data = malloc(OPS * n * sizeof *data), *stage = malloc(OPS * n * sizeof *stage);
    espl_request requests[OPS];
    int tree = (ranks->size & (ranks->size - 1)) == 0;
    int64_t sent = espl_comm_bytes_sent(comm);
    for (size_t k = 0; k < OPS; k++) {
        for (size_t i = 0; i < n; i++)
            data[k * n + i] = value_of(ranks->rank, i + k);
        int64_t one = 1;
        assert_int_equal(espl_comm_reduce_scatter_start(comm, data + k * n, stage + k * n, n, tree && k % 2, &requests[k]), ESPL_OK);
        assert_int_equal(espl_comm_allreduce_i64(comm, &one, 1, ESPL_SUM), ESPL_OK);
        assert_int_equal(one, ranks->size);
        assert_int_equal(espl_comm_progress(comm), ESPL_OK);
    }
    for (int k = OPS - 1; k >= 0; k--)
        assert_int_equal(espl_comm_wait(comm, requests[k]), ESPL_OK);
    for (size_t k = 0; k < OPS; k++)
        for (size_t i = begin; i < begin + shard; i++)
            assert_true(data[k * n + i] == sum_of(i + k));
    assert_int_equal(espl_comm_bytes_sent(comm) - sent, OPS * 512 * 4 * (ranks->size - 1));
    assert_true(espl_comm_wait_seconds(comm) >= 0);
    free(data);
    free(stage);
}

/* A process that srun started without a way to find its peers refuses; a batch script of a job with many tasks does not. */
static void slurm_singletons_are_refused(void **state) {
    (void)state;
    if (ranks->size > 1)
        return; /* MPI cannot be opened twice */
    espl_comm *other = NULL;
    setenv("SLURM_PROCID", "1", 1);
    setenv("SLURM_NTASKS", "4", 1);
    assert_int_equal(espl_comm_open(&other, 0), ESPL_OK);
    espl_comm_close(&other);
    setenv("SLURM_STEP_NUM_TASKS", "4", 1);
    assert_int_equal(espl_comm_open(&other, 0), ESPL_ERR_USAGE);
    assert_null(other);
    assert_non_null(strstr(espl_status_message(), "srun --mpi=pmix"));
    unsetenv("SLURM_STEP_NUM_TASKS");
    espl_status_clear();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_numbered),           cmocka_unit_test(nodes_are_numbered),
        cmocka_unit_test(integers_are_reduced),         cmocka_unit_test(bytes_travel),
        cmocka_unit_test(messages_arrive_in_order),     cmocka_unit_test(all_ranks_agree),
        cmocka_unit_test(the_worst_status_wins),        cmocka_unit_test(shards_are_summed),
        cmocka_unit_test(the_tree_is_the_stated_one),   cmocka_unit_test(operations_overlap),
        cmocka_unit_test(slurm_singletons_are_refused),
    };
    if (espl_comm_open(&comm, 0) != ESPL_OK) {
        espl_status_print_trail(stderr);
        return 1;
    }
    ranks = espl_comm_ranks(comm);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    espl_comm_close(&comm);
    return failed;
}
