#include "src/model/quantise.h"

#include "src/model/select.h"

static bool can_be_quantised(const espl_param *p) {
    return espl__is_layer_matrix(p) && p->frozen && p->adapts < 0 && espl_section_has_layers(p->section);
}

espl_status espl__model_quantise(espl_model *model, int format) {
    int n = 0;
    for (int i = 0; i < model->n_params && format != ESPL_QUANT_NONE; i++)
        if (can_be_quantised(&model->params[i])) {
            model->params[i].quant = format;
            n++;
        }
    if (format != ESPL_QUANT_NONE && n == 0)
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "tune.base quantises frozen matrices of layers, but all of them are trained; set tune.method: lora, or choose "
                  "what is trained by tune.train");
    model->quant = format;
    return ESPL_OK;
}

espl_quant espl_model_quant(const espl_model *model, int param) {
    const espl_param *p = &model->params[param];
    return (espl_quant){.format = p->quant,
                        .n_parts = 1,
                        .outputs_across = model->family->weight_layout == ESPL_IN_OUT,
                        .rows = {p->shape[0]},
                        .columns = p->shape[1]};
}

espl_quant espl__model_matrix_quant(const espl_model *model, int param) {
    if (param < 0 || model->params[param].quant == ESPL_QUANT_NONE)
        return (espl_quant){0};
    espl_quant quant = espl_model_quant(model, param);
    for (int i = param + 1; i < model->n_params && model->params[i].joined; i++) {
        ESPL_ASSERT(quant.n_parts < ESPL_QUANT_PARTS, "more parts than %d", ESPL_QUANT_PARTS);
        quant.rows[quant.n_parts++] = model->params[i].shape[0];
    }
    return quant;
}
