#include "src/model/family.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define DIM(field) offsetof(espl_dims, field)

static const espl_key_row keys[] = {
    {"num_hidden_layers", ESPL_KEY_I64, DIM(layers), true},
    {"hidden_size", ESPL_KEY_I64, DIM(width), true},
    {"intermediate_size", ESPL_KEY_I64, DIM(ffn), true},
    {"num_attention_heads", ESPL_KEY_I32, DIM(heads), true},
    {"num_key_value_heads", ESPL_KEY_I32, DIM(kv_heads), false},
    {"head_dim", ESPL_KEY_I32, DIM(head_dim), false},
    {"max_position_embeddings", ESPL_KEY_I64, DIM(positions), true},
    {"vocab_size", ESPL_KEY_I64, DIM(vocab), true},
    {"rms_norm_eps", ESPL_KEY_F32, DIM(norm_eps), false},
    {"initializer_range", ESPL_KEY_F32, DIM(init_std), false},
    {"attention_dropout", ESPL_KEY_F32, DIM(drop_attention), false},
    {"tie_word_embeddings", ESPL_KEY_BOOL, DIM(tied), false},
    {"attention_bias", ESPL_KEY_BOOL, DIM(attention_bias), false},
    {"mlp_bias", ESPL_KEY_BOOL, DIM(mlp_bias), false},
    {"sliding_window", ESPL_KEY_I32, DIM(window), false},
    {"bos_token_id", ESPL_KEY_I32, DIM(bos), false},
    {"eos_token_id", ESPL_KEY_I32, DIM(eos), false},
};

#define LAYER "model.layers.%d."

static const espl_param_row params[] = {
    {ESPL_ROLE_TOKENS, ESPL_SECTION_EMBED, "model.embed_tokens.weight", {ESPL_SIZE_V, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_NORM1, ESPL_SECTION_LAYER, LAYER "input_layernorm.weight", {ESPL_SIZE_D}, ESPL_INIT_ONE, false, ESPL_ALWAYS},
    {ESPL_ROLE_QKV, ESPL_SECTION_LAYER, LAYER "self_attn.q_proj.weight", {ESPL_SIZE_Q, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_QKV, ESPL_SECTION_LAYER, LAYER "self_attn.k_proj.weight", {ESPL_SIZE_KV, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_QKV, ESPL_SECTION_LAYER, LAYER "self_attn.v_proj.weight", {ESPL_SIZE_KV, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_QKV_BIAS, ESPL_SECTION_LAYER, LAYER "self_attn.q_proj.bias", {ESPL_SIZE_Q}, ESPL_INIT_ZERO, false, ESPL_IF_ATTENTION_BIAS},
    {ESPL_ROLE_QKV_BIAS, ESPL_SECTION_LAYER, LAYER "self_attn.k_proj.bias", {ESPL_SIZE_KV}, ESPL_INIT_ZERO, false, ESPL_IF_ATTENTION_BIAS},
    {ESPL_ROLE_QKV_BIAS, ESPL_SECTION_LAYER, LAYER "self_attn.v_proj.bias", {ESPL_SIZE_KV}, ESPL_INIT_ZERO, false, ESPL_IF_ATTENTION_BIAS},
    {ESPL_ROLE_OUT, ESPL_SECTION_LAYER, LAYER "self_attn.o_proj.weight", {ESPL_SIZE_D, ESPL_SIZE_Q}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_OUT_BIAS, ESPL_SECTION_LAYER, LAYER "self_attn.o_proj.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_IF_ATTENTION_BIAS},
    {ESPL_ROLE_NORM2, ESPL_SECTION_LAYER, LAYER "post_attention_layernorm.weight", {ESPL_SIZE_D}, ESPL_INIT_ONE, false, ESPL_ALWAYS},
    {ESPL_ROLE_UP, ESPL_SECTION_LAYER, LAYER "mlp.gate_proj.weight", {ESPL_SIZE_F, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_UP, ESPL_SECTION_LAYER, LAYER "mlp.up_proj.weight", {ESPL_SIZE_F, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_UP_BIAS, ESPL_SECTION_LAYER, LAYER "mlp.gate_proj.bias", {ESPL_SIZE_F}, ESPL_INIT_ZERO, false, ESPL_IF_MLP_BIAS},
    {ESPL_ROLE_UP_BIAS, ESPL_SECTION_LAYER, LAYER "mlp.up_proj.bias", {ESPL_SIZE_F}, ESPL_INIT_ZERO, false, ESPL_IF_MLP_BIAS},
    {ESPL_ROLE_DOWN, ESPL_SECTION_LAYER, LAYER "mlp.down_proj.weight", {ESPL_SIZE_D, ESPL_SIZE_F}, ESPL_INIT_NORMAL, true, ESPL_ALWAYS},
    {ESPL_ROLE_DOWN_BIAS, ESPL_SECTION_LAYER, LAYER "mlp.down_proj.bias", {ESPL_SIZE_D}, ESPL_INIT_ZERO, false, ESPL_IF_MLP_BIAS},
    {ESPL_ROLE_NORM_F, ESPL_SECTION_HEAD, "model.norm.weight", {ESPL_SIZE_D}, ESPL_INIT_ONE, false, ESPL_ALWAYS},
    {ESPL_ROLE_LM_HEAD, ESPL_SECTION_HEAD, "lm_head.weight", {ESPL_SIZE_V, ESPL_SIZE_D}, ESPL_INIT_NORMAL, true, ESPL_IF_UNTIED},
};

static const espl_op_row ops[] = {
    {ESPL_OP_EMBED, ESPL_SECTION_EMBED, "embed_tokens", {0}, {ESPL_VALUE_X}, {ESPL_SIZE_D}, {ESPL_ROLE_TOKENS}},
    {ESPL_OP_RESNORM,
     ESPL_SECTION_LAYER,
     "input_layernorm",
     {ESPL_VALUE_X, ESPL_VALUE_Y},
     {ESPL_VALUE_X, ESPL_VALUE_NORMED, ESPL_VALUE_STAT},
     {ESPL_SIZE_D, ESPL_SIZE_D, ESPL_SIZE_2},
     {ESPL_ROLE_NORM1}},
    {ESPL_OP_QKV,
     ESPL_SECTION_LAYER,
     "self_attn.qkv",
     {ESPL_VALUE_NORMED},
     {ESPL_VALUE_QKV},
     {ESPL_SIZE_QKV},
     {ESPL_ROLE_QKV, ESPL_ROLE_QKV_BIAS}},
    {ESPL_OP_ATTENTION,
     ESPL_SECTION_LAYER,
     "self_attn",
     {ESPL_VALUE_QKV},
     {ESPL_VALUE_ATTENTION, ESPL_VALUE_LSE},
     {ESPL_SIZE_Q, ESPL_SIZE_H},
     {0}},
    {ESPL_OP_LINEAR,
     ESPL_SECTION_LAYER,
     "self_attn.o_proj",
     {ESPL_VALUE_ATTENTION},
     {ESPL_VALUE_Y},
     {ESPL_SIZE_D},
     {ESPL_ROLE_OUT, ESPL_ROLE_OUT_BIAS}},
    {ESPL_OP_RESNORM,
     ESPL_SECTION_LAYER,
     "post_attention_layernorm",
     {ESPL_VALUE_X, ESPL_VALUE_Y},
     {ESPL_VALUE_X, ESPL_VALUE_NORMED, ESPL_VALUE_STAT},
     {ESPL_SIZE_D, ESPL_SIZE_D, ESPL_SIZE_2},
     {ESPL_ROLE_NORM2}},
    {ESPL_OP_LINEAR,
     ESPL_SECTION_LAYER,
     "mlp.gate_up",
     {ESPL_VALUE_NORMED},
     {ESPL_VALUE_UP},
     {ESPL_SIZE_2F},
     {ESPL_ROLE_UP, ESPL_ROLE_UP_BIAS}},
    {ESPL_OP_GLU, ESPL_SECTION_LAYER, "mlp.swiglu", {ESPL_VALUE_UP}, {ESPL_VALUE_ACT}, {ESPL_SIZE_F}, {0}},
    {ESPL_OP_LINEAR,
     ESPL_SECTION_LAYER,
     "mlp.down_proj",
     {ESPL_VALUE_ACT},
     {ESPL_VALUE_Y},
     {ESPL_SIZE_D},
     {ESPL_ROLE_DOWN, ESPL_ROLE_DOWN_BIAS}},
    {ESPL_OP_RESNORM,
     ESPL_SECTION_HEAD,
     "norm",
     {ESPL_VALUE_X, ESPL_VALUE_Y},
     {ESPL_VALUE_X, ESPL_VALUE_NORMED, ESPL_VALUE_STAT},
     {ESPL_SIZE_D, ESPL_SIZE_D, ESPL_SIZE_2},
     {ESPL_ROLE_NORM_F}},
    {ESPL_OP_LINEAR_XENT, ESPL_SECTION_HEAD, "loss", {ESPL_VALUE_NORMED}, {ESPL_VALUE_LOSS}, {ESPL_SIZE_1}, {ESPL_ROLE_LM_HEAD}},
};

static double number(const json_t *object, const char *key, double otherwise) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : otherwise;
}

static const char *rope_type(const json_t *scaling) {
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    return type != NULL ? type : json_string_value(json_object_get(scaling, "type"));
}

/* transformers 5 writes rope_parameters {rope_theta, rope_type, ...}; older folders rope_theta and rope_scaling {type or rope_type, ...}.
 */
static espl_status read_rope(espl_dims *dims, const json_t *config, const char *path) {
    static const struct {
        const char *name;
        espl_rope_kind kind;
    } kinds[] = {
        {"default", ESPL_ROPE_DEFAULT}, {"linear", ESPL_ROPE_LINEAR}, {"dynamic", ESPL_ROPE_DYNAMIC}, {"llama3", ESPL_ROPE_LLAMA3}};
    const json_t *scaling = json_object_get(config, "rope_parameters");
    if (!json_is_object(scaling))
        scaling = json_object_get(config, "rope_scaling");
    double theta = number(scaling, "rope_theta", number(config, "rope_theta", 10000.0));
    const char *type = rope_type(scaling);
    if (type == NULL)
        type = "default";
    dims->rope = (espl_rope){.theta = theta,
                             .factor = number(scaling, "factor", 1.0),
                             .low_freq_factor = number(scaling, "low_freq_factor", 1.0),
                             .high_freq_factor = number(scaling, "high_freq_factor", 4.0),
                             .original_positions = (int64_t)number(scaling, "original_max_position_embeddings", (double)dims->positions)};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
        if (strcmp(type, kinds[i].name) == 0)
            dims->rope.kind = kinds[i].kind;
    if (dims->rope.kind == ESPL_ROPE_NONE)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: rope type '%s' is not supported; known: default, linear, dynamic, llama3", path, type);
    return ESPL_OK;
}

static espl_status finish(espl_dims *dims, const json_t *config, const char *path) {
    if (dims->kv_heads == 0)
        dims->kv_heads = dims->heads;
    if (dims->head_dim == 0)
        dims->head_dim = (int32_t)(dims->width / dims->heads);
    if (dims->kv_heads < 1 || dims->heads % dims->kv_heads != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: num_attention_heads %d does not divide by num_key_value_heads %d", path, dims->heads, dims->kv_heads);
    if (dims->head_dim % 2 != 0)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: head_dim %d is odd; rotary positions need pairs", path, dims->head_dim);
    dims->attention_scale = 1.0f / sqrtf((float)dims->head_dim);
    return read_rope(dims, config, path);
}

#define LLAMA_TABLES                                                                                                                       \
    .prefix = "model.", .keys = keys, .n_keys = sizeof keys / sizeof keys[0], .norm_kind = ESPL_NORM_RMS, .weight_layout = ESPL_OUT_IN,    \
    .glu = true, .params = params, .n_params = sizeof params / sizeof params[0], .ops = ops, .n_ops = sizeof ops / sizeof ops[0],          \
    .finish = finish, .defaults = {.norm_eps = 1e-6f, .init_std = 0.02f, .activation = ESPL_ACT_SILU, .bos = 1, .eos = 2}

const espl_family espl_family_llama = {.model_type = "llama", .architecture = "LlamaForCausalLM", LLAMA_TABLES};

const espl_family espl_family_mistral = {.model_type = "mistral", .architecture = "MistralForCausalLM", LLAMA_TABLES};
