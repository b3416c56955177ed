#include "src/train/feed/streams.h"

static bool has_stream(const espl_model *model, espl_stream stream) {
    for (int i = 0; i < model->n_slots; i++)
        if (model->slots[i].stream == stream)
            return true;
    return false;
}

void espl_streams_capacity(const espl_model *model, const espl_room *room, espl_capacity capacity[ESPL_N_STREAMS]) {
    bool source = has_stream(model, ESPL_STREAM_SOURCE), pooled = has_stream(model, ESPL_STREAM_POOLED);
    capacity[ESPL_STREAM_MAIN] = (espl_capacity){room->tokens, room->sequences, room->longest};
    capacity[ESPL_STREAM_SOURCE] = (espl_capacity){source ? room->source_tokens : 0, source ? room->sequences : 0, 0};
    capacity[ESPL_STREAM_POOLED] = (espl_capacity){pooled ? room->sequences : 0, 0, 0};
}

void espl_streams_fill(const espl_model *model, const espl_sample *sample, const espl_batch *common, espl_streams *streams) {
    const espl_sample_source *source = &sample->source;
    streams->main = streams->source = streams->pooled = *common;
    streams->main.n = sample->n;
    streams->main.n_segments = sample->n_segments;
    streams->main.segments = sample->segments;
    streams->main.ids = sample->ids;
    streams->main.positions = sample->positions;
    streams->main.targets = sample->targets;
    streams->main.types = model->dims.types > 0 ? sample->types : NULL;
    if (has_stream(model, ESPL_STREAM_SOURCE)) {
        streams->source.n = source->n;
        streams->source.n_segments = sample->n_segments;
        streams->source.segments = source->segments;
        streams->source.ids = source->ids;
        streams->source.positions = source->positions;
        streams->main.source = &streams->source;
    }
    if (has_stream(model, ESPL_STREAM_POOLED)) {
        streams->pooled.n = sample->n_segments;
        streams->pooled.targets = sample->labels;
        streams->pooled.weights = sample->label_weights;
        streams->main.pooled = &streams->pooled;
    }
}
