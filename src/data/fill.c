#include "src/data/pieces.h"

static float class_weight(const espl_placement_options *options, int32_t label) {
    return label < 0 ? 0.0f : options->class_weights != NULL ? options->class_weights[label] : 1.0f;
}

/* Each token is to say which one follows. */
static int64_t fill_next(const espl_source *source, const espl_piece *at, int32_t *ids, int32_t *targets) {
    int64_t n = 0;
    for (int32_t i = 0; i < at->length; i++) {
        int64_t next = at->begin + i + 1;
        bool target = next < at->limit && (source->mask == NULL || source->mask[next]);
        ids[i] = espl__id_at(source, at->begin + i);
        targets[i] = target ? espl__id_at(source, next) : -1;
        n += target;
    }
    return n;
}

/* One label for the whole text. */
static int64_t fill_labelled(const espl_placement_options *options, const espl_source *source, const espl_piece *at, espl_sample *sample) {
    int32_t *ids = sample->ids + sample->n, *targets = sample->targets + sample->n, label = source->labels[at->document];
    for (int32_t i = 0; i < at->length; i++) {
        ids[i] = espl__id_at(source, at->begin + i);
        targets[i] = -1;
    }
    sample->labels[sample->n_segments] = label;
    sample->label_weights[sample->n_segments] = class_weight(options, label);
    return label >= 0;
}

/* The encoder reads the prompt and the source; the decoder reads the start token and the target, and is to say what follows. */
static int64_t fill_pair(const espl_placement_options *options, const espl_source *source, const espl_piece *at, espl_sample *sample) {
    espl_sample_source *encoder = &sample->source;
    int32_t *ids = sample->ids + sample->n, *targets = sample->targets + sample->n;
    int32_t prompt = (int32_t)options->source_prompt;
    for (int32_t i = 0; i < prompt + at->encoder; i++) {
        encoder->ids[encoder->n + i] = i < prompt ? options->prompt_id + i : espl__id_at(source, at->begin + i - prompt);
        encoder->positions[encoder->n + i] = i;
    }
    encoder->n += prompt + at->encoder;
    encoder->segments[sample->n_segments + 1] = (int32_t)encoder->n;
    for (int32_t i = 0; i < at->length; i++) {
        targets[i] = espl__id_at(source, at->begin + at->encoder + i);
        ids[i] = i == 0 ? options->start : targets[i - 1];
    }
    return at->length;
}

static int64_t fill_task(const espl_placement_options *options, const espl_source *source, const espl_piece *at, espl_sample *sample) {
    int32_t *ids = sample->ids + sample->n, *targets = sample->targets + sample->n;
    switch (options->task) {
    case ESPL_TASK_MLM: return espl__mask_tokens(options, source, at, ids, targets);
    case ESPL_TASK_CLASSIFICATION: return fill_labelled(options, source, at, sample);
    case ESPL_TASK_SEQ2SEQ: return fill_pair(options, source, at, sample);
    default: return fill_next(source, at, ids, targets);
    }
}

/* What stands in front of a segment of the main stream; returns how many tokens. */
static int32_t fill_prompt(const espl_placement_options *options, espl_sample *sample) {
    int32_t n = (int32_t)options->prompt;
    for (int32_t i = 0; i < n; i++) {
        sample->ids[sample->n + i] = options->prompt_id + i;
        sample->positions[sample->n + i] = i;
        sample->targets[sample->n + i] = -1;
        sample->types[sample->n + i] = 0;
    }
    sample->n += n;
    return n;
}

void espl__fill_piece(const espl_placement_options *options, const espl_source *source, const espl_piece *at, int64_t first_document,
                      espl_sample *sample) {
    int32_t prompt = fill_prompt(options, sample), *positions = sample->positions + sample->n, *types = sample->types + sample->n;
    bool typed = source->types != NULL && options->task != ESPL_TASK_SEQ2SEQ;
    int64_t n_targets = fill_task(options, source, at, sample);
    for (int32_t i = 0; i < at->length; i++) {
        positions[i] = prompt + i;
        types[i] = typed ? source->types[at->begin + i] : 0;
    }
    sample->n_targets += n_targets;
    sample->weight += options->task == ESPL_TASK_CLASSIFICATION ? (double)sample->label_weights[sample->n_segments] : (double)n_targets;
    sample->documents[sample->n_segments] = at->document >= 0 ? first_document + at->document : -1;
    sample->n += at->length;
    sample->segments[++sample->n_segments] = (int32_t)sample->n;
}

static int64_t next_targets(const espl_source *source, const espl_piece *at) {
    int64_t begin = at->begin + 1, end = begin + at->length, n = 0;
    end = end < at->limit ? end : at->limit;
    if (source->mask == NULL)
        return end - begin;
    for (int64_t t = begin; t < end; t++)
        n += source->mask[t] != 0;
    return n;
}

int64_t espl__piece_targets(const espl_placement_options *options, const espl_source *source, const espl_piece *at, double *weight) {
    int64_t n;
    switch (options->task) {
    case ESPL_TASK_CLASSIFICATION: {
        int32_t label = source->labels[at->document];
        *weight = (double)class_weight(options, label);
        return label >= 0;
    }
    case ESPL_TASK_MLM: n = espl__mask_tokens(options, source, at, NULL, NULL); break;
    case ESPL_TASK_SEQ2SEQ: n = at->length; break;
    default: n = next_targets(source, at);
    }
    *weight = (double)n;
    return n;
}
