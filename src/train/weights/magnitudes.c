#include "src/train/weights/magnitudes.h"

#include "src/core/buffer.h"

#include <stdlib.h>

/* The norms of a row's matrices, at the places of their magnitudes in scratch. */
static void run_norms(const espl_model *model, const espl_row *row, const espl_weights *w, float *scratch) {
    espl_args args = {.attrs = &row->attrs};
    int i = row->param[0];
    for (int p = 0; p < 3; p++)
        args.param[p] = (char *)w->flat + (size_t)espl_model_place(model, row->param[p], w->owner.ranks) * espl_dtype_size(w->real);
    while (model->params[i].magnitude < 0)
        i++;
    args.out[0] = scratch + espl_model_place(model, model->params[i].magnitude, w->owner.ranks);
    w->engine->kernels->forward[ESPL_OP_WEIGHT_NORM](&args);
}

static espl_status take(const espl_model *model, int param, const espl_weights *w, const float *scratch) {
    const espl_param *p = &model->params[param];
    size_t bytes = (size_t)p->numel * sizeof(float);
    float *values = espl_malloc(bytes);
    const espl_tensor_file tensor = {.name = p->name, .dtype = ESPL_F32, .n_dims = 1, .shape = {p->numel}, .data = values, .bytes = bytes};
    espl_status status = w->engine->calls->read(w->engine->device, values, scratch + espl_model_place(model, param, w->owner.ranks), bytes);
    if (status == ESPL_OK)
        status = espl_weights_take(model, param, &tensor, "norms of the base", w);
    free(values);
    return status;
}

static espl_status start(const espl_model *model, const espl_weights *weights, float *scratch) {
    for (int i = 0; i < model->n_rows; i++)
        if (model->rows[i].op == ESPL_OP_WEIGHT_NORM)
            run_norms(model, &model->rows[i], weights, scratch);
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].magnitude >= 0)
            ESPL_TRY(take(model, model->params[i].magnitude, weights, scratch));
    return ESPL_OK;
}

espl_status espl_magnitudes_start(const espl_model *model, const espl_weights *weights) {
    const size_t bytes = (size_t)espl_model_flat_size(model, weights->owner.ranks) * sizeof(float);
    espl_arena scratch = espl_arena_measure("magnitudes");
    if (!model->lora.magnitudes)
        return ESPL_OK;
    espl_arena_take(&scratch, bytes);
    ESPL_TRY(espl_engine_take(weights->engine, &scratch, scratch.name, scratch.used));
    espl_status status = start(model, weights, espl_arena_take(&scratch, bytes));
    espl_engine_give_back(weights->engine, &scratch);
    return status;
}
