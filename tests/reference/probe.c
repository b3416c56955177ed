/* probe FOLDER INPUT.safetensors OUTPUT_FOLDER [fp32|bf16|ref32|ref64 [METHOD [FORMAT]]]: one forward and backward pass of a Hugging Face
 * folder, for scripts.
 *
 * INPUT holds ids (int64 [n]) and segments (int64 [s + 1]), and what the model needs of: targets, types [n], labels [s], weights (float
 * [s]), source_ids, source_segments. OUTPUT_FOLDER gets model.safetensors with logits [rows, V], loss [rows], hidden (of an encoder, what
 * the last layer leaves, [n, D]) and, under its name, the gradient of the mean loss for every parameter that is trained, all fp64. Dropout
 * is off. METHOD is lora,RANK,ALPHA,TARGET..., bottleneck,WIDTH,ACTIVATION,both|mlp prompt,LENGTH or prefix,LENGTH: what it adds is trained
 * alone; the folder holds it among its tensors, INPUT the ids of what stands in front. FORMAT (nf4, ...): how frozen matrices are held. */
#include "io/safetensors/safetensors.h"
#include "src/config/config.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/model/tape.h"
#include "src/train/feed/streams.h"
#include "src/train/weights/weights.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_TARGETS = 8, MOST_DROPPED = 32 };

typedef struct probe {
    espl_model_options options;
    char *targets[MOST_TARGETS], *ranks[MOST_TARGETS], *alphas[MOST_TARGETS];
    const espl_kernels *kernels;
    espl_model *model;
    espl_safetensors *input;
    espl_sample sample;
    espl_streams streams;
    espl_tape train, eval;
    void *weights, *gradients, *act, *work;
    espl_tensor_out *out;
    int64_t n_out;
    int n_dropped;
} probe;

static const espl_kernels *kernels_by_name(const char *name) {
    if (strcmp(name, "bf16") == 0)
        return espl_kernels_cpu(ESPL_BF16);
    if (strcmp(name, "ref32") == 0 || strcmp(name, "ref64") == 0)
        return espl_kernels_ref(strcmp(name, "ref64") == 0 ? ESPL_F64 : ESPL_F32);
    return espl_kernels_cpu(ESPL_F32);
}

/* Elements of a tensor of the input, 0 where it is not there. */
static int64_t read_input(const probe *p, const char *name, void *to, espl_dtype dtype) {
    const espl_tensor_file *t = espl_safetensors_find(p->input, name);
    if (t == NULL)
        return 0;
    ESPL_ASSERT(t->n_dims == 1 && (t->dtype == ESPL_I64 || t->dtype == ESPL_F32), "the input needs int64 or float '%s'", name);
    if (to != NULL)
        espl_dtype_convert(to, dtype, t->data, t->dtype, (size_t)t->shape[0]);
    return t->shape[0];
}

static void number(const int32_t *segments, int32_t n_segments, int32_t *positions) {
    for (int32_t s = 0; s < n_segments; s++)
        for (int32_t i = segments[s]; i < segments[s + 1]; i++)
            positions[i] = i - segments[s];
}

static espl_status read_sample(probe *p) {
    espl_sample *s = &p->sample;
    espl_room room = {.tokens = read_input(p, "ids", NULL, ESPL_I32),
                      .source_tokens = read_input(p, "source_ids", NULL, ESPL_I32),
                      .sequences = read_input(p, "segments", NULL, ESPL_I32) - 1};
    ESPL_TRY(espl_sample_make(&room, s));
    s->n = room.tokens;
    s->n_segments = (int32_t)room.sequences;
    for (int64_t i = 0; i < room.tokens; i++)
        s->targets[i] = -1;
    for (int32_t i = 0; i < s->n_segments; i++)
        s->label_weights[i] = 1.0f;
    read_input(p, "ids", s->ids, ESPL_I32);
    read_input(p, "segments", s->segments, ESPL_I32);
    read_input(p, "targets", s->targets, ESPL_I32);
    read_input(p, "types", s->types, ESPL_I32);
    read_input(p, "labels", s->labels, ESPL_I32);
    read_input(p, "weights", s->label_weights, ESPL_F32);
    number(s->segments, s->n_segments, s->positions);
    s->source.n = read_input(p, "source_ids", s->source.ids, ESPL_I32);
    if (read_input(p, "source_segments", s->source.segments, ESPL_I32) > 0)
        number(s->source.segments, s->n_segments, s->source.positions);
    return ESPL_OK;
}

static const espl_batch *loss_rows(const probe *p) {
    return espl_tape_stream(&p->streams.main, p->model->rows[p->model->n_rows - 1].attrs.stream);
}

static void fill_streams(probe *p) {
    double weight = 0.0;
    espl_streams_fill(p->model, &p->sample, &(espl_batch){0}, &p->streams);
    const espl_batch *rows = loss_rows(p);
    for (int64_t i = 0; i < rows->n; i++)
        weight += rows->targets[i] < 0 ? 0.0 : rows->weights != NULL ? (double)rows->weights[i] : 1.0;
    espl_batch common = {.loss_scale = (float)(1.0 / weight)};
    espl_streams_fill(p->model, &p->sample, &common, &p->streams);
}

static void add_output(probe *p, const char *name, const void *data, espl_dtype dtype, int n_dims, int64_t rows, int64_t columns) {
    size_t n = (size_t)(rows * (n_dims > 1 ? columns : 1));
    double *copy = espl_malloc(n * sizeof *copy);
    espl_dtype_convert(copy, ESPL_F64, data, dtype, n);
    p->out = espl_realloc(p->out, (size_t)(p->n_out + 1) * sizeof *p->out);
    p->out[p->n_out++] = (espl_tensor_out){.name = name, .dtype = ESPL_F64, .n_dims = n_dims, .shape = {rows, columns}, .data = copy};
}

static int64_t longest_segment(const espl_sample *s) {
    int64_t longest = 1;
    for (int32_t i = 0; i < s->n_segments; i++)
        longest = s->segments[i + 1] - s->segments[i] > longest ? s->segments[i + 1] - s->segments[i] : longest;
    return longest;
}

static espl_status open_probe(probe *p, const char *folder) {
    ESPL_TRY(espl_weights_model(folder, &p->options, &p->model));
    ESPL_TRY(read_sample(p));
    fill_streams(p);
    ESPL_TRY(espl_model_reach(p->model, longest_segment(&p->sample)));
    size_t flat = (size_t)espl_model_flat_size(p->model, 1);
    p->weights = espl_calloc(1, espl_model_weights_bytes(p->model, 1, p->kernels->real));
    p->gradients = espl_calloc(flat, espl_dtype_size(p->kernels->stat));
    espl_weights weights = {.flat = p->weights, .real = p->kernels->real, .owner = espl_owner_alone};
    ESPL_TRY(espl_weights_read(p->model, folder, 0, &weights));
    espl_room room = {.tokens = p->sample.n, .source_tokens = p->sample.source.n, .sequences = p->sample.n_segments};
    espl_capacity capacity[ESPL_N_STREAMS];
    espl_streams_capacity(p->model, &room, capacity);
    espl_tape_make(p->model, p->kernels, ESPL_USE_TRAIN, ESPL_RECOMPUTE_SELECTIVE, 0, capacity, espl_kernels_threads(), &p->train);
    espl_tape_make(p->model, p->kernels, ESPL_USE_EVAL, 0, 0, capacity, espl_kernels_threads(), &p->eval);
    p->act = espl_calloc(1, p->train.act_bytes + p->eval.act_bytes);
    p->work = espl_calloc(1, p->train.work_bytes + p->eval.work_bytes + (1 << 24));
    espl_places places = {.weights = p->weights, .gradients = p->gradients, .ranks = 1, .act = p->act, .work = p->work};
    espl_tape_bind(&p->train, &places);
    espl_tape_bind(&p->eval, &places);
    return ESPL_OK;
}

static const void *weight_of(const probe *p, int param) {
    if (param < 0)
        return NULL;
    return (const char *)p->weights + espl_model_weights_at(p->model, param, 1, p->kernels->real);
}

/* What the head multiplies times the head, through the LINEAR kernel, scaled as the loss scales it. */
static void probe_logits(probe *p) {
    const espl_row *head = &p->model->rows[p->model->n_rows - 1];
    const espl_batch *rows = loss_rows(p);
    espl_attrs attrs = {.n_in = head->attrs.n_in, .n_out = head->attrs.vocab, .layout = ESPL_OUT_IN};
    void *logits = espl_malloc((size_t)(rows->n * attrs.n_out) * espl_dtype_size(p->kernels->real));
    void *work = espl_malloc(p->kernels->work_bytes(ESPL_OP_LINEAR, &attrs, rows->n, espl_kernels_threads(), 0));
    espl_args args = {.attrs = &attrs,
                      .batch = rows,
                      .in = {espl_tape_buffer(&p->eval, p->eval.hidden)},
                      .out = {logits},
                      .param = {weight_of(p, head->param[0]), weight_of(p, head->param[1])},
                      .work = work};
    p->kernels->forward[ESPL_OP_LINEAR](&args);
    add_output(p, "logits", logits, p->kernels->real, 2, rows->n, attrs.n_out);
    double *scaled = (double *)(uintptr_t)p->out[p->n_out - 1].data;
    for (int64_t i = 0; i < rows->n * attrs.n_out; i++)
        scaled[i] *= (double)head->attrs.scale;
    free(logits);
    free(work);
}

/* Of an encoder, what its last layer's norm leaves. */
static espl_status keep_hidden(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    probe *p = context;
    const espl_row *row = &tape->model->rows[tape->calls[call].row];
    if (row->section != ESPL_SECTION_LAYER || row[1].section == ESPL_SECTION_LAYER || !tape->model->family->bidirectional)
        return ESPL_OK;
    const void *hidden = espl_tape_buffer(tape, tape->calls[call].out[1]);
    add_output(p, "hidden", hidden, p->kernels->real, 2, batch->n, tape->model->dims.width);
    return ESPL_OK;
}

/* What dropout leaves of an update's input: dropped-NUMBER of the row. */
static espl_status keep_dropped(void *context, const espl_tape *tape, int call, const espl_batch *batch) {
    static char names[MOST_DROPPED][24];
    probe *p = context;
    const espl_call *c = &tape->calls[call];
    if (c->kind != ESPL_CALL_FORWARD || c->again || strcmp(tape->model->rows[c->row].name, "lora_dropout") != 0 ||
        p->n_dropped == MOST_DROPPED)
        return ESPL_OK;
    snprintf(names[p->n_dropped], sizeof names[0], "dropped-%02d", p->n_dropped);
    const void *left = espl_tape_buffer(tape, c->out[0]);
    add_output(p, names[p->n_dropped++], left, p->kernels->real, 2, batch->n, tape->model->rows[c->row].attrs.n_in);
    return ESPL_OK;
}

static void probe_gradients(probe *p) {
    for (int i = 0; i < p->model->n_params; i++) {
        const espl_param *q = &p->model->params[i];
        if (q->frozen)
            continue;
        size_t at = (size_t)espl_model_place(p->model, i, 1) * espl_dtype_size(p->kernels->stat);
        add_output(p, q->name, (const char *)p->gradients + at, p->kernels->stat, q->n_dims, q->shape[0], q->shape[1]);
    }
}

static espl_status run(probe *p, char **argv) {
    ESPL_TRY(espl_safetensors_open(argv[2], &p->input));
    ESPL_TRY(open_probe(p, argv[1]));
    const espl_hooks hooks = {.context = p, .after_call = keep_hidden};
    ESPL_TRY(espl_tape_run(&p->eval, &p->streams.main, true, &hooks));
    probe_logits(p);
    const espl_hooks of_training = {.context = p, .after_call = keep_dropped};
    p->streams.main.training = p->options.lora.dropout > 0.0;
    p->streams.main.rng = (espl_rng_key){.seed = 1, .purpose = ESPL_RNG_DROPOUT};
    ESPL_TRY(espl_tape_run(&p->train, &p->streams.main, true, &of_training));
    add_output(p, "loss", espl_tape_buffer(&p->train, p->train.loss), p->kernels->stat, 1, loss_rows(p)->n, 0);
    probe_gradients(p);
    mkdir(argv[3], 0777);
    return espl_safetensors_write(argv[3], p->out, p->n_out, (size_t)1 << 40);
}

static bool take_word(char *word, const char *prefix, char **list, int64_t *n) {
    if (strncmp(word, prefix, strlen(prefix)) != 0 || *n == MOST_TARGETS)
        return false;
    list[(*n)++] = word + strlen(prefix);
    return true;
}

/* RANK,ALPHA,WORD...: a target, rank:TARGET=RANK, alpha:TARGET=ALPHA, dropout:RATE or dora */
static void read_lora(probe *p) {
    espl_lora_options *lora = &p->options.lora;
    lora->rank = strtol(strtok(NULL, ","), NULL, 10);
    lora->alpha = strtod(strtok(NULL, ","), NULL);
    lora->targets = p->targets;
    lora->ranks = p->ranks;
    lora->alphas = p->alphas;
    for (char *word = strtok(NULL, ","); word != NULL; word = strtok(NULL, ","))
        if (strcmp(word, "dora") == 0)
            lora->magnitudes = true;
        else if (strncmp(word, "dropout:", 8) == 0)
            lora->dropout = strtod(word + 8, NULL);
        else if (!take_word(word, "rank:", p->ranks, &lora->n_ranks) && !take_word(word, "alpha:", p->alphas, &lora->n_alphas))
            take_word(word, "", p->targets, &lora->n_targets);
}

static void read_bottleneck(probe *p) {
    espl_bottleneck_options *bottleneck = &p->options.bottleneck;
    bottleneck->width = strtol(strtok(NULL, ","), NULL, 10);
    bottleneck->activation = espl_config_choice_of("tune", "bottleneck_activation", strtok(NULL, ","));
    bottleneck->mlp_only = strcmp(strtok(NULL, ","), "mlp") == 0;
}

static void read_method(probe *p, char *text) {
    const char *method = strtok(text, ",");
    if (strcmp(method, "lora") == 0)
        read_lora(p);
    else if (strcmp(method, "bottleneck") == 0)
        read_bottleneck(p);
    else if (strcmp(method, "prompt") == 0 || strcmp(method, "prefix") == 0)
        p->options.prompt = (espl_prompt_options){strtol(strtok(NULL, ","), NULL, 10), strcmp(method, "prefix") == 0};
}

int main(int argc, char **argv) {
    probe p = {0};
    if (argc < 4) {
        fputs("usage: probe FOLDER INPUT.safetensors OUTPUT_FOLDER [fp32|bf16|ref32|ref64 [METHOD [FORMAT]]]\n", stderr);
        return ESPL_ERR_USAGE;
    }
    espl_log_set(0, ESPL_LOG_WARN, NULL);
    espl_kernels_set_threads(2);
    p.kernels = kernels_by_name(argc > 4 ? argv[4] : "fp32");
    if (argc > 5)
        read_method(&p, argv[5]);
    p.options.quant = argc > 6 ? espl_quant_format(argv[6]) : ESPL_QUANT_NONE;
    espl_status status = run(&p, argv);
    if (status != ESPL_OK)
        espl_status_print_trail(stderr);
    return status;
}
