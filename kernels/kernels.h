/* clang-format off */
/* The ops: one contract, many backends.
 *
 * A backend fills one espl_kernels table (ops.def includes itself into it, so a missing kernel does
 * not compile). `real` below is the backend's compute format: fp32 or bf16 (cpu), fp32 or fp64 (ref).
 * Weights and activations are real; statistics marked f32 are float (double in ref fp64); gradients of
 * parameters are float (double in ref fp64). Sums run in at least float. All matrices are row-major.
 *
 * Every kernel gives the same bits for any number of threads: work is cut into pieces by shape alone.
 * Nothing is allocated, no shape is checked: that was the plan's work.
 * Tensors do not overlap unless it is said here. A din that is NULL is not wanted: LINEAR, QKV, MLP, RESNORM, MAGNITUDE and LINEAR_XENT
 * take that, for the other ops din is always there. A dparam that is NULL is frozen;
 * where that of P0 is, in0 of LINEAR, QKV, LORA and MLP is NULL in backward. Backward never changes out; of dout only QKV's, ROPE's and
 * PREFIX's.
 *
 * P0 of LINEAR and QKV, P0 and P2 of MLP may be quantised (attrs->quant, quant.h): results are those of the matrix that it expands to,
 * rounded to real, bit for bit; its dparam is NULL.
 *
 * drop(x)_e is 0 or x / (1 - p), kept where espl_rng_u32(key, e) >= espl_rng_threshold(p), with key = batch->rng and its op =
 * attrs->rng_op; e = row * width of out0 + column in EMBED, RESNORM, ACT and GLU. It is the identity when p = 0 or not batch->training;
 * drop' is drop with the same e.
 *
 * Legend: N tokens of the micro-batch, D width, H heads, G key/value heads, d head size, F ffn, V vocabulary.
 *
 * EMBED        out0[N,D] = drop(P0[ids] * scale + P1[pos + position_offset] + P2[type])     P0 [V,D], P1 [positions,D] or NULL,
 *              P2 [types,D] or NULL; batch->types NULL: all 0. Ids V .. V + prompt - 1 take P3[id - V] in place of P0[id], P3 [prompt,D].
 *     bwd: dP0[ids] += scale * drop'(dout0), dP1[pos + position_offset] += drop'(dout0), dP2[type] += drop'(dout0), in token order
 *          (deterministic); dP3[id - V] as dP0.
 * RESNORM      out0 = in0 + drop(in1)  (in1 NULL: out0 = in0)   [N,D]; out0 may alias in0
 *              out1 = norm(out0) * P0 (+ P1)        [N,D]; P0 gain [D], P1 bias [D] or NULL
 *              out2 [N,2] f32: mean and 1/sqrt(var + eps) of each row (RMS: 0 and 1/sqrt(mean square + eps))
 *              kind: ESPL_NORM_LAYER (Ba et al. 2016) or ESPL_NORM_RMS (Zhang & Sennrich 2019).
 *     bwd: g = dout0 + norm'(dout1); dout0 NULL: none (last norm). din0 = g, and may alias dout0 when it is not added to.
 *          din1 = drop'(g), or NULL when it is din0 itself (dropout 0). dP0, dP1.
 *     RENEW: forward with in1 NULL and out0 == in0 computes out1, out2 again from out0.
 * LINEAR       out0[N,M] = in0[N,K] W (+ b)         P0 W, P1 b [M] or NULL; weight layout ESPL_OUT_IN: W is [M,K], y = x W^T;
 *              ESPL_IN_OUT: W is [K,M] (GPT-2's Conv1D). n_in = K, n_out = M.
 *     bwd: din0 (NULL: not wanted) = dout0 W^T; dP0, dP1.
 * QKV          LINEAR with M = (H + 2 G) d, rows q (H d), k (G d), v (G d), then, with a rope table, q and k rotated by the token's
 *              position (Su et al. 2021; halves: element i pairs with i + rope_dim/2; elements past rope_dim stay):
 *              (a, b) becomes (a cos - b sin, b cos + a sin).
 *     bwd: rotates dout0 back in place (dout0 is scratch afterwards), then as LINEAR.
 * ATTENTION    in0 qkv [N,(H+2G)d]; out0 [N,H d]; out1 [N,H] f32 = log-sum-exp of the scores.
 *              Token i of segment s sees tokens j of s: causal: j <= i; window w > 0: i - w < j (so w tokens with itself; only with causal).
 *              Head h uses k/v head h / (H / G). softmax(scale q k + bias) v, scale > 0; dropout on probabilities, element
 *              ((h N + i) << 20) + (j - start of s), N = batch->n, i in 0 .. N - 1. out1 is taken before dropout.
 *              bias: P0[bucket of j - i][h], P0 [rel_buckets,H] or NULL (none; rel_buckets 0): T5's relative position bias, both
 *              directions unless causal (kernels/relative_bias.h). At least 2 buckets a direction; rel_distance is more than half of them.
 *              Nothing of size T x T exists (Dao 2023, FlashAttention-2).
 *     bwd: din0 [N,(H+2G)d] all three parts; dP0.
 * ATTENTION_CACHED  generation: in0 qkv of the new tokens; segment s appends its k, v at cache->length[s].. of row cache->row[s] and its
 *              queries see everything there, always causal, with window and P0. cache of the layer: [rows, capacity, 2 G d] real, a
 *              token's k (G d) then its v (G d); token t of the segment is number cache->length[s] + t of the row. No dropout. out0 [N,H d].
 * CROSS_ATTENTION  in0 q [N,H d]; in1 kv [M,2 G d] of the M tokens of batch->source, a row k (G d) then v (G d); out0, out1 as ATTENTION.
 *              A token of segment s sees all tokens of the source's segment source_segment[s] (NULL: s), at least one; otherwise as ATTENTION
 *              that is not causal, without window and P0. Dropout's element: ((h N + i) << 20) + (j - start of that segment of the source).
 *              In generation the same op, with kv as the encoder's pass left them.
 *     bwd: din0 [N,H d], din1 [M,2 G d]. source_segment is NULL, and both streams have as many segments.
 * ACT          out0 = drop(f(in0)) [N,n_in]; kind: gelu_tanh, gelu (erf), relu, silu, tanh, none (f(x) = x: a dropout by itself).
 *              kind rest: out0 = x - drop(x), what that takes away; not in GLU and MLP.
 *     bwd: din0 = drop'(dout0) f'(in0); may alias dout0.
 * GLU          in0 [N,2F], a row is gate (F) then up (F); out0 [N,F] = drop(f(gate) * up) (Shazeer 2020); kinds of ACT.
 *     bwd: din0 [N,2F].
 * MLP          out1 = in0 P0 (+ P1) [N,F], kept for backward; out0 = f(out1) P2 (+ P3) [N,n_out]. P0, P2 weights as LINEAR's, in one layout,
 *              of D x F and F x n_out; P1 [F], P3 [n_out] or NULL; n_in = D, ffn = F; f is ACT's, of out1 as it is stored or before it is
 *              rounded to real. No dropout. f(out1) is in work alone.
 *              residual: in0 is added to out0, n_out = n_in.
 *     bwd: f(out1) again; dh = (dout0 P2^T) f'(out1); din0 (NULL: not wanted) = dh P0^T; dP0, dP1 of in0 and dh, dP2, dP3 of f(out1) and dout0
 *          as LINEAR's. residual: dout0 is added to din0. dout1 is not read: out1 has no other reader.
 *     ALONE: forward with out0 NULL computes out1.
 * LINEAR_XENT  logits = scale * in0 W^T (+ b), W = P0 [V,D], b = P1 [V] or NULL; out0 [N] f32 = -log softmax(logits)[target] * weights[row]
 *              (batch->weights NULL: 1), 0 where target < 0. Goes chunk by chunk of tokens: N x V is never held.
 *     bwd (LOSS): writes out0 as forward does, and din0, dP0 and dP1 for the gradient of loss_scale * sum(out0). dout0 is not read.
 * POOL         in0 [N,D]; out0 [S,D], a row a segment: its first token's row behind `prompt` others, or its last one's; kind
 *              ESPL_POOL_FIRST or ESPL_POOL_LAST. args->batch is the main stream's; segments have more tokens than `prompt`.
 *     bwd: din0 [N,D] = dout0 of the segment where a token was taken, 0 elsewhere.
 * LORA         out0 is in1 [N,M], n_out = M: for each part p (columns column .. + width), out0_p += scale in0_p B_p^T (Hu et al. 2021).
 *              in0 [N,R], n_in = R: the parts' ranks side by side; P0: the parts' B one behind the other, each [width, rank], or with layout
 *              ESPL_IN_OUT [rank, width].
 *     bwd: din0_p = scale dout0_p B_p; dP0. dout0 is also the gradient of in1, and stays; in1 and din1 are not touched.
 * WEIGHT_NORM  for each part p of the columns of W = P0 (n_in = K inputs, n_out = M outputs, layout as LINEAR's), with A = P1 (the parts' [rank,K]
 *              one behind the other) and B = P2 (the parts' [width, rank]): the norm of each output's row of W + scale B_p A_p, as `real`
 *              holds it; out0 f32, the parts' norms one behind the other. It depends on no token: out0 has no rows.
 * MAGNITUDE    in0 [N,M], n_out = M; in1 what WEIGHT_NORM gave for the same parts; P0 magnitudes, as many; P1 bias [M] or NULL. out0 [N,M] =
 *              gain in0 (+ b): the gain of a part's column is its magnitude over its norm, that of other columns 1 (Liu et al. 2024).
 *     bwd: din0 = gain dout0; dP0, dP1; norms are constants (section 4.3 there): din1 is not written. in0 is NULL where
 *          dP0 is.
 * ROPE         out0 is in0 [N,(H+2G)d], n_out its width: q and k are rotated as QKV's; only with a rope table.
 *     bwd: rotates dout0 back in place, which is din0.
 * PREFIX       out0 is in0 [N,n_out]: in the rows of positions p < prompt the last `width` columns become columns column .. + width of P0[p]
 *              (Li & Liang 2021: keys and values that no token has made); P0 [prompt,n_in], column and width those of part 0.
 *     bwd: dP0[p] of those columns = sum of the rows of position p of dout0, which stand p behind the starts of segments; those
 *          elements of dout0 are then 0, and dout0 is din0. dP0's other columns are 0 where it is not added to.
 */
/* clang-format on */
#ifndef ESPL_KERNELS_KERNELS_H
#define ESPL_KERNELS_KERNELS_H

#include "kernels/quant.h"
#include "kernels/rules.h"
#include "src/core/dtype.h"
#include "src/core/exact_sum.h"
#include "src/core/rank_parts.h"
#include "src/core/rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    ESPL_OP_CHEAP = 1,
    ESPL_OP_LOSS = 2,
    ESPL_OP_RENEW = 4,
    ESPL_OP_FORWARD = 8,
    ESPL_OP_ALONE = 16,
    ESPL_OP_FOR_MATRIX = 32,
    ESPL_OP_IN_PLACE = 64
};

typedef enum espl_op {
#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags) ESPL_OP_##ID,
#include "kernels/ops.def"
#undef OP
    ESPL_N_OPS
} espl_op;

enum { ESPL_MAX_IN = 2, ESPL_MAX_OUT = 3, ESPL_MAX_PARAM = 4 };

enum { ESPL_NORM_LAYER, ESPL_NORM_RMS };
enum { ESPL_ACT_GELU_TANH, ESPL_ACT_GELU, ESPL_ACT_RELU, ESPL_ACT_SILU, ESPL_ACT_TANH, ESPL_ACT_NONE, ESPL_ACT_REST };
enum { ESPL_POOL_FIRST, ESPL_POOL_LAST };
enum { ESPL_OUT_IN, ESPL_IN_OUT };

/* The rows that a call works on: tokens of the main stream (decoder, or the only one), tokens of the source (the encoder of an
 * encoder-decoder), or one row a segment of the main stream (what POOL makes). */
typedef enum espl_stream { ESPL_STREAM_MAIN, ESPL_STREAM_SOURCE, ESPL_STREAM_POOLED, ESPL_N_STREAMS } espl_stream;

/* A part of the columns that LORA adds to. */
typedef struct espl_lora_part {
    int64_t column, width;
    int32_t rank;
    float scale;
} espl_lora_part;

enum { ESPL_LORA_PARTS = 3 };

/* What a row of the tape fixes for its op; fields an op does not name are 0. */
typedef struct espl_attrs {
    int64_t n_in, n_out;      /* widths; EMBED: n_out = D, vocab = V, positions = rows of P1; RESNORM: n_in = D; GLU: n_out = F */
    int64_t vocab, positions; /* LINEAR_XENT: n_in = D, vocab = V */
    int64_t types, prompt;    /* EMBED: rows of P2, of P3; PREFIX: of P0; POOL: tokens that are passed over */
    int32_t position_offset;  /* EMBED: row of P1 of position 0 */
    int64_t ffn;              /* MLP: width between its matrices */
    int32_t residual;         /* MLP: whether its input is added to what it makes */
    int32_t heads, kv_heads, head_dim;
    int32_t causal, window;
    int32_t rel_buckets, rel_distance; /* ATTENTION: rows of P0, and the distance from which all have one; 0: no P0 */
    int32_t kind;                      /* norm, activation, or which token is pooled */
    int32_t layout;                    /* of the weight */
    float scale, eps, dropout;
    int32_t rope_dim;   /* 0: no rope */
    uint32_t rng_op;    /* the row's number, for dropout */
    espl_stream stream; /* whose rows the call works on; args->batch is that stream's */
    int32_t n_parts;    /* LORA, WEIGHT_NORM, MAGNITUDE, PREFIX */
    espl_lora_part part[ESPL_LORA_PARTS];
    espl_quant quant[2]; /* LINEAR, QKV: of P0; MLP: of P0 and P2 */
} espl_attrs;

/* Key/value cache of generation; borrowed. */
typedef struct espl_cache {
    void *data;             /* [layers, rows, capacity, 2 G d] real */
    int64_t rows, capacity; /* sequences, tokens a sequence */
    const int32_t *row;     /* [n_segments] cache row of a segment */
    const int32_t *length;  /* [n_segments] tokens already there */
} espl_cache;

/* One stream of a micro-batch; borrowed by the kernels. */
typedef struct espl_batch {
    int64_t n; /* tokens, at most the plan's N */
    int32_t n_segments;
    const int32_t *segments;                  /* [n_segments + 1] offsets, 0 .. n */
    const int32_t *ids, *positions, *targets; /* [n]; target -1: not counted */
    const int32_t *types;                     /* [n] of EMBED's P2; NULL: all 0 */
    const float *weights;                     /* [n] of the rows' losses; NULL: all 1 */
    float loss_scale;                         /* one over the target tokens of the whole step, on all ranks */
    espl_rng_key rng;                         /* seed, purpose dropout, step, micro; the op fills op */
    int32_t training;                         /* 0: dropout is off */
    const espl_cache *cache;                  /* generation only */
    const struct espl_batch *source;          /* of the main stream: the encoder's tokens. NULL: none */
    const int32_t *source_segment;            /* [n_segments] the source's segment of a main one; NULL: s goes with s */
    const struct espl_batch *pooled;          /* of the main stream: one row a segment, n = n_segments, targets are labels. NULL: none */
} espl_batch;

/* Arguments of one call. Tensors that the row lacks are NULL. */
typedef struct espl_args {
    const espl_attrs *attrs;
    const espl_batch *batch;
    const void *in[ESPL_MAX_IN];
    void *out[ESPL_MAX_OUT];
    const void *param[ESPL_MAX_PARAM];
    void *din[ESPL_MAX_IN];
    void *dout[ESPL_MAX_OUT];
    void *dparam[ESPL_MAX_PARAM];    /* NULL: frozen */
    bool dparam_add[ESPL_MAX_PARAM]; /* add to what is there; else overwrite it all */
    bool din_add[ESPL_MAX_IN];       /* add to what is there (an input with a second user); else overwrite */
    const float *rope;               /* QKV, ROPE: [positions, rope_dim], cos in the first half, sin in the second; NULL: no rope */
    int32_t layer;                   /* ATTENTION_CACHED: which layer of the cache */
    void *work;                      /* work_bytes(...) bytes */
} espl_args;

typedef void espl_kernel(const espl_args *args);

typedef struct espl_op_desc {
    const char *name;
    int n_in, n_out, n_param;
    unsigned bwd_in, bwd_out;
    unsigned flags;
} espl_op_desc;

/* The row of each op. */
extern const espl_op_desc espl_ops[ESPL_N_OPS];

/* Local. Floating-point operations of one forward pass (a multiply-add is 2) over n tokens whose attention spans
 * `pairs` (query, key) pairs in all segments; backward of a matrix op is twice that. */
double espl_op_flops(espl_op op, const espl_attrs *attrs, double n, double pairs);

typedef struct espl_kernels {
    const char *name; /* "cpu avx512 fp32" */
    espl_dtype real;  /* weights and activations */
    espl_dtype stat;  /* statistics marked f32, and gradients of parameters */
    espl_kernel *forward[ESPL_N_OPS];
    espl_kernel *backward[ESPL_N_OPS]; /* NULL for FORWARD ops */
    /* Bytes of work for forward (backward = 0) or backward, n tokens, `threads` threads. */
    size_t (*work_bytes)(espl_op op, const espl_attrs *attrs, int64_t n, int threads, int backward);
    espl_rule_kernel *update[ESPL_N_RULES]; /* rules.h */
    /* Bytes of work for the update of one tensor by a rule with matrices, `threads` threads; 0 for the other rules. */
    size_t (*rule_work)(espl_rule rule, const espl_rule_tensor *tensor, int threads);
    /* Adds the squares of n floats to the sum. Each 256 elements: squares in double (exact), lane l of 8 sums elements l, l + 8, ... in
     * order, ((l0 + l1) + (l2 + l3)) + ((l4 + l5) + (l6 + l7)) goes to the exact sum; where that is not finite, each square by itself, so
     * that non-finite values are counted. `x` must start at a multiple of 256 in the caller's numbering: then cuts do not change bits,
     * and every backend gives the same. */
    void (*sum_squares)(const float *x, int64_t n, espl_exact *sum);
    /* Adds n floats, each by itself, to the exact sum. `sum` lies where tensors lie, here and in sum_squares. */
    void (*sum)(const float *x, int64_t n, espl_exact *sum);
    void (*add)(float *to, const float *from, int64_t n); /* to += from */
    espl_parts_round *round_parts;
    espl_parts_add *add_parts;
    void (*zero)(void *to, size_t bytes);
    void (*copy)(void *to, const void *from, size_t bytes);
} espl_kernels;

/* Local. The CPU backend for fp32 or bf16, its instruction set chosen by what this machine has. NULL for another dtype. */
const espl_kernels *espl_kernels_cpu(espl_dtype real);

/* Local. The portable reference, fp32 or fp64: slow, plain, the truth. */
const espl_kernels *espl_kernels_ref(espl_dtype real);

/* Local. Sets the threads of the kernels (OpenMP and the BLAS under them). */
void espl_kernels_set_threads(int n);

/* Local. Threads as set. */
int espl_kernels_threads(void);

/* Local. Instruction sets by name: "avx512", "avx2", "portable"; for tests. Returns NULL where the machine lacks it. */
const espl_kernels *espl_kernels_cpu_isa(const char *isa, espl_dtype real);

/* Local. One line about the libraries and the instruction set in use, for logs. */
const char *espl_kernels_describe(void);

#endif
