#include "src/model/decoder_heads.h"
#include "src/model/rows.h"

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

#define AT "layers.%d."

static const espl_param_row params[] = {
    {MATRIX(TOKENS, EMBED, "embed_tokens.weight", V, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(NORM1, LAYER, AT "input_layernorm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "self_attn.q_proj.weight", Q, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "self_attn.k_proj.weight", KV, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(QKV, LAYER, AT "self_attn.v_proj.weight", KV, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(QKV_BIAS, LAYER, AT "self_attn.q_proj.bias", Q, ZERO), ESPL_IF_ATTENTION_BIAS},
    {VECTOR(QKV_BIAS, LAYER, AT "self_attn.k_proj.bias", KV, ZERO), ESPL_IF_ATTENTION_BIAS},
    {VECTOR(QKV_BIAS, LAYER, AT "self_attn.v_proj.bias", KV, ZERO), ESPL_IF_ATTENTION_BIAS},
    {MATRIX(OUT, LAYER, AT "self_attn.o_proj.weight", D, Q, NORMAL), ESPL_ALWAYS},
    {VECTOR(OUT_BIAS, LAYER, AT "self_attn.o_proj.bias", D, ZERO), ESPL_IF_ATTENTION_BIAS},
    {VECTOR(NORM2, LAYER, AT "post_attention_layernorm.weight", D, ONE), ESPL_ALWAYS},
    {MATRIX(UP, LAYER, AT "mlp.gate_proj.weight", F, D, NORMAL), ESPL_ALWAYS},
    {MATRIX(UP, LAYER, AT "mlp.up_proj.weight", F, D, NORMAL), ESPL_ALWAYS},
    {VECTOR(UP_BIAS, LAYER, AT "mlp.gate_proj.bias", F, ZERO), ESPL_IF_MLP_BIAS},
    {VECTOR(UP_BIAS, LAYER, AT "mlp.up_proj.bias", F, ZERO), ESPL_IF_MLP_BIAS},
    {MATRIX(DOWN, LAYER, AT "mlp.down_proj.weight", D, F, NORMAL), ESPL_ALWAYS},
    {VECTOR(DOWN_BIAS, LAYER, AT "mlp.down_proj.bias", D, ZERO), ESPL_IF_MLP_BIAS},
    {VECTOR(NORM_F, HEAD, "norm.weight", D, ONE), ESPL_ALWAYS},
};

static const espl_op_row ops[] = {
    {OP(EMBED, EMBED, "embed_tokens"), OUT1(X, D), WITH1(TOKENS)},
    {OP(RESNORM, LAYER, "input_layernorm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM1)},
    {OP(QKV, LAYER, "self_attn.qkv"), IN1(NORMED), OUT1(QKV, QKV), WITH2(QKV, QKV_BIAS)},
    {OP(ATTENTION, LAYER, "self_attn"), IN1(QKV), OUT2(ATTENTION, Q, LSE, H)},
    {OP(LINEAR, LAYER, "self_attn.o_proj"), IN1(ATTENTION), OUT1(Y, D), WITH2(OUT, OUT_BIAS)},
    {OP(RESNORM, LAYER, "post_attention_layernorm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM2)},
    {OP(LINEAR, LAYER, "mlp.gate_up"), IN1(NORMED), OUT1(UP, 2F), WITH2(UP, UP_BIAS)},
    {OP(GLU, LAYER, "mlp.swiglu"), IN1(UP), OUT1(ACT, F)},
    {OP(LINEAR, LAYER, "mlp.down_proj"), IN1(ACT), OUT1(Y, D), WITH2(DOWN, DOWN_BIAS)},
    {OP(RESNORM, HEAD, "norm"), IN2(X, Y), OUT3(X, D, NORMED, D, STAT, 2), WITH1(NORM_F)},
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
    .prefix = "model.", ESPL_TABLE(keys, keys), ESPL_TABLE(params, params), ESPL_TABLE(ops, ops), .norm_kind = ESPL_NORM_RMS,              \
    .weight_layout = ESPL_OUT_IN, .finish = finish,                                                                                        \
    .defaults = {.norm_eps = 1e-6f, .init_std = 0.02f, .logits_scale = 1.0f, .activation = ESPL_ACT_SILU, .bos = 1, .eos = 2}

static const espl_head_table llama_heads[] = {DECODER_HEADS("LlamaForCausalLM", "LlamaForSequenceClassification")};
static const espl_head_table mistral_heads[] = {DECODER_HEADS("MistralForCausalLM", "MistralForSequenceClassification")};

const espl_family espl_family_llama = {.model_type = "llama", LLAMA_TABLES, ESPL_TABLE(heads, llama_heads)};

const espl_family espl_family_mistral = {.model_type = "mistral", LLAMA_TABLES, ESPL_TABLE(heads, mistral_heads)};
