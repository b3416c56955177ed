/* How rules change weights, whatever these are kept as; for the files of rules. */
#ifndef ESPL_KERNELS_CPU_UPDATE_H
#define ESPL_KERNELS_CPU_UPDATE_H

#include "kernels/cpu/real.h"

/* A rule over n elements from `from` on; `weight` points to the first of them. */
typedef void floats_fn(const espl_rule_step *s, const espl_rule_range *r, float *restrict weight, int64_t from, int64_t n);

/* Local. Elements [from, to): `floats` on masters, on fp32 weights, or on bf16 weights that are then rounded stochastically. It may be
 * called for shorter stretches. */
void CPU(update_stretch)(const espl_rule_step *s, floats_fn *floats, const espl_rule_range *r, int64_t from, int64_t to);

#endif
