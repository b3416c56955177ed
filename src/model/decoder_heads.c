#include "src/model/decoder_heads.h"

#include "src/model/rows.h"

const espl_param_row espl__lm_params[ESPL__LM_PARAMS] = {
    {MATRIX(LM_HEAD, HEAD, "lm_head.weight", V, D, NORMAL), ESPL_IF_UNTIED},
};

const espl_op_row espl__lm_ops[ESPL__LM_OPS] = {
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(NORMED), OUT1(LOSS, 1), WITH1(LM_HEAD)},
};

const espl_param_row espl__class_params[ESPL__CLASS_PARAMS] = {
    {MATRIX(CLASSIFIER, HEAD, "score.weight", L, D, NORMAL), ESPL_ALWAYS},
};

const espl_op_row espl__class_ops[ESPL__CLASS_OPS] = {
    {OP(POOL, HEAD, "last"), IN1(NORMED), OUT1(POOLED, D), .kind = ESPL_KIND(ESPL_POOL_LAST)},
    {OP(LINEAR, HEAD, "logits"), IN1(POOLED), OUT1(LOGITS, L), WITH1(CLASSIFIER), .stream = ESPL_STREAM_POOLED, .scored = true},
    {OP(LINEAR_XENT, HEAD, "loss"), IN1(POOLED), OUT1(LOSS, 1), WITH1(CLASSIFIER), .stream = ESPL_STREAM_POOLED},
};
