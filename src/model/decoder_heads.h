/* Heads that decoders have in common: the next token, or a class for the last token of each segment. They read NORMED. Internal to
 * src/model. */
#ifndef ESPL_MODEL_DECODER_HEADS_H
#define ESPL_MODEL_DECODER_HEADS_H

#include "src/model/family.h"

enum { ESPL__LM_PARAMS = 1, ESPL__LM_OPS = 1, ESPL__CLASS_PARAMS = 1, ESPL__CLASS_OPS = 3 };

extern const espl_param_row espl__lm_params[ESPL__LM_PARAMS], espl__class_params[ESPL__CLASS_PARAMS];
extern const espl_op_row espl__lm_ops[ESPL__LM_OPS], espl__class_ops[ESPL__CLASS_OPS];

/* The rows of a family's table of heads. */
#define DECODER_HEADS(language_model, classifier)                                                                                          \
    {.head = ESPL_HEAD_LM, .architecture = language_model, ESPL_TABLE(params, espl__lm_params), ESPL_TABLE(ops, espl__lm_ops)}, {          \
        .head = ESPL_HEAD_CLASSIFICATION, .architecture = classifier, ESPL_TABLE(params, espl__class_params),                              \
        ESPL_TABLE(ops, espl__class_ops)                                                                                                   \
    }

#endif
