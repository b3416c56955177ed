#include "src/model/model.h"

#include <math.h>

/* GPT-2 (Radford et al. 2019) scales the projections into the residual stream by one over the root of their number. */
static double init_std(const espl_model *model, const espl_param *param) {
    double std = model->dims.init_std;
    return param->init == ESPL_INIT_NORMAL_RESIDUAL ? std / sqrt(2.0 * (double)model->dims.layers) : std;
}

void espl_model_init_range(const espl_model *model, int param, uint64_t seed, int64_t begin, int64_t end, float *out) {
    const espl_param *p = &model->params[param];
    espl_rng_key key = {.seed = seed, .purpose = ESPL_RNG_INIT, .op = (uint32_t)param};
    double std = init_std(model, p);
    for (int64_t i = begin; i < end; i++)
        out[i - begin] = p->init == ESPL_INIT_ZERO  ? 0.0f
                         : p->init == ESPL_INIT_ONE ? 1.0f
                                                    : (float)(std * espl_rng_normal(&key, (uint64_t)i));
}
