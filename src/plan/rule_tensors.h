/* Tensors as a rule with matrices (kernels/rules.def) gets them: which are matrices, and where what the rule keeps for each lies.
 *
 * Every rank keeps all of it. The places do not depend on the ranks; an array's end is padded so that it divides into even pieces, of which
 * rank r writes the r-th into checkpoints and reads it back. */
#ifndef ESPL_PLAN_RULE_TENSORS_H
#define ESPL_PLAN_RULE_TENSORS_H

#include "kernels/kernels.h"
#include "src/model/model.h"

typedef struct espl_rule_tensors {
    espl_rule_tensor *of;          /* [n_params]; those that are frozen keep nothing. NULL for a rule without matrices */
    int64_t size[ESPL_MAX_STATES]; /* of each array of states */
} espl_rule_tensors;

/* Local. For `ranks` ranks. match_rms: muon's directions are scaled by 0.2 sqrt(the longer side), so that their rms is about AdamW's (Liu
 * et al. 2025); else by sqrt(max(1, rows / columns)) (Jordan 2024). */
void espl_rule_tensors_make(const espl_model *model, espl_rule rule, bool match_rms, int ranks, espl_rule_tensors *tensors);

/* Local. What of state number k of a trained parameter lies in a rank's piece: [*begin, *end) of the array. Empty where that is nothing. */
void espl_rule_tensors_piece(const espl_rule_tensors *tensors, const espl_rule_state *state, int k, int param, int rank, int ranks,
                             int64_t *begin, int64_t *end);

/* Local. Bytes of a rule's states for each trained parameter, on average. */
double espl_rule_tensors_bytes(const espl_rule_tensors *tensors, const espl_model *model, espl_rule rule);

/* Local. Bytes of work that the kernels take for the update of the largest tensor; 0 for a rule without matrices. */
size_t espl_rule_tensors_work(const espl_rule_tensors *tensors, const espl_model *model, const espl_kernels *kernels, espl_rule rule,
                              int threads);

/* Local. Gives it back; accepts a zeroed struct. */
void espl_rule_tensors_free(espl_rule_tensors *tensors);

#endif
