#include "kernels/rules.h"

#include <string.h>

enum { BLOCK = ESPL_STATE_BLOCK };

#define STATE(state_name, format, elements) {.name = #state_name, .dtype = ESPL_##format, .block = (elements)},
#define RULE(ID, rule_name, all)                                                                                                           \
    [ESPL_RULE_##ID] = {.name = #rule_name, .states = {all}, .n_states = (int)(sizeof((espl_rule_state[]){all}) / sizeof(espl_rule_state))},
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

double espl_rule_bytes(espl_rule rule) {
    size_t bytes = 0; /* for a block of parameters */
    for (int i = 0; i < espl_rules[rule].n_states; i++)
        bytes += espl_rule_state_bytes(&espl_rules[rule].states[i], ESPL_STATE_BLOCK);
    return (double)bytes / ESPL_STATE_BLOCK;
}
