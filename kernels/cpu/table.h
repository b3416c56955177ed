/* The kernels of one instruction set and format, op by op; table.c puts them into an espl_kernels. */
#ifndef ESPL_KERNELS_CPU_TABLE_H
#define ESPL_KERNELS_CPU_TABLE_H

#include "kernels/cpu/real.h"

#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    void CPU(name##_forward)(const espl_args *args);                                                                                       \
    void CPU(name##_backward)(const espl_args *args);
#include "kernels/ops.def"
#undef OP

#define RULE(ID, name, matrices, states) espl_rule_kernel CPU(name);
#include "kernels/rules.def"
#undef RULE

/* Local. As espl_kernels in kernels.h. */
void CPU(sum_squares)(const float *x, int64_t n, espl_exact *sum);
void CPU(add)(float *to, const float *from, int64_t n);
espl_parts_round CPU(round_parts);
espl_parts_add CPU(add_parts);
void CPU(zero)(void *to, size_t bytes);
void CPU(copy)(void *to, const void *from, size_t bytes);
void CPU(sum)(const float *x, int64_t n, espl_exact *sum);

/* Local. Bytes of work of one op. */
size_t CPU(resnorm_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t CPU(linear_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t CPU(magnitude_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t CPU(mlp_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t CPU(linear_xent_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t CPU(attention_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);
size_t CPU(attention_backward_work)(const espl_attrs *attrs, int64_t n, int threads);
size_t CPU(attention_cached_work)(const espl_attrs *attrs, int64_t n, int threads, int backward);

extern const espl_kernels CPU(table);

#endif
