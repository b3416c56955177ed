/* Families of models as data: dimensions, parameter rows, and a short program of op rows for each section.
 *
 * Everything else - tape, plan, checkpoint names, initialisation, LoRA targets - is derived from these rows
 * (model.c). A family is one file that holds no code of the forward pass, only its tables and the keys of its config.json. */
#ifndef ESPL_MODEL_FAMILY_H
#define ESPL_MODEL_FAMILY_H

#include "kernels/kernels.h"
#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>

typedef enum espl_rope_kind { ESPL_ROPE_NONE, ESPL_ROPE_DEFAULT, ESPL_ROPE_LINEAR, ESPL_ROPE_DYNAMIC, ESPL_ROPE_LLAMA3 } espl_rope_kind;

typedef struct espl_rope {
    espl_rope_kind kind;
    double theta, factor, low_freq_factor, high_freq_factor;
    int64_t original_positions; /* of llama3 and dynamic scaling */
} espl_rope;

/* What config.json says, in one shape for all families. */
typedef struct espl_dims {
    int64_t layers, width, ffn, vocab, positions;
    int32_t heads, kv_heads, head_dim, window;
    int32_t activation;
    float norm_eps, init_std, attention_scale;
    float drop_embed, drop_attention, drop_residual;
    bool tied, attention_bias, mlp_bias;
    int32_t bos, eos; /* -1: none */
    espl_rope rope;
} espl_dims;

/* Sizes by symbol, so that rows need no code. */
typedef enum espl_size {
    ESPL_SIZE_NONE,
    ESPL_SIZE_1,
    ESPL_SIZE_2,
    ESPL_SIZE_V,
    ESPL_SIZE_P,
    ESPL_SIZE_D,
    ESPL_SIZE_F,
    ESPL_SIZE_2F,
    ESPL_SIZE_H,
    ESPL_SIZE_Q,
    ESPL_SIZE_KV,
    ESPL_SIZE_QKV
} espl_size;

typedef enum espl_section { ESPL_SECTION_EMBED, ESPL_SECTION_LAYER, ESPL_SECTION_HEAD } espl_section;
typedef enum espl_when { ESPL_ALWAYS, ESPL_IF_ATTENTION_BIAS, ESPL_IF_MLP_BIAS, ESPL_IF_UNTIED } espl_when;
typedef enum espl_init { ESPL_INIT_ZERO, ESPL_INIT_ONE, ESPL_INIT_NORMAL, ESPL_INIT_NORMAL_RESIDUAL } espl_init;

/* Roles of parameters: how program rows name them. Q, K, V (and GATE, UP) lie side by side in memory and are used as one matrix. */
typedef enum espl_role {
    ESPL_ROLE_NONE,
    ESPL_ROLE_TOKENS,
    ESPL_ROLE_POSITIONS,
    ESPL_ROLE_NORM1,
    ESPL_ROLE_NORM1_BIAS,
    ESPL_ROLE_QKV,
    ESPL_ROLE_QKV_BIAS,
    ESPL_ROLE_OUT,
    ESPL_ROLE_OUT_BIAS,
    ESPL_ROLE_NORM2,
    ESPL_ROLE_NORM2_BIAS,
    ESPL_ROLE_UP,
    ESPL_ROLE_UP_BIAS,
    ESPL_ROLE_DOWN,
    ESPL_ROLE_DOWN_BIAS,
    ESPL_ROLE_NORM_F,
    ESPL_ROLE_NORM_F_BIAS,
    ESPL_ROLE_LM_HEAD,
    ESPL_N_ROLES
} espl_role;

typedef struct espl_param_row {
    espl_role role; /* several rows of one role lie side by side, in this order */
    espl_section section;
    const char *name; /* Hugging Face name; %d is the layer */
    espl_size shape[2];
    espl_init init;
    bool decay;
    espl_when when;
} espl_param_row;

/* Values by symbol. An output binds its symbol anew; the residual stream X and the pending branch Y run through the layers. */
typedef enum espl_value {
    ESPL_VALUE_NONE,
    ESPL_VALUE_X,
    ESPL_VALUE_Y,
    ESPL_VALUE_NORMED,
    ESPL_VALUE_STAT,
    ESPL_VALUE_QKV,
    ESPL_VALUE_ATTENTION,
    ESPL_VALUE_LSE,
    ESPL_VALUE_UP,
    ESPL_VALUE_ACT,
    ESPL_VALUE_LOSS,
    ESPL_N_VALUES
} espl_value;

typedef struct espl_op_row {
    espl_op op;
    espl_section section;
    const char *name;
    espl_value in[ESPL_MAX_IN], out[ESPL_MAX_OUT];
    espl_size width[ESPL_MAX_OUT]; /* elements a token of each output */
    espl_role param[ESPL_MAX_PARAM];
} espl_op_row;

/* Where a dimension stands in config.json. */
typedef enum espl_key_type { ESPL_KEY_I64, ESPL_KEY_I32, ESPL_KEY_F32, ESPL_KEY_BOOL } espl_key_type;

typedef struct espl_key_row {
    const char *key; /* alternatives are separated by | */
    espl_key_type type;
    size_t offset; /* in espl_dims */
    bool required;
} espl_key_row;

typedef struct espl_family {
    const char *model_type;   /* config.json's model_type */
    const char *architecture; /* the causal language model's class name in config.json */
    const char *prefix;       /* of names; files may lack it */
    const espl_key_row *keys;
    size_t n_keys;
    espl_dims defaults; /* what the family's own config class assumes */
    int32_t norm_kind, weight_layout;
    bool glu;
    const espl_param_row *params;
    size_t n_params;
    const espl_op_row *ops;
    size_t n_ops;
    /* Derives what the keys do not say (ffn of GPT-2, head size of Llama, rope scaling). Errors: data. */
    espl_status (*finish)(espl_dims *dims, const json_t *config, const char *path);
} espl_family;

extern const espl_family espl_family_gpt2, espl_family_llama, espl_family_mistral;

#endif
