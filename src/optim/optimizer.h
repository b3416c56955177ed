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

/* The stretch of a bucket that is updated. */
typedef struct espl_update {
    int64_t flat, state;     /* its first element in the flat space, in the state arrays */
    int64_t place;           /* and in the bucket, where it does not depend on the ranks */
    espl_rule_range *ranges; /* [n_ranges]; each update sets their rates and what follows from its number */
    const double *rates;     /* [n_ranges] by which the rate is multiplied */
    int n_ranges;
} espl_update;

typedef struct espl_optimizer {
    const espl_kernels *kernels;
    espl_rule rule;
    void *states[ESPL_MAX_STATES]; /* of [state] elements, as the rule's row says */
    float *master;                 /* [state], or NULL */
    void *weights;                 /* flat space, real */
    const float *gradients;        /* flat space */
    const espl_update *updates;    /* [buckets] */
    double beta1, beta2;
    float eps, momentum;
    bool nesterov;
    uint64_t seed; /* of rounding */
} espl_optimizer;

/* Local. The rule that optim.name asks for. */
espl_rule espl_optimizer_rule(const espl_config *config);

/* Local. Takes the rule and the constants of optim.* and run.seed from the config; the places are set by the caller. */
void espl_optimizer_configure(espl_optimizer *optimizer, const espl_config *config);

/* Local. Update number `step` (1-based) of what this rank updates of a bucket, with rate `lr`; gradients are multiplied by `gradient_scale`
 * first. A range's rate is rounded once, as that of a parameter group of torch.optim is. The bits do not depend on the ranks. */
void espl_optimizer_update(const espl_optimizer *optimizer, int bucket, int64_t step, double lr, double gradient_scale);

#endif
