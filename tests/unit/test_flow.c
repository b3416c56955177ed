// test: libs=train ranks=1 tier=short timeout=60
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/model/flow.h"
#include "tests/unit/tiny_models.h"

enum { POISON = 0x5a, RANKS = 4, MICROS = 3 };

/* A tape whose gradients and weights flow, and where gradients are collected. */
typedef struct flowing {
    tiny *t;
    espl_flow flow;
    char *memory;    /* of gradients */
    char *windows;   /* of weights */
    bool *left;      /* [windows] */
    float *sums;     /* the flat space of RANKS ranks */
    int64_t pending; /* bucket whose sum is under way; -1 none */
    int micro;       /* of the MICROS of a step */
    bool early;      /* what is fetched is there at once; else when it must have arrived, and until then others write there */
} flowing;

static size_t bucket_bytes(const flowing *f, int64_t b) {
    return (size_t)espl_model_bucket_size(f->t->model, (int)b, RANKS) * sizeof(float);
}

/* The sum under way, which reads its place and writes its stage until here, is done: both are anybody's. */
static void settle(flowing *f) {
    const int64_t b = f->pending;
    if (b < 0)
        return;
    float *to = f->sums + espl_model_bucket_start(f->t->model, (int)b, RANKS);
    memcpy(to, f->memory + f->flow.gradients[b], bucket_bytes(f, b));
    memset(f->memory + f->flow.gradients[b], POISON, bucket_bytes(f, b));
    memset(f->memory + f->flow.stages[b], POISON, bucket_bytes(f, b));
    f->pending = -1;
}

/* What has been used by now is anybody's. */
static void leave_windows(flowing *f, int call) {
    for (int w = 0; w < f->flow.n_windows; w++)
        if (f->flow.windows[w].last < call && !f->left[w]) {
            f->left[w] = true;
            memset(f->windows + f->flow.windows[w].offset, POISON, bucket_bytes(f, f->flow.windows[w].bucket));
        }
}

static void receive(flowing *f, const espl_window *window) {
    const espl_model *m = f->t->model;
    memcpy(f->windows + window->offset, (const float *)f->t->weights + espl_model_bucket_start(m, window->bucket, 1),
           (size_t)espl_model_bucket_size(m, window->bucket, 1) * sizeof(float));
}

static void fetch(flowing *f, const espl_window *window) {
    memset(f->windows + window->offset, POISON, bucket_bytes(f, window->bucket));
    if (f->early)
        receive(f, window);
}

static void make_move(flowing *f, const espl_move *move) {
    const espl_window *window = move->window >= 0 ? &f->flow.windows[move->window] : NULL;
    switch (move->kind) {
    case ESPL_MOVE_UPDATED: fail_msg("weights that are cut are spread");
    case ESPL_MOVE_FETCH:
        if (espl_flow_fetches(&f->flow, move, f->micro == 0, f->micro == MICROS - 1))
            fetch(f, window);
        break;
    case ESPL_MOVE_ARRIVE:
        if (!f->early)
            receive(f, window);
        break;
    case ESPL_MOVE_SETTLE: settle(f); break;
    case ESPL_MOVE_OPEN: memset(f->memory + f->flow.gradients[move->bucket], POISON, bucket_bytes(f, move->bucket)); break;
    case ESPL_MOVE_SUM:
        settle(f);
        f->pending = move->bucket;
        memset(f->memory + f->flow.stages[move->bucket], POISON, bucket_bytes(f, move->bucket));
        break;
    }
}

static espl_status run_part(void *context, int number, int from, int to) {
    flowing *f = context;
    assert_in_range(number, 0, f->flow.n_moves);
    assert_in_range(to, from + 1, f->t->tape.n_calls);
    leave_windows(f, from);
    return espl_tape_run_part(&f->t->tape, from, to, &f->t->batch, true, NULL);
}

static espl_status move_one(void *context, const espl_move *move) {
    flowing *f = context;
    leave_windows(f, move->call);
    make_move(f, move);
    return ESPL_OK;
}

/* A step. */
static void run(flowing *f) {
    const espl_flow_hooks hooks = {.context = f, .stretch = run_part, .move = move_one};
    for (f->micro = 0; f->micro < MICROS; f->micro++) {
        memset(f->left, 0, (size_t)f->flow.n_windows);
        assert_int_equal(espl_flow_run(&f->flow, &f->t->tape, &hooks), ESPL_OK);
    }
    settle(f);
}

static void open_flow(tiny *t, flowing *f) {
    const espl_flow_way way = {.ranks = RANKS, .shards = RANKS, .gradients = true, .weights = true, .ahead = true, .tree = true};
    *f = (flowing){.t = t, .pending = -1};
    espl_flow_make(&t->tape, &way, &f->flow);
    f->memory = malloc(f->flow.gradient_bytes);
    f->windows = malloc(2 * f->flow.window_bytes); /* room for a control's, too */
    f->left = malloc((size_t)f->flow.n_windows);
    f->sums = calloc((size_t)espl_model_flat_size(t->model, RANKS), sizeof *f->sums);
}

static void bind_flow(flowing *f) {
    const espl_places places = {.weights = f->t->weights,
                                .gradients = f->memory,
                                .flow = &f->flow,
                                .windows = f->windows,
                                .ranks = RANKS,
                                .act = f->t->act,
                                .work = f->t->work};
    espl_tape_bind(&f->t->tape, &places);
}

static void free_flow(flowing *f) {
    espl_flow_free(&f->flow);
    free(f->memory);
    free(f->windows);
    free(f->left);
    free(f->sums);
}

/* Parameters whose collected gradients are not those of the whole tape. */
static int differing(const flowing *f) {
    const espl_model *m = f->t->model;
    int n = 0;
    for (int i = 0; i < m->n_params; i++)
        n += memcmp(f->sums + espl_model_place(m, i, RANKS), (const float *)f->t->gradients + espl_model_place(m, i, 1),
                    (size_t)m->params[i].numel * sizeof(float)) != 0;
    return n;
}

/* What a micro-batch leaves under way is settled in the next one, and used there. */
static void gradients_of_what_flows_are_the_same(void **state) {
    (void)state;
    for (int recompute = ESPL_RECOMPUTE_NONE; recompute <= ESPL_RECOMPUTE_FULL; recompute++)
        for (int i = 0; i < N_TINY; i++) {
            tiny t;
            flowing f;
            if (tiny_open(tiny_folder(tiny_names[i]), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, recompute, &t) != ESPL_OK)
                fail_msg("%s", espl_status_message());
            assert_int_equal(espl_tape_run(&t.tape, &t.batch, true, NULL), ESPL_OK);
            open_flow(&t, &f);
            bind_flow(&f);
            for (int early = 0; early < 2; early++) {
                f.early = early;
                memset(f.sums, POISON, (size_t)espl_model_flat_size(t.model, RANKS) * sizeof *f.sums);
                run(&f);
                if (differing(&f) != 0)
                    fail_msg("%s, %s: %d gradients differ", tiny_names[i], early ? "early" : "late", differing(&f));
            }
            free_flow(&f);
            tiny_close(&t);
        }
}

/* Controls: where all buckets, or all windows, have one place, one is overwritten while it is in use, and so is the last window where the
 * first has its place. */
static void one_place_for_all_is_seen(void **state) {
    (void)state;
    enum { BUCKETS, WINDOWS, ENDS, N_WHAT };
    for (int what = 0; what < N_WHAT; what++) {
        tiny t;
        flowing f;
        assert_int_equal(tiny_open(tiny_folder(tiny_names[0]), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, ESPL_RECOMPUTE_NONE, &t),
                         ESPL_OK);
        assert_int_equal(espl_tape_run(&t.tape, &t.batch, true, NULL), ESPL_OK);
        open_flow(&t, &f);
        for (int b = 0; b < t.model->n_buckets && what == BUCKETS; b++)
            f.flow.gradients[b] = 0;
        for (int w = 0; w < f.flow.n_windows && what == WINDOWS; w++)
            f.flow.windows[w].offset = 0;
        if (what == ENDS)
            f.flow.windows[f.flow.n_windows - 1].offset = f.flow.windows[0].offset = f.flow.window_bytes;
        f.early = what == ENDS;
        bind_flow(&f);
        run(&f);
        assert_true(differing(&f) > 0);
        free_flow(&f);
        tiny_close(&t);
    }
}

/* ---- Weights that an update spreads. */

/* A tape that reads what has arrived: until then others write there. */
typedef struct arriving {
    tiny *t;
    const char *updated; /* the weights as they will be */
    int last, late;      /* bucket that came last; and that never comes */
} arriving;

static espl_status arrive(void *context, const espl_move *move) {
    arriving *a = context;
    const espl_model *m = a->t->model;
    const size_t start = (size_t)espl_model_bucket_start(m, move->bucket, 1) * sizeof(float);
    assert_int_equal(move->kind, ESPL_MOVE_UPDATED);
    assert_int_equal(move->bucket, a->last + 1);
    a->last = move->bucket;
    if (move->bucket != a->late)
        memcpy((char *)a->t->weights + start, a->updated + start, (size_t)espl_model_bucket_size(m, move->bucket, 1) * sizeof(float));
    return ESPL_OK;
}

static espl_status run_arrived(void *context, int number, int from, int to) {
    const arriving *a = context;
    (void)number;
    return espl_tape_run_part(&a->t->tape, from, to, &a->t->batch, true, NULL);
}

/* Whether gradients are those of weights that were all there from the start. */
static bool same_gradients(tiny *t, int late) {
    const size_t bytes = (size_t)espl_model_flat_size(t->model, 1) * sizeof(float);
    const espl_flow_way way = {.ranks = 1, .shards = 1, .updates = true};
    char *updated = malloc(bytes), *expected = malloc(bytes);
    arriving a = {.t = t, .updated = updated, .last = -1, .late = late};
    const espl_flow_hooks hooks = {.context = &a, .stretch = run_arrived, .move = arrive};
    espl_flow flow;
    assert_int_equal(espl_tape_run(&t->tape, &t->batch, true, NULL), ESPL_OK);
    memcpy(expected, t->gradients, bytes);
    memcpy(updated, t->weights, bytes);
    memset(t->weights, POISON, bytes);
    espl_flow_make(&t->tape, &way, &flow);
    assert_int_equal(espl_flow_run(&flow, &t->tape, &hooks), ESPL_OK);
    assert_int_equal(a.last, t->model->n_buckets - 1);
    const bool same = memcmp(expected, t->gradients, bytes) == 0;
    espl_flow_free(&flow);
    free(updated);
    free(expected);
    return same;
}

/* In the order in which they are updated, which is that of the buckets; the control: one that is never there. */
static void weights_are_there_when_they_are_read(void **state) {
    (void)state;
    for (int i = 0; i < N_TINY; i++)
        for (int late = -1; late < 1; late++) {
            tiny t;
            assert_int_equal(tiny_open(tiny_folder(tiny_names[i]), espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, ESPL_RECOMPUTE_FULL, &t),
                             ESPL_OK);
            if (same_gradients(&t, late) != (late < 0))
                fail_msg("%s: gradients %s", tiny_names[i], late < 0 ? "differ" : "are those of weights that were not there");
            tiny_close(&t);
        }
}

/* ---- Room. */

/* Twelve equal layers take the place of two. */
static void many_layers_take_the_place_of_few(void **state) {
    (void)state;
    const espl_capacity capacity[ESPL_N_STREAMS] = {[ESPL_STREAM_MAIN] = {.rows = 16, .segments = 1}};
    const espl_flow_way way = {.ranks = RANKS, .shards = RANKS, .gradients = true, .weights = true};
    const espl_model_options options = {0};
    espl_model *model;
    espl_tape tape;
    espl_flow flow;
    assert_int_equal(espl_model_make(ESPL_SOURCE_DIR "/configs/models/gpt2-124m", &options, &model), ESPL_OK);
    espl_tape_make(model, espl_kernels_cpu(ESPL_F32), ESPL_USE_TRAIN, 0, 0, capacity, 1, &tape);
    espl_flow_make(&tape, &way, &flow);
    const size_t embeddings = (size_t)espl_model_bucket_size(model, 0, RANKS) * sizeof(float),
                 layer = (size_t)espl_model_bucket_size(model, 1, RANKS) * sizeof(float),
                 norm = (size_t)espl_model_bucket_size(model, 13, RANKS) * sizeof(float);
    /* the tied embeddings, written from first to last, with their stage; the layer under way and the one that is summed */
    assert_in_range(flow.gradient_bytes, embeddings + 2 * layer, embeddings + embeddings / RANKS + 2 * layer + layer / RANKS);
    /* the head with the layer before and the one behind it; none is fetched more than twice, but the embeddings for look-up and head */
    assert_in_range(flow.window_bytes, embeddings + layer, embeddings + 2 * layer + 2 * norm);
    assert_in_range(flow.fetched_bytes, 2 * embeddings + 23 * layer, 2 * embeddings + 24 * layer + 2 * norm);
    espl_flow_free(&flow);
    espl_tape_free(&tape);
    espl_model_free(&model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_what_flows_are_the_same),
        cmocka_unit_test(one_place_for_all_is_seen),
        cmocka_unit_test(weights_are_there_when_they_are_read),
        cmocka_unit_test(many_layers_take_the_place_of_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
