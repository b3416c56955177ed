/* Rules by which weights are updated: what each keeps, and its kernel's contract. A rule is a row of rules.def and one function a backend.
 */
#ifndef ESPL_KERNELS_RULES_H
#define ESPL_KERNELS_RULES_H

#include "src/core/dtype.h"
#include "src/core/rng.h"

#include <stdbool.h>

typedef enum espl_rule {
#define RULE(ID, name, matrices, states) ESPL_RULE_##ID,
#include "kernels/rules.def"
#undef RULE
    ESPL_N_RULES
} espl_rule;

enum {
    ESPL_MAX_STATES = 4,
    ESPL_STATE_BLOCK = 256 /* elements that share a number: those whose places in a bucket have the same quotient by it */
};

/* What a number of a state stands for. */
typedef enum espl_per {
    ESPL_PER_ELEMENT,
    ESPL_PER_BLOCK,
    ESPL_PER_ROW,
    ESPL_PER_COLUMN,
    ESPL_PER_MATRIX, /* an element of a matrix */
    ESPL_PER_OTHER   /* an element of what is no matrix */
} espl_per;

/* What a rule keeps. All zeros at the start. */
typedef struct espl_rule_state {
    const char *name;
    espl_dtype dtype;
    espl_per per;
    int64_t block; /* elements of the bucket for each number, 1 or ESPL_STATE_BLOCK; 0: numbers have places of their own, by tensor */
} espl_rule_state;

typedef enum espl_matrices { ESPL_MATRICES_NONE, ESPL_MATRICES_ALL, ESPL_MATRICES_OF_LAYERS } espl_matrices;

typedef struct espl_rule_desc {
    const char *name;
    espl_matrices matrices; /* none: the rule works on elements, and may be cut between them */
    espl_rule_state states[ESPL_MAX_STATES];
    int n_states;
} espl_rule_desc;

/* A whole tensor for a rule with matrices. */
typedef struct espl_rule_tensor {
    int64_t rows, columns; /* of no matrix: 1, and its elements */
    bool matrix;
    float scale;                    /* muon: of a matrix' direction */
    int64_t state[ESPL_MAX_STATES]; /* place of its first number in each array of states */
} espl_rule_tensor;

/* The row of each rule. */
extern const espl_rule_desc espl_rules[ESPL_N_RULES];

/* Local. The rule of that name, or -1. */
int espl_rule_find(const char *name);

/* Local. Bytes of a state that has a number for each `block` elements, for n of them, a multiple of ESPL_STATE_BLOCK. */
size_t espl_rule_state_bytes(const espl_rule_state *state, int64_t n);

/* Local. How many numbers of a state with places of its own a tensor has. */
int64_t espl_rule_state_count(const espl_rule_state *state, const espl_rule_tensor *tensor);

/* Elements [begin, end) of a call, and what may differ between parameters: the rate, the weight decay, and c = 1 - b^t by the updates t
 * that they have had, this one included (adafactor: c2 = t^-0.8). */
typedef struct espl_rule_range {
    int64_t begin, end;
    float lr, decay, c1, c2;
    const espl_rule_tensor *tensor; /* that the range is all of, for a rule with matrices; else NULL */
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
 * Of whole tensors:
 *   adafactor  with b2 = 1 - c2 and s = g^2 + 1e-30. Matrix: row_i = b2 row_i + (1-b2) mean of s_i, column_j = b2 column_j + (1-b2) mean of
 *              s_.j, u_ij = g_ij / (sqrt(row_i / mean of row) sqrt(column_j)). Other: v = b2 v + (1-b2) s, u = g / sqrt(v).
 *              w -= lr * (u / max(1, rms(u) / clip) + decay * w): Shazeer & Stern 2018, algorithms 4 and 5 with a given rate
 *   muon       matrix: m = momentum m + (1-momentum) g; x = nesterov ? (1-momentum) g + momentum m : m, in real; x /= max(|x|, 1e-7);
 *              five times, with the matrix lying on its longer side: A = x x^T, B = b A + c A A, x = a x + B x with
 *              (a, b, c) = (3.4445, -4.7750, 2.0315): Jordan 2024. Products of numbers as real holds them, sums in float.
 *              w -= lr * (scale x + decay * w). Other: adamw.
 * b is (float)beta and 1-b is (float)(1 - beta), so that 1 - 0.999 keeps its digits; c comes from the double beta too.
 * w is master[i], and weight[i] becomes w rounded to nearest. Without master (always so in fp32) w is weight[i]; in bf16 it is then stored
 * as espl_bf16_from_float_noisy(w, espl_rng_u16(&rng, first + i)), so that small updates count on average.
 * The same bits wherever a stretch is cut (adamw8bit: at blocks), and on every backend but for muon's products, which libraries make.
 * But for adamw8bit all are equal to the references' (torch.optim, transformers, the paper's program) within rounding. */
typedef struct espl_rule_step {
    void *weight; /* real */
    float *master;
    void *state[ESPL_MAX_STATES]; /* as the rule's row says; of element 0 and on */
    const float *grad;
    const espl_rule_range *ranges; /* [n_ranges] in memory of the host; read before the call returns */
    int n_ranges;
    double beta1, beta2;
    float grad_scale, eps, momentum, clip;
    bool nesterov;
    espl_rng_key rng;
    uint64_t first; /* element 0's place in its bucket and in the stream; adamw8bit: a multiple of ESPL_STATE_BLOCK */
    void *work;     /* rule_work(...) bytes of the largest tensor; NULL without matrices */
} espl_rule_step;

typedef void espl_rule_kernel(const espl_rule_step *step);

#endif
