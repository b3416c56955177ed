#include "src/train/state_list.h"

#include "src/core/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKET_NAME = 24 };

/* Element `at` of an array; NULL without memory. */
static void *element(void *base, espl_dtype dtype, int64_t at) {
    return base != NULL ? (char *)base + (size_t)at * espl_dtype_size(dtype) : NULL;
}

/* Of one parameter, element by element. */
static espl_state_tensor of_param(const espl_param *p, const espl_segment *s, const char *group, espl_dtype dtype, void *base, int64_t at) {
    espl_state_tensor t = {.group = group,
                           .name = p->name,
                           .dtype = dtype,
                           .n_dims = p->n_dims,
                           .begin = s->begin,
                           .end = s->end,
                           .data = element(base, dtype, at)};
    memcpy(t.shape, p->shape, sizeof p->shape);
    return t;
}

/* Numbers with places of their own; false where the parameter has none. */
static bool of_tensor(const espl_blueprint *b, int param, int k, void *base, espl_state_tensor *t) {
    const espl_param *p = &b->model->params[param];
    const espl_rule_state *state = &espl_rules[b->rule].states[k];
    const espl_rule_tensor *tensor = &b->tensors.of[param];
    int64_t begin, end, n = espl_rule_state_count(state, tensor);
    espl_rule_tensors_piece(&b->tensors, state, k, param, b->owner.rank, b->owner.ranks, &begin, &end);
    *t = (espl_state_tensor){.group = state->name,
                             .name = p->name,
                             .dtype = state->dtype,
                             .n_dims = 1,
                             .shape = {n},
                             .begin = begin - tensor->state[k],
                             .end = end - tensor->state[k],
                             .data = element(base, state->dtype, begin)};
    if (n != p->numel)
        return n > 0;
    t->n_dims = p->n_dims;
    memcpy(t->shape, p->shape, sizeof p->shape);
    return true;
}

/* Of the blocks of one bucket, as many as its parameters reach into, whatever the ranks. */
static espl_state_tensor of_bucket(const espl_blueprint *b, int bucket, const char *name, const espl_rule_state *state, void *base) {
    const espl_owner own = {.rank = b->owner.rank, .ranks = b->owner.ranks};
    int64_t blocks = espl_model_bucket_size(b->model, bucket, 1) / state->block, begin, end, flat, at;
    int64_t start = espl_model_bucket_start(b->model, bucket, own.ranks);
    espl_owner_piece(b->model, &own, bucket, &begin, &end);
    espl_owner_stretch(b->model, &b->owner, bucket, &flat, &at);
    espl_state_tensor t = {.group = state->name, .name = name, .dtype = state->dtype, .n_dims = 1, .shape = {blocks}};
    t.begin = (begin - start) / state->block < blocks ? (begin - start) / state->block : blocks;
    t.end = (end - start) / state->block < blocks ? (end - start) / state->block : blocks;
    t.data = element(base, state->dtype, (at + begin - flat) / state->block);
    return t;
}

static void list_params(const espl_blueprint *b, const espl_memory *m, espl_state_tensor *list, int64_t *n) {
    const espl_rule_desc *rule = &espl_rules[b->rule];
    espl_segment *owned;
    int n_params = espl_owner_segments(b->model, &b->owner, &owned);
    for (int i = 0; i < n_params; i++) {
        const espl_param *p = &b->model->params[i];
        if (p->frozen)
            continue;
        list[(*n)++] = of_param(p, &owned[i], "model", espl_blueprint_truth(b), b->master ? m->master : m->weights,
                                b->master ? owned[i].state : owned[i].weight);
        for (int k = 0; k < rule->n_states; k++)
            if (rule->states[k].block == 1)
                list[(*n)++] = of_param(p, &owned[i], rule->states[k].name, rule->states[k].dtype, m->states[k], owned[i].state);
            else if (rule->states[k].block == 0)
                *n += of_tensor(b, i, k, m->states[k], &list[*n]);
    }
    free(owned);
}

static void list_buckets(const espl_blueprint *b, const espl_memory *m, char *names, espl_state_tensor *list, int64_t *n) {
    const espl_rule_desc *rule = &espl_rules[b->rule];
    for (int i = 0; i < b->model->n_buckets; i++) {
        char *name = names + (size_t)i * BUCKET_NAME;
        snprintf(name, BUCKET_NAME, "bucket-%d", i);
        for (int k = 0; k < rule->n_states; k++)
            if (rule->states[k].block > 1)
                list[(*n)++] = of_bucket(b, i, name, &rule->states[k], m->states[k]);
    }
}

int64_t espl_state_list(const espl_blueprint *b, const espl_memory *memory, espl_state_tensor **list) {
    static const espl_memory nowhere = {0};
    const espl_memory *m = memory != NULL ? memory : &nowhere;
    size_t most = (size_t)b->model->n_params * (1 + ESPL_MAX_STATES) + (size_t)b->model->n_buckets * ESPL_MAX_STATES;
    *list = espl_calloc(1, most * sizeof **list + (size_t)b->model->n_buckets * BUCKET_NAME);
    int64_t n = 0;
    list_params(b, m, *list, &n);
    list_buckets(b, m, (char *)(*list + most), *list, &n);
    return n;
}
