#include "src/optim/optimizer.h"

#include <math.h>

espl_rule espl_optimizer_rule(const espl_config *config) {
    int rule = espl_rule_find(espl_config_choice("optim", "name", config->optim_name));
    ESPL_ASSERT(rule >= 0, "optim.name has a choice that is no row of kernels/rules.def");
    return (espl_rule)rule;
}

void espl_optimizer_configure(espl_optimizer *optimizer, const espl_config *config) {
    ESPL_ASSERT(config->optim_beta2 >= 0.0 && config->optim_momentum >= 0.0, "the config is not resolved");
    optimizer->rule = espl_optimizer_rule(config);
    optimizer->beta1 = config->optim_beta1;
    optimizer->beta2 = config->optim_beta2;
    optimizer->eps = (float)config->optim_eps;
    optimizer->momentum = (float)config->optim_momentum;
    optimizer->nesterov = config->optim_nesterov;
    optimizer->clip = config->optim_clip_threshold > 0.0 ? (float)config->optim_clip_threshold : INFINITY;
    optimizer->seed = (uint64_t)config->run_seed;
}

/* The share of the new in a second moment, which for AdamW is its correction; Adafactor's follows from the updates that there were (Shazeer
 * & Stern 2018, section 7.2). */
static double second_share(const espl_optimizer *o, double t) {
    return o->rule == ESPL_RULE_ADAFACTOR ? pow(t, -0.8) : 1.0 - pow(o->beta2, t);
}

/* Those of the phase, with all that follows from the number of the update; returns how many. */
static int fill_ranges(const espl_optimizer *o, const espl_update *u, int64_t step, double lr) {
    int n = 0;
    for (const espl_update_range *r = u->ranges; r < u->ranges + u->n_ranges; r++) {
        if (r->phase > o->phase)
            continue;
        double t = (double)(step - o->born[r->phase]);
        o->ranges[n++] = (espl_rule_range){.begin = r->begin,
                                           .end = r->end,
                                           .lr = (float)(lr * r->rate),
                                           .decay = r->decay,
                                           .c1 = (float)(1.0 - pow(o->beta1, t)),
                                           .c2 = (float)second_share(o, t),
                                           .tensor = r->tensor};
    }
    return n;
}

void espl_optimizer_update(const espl_optimizer *o, int bucket, int64_t step, double lr, double gradient_scale) {
    const espl_update *u = &o->updates[bucket];
    const espl_rule_desc *rule = &espl_rules[o->rule];
    espl_rule_step s = {.weight = (char *)o->weights + (size_t)u->weight * espl_dtype_size(o->kernels->real),
                        .master = o->master != NULL ? o->master + u->state : NULL,
                        .grad = o->gradients + u->gradient,
                        .ranges = o->ranges,
                        .n_ranges = fill_ranges(o, u, step, lr),
                        .beta1 = o->beta1,
                        .beta2 = o->beta2,
                        .grad_scale = (float)gradient_scale,
                        .eps = o->eps,
                        .momentum = o->momentum,
                        .nesterov = o->nesterov,
                        .clip = o->clip,
                        .work = o->work,
                        .rng = {.seed = o->seed, .purpose = ESPL_RNG_ROUND, .step = (uint32_t)step, .op = (uint32_t)bucket},
                        .first = (uint64_t)u->place};
    for (int i = 0; i < rule->n_states; i++)
        s.state[i] = (char *)o->states[i] + (rule->matrices == ESPL_MATRICES_NONE ? espl_rule_state_bytes(&rule->states[i], u->state) : 0);
    o->kernels->update[o->rule](&s);
}
