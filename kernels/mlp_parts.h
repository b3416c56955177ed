/* An MLP as two LINEARs with an ACT between them, for the backends that run it so. */
#ifndef ESPL_KERNELS_MLP_PARTS_H
#define ESPL_KERNELS_MLP_PARTS_H

#include "kernels/kernels.h"

typedef struct espl__mlp_parts {
    espl_attrs first_attrs, act_attrs, second_attrs;
    espl_args first, act, second; /* `second` has no din: backward asks for the gradients of parameters first */
    espl_attrs pass_attrs;
    espl_args pass; /* residual: its ACT backward adds in0 to out0, or dout0 to din0 */
} espl__mlp_parts;

/* Local. `hidden` [N,F] real holds f(out1), and in backward, where its last reader is done, dh in the same place; `work` is that of LINEAR.
 * `p` must stay where it is. */
static inline void espl__mlp_parts_of(const espl_args *args, void *hidden, void *work, espl__mlp_parts *p) {
    p->first_attrs = p->act_attrs = p->second_attrs = *args->attrs;
    p->first_attrs.n_out = p->act_attrs.n_in = p->act_attrs.n_out = p->second_attrs.n_in = args->attrs->ffn;
    p->second_attrs.quant[0] = args->attrs->quant[1];
    p->first = (espl_args){.attrs = &p->first_attrs,
                           .batch = args->batch,
                           .in = {args->in[0]},
                           .out = {args->out[1]},
                           .param = {args->param[0], args->param[1]},
                           .din = {args->din[0]},
                           .dout = {hidden},
                           .dparam = {args->dparam[0], args->dparam[1]},
                           .dparam_add = {args->dparam_add[0], args->dparam_add[1]},
                           .din_add = {args->din_add[0]},
                           .work = work};
    p->act =
        (espl_args){.attrs = &p->act_attrs, .batch = args->batch, .in = {args->out[1]}, .out = {hidden}, .din = {hidden}, .dout = {hidden}};
    p->second = (espl_args){.attrs = &p->second_attrs,
                            .batch = args->batch,
                            .in = {hidden},
                            .out = {args->out[0]},
                            .param = {args->param[2], args->param[3]},
                            .dout = {args->dout[0]},
                            .dparam = {args->dparam[2], args->dparam[3]},
                            .dparam_add = {args->dparam_add[2], args->dparam_add[3]},
                            .work = work};
}

/* Local. The sum of the residual, behind `second`, or in backward before `first`, which then adds to what is there. */
static inline void espl__mlp_pass_of(const espl_args *args, bool backward, espl__mlp_parts *p) {
    const void *from = backward ? args->dout[0] : args->in[0];
    void *to = backward ? args->din[0] : args->out[0];
    p->pass_attrs = *args->attrs;
    p->pass_attrs.kind = ESPL_ACT_NONE;
    p->pass = (espl_args){.attrs = &p->pass_attrs,
                          .batch = args->batch,
                          .in = {from},
                          .din = {to},
                          .dout = {(void *)(uintptr_t)from},
                          .din_add = {!backward || args->din_add[0]}};
    p->first.din_add[0] = true;
}

/* Local. Whether backward needs dh. */
static inline bool espl__mlp_needs_hidden_gradient(const espl_args *args) {
    return args->din[0] != NULL || args->dparam[0] != NULL || args->dparam[1] != NULL;
}

#endif
