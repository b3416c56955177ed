#include "src/train/evaluate.h"

#include "src/core/clock.h"
#include "src/train/inference.h"
#include "src/train/threads.h"

#include <math.h>
#include <string.h>

static espl_status after_call(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    const espl_evaluation *e = context;
    (void)batch;
    espl_comm_beat(e->comm, e->step, tape->model->rows[tape->calls[call].row].name);
    return ESPL_OK;
}

static espl_status one_batch(const espl_evaluation *e, int64_t k, espl_exact *sum, int64_t *targets) {
    espl_sample *s = e->sample;
    const espl_hooks hooks = {.context = (void *)(uintptr_t)e, .after_call = after_call};
    espl_placement_fill(e->data->placement, 0, k, s);
    espl_batch batch = {
        .n = s->n, .n_segments = s->n_segments, .segments = s->segments, .ids = s->ids, .positions = s->positions, .targets = s->targets};
    ESPL_TRY(espl_tape_run(e->tape, &batch, true, &hooks));
    const float *loss = espl_tape_buffer(e->tape, e->tape->loss);
    for (int64_t i = 0; i < s->n; i++)
        espl_exact_add(sum, loss[i]);
    *targets += s->n_targets;
    return ESPL_OK;
}

espl_status espl_evaluate(const espl_evaluation *e, espl_eval_result *result) {
    const espl_ranks *ranks = espl_comm_ranks(e->comm);
    double start = espl_now();
    int64_t n = espl_placement_count(e->data->placement, 0), words[ESPL_EXACT_WORDS + 1] = {0};
    espl_exact sum = {0};
    if (e->most > 0 && e->most < n)
        n = e->most;
    for (int64_t k = ranks->rank; k < n; k += ranks->size)
        ESPL_TRY(one_batch(e, k, &sum, &words[ESPL_EXACT_WORDS]));
    espl_exact_normalise(&sum);
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
static espl_status bind(const espl_inference *model, espl_tape *tape, espl_arena *arena, espl_sample *sample, int64_t budget) {
    espl_arena measure = espl_arena_measure("ACT");
    espl_arena_take(&measure, tape->act_bytes);
    espl_arena_take(&measure, tape->work_bytes);
    ESPL_TRY(espl_arena_bind(arena, "ACT", measure.used));
    void *act = espl_arena_take(arena, tape->act_bytes);
    espl_places places = {.weights = model->weights, .ranks = 1, .act = act, .work = espl_arena_take(arena, tape->work_bytes)};
    espl_tape_bind(tape, &places);
    espl_sample_make(budget, sample);
    return ESPL_OK;
}

static int64_t length_of(const espl_config *config, int64_t positions) {
    int64_t length = config->data_sequence_length > 0 ? config->data_sequence_length : positions;
    return length < config->train_micro_batch_tokens ? length : config->train_micro_batch_tokens;
}

espl_status espl_evaluate_path(const espl_config *config, espl_comm *comm, const char *path, espl_eval_result *result) {
    espl_inference model = {0};
    espl_dataset data = {0};
    espl_tape tape = {0};
    espl_arena arena = {0};
    espl_sample sample = {0};
    espl_status status = ESPL_OK;
    int threads;
    if (config->data_valid.n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.valid is empty: files, folders or globs to evaluate on are needed");
    ESPL_TRY_DONE(espl_threads_choose(comm, config->run_threads, &threads));
    ESPL_TRY_DONE(
        espl_comm_agree(comm, espl_inference_open(comm, path, config, config->data_sequence_length, threads, &model), "opening the model"));
    espl_dataset_use use = {.budget = config->train_micro_batch_tokens, .length = length_of(config, model.model->dims.positions)};
    ESPL_TRY_DONE(espl_dataset_open(comm, config, model.tokenizer, model.model->dims.eos, &config->data_valid, &use, &data));
    espl_tape_make(model.model, model.kernels, ESPL_USE_EVAL, 0, use.budget, threads, &tape);
    ESPL_TRY_DONE(espl_comm_agree(comm, bind(&model, &tape, &arena, &sample, use.budget), "taking memory"));
    espl_evaluation evaluation = {.comm = comm, .data = &data, .tape = &tape, .sample = &sample, .most = config->train_eval_batches};
    ESPL_TRY_DONE(espl_evaluate(&evaluation, result));
done:
    espl_sample_free(&sample);
    espl_tape_free(&tape);
    espl_arena_free(&arena);
    espl_dataset_close(&data);
    espl_inference_close(&model);
    return status;
}
