#include "src/model/rows.h"

#include "src/model/model_config.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* BERT (Devlin et al. 2018) and RoBERTa (Liu et al. 2019): one stack that sees both ways, with the norm behind each residual sum. They
 * differ in names, in heads, and in where the positions begin. */

#define DIM(field) offsetof(espl_dims, field)

static const espl_key_row keys[] = {
    {"num_hidden_layers", ESPL_KEY_I64, DIM(layers), true},
    {"hidden_size", ESPL_KEY_I64, DIM(width), true},
    {"intermediate_size", ESPL_KEY_I64, DIM(ffn), true},
    {"num_attention_heads", ESPL_KEY_I32, DIM(heads), true},
    {"max_position_embeddings", ESPL_KEY_I64, DIM(positions), true},
    {"type_vocab_size", ESPL_KEY_I64, DIM(types), false},
    {"vocab_size", ESPL_KEY_I64, DIM(vocab), true},
    {"layer_norm_eps", ESPL_KEY_F32, DIM(norm_eps), false},
    {"initializer_range", ESPL_KEY_F32, DIM(init_std), false},
    {"hidden_dropout_prob", ESPL_KEY_F32, DIM(drop_embed), false},
    {"hidden_dropout_prob", ESPL_KEY_F32, DIM(drop_residual), false},
    {"attention_probs_dropout_prob", ESPL_KEY_F32, DIM(drop_attention), false},
    {"classifier_dropout|hidden_dropout_prob", ESPL_KEY_F32, DIM(drop_head), false},
    {"bos_token_id", ESPL_KEY_I32, DIM(bos), false},
    {"eos_token_id", ESPL_KEY_I32, DIM(eos), false},
    {"pad_token_id", ESPL_KEY_I32, DIM(pad), false},
};

#define AT "encoder.layer.%d."

static const espl_param_row params[] = {
    {MATRIX(POSITIONS, EMBED, "embeddings.position_embeddings.weight", P, D, NORMAL_PADDED), ESPL_ALWAYS},
    {MATRIX(TOKENS, EMBED, "embeddings.word_embeddings.weight", V, D, NORMAL_PADDED), ESPL_ALWAYS},
    {MATRIX(TYPES, EMBED, "embeddings.token_type_embeddings.weight", T, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(NORM_EMBED, EMBED, "embeddings.LayerNorm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM_EMBED_BIAS, EMBED, "embeddings.LayerNorm.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "attention.self.query.weight", Q, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "attention.self.key.weight", KV, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "attention.self.value.weight", KV, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "attention.self.query.bias", Q, ZERO), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "attention.self.key.bias", KV, ZERO), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "attention.self.value.bias", KV, ZERO), ESPL_ALWAYS},
    {MATRIX(OUT, LAYER, AT "attention.output.dense.weight", D, Q, NORMAL), ESPL_ALWAYS},
    {VECTOR(OUT_BIAS, LAYER, AT "attention.output.dense.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM1, LAYER, AT "attention.output.LayerNorm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM1_BIAS, LAYER, AT "attention.output.LayerNorm.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(UP, LAYER, AT "intermediate.dense.weight", F, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(UP_BIAS, LAYER, AT "intermediate.dense.bias", F, ZERO), ESPL_ALWAYS},
    {MATRIX(DOWN, LAYER, AT "output.dense.weight", D, F, NORMAL), ESPL_ALWAYS},
    {VECTOR(DOWN_BIAS, LAYER, AT "output.dense.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM2, LAYER, AT "output.LayerNorm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM2_BIAS, LAYER, AT "output.LayerNorm.bias", D, ZERO), ESPL_ALWAYS},
};

static const espl_op_row ops[] = {
    {OP(EMBED, EMBED, "embeddings"), OUT1(X, D), WITH3(TOKENS, POSITIONS, TYPES), .rate = ESPL_RATE_NONE},
    {OP(RESNORM, EMBED, "embeddings.LayerNorm"), IN1(X), OUT3(SUM, D, X, D, STAT, 2), WITH2(NORM_EMBED, NORM_EMBED_BIAS)},
    {OP(ACT, EMBED, "embeddings.dropout"), IN1(X), OUT1(X, D), .kind = ESPL_KIND(ESPL_ACT_NONE), .rate = ESPL_RATE_EMBED},
    {OP(QKV, LAYER, "attention.self"), IN1(X), OUT1(QKV, QKV), WITH2(QKV, QKV_BIAS)},
    {OP(ATTENTION, LAYER, "attention"), IN1(QKV), OUT2(ATTENTION, Q, LSE, H)},
    {OP(LINEAR, LAYER, "attention.output"), IN1(ATTENTION), OUT1(Y, D), WITH2(OUT, OUT_BIAS)},
    {OP(RESNORM, LAYER, "attention.output.LayerNorm"), IN2(X, Y), OUT3(SUM, D, X, D, STAT, 2), WITH2(NORM1, NORM1_BIAS)},
    {OP(MLP, LAYER, "intermediate"), IN1(X), OUT2(Y, D, UP, F), WITH4(UP, UP_BIAS, DOWN, DOWN_BIAS)},
    {OP(RESNORM, LAYER, "output.LayerNorm"), IN2(X, Y), OUT3(SUM, D, X, D, STAT, 2), WITH2(NORM2, NORM2_BIAS)},
};

/* ---- Heads. */

static const espl_param_row bert_mlm_params[] = {
    {MATRIX(TRANSFORM, HEAD, "cls.predictions.transform.dense.weight", D, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(TRANSFORM_BIAS, HEAD, "cls.predictions.transform.dense.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM_HEAD, HEAD, "cls.predictions.transform.LayerNorm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM_HEAD_BIAS, HEAD, "cls.predictions.transform.LayerNorm.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(LM_HEAD_BIAS, HEAD, "cls.predictions.bias", V, ZERO), ESPL_ALWAYS},
};

static const espl_param_row roberta_mlm_params[] = {
    {MATRIX(TRANSFORM, HEAD, "lm_head.dense.weight", D, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(TRANSFORM_BIAS, HEAD, "lm_head.dense.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM_HEAD, HEAD, "lm_head.layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM_HEAD_BIAS, HEAD, "lm_head.layer_norm.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(LM_HEAD_BIAS, HEAD, "lm_head.bias", V, ZERO), ESPL_ALWAYS},
};

static const espl_op_row bert_mlm_ops[] = {
    {OP(LINEAR, HEAD, "transform"), IN1(X), OUT1(UP, D), WITH2(TRANSFORM, TRANSFORM_BIAS)},
    {OP(ACT, HEAD, "transform.act"), IN1(UP), OUT1(ACT, D)},
    {OP(RESNORM, HEAD, "transform.LayerNorm"), IN1(ACT), OUT3(SUM, D, NORMED, D, STAT, 2), WITH2(NORM_HEAD, NORM_HEAD_BIAS)},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(NORMED), OUT1(LOSS, 1), WITH2(LM_HEAD, LM_HEAD_BIAS)},
};

static const espl_op_row roberta_mlm_ops[] = {
    {OP(LINEAR, HEAD, "transform"), IN1(X), OUT1(UP, D), WITH2(TRANSFORM, TRANSFORM_BIAS)},
    {OP(ACT, HEAD, "transform.act"), IN1(UP), OUT1(ACT, D), .kind = ESPL_KIND(ESPL_ACT_GELU)},
    {OP(RESNORM, HEAD, "transform.LayerNorm"), IN1(ACT), OUT3(SUM, D, NORMED, D, STAT, 2), WITH2(NORM_HEAD, NORM_HEAD_BIAS)},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(NORMED), OUT1(LOSS, 1), WITH2(LM_HEAD, LM_HEAD_BIAS)},
};

static const espl_param_row bert_class_params[] = {
    {MATRIX(TRANSFORM, HEAD, "bert.pooler.dense.weight", D, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(TRANSFORM_BIAS, HEAD, "bert.pooler.dense.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(CLASSIFIER, HEAD, "classifier.weight", L, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(CLASSIFIER_BIAS, HEAD, "classifier.bias", L, ZERO), ESPL_ALWAYS},
};

static const espl_param_row roberta_class_params[] = {
    {MATRIX(TRANSFORM, HEAD, "classifier.dense.weight", D, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(TRANSFORM_BIAS, HEAD, "classifier.dense.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(CLASSIFIER, HEAD, "classifier.out_proj.weight", L, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(CLASSIFIER_BIAS, HEAD, "classifier.out_proj.bias", L, ZERO), ESPL_ALWAYS},
};

static const espl_op_row bert_class_ops[] = {
    {OP(POOL, HEAD, "first"), IN1(X), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_POOL_FIRST)},
    {OP(LINEAR, HEAD, "dense"), IN1(POOLED), OUT1(UP, D), WITH2(TRANSFORM, TRANSFORM_BIAS), .stream = ESPL_STREAM_POOLED},
    {OP(ACT, HEAD, "tanh"), IN1(UP), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_ACT_TANH), .rate = ESPL_RATE_HEAD,
     .stream = ESPL_STREAM_POOLED},
    {OP(LINEAR, HEAD, "logits"), IN1(POOLED), OUT1(LOGITS, L), WITH2(CLASSIFIER, CLASSIFIER_BIAS), .stream = ESPL_STREAM_POOLED,
     .scored = true},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(POOLED), OUT1(LOSS, 1), WITH2(CLASSIFIER, CLASSIFIER_BIAS), .stream = ESPL_STREAM_POOLED},
};

/* RoBERTa drops before its dense layer, too. */
static const espl_op_row roberta_class_ops[] = {
    {OP(POOL, HEAD, "first"), IN1(X), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_POOL_FIRST)},
    {OP(ACT, HEAD, "dropout"), IN1(POOLED), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_ACT_NONE), .rate = ESPL_RATE_HEAD,
     .stream = ESPL_STREAM_POOLED},
    {OP(LINEAR, HEAD, "dense"), IN1(POOLED), OUT1(UP, D), WITH2(TRANSFORM, TRANSFORM_BIAS), .stream = ESPL_STREAM_POOLED},
    {OP(ACT, HEAD, "tanh"), IN1(UP), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_ACT_TANH), .rate = ESPL_RATE_HEAD,
     .stream = ESPL_STREAM_POOLED},
    {OP(LINEAR, HEAD, "logits"), IN1(POOLED), OUT1(LOGITS, L), WITH2(CLASSIFIER, CLASSIFIER_BIAS), .stream = ESPL_STREAM_POOLED,
     .scored = true},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(POOLED), OUT1(LOSS, 1), WITH2(CLASSIFIER, CLASSIFIER_BIAS), .stream = ESPL_STREAM_POOLED},
};

static const espl_head_table bert_heads[] = {
    {.head = ESPL_HEAD_MLM, .architecture = "BertForMaskedLM", ESPL_TABLE(params, bert_mlm_params), ESPL_TABLE(ops, bert_mlm_ops)},
    {.head = ESPL_HEAD_CLASSIFICATION,
     .architecture = "BertForSequenceClassification",
     ESPL_TABLE(params, bert_class_params),
     ESPL_TABLE(ops, bert_class_ops)},
};

static const espl_head_table roberta_heads[] = {
    {.head = ESPL_HEAD_MLM, .architecture = "RobertaForMaskedLM", ESPL_TABLE(params, roberta_mlm_params), ESPL_TABLE(ops, roberta_mlm_ops)},
    {.head = ESPL_HEAD_CLASSIFICATION,
     .architecture = "RobertaForSequenceClassification",
     ESPL_TABLE(params, roberta_class_params),
     ESPL_TABLE(ops, roberta_class_ops)},
};

/* ---- What the keys do not say. */

static espl_status finish(espl_dims *dims, const json_t *config, const char *path) {
    const char *positions = json_string_value(json_object_get(config, "position_embedding_type"));
    ESPL_TRY(espl__model_config_equal_heads(dims, path));
    if (json_is_true(json_object_get(config, "is_decoder")) || json_is_true(json_object_get(config, "add_cross_attention")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: is_decoder and add_cross_attention are not supported for encoders", path);
    if (json_is_false(json_object_get(config, "tie_word_embeddings")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: tie_word_embeddings false is not supported for encoders", path);
    if (positions != NULL && strcmp(positions, "absolute") != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: position_embedding_type '%s' is not supported; absolute is", path, positions);
    return ESPL_OK;
}

/* Positions are counted from behind the padding token's id. */
static espl_status finish_roberta(espl_dims *dims, const json_t *config, const char *path) {
    ESPL_TRY(finish(dims, config, path));
    dims->position_offset = dims->pad + 1;
    dims->positions -= dims->position_offset;
    return ESPL_OK;
}

#define BERT_TABLES                                                                                                                        \
    .norm_kind = ESPL_NORM_LAYER, .weight_layout = ESPL_OUT_IN, .bidirectional = true, ESPL_TABLE(keys, keys), ESPL_TABLE(params, params), \
    ESPL_TABLE(ops, ops)
#define BERT_DEFAULTS                                                                                                                      \
    .norm_eps = 1e-12f, .init_std = 0.02f, .logits_scale = 1.0f, .activation = ESPL_ACT_GELU, .tied = true, .types = 2,                    \
    .drop_embed = 0.1f, .drop_attention = 0.1f, .drop_residual = 0.1f, .drop_head = 0.1f

const espl_family espl_family_bert = {.model_type = "bert",
                                      .prefix = "bert.",
                                      BERT_TABLES,
                                      ESPL_TABLE(heads, bert_heads),
                                      .defaults = {BERT_DEFAULTS, .bos = -1, .eos = -1, .pad = 0},
                                      .finish = finish};

const espl_family espl_family_roberta = {.model_type = "roberta",
                                         .prefix = "roberta.",
                                         BERT_TABLES,
                                         ESPL_TABLE(heads, roberta_heads),
                                         .defaults = {BERT_DEFAULTS, .bos = 0, .eos = 2, .pad = 1},
                                         .finish = finish_roberta};
