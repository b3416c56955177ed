#include "src/plan/rule_tensors.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>

enum { GRAIN = 64 /* numbers; tensors begin at multiples, so that kernels may read 256 bytes at once */ };

static int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* Of layers are those that multiply a token's values; embeddings and heads have a row a token or a label. */
static bool is_matrix(const espl_param *p, espl_matrices which) {
    return p->n_dims == 2 && (which == ESPL_MATRICES_ALL || (which == ESPL_MATRICES_OF_LAYERS && p->layer >= 0));
}

static espl_rule_tensor shape_of(const espl_param *p, espl_matrices which, bool match_rms) {
    espl_rule_tensor t = {.rows = 1, .columns = p->numel, .scale = 1.0f};
    if (!is_matrix(p, which))
        return t;
    t.matrix = true;
    t.rows = p->shape[0];
    t.columns = p->shape[1];
    double rows = (double)t.rows, columns = (double)t.columns;
    t.scale = (float)(match_rms ? 0.2 * sqrt(fmax(rows, columns)) : sqrt(fmax(1.0, rows / columns)));
    return t;
}

void espl_rule_tensors_make(const espl_model *model, espl_rule rule, bool match_rms, int ranks, espl_rule_tensors *tensors) {
    const espl_rule_desc *desc = &espl_rules[rule];
    *tensors = (espl_rule_tensors){0};
    if (desc->matrices == ESPL_MATRICES_NONE)
        return;
    tensors->of = espl_malloc((size_t)model->n_params * sizeof *tensors->of);
    for (int i = 0; i < model->n_params; i++) {
        espl_rule_tensor *t = &tensors->of[i];
        *t = shape_of(&model->params[i], desc->matrices, match_rms);
        for (int k = 0; k < desc->n_states; k++) {
            t->state[k] = tensors->size[k];
            if (!model->params[i].frozen)
                tensors->size[k] += round_up(espl_rule_state_count(&desc->states[k], t), GRAIN);
        }
    }
    for (int k = 0; k < desc->n_states; k++)
        tensors->size[k] = round_up(tensors->size[k], (int64_t)ESPL_PIECE * ranks);
}

static int64_t clamp(int64_t x, int64_t low, int64_t high) { return x < low ? low : x > high ? high : x; }

void espl_rule_tensors_piece(const espl_rule_tensors *tensors, const espl_rule_state *state, int k, int param, int rank, int ranks,
                             int64_t *begin, int64_t *end) {
    const espl_rule_tensor *t = &tensors->of[param];
    int64_t first = t->state[k], last = first + espl_rule_state_count(state, t), share = tensors->size[k] / ranks;
    *begin = clamp(rank * share, first, last);
    *end = clamp((rank + 1) * share, first, last);
}

static double numbers_of(const espl_rule_tensors *tensors, const espl_model *model, const espl_rule_state *state) {
    int64_t n = 0;
    for (int i = 0; i < model->n_params; i++)
        if (!model->params[i].frozen)
            n += espl_rule_state_count(state, &tensors->of[i]);
    return (double)n;
}

double espl_rule_tensors_bytes(const espl_rule_tensors *tensors, const espl_model *model, espl_rule rule) {
    double bytes = 0, n = (double)espl_model_trained_numel(model);
    for (int k = 0; k < espl_rules[rule].n_states; k++) {
        const espl_rule_state *s = &espl_rules[rule].states[k];
        bytes += (double)espl_dtype_size(s->dtype) * (s->block > 0 ? 1.0 / (double)s->block : numbers_of(tensors, model, s) / n);
    }
    return bytes;
}

size_t espl_rule_tensors_work(const espl_rule_tensors *tensors, const espl_model *model, const espl_kernels *kernels, espl_rule rule,
                              int threads) {
    size_t most = 0;
    for (int i = 0; i < model->n_params && tensors->of != NULL; i++) {
        size_t bytes = model->params[i].frozen ? 0 : kernels->rule_work(rule, &tensors->of[i], threads);
        most = bytes > most ? bytes : most;
    }
    return most;
}

void espl_rule_tensors_free(espl_rule_tensors *tensors) {
    free(tensors->of);
    *tensors = (espl_rule_tensors){0};
}
