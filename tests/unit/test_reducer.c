// test: libs=kernels,comm,core ranks=1+2+3+4+8 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/reducer.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_BUCKETS = 5, LOCAL = 3 /* micro-batches of a rank, where nothing else is said */ };

static espl_comm *comm;
static const espl_ranks *ranks;
static espl_bucket buckets[N_BUCKETS];
static int64_t extent;

static void add(float *to, const float *from, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        to[i] += from[i];
}

static void copy(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

static bool power_of_two(int n) { return (n & (n - 1)) == 0; }

/* Gradient of one element in one micro-batch of the global batch: of mixed magnitude, so that sums depend on their order. */
static float leaf(int64_t micro, int64_t element) {
    espl_rng_key key = {.seed = 7, .purpose = ESPL_RNG_TEST, .micro = (uint32_t)micro};
    uint32_t bits = espl_rng_u32(&key, (uint64_t)element);
    return ldexpf((float)(bits >> 8) - 8388608.0f, (int)(bits & 15) - 24);
}

/* The definition, from all leaves. */
static float tree_sum(int64_t element, int64_t a, int64_t b) {
    if (b - a == 1)
        return leaf(a, element);
    int64_t mid = a + (b - a) / 2;
    return tree_sum(element, a, mid) + tree_sum(element, mid, b);
}

typedef struct run {
    espl_reducer *reducer;
    espl_arena arena;
    float *gradients;
} run;

typedef enum way { FAST, TREE, NARROW } way;
typedef enum whole { SHARDS, REPLICATED, SHARDED } whole; /* of the sums, and SHARDED of the gradients */

static espl_status make_run(run *r, int64_t n_local, way way, whole whole) {
    espl_reducer_plan plan = {.buckets = buckets,
                              .n_buckets = N_BUCKETS,
                              .rank = ranks->place,
                              .size = ranks->group_size,
                              .n_local = n_local,
                              .tree = way == TREE,
                              .narrow = way == NARROW,
                              .chunk =
                                  5 * ESPL_SHARD_UNIT * ranks->size, /* on 2, 3, 4 ranks a bucket goes in pieces, the last one smaller */
                              .replicated = whole == REPLICATED,
                              .sharded = whole == SHARDED,
                              .add = add,
                              .copy = copy,
                              .round_parts = espl_kernels_ref(ESPL_F32)->round_parts,
                              .add_parts = espl_kernels_ref(ESPL_F32)->add_parts};
    espl_arena measure = espl_arena_measure("stage");
    *r = (run){.gradients = malloc((size_t)extent * sizeof(float))};
    ESPL_TRY(espl_reducer_make(&plan, NULL, NULL, &measure, &r->reducer));
    espl_reducer_free(&r->reducer);
    ESPL_TRY(espl_arena_bind(&r->arena, "stage", measure.used));
    ESPL_TRY(espl_reducer_make(&plan, comm, r->gradients, &r->arena, &r->reducer));
    assert_int_equal(r->arena.used, measure.used);
    return ESPL_OK;
}

static void free_run(run *r) {
    espl_reducer_free(&r->reducer);
    espl_arena_free(&r->arena);
    free(r->gradients);
}

static void backward_of_bucket(run *r, int64_t micro, int64_t i, const espl_bucket *bucket) {
    for (int64_t e = bucket->offset; e < bucket->offset + bucket->n; e++)
        r->gradients[e] = leaf(micro, e) + (espl_reducer_accumulates(r->reducer, i) ? r->gradients[e] : 0.0f);
}

static const bool all_buckets[N_BUCKETS] = {true, true, true, true, true};

/* One training step: buckets that take part become complete from the last to the first. */
static void step_of(run *r, int64_t n_local, const bool *used) {
    espl_reducer_use(r->reducer, used);
    for (int64_t i = 0; i < n_local; i++) {
        espl_reducer_begin(r->reducer, i);
        for (int b = N_BUCKETS - 1; b >= 0; b--) {
            if (!used[b])
                continue;
            backward_of_bucket(r, ranks->rank * n_local + i, i, &buckets[b]);
            if (i == n_local - 1)
                espl_reducer_merge(r->reducer, b);
            if (i == n_local - 1)
                assert_int_equal(espl_reducer_start(r->reducer, b), ESPL_OK);
            assert_int_equal(espl_comm_progress(comm), ESPL_OK);
        }
        espl_reducer_done(r->reducer, i);
    }
    assert_int_equal(espl_reducer_finish(r->reducer), ESPL_OK);
}

static void step(run *r, int64_t n_local) { step_of(r, n_local, all_buckets); }

/* Bits of elements [begin, end) against the definition; returns how many a plain chain of additions would have got wrong. */
static int64_t check_bits(const run *r, int64_t begin, int64_t end, int64_t n_global) {
    int64_t differ = 0;
    for (int64_t e = begin; e < end; e++) {
        float expected = tree_sum(e, 0, n_global), chain = 0;
        for (int64_t k = 0; k < n_global; k++)
            chain += leaf(k, e);
        assert_memory_equal(&r->gradients[e], &expected, sizeof expected);
        differ += chain != expected;
    }
    return differ;
}

/* The expectation is of the global batch alone, so passing on 1, 2, 4 and 8 ranks is having the same bits on all of them. */
static void tree_has_the_same_bits_on_any_ranks(void **state) {
    (void)state;
    static const int64_t globals[] = {8, 12, 16, 24, 40};
    for (size_t k = 0; k < sizeof globals / sizeof globals[0] && power_of_two(ranks->size); k++) {
        if (globals[k] % ranks->size != 0)
            continue;
        run r;
        int64_t n_local = globals[k] / ranks->size, differ = 0;
        assert_int_equal(make_run(&r, n_local, TREE, SHARDS), ESPL_OK);
        for (int repeat = 0; repeat < 2; repeat++) {
            step(&r, n_local);
            for (int b = 0; b < N_BUCKETS; b++) {
                int64_t begin, end;
                espl_shard_range(&buckets[b], ranks->place, ranks->group_size, &begin, &end);
                differ += check_bits(&r, begin, end, globals[k]);
            }
        }
        assert_true(differ > 0); /* the check can see a wrong order */
        free_run(&r);
    }
}

/* ---- Sharded: every micro-batch is summed over the ranks, and buckets take turns in two places. */

/* Places and stages of buckets in turn; a third of each would be free. */
static void place_in_turn(run *r, size_t places[N_BUCKETS], size_t stages[N_BUCKETS]) {
    const size_t room = (size_t)buckets[N_BUCKETS - 1].n * sizeof(float); /* the largest */
    for (int b = 0; b < N_BUCKETS; b++) {
        places[b] = (size_t)(b % 2) * room;
        stages[b] = (size_t)(2 + b % 2) * room;
    }
    espl_reducer_place(r->reducer, places, stages);
}

static void backward_in_turn(run *r, int64_t micro, int64_t i, const size_t places[N_BUCKETS]) {
    for (int b = N_BUCKETS - 1; b >= 0; b--) {
        float *data = (float *)((char *)r->gradients + places[b]);
        if (b == N_BUCKETS - 1)
            assert_int_equal(espl_reducer_settle(r->reducer), ESPL_OK);
        assert_false(espl_reducer_accumulates(r->reducer, i));
        for (int64_t e = 0; e < buckets[b].n; e++)
            data[e] = leaf(micro, buckets[b].offset + e);
        assert_int_equal(espl_reducer_start(r->reducer, b), ESPL_OK);
        assert_int_equal(espl_comm_progress(comm), ESPL_OK);
    }
}

/* Rank r has micro-batches r, r + size, ...; the sums are copied to where they are without sharding, for the checks. */
static void sharded_step(run *r, int64_t n_local) {
    size_t places[N_BUCKETS], stages[N_BUCKETS];
    place_in_turn(r, places, stages);
    for (int64_t i = 0; i < n_local; i++) {
        espl_reducer_begin(r->reducer, i);
        backward_in_turn(r, i * ranks->size + ranks->rank, i, places);
        espl_reducer_done(r->reducer, i);
    }
    assert_int_equal(espl_reducer_finish(r->reducer), ESPL_OK);
    for (int b = 0; b < N_BUCKETS; b++) {
        int64_t begin, end;
        espl_shard_range(&buckets[b], ranks->place, ranks->group_size, &begin, &end);
        memcpy(r->gradients + begin, espl_reducer_sums(r->reducer) + buckets[b].offset / ranks->group_size,
               (size_t)(end - begin) * sizeof(float));
    }
}

static int64_t check_shards(const run *r, int64_t n_global) {
    int64_t differ = 0, begin, end;
    for (int b = 0; b < N_BUCKETS; b++) {
        espl_shard_range(&buckets[b], ranks->place, ranks->group_size, &begin, &end);
        differ += check_bits(r, begin, end, n_global);
    }
    return differ;
}

/* The expectation is the one of trees that are not sharded. */
static void sharded_trees_have_the_same_bits(void **state) {
    (void)state;
    for (int64_t global = 8; global <= 32 && power_of_two(ranks->size); global *= 2) {
        run r;
        int64_t differ = 0;
        assert_int_equal(make_run(&r, global / ranks->size, TREE, SHARDED), ESPL_OK);
        for (int repeat = 0; repeat < 2; repeat++) {
            sharded_step(&r, global / ranks->size);
            differ += check_shards(&r, global);
        }
        assert_true(differ > 0); /* the check can see a wrong order */
        free_run(&r);
    }
}

/* Of one micro-batch a rank, fast sums and sums of parts in bf16 have the bits that they have without. */
static void sharded_rounds_are_the_same_sums(void **state) {
    (void)state;
    for (way way = FAST; way <= (ranks->n_groups == 1 ? NARROW : TREE); way++) {
        run sharded, plain;
        if (way == TREE && !power_of_two(ranks->size))
            continue;
        assert_int_equal(make_run(&sharded, 1, way, SHARDED), ESPL_OK);
        assert_int_equal(make_run(&plain, 1, way, SHARDS), ESPL_OK);
        for (int repeat = 0; repeat < 2; repeat++) {
            sharded_step(&sharded, 1);
            step(&plain, 1);
            for (int b = 0; b < N_BUCKETS; b++) {
                int64_t begin, end;
                espl_shard_range(&buckets[b], ranks->place, ranks->group_size, &begin, &end);
                assert_memory_equal(sharded.gradients + begin, plain.gradients + begin, (size_t)(end - begin) * sizeof(float));
            }
        }
        free_run(&sharded);
        free_run(&plain);
    }
}

static void replicated_gradients_are_whole(void **state) {
    (void)state;
    run r;
    if (!power_of_two(ranks->size))
        return;
    assert_int_equal(make_run(&r, 3, TREE, REPLICATED), ESPL_OK);
    step(&r, 3);
    check_bits(&r, 0, extent, 3 * ranks->size);
    free_run(&r);
}

/* What takes no part is left alone; what does has the bits that it has with all. */
static void some_buckets_alone(void **state) {
    (void)state;
    static const bool some[N_BUCKETS] = {false, true, false, true, true};
    run r;
    if (!power_of_two(ranks->size))
        return;
    assert_int_equal(make_run(&r, 3, TREE, REPLICATED), ESPL_OK);
    step(&r, 3);
    memset(r.gradients, 0x5a, (size_t)extent * sizeof *r.gradients);
    step_of(&r, 3, some);
    for (int b = 0; b < N_BUCKETS; b++) {
        const uint8_t *bytes = (const uint8_t *)(r.gradients + buckets[b].offset);
        if (some[b])
            check_bits(&r, buckets[b].offset, buckets[b].offset + buckets[b].n, 3 * ranks->size);
        for (size_t i = 0; !some[b] && i < (size_t)buckets[b].n * sizeof(float); i++)
            assert_int_equal(bytes[i], 0x5a);
    }
    step(&r, 3);
    check_bits(&r, 0, extent, 3 * ranks->size);
    free_run(&r);
}

static void fast_is_close_and_repeats(void **state) {
    (void)state;
    run r;
    float *first = malloc((size_t)extent * sizeof *first);
    assert_int_equal(make_run(&r, LOCAL, FAST, REPLICATED), ESPL_OK);
    step(&r, LOCAL);
    memcpy(first, r.gradients, (size_t)extent * sizeof *first);
    for (int64_t e = 0; e < extent; e++) {
        double sum = 0, size = 0;
        for (int64_t k = 0; k < LOCAL * ranks->size; k++) {
            sum += leaf(k, e);
            size += fabs(leaf(k, e));
        }
        /* Higham 2002, (4.4): any order of n - 1 additions */
        assert_true(fabs(first[e] - sum) <= (LOCAL * ranks->size - 1) * 0x1.01p-24 * size);
    }
    step(&r, LOCAL);
    assert_memory_equal(first, r.gradients, (size_t)extent * sizeof *first);
    double hidden, waited;
    espl_reducer_overlap(r.reducer, &hidden, &waited);
    assert_true(hidden >= 0 && waited >= 0 && (ranks->size > 1 || hidden + waited < 1e-3));
    free_run(&r);
    free(first);
}

/* ---- What travels is bf16. */

/* A rank's sum over its micro-batches, as backward adds them up. */
static float local_sum(int rank, int64_t element) {
    float sum = leaf((int64_t)rank * LOCAL, element);
    for (int64_t i = 1; i < LOCAL; i++)
        sum = leaf((int64_t)rank * LOCAL + i, element) + sum;
    return sum;
}

typedef espl_bf16 round_fn(float x);
static espl_bf16 towards_zero(float x) { return espl_bf16_from_float_noisy(x, 0); }

/* The definition: parts of others rounded, that of the owner not, added in fp32 in the order of the ranks. */
static float narrow_sum(int owner, int64_t element, round_fn *round) {
    float sum = 0;
    for (int q = 0; q < ranks->size; q++) {
        float part = local_sum(q, element);
        part = q == owner ? part : espl_bf16_to_float(round(part));
        sum = q == 0 ? part : sum + part;
    }
    return sum;
}

static float fp32_sum(int owner, int64_t element) {
    float sum = local_sum(0, element);
    (void)owner;
    for (int q = 1; q < ranks->size; q++)
        sum += local_sum(q, element);
    return sum;
}

/* Checks the shard that `owner` has of each bucket; counts where sums in fp32, and of parts rounded otherwise, would have other bits. */
static void check_narrow(const run *r, int owner, int64_t differ[2]) {
    for (int b = 0; b < N_BUCKETS; b++) {
        int64_t begin, end;
        espl_shard_range(&buckets[b], owner, ranks->size, &begin, &end);
        for (int64_t e = begin; e < end; e++) {
            float expected = narrow_sum(owner, e, espl_bf16_from_float);
            assert_memory_equal(&r->gradients[e], &expected, sizeof expected);
            differ[0] += fp32_sum(owner, e) != expected;
            differ[1] += narrow_sum(owner, e, towards_zero) != expected;
        }
    }
}

/* Bytes that a rank sends in a step; every bucket's, of which it keeps a shard. */
static int64_t step_bytes(run *r) {
    int64_t before = espl_comm_bytes_sent(comm);
    step(r, LOCAL);
    return espl_comm_bytes_sent(comm) - before;
}

/* Twice, so that sharded and replicated, and each step with the next, have the same bits. */
static void narrow_has_the_bits_of_its_definition(void **state) {
    (void)state;
    for (int replicated = 0; replicated < 2 && ranks->n_groups == 1; replicated++) {
        run r;
        int64_t differ[2] = {0};
        assert_int_equal(make_run(&r, LOCAL, NARROW, replicated), ESPL_OK);
        for (int repeat = 0; repeat < 2; repeat++) {
            step(&r, LOCAL);
            for (int q = 0; q < ranks->size; q++)
                if (replicated || q == ranks->rank)
                    check_narrow(&r, q, differ);
        }
        assert_true(ranks->size > 1 ? differ[0] > 0 && differ[1] > 0 : differ[0] == 0 && differ[1] == 0); /* one rank rounds nothing */
        free_run(&r);
    }
}

/* Of the sums alone it is half; sums that are handed out are fp32 either way. */
static void narrow_sends_half(void **state) {
    (void)state;
    for (int replicated = 0; replicated < 2 && ranks->n_groups == 1; replicated++) {
        run fast, narrow;
        const int64_t elements = extent / ranks->size * (ranks->size - 1);
        assert_int_equal(make_run(&fast, LOCAL, FAST, replicated), ESPL_OK);
        assert_int_equal(make_run(&narrow, LOCAL, NARROW, replicated), ESPL_OK);
        assert_int_equal(step_bytes(&fast), elements * (replicated ? 8 : 4));
        assert_int_equal(step_bytes(&narrow), elements * (replicated ? 6 : 2));
        free_run(&fast);
        free_run(&narrow);
    }
}

/* Within a group as if there were no others; then of a shard a sum over the groups, there and back. */
static void groups_send_shards(void **state) {
    (void)state;
    const int64_t n = ranks->group_size, groups = ranks->n_groups;
    for (way way = FAST; way <= TREE; way++) {
        run r;
        if (way == TREE && !power_of_two(ranks->size))
            continue;
        assert_int_equal(make_run(&r, LOCAL, way, SHARDS), ESPL_OK);
        assert_int_equal(step_bytes(&r), 4 * (extent / n * (n - 1) + 2 * (extent / n / groups) * (groups - 1)));
        free_run(&r);
    }
}

static size_t narrow_stage(int size, int64_t shard, int64_t chunk) {
    const espl_bucket two[] = {{0, 256 * size}, {256 * size, shard * size}};
    const espl_reducer_plan plan = {.buckets = two, .n_buckets = 2, .size = size, .n_local = 4, .narrow = true, .chunk = chunk};
    espl_arena measure = espl_arena_measure("stage");
    espl_reducer *reducer;
    assert_int_equal(espl_reducer_make(&plan, NULL, NULL, &measure, &reducer), ESPL_OK);
    espl_reducer_free(&reducer);
    return measure.used;
}

/* Two bytes an element to send and two to receive; never more than 64 MiB for 64 ranks, and 1 MiB a rank for more. */
static void a_narrow_stage_is_bounded(void **state) {
    (void)state;
    enum { ROUND = 2 * 4096 };
    const size_t most = (size_t)4 * ESPL_REDUCER_CHUNK;
    assert_int_equal(narrow_stage(1, 1 << 20, 0), 0);
    assert_in_range(narrow_stage(4, 1 << 20, 0), 16 << 20, (16 << 20) + ROUND);
    assert_in_range(narrow_stage(4, 1 << 20, 4 * 512 + 100), 4 * 4 * 512, 4 * 4 * 512 + ROUND);
    assert_in_range(narrow_stage(4, 1 << 20, 1), 4 * 4 * 256, 4 * 4 * 256 + ROUND);
    assert_in_range(narrow_stage(4, 1 << 26, 0), most, most + ROUND);
    assert_in_range(narrow_stage(64, 1 << 22, 0), most, most + ROUND);
    assert_in_range(narrow_stage(1000, 1 << 22, 0), 1000 << 20, (1000 << 20) + ROUND);
    assert_in_range(narrow_stage(1000, 1 << 10, 0), 4 * 1000 << 10, (4 * 1000 << 10) + ROUND);
}

/* One rank takes no memory when it is fast; a tree takes a copy a level of its own micro-batches, and staging only where there is none. */
static void memory_is_as_planned(void **state) {
    (void)state;
    static const struct {
        bool tree;
        int size, n_local, floats_percent; /* of the gradients */
        bool sharded;
    } cases[] = {{false, 1, 4, 0, 0},  {false, 4, 4, 25, 0}, {true, 1, 1, 0, 0},   {true, 1, 2, 100, 0}, {true, 1, 8, 300, 0},
                 {true, 4, 1, 100, 0}, {true, 4, 8, 300, 0}, {true, 1, 5, 300, 0}, {true, 1, 3, 200, 0}, {false, 4, 8, 25, 1},
                 {true, 4, 1, 25, 1},  {true, 4, 2, 25, 1},  {true, 4, 4, 50, 1},  {true, 4, 8, 75, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        espl_bucket one = {0, espl_shard_pad(100000, 4)};
        espl_reducer_plan plan = {.buckets = &one,
                                  .n_buckets = 1,
                                  .size = cases[i].size,
                                  .n_local = cases[i].n_local,
                                  .tree = cases[i].tree,
                                  .sharded = cases[i].sharded};
        espl_arena measure = espl_arena_measure("stage");
        espl_reducer *reducer;
        assert_int_equal(espl_reducer_make(&plan, NULL, NULL, &measure, &reducer), ESPL_OK);
        espl_reducer_free(&reducer);
        int64_t expected = one.n * 4 * cases[i].floats_percent / 100;
        assert_in_range(measure.used, expected, expected + 3 * 4096);
    }
}

static void a_tree_of_three_is_refused(void **state) {
    (void)state;
    espl_reducer_plan plan = {.size = 3, .n_local = 1, .tree = true};
    espl_arena measure = espl_arena_measure("stage");
    espl_reducer *reducer;
    assert_int_equal(espl_reducer_make(&plan, NULL, NULL, &measure, &reducer), ESPL_ERR_USAGE);
    assert_non_null(strstr(espl_status_message(), "run.reduction"));
    espl_status_clear();
}

static void shards_tile_a_bucket(void **state) {
    (void)state;
    for (int size = 1; size <= 513; size += 64) {
        espl_bucket bucket = {.offset = 1024, .n = espl_shard_pad(1000001, size)};
        int64_t at = bucket.offset, begin, end;
        assert_true(bucket.n >= 1000001 && bucket.n - 1000001 < (int64_t)ESPL_SHARD_UNIT * size &&
                    bucket.n % (ESPL_SHARD_UNIT * size) == 0);
        for (int r = 0; r < size; r++, at = end) {
            espl_shard_range(&bucket, r, size, &begin, &end);
            assert_int_equal(begin, at);
        }
        assert_int_equal(at, bucket.offset + bucket.n);
    }
}

static void check_gather(size_t element) {
    char *weights = calloc((size_t)extent, element);
    espl_gather *gather;
    espl_gather_make(comm, buckets, N_BUCKETS, weights, element, &gather);
    for (int b = 0; b < N_BUCKETS; b++) {
        int64_t begin, end;
        espl_shard_range(&buckets[b], ranks->place, ranks->group_size, &begin, &end);
        for (int64_t i = begin * (int64_t)element; i < end * (int64_t)element; i++)
            weights[i] = (char)(i % 113);
        assert_int_equal(espl_gather_start(gather, b), ESPL_OK);
    }
    assert_int_equal(espl_gather_wait(gather, 1), ESPL_OK);
    assert_int_equal(espl_gather_finish(gather), ESPL_OK);
    for (int64_t i = 0; i < extent * (int64_t)element; i++)
        assert_int_equal(weights[i], i % 113);
    espl_gather_free(&gather);
    free(weights);
}

static void weights_are_gathered(void **state) {
    (void)state;
    check_gather(2);
    check_gather(4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_has_the_same_bits_on_any_ranks),
        cmocka_unit_test(sharded_trees_have_the_same_bits),
        cmocka_unit_test(sharded_rounds_are_the_same_sums),
        cmocka_unit_test(replicated_gradients_are_whole),
        cmocka_unit_test(some_buckets_alone),
        cmocka_unit_test(fast_is_close_and_repeats),
        cmocka_unit_test(narrow_has_the_bits_of_its_definition),
        cmocka_unit_test(narrow_sends_half),
        cmocka_unit_test(groups_send_shards),
        cmocka_unit_test(memory_is_as_planned),
        cmocka_unit_test(a_narrow_stage_is_bounded),
        cmocka_unit_test(a_tree_of_three_is_refused),
        cmocka_unit_test(shards_tile_a_bucket),
        cmocka_unit_test(weights_are_gathered),
    };
    if (espl_comm_open(&comm, 0) != ESPL_OK)
        return 1;
    ranks = espl_comm_ranks(comm);
    for (int b = 0; b < N_BUCKETS; b++) {
        buckets[b] =
            (espl_bucket){.offset = extent, .n = espl_shard_pad(300 + 900 * b, 24)}; /* 24: the same elements on 1, 2, 3, 4 and 8 ranks */
        extent += buckets[b].n;
    }
    int failed = cmocka_run_group_tests_name("all ranks", tests, NULL, NULL);
    if (ranks->size >= 4) {
        espl_comm_group(comm, 2);
        failed += cmocka_run_group_tests_name("groups of two", tests, NULL, NULL);
    }
    espl_comm_close(&comm);
    return failed;
}
