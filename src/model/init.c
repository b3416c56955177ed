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
    case ESPL_INIT_NORMAL_QUERY: return d->init_std / sqrt((double)param->shape[1] * d->head_dim);
    default: return d->init_std;
    }
}

void espl_model_init_range(const espl_model *model, int param, uint64_t seed, int64_t begin, int64_t end, float *out) {
    const espl_param *p = &model->params[param];
    espl_rng_key key = {.seed = seed, .purpose = ESPL_RNG_INIT, .op = (uint32_t)param};
    double std = init_std(model, p);
    int64_t padding = p->init != ESPL_INIT_NORMAL_PADDED ? -1
                      : p->role == ESPL_ROLE_POSITIONS   ? model->dims.position_offset - 1
                                                         : model->dims.pad;
    for (int64_t i = begin; i < end; i++) {
        bool zero = p->init == ESPL_INIT_ZERO || (padding >= 0 && i / p->shape[1] == padding);
        out[i - begin] = zero ? 0.0f : p->init == ESPL_INIT_ONE ? 1.0f : (float)(std * espl_rng_normal(&key, (uint64_t)i));
    }
}
