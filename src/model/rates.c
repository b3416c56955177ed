#include "src/model/rates.h"
#include "src/model/select.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* As long as nothing has a place, `bucket` is a parameter's section: 0 for embeddings, then the layers, last the head. */
static void decay_rates(espl_model *m, double decay) {
    int head = 1 + (int)(m->dims.source_layers + m->dims.layers);
    for (int i = 0; i < m->n_params; i++)
        m->params[i].rate = decay > 0.0 ? pow(decay, head - m->params[i].bucket) : 1.0;
}

static espl_status set_rates(espl_model *m, const char *entry) {
    const char *sign = strrchr(entry, '=');
    char *end = NULL;
    double factor = sign != NULL ? strtod(sign + 1, &end) : 0.0;
    if (sign == NULL || sign == entry || end == sign + 1 || *end != '\0' || !(factor >= 0.0) || !isfinite(factor))
        ESPL_FAIL(ESPL_ERR_USAGE, "optim.rates: '%s'; expected SELECTION=FACTOR with a factor of at least 0, such as embeddings=0.1",
                  entry);
    char *selection = espl_format("%.*s", (int)(sign - entry), entry);
    espl_status status = espl__select_check(m, "optim.rates", selection);
    for (int i = 0; i < m->n_params && status == ESPL_OK; i++)
        if (espl__selects(selection, &m->params[i]))
            m->params[i].rate = factor;
    free(selection);
    return status;
}

espl_status espl__model_rates(espl_model *m, const espl_model_options *options) {
    decay_rates(m, options->layer_decay);
    for (int64_t i = 0; i < options->n_rates; i++)
        ESPL_TRY(set_rates(m, options->rates[i]));
    return ESPL_OK;
}

void espl_model_rate_span(const espl_model *model, double *low, double *high) {
    *low = INFINITY;
    *high = 0.0;
    for (int i = 0; i < model->n_params; i++)
        if (!model->params[i].frozen) {
            *low = fmin(*low, model->params[i].rate);
            *high = fmax(*high, model->params[i].rate);
        }
}
