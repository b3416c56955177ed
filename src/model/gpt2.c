#include "src/model/family.h"

#include <math.h>
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
    {ESPL_ROLE_TOKENS, ESPL_SECTION_EMBED, "transformer.wte.weight", {ESPL_SIZE_V, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_POSITIONS, ESPL_SECTION_EMBED, "transformer.wpe.weight", {ESPL_SIZE_P, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_NORM1, ESPL_SECTION_LAYER, "transformer.h.%d.ln_1.weight", {ESPL_SIZE_D}, ESPL_INIT_ONE, false, ESPL_ALWAYS},
    {ESPL_ROLE_NORM1_BIAS, ESPL_SECTION_LAYER, "transformer.h.%d.ln_1.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_QKV,
     ESPL_SECTION_LAYER,
     "transformer.h.%d.attn.c_attn.weight",
     {ESPL_SIZE_D, ESPL_SIZE_QKV},
     ESPL_INIT_NORMAL,
     true,
     ESPL_ALWAYS},
    {ESPL_ROLE_QKV_BIAS, ESPL_SECTION_LAYER, "transformer.h.%d.attn.c_attn.bias", {ESPL_SIZE_QKV}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_OUT,
     ESPL_SECTION_LAYER,
     "transformer.h.%d.attn.c_proj.weight",
     {ESPL_SIZE_Q, ESPL_SIZE_D},
     ESPL_INIT_NORMAL_RESIDUAL,
     true,
     ESPL_ALWAYS},
    {ESPL_ROLE_OUT_BIAS, ESPL_SECTION_LAYER, "transformer.h.%d.attn.c_proj.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_NORM2, ESPL_SECTION_LAYER, "transformer.h.%d.ln_2.weight", {ESPL_SIZE_D}, ESPL_INIT_ONE, false, ESPL_ALWAYS},
    {ESPL_ROLE_NORM2_BIAS, ESPL_SECTION_LAYER, "transformer.h.%d.ln_2.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_UP, ESPL_SECTION_LAYER, "transformer.h.%d.mlp.c_fc.weight", {ESPL_SIZE_D, ESPL_SIZE_F}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_UP_BIAS, ESPL_SECTION_LAYER, "transformer.h.%d.mlp.c_fc.bias", {ESPL_SIZE_F}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_DOWN,
     ESPL_SECTION_LAYER,
     "transformer.h.%d.mlp.c_proj.weight",
     {ESPL_SIZE_F, ESPL_SIZE_D},
     ESPL_INIT_NORMAL_RESIDUAL,
     true,
     ESPL_ALWAYS},
    {ESPL_ROLE_DOWN_BIAS, ESPL_SECTION_LAYER, "transformer.h.%d.mlp.c_proj.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_NORM_F, ESPL_SECTION_HEAD, "transformer.ln_f.weight", {ESPL_SIZE_D}, ESPL_INIT_ONE, false, ESPL_ALWAYS},
    {ESPL_ROLE_NORM_F_BIAS, ESPL_SECTION_HEAD, "transformer.ln_f.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_ALWAYS},
    {ESPL_ROLE_LM_HEAD, ESPL_SECTION_HEAD, "lm_head.weight", {ESPL_SIZE_V, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_IF_UNTIED},
};

static const espl_op_row ops[] = {
    {ESPL_OP_EMBED, ESPL_SECTION_EMBED, "embed", {0}, {ESPL_VALUE_X}, {ESPL_SIZE_D}, {ESPL_ROLE_TOKENS, ESPL_ROLE_POSITIONS}},
    {ESPL_OP_RESNORM,
     ESPL_SECTION_LAYER,
     "ln_1",
     {ESPL_VALUE_X, ESPL_VALUE_Y},
     {ESPL_VALUE_X, ESPL_VALUE_NORMED, ESPL_VALUE_STAT},
     {ESPL_SIZE_D, ESPL_SIZE_D, ESPL_SIZE_2},
     {ESPL_ROLE_NORM1, ESPL_ROLE_NORM1_BIAS}},
    {ESPL_OP_QKV,
     ESPL_SECTION_LAYER,
     "attn.c_attn",
     {ESPL_VALUE_NORMED},
     {ESPL_VALUE_QKV},
     {ESPL_SIZE_QKV},
     {ESPL_ROLE_QKV, ESPL_ROLE_QKV_BIAS}},
    {ESPL_OP_ATTENTION,
     ESPL_SECTION_LAYER,
     "attn",
     {ESPL_VALUE_QKV},
     {ESPL_VALUE_ATTENTION, ESPL_VALUE_LSE},
     {ESPL_SIZE_Q, ESPL_SIZE_H},
     {0}},
    {ESPL_OP_LINEAR,
     ESPL_SECTION_LAYER,
     "attn.c_proj",
     {ESPL_VALUE_ATTENTION},
     {ESPL_VALUE_Y},
     {ESPL_SIZE_D},
     {ESPL_ROLE_OUT, ESPL_ROLE_OUT_BIAS}},
    {ESPL_OP_RESNORM,
     ESPL_SECTION_LAYER,
     "ln_2",
     {ESPL_VALUE_X, ESPL_VALUE_Y},
     {ESPL_VALUE_X, ESPL_VALUE_NORMED, ESPL_VALUE_STAT},
     {ESPL_SIZE_D, ESPL_SIZE_D, ESPL_SIZE_2},
     {ESPL_ROLE_NORM2, ESPL_ROLE_NORM2_BIAS}},
    {ESPL_OP_LINEAR,
     ESPL_SECTION_LAYER,
     "mlp.c_fc",
     {ESPL_VALUE_NORMED},
     {ESPL_VALUE_UP},
     {ESPL_SIZE_F},
     {ESPL_ROLE_UP, ESPL_ROLE_UP_BIAS}},
    {ESPL_OP_ACT, ESPL_SECTION_LAYER, "mlp.act", {ESPL_VALUE_UP}, {ESPL_VALUE_ACT}, {ESPL_SIZE_F}, {0}},
    {ESPL_OP_LINEAR,
     ESPL_SECTION_LAYER,
     "mlp.c_proj",
     {ESPL_VALUE_ACT},
     {ESPL_VALUE_Y},
     {ESPL_SIZE_D},
     {ESPL_ROLE_DOWN, ESPL_ROLE_DOWN_BIAS}},
    {ESPL_OP_RESNORM,
     ESPL_SECTION_HEAD,
     "ln_f",
     {ESPL_VALUE_X, ESPL_VALUE_Y},
     {ESPL_VALUE_X, ESPL_VALUE_NORMED, ESPL_VALUE_STAT},
     {ESPL_SIZE_D, ESPL_SIZE_D, ESPL_SIZE_2},
     {ESPL_ROLE_NORM_F, ESPL_ROLE_NORM_F_BIAS}},
    {ESPL_OP_LINEAR_XENT, ESPL_SECTION_HEAD, "loss", {ESPL_VALUE_NORMED}, {ESPL_VALUE_LOSS}, {ESPL_SIZE_1}, {ESPL_ROLE_LM_HEAD}},
};

static espl_status finish(espl_dims *dims, const json_t *config, const char *path) {
    if (dims->ffn == 0)
        dims->ffn = 4 * dims->width;
    if (dims->width % dims->heads != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: n_embd %lld does not divide by n_head %d", path, (long long)dims->width, dims->heads);
    dims->head_dim = (int32_t)(dims->width / dims->heads);
    dims->kv_heads = dims->heads;
    dims->attention_scale = json_is_false(json_object_get(config, "scale_attn_weights")) ? 1.0f : 1.0f / sqrtf((float)dims->head_dim);
    if (json_is_true(json_object_get(config, "scale_attn_by_inverse_layer_idx")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: scale_attn_by_inverse_layer_idx is not supported", path);
    if (json_is_true(json_object_get(config, "add_cross_attention")))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: add_cross_attention is not supported", path);
    return ESPL_OK;
}

const espl_family espl_family_gpt2 = {
    .model_type = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .prefix = "transformer.",
    .keys = keys,
    .n_keys = sizeof keys / sizeof keys[0],
    .defaults = {.norm_eps = 1e-5f,
                 .init_std = 0.02f,
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
    .params = params,
    .n_params = sizeof params / sizeof params[0],
    .ops = ops,
    .n_ops = sizeof ops / sizeof ops[0],
    .finish = finish,
};
