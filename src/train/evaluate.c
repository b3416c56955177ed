#include "src/train/evaluate.h"

#include "src/core/clock.h"
#include "src/train/choose_device.h"
#include "src/train/inference.h"
#include "src/train/streams.h"
#include "src/train/threads.h"

#include <math.h>
#include <string.h>

static espl_status after_call(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    const espl_evaluation *e = context;
    (void)batch;
    espl_comm_beat(e->comm, e->step, tape->model->rows[tape->calls[call].row].name);
    return ESPL_OK;
}

static espl_status one_batch(const espl_evaluation *e, int64_t k, int64_t *targets) {
    espl_sample *s = e->sample;
    const espl_hooks hooks = {.context = (void *)(uintptr_t)e, .after_call = after_call};
    espl_placement_fill(e->data->placement, 0, k, s);
    espl_streams streams;
    espl_streams_fill(e->tape->model, s, &(espl_batch){0}, &streams);
    ESPL_TRY(e->engine->calls->begin(e->engine->device, &streams.main));
    ESPL_TRY(espl_tape_run(e->tape, &streams.main, true, &hooks));
    espl_tape_sum_loss(e->tape, e->engine, &streams.main, e->sum);
    *targets += s->n_targets;
    return ESPL_OK;
}

/* This rank's micro-batches, and their sum, brought to the host by the only wait for the device. */
static espl_status own_batches(const espl_evaluation *e, int64_t n, espl_exact *sum, int64_t *targets) {
    const espl_ranks *ranks = espl_comm_ranks(e->comm);
    e->engine->kernels->zero(e->sum, sizeof *e->sum);
    for (int64_t k = ranks->rank; k < n; k += ranks->size)
        ESPL_TRY(one_batch(e, k, targets));
    espl_comm_beat(e->comm, e->step, "waiting for the device");
    ESPL_TRY(e->engine->calls->read(e->engine->device, sum, e->sum, sizeof *sum));
    espl_exact_normalise(sum);
    return ESPL_OK;
}

espl_status espl_evaluate(const espl_evaluation *e, espl_eval_result *result) {
    double start = espl_now();
    int64_t n = espl_placement_count(e->data->placement, 0), words[ESPL_EXACT_WORDS + 1] = {0};
    espl_exact sum = {0};
    if (e->most > 0 && e->most < n)
        n = e->most;
    espl_status status = own_batches(e, n, &sum, &words[ESPL_EXACT_WORDS]);
    ESPL_TRY(espl_comm_agree(e->comm, status, "evaluating"));
    memcpy(words, &sum, sizeof sum);
    ESPL_TRY(espl_comm_allreduce_i64(e->comm, words, ESPL_EXACT_WORDS + 1, ESPL_SUM));
    memcpy(&sum, words, sizeof sum);
    int64_t targets = words[ESPL_EXACT_WORDS];
    double total = sum.n_nonfinite > 0 ? (double)NAN : espl_exact_value(&sum);
    double share = (double)targets / (double)e->data->n_tokens; /* all of the text, or the part that was looked at */
    *result = (espl_eval_result){.loss = total / (double)targets,
                                 .targets = targets,
                                 .bytes = (int64_t)((double)e->data->n_bytes * share),
                                 .seconds = espl_now() - start};
    return ESPL_OK;
}

/* ---- A model by its path. */

/* The memory of an evaluation alone: activations, scratch, one micro-batch. */
typedef struct own_memory {
    const espl_engine *engine;
    espl_arena act, work;
    espl_exact *sum;
    espl_sample sample;
} own_memory;

static espl_status take_one(const espl_engine *engine, espl_arena *arena, const char *name, size_t bytes, size_t more) {
    espl_arena measure = espl_arena_measure(name);
    espl_arena_take(&measure, bytes);
    espl_arena_take(&measure, more);
    return espl_engine_take(engine, arena, name, measure.used);
}

static espl_status take_memory(const espl_inference *model, espl_tape *tape, const espl_room *room,
                               const espl_capacity capacity[ESPL_N_STREAMS], own_memory *m) {
    const espl_engine *engine = model->engine;
    m->engine = engine;
    ESPL_TRY(take_one(engine, &m->act, "ACT", tape->act_bytes, 0));
    ESPL_TRY(take_one(engine, &m->work, "WORK", tape->work_bytes, sizeof *m->sum));
    ESPL_TRY(engine->calls->reserve(engine->device, capacity));
    espl_places places = {.weights = model->weights,
                          .ranks = 1,
                          .act = espl_arena_take(&m->act, tape->act_bytes),
                          .work = espl_arena_take(&m->work, tape->work_bytes),
                          .rope = model->rope};
    m->sum = espl_arena_take(&m->work, sizeof *m->sum);
    espl_tape_bind(tape, &places);
    return espl_sample_make(room, &m->sample);
}

static void free_memory(own_memory *m) {
    espl_sample_free(&m->sample);
    if (m->engine == NULL)
        return;
    espl_engine_give_back(m->engine, &m->act);
    espl_engine_give_back(m->engine, &m->work);
}

static int64_t length_of(const espl_config *config, int64_t positions) {
    int64_t length = config->data_sequence_length > 0 ? config->data_sequence_length : positions;
    return length < config->train_micro_batch_tokens ? length : config->train_micro_batch_tokens;
}

espl_status espl_evaluate_path(const espl_config *config, espl_comm *comm, const char *path, espl_eval_result *result) {
    espl_engine engine = {0};
    espl_inference model = {0};
    espl_labels labels = {0};
    espl_dataset data = {0};
    espl_tape tape = {0};
    own_memory memory = {0};
    espl_capacity capacity[ESPL_N_STREAMS];
    espl_status status = ESPL_OK;
    char why[512];
    int threads;
    if (config->data_valid.n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.valid is empty: files, folders or globs to evaluate on are needed");
    ESPL_TRY_DONE(espl_choose_device(comm, config, &engine, why));
    ESPL_TRY_DONE(espl_threads_choose(comm, config->run_threads, &threads));
    ESPL_TRY_DONE(espl_comm_agree(comm, espl_inference_open(comm, path, config, &engine, config->data_sequence_length, threads, &model),
                                  "opening the model"));
    ESPL_TRY_DONE(espl_dataset_labels(comm, config, &labels));
    const espl_dims *dims = &model.model->dims;
    espl_dataset_use use = {.room = espl_room_of(config),
                            .length = length_of(config, dims->positions),
                            .eos = dims->eos,
                            .start = dims->start,
                            .labels = &labels};
    ESPL_TRY_DONE(espl_dataset_open(comm, config, model.tokenizer, &config->data_valid, &use, &data));
    espl_streams_capacity(model.model, &use.room, capacity);
    espl_tape_make(model.model, engine.kernels, ESPL_USE_EVAL, 0, capacity, threads, &tape);
    ESPL_TRY_DONE(espl_comm_agree(comm, take_memory(&model, &tape, &use.room, capacity, &memory), "taking memory"));
    espl_evaluation evaluation = {.comm = comm,
                                  .engine = &engine,
                                  .data = &data,
                                  .tape = &tape,
                                  .sample = &memory.sample,
                                  .sum = memory.sum,
                                  .most = config->train_eval_batches};
    ESPL_TRY_DONE(espl_evaluate(&evaluation, result));
done:
    free_memory(&memory);
    espl_tape_free(&tape);
    espl_dataset_close(&data);
    espl_labels_free(&labels);
    espl_inference_close(&model);
    espl_engine_close(&engine);
    return status;
}
