#include "src/train/memory/state_list.h"

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
    espl_rule_tensors_piece(&b->tensors, state, k, param, b->owner.shard, b->owner.shards, &begin, &end);
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
    int64_t blocks = espl_model_bucket_size(b->model, bucket, 1) / state->block, begin, end, flat, at;
    int64_t start = espl_model_bucket_start(b->model, bucket, b->owner.ranks);
    espl_owner_piece(b->model, &b->owner, bucket, &begin, &end);
    espl_owner_stretch(b->model, &b->owner, bucket, &flat, &at);
    espl_state_tensor t = {.group = state->name, .name = name, .dtype = state->dtype, .n_dims = 1, .shape = {blocks}};
    t.begin = (begin - start) / state->block < blocks ? (begin - start) / state->block : blocks;
    t.end = (end - start) / state->block < blocks ? (end - start) / state->block : blocks;
    t.data = element(base, state->dtype, (at + begin - flat) / state->block);
    return t;
}

/* Which group of ranks saves what, by bucket and array: the weights and the states of the rule. */
typedef struct writers {
    int array[1 + ESPL_MAX_STATES];
} writers;

/* Each array of a bucket goes to the group that has the fewest bytes so far; ranks of a group have the same share of a bucket. */
static writers *share_out(const espl_blueprint *b) {
    const espl_rule_desc *rule = &espl_rules[b->rule];
    const int groups = b->owner.n_groups;
    double *loads = espl_calloc((size_t)groups, sizeof *loads);
    writers *of = espl_calloc((size_t)b->model->n_buckets, sizeof *of);
    for (int i = 0; i < b->model->n_buckets * (1 + rule->n_states); i++) {
        const int bucket = i / (1 + rule->n_states), array = i % (1 + rule->n_states);
        const espl_dtype dtype = array > 0 ? rule->states[array - 1].dtype : espl_blueprint_truth(b);
        int *least = &of[bucket].array[array];
        for (int g = 1; g < groups; g++)
            *least = loads[g] < loads[*least] ? g : *least;
        loads[*least] += (double)espl_model_bucket_size(b->model, bucket, 1) * (double)espl_dtype_size(dtype);
    }
    free(loads);
    return of;
}

/* A list that grows. */
typedef struct state_list {
    const espl_blueprint *b;
    const espl_memory *memory;
    const writers *writers; /* [buckets]; NULL: what this rank keeps counts, not what it saves */
    espl_state_tensor *items;
    int64_t n;
} state_list;

static void add(state_list *l, const espl_state_tensor *t, int bucket, int array) {
    espl_state_tensor *added = &l->items[l->n++];
    *added = *t;
    if (l->writers != NULL && l->writers[bucket].array[array] != l->b->owner.group)
        added->begin = added->end = 0;
}

static void list_params(state_list *l) {
    const espl_blueprint *b = l->b;
    const espl_memory *m = l->memory;
    const espl_rule_desc *rule = &espl_rules[b->rule];
    espl_segment *owned;
    espl_state_tensor t;
    int n_params = espl_owner_segments(b->model, &b->owner, &owned);
    for (int i = 0; i < n_params; i++) {
        const espl_param *p = &b->model->params[i];
        if (p->frozen)
            continue;
        t = of_param(p, &owned[i], "model", espl_blueprint_truth(b), b->master ? m->master : m->weights,
                     b->master ? owned[i].state : owned[i].weight);
        add(l, &t, p->bucket, 0);
        for (int k = 0; k < rule->n_states; k++) {
            bool there = rule->states[k].block == 1;
            if (there)
                t = of_param(p, &owned[i], rule->states[k].name, rule->states[k].dtype, m->states[k], owned[i].state);
            else if (rule->states[k].block == 0)
                there = of_tensor(b, i, k, m->states[k], &t);
            if (there)
                add(l, &t, p->bucket, 1 + k);
        }
    }
    free(owned);
}

static void list_buckets(state_list *l, char *names) {
    const espl_rule_desc *rule = &espl_rules[l->b->rule];
    for (int i = 0; i < l->b->model->n_buckets; i++) {
        char *name = names + (size_t)i * BUCKET_NAME;
        snprintf(name, BUCKET_NAME, "bucket-%d", i);
        for (int k = 0; k < rule->n_states; k++)
            if (rule->states[k].block > 1) {
                const espl_state_tensor t = of_bucket(l->b, i, name, &rule->states[k], l->memory->states[k]);
                add(l, &t, i, 1 + k);
            }
    }
}

int64_t espl_state_list(const espl_blueprint *b, const espl_memory *memory, bool saved, espl_state_tensor **list) {
    static const espl_memory nowhere = {0};
    size_t most = (size_t)b->model->n_params * (1 + ESPL_MAX_STATES) + (size_t)b->model->n_buckets * ESPL_MAX_STATES;
    writers *shared = saved ? share_out(b) : NULL;
    state_list l = {.b = b, .memory = memory != NULL ? memory : &nowhere, .writers = shared};
    *list = l.items = espl_calloc(1, most * sizeof **list + (size_t)b->model->n_buckets * BUCKET_NAME);
    list_params(&l);
    list_buckets(&l, (char *)(l.items + most));
    free(shared);
    return l.n;
}
