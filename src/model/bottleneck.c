#include "src/model/bottleneck.h"

#include <stdio.h>
#include <string.h>

/* ---- Parameters. */

enum { DOWN, DOWN_BIAS, UP, UP_BIAS, N_PARTS };
static const char *const names[N_PARTS] = {"down.weight", "down.bias", "up.weight", "up.bias"};

/* Of an encoder-decoder, attention to the source has none. */
static bool is_adapted(const espl_bottleneck_options *options, const espl_param *p) {
    bool attention = p->role == ESPL_ROLE_OUT && !options->mlp_only;
    return options->width > 0 && p->n_dims == 2 && (attention || p->role == ESPL_ROLE_DOWN);
}

static void add_part(espl_model *m, int of, int part) {
    const espl_param *base = &m->params[of];
    int64_t inner = m->bottleneck.width, outer = m->dims.width;
    bool matrix = part == DOWN || part == UP;
    char module[ESPL_MAX_NAME];
    snprintf(module, sizeof module, "%.*s", (int)(strlen(base->name) - strlen(".weight")), base->name);
    espl_param *p = &m->params[m->n_params++];
    *p = (espl_param){.section = base->section,
                      .layer = base->layer,
                      .n_dims = matrix ? 2 : 1,
                      .shape = {part < UP ? inner : outer, !matrix        ? 0
                                                           : part == DOWN ? outer
                                                                          : inner},
                      .bucket = base->bucket,
                      .init = part == DOWN ? ESPL_INIT_UNIFORM_FAN_IN : ESPL_INIT_ZERO,
                      .decay = matrix,
                      .adapts = of,
                      .lora_a = -1,
                      .lora_b = -1,
                      .magnitude = -1,
                      .bottleneck = -1};
    int length = snprintf(p->name, sizeof p->name, "%.100s.adapter_%s", module, names[part]);
    ESPL_ASSERT(length < (int)sizeof p->name, "the name of '%s' is too long", module);
    p->numel = p->shape[0] * (matrix ? p->shape[1] : 1);
}

void espl__bottleneck_add_params(espl_model *model, int first) {
    int end = model->n_params;
    for (int i = first; i < end; i++) {
        if (!is_adapted(&model->bottleneck, &model->params[i]))
            continue;
        model->params[i].bottleneck = model->n_params;
        for (int part = 0; part < N_PARTS; part++)
            add_part(model, i, part);
    }
}

/* ---- Rows. */

/* The parameter whose product a slot is; -1: none. */
static int product_of(const espl_model *m, int slot) {
    const espl_row *r = &m->rows[m->slots[slot].producer];
    return r->op == ESPL_OP_MLP ? r->param[2] : r->op == ESPL_OP_LINEAR ? r->param[0] : -1;
}

static int add_slot(espl_model *m, const char *name, const espl_slot *like, int output, int64_t width) {
    m->slots[m->n_slots] =
        (espl_slot){.name = name, .layer = like->layer, .stream = like->stream, .producer = m->n_rows, .output = output, .width = width};
    return m->n_slots++;
}

/* A row behind what made `from`, in that row's layer. */
static espl_row *add_row(espl_model *m, espl_op op, const char *name, int from) {
    const espl_slot *s = &m->slots[from];
    const espl_row *maker = &m->rows[s->producer];
    espl_row *r = &m->rows[m->n_rows];
    *r = (espl_row){.op = op,
                    .name = name,
                    .section = maker->section,
                    .layer = maker->layer,
                    .in = {from, -1},
                    .out = {-1, -1, -1},
                    .param = {-1, -1, -1, -1},
                    .attrs = {.n_in = s->width,
                              .n_out = s->width,
                              .layout = ESPL_OUT_IN,
                              .scale = 1.0f,
                              .kind = ESPL_ACT_NONE,
                              .rng_op = (uint32_t)m->n_rows,
                              .stream = s->stream}};
    r->out[0] = add_slot(m, name, s, 0, s->width);
    return r;
}

/* drop(y): the norm behind the adapter drops nothing then. */
static int add_dropout(espl_model *m, int y, float rate) {
    if (rate == 0.0f)
        return y;
    espl_row *r = add_row(m, ESPL_OP_ACT, "adapter_dropout", y);
    r->attrs.dropout = rate;
    m->n_rows++;
    return r->out[0];
}

int espl__bottleneck_add_rows(espl_model *model, int branch, float dropout) {
    int of = branch < 0 ? -1 : product_of(model, branch);
    int first = of < 0 ? -1 : model->params[of].bottleneck;
    if (first < 0)
        return branch;
    espl_row *r = add_row(model, ESPL_OP_MLP, "adapter", add_dropout(model, branch, dropout));
    r->attrs.ffn = model->bottleneck.width;
    r->attrs.kind = model->bottleneck.activation;
    r->attrs.residual = 1;
    r->out[1] = add_slot(model, "adapter", &model->slots[branch], 1, model->bottleneck.width);
    for (int part = 0; part < N_PARTS; part++)
        r->param[part] = first + part;
    model->n_rows++;
    return r->out[0];
}
