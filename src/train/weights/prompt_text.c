#include "src/train/weights/prompt_text.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

/* The embedding of a token as it is trained with. */
static espl_status read_row(const espl_model *model, int tokens, int32_t id, const espl_weights *w, char *real, float *row) {
    size_t width = (size_t)model->params[tokens].shape[1], bytes = width * espl_dtype_size(w->real);
    const char *from = (const char *)w->flat + espl_model_weights_at(model, tokens, w->owner.ranks, w->real) + (size_t)id * bytes;
    ESPL_TRY(w->engine->calls->read(w->engine->device, real, from, bytes));
    espl_dtype_convert(row, ESPL_F32, real, w->real, width);
    return ESPL_OK;
}

static espl_status fill(const espl_model *model, int param, const espl_encoding *text, const espl_weights *w) {
    const espl_param *p = &model->params[param];
    size_t bytes = (size_t)p->numel * sizeof(float);
    float *values = espl_malloc(bytes);
    char *real = espl_malloc((size_t)p->shape[1] * sizeof *values);
    const espl_tensor_file tensor = {
        .name = p->name, .dtype = ESPL_F32, .n_dims = 2, .shape = {p->shape[0], p->shape[1]}, .data = values, .bytes = bytes};
    espl_status status = ESPL_OK;
    for (int64_t i = 0; i < p->shape[0]; i++)
        ESPL_TRY_DONE(read_row(model, p->adapts, text->ids[i % text->n], w, real, values + i * p->shape[1]));
    status = espl_weights_take(model, param, &tensor, "the embeddings of tune.prompt_text", w);
done:
    free(real);
    free(values);
    return status;
}

espl_status espl_prompt_text_start(const espl_model *model, const espl_tokenizer *tokenizer, const char *text, const espl_weights *w) {
    espl_encoding encoding = {0};
    espl_status status = ESPL_OK;
    if (model->prompt.length == 0 || text[0] == '\0')
        return ESPL_OK;
    ESPL_TRY_DONE(espl_tokenizer_encode(tokenizer, text, strlen(text), true, &encoding));
    if (encoding.n == 0)
        ESPL_FAIL_DONE(ESPL_ERR_USAGE, "tune.prompt_text: '%s' has no tokens; leave it empty for a random prompt", text);
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].role == ESPL_ROLE_PROMPT)
            ESPL_TRY_DONE(fill(model, i, &encoding, w));
done:
    espl_encoding_free(&encoding);
    return status;
}
