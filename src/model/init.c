#include "src/model/model.h"

#include <math.h>

/* The deviation of the family's own code: GPT-2 (Radford et al. 2019) scales the projections into the residual stream by one over the root
 * of their number; T5 (Raffel et al. 2020) by what a matrix sums over. */
static double init_std(const espl_model *model, const espl_param *param) {
    const espl_dims *d = &model->dims;
    switch (param->init) {
    case ESPL_INIT_NORMAL_RESIDUAL: return d->init_std / sqrt(2.0 * (double)d->layers);
    case ESPL_INIT_NORMAL_FAN_IN: return d->init_std / sqrt((double)param->shape[1]);
    case ESPL_INIT_NORMAL_WIDTH: return d->init_std / sqrt((double)d->width);
    case ESPL_INIT_NORMAL_ONE: return 1.0;
    case ESPL_INIT_NORMAL_QUERY: return d->init_std / sqrt((double)param->shape[1] * d->head_dim);
    default: return d->init_std;
    }
}

/* Of a parameter among those that no method added, so that a base does not depend on methods; what a method added has numbers of its own.
 */
static uint32_t number_of(const espl_model *model, int param) {
    uint32_t base = 0, added = 0;
    for (int i = 0; i < param; i++)
        ++*(model->params[i].adapts < 0 ? &base : &added);
    return model->params[param].adapts < 0 ? base : 0x40000000u + added;
}

/* One parameter's numbers: each a function of its place alone. */
typedef struct init_rule {
    espl_rng_key key;
    espl_init how;
    double scale;            /* deviation; of uniform numbers the bound */
    int64_t width, zero_row; /* of rows of `width` numbers this one is zero; -1: none is */
} init_rule;

static float number_at(const init_rule *r, int64_t i) {
    if (r->how == ESPL_INIT_ZERO || (r->zero_row >= 0 && i / r->width == r->zero_row))
        return 0.0f;
    if (r->how == ESPL_INIT_ONE)
        return 1.0f;
    if (r->how == ESPL_INIT_UNIFORM_FAN_IN)
        return (float)(r->scale * (2.0 * ((double)espl_rng_u32(&r->key, (uint64_t)i) + 0.5) * 0x1p-32 - 1.0));
    return (float)(r->scale * espl_rng_normal(&r->key, (uint64_t)i));
}

void espl_model_init_range(const espl_model *model, int param, uint64_t seed, int64_t begin, int64_t end, float *out) {
    const espl_param *p = &model->params[param];
    bool padded = p->init == ESPL_INIT_NORMAL_PADDED;
    const init_rule rule = {.key = {.seed = seed, .purpose = ESPL_RNG_INIT, .op = number_of(model, param)},
                            .how = p->init,
                            .scale = p->init == ESPL_INIT_UNIFORM_FAN_IN ? 1.0 / sqrt((double)p->shape[1]) : init_std(model, p),
                            .width = p->shape[1],
                            .zero_row = !padded                          ? -1
                                        : p->role == ESPL_ROLE_POSITIONS ? model->dims.position_offset - 1
                                                                         : model->dims.pad};
#pragma omp parallel for schedule(static)
    for (int64_t i = begin; i < end; i++)
        out[i - begin] = number_at(&rule, i);
}
