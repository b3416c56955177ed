#include "src/model/model.h"
#include "src/model/model_config.h"

#include "src/core/arena.h"
#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

static int64_t size_of(const espl_dims *d, espl_size size) {
    int64_t q = (int64_t)d->heads * d->head_dim, kv = (int64_t)d->kv_heads * d->head_dim;
    switch (size) {
    case ESPL_SIZE_NONE: return 0;
    case ESPL_SIZE_1: return 1;
    case ESPL_SIZE_2: return 2;
    case ESPL_SIZE_V: return d->vocab;
    case ESPL_SIZE_P: return d->positions;
    case ESPL_SIZE_D: return d->width;
    case ESPL_SIZE_F: return d->ffn;
    case ESPL_SIZE_2F: return 2 * d->ffn;
    case ESPL_SIZE_H: return d->heads;
    case ESPL_SIZE_Q: return q;
    case ESPL_SIZE_KV: return kv;
    case ESPL_SIZE_QKV: return q + 2 * kv;
    }
    return 0;
}

static bool applies(const espl_dims *d, espl_when when) {
    switch (when) {
    case ESPL_ALWAYS: return true;
    case ESPL_IF_ATTENTION_BIAS: return d->attention_bias;
    case ESPL_IF_MLP_BIAS: return d->mlp_bias;
    case ESPL_IF_UNTIED: return !d->tied;
    }
    return false;
}

/* ---- Parameters. */

static int section_bucket(const espl_model *m, espl_section section, int layer) {
    return section == ESPL_SECTION_EMBED ? 0 : section == ESPL_SECTION_LAYER ? 1 + layer : m->n_buckets - 1;
}

static void add_param(espl_model *m, const espl_param_row *row, int layer) {
    espl_param *p = &m->params[m->n_params];
    const espl_param *before = m->n_params > 0 ? p - 1 : NULL;
    *p = (espl_param){.role = row->role, .layer = layer, .init = row->init, .decay = row->decay};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(p->name, sizeof p->name, row->name, layer);
#pragma GCC diagnostic pop
    p->numel = 1;
    for (int i = 0; i < 2 && row->shape[i] != ESPL_SIZE_NONE; i++) {
        p->shape[p->n_dims++] = size_of(&m->dims, row->shape[i]);
        p->numel *= p->shape[i];
    }
    p->bucket = section_bucket(m, row->section, layer);
    p->joined = before != NULL && before->role == row->role && before->layer == layer;
    int64_t used = m->bucket_numel[p->bucket];
    int64_t unit = ESPL_ALIGN / 2; /* elements: aligned in bf16 too */
    p->offset = p->joined ? used : (used + unit - 1) / unit * unit;
    m->bucket_numel[p->bucket] = p->offset + p->numel;
    m->n_params++;
}

static void add_params(espl_model *m, espl_section section, int layer) {
    for (size_t i = 0; i < m->family->n_params; i++) {
        const espl_param_row *row = &m->family->params[i];
        if (row->section == section && applies(&m->dims, row->when))
            add_param(m, row, layer);
    }
}

static int find_param(const espl_model *m, espl_role role, int layer) {
    if (role == ESPL_ROLE_NONE)
        return -1;
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].role == role && m->params[i].layer == layer)
            return i;
    return role == ESPL_ROLE_LM_HEAD ? find_param(m, ESPL_ROLE_TOKENS, -1) : -1; /* tied */
}

/* ---- Rows. */

static espl_attrs make_attrs(const espl_model *m, const espl_op_row *row, int number) {
    const espl_dims *d = &m->dims;
    espl_attrs a = {.heads = d->heads,
                    .kv_heads = d->kv_heads,
                    .head_dim = d->head_dim,
                    .causal = 1,
                    .window = d->window,
                    .layout = m->family->weight_layout,
                    .scale = 1.0f,
                    .eps = d->norm_eps,
                    .rng_op = (uint32_t)number,
                    .n_out = size_of(d, row->width[0])};
    switch (row->op) {
    case ESPL_OP_EMBED:
        a.vocab = d->vocab;
        a.positions = d->positions;
        a.dropout = d->drop_embed;
        break;
    case ESPL_OP_RESNORM:
        a.n_in = d->width;
        a.kind = m->family->norm_kind;
        a.dropout = d->drop_residual;
        break;
    case ESPL_OP_QKV:
        a.n_in = d->width;
        a.positions = d->positions;
        break;
    case ESPL_OP_ATTENTION:
        a.n_in = size_of(d, ESPL_SIZE_QKV);
        a.scale = d->attention_scale;
        a.dropout = d->drop_attention;
        break;
    case ESPL_OP_LINEAR_XENT:
        a.n_in = d->width;
        a.vocab = d->vocab;
        a.layout = ESPL_OUT_IN;
        break;
    default: a.kind = d->activation; break;
    }
    return a;
}

static int add_slot(espl_model *m, const espl_op_row *row, int layer, int output) {
    espl_slot *s = &m->slots[m->n_slots];
    espl_value value = row->out[output];
    *s = (espl_slot){.name = row->name,
                     .layer = layer,
                     .producer = m->n_rows,
                     .output = output,
                     .width = size_of(&m->dims, row->width[output]),
                     .stat = value == ESPL_VALUE_STAT || value == ESPL_VALUE_LSE || value == ESPL_VALUE_LOSS};
    return m->n_slots++;
}

/* Expands one op row; `bound` maps value symbols to the slots they stand for at this point. */
static void add_row(espl_model *m, const espl_op_row *op, int layer, int bound[ESPL_N_VALUES]) {
    espl_row *r = &m->rows[m->n_rows];
    *r = (espl_row){.op = op->op, .name = op->name, .section = op->section, .layer = layer, .attrs = make_attrs(m, op, m->n_rows)};
    for (int i = 0; i < ESPL_MAX_IN; i++)
        r->in[i] = bound[op->in[i]];
    if (op->op == ESPL_OP_LINEAR)
        r->attrs.n_in = m->slots[r->in[0]].width;
    if (op->op == ESPL_OP_ACT || op->op == ESPL_OP_GLU)
        r->attrs.n_in = m->slots[r->in[0]].width;
    for (int i = 0; i < ESPL_MAX_PARAM; i++)
        r->param[i] = find_param(m, op->param[i], op->section == ESPL_SECTION_LAYER ? layer : -1);
    bool passes = op->op == ESPL_OP_RESNORM && r->in[1] < 0; /* nothing is added: output 0 is input 0 */
    for (int i = 0; i < ESPL_MAX_OUT; i++) {
        r->out[i] = op->out[i] == ESPL_VALUE_NONE ? -1 : passes && i == 0 ? r->in[0] : add_slot(m, op, layer, i);
        if (op->out[i] != ESPL_VALUE_NONE)
            bound[op->out[i]] = r->out[i];
    }
    m->n_rows++;
}

static void add_rows(espl_model *m, espl_section section, int layer, int bound[ESPL_N_VALUES]) {
    for (size_t i = 0; i < m->family->n_ops; i++)
        if (m->family->ops[i].section == section)
            add_row(m, &m->family->ops[i], layer, bound);
}

/* ---- The whole. */

static void expand(espl_model *m) {
    const espl_family *f = m->family;
    size_t layers = (size_t)m->dims.layers;
    m->n_buckets = (int)layers + 2;
    m->bucket_numel = espl_calloc((size_t)m->n_buckets, sizeof *m->bucket_numel);
    m->params = espl_calloc(f->n_params * (layers + 2), sizeof *m->params);
    m->rows = espl_calloc(f->n_ops * (layers + 2), sizeof *m->rows);
    m->slots = espl_calloc(f->n_ops * (layers + 2) * ESPL_MAX_OUT, sizeof *m->slots);
    int bound[ESPL_N_VALUES];
    for (int i = 0; i < ESPL_N_VALUES; i++)
        bound[i] = -1;
    for (int section = ESPL_SECTION_EMBED; section <= ESPL_SECTION_HEAD; section++)
        for (int layer = 0; layer < (section == ESPL_SECTION_LAYER ? (int)layers : 1); layer++)
            add_params(m, section, section == ESPL_SECTION_LAYER ? layer : -1);
    for (int section = ESPL_SECTION_EMBED; section <= ESPL_SECTION_HEAD; section++)
        for (int layer = 0; layer < (section == ESPL_SECTION_LAYER ? (int)layers : 1); layer++)
            add_rows(m, section, section == ESPL_SECTION_LAYER ? layer : -1, bound);
}

espl_status espl_model_make_json(json_t *config, const char *path, double dropout, espl_model **model) {
    espl_status status = ESPL_OK;
    espl_model *m = espl_calloc(1, sizeof *m);
    m->config = json_incref(config);
    ESPL_TRY_DONE(espl__model_config_parse(config, path, &m->family, &m->dims));
    if (dropout >= 0.0)
        m->dims.drop_embed = m->dims.drop_attention = m->dims.drop_residual = (float)dropout;
    expand(m);
done:
    if (status != ESPL_OK)
        espl_model_free(&m);
    *model = m;
    return status;
}

espl_status espl_model_make(const char *path, double dropout, espl_model **model) {
    json_t *config;
    *model = NULL;
    ESPL_TRY(espl__model_config_load(path, &config));
    espl_status status = espl_model_make_json(config, path, dropout, model);
    json_decref(config);
    return status;
}

espl_status espl_model_reach(espl_model *model, int64_t positions) {
    const espl_dims *d = &model->dims;
    if (d->rope.kind == ESPL_ROPE_NONE) {
        if (positions > d->positions)
            ESPL_FAIL(ESPL_ERR_USAGE,
                      "sequences of %lld tokens are asked for, but this %s model has %lld positions; lower data.sequence_length",
                      (long long)positions, model->family->model_type, (long long)d->positions);
        return ESPL_OK;
    }
    model->rope_numel = positions * d->head_dim;
    model->rope = espl_malloc((size_t)model->rope_numel * sizeof *model->rope);
    espl_rope_fill(d, positions, model->rope);
    for (int i = 0; i < model->n_rows; i++)
        if (model->rows[i].op == ESPL_OP_QKV) {
            model->rows[i].attrs.rope_dim = d->head_dim;
            model->rows[i].attrs.positions = positions;
        }
    return ESPL_OK;
}

void espl_model_free(espl_model **model) {
    espl_model *m = *model;
    if (m == NULL)
        return;
    json_decref(m->config);
    free(m->params);
    free(m->slots);
    free(m->rows);
    free(m->bucket_numel);
    free(m->rope);
    free(m);
    *model = NULL;
}

int64_t espl_model_bucket_size(const espl_model *model, int bucket, int ranks) {
    int64_t unit = (int64_t)ESPL_PIECE * ranks;
    return (model->bucket_numel[bucket] + unit - 1) / unit * unit;
}

int64_t espl_model_bucket_start(const espl_model *model, int bucket, int ranks) {
    int64_t start = 0;
    for (int b = 0; b < bucket; b++)
        start += espl_model_bucket_size(model, b, ranks);
    return start;
}

int64_t espl_model_flat_size(const espl_model *model, int ranks) { return espl_model_bucket_start(model, model->n_buckets, ranks); }

int64_t espl_model_numel(const espl_model *model) {
    int64_t n = 0;
    for (int i = 0; i < model->n_params; i++)
        n += model->params[i].numel;
    return n;
}

int64_t espl_model_matrix_numel(const espl_model *model) {
    int64_t n = 0;
    for (int i = 0; i < model->n_rows; i++) {
        const espl_row *r = &model->rows[i];
        if (r->op == ESPL_OP_LINEAR || r->op == ESPL_OP_QKV)
            n += r->attrs.n_in * r->attrs.n_out;
        else if (r->op == ESPL_OP_LINEAR_XENT)
            n += r->attrs.n_in * r->attrs.vocab;
    }
    return n;
}
