/* probe FOLDER INPUT.safetensors OUTPUT_FOLDER [fp32|bf16|ref32|ref64]: one forward and backward pass of a Hugging Face folder, for
 * scripts.
 *
 * INPUT holds ids, targets and positions (int64 [n]) and segments (int64 [s + 1]). OUTPUT_FOLDER gets model.safetensors with logits [n, V],
 * loss [n] and, under its name, the gradient of the mean loss for every parameter, all fp64. Dropout is off. */
#include "io/safetensors.h"
#include "src/config/config.h"
#include "src/core/buffer.h"
#include "src/core/log.h"
#include "src/model/tape.h"
#include "src/train/weights.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct probe {
    const espl_kernels *kernels;
    espl_model *model;
    espl_safetensors *input;
    int32_t *ids, *targets, *positions, *segments;
    espl_batch batch;
    espl_tape train, eval;
    void *weights, *gradients, *act, *work;
    espl_tensor_out *out;
    int64_t n_out;
} probe;

static const espl_kernels *kernels_by_name(const char *name) {
    if (strcmp(name, "bf16") == 0)
        return espl_kernels_cpu(ESPL_BF16);
    if (strcmp(name, "ref32") == 0 || strcmp(name, "ref64") == 0)
        return espl_kernels_ref(strcmp(name, "ref64") == 0 ? ESPL_F64 : ESPL_F32);
    return espl_kernels_cpu(ESPL_F32);
}

static int32_t *read_ints(const probe *p, const char *name, int64_t *n) {
    const espl_tensor_file *t = espl_safetensors_find(p->input, name);
    ESPL_ASSERT(t != NULL && t->dtype == ESPL_I64 && t->n_dims == 1, "the input needs int64 '%s'", name);
    int32_t *values = espl_malloc((size_t)t->shape[0] * sizeof *values);
    espl_dtype_convert(values, ESPL_I32, t->data, ESPL_I64, (size_t)t->shape[0]);
    *n = t->shape[0];
    return values;
}

static void read_batch(probe *p) {
    int64_t n, n_segments, targets = 0;
    p->ids = read_ints(p, "ids", &n);
    p->targets = read_ints(p, "targets", &n);
    p->positions = read_ints(p, "positions", &n);
    p->segments = read_ints(p, "segments", &n_segments);
    for (int64_t i = 0; i < n; i++)
        targets += p->targets[i] >= 0;
    p->batch = (espl_batch){.n = n,
                            .n_segments = (int32_t)n_segments - 1,
                            .segments = p->segments,
                            .ids = p->ids,
                            .positions = p->positions,
                            .targets = p->targets,
                            .loss_scale = 1.0f / (float)targets};
}

static void add_output(probe *p, const char *name, const void *data, espl_dtype dtype, int n_dims, int64_t rows, int64_t columns) {
    size_t n = (size_t)(rows * (n_dims > 1 ? columns : 1));
    double *copy = espl_malloc(n * sizeof *copy);
    espl_dtype_convert(copy, ESPL_F64, data, dtype, n);
    p->out = espl_realloc(p->out, (size_t)(p->n_out + 1) * sizeof *p->out);
    p->out[p->n_out++] = (espl_tensor_out){.name = name, .dtype = ESPL_F64, .n_dims = n_dims, .shape = {rows, columns}, .data = copy};
}

static espl_status open_probe(probe *p, const char *folder) {
    int64_t length = 1;
    ESPL_TRY(espl_model_make(folder, &(espl_model_options){0}, &p->model));
    read_batch(p);
    for (int64_t i = 0; i < p->batch.n; i++)
        length = p->positions[i] + 1 > length ? p->positions[i] + 1 : length;
    ESPL_TRY(espl_model_reach(p->model, length));
    size_t flat = (size_t)espl_model_flat_size(p->model, 1), real = espl_dtype_size(p->kernels->real);
    p->weights = espl_calloc(flat, real);
    p->gradients = espl_calloc(flat, espl_dtype_size(p->kernels->stat));
    espl_weights weights = {.flat = p->weights, .real = p->kernels->real, .owner = {.ranks = 1}};
    ESPL_TRY(espl_weights_read(p->model, folder, 0, &weights));
    espl_capacity capacity[ESPL_N_STREAMS] = {{p->batch.n, p->batch.n_segments}};
    espl_tape_make(p->model, p->kernels, ESPL_USE_TRAIN, ESPL_RECOMPUTE_SELECTIVE, capacity, espl_kernels_threads(), &p->train);
    espl_tape_make(p->model, p->kernels, ESPL_USE_EVAL, 0, capacity, espl_kernels_threads(), &p->eval);
    p->act = espl_calloc(1, p->train.act_bytes + p->eval.act_bytes);
    p->work = espl_calloc(1, p->train.work_bytes + p->eval.work_bytes + (1 << 24));
    espl_places places = {.weights = p->weights, .gradients = p->gradients, .ranks = 1, .act = p->act, .work = p->work};
    espl_tape_bind(&p->train, &places);
    espl_tape_bind(&p->eval, &places);
    return ESPL_OK;
}

/* Logits of all tokens: the last norm's values times the head, through the LINEAR kernel. */
static void probe_logits(probe *p) {
    const espl_row *head = &p->model->rows[p->model->n_rows - 1];
    const espl_param *w = &p->model->params[head->param[0]];
    size_t real = espl_dtype_size(p->kernels->real);
    espl_attrs attrs = {.n_in = head->attrs.n_in, .n_out = head->attrs.vocab, .layout = ESPL_OUT_IN};
    void *logits = espl_malloc((size_t)(p->batch.n * attrs.n_out) * real);
    void *work = espl_malloc(p->kernels->work_bytes(ESPL_OP_LINEAR, &attrs, p->batch.n, espl_kernels_threads(), 0));
    const char *weight = (const char *)p->weights + (size_t)(espl_model_bucket_start(p->model, w->bucket, 1) + w->offset) * real;
    espl_args args = {.attrs = &attrs,
                      .batch = &p->batch,
                      .in = {espl_tape_buffer(&p->eval, p->eval.hidden)},
                      .out = {logits},
                      .param = {weight},
                      .work = work};
    p->kernels->forward[ESPL_OP_LINEAR](&args);
    add_output(p, "logits", logits, p->kernels->real, 2, p->batch.n, attrs.n_out);
    free(logits);
    free(work);
}

static void probe_gradients(probe *p) {
    for (int i = 0; i < p->model->n_params; i++) {
        const espl_param *q = &p->model->params[i];
        size_t at = (size_t)(espl_model_bucket_start(p->model, q->bucket, 1) + q->offset) * espl_dtype_size(p->kernels->stat);
        add_output(p, q->name, (const char *)p->gradients + at, p->kernels->stat, q->n_dims, q->shape[0], q->shape[1]);
    }
}

static espl_status run(probe *p, char **argv) {
    ESPL_TRY(espl_safetensors_open(argv[2], &p->input));
    ESPL_TRY(open_probe(p, argv[1]));
    ESPL_TRY(espl_tape_run(&p->eval, &p->batch, true, NULL));
    probe_logits(p);
    ESPL_TRY(espl_tape_run(&p->train, &p->batch, true, NULL));
    add_output(p, "loss", espl_tape_buffer(&p->train, p->train.loss), p->kernels->stat, 1, p->batch.n, 0);
    probe_gradients(p);
    mkdir(argv[3], 0777);
    return espl_safetensors_write(argv[3], p->out, p->n_out, (size_t)1 << 40);
}

int main(int argc, char **argv) {
    probe p = {0};
    if (argc < 4) {
        fputs("usage: probe FOLDER INPUT.safetensors OUTPUT_FOLDER [fp32|bf16|ref32|ref64]\n", stderr);
        return ESPL_ERR_USAGE;
    }
    espl_log_set(0, ESPL_LOG_WARN, NULL);
    espl_kernels_set_threads(2);
    p.kernels = kernels_by_name(argc > 4 ? argv[4] : "fp32");
    espl_status status = run(&p, argv);
    if (status != ESPL_OK)
        espl_status_print_trail(stderr);
    return status;
}
