#include "src/core/arena.h"
#include "src/data/placement.h"

enum { TOKENS_OF_A_SEQUENCE = 16, TARGET_SHARE = 4, SHORTER_WINDOWS = 2 }; /* where the config leaves the budgets open */

/* Windows are of one length, but for the last one of a text; so few segments, of bounded length, are what cuDNN's attention takes. */
static espl_room room_of_texts(const espl_config *config, int64_t positions, int64_t prompt) {
    int64_t tokens = config->train_micro_batch_tokens, sequences = config->train_micro_batch_sequences;
    int64_t longest = config->data_sequence_length > 0 ? config->data_sequence_length : positions;
    longest = longest + prompt < tokens ? longest + prompt : tokens;
    if (sequences == 0)
        sequences = config->data_placement == ESPL_WINDOWS ? SHORTER_WINDOWS * ((tokens + longest - 1) / longest) : tokens;
    return (espl_room){.tokens = tokens, .sequences = sequences < tokens ? sequences : tokens, .longest = longest};
}

espl_room espl_room_of(const espl_config *config, int64_t positions, int64_t prompt) {
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
    return room_of_texts(config, positions, prompt);
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
