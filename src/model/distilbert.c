#include "src/model/rows.h"

#include "src/model/model_config.h"

#include <stddef.h>

/* DistilBERT (Sanh et al. 2019): BERT without token types and pooler. */

#define DIM(field) offsetof(espl_dims, field)

static const espl_key_row keys[] = {
    {"n_layers", ESPL_KEY_I64, DIM(layers), true},
    {"dim", ESPL_KEY_I64, DIM(width), true},
    {"hidden_dim", ESPL_KEY_I64, DIM(ffn), true},
    {"n_heads", ESPL_KEY_I32, DIM(heads), true},
    {"max_position_embeddings", ESPL_KEY_I64, DIM(positions), true},
    {"vocab_size", ESPL_KEY_I64, DIM(vocab), true},
    {"initializer_range", ESPL_KEY_F32, DIM(init_std), false},
    {"dropout", ESPL_KEY_F32, DIM(drop_embed), false},
    {"dropout", ESPL_KEY_F32, DIM(drop_residual), false},
    {"attention_dropout", ESPL_KEY_F32, DIM(drop_attention), false},
    {"seq_classif_dropout", ESPL_KEY_F32, DIM(drop_head), false},
    {"bos_token_id", ESPL_KEY_I32, DIM(bos), false},
    {"eos_token_id", ESPL_KEY_I32, DIM(eos), false},
    {"pad_token_id", ESPL_KEY_I32, DIM(pad), false},
};

#define AT "transformer.layer.%d."

static const espl_param_row params[] = {
    {MATRIX(TOKENS, EMBED, "embeddings.word_embeddings.weight", V, D, NORMAL_PADDED), ESPL_ALWAYS},
    {MATRIX(POSITIONS, EMBED, "embeddings.position_embeddings.weight", P, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(NORM_EMBED, EMBED, "embeddings.LayerNorm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM_EMBED_BIAS, EMBED, "embeddings.LayerNorm.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "attention.q_lin.weight", Q, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "attention.k_lin.weight", KV, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "attention.v_lin.weight", KV, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "attention.q_lin.bias", Q, ZERO), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "attention.k_lin.bias", KV, ZERO), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "attention.v_lin.bias", KV, ZERO), ESPL_ALWAYS},
    {MATRIX(OUT, LAYER, AT "attention.out_lin.weight", D, Q, NORMAL), ESPL_ALWAYS},
    {VECTOR(OUT_BIAS, LAYER, AT "attention.out_lin.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM1, LAYER, AT "sa_layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM1_BIAS, LAYER, AT "sa_layer_norm.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(UP, LAYER, AT "ffn.lin1.weight", F, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(UP_BIAS, LAYER, AT "ffn.lin1.bias", F, ZERO), ESPL_ALWAYS},
    {MATRIX(DOWN, LAYER, AT "ffn.lin2.weight", D, F, NORMAL), ESPL_ALWAYS},
    {VECTOR(DOWN_BIAS, LAYER, AT "ffn.lin2.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM2, LAYER, AT "output_layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM2_BIAS, LAYER, AT "output_layer_norm.bias", D, ZERO), ESPL_ALWAYS},
};

/* Nothing is dropped behind the attention's output. */
static const espl_op_row ops[] = {
    {OP(EMBED, EMBED, "embeddings"), OUT1(X, D), WITH2(TOKENS, POSITIONS), .rate = ESPL_RATE_NONE},
    {OP(RESNORM, EMBED, "embeddings.LayerNorm"), IN1(X), OUT3(SUM, D, X, D, STAT, 2), WITH2(NORM_EMBED, NORM_EMBED_BIAS)},
    {OP(ACT, EMBED, "embeddings.dropout"), IN1(X), OUT1(X, D), .kind = ESPL_KIND(ESPL_ACT_NONE), .rate = ESPL_RATE_EMBED},
    {OP(QKV, LAYER, "attention.qkv"), IN1(X), OUT1(QKV, QKV), WITH2(QKV, QKV_BIAS)},
    {OP(ATTENTION, LAYER, "attention"), IN1(QKV), OUT2(ATTENTION, Q, LSE, H)},
    {OP(LINEAR, LAYER, "attention.out_lin"), IN1(ATTENTION), OUT1(Y, D), WITH2(OUT, OUT_BIAS)},
    {OP(RESNORM, LAYER, "sa_layer_norm"), IN2(X, Y), OUT3(SUM, D, X, D, STAT, 2), WITH2(NORM1, NORM1_BIAS), .rate = ESPL_RATE_NONE},
    {OP(MLP, LAYER, "ffn"), IN1(X), OUT2(Y, D, UP, F), WITH4(UP, UP_BIAS, DOWN, DOWN_BIAS)},
    {OP(RESNORM, LAYER, "output_layer_norm"), IN2(X, Y), OUT3(SUM, D, X, D, STAT, 2), WITH2(NORM2, NORM2_BIAS)},
};

static const espl_param_row mlm_params[] = {
    {MATRIX(TRANSFORM, HEAD, "vocab_transform.weight", D, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(TRANSFORM_BIAS, HEAD, "vocab_transform.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM_HEAD, HEAD, "vocab_layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM_HEAD_BIAS, HEAD, "vocab_layer_norm.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(LM_HEAD, HEAD, "vocab_projector.weight", V, D, NORMAL), ESPL_IF_UNTIED},
    {VECTOR(LM_HEAD_BIAS, HEAD, "vocab_projector.bias", V, ZERO), ESPL_ALWAYS},
};

static const espl_op_row mlm_ops[] = {
    {OP(LINEAR, HEAD, "vocab_transform"), IN1(X), OUT1(UP, D), WITH2(TRANSFORM, TRANSFORM_BIAS)},
    {OP(ACT, HEAD, "vocab_transform.act"), IN1(UP), OUT1(ACT, D)},
    {OP(RESNORM, HEAD, "vocab_layer_norm"), IN1(ACT), OUT3(SUM, D, NORMED, D, STAT, 2), WITH2(NORM_HEAD, NORM_HEAD_BIAS)},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(NORMED), OUT1(LOSS, 1), WITH2(LM_HEAD, LM_HEAD_BIAS)},
};

static const espl_param_row class_params[] = {
    {MATRIX(TRANSFORM, HEAD, "pre_classifier.weight", D, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(TRANSFORM_BIAS, HEAD, "pre_classifier.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(CLASSIFIER, HEAD, "classifier.weight", L, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(CLASSIFIER_BIAS, HEAD, "classifier.bias", L, ZERO), ESPL_ALWAYS},
};

static const espl_op_row class_ops[] = {
    {OP(POOL, HEAD, "first"), IN1(X), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_POOL_FIRST)},
    {OP(LINEAR, HEAD, "pre_classifier"), IN1(POOLED), OUT1(UP, D), WITH2(TRANSFORM, TRANSFORM_BIAS), .stream = ESPL_STREAM_POOLED},
    {OP(ACT, HEAD, "pre_classifier.act"), IN1(UP), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_ACT_RELU), .rate = ESPL_RATE_HEAD,
     .stream = ESPL_STREAM_POOLED},
    {OP(LINEAR, HEAD, "logits"), IN1(POOLED), OUT1(LOGITS, L), WITH2(CLASSIFIER, CLASSIFIER_BIAS), .stream = ESPL_STREAM_POOLED,
     .scored = true},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(POOLED), OUT1(LOSS, 1), WITH2(CLASSIFIER, CLASSIFIER_BIAS), .stream = ESPL_STREAM_POOLED},
};

static const espl_head_table heads[] = {
    {.head = ESPL_HEAD_MLM, .architecture = "DistilBertForMaskedLM", ESPL_TABLE(params, mlm_params), ESPL_TABLE(ops, mlm_ops)},
    {.head = ESPL_HEAD_CLASSIFICATION,
     .architecture = "DistilBertForSequenceClassification",
     ESPL_TABLE(params, class_params),
     ESPL_TABLE(ops, class_ops)},
};

static espl_status finish(espl_dims *dims, const json_t *config, const char *path) {
    if (json_is_true(json_object_get(config, "sinusoidal_pos_embds")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: sinusoidal_pos_embds is not supported", path);
    dims->tied = !json_is_false(json_object_get(config, "tie_word_embeddings"));
    return espl__model_config_equal_heads(dims, path);
}

const espl_family espl_family_distilbert = {
    .model_type = "distilbert",
    .prefix = "distilbert.",
    ESPL_TABLE(keys, keys),
    .defaults = {.norm_eps = 1e-12f,
                 .init_std = 0.02f,
                 .logits_scale = 1.0f,
                 .activation = ESPL_ACT_GELU,
                 .tied = true,
                 .drop_embed = 0.1f,
                 .drop_attention = 0.1f,
                 .drop_residual = 0.1f,
                 .drop_head = 0.2f,
                 .bos = -1,
                 .eos = -1,
                 .pad = 0},
    .norm_kind = ESPL_NORM_LAYER,
    .weight_layout = ESPL_OUT_IN,
    .bidirectional = true,
    ESPL_TABLE(params, params),
    ESPL_TABLE(ops, ops),
    ESPL_TABLE(heads, heads),
    .finish = finish,
};
