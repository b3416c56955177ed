#include "src/core/arena.h"
#include "src/data/placement.h"

enum { TOKENS_OF_A_SEQUENCE = 16, TARGET_SHARE = 4 }; /* where the config leaves the budgets open */

espl_room espl_room_of(const espl_config *config) {
    int64_t tokens = config->train_micro_batch_tokens, targets = config->train_micro_batch_target_tokens,
            sequences = config->train_micro_batch_sequences;
    if (config->data_task == ESPL_TASK_SEQ2SEQ) {
        targets = targets > 0 ? targets : (tokens + TARGET_SHARE - 1) / TARGET_SHARE;
        return (espl_room){.tokens = targets, .source_tokens = tokens, .sequences = targets};
    }
    if (config->data_task == ESPL_TASK_CLASSIFICATION) {
        sequences = sequences > 0 ? sequences : (tokens + TOKENS_OF_A_SEQUENCE - 1) / TOKENS_OF_A_SEQUENCE;
        return (espl_room){.tokens = tokens, .sequences = sequences < tokens ? sequences : tokens};
    }
    return (espl_room){.tokens = tokens, .sequences = tokens};
}

void espl_sample_take(espl_arena *arena, const espl_room *room, espl_sample *sample) {
    size_t tokens = (size_t)room->tokens, source = (size_t)room->source_tokens, sequences = (size_t)room->sequences;
    sample->segments = espl_arena_take(arena, (sequences + 1) * sizeof *sample->segments);
    sample->ids = espl_arena_take(arena, tokens * sizeof *sample->ids);
    sample->positions = espl_arena_take(arena, tokens * sizeof *sample->positions);
    sample->targets = espl_arena_take(arena, tokens * sizeof *sample->targets);
    sample->types = espl_arena_take(arena, tokens * sizeof *sample->types);
    sample->documents = espl_arena_take(arena, sequences * sizeof *sample->documents);
    sample->labels = espl_arena_take(arena, sequences * sizeof *sample->labels);
    sample->label_weights = espl_arena_take(arena, sequences * sizeof *sample->label_weights);
    if (source == 0)
        return;
    sample->source.segments = espl_arena_take(arena, (sequences + 1) * sizeof *sample->source.segments);
    sample->source.ids = espl_arena_take(arena, source * sizeof *sample->source.ids);
    sample->source.positions = espl_arena_take(arena, source * sizeof *sample->source.positions);
}

espl_status espl_sample_make(const espl_room *room, espl_sample *sample) {
    espl_arena measure = espl_arena_measure("a micro-batch");
    *sample = (espl_sample){0};
    espl_sample_take(&measure, room, sample);
    ESPL_TRY(espl_arena_bind(&sample->memory, measure.name, measure.used));
    espl_sample_take(&sample->memory, room, sample);
    return ESPL_OK;
}

void espl_sample_free(espl_sample *sample) {
    espl_arena_free(&sample->memory);
    *sample = (espl_sample){0};
}
