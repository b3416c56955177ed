/* The optimizer: the rule of optim.name over the elements this rank updates.
 *
 * What the rule keeps (kernels/rules.def) and weights lie in planned memory; for each bucket stands which stretch of it is updated here,
 * where its state is, and by which rates and decays its parameters go. One call of a kernel updates it. In bf16 the truth is the fp32
 * master weights, of which the compute weights are a rounded copy, or, without masters, the compute weights: then each update is rounded
 * stochastically. */
#ifndef ESPL_OPTIM_OPTIMIZER_H
#define ESPL_OPTIM_OPTIMIZER_H

#include "kernels/kernels.h"
#include "src/config/config.h"

/* Elements [begin, end) of an update that have the same rate, decay and age. */
typedef struct espl_update_range {
    int64_t begin, end;
    double rate; /* by which the rate is multiplied */
    float decay;
    int phase;                      /* from which on they are updated */
    const espl_rule_tensor *tensor; /* as in an espl_rule_range */
} espl_update_range;

/* The stretch of a bucket that is updated. */
typedef struct espl_update {
    int64_t weight, gradient, state; /* its first element in the arrays of weights, of gradients, of states */
    int64_t place;                   /* and in the bucket, where it does not depend on the ranks */
    const espl_update_range *ranges;
    int n_ranges;
} espl_update;

typedef struct espl_optimizer {
    const espl_kernels *kernels;
    espl_rule rule;
    void *states[ESPL_MAX_STATES]; /* of [state] elements, as the rule's row says */
    float *master;                 /* [state], or NULL */
    void *weights;                 /* flat space, real */
    const float *gradients;        /* their sums: flat space, or what this rank keeps of it */
    const espl_update *updates;    /* [buckets] */
    espl_rule_range *ranges;       /* as many as the longest update has: what a call is given */
    int phase;                     /* of training */
    const int64_t *born;           /* [phases] updates before each began; those of its parameters are counted from there */
    void *work;                    /* of a rule with matrices; else NULL */
    double beta1, beta2;
    float eps, momentum, clip;
    bool nesterov;
    uint64_t seed; /* of rounding */
} espl_optimizer;

/* Local. The rule that optim.name asks for. */
espl_rule espl_optimizer_rule(const espl_config *config);

/* Local. Takes the rule and the constants of optim.* and run.seed from the config; the places are set by the caller. */
void espl_optimizer_configure(espl_optimizer *optimizer, const espl_config *config);

/* Local. Update number `step` (1-based) of what this rank updates of a bucket, with rate `lr`; gradients are multiplied by `gradient_scale`
 * first. What joins in a later phase stays. A range's rate is rounded once, as that of a parameter group of torch.optim is. The bits do not
 * depend on the ranks. */
void espl_optimizer_update(const espl_optimizer *optimizer, int bucket, int64_t step, double lr, double gradient_scale);

#endif
