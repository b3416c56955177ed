#include "src/model/decoder_heads.h"
#include "src/model/model_config.h"
#include "src/model/rows.h"

#include <stddef.h>

#define DIM(field) offsetof(espl_dims, field)

static const espl_key_row keys[] = {
    {"n_layer", ESPL_KEY_I64, DIM(layers), true},
    {"n_embd", ESPL_KEY_I64, DIM(width), true},
    {"n_head", ESPL_KEY_I32, DIM(heads), true},
    {"n_inner", ESPL_KEY_I64, DIM(ffn), false},
    {"n_positions|n_ctx", ESPL_KEY_I64, DIM(positions), true},
    {"vocab_size", ESPL_KEY_I64, DIM(vocab), true},
    {"layer_norm_epsilon", ESPL_KEY_F32, DIM(norm_eps), false},
    {"initializer_range", ESPL_KEY_F32, DIM(init_std), false},
    {"embd_pdrop", ESPL_KEY_F32, DIM(drop_embed), false},
    {"attn_pdrop", ESPL_KEY_F32, DIM(drop_attention), false},
    {"resid_pdrop", ESPL_KEY_F32, DIM(drop_residual), false},
    {"tie_word_embeddings", ESPL_KEY_BOOL, DIM(tied), false},
    {"bos_token_id", ESPL_KEY_I32, DIM(bos), false},
    {"eos_token_id", ESPL_KEY_I32, DIM(eos), false},
};

static const espl_param_row params[] = {
    {MATRIX(TOKENS, EMBED, "wte.weight", V, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(POSITIONS, EMBED, "wpe.weight", P, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(NORM1, LAYER, "h.%d.ln_1.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM1_BIAS, LAYER, "h.%d.ln_1.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, "h.%d.attn.c_attn.weight", D, QKV, NORMAL), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, "h.%d.attn.c_attn.bias", QKV, ZERO), ESPL_ALWAYS},
    {MATRIX(OUT, LAYER, "h.%d.attn.c_proj.weight", Q, D, NORMAL_RESIDUAL), ESPL_ALWAYS},
    {VECTOR(OUT_BIAS, LAYER, "h.%d.attn.c_proj.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM2, LAYER, "h.%d.ln_2.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM2_BIAS, LAYER, "h.%d.ln_2.bias", D, ZERO), ESPL_ALWAYS},
    {MATRIX(UP, LAYER, "h.%d.mlp.c_fc.weight", D, F, NORMAL), ESPL_ALWAYS},
    {VECTOR(UP_BIAS, LAYER, "h.%d.mlp.c_fc.bias", F, ZERO), ESPL_ALWAYS},
    {MATRIX(DOWN, LAYER, "h.%d.mlp.c_proj.weight", F, D, NORMAL_RESIDUAL), ESPL_ALWAYS},
    {VECTOR(DOWN_BIAS, LAYER, "h.%d.mlp.c_proj.bias", D, ZERO), ESPL_ALWAYS},
    {VECTOR(NORM_F, HEAD, "ln_f.weight", D, ONE), ESPL_ALWAYS},
    {VECTOR(NORM_F_BIAS, HEAD, "ln_f.bias", D, ZERO), ESPL_ALWAYS},
};

static const espl_op_row ops[] = {
    {OP(EMBED, EMBED, "embed"), OUT1(X, D), WITH2(TOKENS, POSITIONS)},
    {OP(RESNORM, LAYER, "ln_1"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH2(NORM1, NORM1_BIAS)},
    {OP(QKV, LAYER, "attn.c_attn"), IN1(NORMED), OUT1(QKV, QKV), WITH2(QKV, QKV_BIAS)},
    {OP(ATTENTION, LAYER, "attn"), IN1(QKV), OUT2(ATTENTION, Q, LSE, H)},
    {OP(LINEAR, LAYER, "attn.c_proj"), IN1(ATTENTION), OUT1(Y, D), WITH2(OUT, OUT_BIAS)},
    {OP(RESNORM, LAYER, "ln_2"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH2(NORM2, NORM2_BIAS)},
    {OP(MLP, LAYER, "mlp"), IN1(NORMED), OUT2(Y, D, UP, F), WITH4(UP, UP_BIAS, DOWN, DOWN_BIAS)},
    {OP(RESNORM, HEAD, "ln_f"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH2(NORM_F, NORM_F_BIAS)},
};

static const espl_head_table heads[] = {DECODER_HEADS("GPT2LMHeadModel", "GPT2ForSequenceClassification")};

static espl_status finish(espl_dims *dims, const json_t *config, const char *path) {
    if (dims->ffn == 0)
        dims->ffn = 4 * dims->width;
    ESPL_TRY(espl__model_config_equal_heads(dims, path));
    if (json_is_false(json_object_get(config, "scale_attn_weights")))
        dims->attention_scale = 1.0f;
    if (json_is_true(json_object_get(config, "scale_attn_by_inverse_layer_idx")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: scale_attn_by_inverse_layer_idx is not supported", path);
    if (json_is_true(json_object_get(config, "add_cross_attention")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: add_cross_attention is not supported", path);
    return ESPL_OK;
}

const espl_family espl_family_gpt2 = {
    .model_type = "gpt2",
    .prefix = "transformer.",
    ESPL_TABLE(keys, keys),
    .defaults = {.norm_eps = 1e-5f,
                 .init_std = 0.02f,
                 .logits_scale = 1.0f,
                 .activation = ESPL_ACT_GELU_TANH,
                 .tied = true,
                 .attention_bias = true,
                 .mlp_bias = true,
                 .drop_embed = 0.1f,
                 .drop_attention = 0.1f,
                 .drop_residual = 0.1f,
                 .bos = 50256,
                 .eos = 50256},
    .norm_kind = ESPL_NORM_LAYER,
    .weight_layout = ESPL_IN_OUT,
    ESPL_TABLE(params, params),
    ESPL_TABLE(ops, ops),
    ESPL_TABLE(heads, heads),
    .finish = finish,
};
