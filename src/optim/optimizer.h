/* The optimizer: AdamW over the elements this rank updates.
 *
 * State and weights lie in planned memory; a list of runs says which elements of the flat space are updated, where their state is, and
 * whether they decay. In bf16 the fp32 master weights are the truth and the compute weights a rounded copy; in fp32 there is one copy. */
#ifndef ESPL_OPTIM_OPTIMIZER_H
#define ESPL_OPTIM_OPTIMIZER_H

#include "kernels/kernels.h"
#include "src/config/config.h"

/* Elements that are updated alike. */
typedef struct espl_update {
    int64_t flat, state, n; /* first element in the flat space, in the state arrays; how many */
    bool decay;
} espl_update;

typedef struct espl_optimizer {
    const espl_kernels *kernels;
    float *m, *v;           /* [state] */
    float *master;          /* [state], NULL in fp32 */
    void *weights;          /* flat space, real */
    const float *gradients; /* flat space */
    const espl_update *updates;
    int n_updates;
    double beta1, beta2;
    float eps, decay;
} espl_optimizer;

/* Local. Takes the constants of optim.* from the config; the places are set by the caller. */
void espl_optimizer_configure(espl_optimizer *optimizer, const espl_config *config);

/* Local. Update number `step` (1-based) with rate `lr`; gradients are multiplied by `gradient_scale` first. Elements [from, to) of the
 * flat space only, so that a bucket can be updated and sent before the next; cuts do not change bits. */
void espl_optimizer_update(const espl_optimizer *optimizer, int64_t step, double lr, double gradient_scale, int64_t from, int64_t to);

#endif
