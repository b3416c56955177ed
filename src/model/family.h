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
    int64_t layers, source_layers; /* source_layers: of the encoder of an encoder-decoder; 0: there is none */
    int64_t width, ffn, vocab, positions, types, labels;
    int32_t heads, kv_heads, head_dim, window;
    int32_t activation;
    int32_t position_offset;           /* row of the table where position 0 stands; `positions` come behind it */
    int32_t rel_buckets, rel_distance; /* relative position bias; 0 buckets: none */
    float norm_eps, init_std, attention_scale, logits_scale;
    float drop_embed, drop_attention, drop_residual, drop_ffn, drop_head;
    bool tied, attention_bias, mlp_bias, gated;
    int32_t bos, eos, pad, start; /* -1: none; start: what a decoder's input begins with */
    espl_rope rope;
} espl_dims;

/* Sizes by symbol, so that rows need no code. */
typedef enum espl_size {
    ESPL_SIZE_NONE,
    ESPL_SIZE_1,
    ESPL_SIZE_2,
    ESPL_SIZE_V,
    ESPL_SIZE_P,       /* rows of the table of positions */
    ESPL_SIZE_T,       /* token types */
    ESPL_SIZE_L,       /* labels */
    ESPL_SIZE_BUCKETS, /* of relative positions */
    ESPL_SIZE_D,
    ESPL_SIZE_F,
    ESPL_SIZE_2F,
    ESPL_SIZE_H,
    ESPL_SIZE_Q,
    ESPL_SIZE_KV,
    ESPL_SIZE_2KV,
    ESPL_SIZE_QKV
} espl_size;

/* In the order in which rows run: the encoder of an encoder-decoder, then the decoder or the only stack. */
typedef enum espl_section {
    ESPL_SECTION_SOURCE_EMBED,
    ESPL_SECTION_SOURCE_LAYER,
    ESPL_SECTION_SOURCE_HEAD,
    ESPL_SECTION_EMBED,
    ESPL_SECTION_LAYER,
    ESPL_SECTION_HEAD,
    ESPL_N_SECTIONS
} espl_section;

typedef enum espl_when {
    ESPL_ALWAYS,
    ESPL_IF_ATTENTION_BIAS,
    ESPL_IF_MLP_BIAS,
    ESPL_IF_UNTIED,
    ESPL_IF_GATED,
    ESPL_IF_NOT_GATED
} espl_when;

/* Random values of a parameter; "normal" is of standard deviation init_std. */
typedef enum espl_init {
    ESPL_INIT_ZERO,
    ESPL_INIT_ONE,
    ESPL_INIT_NORMAL,
    ESPL_INIT_NORMAL_RESIDUAL, /* divided by the root of the number of projections into the stream */
    ESPL_INIT_NORMAL_PADDED,   /* but for the row of the padding token, or the one before the first position, which is 0 */
    ESPL_INIT_NORMAL_FAN_IN,   /* divided by the root of the inputs */
    ESPL_INIT_NORMAL_WIDTH,    /* divided by the root of the width */
    ESPL_INIT_UNIFORM_FAN_IN,  /* between minus and plus one over the root of the inputs */
    ESPL_INIT_NORMAL_QUERY,    /* divided by the root of inputs times head size */
    ESPL_INIT_NORMAL_ONE       /* of standard deviation 1 */
} espl_init;

/* Roles of parameters: how program rows name them. Q, K, V (and GATE, UP) lie side by side in memory and are used as one matrix. A row of
 * the program takes a role from its own section and layer; else from where its stack begins; else from where the model begins. */
typedef enum espl_role {
    ESPL_ROLE_NONE,
    ESPL_ROLE_TOKENS,
    ESPL_ROLE_PROMPT, /* of no family: soft_prompt.h */
    ESPL_ROLE_PREFIX, /* of no family: layer_prefix.h */
    ESPL_ROLE_POSITIONS,
    ESPL_ROLE_TYPES,
    ESPL_ROLE_RELATIVE,
    ESPL_ROLE_NORM_EMBED,
    ESPL_ROLE_NORM_EMBED_BIAS,
    ESPL_ROLE_NORM1,
    ESPL_ROLE_NORM1_BIAS,
    ESPL_ROLE_QKV,
    ESPL_ROLE_QKV_BIAS,
    ESPL_ROLE_OUT,
    ESPL_ROLE_OUT_BIAS,
    ESPL_ROLE_NORM2,
    ESPL_ROLE_NORM2_BIAS,
    ESPL_ROLE_NORM_CROSS,
    ESPL_ROLE_CROSS_Q,
    ESPL_ROLE_CROSS_KV,
    ESPL_ROLE_CROSS_OUT,
    ESPL_ROLE_UP,
    ESPL_ROLE_UP_BIAS,
    ESPL_ROLE_DOWN,
    ESPL_ROLE_DOWN_BIAS,
    ESPL_ROLE_NORM_F,
    ESPL_ROLE_NORM_F_BIAS,
    ESPL_ROLE_TRANSFORM,
    ESPL_ROLE_TRANSFORM_BIAS,
    ESPL_ROLE_NORM_HEAD,
    ESPL_ROLE_NORM_HEAD_BIAS,
    ESPL_ROLE_LM_HEAD, /* the tokens' where the model has none of its own */
    ESPL_ROLE_LM_HEAD_BIAS,
    ESPL_ROLE_CLASSIFIER,
    ESPL_ROLE_CLASSIFIER_BIAS,
    ESPL_N_ROLES
} espl_role;

typedef struct espl_param_row {
    espl_role role; /* several rows of one role lie side by side, in this order */
    espl_section section;
    const char *name; /* Hugging Face name behind the family's prefix (of a head: all of it); %d is the layer */
    espl_size shape[2];
    espl_init init;
    bool decay;
    espl_when when;
} espl_param_row;

/* Values by symbol. An output binds its symbol anew; the residual stream X and the pending branch Y run through the layers. A stack begins
 * without a pending branch; what the encoder leaves for the decoder is SOURCE. */
typedef enum espl_value {
    ESPL_VALUE_NONE,
    ESPL_VALUE_X,
    ESPL_VALUE_Y,
    ESPL_VALUE_SUM,
    ESPL_VALUE_NORMED,
    ESPL_VALUE_STAT,
    ESPL_VALUE_QKV,
    ESPL_VALUE_ATTENTION,
    ESPL_VALUE_LSE,
    ESPL_VALUE_UP,
    ESPL_VALUE_ACT,
    ESPL_VALUE_SOURCE,
    ESPL_VALUE_CROSS_Q,
    ESPL_VALUE_CROSS_KV,
    ESPL_VALUE_POOLED,
    ESPL_VALUE_LOGITS,
    ESPL_VALUE_LOSS,
    ESPL_N_VALUES
} espl_value;

/* Which of the model's dropouts a row has: that of its op (embedding, residual, attention; none for others), or the one named here. */
typedef enum espl_rate { ESPL_RATE_OF_OP, ESPL_RATE_NONE, ESPL_RATE_EMBED, ESPL_RATE_RESIDUAL, ESPL_RATE_FFN, ESPL_RATE_HEAD } espl_rate;

enum { ESPL_KIND_OF_MODEL = 0 };
#define ESPL_KIND(kind) ((kind) + 1) /* of an activation or a pool, said by the row */

typedef struct espl_op_row {
    espl_op op;
    espl_section section;
    const char *name;
    espl_value in[ESPL_MAX_IN], out[ESPL_MAX_OUT];
    espl_size width[ESPL_MAX_OUT]; /* elements a token of each output */
    espl_role param[ESPL_MAX_PARAM];
    espl_when when;
    espl_stream stream;
    espl_rate rate;
    int kind;    /* ESPL_KIND_OF_MODEL or ESPL_KIND(...) */
    bool scored; /* only evaluation runs it: scores are made of its output */
} espl_op_row;

/* What a model is for. A family has a table for each that it can have. */
typedef enum espl_head { ESPL_HEAD_AUTO, ESPL_HEAD_LM, ESPL_HEAD_MLM, ESPL_HEAD_CLASSIFICATION, ESPL_HEAD_SEQ2SEQ, ESPL_N_HEADS } espl_head;

/* Rows that follow those of the family; their section is HEAD. */
typedef struct espl_head_table {
    espl_head head;
    const char *architecture; /* the class's name in config.json */
    const espl_param_row *params;
    size_t n_params;
    const espl_op_row *ops;
    size_t n_ops;
} espl_head_table;

/* Where a dimension stands in config.json. */
typedef enum espl_key_type { ESPL_KEY_I64, ESPL_KEY_I32, ESPL_KEY_F32, ESPL_KEY_BOOL } espl_key_type;

typedef struct espl_key_row {
    const char *key; /* alternatives are separated by | */
    espl_key_type type;
    size_t offset; /* in espl_dims */
    bool required;
} espl_key_row;

typedef struct espl_family {
    const char *model_type; /* config.json's model_type */
    const char *prefix;     /* of the names of its own parameters, not those of heads; files may lack it */
    const espl_key_row *keys;
    size_t n_keys;
    espl_dims defaults; /* what the family's own config class assumes */
    int32_t norm_kind, weight_layout;
    bool bidirectional;   /* the main stack sees what follows, too; an encoder always does */
    bool head_from_files; /* whether the head is tied is told by the files of weights, not by config.json */
    const espl_param_row *params;
    size_t n_params;
    const espl_op_row *ops;
    size_t n_ops;
    const espl_head_table *heads; /* the first is what a model without a known head becomes */
    size_t n_heads;
    /* Derives what the keys do not say (ffn of GPT-2, head size of Llama, rope scaling). Errors: data. */
    espl_status (*finish)(espl_dims *dims, const json_t *config, const char *path);
} espl_family;

extern const espl_family espl_family_gpt2, espl_family_llama, espl_family_mistral, espl_family_bert, espl_family_distilbert,
    espl_family_roberta, espl_family_t5;

#endif
