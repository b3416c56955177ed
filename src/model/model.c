#include "src/model/model.h"
#include "src/model/bottleneck.h"
#include "src/model/freeze.h"
#include "src/model/low_rank.h"
#include "src/model/model_config.h"
#include "src/model/layer_prefix.h"
#include "src/model/quantise.h"
#include "src/model/rates.h"
#include "src/model/soft_prompt.h"

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
    case ESPL_SIZE_P: return d->positions + d->position_offset;
    case ESPL_SIZE_T: return d->types;
    case ESPL_SIZE_L: return d->labels;
    case ESPL_SIZE_BUCKETS: return d->rel_buckets;
    case ESPL_SIZE_D: return d->width;
    case ESPL_SIZE_F: return d->ffn;
    case ESPL_SIZE_2F: return 2 * d->ffn;
    case ESPL_SIZE_H: return d->heads;
    case ESPL_SIZE_Q: return q;
    case ESPL_SIZE_KV: return kv;
    case ESPL_SIZE_2KV: return 2 * kv;
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
    case ESPL_IF_GATED: return d->gated;
    case ESPL_IF_NOT_GATED: return !d->gated;
    }
    return false;
}

/* ---- Parameters. */

/* What stands behind the encoder's layers is completed before the last of them, and too small to be sent by itself. */
static int section_bucket(const espl_model *m, espl_section section, int layer) {
    switch (section) {
    case ESPL_SECTION_SOURCE_LAYER: return 1 + layer;
    case ESPL_SECTION_SOURCE_HEAD: return (int)m->dims.source_layers;
    case ESPL_SECTION_LAYER: return 1 + (int)m->dims.source_layers + layer;
    case ESPL_SECTION_HEAD: return 1 + (int)m->dims.source_layers + (int)m->dims.layers;
    default: return 0;
    }
}

static void add_param(espl_model *m, const espl_param_row *row, int layer, bool head) {
    espl_param *p = &m->params[m->n_params];
    const espl_param *before = m->n_params > 0 ? p - 1 : NULL;
    *p = (espl_param){.role = row->role,
                      .section = row->section,
                      .layer = layer,
                      .init = row->init,
                      .decay = row->decay,
                      .head = head,
                      .adapts = -1,
                      .lora_a = -1,
                      .lora_b = -1,
                      .bottleneck = -1,
                      .magnitude = -1};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int prefix = snprintf(p->name, sizeof p->name, "%s", head ? "" : m->family->prefix);
    snprintf(p->name + prefix, sizeof p->name - (size_t)prefix, row->name, layer);
#pragma GCC diagnostic pop
    p->numel = 1;
    for (int i = 0; i < 2 && row->shape[i] != ESPL_SIZE_NONE; i++) {
        p->shape[p->n_dims++] = size_of(&m->dims, row->shape[i]);
        p->numel *= p->shape[i];
    }
    p->bucket = section_bucket(m, row->section, layer);
    p->joined = before != NULL && before->role == row->role && before->section == row->section && before->layer == layer;
    m->n_params++;
}

static void add_param_rows(espl_model *m, const espl_param_row *rows, size_t n, bool head, espl_section section, int layer) {
    for (size_t i = 0; i < n; i++)
        if (rows[i].section == section && applies(&m->dims, rows[i].when))
            add_param(m, &rows[i], layer, head);
}

static void add_params(espl_model *m, espl_section section, int layer) {
    int first = m->n_params;
    add_param_rows(m, m->family->params, m->family->n_params, false, section, layer);
    add_param_rows(m, m->head->params, m->head->n_params, true, section, layer);
    espl__lora_add_params(m, &m->lora, first);
    espl__bottleneck_add_params(m, first);
    espl__prompt_add_param(m, section);
}

/* Behind what a bucket, or the frozen space, holds already. */
static void place_param(espl_param *p, int64_t *used) {
    int64_t unit = ESPL_ALIGN / 2; /* elements: aligned in bf16 too */
    p->offset = p->joined ? *used : (*used + unit - 1) / unit * unit;
    *used = p->offset + p->numel;
}

static void place_quantised(espl_model *m, int param) {
    espl_quant quant = espl_model_quant(m, param);
    m->params[param].offset = (int64_t)m->quant_bytes;
    m->quant_bytes += espl_quant_bytes(&quant);
}

/* Buckets that nothing is trained of go; the others keep their order. */
static void place_params(espl_model *m, int n_sections) {
    int *number = espl_malloc((size_t)n_sections * sizeof *number);
    bool *trained = espl_calloc((size_t)n_sections, sizeof *trained);
    for (int i = 0; i < m->n_params; i++)
        trained[m->params[i].bucket] |= !m->params[i].frozen;
    for (int b = 0; b < n_sections; b++)
        number[b] = trained[b] ? m->n_buckets++ : -1;
    m->bucket_numel = espl_calloc((size_t)m->n_buckets + 1, sizeof *m->bucket_numel);
    for (int i = 0; i < m->n_params; i++) {
        espl_param *p = &m->params[i];
        p->bucket = p->frozen ? m->n_buckets : number[p->bucket];
        if (p->quant != ESPL_QUANT_NONE)
            place_quantised(m, i);
        else
            place_param(p, p->frozen ? &m->frozen_reals : &m->bucket_numel[p->bucket]);
        m->frozen_numel += p->frozen ? p->numel : 0;
    }
    free(number);
    free(trained);
}

static int param_of(const espl_model *m, espl_role role, espl_section section, int layer) {
    for (int i = 0; i < m->n_params; i++)
        if (m->params[i].role == role && m->params[i].section == section && m->params[i].layer == layer)
            return i;
    return -1;
}

/* A role for a row of this section: its own; else its stack's; else the model's; a head that lacks its own takes the tokens' (tied). */
static int find_param(const espl_model *m, espl_role role, espl_section section, int layer) {
    espl_section stack = section < ESPL_SECTION_EMBED ? ESPL_SECTION_SOURCE_EMBED : ESPL_SECTION_EMBED;
    if (role == ESPL_ROLE_NONE)
        return -1;
    int found = param_of(m, role, section, layer);
    if (found < 0)
        found = param_of(m, role, stack, -1);
    if (found < 0)
        found = param_of(m, role, ESPL_SECTION_SOURCE_EMBED, -1);
    return found < 0 && role == ESPL_ROLE_LM_HEAD ? find_param(m, ESPL_ROLE_TOKENS, section, layer) : found;
}

/* ---- Rows. */

static float rate_of(const espl_dims *d, const espl_op_row *row) {
    espl_rate rate = row->rate;
    if (rate == ESPL_RATE_OF_OP)
        switch (row->op) {
        case ESPL_OP_EMBED: rate = ESPL_RATE_EMBED; break;
        case ESPL_OP_RESNORM: rate = ESPL_RATE_RESIDUAL; break;
        case ESPL_OP_ATTENTION:
        case ESPL_OP_CROSS_ATTENTION: return d->drop_attention;
        default: rate = ESPL_RATE_NONE; break;
        }
    return rate == ESPL_RATE_EMBED      ? d->drop_embed
           : rate == ESPL_RATE_RESIDUAL ? d->drop_residual
           : rate == ESPL_RATE_FFN      ? d->drop_ffn
           : rate == ESPL_RATE_HEAD     ? d->drop_head
                                        : 0.0f;
}

static espl_attrs make_attrs(const espl_model *m, const espl_op_row *row, int number) {
    const espl_dims *d = &m->dims;
    espl_attrs a = {.heads = d->heads,
                    .kv_heads = d->kv_heads,
                    .head_dim = d->head_dim,
                    .causal = !m->family->bidirectional && row->stream == ESPL_STREAM_MAIN,
                    .window = d->window,
                    .layout = row->scored ? ESPL_OUT_IN : m->family->weight_layout, /* as the loss has it */
                    .scale = 1.0f,
                    .eps = d->norm_eps,
                    .dropout = rate_of(d, row),
                    .rng_op = (uint32_t)number,
                    .kind = row->kind == ESPL_KIND_OF_MODEL ? d->activation : row->kind - 1,
                    .stream = row->stream,
                    .n_out = size_of(d, row->width[0])};
    switch (row->op) {
    case ESPL_OP_EMBED:
        a.vocab = d->vocab;
        a.positions = size_of(d, ESPL_SIZE_P);
        a.position_offset = d->position_offset;
        a.types = d->types;
        break;
    case ESPL_OP_RESNORM: a.kind = m->family->norm_kind; break;
    case ESPL_OP_QKV: a.positions = d->positions; break;
    case ESPL_OP_MLP: a.ffn = size_of(d, row->width[1]); break;
    case ESPL_OP_ATTENTION:
    case ESPL_OP_CROSS_ATTENTION: a.scale = d->attention_scale; break;
    case ESPL_OP_LINEAR_XENT:
        a.scale = d->logits_scale;
        a.layout = ESPL_OUT_IN;
        break;
    default: break;
    }
    return a;
}

static int add_slot(espl_model *m, const espl_op_row *row, int layer, int output) {
    espl_slot *s = &m->slots[m->n_slots];
    espl_value value = row->out[output];
    *s = (espl_slot){.name = row->name,
                     .layer = layer,
                     .stream = row->op == ESPL_OP_POOL ? ESPL_STREAM_POOLED : row->stream,
                     .producer = m->n_rows,
                     .output = output,
                     .width = size_of(&m->dims, row->width[output]),
                     .stat = value == ESPL_VALUE_STAT || value == ESPL_VALUE_LSE || value == ESPL_VALUE_LOSS};
    return m->n_slots++;
}

static void add_row(espl_model *m, const espl_op_row *op, int layer, int bound[ESPL_N_VALUES]);

/* Inputs and parameters of a row, and the sizes that follow from them. */
static void bind_inputs(espl_model *m, espl_row *r, const espl_op_row *op, const int bound[ESPL_N_VALUES]) {
    for (int i = 0; i < ESPL_MAX_IN; i++)
        r->in[i] = bound[op->in[i]];
    for (int i = 0; i < ESPL_MAX_PARAM; i++)
        r->param[i] = find_param(m, op->param[i], op->section, r->layer);
    if (r->in[0] >= 0)
        r->attrs.n_in = m->slots[r->in[0]].width;
    for (int i = 0; i < 2; i++)
        r->attrs.quant[i] = espl__model_matrix_quant(m, r->param[2 * i]);
    if (op->op == ESPL_OP_EMBED)
        espl__prompt_bind(m, r);
    if (op->op == ESPL_OP_POOL)
        espl__prefix_pass_over(m, r);
    if (op->op == ESPL_OP_LINEAR_XENT)
        r->attrs.vocab = m->params[r->param[0]].shape[0];
    if (op->op == ESPL_OP_ATTENTION && r->param[0] >= 0) {
        r->attrs.rel_buckets = m->dims.rel_buckets;
        r->attrs.rel_distance = m->dims.rel_distance;
    }
}

static bool adapts(const espl_model *m, const espl_op_row *op, int layer, int param) {
    return espl__lora_adapts(m, find_param(m, op->param[param], op->section, layer));
}

/* An MLP of which a matrix is adapted, as its parts. */
static void add_mlp_parts(espl_model *m, const espl_op_row *mlp, int layer, int bound[ESPL_N_VALUES]) {
    espl_op_row first = *mlp, act = *mlp, second = *mlp;
    first = (espl_op_row){
        .op = ESPL_OP_LINEAR, .in = {mlp->in[0]}, .out = {mlp->out[1]}, .width = {mlp->width[1]}, .param = {mlp->param[0], mlp->param[1]}};
    act = (espl_op_row){.op = ESPL_OP_ACT, .in = {mlp->out[1]}, .out = {ESPL_VALUE_ACT}, .width = {mlp->width[1]}, .kind = mlp->kind};
    second = (espl_op_row){.op = ESPL_OP_LINEAR,
                           .in = {ESPL_VALUE_ACT},
                           .out = {mlp->out[0]},
                           .width = {mlp->width[0]},
                           .param = {mlp->param[2], mlp->param[3]}};
    espl_op_row *const parts[] = {&first, &act, &second};
    for (int i = 0; i < 3; i++) {
        parts[i]->section = mlp->section;
        parts[i]->name = mlp->name;
        parts[i]->stream = mlp->stream;
        add_row(m, parts[i], layer, bound);
    }
}

/* Expands one op row; `bound` maps value symbols to the slots they stand for at this point. */
static void add_row(espl_model *m, const espl_op_row *op, int layer, int bound[ESPL_N_VALUES]) {
    bool adapted = adapts(m, op, layer, 0);
    if (op->op == ESPL_OP_MLP && (adapted || adapts(m, op, layer, 2))) {
        add_mlp_parts(m, op, layer, bound);
        return;
    }
    int branch = bound[op->in[1]];
    if (op->op == ESPL_OP_RESNORM)
        bound[op->in[1]] = espl__bottleneck_add_rows(m, branch, rate_of(&m->dims, op));
    espl_row *r = &m->rows[m->n_rows];
    *r = (espl_row){.op = adapted ? ESPL_OP_LINEAR : op->op, /* a QKV is rotated behind its update */
                    .name = op->name,
                    .section = op->section,
                    .layer = layer,
                    .scored = op->scored,
                    .attrs = make_attrs(m, op, m->n_rows)};
    if (op->op == ESPL_OP_EMBED)
        bound[ESPL_VALUE_Y] = -1;
    bind_inputs(m, r, op, bound);
    if (r->in[1] != branch) /* an adapter has dropped already */
        r->attrs.dropout = 0.0f;
    if (op->op == ESPL_OP_ACT && r->attrs.kind == ESPL_ACT_NONE && r->attrs.dropout == 0.0f) { /* a dropout that drops nothing */
        bound[op->out[0]] = r->in[0];
        return;
    }
    bool passes = op->op == ESPL_OP_RESNORM && r->in[1] < 0; /* nothing is added: output 0 is input 0 */
    for (int i = 0; i < ESPL_MAX_OUT; i++) {
        r->out[i] = op->out[i] == ESPL_VALUE_NONE ? -1 : passes && i == 0 ? r->in[0] : add_slot(m, op, layer, i);
        if (op->out[i] != ESPL_VALUE_NONE)
            bound[op->out[i]] = r->out[i];
    }
    m->n_rows++;
    if (adapted)
        espl__lora_add_rows(m, &m->lora, op->op == ESPL_OP_QKV && m->dims.rope.kind != ESPL_ROPE_NONE);
    if (op->op == ESPL_OP_QKV)
        espl__prefix_add_row(m);
}

static void add_op_rows(espl_model *m, const espl_op_row *rows, size_t n, espl_section section, int layer, int bound[ESPL_N_VALUES]) {
    for (size_t i = 0; i < n; i++)
        if (rows[i].section == section && applies(&m->dims, rows[i].when))
            add_row(m, &rows[i], layer, bound);
}

static void add_rows(espl_model *m, espl_section section, int layer, int bound[ESPL_N_VALUES]) {
    add_op_rows(m, m->family->ops, m->family->n_ops, section, layer, bound);
    add_op_rows(m, m->head->ops, m->head->n_ops, section, layer, bound);
}

/* ---- The whole. */

bool espl_model_is_adapted(const espl_model *model) {
    return model->lora.rank > 0 || model->bottleneck.width > 0 || model->prompt.length > 0;
}

bool espl_section_has_layers(espl_section section) { return section == ESPL_SECTION_LAYER || section == ESPL_SECTION_SOURCE_LAYER; }

/* How often a section's rows come: once for each layer; those of an encoder only where there is one. */
static int repeats(const espl_model *m, espl_section section) {
    const espl_dims *d = &m->dims;
    if (section == ESPL_SECTION_LAYER)
        return (int)d->layers;
    if (section == ESPL_SECTION_SOURCE_LAYER)
        return (int)d->source_layers;
    return section >= ESPL_SECTION_EMBED || d->source_layers > 0;
}

static espl_status expand(espl_model *m, const espl_model_options *options) {
    /* Parameters follow each other as their buckets do. */
    static const espl_section of_params[ESPL_N_SECTIONS] = {ESPL_SECTION_SOURCE_EMBED, ESPL_SECTION_EMBED, ESPL_SECTION_SOURCE_LAYER,
                                                            ESPL_SECTION_SOURCE_HEAD,  ESPL_SECTION_LAYER, ESPL_SECTION_HEAD};
    size_t layers = (size_t)(m->dims.layers + m->dims.source_layers), ops = m->family->n_ops + m->head->n_ops;
    m->lora = options->lora;
    m->bottleneck = options->bottleneck;
    m->prompt = options->prompt;
    size_t most = m->lora.magnitudes ? 17 : espl_model_is_adapted(m) ? 9 : 1; /* an MLP becomes three rows, two of them with up to 7 more */
    m->params = espl_calloc((m->family->n_params + m->head->n_params) * (layers + 2) * 4, sizeof *m->params);
    m->rows = espl_calloc(ops * (layers + 2) * most, sizeof *m->rows);
    m->slots = espl_calloc(ops * (layers + 2) * most * ESPL_MAX_OUT, sizeof *m->slots);
    int bound[ESPL_N_VALUES];
    for (int i = 0; i < ESPL_N_VALUES; i++)
        bound[i] = -1;
    ESPL_TRY(espl__lora_check_numbers(&m->lora));
    ESPL_TRY(espl__prefix_check(m));
    for (int i = 0; i < ESPL_N_SECTIONS; i++)
        for (int layer = 0; layer < repeats(m, of_params[i]); layer++)
            add_params(m, of_params[i], espl_section_has_layers(of_params[i]) ? layer : -1);
    ESPL_TRY(espl__lora_check(m, &m->lora));
    if (m->lora.magnitudes && options->quant != ESPL_QUANT_NONE)
        ESPL_FAIL(ESPL_ERR_USAGE, "tune.method: dora takes the norms of matrices, which tune.base would quantise; set tune.base: as_is, or "
                                  "tune.method: lora");
    ESPL_TRY(espl__model_freeze(m, options));
    ESPL_TRY(espl__model_rates(m, options));
    ESPL_TRY(espl__model_quantise(m, options->quant));
    m->lora.targets = m->lora.ranks = m->lora.alphas = NULL;
    m->lora.n_targets = m->lora.n_ranks = m->lora.n_alphas = 0;
    place_params(m, (int)layers + 2);
    for (espl_section section = 0; section < ESPL_N_SECTIONS; section++)
        for (int layer = 0; layer < repeats(m, section); layer++)
            add_rows(m, section, espl_section_has_layers(section) ? layer : -1, bound);
    return ESPL_OK;
}

static void set_dropout(espl_dims *d, double dropout) {
    if (dropout >= 0.0)
        d->drop_embed = d->drop_attention = d->drop_residual = d->drop_ffn = d->drop_head = (float)dropout;
}

static int quant_of(const espl_config *config) {
    if (config->tune_base != ESPL_BASE_NF4)
        return config->tune_base == ESPL_BASE_INT8 ? ESPL_QUANT_INT8 : ESPL_QUANT_NONE;
    return config->tune_double_quantise ? ESPL_QUANT_NF4_DOUBLE : ESPL_QUANT_NF4;
}

espl_model_options espl_model_options_of(const espl_config *config) {
    static const espl_head of_task[] = {[ESPL_TASK_LM] = ESPL_HEAD_LM,
                                        [ESPL_TASK_MLM] = ESPL_HEAD_MLM,
                                        [ESPL_TASK_CLASSIFICATION] = ESPL_HEAD_CLASSIFICATION,
                                        [ESPL_TASK_SEQ2SEQ] = ESPL_HEAD_SEQ2SEQ};
    return (espl_model_options){.dropout = config->model_dropout,
                                .head = of_task[config->data_task],
                                .labels = config->data_labels.items,
                                .n_labels = config->data_labels.n,
                                .quant = quant_of(config),
                                .train = config->tune_train.items,
                                .n_train = config->tune_train.n,
                                .unfreeze = config->tune_unfreeze.items,
                                .n_unfreeze = config->tune_unfreeze.n,
                                .layer_decay = config->optim_layer_decay,
                                .rates = config->optim_rates.items,
                                .n_rates = config->optim_rates.n,
                                .lora = {.rank = espl_config_has_updates(config) ? config->tune_rank : 0,
                                         .magnitudes = config->tune_method == ESPL_TUNE_DORA,
                                         .alpha = config->tune_alpha,
                                         .dropout = config->tune_dropout,
                                         .rank_stabilised = config->tune_rank_stabilised,
                                         .targets = config->tune_targets.items,
                                         .n_targets = config->tune_targets.n,
                                         .ranks = config->tune_ranks.items,
                                         .n_ranks = config->tune_ranks.n,
                                         .alphas = config->tune_alphas.items,
                                         .n_alphas = config->tune_alphas.n},
                                .bottleneck = {.width = config->tune_method == ESPL_TUNE_BOTTLENECK ? config->tune_bottleneck : 0,
                                               .activation = config->tune_bottleneck_activation, /* choices are ordered as ESPL_ACT_* */
                                               .mlp_only = config->tune_bottleneck_at == ESPL_BOTTLENECK_AT_MLP},
                                .prompt = {.length = espl_config_has_prompt(config) ? config->tune_prompt_length : 0,
                                           .prefix = config->tune_method == ESPL_TUNE_PREFIX}};
}

espl_status espl_model_make_json(json_t *config, const char *path, const espl_model_options *options, espl_model **model) {
    espl_status status = ESPL_OK;
    espl_model *m = espl_calloc(1, sizeof *m);
    m->config = json_incref(config);
    ESPL_TRY_DONE(espl__model_config_parse(config, path, &m->family, &m->dims));
    ESPL_TRY_DONE(espl__model_config_head(config, path, m->family, options->head, &m->head));
    ESPL_TRY_DONE(espl__model_config_settle(m, path, options));
    set_dropout(&m->dims, options->dropout);
    ESPL_TRY_DONE(expand(m, options));
done:
    if (status != ESPL_OK)
        espl_model_free(&m);
    *model = m;
    return status;
}

espl_status espl_model_make(const char *path, const espl_model_options *options, espl_model **model) {
    json_t *config;
    *model = NULL;
    ESPL_TRY(espl__model_config_load(path, &config));
    espl_status status = espl_model_make_json(config, path, options, model);
    json_decref(config);
    return status;
}

espl_status espl_model_reach(espl_model *model, int64_t positions) {
    const espl_dims *d = &model->dims;
    positions += espl_model_prompt(model, ESPL_STREAM_MAIN);
    if (d->rope.kind == ESPL_ROPE_NONE) {
        if (positions > d->positions && find_param(model, ESPL_ROLE_POSITIONS, ESPL_SECTION_EMBED, -1) >= 0)
            ESPL_FAIL(ESPL_ERR_USAGE,
                      "sequences of %lld tokens%s are asked for, but this %s model has %lld positions; lower data.sequence_length",
                      (long long)positions, model->prompt.length > 0 ? ", with their prompts," : "", model->family->model_type,
                      (long long)d->positions);
        return ESPL_OK;
    }
    model->rope_numel = positions * d->head_dim;
    model->rope = espl_malloc((size_t)model->rope_numel * sizeof *model->rope);
    espl_rope_fill(d, positions, model->rope);
    for (int i = 0; i < model->n_rows; i++)
        if (model->rows[i].op == ESPL_OP_QKV || model->rows[i].op == ESPL_OP_ROPE) {
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
    for (int i = 0; i < m->n_phases; i++)
        free(m->phases[i].what);
    free(m->phases);
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

int64_t espl_model_place(const espl_model *model, int param, int ranks) {
    const espl_param *p = &model->params[param];
    ESPL_ASSERT(p->quant == ESPL_QUANT_NONE, "'%s' is quantised", p->name);
    return espl_model_bucket_start(model, p->bucket, ranks) + p->offset;
}

/* Of the weights that are reals; behind them begins what is quantised. */
static size_t reals_bytes(const espl_model *model, int ranks, espl_dtype real) {
    size_t bytes = (size_t)(espl_model_flat_size(model, ranks) + model->frozen_reals) * espl_dtype_size(real);
    return model->quant_bytes > 0 ? espl_quant_round_up(bytes) : bytes;
}

size_t espl_model_weights_bytes(const espl_model *model, int ranks, espl_dtype real) {
    return reals_bytes(model, ranks, real) + model->quant_bytes;
}

size_t espl_model_weights_at(const espl_model *model, int param, int ranks, espl_dtype real) {
    const espl_param *p = &model->params[param];
    if (p->quant != ESPL_QUANT_NONE)
        return reals_bytes(model, ranks, real) + (size_t)p->offset;
    return (size_t)espl_model_place(model, param, ranks) * espl_dtype_size(real);
}

size_t espl_model_param_bytes(const espl_model *model, int param, espl_dtype real) {
    const espl_param *p = &model->params[param];
    espl_quant quant = p->quant != ESPL_QUANT_NONE ? espl_model_quant(model, param) : (espl_quant){0};
    return p->quant != ESPL_QUANT_NONE ? espl_quant_bytes(&quant) : (size_t)p->numel * espl_dtype_size(real);
}

bool espl_model_trains(const espl_model *model, int param, int phase) {
    return param >= 0 && !model->params[param].frozen && model->params[param].phase <= phase;
}

bool espl_model_trains_bucket(const espl_model *model, int bucket, int phase) {
    for (int i = 0; i < model->n_params; i++)
        if (model->params[i].bucket == bucket && espl_model_trains(model, i, phase))
            return true;
    return false;
}

int64_t espl_model_numel(const espl_model *model) {
    int64_t n = 0;
    for (int i = 0; i < model->n_params; i++)
        n += model->params[i].numel;
    return n;
}

int64_t espl_model_phase_numel(const espl_model *model, int phase) {
    int64_t n = 0;
    for (int i = 0; i < model->n_params; i++)
        n += espl_model_trains(model, i, phase) ? model->params[i].numel : 0;
    return n;
}

int64_t espl_model_trained_numel(const espl_model *model) { return espl_model_phase_numel(model, model->n_phases - 1); }

static int64_t lora_numel(const espl_attrs *attrs) {
    int64_t n = 0;
    for (int p = 0; p < attrs->n_parts; p++)
        n += attrs->part[p].width * attrs->part[p].rank;
    return n;
}

int64_t espl_model_matrix_numel(const espl_model *model) {
    int64_t n = 0;
    for (int i = 0; i < model->n_rows; i++) {
        const espl_row *r = &model->rows[i];
        if (r->scored)
            continue;
        if (r->op == ESPL_OP_LINEAR || r->op == ESPL_OP_QKV)
            n += r->attrs.n_in * r->attrs.n_out;
        else if (r->op == ESPL_OP_LORA)
            n += lora_numel(&r->attrs);
        else if (r->op == ESPL_OP_MLP)
            n += r->attrs.ffn * (r->attrs.n_in + r->attrs.n_out);
        else if (r->op == ESPL_OP_LINEAR_XENT)
            n += r->attrs.n_in * r->attrs.vocab;
    }
    return n;
}
