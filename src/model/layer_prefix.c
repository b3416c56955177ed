#include "src/model/layer_prefix.h"

static bool has_prefix(const espl_model *m) { return m->prompt.prefix && m->prompt.length > 0; }

static int64_t pair_width(const espl_dims *d) { return (int64_t)2 * d->kv_heads * d->head_dim; }

/* How many pairs of keys and values a prefix has, and which is a layer's. Of an encoder-decoder, whose decoder alone has one, PEFT counts
 * the encoder's layers and goes two pairs on from layer to layer, the second for attention to the source, which it then leaves empty;
 * behind the last it begins anew. */
static int64_t pairs_of(const espl_dims *d) { return d->source_layers > 0 ? d->source_layers : d->layers; }
static int64_t pair_of(const espl_dims *d, int layer) { return d->source_layers > 0 ? 2 * layer % d->source_layers : layer; }

static int prefix_of(const espl_model *m) {
    int i = 0;
    while (m->params[i].role != ESPL_ROLE_PREFIX)
        i++;
    return i;
}

int64_t espl__prefix_columns(const espl_dims *dims) { return pairs_of(dims) * pair_width(dims); }

espl_status espl__prefix_check(const espl_model *model) {
    const espl_dims *d = &model->dims;
    if (!has_prefix(model))
        return ESPL_OK;
    if (model->prompt.length > d->vocab)
        ESPL_FAIL(ESPL_ERR_USAGE, "tune.prompt_length is %lld, but a prefix has at most as many tokens as the vocabulary, %lld",
                  (long long)model->prompt.length, (long long)d->vocab);
    if (d->layers > pairs_of(d))
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "tune.method: prefix, as PEFT has it, needs a decoder of no more layers than the encoder's %lld; this has %lld",
                  (long long)d->source_layers, (long long)d->layers);
    return ESPL_OK;
}

void espl__prefix_add_row(espl_model *m) {
    const espl_row *qkv = &m->rows[m->n_rows - 1];
    if (!has_prefix(m) || qkv->section != ESPL_SECTION_LAYER)
        return;
    int prefix = prefix_of(m);
    const espl_lora_part pair = {.column = pair_of(&m->dims, qkv->layer) * pair_width(&m->dims), .width = pair_width(&m->dims)};
    m->rows[m->n_rows++] = (espl_row){.op = ESPL_OP_PREFIX,
                                      .name = "prefix",
                                      .section = qkv->section,
                                      .layer = qkv->layer,
                                      .in = {qkv->out[0], -1},
                                      .out = {qkv->out[0], -1, -1},
                                      .param = {prefix, -1, -1, -1},
                                      .attrs = {.n_in = m->params[prefix].shape[1],
                                                .n_out = qkv->attrs.n_out,
                                                .prompt = m->prompt.length,
                                                .stream = qkv->attrs.stream,
                                                .n_parts = 1,
                                                .part = {pair}}};
}

void espl__prefix_pass_over(const espl_model *model, espl_row *row) { row->attrs.prompt = has_prefix(model) ? model->prompt.length : 0; }
