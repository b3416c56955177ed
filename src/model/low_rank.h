/* LoRA as rows (Hu et al. 2021): a matrix W gets A [rank, inputs] and B [outputs, rank], and what its row computes gets
 * scale (drop(x) A^T) B^T. Matrices that are used as one (q, k, v) have their As side by side, so they are one product, too.
 *
 * With magnitudes (DoRA, Liu et al. 2024) an output j is m_j / |W_j + scale (B A)_j| times what W + scale B A makes of x; the norm is a
 * constant to backward. With dropout the update's part of that sees drop(x) and so does W's, but for W x itself, which stays, as in PEFT:
 * W x + b + (gain - 1) W drop(x) + gain scale B A drop(x), which is W (x - drop(x)) + b + gain (W + scale B A) drop(x). */
#ifndef ESPL_MODEL_LOW_RANK_H
#define ESPL_MODEL_LOW_RANK_H

#include "src/model/model.h"

/* Local. Appends A and B of those parameters from number `first` to the last that `lora` targets. */
void espl__lora_add_params(espl_model *model, const espl_lora_options *lora, int first);

/* Local. Whether the matrix (or one of those that are used as one) that begins with parameter `param` (-1: none) is adapted. */
bool espl__lora_adapts(const espl_model *model, int param);

/* Local. Appends the rows that add its update to what the last row computes, and the rotation that a QKV then has behind it. */
void espl__lora_add_rows(espl_model *model, const espl_lora_options *lora, bool rotates);

/* Local. What the product of a matrix's B and A is multiplied with; `param` is one of the two. */
float espl_lora_scale(const espl_model *model, int param);

/* Local. Whether ranks and alphas are lists of TARGET=NUMBER, with numbers that can be. Errors: usage. */
espl_status espl__lora_check_numbers(const espl_lora_options *lora);

/* Local. Whether every target is a parameter of the model, and those of ranks and alphas are parameters that have updates. Errors: usage,
 * naming the target and what would be one. */
espl_status espl__lora_check(const espl_model *model, const espl_lora_options *lora);

#endif
