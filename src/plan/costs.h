/* What a step costs: floating-point operations and bytes on the wire. Pure functions of the model and a few integers. */
#ifndef ESPL_PLAN_COSTS_H
#define ESPL_PLAN_COSTS_H

#include "kernels/device.h"
#include "src/model/tape.h"

/* How much a micro-batch is: rows of each stream, and (query, key) pairs of attention within a stream. */
typedef struct espl_amount {
    double rows[ESPL_N_STREAMS], pairs[ESPL_N_STREAMS];
    double cross; /* pairs of the main stream's rows with the source's */
} espl_amount;

/* Local. A full micro-batch of segments of `length` tokens behind their prompts (of an encoder's, where there is one; those of the decoder
 * are shorter as the room for them is less). */
espl_amount espl_costs_amount(const espl_model *model, const espl_capacity capacity[ESPL_N_STREAMS], double length);

/* Local. Flops of one call of a training tape. */
double espl_costs_call_flops(const espl_tape *tape, const espl_call *call, const espl_amount *amount);

/* Local. Flops of forward and backward of a training tape, recomputation not counted: 3 times the forward matrix products where all is
 * trained (Kaplan et al. 2020, section 2.1, with the attention term and without the look-ups), less by those for gradients that frozen
 * parameters do without. */
double espl_costs_train_flops(const espl_tape *tape, const espl_amount *amount);

/* How elements of buckets travel. */
typedef struct espl_wire {
    size_t part,
        back; /* bytes of an element's part of a sum; of what comes back: the weight, or the sum where all ranks update everything */
    double sums, backs; /* how often in a step: 1, or where gradients or weights are cut for each micro-batch of a rank */
} espl_wire;

/* Bytes that one rank sends in a step: within its group, and to other groups. */
typedef struct espl_wire_bytes {
    double inside, across;
} espl_wire_bytes;

/* Local. Of a step of a phase, on `ranks` ranks in groups of `group`: for each element its part of a gradient's sum to the owner, and from
 * the owner what comes back; and for each that it owns a sum in fp32 over the groups, there and back. */
espl_wire_bytes espl_costs_wire_bytes(const espl_model *model, int phase, int ranks, int group, const espl_wire *wire);

#endif
