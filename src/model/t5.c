#include "src/model/rows.h"

#include "src/model/model_config.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* T5 (Raffel et al. 2020), v1.0 and v1.1: an encoder and a decoder. A bias of the relative position, shared by all layers of a stack, takes
 * the place of positions; scores are not scaled; v1.0 scales what goes into its tied head, v1.1 has gated feed-forwards and a head of its
 * own. */

#define DIM(field) offsetof(espl_dims, field)

static const espl_key_row keys[] = {
    {"num_layers", ESPL_KEY_I64, DIM(source_layers), true},
    {"num_decoder_layers|num_layers", ESPL_KEY_I64, DIM(layers), true},
    {"d_model", ESPL_KEY_I64, DIM(width), true},
    {"d_ff", ESPL_KEY_I64, DIM(ffn), true},
    {"num_heads", ESPL_KEY_I32, DIM(heads), true},
    {"d_kv", ESPL_KEY_I32, DIM(head_dim), true},
    {"n_positions", ESPL_KEY_I64, DIM(positions), false},
    {"relative_attention_num_buckets", ESPL_KEY_I32, DIM(rel_buckets), false},
    {"relative_attention_max_distance", ESPL_KEY_I32, DIM(rel_distance), false},
    {"vocab_size", ESPL_KEY_I64, DIM(vocab), true},
    {"layer_norm_epsilon", ESPL_KEY_F32, DIM(norm_eps), false},
    {"initializer_factor", ESPL_KEY_F32, DIM(init_std), false},
    {"dropout_rate", ESPL_KEY_F32, DIM(drop_embed), false},
    {"dropout_rate", ESPL_KEY_F32, DIM(drop_attention), false},
    {"dropout_rate", ESPL_KEY_F32, DIM(drop_residual), false},
    {"dropout_rate", ESPL_KEY_F32, DIM(drop_ffn), false},
    {"tie_word_embeddings", ESPL_KEY_BOOL, DIM(tied), false},
    {"eos_token_id", ESPL_KEY_I32, DIM(eos), false},
    {"pad_token_id", ESPL_KEY_I32, DIM(pad), false},
    {"decoder_start_token_id|pad_token_id", ESPL_KEY_I32, DIM(start), false},
};

#define ENCODER "encoder.block.%d."
#define DECODER "decoder.block.%d."
#define RELATIVE_BIAS "layer.0.SelfAttention.relative_attention_bias.weight"

static const espl_param_row params[] = {
    {MATRIX(TOKENS, SOURCE_EMBED, "shared.weight", V, D, NORMAL), ESPL_ALWAYS},
    {SCALES(RELATIVE, SOURCE_EMBED, "encoder.block.0." RELATIVE_BIAS, BUCKETS, H, NORMAL_WIDTH), ESPL_ALWAYS},
    {VECTOR(NORM1, SOURCE_LAYER, ENCODER "layer.0.layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(QKV, SOURCE_LAYER, ENCODER "layer.0.SelfAttention.q.weight", Q, D, NORMAL_QUERY), ESPL_ALWAYS},
    {MATRIX(QKV, SOURCE_LAYER, ENCODER "layer.0.SelfAttention.k.weight", KV, D, NORMAL_FAN_IN), ESPL_ALWAYS},
    {MATRIX(QKV, SOURCE_LAYER, ENCODER "layer.0.SelfAttention.v.weight", KV, D, NORMAL_FAN_IN), ESPL_ALWAYS},
    {MATRIX(OUT, SOURCE_LAYER, ENCODER "layer.0.SelfAttention.o.weight", D, Q, NORMAL_FAN_IN), ESPL_ALWAYS},
    {VECTOR(NORM2, SOURCE_LAYER, ENCODER "layer.1.layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(UP, SOURCE_LAYER, ENCODER "layer.1.DenseReluDense.wi.weight", F, D, NORMAL_FAN_IN), ESPL_IF_NOT_GATED},
    {MATRIX(UP, SOURCE_LAYER, ENCODER "layer.1.DenseReluDense.wi_0.weight", F, D, NORMAL_FAN_IN), ESPL_IF_GATED},
    {MATRIX(UP, SOURCE_LAYER, ENCODER "layer.1.DenseReluDense.wi_1.weight", F, D, NORMAL_FAN_IN), ESPL_IF_GATED},
    {MATRIX(DOWN, SOURCE_LAYER, ENCODER "layer.1.DenseReluDense.wo.weight", D, F, NORMAL_FAN_IN), ESPL_ALWAYS},
    {VECTOR(NORM_F, SOURCE_HEAD, "encoder.final_layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {SCALES(RELATIVE, EMBED, "decoder.block.0." RELATIVE_BIAS, BUCKETS, H, NORMAL_WIDTH), ESPL_ALWAYS},
    {VECTOR(NORM1, LAYER, DECODER "layer.0.layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, DECODER "layer.0.SelfAttention.q.weight", Q, D, NORMAL_QUERY), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, DECODER "layer.0.SelfAttention.k.weight", KV, D, NORMAL_FAN_IN), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, DECODER "layer.0.SelfAttention.v.weight", KV, D, NORMAL_FAN_IN), ESPL_ALWAYS},
    {MATRIX(OUT, LAYER, DECODER "layer.0.SelfAttention.o.weight", D, Q, NORMAL_FAN_IN), ESPL_ALWAYS},
    {VECTOR(NORM_CROSS, LAYER, DECODER "layer.1.layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(CROSS_Q, LAYER, DECODER "layer.1.EncDecAttention.q.weight", Q, D, NORMAL_QUERY), ESPL_ALWAYS},
    {MATRIX(CROSS_KV, LAYER, DECODER "layer.1.EncDecAttention.k.weight", KV, D, NORMAL_FAN_IN), ESPL_ALWAYS},
    {MATRIX(CROSS_KV, LAYER, DECODER "layer.1.EncDecAttention.v.weight", KV, D, NORMAL_FAN_IN), ESPL_ALWAYS},
    {MATRIX(CROSS_OUT, LAYER, DECODER "layer.1.EncDecAttention.o.weight", D, Q, NORMAL_FAN_IN), ESPL_ALWAYS},
    {VECTOR(NORM2, LAYER, DECODER "layer.2.layer_norm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(UP, LAYER, DECODER "layer.2.DenseReluDense.wi.weight", F, D, NORMAL_FAN_IN), ESPL_IF_NOT_GATED},
    {MATRIX(UP, LAYER, DECODER "layer.2.DenseReluDense.wi_0.weight", F, D, NORMAL_FAN_IN), ESPL_IF_GATED},
    {MATRIX(UP, LAYER, DECODER "layer.2.DenseReluDense.wi_1.weight", F, D, NORMAL_FAN_IN), ESPL_IF_GATED},
    {MATRIX(DOWN, LAYER, DECODER "layer.2.DenseReluDense.wo.weight", D, F, NORMAL_FAN_IN), ESPL_ALWAYS},
    {VECTOR(NORM_F, HEAD, "decoder.final_layer_norm.weight", D, ONE), ESPL_ALWAYS},
};

/* The encoder's rows, then the decoder's; keys and values of what the encoder leaves are the encoder's rows, too. */
static const espl_op_row ops[] = {
    {OP(EMBED, SOURCE_EMBED, "embed"), OUT1(X, D), WITH1(TOKENS), .stream = ESPL_STREAM_SOURCE},
    {OP(RESNORM, SOURCE_LAYER, "SelfAttention.norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM1),
     .stream = ESPL_STREAM_SOURCE},
    {OP(QKV, SOURCE_LAYER, "SelfAttention.qkv"), IN1(NORMED), OUT1(QKV, QKV), WITH1(QKV), .stream = ESPL_STREAM_SOURCE},
    {OP(ATTENTION, SOURCE_LAYER, "SelfAttention"), IN1(QKV), OUT2(ATTENTION, Q, LSE, H), WITH1(RELATIVE), .stream = ESPL_STREAM_SOURCE},
    {OP(LINEAR, SOURCE_LAYER, "SelfAttention.o"), IN1(ATTENTION), OUT1(Y, D), WITH1(OUT), .stream = ESPL_STREAM_SOURCE},
    {OP(RESNORM, SOURCE_LAYER, "DenseReluDense.norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM2),
     .stream = ESPL_STREAM_SOURCE},
    {OP(LINEAR, SOURCE_LAYER, "wi"), IN1(NORMED), OUT1(UP, F), WITH1(UP), .stream = ESPL_STREAM_SOURCE, .when = ESPL_IF_NOT_GATED},
    {OP(ACT, SOURCE_LAYER, "act"), IN1(UP), OUT1(ACT, F), .stream = ESPL_STREAM_SOURCE, .rate = ESPL_RATE_FFN, .when = ESPL_IF_NOT_GATED},
    {OP(LINEAR, SOURCE_LAYER, "wi_0.wi_1"), IN1(NORMED), OUT1(UP, 2F), WITH1(UP), .stream = ESPL_STREAM_SOURCE, .when = ESPL_IF_GATED},
    {OP(GLU, SOURCE_LAYER, "glu"), IN1(UP), OUT1(ACT, F), .stream = ESPL_STREAM_SOURCE, .rate = ESPL_RATE_FFN, .when = ESPL_IF_GATED},
    {OP(LINEAR, SOURCE_LAYER, "wo"), IN1(ACT), OUT1(Y, D), WITH1(DOWN), .stream = ESPL_STREAM_SOURCE},
    {OP(RESNORM, SOURCE_HEAD, "final_layer_norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM_F), .stream = ESPL_STREAM_SOURCE},
    {OP(ACT, SOURCE_HEAD, "dropout"), IN1(NORMED), OUT1(SOURCE, D), .kind = ESPL_KIND(ESPL_ACT_NONE), .rate = ESPL_RATE_EMBED,
     .stream = ESPL_STREAM_SOURCE},
    {OP(EMBED, EMBED, "embed"), OUT1(X, D), WITH1(TOKENS)},
    {OP(RESNORM, LAYER, "SelfAttention.norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM1)},
    {OP(QKV, LAYER, "SelfAttention.qkv"), IN1(NORMED), OUT1(QKV, QKV), WITH1(QKV)},
    {OP(ATTENTION, LAYER, "SelfAttention"), IN1(QKV), OUT2(ATTENTION, Q, LSE, H), WITH1(RELATIVE)},
    {OP(LINEAR, LAYER, "SelfAttention.o"), IN1(ATTENTION), OUT1(Y, D), WITH1(OUT)},
    {OP(RESNORM, LAYER, "EncDecAttention.norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM_CROSS)},
    {OP(LINEAR, LAYER, "EncDecAttention.q"), IN1(NORMED), OUT1(CROSS_Q, Q), WITH1(CROSS_Q)},
    {OP(LINEAR, LAYER, "EncDecAttention.kv"), IN1(SOURCE), OUT1(CROSS_KV, 2KV), WITH1(CROSS_KV), .stream = ESPL_STREAM_SOURCE},
    {OP(CROSS_ATTENTION, LAYER, "EncDecAttention"), IN2(CROSS_Q, CROSS_KV), OUT2(ATTENTION, Q, LSE, H)},
    {OP(LINEAR, LAYER, "EncDecAttention.o"), IN1(ATTENTION), OUT1(Y, D), WITH1(CROSS_OUT)},
    {OP(RESNORM, LAYER, "DenseReluDense.norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM2)},
    {OP(LINEAR, LAYER, "wi"), IN1(NORMED), OUT1(UP, F), WITH1(UP), .when = ESPL_IF_NOT_GATED},
    {OP(ACT, LAYER, "act"), IN1(UP), OUT1(ACT, F), .rate = ESPL_RATE_FFN, .when = ESPL_IF_NOT_GATED},
    {OP(LINEAR, LAYER, "wi_0.wi_1"), IN1(NORMED), OUT1(UP, 2F), WITH1(UP), .when = ESPL_IF_GATED},
    {OP(GLU, LAYER, "glu"), IN1(UP), OUT1(ACT, F), .rate = ESPL_RATE_FFN, .when = ESPL_IF_GATED},
    {OP(LINEAR, LAYER, "wo"), IN1(ACT), OUT1(Y, D), WITH1(DOWN)},
    {OP(RESNORM, HEAD, "final_layer_norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM_F)},
    {OP(ACT, HEAD, "dropout"), IN1(NORMED), OUT1(NORMED, D), .kind = ESPL_KIND(ESPL_ACT_NONE), .rate = ESPL_RATE_EMBED},
};

static const espl_param_row seq2seq_params[] = {
    {MATRIX(LM_HEAD, HEAD, "lm_head.weight", V, D, NORMAL), ESPL_IF_UNTIED},
};

static const espl_op_row seq2seq_ops[] = {
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(NORMED), OUT1(LOSS, 1), WITH1(LM_HEAD)},
};

static const espl_head_table heads[] = {
    {.head = ESPL_HEAD_SEQ2SEQ,
     .architecture = "T5ForConditionalGeneration",
     ESPL_TABLE(params, seq2seq_params),
     ESPL_TABLE(ops, seq2seq_ops)},
};

/* relu, gated-gelu, ...: transformers means gelu's tanh form by the latter. */
static espl_status read_feed_forward(espl_dims *dims, const json_t *config, const char *path) {
    const char *text = json_string_value(json_object_get(config, "feed_forward_proj"));
    if (text == NULL)
        return ESPL_OK;
    dims->gated = strncmp(text, "gated-", 6) == 0;
    if (strcmp(text, "gated-gelu") == 0) {
        dims->activation = ESPL_ACT_GELU_TANH;
        return ESPL_OK;
    }
    return espl__model_config_activation(text + (dims->gated ? 6 : 0), path, dims);
}

/* Of old, an untied head meant that nothing is scaled; transformers 5 says that by itself. */
static espl_status finish(espl_dims *dims, const json_t *config, const char *path) {
    const json_t *scaled = json_object_get(config, "scale_decoder_outputs");
    ESPL_TRY(read_feed_forward(dims, config, path));
    if (json_is_boolean(scaled) ? json_is_true(scaled) : dims->tied)
        dims->logits_scale = 1.0f / sqrtf((float)dims->width);
    dims->kv_heads = dims->heads;
    dims->attention_scale = 1.0f;
    return ESPL_OK;
}

const espl_family espl_family_t5 = {
    .model_type = "t5",
    .prefix = "",
    ESPL_TABLE(keys, keys),
    .defaults = {.positions = 512,
                 .rel_buckets = 32,
                 .rel_distance = 128,
                 .norm_eps = 1e-6f,
                 .init_std = 1.0f,
                 .logits_scale = 1.0f,
                 .activation = ESPL_ACT_RELU,
                 .tied = true,
                 .drop_embed = 0.1f,
                 .drop_attention = 0.1f,
                 .drop_residual = 0.1f,
                 .drop_ffn = 0.1f,
                 .bos = -1,
                 .eos = 1},
    .norm_kind = ESPL_NORM_RMS,
    .weight_layout = ESPL_OUT_IN,
    .head_from_files = true,
    ESPL_TABLE(params, params),
    ESPL_TABLE(ops, ops),
    ESPL_TABLE(heads, heads),
    .finish = finish,
};
