#include "src/train/evaluate_path.h"

#include "src/core/buffer.h"
#include "src/train/machine/choose_device.h"
#include "src/train/inference.h"
#include "src/train/memory/memory.h"
#include "src/train/feed/streams.h"
#include "src/train/score/text_scores.h"
#include "src/train/machine/threads.h"

#include <stdlib.h>
#include <string.h>

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

/* A classifier brings its labels along, unless the config names them. */
static espl_status find_labels(espl_comm *comm, const espl_config *config, const espl_model *model, espl_labels *labels) {
    const json_t *names = json_object_get(model->config, "id2label");
    char key[24];
    if (config->data_task != ESPL_TASK_CLASSIFICATION || config->data_labels.n > 0 || json_object_size(names) == 0)
        return espl_dataset_labels(comm, config, labels);
    for (size_t i = 0; i < json_object_size(names); i++) {
        snprintf(key, sizeof key, "%zu", i);
        const char *name = json_string_value(json_object_get(names, key));
        if (name == NULL || espl_labels_find(labels, name, strlen(name)) >= 0)
            ESPL_FAIL(ESPL_ERR_DATA, "the model's config.json: id2label has no '%s' of its own, expected a name for each of 0 .. %zu", key,
                      json_object_size(names) - 1);
        espl_labels_add(labels, name, strlen(name));
    }
    return ESPL_OK;
}

static espl_status check_head(const espl_config *config, const espl_model *model, const espl_labels *labels) {
    bool classifier = model->head->head == ESPL_HEAD_CLASSIFICATION;
    if (classifier != (config->data_task == ESPL_TASK_CLASSIFICATION))
        ESPL_FAIL(ESPL_ERR_USAGE, "data.task is %s, but the model is a %s", espl_config_choice("data", "task", config->data_task),
                  model->head->architecture);
    if (classifier && labels->n != model->dims.labels)
        ESPL_FAIL(ESPL_ERR_DATA, "the data has %lld labels, the model %lld", (long long)labels->n, (long long)model->dims.labels);
    return ESPL_OK;
}

/* Everything that is open while a model is evaluated by its path. */
typedef struct opened {
    espl_engine engine;
    espl_inference model;
    espl_labels labels;
    espl_dataset data;
    espl_tape tape;
    own_memory memory;
    espl_asked asked;
    espl_decoder *decoder; /* NULL: nothing is generated */
    int threads;
} opened;

/* data.valid, or the part of data.train that data.valid_fraction keeps apart. */
static espl_status open_data(espl_comm *comm, const espl_config *config, const espl_dataset_use *use, opened *o) {
    espl_dataset train;
    if (config->data_valid.n > 0)
        return espl_dataset_open(comm, config, o->model.tokenizer, &config->data_valid, use, &o->data);
    espl_status status = espl_dataset_open_run(comm, config, o->model.tokenizer, use, &train, &o->data);
    espl_dataset_close(&train);
    return status;
}

static const espl_strings *paths_of(const espl_config *config) {
    return config->data_valid.n > 0 ? &config->data_valid : &config->data_train;
}

static espl_status open_all(const espl_config *config, espl_comm *comm, const char *path, opened *o) {
    espl_capacity capacity[ESPL_N_STREAMS];
    char why[ESPL_MESSAGE_BYTES];
    ESPL_TRY(espl_choose_device(comm, config, &o->engine, why));
    ESPL_TRY(espl_threads_choose(comm, config->run_threads, &o->threads));
    const espl_inference_reach reach = {.least = config->data_sequence_length, .all = espl_asked_writes(config)};
    ESPL_TRY(espl_inference_open(comm, path, config, &o->engine, reach, o->threads, &o->model));
    const espl_model *model = o->model.model;
    ESPL_TRY(find_labels(comm, config, model, &o->labels));
    ESPL_TRY(check_head(config, model, &o->labels));
    espl_dataset_use use = {.room = espl_blueprint_room(config, model),
                            .length = espl_blueprint_length(config, model),
                            .prompt = espl_model_prompt(model, ESPL_STREAM_MAIN),
                            .source_prompt = espl_model_prompt(model, ESPL_STREAM_SOURCE),
                            .prompt_id = espl_model_prompt_id(model),
                            .eos = model->dims.eos,
                            .start = model->dims.start,
                            .labels = &o->labels};
    ESPL_TRY(open_data(comm, config, &use, o));
    espl_streams_capacity(model, &use.room, capacity);
    espl_tape_make(model, o->engine.kernels, ESPL_USE_EVAL, 0, 0, capacity, o->threads, &o->tape);
    return espl_comm_agree(comm, take_memory(&o->model, &o->tape, &use.room, capacity, &o->memory), "taking memory");
}

static espl_status evaluate(const espl_config *config, espl_comm *comm, opened *o, espl_outcome *outcome) {
    const espl_evaluation evaluation = {.comm = comm,
                                        .engine = &o->engine,
                                        .data = &o->data,
                                        .tape = &o->tape,
                                        .sample = &o->memory.sample,
                                        .sum = o->memory.sum,
                                        .predictions = o->tape.logits >= 0 ? &outcome->predictions : NULL,
                                        .most = config->train_eval_batches};
    if (o->tape.logits >= 0)
        outcome->predictions = espl_predictions_make((int)o->labels.n);
    ESPL_TRY(espl_evaluate(&evaluation, &outcome->result));
    return espl_comm_agree(comm, espl_outcome_make(config, &o->labels, outcome), "scoring");
}

/* Prompts and what is generated behind them take no more than the model reaches. */
static espl_status ask(const espl_config *config, opened *o, const espl_outcome_about *about) {
    const espl_asked_use use = {.config = config,
                                .model = o->model.model,
                                .tokenizer = o->model.tokenizer,
                                .folder = o->model.folder,
                                .data = &o->data,
                                .paths = about->paths,
                                .labels = &o->labels,
                                .most = o->model.positions};
    return espl_asked_make(&use, &o->asked);
}

static espl_status add_texts(const espl_config *config, espl_comm *comm, opened *o, const espl_outcome_about *about, const char *folder,
                             espl_outcome *outcome) {
    const espl_inference *in = &o->model;
    ESPL_TRY(espl_comm_agree(comm, ask(config, o, about), "reading the prompts"));
    const espl_decoder_size size = espl_text_scores_size(config, o->asked.longest);
    const espl_decoder_use use = {.engine = in->engine,
                                  .model = in->model,
                                  .weights = in->weights,
                                  .rope = in->rope,
                                  .threads = in->threads,
                                  .source_tokens = size.source_tokens};
    ESPL_TRY(espl_comm_agree(comm, espl_decoder_make(&use, size.rows, size.capacity, size.tokens, &o->decoder), "taking memory"));
    const espl_text_scores_use texts = {
        .comm = comm, .model = in->model, .tokenizer = in->tokenizer, .asked = &o->asked, .decoder = o->decoder, .step = about->step};
    return espl_text_scores_add(&texts, about, folder, outcome);
}

static espl_status add_texts_and_files(const espl_config *config, espl_comm *comm, opened *o, const char *path, const char *folder,
                                       espl_outcome *outcome) {
    const espl_outcome_about about = {
        .config = config, .labels = &o->labels, .paths = paths_of(config), .model = path, .step = o->model.step};
    if (espl_asked_writes(config))
        ESPL_TRY(add_texts(config, comm, o, &about, folder, outcome));
    if (folder == NULL)
        return ESPL_OK;
    espl_status status = espl_comm_ranks(comm)->rank == 0 ? espl_outcome_write(outcome, &about, folder) : ESPL_OK;
    return espl_comm_agree(comm, status, "writing the evaluation");
}

espl_status espl_evaluate_path(const espl_config *config, espl_comm *comm, const char *path, const char *folder, espl_outcome *outcome) {
    opened o = {0};
    espl_status status = ESPL_OK;
    *outcome = (espl_outcome){0};
    if (config->data_valid.n == 0 && config->data_valid_fraction == 0.0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.valid is empty: files, folders or globs to evaluate on are needed, or data.valid_fraction");
    ESPL_TRY_DONE(espl_asked_check(config));
    ESPL_TRY_DONE(open_all(config, comm, path, &o));
    ESPL_TRY_DONE(evaluate(config, comm, &o, outcome));
    ESPL_TRY_DONE(add_texts_and_files(config, comm, &o, path, folder, outcome));
done:
    espl_decoder_free(&o.decoder);
    espl_asked_free(&o.asked);
    free_memory(&o.memory);
    espl_tape_free(&o.tape);
    espl_dataset_close(&o.data);
    espl_labels_free(&o.labels);
    espl_inference_close(&o.model);
    espl_engine_close(&o.engine);
    return status;
}
