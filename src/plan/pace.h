/* How long the calls of a tape take on a device: a product as long as its flops or its bytes, whichever takes longer, the others as long as
 * their bytes (Williams et al. 2009, the roofline). Local, all. */
#ifndef ESPL_PLAN_PACE_H
#define ESPL_PLAN_PACE_H

#include "src/plan/costs.h"

typedef struct espl_pace {
    char name[64];
    double peak;              /* flops a second on paper, or the matrix peak as measured; what MFU is a share of */
    double matrix, attention; /* flops a second that products and attention are taken to reach */
    double memory, host;      /* bytes a second of the device's memory, and from there to the host's */
} espl_pace;

/* A known GPU's: of its data sheet 60 % for products of bf16, 20 % for attention (by our own kernels), 79 % for memory and for copies to
 * the host, the shares that src/DESIGN.md takes for an H200. false: no such one; espl_pace_names: all of them, for messages. */
bool espl_pace_gpu(const char *name, espl_pace *pace);
const char *espl_pace_names(void);

/* Seconds of a call on a micro-batch of `amount`; 0 of a bucket's mark. Attention's backward executes 3.5 times the flops of its forward.
 */
double espl_pace_call(const espl_tape *tape, int call, const espl_amount *amount, const espl_pace *pace);

#endif
