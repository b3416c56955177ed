/* Rules by which weights are updated: what each keeps, and its kernel's contract. A rule is a row of rules.def and one function a backend.
 */
#ifndef ESPL_KERNELS_RULES_H
#define ESPL_KERNELS_RULES_H

#include "src/core/dtype.h"
#include "src/core/rng.h"

#include <stdbool.h>

typedef enum espl_rule {
#define RULE(ID, name, states) ESPL_RULE_##ID,
#include "kernels/rules.def"
#undef RULE
    ESPL_N_RULES
} espl_rule;

enum {
    ESPL_MAX_STATES = 4,
    ESPL_STATE_BLOCK = 256 /* elements that share a number: those whose places in a bucket have the same quotient by it */
};

/* What a rule keeps for each element, or for each block of elements. All zeros at the start. */
typedef struct espl_rule_state {
    const char *name;
    espl_dtype dtype;
    int64_t block; /* 1 or ESPL_STATE_BLOCK */
} espl_rule_state;

typedef struct espl_rule_desc {
    const char *name;
    espl_rule_state states[ESPL_MAX_STATES];
    int n_states;
} espl_rule_desc;

/* The row of each rule. */
extern const espl_rule_desc espl_rules[ESPL_N_RULES];

/* Local. The rule of that name, or -1. */
int espl_rule_find(const char *name);

/* Local. Bytes of a state for n elements, a multiple of ESPL_STATE_BLOCK. */
size_t espl_rule_state_bytes(const espl_rule_state *state, int64_t n);

/* Local. What a rule keeps, in bytes for each parameter. */
double espl_rule_bytes(espl_rule rule);

/* Elements [begin, end) of a call, and what may differ between parameters: the rate, the weight decay, and c = 1 - b^t by the updates t
 * that they have had, this one included. */
typedef struct espl_rule_range {
    int64_t begin, end;
    float lr, decay, c1, c2;
} espl_rule_range;

/* One update over ranges that ascend and are apart; elements in none of them stay. Elementwise, in float, with g = grad * grad_scale:
 *   adamw      m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 *              w -= lr * ((m / c1) / (sqrt(v / c2) + eps) + decay * w)     Loshchilov & Hutter 2019
 *   adamw8bit  the same, with m and v kept as Dettmers et al. 2022 (8-bit Optimizers via Block-wise Quantization) do: a block's largest
 *              magnitude, and for each element the number of the value in a table (dynamic_map.h) that is nearest to its share of that.
 *              w takes m and v before they are rounded. Of a block with elements in a range all are rounded anew, and those in none
 *              have m = v = 0 from then on, whatever their bytes were; a block has at most 32 ranges.
 *   lion       w -= lr * (sign(b1 m + (1-b1) g) + decay * w); m = b2 m + (1-b2) g: Chen et al. 2023
 *   sgd        g += decay * w; m = momentum m + g; w -= lr * (nesterov ? g + momentum m : m): as torch.optim.SGD
 * b is (float)beta and 1-b is (float)(1 - beta), so that 1 - 0.999 keeps its digits; c comes from the double beta too.
 * w is master[i], and weight[i] becomes w rounded to nearest. Without master (always so in fp32) w is weight[i]; in bf16 it is then stored
 * as espl_bf16_from_float_noisy(w, espl_rng_u16(&rng, first + i)), so that small updates count on average.
 * The same bits wherever a stretch is cut (adamw8bit: at blocks), and on every backend. adamw, lion and sgd are equal to the references'
 * (torch.optim, the paper's program) within rounding. */
typedef struct espl_rule_step {
    void *weight; /* real */
    float *master;
    void *state[ESPL_MAX_STATES]; /* as the rule's row says; of element 0 and on */
    const float *grad;
    const espl_rule_range *ranges; /* [n_ranges] in memory of the host; read before the call returns */
    int n_ranges;
    double beta1, beta2;
    float grad_scale, eps, momentum;
    bool nesterov;
    espl_rng_key rng;
    uint64_t first; /* element 0's place in its bucket and in the stream; adamw8bit: a multiple of ESPL_STATE_BLOCK */
} espl_rule_step;

typedef void espl_rule_kernel(const espl_rule_step *step);

#endif
