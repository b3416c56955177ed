#include "src/optim/optimizer.h"

#include <math.h>

void espl_optimizer_configure(espl_optimizer *optimizer, const espl_config *config) {
    optimizer->beta1 = config->optim_beta1;
    optimizer->beta2 = config->optim_beta2;
    optimizer->eps = (float)config->optim_eps;
    optimizer->decay = (float)config->optim_weight_decay;
}

static void update_run(const espl_optimizer *o, const espl_update *u, int64_t begin, int64_t end, espl_adamw *s) {
    int64_t flat = u->flat + begin, state = u->state + begin;
    char *weights = (char *)o->weights + (size_t)flat * espl_dtype_size(o->kernels->real);
    s->weight = o->master != NULL ? o->master + state : (float *)weights;
    s->copy = o->master != NULL ? weights : NULL;
    s->m = o->m + state;
    s->v = o->v + state;
    s->grad = o->gradients + flat;
    s->n = end - begin;
    s->decay = u->decay ? o->decay : 0.0f;
    o->kernels->adamw(s);
}

void espl_optimizer_update(const espl_optimizer *o, int64_t step, double lr, double gradient_scale, int64_t from, int64_t to) {
    espl_adamw s = {.grad_scale = (float)gradient_scale,
                    .lr = (float)lr,
                    .beta1 = o->beta1,
                    .beta2 = o->beta2,
                    .eps = o->eps,
                    .c1 = (float)(1.0 - pow(o->beta1, (double)step)),
                    .c2 = (float)(1.0 - pow(o->beta2, (double)step))};
    for (int i = 0; i < o->n_updates; i++) {
        const espl_update *u = &o->updates[i];
        int64_t begin = from > u->flat ? from - u->flat : 0, end = to < u->flat + u->n ? to - u->flat : u->n;
        if (begin < end)
            update_run(o, u, begin, end, &s);
    }
}
