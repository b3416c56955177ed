#include "launch/show_samples.h"

#include "src/core/buffer.h"
#include "src/train/feed/dataset.h"
#include "src/train/memory/memory.h"
#include "src/train/weights/weights.h"

#include <unistd.h>

typedef struct shown {
    const espl_config *config;
    espl_labels labels;
    espl_model *model;
    espl_tokenizer *tokenizer;
    espl_dataset data;
    espl_sample sample;
    FILE *out;
    bool colours; /* a terminal: what is not learned is grey, else in brackets */
} shown;

static espl_status put_token(const shown *s, int32_t id) {
    espl_buffer text = {0};
    espl_status status = espl_tokenizer_decode(s->tokenizer, &id, 1, false, &text);
    if (status == ESPL_OK)
        fprintf(s->out, "|%s|", text.size > 0 ? text.data : "");
    espl_buffer_free(&text);
    return status;
}

static espl_status put_row(const shown *s, int32_t id, int32_t type, int32_t target) {
    fprintf(s->out, "%8d %3d ", id, type);
    ESPL_TRY(put_token(s, id));
    if (target >= 0) {
        fputs(" -> ", s->out);
        ESPL_TRY(put_token(s, target));
    }
    fputc('\n', s->out);
    return ESPL_OK;
}

static espl_status put_source(const shown *s, int32_t segment) {
    const espl_sample_source *source = &s->sample.source;
    int32_t begin = source->segments[segment], end = source->segments[segment + 1];
    fprintf(s->out, "source, %d tokens\n", end - begin);
    for (int32_t t = begin; t < end; t++)
        ESPL_TRY(put_row(s, source->ids[t], 0, -1));
    fputs("target\n", s->out);
    return ESPL_OK;
}

/* Tokens [begin, end), of which all or none are learned. */
static espl_status put_run(const shown *s, int32_t begin, int32_t end, bool learned) {
    espl_buffer text = {0};
    const char *before = learned ? "" : s->colours ? "\033[90m" : "[[", *behind = learned ? "" : s->colours ? "\033[0m" : "]]";
    espl_status status = espl_tokenizer_decode(s->tokenizer, s->sample.ids + begin, end - begin, false, &text);
    if (status == ESPL_OK)
        fprintf(s->out, "%s%.*s%s", before, (int)text.size, text.data, behind);
    espl_buffer_free(&text);
    return status;
}

/* A conversation as it is read; a token is learned when the one before it targets it. */
static espl_status put_talk(const shown *s, int32_t begin, int32_t end) {
    const int32_t *targets = s->sample.targets;
    for (int32_t from = begin, to; from < end; from = to) {
        bool learned = from > begin && targets[from - 1] >= 0;
        for (to = from + 1; to < end && (targets[to - 1] >= 0) == learned;)
            to++;
        ESPL_TRY(put_run(s, from, to, learned));
    }
    fputs("\n\n", s->out);
    return ESPL_OK;
}

static espl_status put_segment(const shown *s, int32_t segment, int64_t number) {
    const espl_sample *sample = &s->sample;
    int32_t begin = sample->segments[segment], end = sample->segments[segment + 1];
    fprintf(s->out, "text %lld, %d tokens", (long long)number, end - begin);
    if (s->config->data_task == ESPL_TASK_CLASSIFICATION)
        fprintf(s->out, ", label %s (%d)", s->labels.names[sample->labels[segment]], sample->labels[segment]);
    fputc('\n', s->out);
    if (s->config->data_task == ESPL_TASK_LM && s->config->data_records != ESPL_RECORDS_TEXT)
        return put_talk(s, begin, end);
    if (s->config->data_task == ESPL_TASK_SEQ2SEQ)
        ESPL_TRY(put_source(s, segment));
    for (int32_t t = begin; t < end; t++)
        ESPL_TRY(put_row(s, sample->ids[t], sample->types[t], sample->targets[t]));
    fputc('\n', s->out);
    return ESPL_OK;
}

static espl_status put_texts(shown *s, int64_t n) {
    int64_t number = 0;
    for (int64_t k = 0; k < espl_placement_count(s->data.placement, 0) && number < n; k++) {
        espl_placement_fill(s->data.placement, 0, k, &s->sample);
        for (int32_t i = 0; i < s->sample.n_segments && number < n; i++)
            ESPL_TRY(put_segment(s, i, ++number));
    }
    if (fflush(s->out) != 0)
        ESPL_FAIL(ESPL_ERR_IO, "tokenize: the texts cannot be written");
    return ESPL_OK;
}

static espl_status open_model(shown *s) {
    const espl_config *c = s->config;
    const char *tokenizer = c->data_tokenizer[0] != '\0' ? c->data_tokenizer : c->model_path;
    espl_model_options options = espl_model_options_of(c);
    options.labels = s->labels.names;
    options.n_labels = s->labels.n;
    if (tokenizer[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "data.tokenizer is not set, and there is no model.path to take tokenizer.json from");
    ESPL_TRY(espl_weights_model(c->model_config[0] != '\0' ? c->model_config : c->model_path, &options, &s->model));
    return espl_tokenizer_open(tokenizer, &s->tokenizer);
}

static espl_status check_config(const espl_config *c) {
    if (c->data_train.n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE, "data.train is empty: files, folders or globs of training data are needed");
    if (c->model_path[0] == '\0' && c->model_config[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "neither model.path nor model.config is set: a Hugging Face folder or a config.json is needed");
    if (c->data_cache[0] == '\0' && c->run_dir[0] == '\0')
        ESPL_FAIL(ESPL_ERR_USAGE, "neither data.cache nor run.dir is set: a folder for the tokens is needed");
    return ESPL_OK;
}

espl_status espl_show_samples(espl_comm *comm, const espl_config *config, int64_t n, FILE *out) {
    espl_status status = ESPL_OK;
    shown s = {.config = config, .out = out, .colours = isatty(fileno(out)) == 1};
    ESPL_TRY(check_config(config));
    ESPL_TRY_DONE(espl_dataset_labels(comm, config, &s.labels));
    ESPL_TRY_DONE(espl_comm_agree(comm, open_model(&s), "opening the model"));
    const espl_dims *dims = &s.model->dims;
    espl_dataset_use use = {.room = espl_blueprint_room(config, s.model), /* what a method puts in front has no text: it is not shown */
                            .length = espl_blueprint_length(config, s.model),
                            .eos = dims->eos,
                            .start = dims->start,
                            .labels = &s.labels};
    ESPL_TRY_DONE(espl_dataset_open(comm, config, s.tokenizer, &config->data_train, &use, &s.data));
    ESPL_TRY_DONE(espl_sample_make(&use.room, &s.sample));
    ESPL_TRY_DONE(put_texts(&s, n));
done:
    espl_sample_free(&s.sample);
    espl_dataset_close(&s.data);
    espl_tokenizer_close(&s.tokenizer);
    espl_model_free(&s.model);
    espl_labels_free(&s.labels);
    return status;
}
