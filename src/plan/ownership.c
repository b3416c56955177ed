#include "src/plan/ownership.h"

#include "src/core/buffer.h"

const espl_owner espl_owner_alone = {.ranks = 1, .shards = 1, .n_groups = 1};

int64_t espl_owner_state_size(const espl_model *model, const espl_owner *owner) {
    int64_t flat = espl_model_flat_size(model, owner->ranks);
    return owner->replicated ? flat : flat / owner->shards;
}

/* Bytes of what other ranks keep, in front of what is frozen. */
static size_t elsewhere(const espl_model *model, const espl_owner *owner, espl_dtype real) {
    int64_t flat = espl_model_flat_size(model, owner->ranks);
    return owner->cut ? (size_t)(flat - flat / owner->shards) * espl_dtype_size(real) : 0;
}

size_t espl_owner_weights_bytes(const espl_model *model, const espl_owner *owner, espl_dtype real) {
    return espl_model_weights_bytes(model, owner->ranks, real) - elsewhere(model, owner, real);
}

size_t espl_owner_weights_at(const espl_model *model, const espl_owner *owner, int param, espl_dtype real) {
    ESPL_ASSERT(model->params[param].frozen || !owner->cut, "'%s' is cut over the ranks", model->params[param].name);
    return espl_model_weights_at(model, param, owner->ranks, real) - elsewhere(model, owner, real);
}

void espl_owner_piece(const espl_model *model, const espl_owner *owner, int bucket, int64_t *begin, int64_t *end) {
    int64_t start = espl_model_bucket_start(model, bucket, owner->ranks);
    int64_t share = espl_model_bucket_size(model, bucket, owner->ranks) / owner->shards;
    *begin = start + owner->shard * share;
    *end = *begin + share;
}

void espl_owner_counted(const espl_model *model, const espl_owner *owner, int bucket, int64_t *begin, int64_t *end) {
    espl_owner_piece(model, owner, bucket, begin, end);
    int64_t share = (*end - *begin) / owner->n_groups;
    *begin += owner->group * share;
    *end = *begin + share;
}

void espl_owner_stretch(const espl_model *model, const espl_owner *owner, int bucket, int64_t *flat, int64_t *state) {
    int64_t start = espl_model_bucket_start(model, bucket, owner->ranks), end;
    *flat = *state = start;
    if (owner->replicated)
        return;
    espl_owner_piece(model, owner, bucket, flat, &end);
    *state = start / owner->shards;
}

static espl_segment cut(const espl_model *model, const espl_owner *owner, int param, int64_t from, int64_t to) {
    const espl_param *p = &model->params[param];
    if (p->frozen)
        return (espl_segment){.param = param};
    int64_t bucket = espl_model_bucket_start(model, p->bucket, owner->ranks), start = bucket + p->offset;
    int64_t begin = from > start ? from - start : 0, end = (to < start + p->numel ? to : start + p->numel) - start;
    if (begin > p->numel)
        begin = p->numel;
    if (end < begin)
        end = begin;
    espl_segment s = {.param = param, .begin = begin, .end = end, .flat = start + begin};
    int64_t flat, state;
    espl_owner_stretch(model, owner, p->bucket, &flat, &state);
    s.state = state + s.flat - flat;
    s.weight = owner->cut ? s.state : s.flat;
    return s;
}

static int list_segments(const espl_model *model, const espl_owner *owner, bool whole, espl_segment **segments) {
    *segments = espl_malloc((size_t)model->n_params * sizeof **segments);
    for (int i = 0; i < model->n_params; i++) {
        int64_t from = 0, to = espl_model_flat_size(model, owner->ranks);
        if (!whole)
            espl_owner_piece(model, owner, model->params[i].bucket, &from, &to);
        (*segments)[i] = cut(model, owner, i, from, to);
    }
    return model->n_params;
}

int espl_owner_segments(const espl_model *model, const espl_owner *owner, espl_segment **segments) {
    return list_segments(model, owner, false, segments);
}

int espl_owner_updates(const espl_model *model, const espl_owner *owner, espl_segment **segments) {
    return list_segments(model, owner, owner->replicated, segments);
}
