#include "src/plan/pace.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MATRIX_REACHED 0.60
#define ATTENTION_REACHED 0.20
#define MEMORY_REACHED 0.79
#define ATTENTION_BACKWARD 3.5 /* seven products of the size of forward's two: five, and the scores twice, for dQ apart from dK and dV */

static const espl_pace gpus[] = {
#define GPU(id, tflops, memory_tbs, host_gbs, what)                                                                                        \
    {.name = id,                                                                                                                           \
     .peak = (tflops)*1e12,                                                                                                                \
     .matrix = (tflops)*1e12 * MATRIX_REACHED,                                                                                             \
     .attention = (tflops)*1e12 * ATTENTION_REACHED,                                                                                       \
     .memory = (memory_tbs)*1e12 * MEMORY_REACHED,                                                                                         \
     .host = (host_gbs)*1e9 * MEMORY_REACHED},
#include "src/plan/gpus.def"
#undef GPU
};

static const char names[] = ""
#define GPU(id, tflops, memory_tbs, host_gbs, what) ", " id " (" what ")"
#include "src/plan/gpus.def"
#undef GPU
    ;

bool espl_pace_gpu(const char *name, espl_pace *pace) {
    for (size_t i = 0; i < sizeof gpus / sizeof gpus[0]; i++)
        if (strcmp(gpus[i].name, name) == 0) {
            *pace = gpus[i];
            return true;
        }
    return false;
}

const char *espl_pace_names(void) { return names + 2; } /* without the first comma */

static double life_bytes(const espl_tape *tape, const int *lives, int n) {
    double bytes = 0.0;
    for (int i = 0; i < n; i++)
        bytes += lives[i] >= 0 ? (double)tape->lives[lives[i]].bytes : 0.0;
    return bytes;
}

/* Weights that a product reads, and gradients that backward writes, in the last micro-batches of a step onto what is there. */
static double param_bytes(const espl_tape *tape, const espl_call *c, bool product) {
    const espl_row *r = &tape->model->rows[c->row];
    double bytes = 0.0;
    for (int i = 0; i < ESPL_MAX_PARAM; i++) {
        if (r->param[i] < 0)
            continue;
        double numel = (double)tape->model->params[r->param[i]].numel;
        if (product)
            bytes += (double)espl_model_param_bytes(tape->model, r->param[i], tape->kernels->real);
        if (c->kind == ESPL_CALL_BACKWARD && espl_model_trains(tape->model, r->param[i], tape->phase))
            bytes += 2.0 * (double)espl_dtype_size(tape->kernels->stat) * numel;
    }
    return bytes;
}

/* Of the loss: logits in fp32 written and read, their gradient written and read by two products. */
static double logits_bytes(const espl_tape *tape, const espl_row *r, const espl_amount *amount) {
    if (!(espl_ops[r->op].flags & ESPL_OP_LOSS))
        return 0.0;
    return amount->rows[r->attrs.stream] * (double)r->attrs.vocab * (8.0 + 3.0 * (double)espl_dtype_size(tape->kernels->real));
}

double espl_pace_call(const espl_tape *tape, int call, const espl_amount *amount, const espl_pace *pace) {
    const espl_call *c = &tape->calls[call];
    if (c->kind == ESPL_CALL_BUCKET)
        return 0.0;
    const espl_row *r = &tape->model->rows[c->row];
    const bool attends = r->op == ESPL_OP_ATTENTION || r->op == ESPL_OP_CROSS_ATTENTION;
    const double flops = espl_costs_call_flops(tape, c, amount);
    double bytes = life_bytes(tape, c->in, ESPL_MAX_IN) + life_bytes(tape, c->out, ESPL_MAX_OUT) + life_bytes(tape, c->din, ESPL_MAX_IN) +
                   life_bytes(tape, c->dout, ESPL_MAX_OUT) + param_bytes(tape, c, flops > 0.0);
    if (attends) /* costs counts four products backward, which is what is needed, not what is executed */
        return flops / pace->attention * (c->kind == ESPL_CALL_BACKWARD ? ATTENTION_BACKWARD / 2.0 : 1.0);
    return fmax(flops / pace->matrix, bytes / pace->memory) + logits_bytes(tape, r, amount) / pace->memory;
}
