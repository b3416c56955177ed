#include "src/optim/optimizer.h"

#include <math.h>

void espl_optimizer_configure(espl_optimizer *optimizer, const espl_config *config) {
    optimizer->beta1 = config->optim_beta1;
    optimizer->beta2 = config->optim_beta2;
    optimizer->eps = (float)config->optim_eps;
    optimizer->seed = (uint64_t)config->run_seed;
}

void espl_optimizer_update(const espl_optimizer *o, int bucket, int64_t step, double lr, double gradient_scale) {
    const espl_update *u = &o->updates[bucket];
    espl_adamw s = {.weight = (char *)o->weights + (size_t)u->flat * espl_dtype_size(o->kernels->real),
                    .master = o->master != NULL ? o->master + u->state : NULL,
                    .m = o->m + u->state,
                    .v = o->v + u->state,
                    .grad = o->gradients + u->flat,
                    .ranges = u->ranges,
                    .n_ranges = u->n_ranges,
                    .beta1 = o->beta1,
                    .beta2 = o->beta2,
                    .grad_scale = (float)gradient_scale,
                    .lr = (float)lr,
                    .eps = o->eps,
                    .c1 = (float)(1.0 - pow(o->beta1, (double)step)),
                    .c2 = (float)(1.0 - pow(o->beta2, (double)step)),
                    .rng = {.seed = o->seed, .purpose = ESPL_RNG_ROUND, .step = (uint32_t)step, .op = (uint32_t)bucket},
                    .first = (uint64_t)u->place};
    o->kernels->adamw(&s);
}
