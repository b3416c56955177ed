// test: libs=train,comm,config,core ranks=2 tier=short timeout=60
/* Gathers of updated weights go on behind the next forward: which of its calls have run when a bucket is waited for, in steps of a run
 * whose comm is watched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "comm/transport.h"
#include "src/core/buffer.h"
#include "src/core/clock.h"
#include "src/core/log.h"
#include "src/train/run.h"
#include "tests/unit/scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char model_config[] =
    "{\"architectures\": [\"GPT2LMHeadModel\"], \"model_type\": \"gpt2\", \"activation_function\": \"gelu_new\", \"n_layer\": 3, "
    "\"n_embd\": 16, \"n_head\": 2, \"n_positions\": 64, \"vocab_size\": 2048, \"tie_word_embeddings\": true, \"bos_token_id\": 0, "
    "\"eos_token_id\": 0}";

static espl_comm *comm;
static const espl__transport *real;
static char *folder;

/* What the ranks' bulk operations were used for since the last update began. */
static struct {
    bool gathers[ESPL_MAX_REQUESTS]; /* requests that are */
    int n_started, n_waited;
    int calls;                        /* of forward and backward, since the step began */
    int waited_at[ESPL_MAX_REQUESTS]; /* calls that had run when the i-th gather was waited for */
} seen;

static espl_status watched_gather(espl_comm *c, void *data, size_t bytes, espl_request *request) {
    ESPL_TRY(real->allgather_start(c, data, bytes, request));
    assert_true(*request >= 0);
    seen.gathers[*request] = true;
    seen.n_started++;
    return ESPL_OK;
}

static espl_status watched_wait(espl_comm *c, espl_request request) {
    if (request >= 0 && seen.gathers[request]) {
        seen.gathers[request] = false;
        seen.waited_at[seen.n_waited++] = seen.calls;
    }
    return real->wait(c, request);
}

static espl_status watched_progress(espl_comm *c) {
    seen.calls++;
    return real->progress(c);
}

static bool first_rank(void) { return espl_comm_ranks(comm)->rank == 0; }

static void must(espl_status status) {
    if (status != ESPL_OK)
        fail_msg("%s", espl_status_message());
}

static void write_model(const char *path) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(model_config, file);
    fclose(file);
}

static void configure(const char *name, const char *sharding, espl_config *config) {
    espl_config_make(config);
    char *text = espl_format("run: {dir: %s/%s, device: cpu, threads: 1, sharding: %s, watchdog: 0}\n"
                             "model: {config: %s/config.json}\n"
                             "data: {train: [" ESPL_SOURCE_DIR "/configs/data/shakespeare_valid.txt], valid: [" ESPL_SOURCE_DIR
                             "/configs/data/shakespeare_valid.txt], tokenizer: " ESPL_SOURCE_DIR
                             "/configs/data/bpe2048, cache: %s/cache, placement: windows, sequence_length: 32}\n"
                             "train: {steps: 9, micro_batch_tokens: 32, micro_batches: 4, eval_batches: 2}\n"
                             "checkpoint: {every: 0, export: false}\n"
                             "log: {level: error, progress: none, tensorboard: false}\n",
                             folder, name, sharding, folder, folder);
    must(espl_config_read_text(config, text, strlen(text), "test"));
    espl_config_resolve(config);
    free(text);
}

static void open_run(const espl_config *config, espl_run *run) {
    static const espl_library library = {"espalier", "test"};
    const espl_run_options options = {.resume = "never",
                                      .started = espl_now(),
                                      .job_end = {.at = INFINITY},
                                      .command_line = "test",
                                      .libraries = &library,
                                      .n_libraries = 1};
    espl_log_set(espl_comm_ranks(comm)->rank, ESPL_LOG_ERROR, NULL);
    must(espl_run_open(config, comm, &options, run));
}

/* The gathers of its update have been started; what was seen before them is of the weights that it used. */
static void step(espl_run *run) {
    espl_step_result result;
    seen.calls = seen.n_started = seen.n_waited = 0;
    must(espl_run_step(run, &result));
    assert_false(result.skipped);
    assert_int_equal(seen.n_started, run->model->n_buckets);
}

static int under_way(void) {
    int n = 0;
    for (int i = 0; i < ESPL_MAX_REQUESTS; i++)
        n += seen.gathers[i];
    return n;
}

/* Each bucket is waited for when the calls before its first use have run, in the first micro-batch of a step. */
static void gathers_go_on_behind_forward(const char *sharding) {
    espl_config config;
    espl_run run;
    configure(sharding, sharding, &config);
    open_run(&config, &run);
    const int n = run.model->n_buckets;
    step(&run);
    assert_int_equal(seen.n_waited, 0); /* nothing had been updated */
    assert_int_equal(under_way(), n);
    step(&run);
    assert_int_equal(seen.n_waited, n);
    assert_int_equal(under_way(), n);
    const espl_flow *flow = &run.blueprint.flows[0];
    for (int i = 0, waited = 0; i < flow->n_moves && waited < n; i++)
        if (flow->moves[i].kind == ESPL_MOVE_UPDATED)
            assert_int_equal(seen.waited_at[waited++], flow->moves[i].call);
    for (int i = 0; i < n; i++)
        assert_true(i == 0 ? seen.waited_at[0] == 0 : seen.waited_at[i] > seen.waited_at[i - 1]);
    /* The control: those that are waited for between steps are behind no call. */
    seen.calls = seen.n_waited = 0;
    must(espl_memory_settle(&run.memory));
    assert_int_equal(seen.n_waited, n);
    assert_int_equal(seen.waited_at[n - 1], 0);
    step(&run);
    assert_int_equal(seen.n_waited, 0);
    espl_run_close(&run);
    assert_int_equal(under_way(), 0);
    espl_config_free(&config);
}

static void of_a_cut_optimizer(void **state) {
    (void)state;
    gathers_go_on_behind_forward("optimizer");
}

static void of_cut_gradients(void **state) {
    (void)state;
    gathers_go_on_behind_forward("gradients");
}

/* Calls of a tape in front of one: marks of buckets are none. */
static int calls_before(const espl_tape *tape, int call) {
    int n = 0;
    for (int i = 0; i < call; i++)
        n += tape->calls[i].kind != ESPL_CALL_BUCKET;
    return n;
}

/* Of weights that are cut, what a window holds is waited for when the calls before its first have run, in each micro-batch of a step. */
static void of_cut_parameters(void **state) {
    (void)state;
    espl_config config;
    espl_run run;
    espl_step_result result;
    configure("parameters", "parameters", &config);
    open_run(&config, &run);
    seen.calls = seen.n_started = seen.n_waited = 0;
    must(espl_run_step(&run, &result));
    const espl_flow *flow = &run.blueprint.flows[0];
    const espl_tape *tape = espl_run_tape(&run);
    const int n = flow->n_windows, calls = calls_before(tape, tape->n_calls);
    assert_true(n > run.model->n_buckets && calls > n);
    assert_int_equal(seen.calls % calls, 0);
    assert_int_equal(seen.n_started, seen.calls / calls * n);
    assert_int_equal(seen.n_waited, seen.n_started);
    for (int i = 0; i < seen.n_waited; i++)
        assert_int_equal(seen.waited_at[i], i / n * calls + calls_before(tape, flow->windows[i % n].first));
    espl_run_close(&run);
    espl_config_free(&config);
}

/* Whatever else reads weights finds them whole. */
static void others_wait_for_all(void **state) {
    (void)state;
    espl_config config;
    espl_run run;
    configure("others", "optimizer", &config);
    open_run(&config, &run);
    step(&run);
    assert_true(under_way() > 0);
    must(espl_run_compare(&run));
    assert_int_equal(under_way(), 0);
    step(&run);
    assert_true(under_way() > 0);
    must(espl_run_evaluate(&run, false));
    assert_int_equal(under_way(), 0);
    espl_run_close(&run);
    espl_config_free(&config);
}

static void watch(void) {
    static espl__transport watched;
    real = comm->transport;
    watched = *real;
    watched.allgather_start = watched_gather;
    watched.wait = watched_wait;
    watched.progress = watched_progress;
    comm->transport = &watched;
}

static int make_folder(void) {
    folder = share_scratch(comm);
    char *path = espl_format("%s/config.json", folder);
    if (first_rank())
        write_model(path);
    free(path);
    return espl_comm_barrier(comm) != ESPL_OK;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_cut_optimizer),
        cmocka_unit_test(of_cut_gradients),
        cmocka_unit_test(of_cut_parameters),
        cmocka_unit_test(others_wait_for_all),
    };
    if (espl_comm_open(&comm, 0) != ESPL_OK || make_folder() != 0) {
        espl_status_print_trail(stderr);
        return 1;
    }
    watch();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    comm->transport = real;
    unshare_scratch(comm, folder);
    espl_comm_close(&comm);
    return failed;
}
