#include "kernels/rules.h"

#include <string.h>

#define BLOCK_OF(per) ((per) == ESPL_PER_ELEMENT ? 1 : (per) == ESPL_PER_BLOCK ? ESPL_STATE_BLOCK : 0)
#define STATE(state_name, format, unit)                                                                                                    \
    {.name = #state_name, .dtype = ESPL_##format, .per = ESPL_PER_##unit, .block = BLOCK_OF(ESPL_PER_##unit)},
#define RULE(ID, rule_name, which, all)                                                                                                    \
    [ESPL_RULE_##ID] = {.name = #rule_name,                                                                                                \
                        .matrices = ESPL_MATRICES_##which,                                                                                 \
                        .states = {all},                                                                                                   \
                        .n_states = (int)(sizeof((espl_rule_state[]){all}) / sizeof(espl_rule_state))},
const espl_rule_desc espl_rules[ESPL_N_RULES] = {
#include "kernels/rules.def"
};
#undef RULE
#undef STATE

int espl_rule_find(const char *name) {
    for (int r = 0; r < ESPL_N_RULES; r++)
        if (strcmp(espl_rules[r].name, name) == 0)
            return r;
    return -1;
}

size_t espl_rule_state_bytes(const espl_rule_state *state, int64_t n) { return (size_t)(n / state->block) * espl_dtype_size(state->dtype); }

int64_t espl_rule_state_count(const espl_rule_state *state, const espl_rule_tensor *t) {
    bool wanted = state->per == ESPL_PER_OTHER ? !t->matrix : t->matrix;
    int64_t count = state->per == ESPL_PER_ROW ? t->rows : state->per == ESPL_PER_COLUMN ? t->columns : t->rows * t->columns;
    return wanted ? count : 0;
}
