/* The cases that every backend's ops are tested with: one row a case, and the numbers of a case.
 *
 * Values are held as double in numbered slots, on the grid of the narrowest format that takes part, so
 * that all backends start from the same numbers. What a kernel must overwrite is NaN before. op_run.h
 * gives a case to a backend. ATTENTION_CACHED has no rows: it runs on the causal rows of ATTENTION. */
#ifndef ESPL_TESTS_UNIT_OP_CASES_H
#define ESPL_TESTS_UNIT_OP_CASES_H

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    OP_IN0,
    OP_IN1,
    OP_OUT0,
    OP_OUT1,
    OP_OUT2,
    OP_PARAM0,
    OP_PARAM1,
    OP_PARAM2,
    OP_PARAM3,
    OP_DIN0,
    OP_DIN1,
    OP_DOUT0,
    OP_DOUT1,
    OP_DOUT2,
    OP_DPARAM0,
    OP_DPARAM1,
    OP_DPARAM2,
    OP_DPARAM3,
    OP_SLOTS
};

static const char *const op_slot_names[OP_SLOTS] = {"in0",  "in1",  "out0",  "out1",  "out2",  "param0",  "param1",  "param2",  "param3",
                                                    "din0", "din1", "dout0", "dout1", "dout2", "dparam0", "dparam1", "dparam2", "dparam3"};

enum {
    OP_BIAS = 1,         /* P1 is there; MLP: and P3 */
    OP_FIRST = 2,        /* RESNORM: in1 NULL */
    OP_LAST = 4,         /* RESNORM: dout0 NULL */
    OP_ALIAS = 8,        /* RESNORM: out0 is in0, din0 is dout0; ACT: din0 is dout0 */
    OP_SHARED = 16,      /* RESNORM: din1 NULL, it is din0 */
    OP_ADD = 32,         /* din_add and dparam_add */
    OP_EVAL = 64,        /* not training */
    OP_IGNORE = 128,     /* LINEAR_XENT: every third target is -1 */
    OP_NO_DIN = 256,     /* din0 NULL */
    OP_FROZEN = 512,     /* dparam NULL */
    OP_LARGE = 1024,     /* too large for finite differences of single elements */
    OP_PROMPTS = 2048,   /* LINEAR_XENT: of every 150 tokens only number 100 and 120 to 139 have targets */
    OP_ADD_FIRST = 4096, /* din_add and dparam_add of the first alone */
    OP_TYPES = 8192,     /* EMBED: batch->types is there */
    OP_WEIGHTS = 16384,  /* LINEAR_XENT: batch->weights is there */
    OP_MASKED = 32768,   /* LINEAR_XENT: 3 of 20 tokens have targets, one here, one there */
    OP_NO_TARGETS = 65536,
    OP_CHOSEN = 131072,  /* CROSS_ATTENTION: batch->source_segment is there, in descending order; with OP_FORWARD */
    OP_FORWARD = 262144, /* forward alone */
};

typedef struct op_case {
    const char *name;
    espl_op op;
    unsigned flags;
    int32_t segments[16]; /* offsets; the last one is followed by 0, which is the first of those of the source where there is one */
    espl_attrs attrs;
} op_case;

/* clang-format off */
#define OP_ONE_TOKEN {0, 1}
#define OP_ONE_SEGMENT {0, 37}
#define OP_SHORT_SEGMENTS {0, 3, 8, 9, 16, 17, 29}
#define OP_LONE_TOKENS {0, 1, 2, 3, 4, 5}
#define OP_LONG_SEGMENTS {0, 131, 132, 199, 203}

#define OP_RESNORM_ROW(name, flags, segments, width, norm, p) \
    {name, ESPL_OP_RESNORM, flags, segments, {.n_in = width, .kind = norm, .eps = 1e-5f, .dropout = p, .rng_op = 7}}
#define OP_LINEAR_ROW(name, flags, segments, in, out, order) \
    {name, ESPL_OP_LINEAR, flags, segments, {.n_in = in, .n_out = out, .layout = order}}
#define OP_QKV_ROW(name, flags, segments, in, h, g, d, order, rotated) \
    {name, ESPL_OP_QKV, flags, segments, {.n_in = in, .n_out = (h + 2 * g) * d, .heads = h, .kv_heads = g, .head_dim = d, \
     .layout = order, .rope_dim = rotated, .positions = 256}}
#define OP_LORA_ROW(name, flags, segments, ranks, out, n, ...) \
    {name, ESPL_OP_LORA, flags, segments, {.n_in = ranks, .n_out = out, .n_parts = n, .part = {__VA_ARGS__}}}
#define OP_LORA_TURNED_ROW(name, flags, segments, ranks, out, n, ...) \
    {name, ESPL_OP_LORA, flags, segments, {.n_in = ranks, .n_out = out, .layout = ESPL_IN_OUT, .n_parts = n, .part = {__VA_ARGS__}}}
#define OP_WEIGHT_NORM_ROW(name, flags, segments, in, out, order, n, ...) \
    {name, ESPL_OP_WEIGHT_NORM, (flags) | OP_FORWARD, segments, {.n_in = in, .n_out = out, .layout = order, .n_parts = n, .part = {__VA_ARGS__}}}
#define OP_MAGNITUDE_ROW(name, flags, segments, out, n, ...) \
    {name, ESPL_OP_MAGNITUDE, flags, segments, {.n_in = out, .n_out = out, .n_parts = n, .part = {__VA_ARGS__}}}
#define OP_ROPE_ROW(name, flags, segments, h, g, d, rotated) \
    {name, ESPL_OP_ROPE, flags, segments, {.n_in = (h + 2 * g) * d, .n_out = (h + 2 * g) * d, .heads = h, .kv_heads = g, .head_dim = d, \
     .rope_dim = rotated, .positions = 256}}
#define OP_PREFIX_ROW(name, flags, segments, rows, all, first, columns, of) \
    {name, ESPL_OP_PREFIX, flags, segments, {.n_in = all, .n_out = of, .prompt = rows, .n_parts = 1, .part = {{.column = first, .width = columns}}}}
#define OP_ATTENTION_ROW(name, flags, segments, h, g, d, causality, w, p) \
    {name, ESPL_OP_ATTENTION, flags, segments, {.heads = h, .kv_heads = g, .head_dim = d, .causal = causality, .window = w, \
     .scale = 1.0f / sqrt_of_##d, .dropout = p, .rng_op = 3}}
#define OP_BIASED_ROW(name, flags, segments, h, g, d, causality, w, p, s, buckets, distance) \
    {name, ESPL_OP_ATTENTION, flags, segments, {.heads = h, .kv_heads = g, .head_dim = d, .causal = causality, .window = w, \
     .scale = s, .dropout = p, .rng_op = 3, .rel_buckets = buckets, .rel_distance = distance}}
#define OP_CROSS_ROW(name, flags, h, g, d, s, p, ...) \
    {name, ESPL_OP_CROSS_ATTENTION, flags, {__VA_ARGS__}, \
     {.heads = h, .kv_heads = g, .head_dim = d, .scale = s, .dropout = p, .rng_op = 3}}
#define OP_ACT_ROW(name, flags, segments, width, f) {name, ESPL_OP_ACT, flags, segments, {.n_in = width, .kind = f}}
#define OP_GLU_ROW(name, flags, segments, width, f) \
    {name, ESPL_OP_GLU, flags, segments, {.n_in = 2 * width, .n_out = width, .kind = f}}
#define OP_MLP_ROW(name, flags, segments, in, between, out, order, f) \
    {name, ESPL_OP_MLP, flags, segments, {.n_in = in, .ffn = between, .n_out = out, .layout = order, .kind = f}}
#define OP_BOTTLENECK_ROW(name, flags, segments, width, between, order, f) \
    {name, ESPL_OP_MLP, flags, segments, {.n_in = width, .ffn = between, .n_out = width, .layout = order, .kind = f, .residual = 1}}
#define OP_EMBED_ROW(name, flags, segments, width, words, places, skip, kinds, s, p) \
    {name, ESPL_OP_EMBED, flags, segments, {.n_out = width, .vocab = words, .positions = places, .position_offset = skip, .types = kinds, \
     .scale = s, .dropout = p, .rng_op = 2}}
#define OP_ACT_DROP_ROW(name, flags, segments, width, f, p) \
    {name, ESPL_OP_ACT, flags, segments, {.n_in = width, .kind = f, .dropout = p, .rng_op = 5}}
#define OP_GLU_DROP_ROW(name, flags, segments, width, f, p) \
    {name, ESPL_OP_GLU, flags, segments, {.n_in = 2 * width, .n_out = width, .kind = f, .dropout = p, .rng_op = 6}}
#define OP_POOL_ROW(name, flags, segments, width, which) {name, ESPL_OP_POOL, flags, segments, {.n_in = width, .kind = which}}
#define OP_XENT_ROW(name, flags, segments, width, words, s) \
    {name, ESPL_OP_LINEAR_XENT, flags, segments, {.n_in = width, .vocab = words, .scale = s}}
#define sqrt_of_8 2.82842712f
#define sqrt_of_16 4.0f
#define sqrt_of_24 4.89897949f
#define sqrt_of_64 8.0f

static const op_case op_cases[] = {
    {"embed", ESPL_OP_EMBED, 0, OP_ONE_SEGMENT, {.n_out = 24, .vocab = 17, .scale = 1}},
    {"embed positions", ESPL_OP_EMBED, OP_BIAS, OP_SHORT_SEGMENTS, {.n_out = 13, .vocab = 29, .positions = 40, .scale = 1}},
    {"embed scale dropout", ESPL_OP_EMBED, OP_BIAS, OP_SHORT_SEGMENTS,
     {.n_out = 16, .vocab = 5, .positions = 40, .scale = 4.5f, .dropout = 0.3f, .rng_op = 2}},
    {"embed dropout eval", ESPL_OP_EMBED, OP_EVAL, OP_ONE_TOKEN, {.n_out = 16, .vocab = 5, .scale = 1, .dropout = 0.3f}},
    {"embed add", ESPL_OP_EMBED, OP_BIAS | OP_ADD, OP_ONE_SEGMENT, {.n_out = 24, .vocab = 17, .positions = 40, .scale = 1}},
    {"embed large", ESPL_OP_EMBED, OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS,
     {.n_out = 96, .vocab = 301, .positions = 256, .scale = 1, .dropout = 0.1f}},

    OP_EMBED_ROW("embed types", OP_BIAS | OP_TYPES, OP_SHORT_SEGMENTS, 13, 29, 40, 0, 2, 1, 0),
    OP_EMBED_ROW("embed types offset dropout", OP_BIAS | OP_TYPES, OP_SHORT_SEGMENTS, 16, 29, 40, 2, 3, 1.5f, 0.3f),
    OP_EMBED_ROW("embed one type", OP_BIAS, OP_ONE_SEGMENT, 24, 17, 39, 2, 1, 1, 0),
    OP_EMBED_ROW("embed absent types", 0, OP_SHORT_SEGMENTS, 8, 17, 0, 0, 2, 1, 0),
    OP_EMBED_ROW("embed types add", OP_BIAS | OP_TYPES | OP_ADD, OP_ONE_SEGMENT, 24, 17, 40, 2, 2, 1, 0),
    {"embed prompt", ESPL_OP_EMBED, 0, OP_SHORT_SEGMENTS, {.n_out = 13, .vocab = 29, .prompt = 2, .scale = 1}},
    {"embed prompt dropout", ESPL_OP_EMBED, OP_BIAS | OP_TYPES, OP_SHORT_SEGMENTS,
     {.n_out = 16, .vocab = 5, .positions = 40, .position_offset = 2, .types = 2, .prompt = 3, .scale = 1.5f, .dropout = 0.3f, .rng_op = 2}},
    {"embed prompt add", ESPL_OP_EMBED, OP_BIAS | OP_ADD, OP_ONE_SEGMENT, {.n_out = 24, .vocab = 17, .positions = 40, .prompt = 4, .scale = 1}},
    {"embed prompt alone", ESPL_OP_EMBED, 0, OP_ONE_TOKEN, {.n_out = 8, .vocab = 5, .prompt = 1, .scale = 1}},
    OP_EMBED_ROW("embed types one token", OP_BIAS | OP_TYPES, OP_ONE_TOKEN, 11, 5, 4, 3, 4, 1, 0),

    OP_RESNORM_ROW("resnorm layer", OP_BIAS, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm layer without bias", 0, OP_SHORT_SEGMENTS, 17, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm rms", 0, OP_ONE_SEGMENT, 24, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm rms bias dropout", OP_BIAS, OP_SHORT_SEGMENTS, 33, ESPL_NORM_RMS, 0.3f),
    OP_RESNORM_ROW("resnorm layer dropout", OP_BIAS, OP_SHORT_SEGMENTS, 32, ESPL_NORM_LAYER, 0.3f),
    OP_RESNORM_ROW("resnorm dropout eval", OP_BIAS | OP_EVAL, OP_ONE_SEGMENT, 8, ESPL_NORM_LAYER, 0.3f),
    OP_RESNORM_ROW("resnorm first", OP_BIAS | OP_FIRST, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm first alias", OP_FIRST | OP_ALIAS, OP_ONE_SEGMENT, 24, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm last", OP_BIAS | OP_LAST, OP_SHORT_SEGMENTS, 24, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm last first", OP_FIRST | OP_LAST, OP_ONE_TOKEN, 24, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm alias", OP_BIAS | OP_ALIAS, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0.3f),
    OP_RESNORM_ROW("resnorm shared", OP_BIAS | OP_SHARED, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm shared alias", OP_SHARED | OP_ALIAS, OP_ONE_SEGMENT, 24, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0.3f),
    OP_RESNORM_ROW("resnorm frozen", OP_BIAS | OP_FROZEN, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm parameters only", OP_BIAS | OP_FIRST | OP_NO_DIN, OP_ONE_SEGMENT, 24, ESPL_NORM_LAYER, 0),
    OP_RESNORM_ROW("resnorm layer large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 200, ESPL_NORM_LAYER, 0.1f),
    OP_RESNORM_ROW("resnorm rms large", OP_LARGE, OP_LONG_SEGMENTS, 200, ESPL_NORM_RMS, 0),

    OP_LINEAR_ROW("linear out-in", 0, OP_ONE_SEGMENT, 19, 23, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear out-in bias", OP_BIAS, OP_SHORT_SEGMENTS, 32, 16, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out", 0, OP_ONE_SEGMENT, 19, 23, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear in-out bias", OP_BIAS, OP_ONE_TOKEN, 32, 16, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear out-in add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 16, 24, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 16, 24, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear frozen", OP_BIAS | OP_FROZEN, OP_ONE_SEGMENT, 16, 24, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear parameters only", OP_BIAS | OP_NO_DIN, OP_ONE_SEGMENT, 16, 24, ESPL_IN_OUT),
    OP_LINEAR_ROW("linear narrow", 0, OP_ONE_SEGMENT, 24, 1, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear out-in large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 130, 257, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 130, 257, ESPL_IN_OUT),

    OP_QKV_ROW("qkv", OP_BIAS, OP_ONE_SEGMENT, 24, 2, 2, 8, ESPL_IN_OUT, 0),
    OP_QKV_ROW("qkv rope", 0, OP_SHORT_SEGMENTS, 24, 4, 2, 8, ESPL_OUT_IN, 8),
    OP_QKV_ROW("qkv rope bias", OP_BIAS, OP_SHORT_SEGMENTS, 17, 4, 1, 16, ESPL_OUT_IN, 16),
    OP_QKV_ROW("qkv partial rope", OP_BIAS, OP_ONE_SEGMENT, 24, 2, 2, 24, ESPL_IN_OUT, 6),
    OP_QKV_ROW("qkv rope add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 16, 2, 1, 8, ESPL_OUT_IN, 8),
    OP_QKV_ROW("qkv rope frozen", OP_FROZEN, OP_ONE_TOKEN, 16, 2, 1, 8, ESPL_OUT_IN, 8),
    OP_QKV_ROW("qkv rope parameters only", OP_NO_DIN, OP_ONE_SEGMENT, 16, 2, 1, 8, ESPL_OUT_IN, 8),
    OP_QKV_ROW("qkv partial rope by vectors", OP_BIAS, OP_SHORT_SEGMENTS, 24, 2, 1, 24, ESPL_OUT_IN, 16),
    OP_QKV_ROW("qkv rope large", OP_LARGE, OP_LONG_SEGMENTS, 96, 4, 2, 64, ESPL_OUT_IN, 64),

    OP_LORA_ROW("lora", 0, OP_ONE_SEGMENT, 4, 24, 1, {0, 24, 4, 2}),
    OP_LORA_ROW("lora two of three", 0, OP_SHORT_SEGMENTS, 7, 40, 2, {0, 24, 3, 0.5f}, {32, 8, 4, 1.25f}),
    OP_LORA_ROW("lora three", OP_ADD, OP_ONE_SEGMENT, 24, 48, 3, {0, 16, 8, 1}, {16, 16, 8, 1}, {32, 16, 8, 3}),
    OP_LORA_ROW("lora frozen", OP_FROZEN, OP_ONE_TOKEN, 8, 16, 1, {0, 16, 8, 1}),
    OP_LORA_ROW("lora rank one", 0, OP_LONE_TOKENS, 1, 9, 1, {0, 9, 1, 16}),
    OP_LORA_TURNED_ROW("lora in-out", 0, OP_SHORT_SEGMENTS, 7, 40, 2, {0, 24, 3, 0.5f}, {32, 8, 4, 1.25f}),
    OP_LORA_TURNED_ROW("lora in-out add", OP_ADD, OP_ONE_SEGMENT, 24, 24, 1, {0, 24, 24, 1}),
    OP_LORA_TURNED_ROW("lora in-out large", OP_LARGE, OP_LONG_SEGMENTS, 160, 136, 1, {0, 136, 160, 1}),
    OP_LORA_ROW("lora large", OP_LARGE, OP_LONG_SEGMENTS, 32, 320, 2, {0, 256, 16, 2}, {288, 32, 16, 2}),

    OP_WEIGHT_NORM_ROW("norms", 0, OP_ONE_TOKEN, 40, 24, ESPL_OUT_IN, 1, {0, 24, 4, 2}),
    OP_WEIGHT_NORM_ROW("norms in-out", 0, OP_ONE_TOKEN, 19, 21, ESPL_IN_OUT, 1, {0, 21, 3, 0.5f}),
    OP_WEIGHT_NORM_ROW("norms two of three", 0, OP_ONE_TOKEN, 24, 40, ESPL_OUT_IN, 2, {0, 24, 3, 0.5f}, {32, 8, 4, 1.25f}),
    OP_WEIGHT_NORM_ROW("norms rank one", 0, OP_ONE_TOKEN, 1, 9, ESPL_OUT_IN, 1, {0, 9, 1, 16}),
    OP_WEIGHT_NORM_ROW("norms large", OP_LARGE, OP_ONE_TOKEN, 600, 168, ESPL_OUT_IN, 2, {0, 100, 160, 0.25f}, {104, 64, 16, 2}),
    OP_WEIGHT_NORM_ROW("norms in-out large", OP_LARGE, OP_ONE_TOKEN, 300, 160, ESPL_IN_OUT, 1, {0, 160, 16, 2}),

    OP_MAGNITUDE_ROW("magnitude", OP_BIAS, OP_ONE_SEGMENT, 24, 1, {0, 24, 4, 2}),
    OP_MAGNITUDE_ROW("magnitude two of three", 0, OP_SHORT_SEGMENTS, 40, 2, {0, 24, 3, 0.5f}, {32, 8, 4, 1.25f}),
    OP_MAGNITUDE_ROW("magnitude add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 48, 3, {0, 16, 8, 1}, {16, 16, 8, 1}, {32, 16, 8, 3}),
    OP_MAGNITUDE_ROW("magnitude lone tokens", OP_BIAS, OP_LONE_TOKENS, 9, 1, {0, 9, 1, 16}),
    OP_MAGNITUDE_ROW("magnitude frozen", OP_FROZEN, OP_ONE_TOKEN, 16, 1, {0, 16, 8, 1}),
    OP_MAGNITUDE_ROW("magnitude parameters only", OP_BIAS | OP_NO_DIN, OP_ONE_SEGMENT, 24, 1, {8, 13, 8, 1}),
    OP_MAGNITUDE_ROW("magnitude large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 320, 2, {0, 256, 16, 2}, {288, 32, 16, 2}),

    OP_ROPE_ROW("rope", 0, OP_ONE_SEGMENT, 2, 1, 8, 8),
    OP_ROPE_ROW("rope partial", 0, OP_SHORT_SEGMENTS, 2, 1, 24, 16),
    OP_ROPE_ROW("rope one token", 0, OP_ONE_TOKEN, 4, 4, 16, 16),
    OP_ROPE_ROW("rope large", OP_LARGE, OP_LONG_SEGMENTS, 4, 2, 64, 64),

    OP_PREFIX_ROW("prefix", 0, OP_SHORT_SEGMENTS, 3, 48, 16, 16, 24),
    OP_PREFIX_ROW("prefix odd", 0, OP_SHORT_SEGMENTS, 4, 21, 14, 7, 13),
    OP_PREFIX_ROW("prefix add", OP_ADD | OP_NO_DIN, OP_SHORT_SEGMENTS, 2, 32, 0, 16, 40),
    OP_PREFIX_ROW("prefix frozen", OP_FROZEN, OP_SHORT_SEGMENTS, 2, 16, 8, 8, 16),
    OP_PREFIX_ROW("prefix one token", 0, OP_ONE_TOKEN, 2, 8, 0, 8, 8),
    OP_PREFIX_ROW("prefix large", OP_LARGE, OP_LONG_SEGMENTS, 20, 768, 256, 256, 640),

    OP_ATTENTION_ROW("attention causal d8", 0, OP_ONE_SEGMENT, 2, 2, 8, 1, 0, 0),
    OP_ATTENTION_ROW("attention causal d16 gqa2", 0, OP_SHORT_SEGMENTS, 4, 2, 16, 1, 0, 0),
    OP_ATTENTION_ROW("attention causal d24 gqa4", 0, OP_ONE_SEGMENT, 4, 1, 24, 1, 0, 0),
    OP_ATTENTION_ROW("attention causal d64", 0, OP_SHORT_SEGMENTS, 2, 1, 64, 1, 0, 0),
    OP_ATTENTION_ROW("attention full d8", 0, OP_SHORT_SEGMENTS, 2, 2, 8, 0, 0, 0),
    OP_ATTENTION_ROW("attention full d16 gqa4", 0, OP_ONE_SEGMENT, 4, 1, 16, 0, 0, 0),
    OP_ATTENTION_ROW("attention window", 0, OP_ONE_SEGMENT, 2, 2, 8, 1, 5, 0),
    OP_ATTENTION_ROW("attention window 1", 0, OP_SHORT_SEGMENTS, 2, 1, 8, 1, 1, 0),
    OP_ATTENTION_ROW("attention lone tokens", 0, OP_LONE_TOKENS, 2, 2, 8, 1, 0, 0),
    OP_ATTENTION_ROW("attention one token", 0, OP_ONE_TOKEN, 2, 2, 8, 0, 0, 0),
    OP_ATTENTION_ROW("attention dropout", 0, OP_SHORT_SEGMENTS, 4, 2, 8, 1, 0, 0.3f),
    OP_ATTENTION_ROW("attention full dropout", 0, OP_SHORT_SEGMENTS, 2, 2, 16, 0, 0, 0.3f),
    OP_ATTENTION_ROW("attention window dropout", 0, OP_ONE_SEGMENT, 2, 1, 8, 1, 6, 0.3f),
    OP_ATTENTION_ROW("attention dropout eval", OP_EVAL, OP_SHORT_SEGMENTS, 2, 2, 8, 1, 0, 0.3f),
    OP_ATTENTION_ROW("attention add", OP_ADD, OP_SHORT_SEGMENTS, 2, 2, 8, 1, 0, 0),
    OP_ATTENTION_ROW("attention causal large", OP_LARGE, OP_LONG_SEGMENTS, 4, 2, 64, 1, 0, 0),
    OP_ATTENTION_ROW("attention full large", OP_LARGE, OP_LONG_SEGMENTS, 2, 2, 24, 0, 0, 0.1f),
    OP_ATTENTION_ROW("attention window large", OP_LARGE, OP_LONG_SEGMENTS, 4, 1, 16, 1, 40, 0.1f),

    OP_BIASED_ROW("attention bias full", 0, OP_SHORT_SEGMENTS, 2, 2, 8, 0, 0, 0, 0.5f, 8, 16),
    OP_BIASED_ROW("attention bias causal gqa2", 0, OP_ONE_SEGMENT, 4, 2, 16, 1, 0, 0, 0.25f, 7, 20),
    OP_BIASED_ROW("attention bias full dropout", 0, OP_ONE_SEGMENT, 2, 1, 5, 0, 0, 0.3f, 0.5f, 12, 20),
    OP_BIASED_ROW("attention bias causal dropout add", OP_ADD, OP_SHORT_SEGMENTS, 6, 2, 8, 1, 0, 0.3f, 0.5f, 8, 9),
    OP_BIASED_ROW("attention bias window", 0, OP_ONE_SEGMENT, 2, 2, 8, 1, 9, 0, 0.5f, 8, 12),
    OP_BIASED_ROW("attention bias frozen", OP_FROZEN, OP_SHORT_SEGMENTS, 2, 2, 8, 0, 0, 0, 0.5f, 8, 16),
    OP_BIASED_ROW("attention bias lone tokens", 0, OP_LONE_TOKENS, 2, 2, 8, 0, 0, 0, 0.5f, 8, 16),
    OP_BIASED_ROW("attention bias full large", OP_LARGE, OP_LONG_SEGMENTS, 8, 4, 64, 0, 0, 0, 0.125f, 32, 128),
    OP_BIASED_ROW("attention bias causal large", OP_LARGE, OP_LONG_SEGMENTS, 2, 2, 24, 1, 0, 0.1f, 0.25f, 32, 60),
    OP_BIASED_ROW("attention bias window large", OP_LARGE | OP_ADD, OP_LONG_SEGMENTS, 6, 3, 16, 1, 70, 0, 0.25f, 16, 9),

    OP_CROSS_ROW("cross", 0, 2, 2, 8, 0.5f, 0, 0, 3, 8, 9, 16, 17, 29, 0, 5, 6, 9, 21, 22, 30),
    OP_CROSS_ROW("cross gqa4", 0, 4, 1, 16, 0.25f, 0, 0, 37, 0, 11),
    OP_CROSS_ROW("cross d5 dropout", 0, 4, 2, 5, 0.5f, 0.3f, 0, 3, 8, 9, 16, 17, 29, 0, 5, 6, 9, 21, 22, 30),
    OP_CROSS_ROW("cross dropout eval", OP_EVAL, 2, 2, 8, 0.5f, 0.3f, 0, 37, 0, 40),
    OP_CROSS_ROW("cross add", OP_ADD, 2, 1, 8, 0.5f, 0, 0, 3, 8, 9, 16, 17, 29, 0, 5, 6, 9, 21, 22, 30),
    OP_CROSS_ROW("cross lone tokens", 0, 2, 2, 8, 0.5f, 0, 0, 1, 2, 3, 4, 5, 0, 3, 4, 13, 14, 20),
    OP_CROSS_ROW("cross one key each", 0, 2, 2, 8, 0.5f, 0, 0, 3, 8, 9, 16, 17, 29, 0, 1, 2, 3, 4, 5, 6),
    OP_CROSS_ROW("cross chosen", OP_CHOSEN | OP_FORWARD, 4, 2, 24, 0.25f, 0, 0, 3, 8, 9, 16, 17, 29, 0, 17, 18, 30),
    OP_CROSS_ROW("cross chosen by lone tokens", OP_CHOSEN | OP_FORWARD, 2, 2, 8, 0.5f, 0, 0, 1, 2, 3, 4, 5, 0, 70, 71),
    OP_CROSS_ROW("cross large", OP_LARGE, 4, 2, 64, 0.125f, 0, 0, 131, 132, 199, 203, 0, 3, 130, 131, 195),
    OP_CROSS_ROW("cross large dropout add", OP_LARGE | OP_ADD, 2, 2, 24, 0.25f, 0.1f, 0, 131, 132, 199, 203, 0, 70, 200, 201, 281),

    OP_ACT_ROW("gelu tanh", 0, OP_ONE_SEGMENT, 23, ESPL_ACT_GELU_TANH),
    OP_ACT_ROW("gelu", 0, OP_ONE_SEGMENT, 23, ESPL_ACT_GELU),
    OP_ACT_ROW("relu", 0, OP_ONE_SEGMENT, 23, ESPL_ACT_RELU),
    OP_ACT_ROW("silu", 0, OP_ONE_SEGMENT, 23, ESPL_ACT_SILU),
    OP_ACT_ROW("tanh", 0, OP_ONE_SEGMENT, 23, ESPL_ACT_TANH),
    OP_ACT_ROW("gelu alias", OP_ALIAS, OP_ONE_TOKEN, 16, ESPL_ACT_GELU),
    OP_ACT_ROW("gelu add", OP_ADD, OP_ONE_SEGMENT, 16, ESPL_ACT_GELU),
    OP_ACT_ROW("none", 0, OP_ONE_SEGMENT, 23, ESPL_ACT_NONE),
    OP_ACT_DROP_ROW("none dropout", 0, OP_ONE_SEGMENT, 24, ESPL_ACT_NONE, 0.3f),
    OP_ACT_DROP_ROW("none dropout alias", OP_ALIAS, OP_SHORT_SEGMENTS, 13, ESPL_ACT_NONE, 0.1f),
    OP_ACT_DROP_ROW("relu dropout add", OP_ADD, OP_SHORT_SEGMENTS, 17, ESPL_ACT_RELU, 0.3f),
    OP_ACT_DROP_ROW("gelu dropout one token", 0, OP_ONE_TOKEN, 19, ESPL_ACT_GELU, 0.5f),
    OP_ACT_DROP_ROW("tanh dropout eval", OP_EVAL, OP_ONE_SEGMENT, 16, ESPL_ACT_TANH, 0.3f),
    OP_ACT_DROP_ROW("rest", 0, OP_ONE_SEGMENT, 24, ESPL_ACT_REST, 0.3f),
    OP_ACT_DROP_ROW("rest alias", OP_ALIAS, OP_SHORT_SEGMENTS, 13, ESPL_ACT_REST, 0.1f),
    OP_ACT_DROP_ROW("rest add", OP_ADD, OP_SHORT_SEGMENTS, 17, ESPL_ACT_REST, 0.3f),
    OP_ACT_DROP_ROW("rest eval", OP_EVAL, OP_ONE_TOKEN, 16, ESPL_ACT_REST, 0.3f),
    OP_ACT_DROP_ROW("relu dropout large", OP_LARGE, OP_LONG_SEGMENTS, 160, ESPL_ACT_RELU, 0.1f),
    OP_ACT_ROW("gelu tanh large", OP_LARGE, OP_LONG_SEGMENTS, 160, ESPL_ACT_GELU_TANH),

    OP_GLU_ROW("glu gelu tanh", 0, OP_ONE_SEGMENT, 11, ESPL_ACT_GELU_TANH),
    OP_GLU_ROW("glu gelu", 0, OP_ONE_SEGMENT, 11, ESPL_ACT_GELU),
    OP_GLU_ROW("glu relu", 0, OP_ONE_SEGMENT, 11, ESPL_ACT_RELU),
    OP_GLU_ROW("glu silu", 0, OP_ONE_SEGMENT, 11, ESPL_ACT_SILU),
    OP_GLU_ROW("glu tanh", 0, OP_ONE_TOKEN, 11, ESPL_ACT_TANH),
    OP_GLU_ROW("glu silu add", OP_ADD, OP_ONE_SEGMENT, 16, ESPL_ACT_SILU),
    OP_GLU_ROW("glu none", 0, OP_ONE_SEGMENT, 11, ESPL_ACT_NONE),
    OP_GLU_DROP_ROW("glu gelu tanh dropout", 0, OP_ONE_SEGMENT, 16, ESPL_ACT_GELU_TANH, 0.3f),
    OP_GLU_DROP_ROW("glu silu dropout add", OP_ADD, OP_SHORT_SEGMENTS, 13, ESPL_ACT_SILU, 0.3f),
    OP_GLU_DROP_ROW("glu dropout eval", OP_EVAL, OP_ONE_TOKEN, 8, ESPL_ACT_RELU, 0.3f),
    OP_GLU_DROP_ROW("glu gelu dropout large", OP_LARGE, OP_LONG_SEGMENTS, 80, ESPL_ACT_GELU, 0.1f),
    OP_GLU_ROW("glu silu large", OP_LARGE, OP_LONG_SEGMENTS, 80, ESPL_ACT_SILU),

    OP_MLP_ROW("mlp gelu tanh in-out", OP_BIAS, OP_ONE_SEGMENT, 16, 40, 24, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu tanh out-in", 0, OP_SHORT_SEGMENTS, 19, 32, 11, ESPL_OUT_IN, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu tanh 37 wide", OP_BIAS, OP_ONE_SEGMENT, 16, 37, 16, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu out-in", OP_BIAS, OP_ONE_SEGMENT, 16, 40, 16, ESPL_OUT_IN, ESPL_ACT_GELU),
    OP_MLP_ROW("mlp gelu in-out", 0, OP_ONE_TOKEN, 19, 23, 17, ESPL_IN_OUT, ESPL_ACT_GELU),
    OP_MLP_ROW("mlp relu", OP_BIAS, OP_ONE_SEGMENT, 16, 40, 16, ESPL_OUT_IN, ESPL_ACT_RELU),
    OP_MLP_ROW("mlp silu", 0, OP_SHORT_SEGMENTS, 16, 40, 16, ESPL_IN_OUT, ESPL_ACT_SILU),
    OP_MLP_ROW("mlp gelu tanh add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 16, 40, 24, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 16, 40, 24, ESPL_OUT_IN, ESPL_ACT_GELU),
    OP_MLP_ROW("mlp frozen", OP_BIAS | OP_FROZEN, OP_ONE_SEGMENT, 16, 40, 24, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp parameters only", OP_BIAS | OP_NO_DIN, OP_ONE_SEGMENT, 16, 40, 24, ESPL_OUT_IN, ESPL_ACT_GELU),
    OP_MLP_ROW("mlp gelu tanh large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 130, 264, 72, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 96, 257, 130, ESPL_OUT_IN, ESPL_ACT_GELU),

    OP_BOTTLENECK_ROW("bottleneck silu", OP_BIAS, OP_ONE_SEGMENT, 24, 5, ESPL_OUT_IN, ESPL_ACT_SILU),
    OP_BOTTLENECK_ROW("bottleneck gelu tanh", OP_BIAS, OP_SHORT_SEGMENTS, 19, 8, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_BOTTLENECK_ROW("bottleneck relu add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 16, 8, ESPL_OUT_IN, ESPL_ACT_RELU),
    OP_BOTTLENECK_ROW("bottleneck frozen", OP_FROZEN, OP_ONE_TOKEN, 16, 8, ESPL_OUT_IN, ESPL_ACT_GELU),
    OP_BOTTLENECK_ROW("bottleneck parameters only", OP_BIAS | OP_NO_DIN, OP_ONE_SEGMENT, 16, 8, ESPL_OUT_IN, ESPL_ACT_TANH),
    OP_BOTTLENECK_ROW("bottleneck large", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 130, 24, ESPL_OUT_IN, ESPL_ACT_SILU),

    OP_XENT_ROW("xent", 0, OP_ONE_SEGMENT, 16, 37, 1),
    OP_XENT_ROW("xent ignored targets", OP_IGNORE, OP_SHORT_SEGMENTS, 13, 29, 1),
    OP_XENT_ROW("xent scale", OP_IGNORE, OP_ONE_SEGMENT, 16, 37, 0.25f),
    OP_XENT_ROW("xent add", OP_IGNORE | OP_ADD, OP_ONE_SEGMENT, 16, 37, 1),
    OP_XENT_ROW("xent frozen", OP_FROZEN, OP_ONE_SEGMENT, 16, 37, 1),
    OP_XENT_ROW("xent parameters only", OP_NO_DIN, OP_ONE_SEGMENT, 16, 37, 1),
    OP_XENT_ROW("xent one token", 0, OP_ONE_TOKEN, 16, 37, 1),
    OP_XENT_ROW("xent bias", OP_BIAS, OP_ONE_SEGMENT, 16, 37, 1),
    OP_XENT_ROW("xent bias scale weights", OP_BIAS | OP_WEIGHTS | OP_IGNORE, OP_SHORT_SEGMENTS, 13, 29, 0.25f),
    OP_XENT_ROW("xent weights", OP_WEIGHTS, OP_ONE_SEGMENT, 16, 5, 1),
    OP_XENT_ROW("xent two labels", OP_BIAS | OP_WEIGHTS, OP_SHORT_SEGMENTS, 24, 2, 1),
    OP_XENT_ROW("xent three labels one row", OP_BIAS | OP_WEIGHTS, OP_ONE_TOKEN, 17, 3, 1),
    OP_XENT_ROW("xent bias add", OP_BIAS | OP_WEIGHTS | OP_IGNORE | OP_ADD, OP_ONE_SEGMENT, 16, 7, 0.5f),
    OP_XENT_ROW("xent bias frozen", OP_BIAS | OP_FROZEN, OP_LONE_TOKENS, 16, 9, 1),
    OP_XENT_ROW("xent bias parameters only", OP_BIAS | OP_NO_DIN, OP_ONE_SEGMENT, 16, 6, 1),
    OP_XENT_ROW("xent masked", OP_BIAS | OP_MASKED, OP_ONE_SEGMENT, 24, 37, 1),
    OP_XENT_ROW("xent no targets", OP_BIAS | OP_NO_TARGETS, OP_SHORT_SEGMENTS, 16, 7, 1),
    OP_XENT_ROW("xent no targets add", OP_BIAS | OP_NO_TARGETS | OP_ADD, OP_SHORT_SEGMENTS, 16, 7, 1),
    OP_XENT_ROW("xent masked large", OP_BIAS | OP_MASKED | OP_LARGE, OP_LONG_SEGMENTS, 72, 1031, 1),

    OP_POOL_ROW("pool first", 0, OP_SHORT_SEGMENTS, 16, ESPL_POOL_FIRST),
    OP_POOL_ROW("pool last", 0, OP_SHORT_SEGMENTS, 13, ESPL_POOL_LAST),
    OP_POOL_ROW("pool last add", OP_ADD, OP_LONE_TOKENS, 24, ESPL_POOL_LAST),
    OP_POOL_ROW("pool first add", OP_ADD, OP_SHORT_SEGMENTS, 9, ESPL_POOL_FIRST),
    OP_POOL_ROW("pool one token", 0, OP_ONE_TOKEN, 8, ESPL_POOL_LAST),
    {"pool behind others", ESPL_OP_POOL, OP_ADD, {0, 3, 8, 16, 29}, {.n_in = 16, .kind = ESPL_POOL_FIRST, .prompt = 2}},
    {"pool last behind others", ESPL_OP_POOL, 0, {0, 3, 8, 16, 29}, {.n_in = 9, .kind = ESPL_POOL_LAST, .prompt = 2}},
    OP_POOL_ROW("pool large", OP_LARGE, OP_LONG_SEGMENTS, 200, ESPL_POOL_FIRST),

    OP_XENT_ROW("xent large", OP_IGNORE | OP_LARGE, OP_LONG_SEGMENTS, 72, 1031, 1),
};
/* clang-format on */

enum { OP_N_CASES = sizeof op_cases / sizeof op_cases[0] };

/* The numbers of one case; owned. A slot that the case lacks is NULL. */
typedef struct op_values {
    espl_op op;
    espl_attrs attrs;
    espl_batch batch;
    float *rope;
    int32_t *tokens; /* ids, positions, targets, types */
    float *weights;
    espl_batch *source;      /* CROSS_ATTENTION */
    int32_t *source_segment; /* OP_CHOSEN */
    int64_t out_rows;        /* of out0: tokens, or segments where they are pooled */
    double *slot[OP_SLOTS];
    int64_t size[OP_SLOTS];
} op_values;

static inline int op_count_segments(const int32_t *offsets, int most) {
    int s = 0;
    while (s < most && offsets[s + 1] > offsets[s])
        s++;
    return s;
}

static inline int64_t op_case_segments(const op_case *c) { return op_count_segments(c->segments, 15); }
static inline int64_t op_case_tokens(const op_case *c) { return c->segments[op_case_segments(c)]; }

/* The same of the source; no segments where the case has none. */
static inline const int32_t *op_source(const op_case *c) { return c->segments + op_case_segments(c) + 1; }
static inline int op_source_segments(const op_case *c) { return op_count_segments(op_source(c), 14 - (int)op_case_segments(c)); }
static inline int64_t op_source_tokens(const op_case *c) { return op_source(c)[op_source_segments(c)]; }

static inline int64_t op_lora_size(const espl_attrs *a) {
    int64_t size = 0;
    for (int p = 0; p < a->n_parts; p++)
        size += a->part[p].width * a->part[p].rank;
    return size;
}

/* Elements of all parts' columns, and of the As of WEIGHT_NORM. */
static inline int64_t op_parts_width(const espl_attrs *a) {
    int64_t width = 0;
    for (int p = 0; p < a->n_parts; p++)
        width += a->part[p].width;
    return width;
}

static inline int64_t op_downs_size(const espl_attrs *a) {
    int64_t ranks = 0;
    for (int p = 0; p < a->n_parts; p++)
        ranks += a->part[p].rank;
    return ranks * a->n_in;
}

/* What has no rows of tokens, though it is no parameter. */
static inline bool op_slot_is_fixed(espl_op op, int slot) {
    return (op == ESPL_OP_WEIGHT_NORM && slot == OP_OUT0) || (op == ESPL_OP_MAGNITUDE && slot == OP_IN1);
}

/* Elements of inputs, outputs and parameters; 0: absent. */
static inline int64_t op_forward_size(const op_case *c, int slot) {
    const espl_attrs *a = &c->attrs;
    int64_t n = op_case_tokens(c), bias = c->flags & OP_BIAS ? 1 : 0, heads = a->heads + 2 * a->kv_heads;
    const int64_t sizes[ESPL_N_OPS][OP_DIN0] = {
        [ESPL_OP_EMBED] = {0, 0, n * a->n_out, 0, 0, a->vocab * a->n_out, bias * a->positions * a->n_out, a->types * a->n_out,
                           a->prompt * a->n_out},
        [ESPL_OP_RESNORM] = {n * a->n_in, c->flags & OP_FIRST ? 0 : n * a->n_in, n * a->n_in, n * a->n_in, 2 * n, a->n_in, bias * a->n_in},
        [ESPL_OP_LINEAR] = {n * a->n_in, 0, n * a->n_out, 0, 0, a->n_in * a->n_out, bias * a->n_out},
        [ESPL_OP_QKV] = {n * a->n_in, 0, n * a->n_out, 0, 0, a->n_in * a->n_out, bias * a->n_out},
        [ESPL_OP_ATTENTION] = {n * heads * a->head_dim, 0, n * a->heads * a->head_dim, n * a->heads, 0, a->rel_buckets * a->heads, 0},
        [ESPL_OP_CROSS_ATTENTION] = {n * a->heads * a->head_dim, op_source_tokens(c) * 2 * a->kv_heads * a->head_dim,
                                     n * a->heads * a->head_dim, n * a->heads},
        [ESPL_OP_ACT] = {n * a->n_in, 0, n * a->n_in, 0, 0, 0, 0},
        [ESPL_OP_GLU] = {n * a->n_in, 0, n * a->n_out, 0, 0, 0, 0},
        [ESPL_OP_MLP] = {n * a->n_in, 0, n * a->n_out, n * a->ffn, 0, a->n_in * a->ffn, bias * a->ffn, a->ffn * a->n_out, bias * a->n_out},
        [ESPL_OP_LINEAR_XENT] = {n * a->n_in, 0, n, 0, 0, a->vocab * a->n_in, bias * a->vocab},
        [ESPL_OP_POOL] = {n * a->n_in, 0, op_case_segments(c) * a->n_in},
        [ESPL_OP_LORA] = {n * a->n_in, n * a->n_out, n * a->n_out, 0, 0, op_lora_size(a)},
        [ESPL_OP_WEIGHT_NORM] = {0, 0, op_parts_width(a), 0, 0, a->n_in * a->n_out, op_downs_size(a), op_lora_size(a)},
        [ESPL_OP_MAGNITUDE] = {n * a->n_out, op_parts_width(a), n * a->n_out, 0, 0, op_parts_width(a), bias * a->n_out},
        [ESPL_OP_ROPE] = {n * a->n_out, 0, n * a->n_out},
        [ESPL_OP_PREFIX] = {n * a->n_out, 0, n * a->n_out, 0, 0, a->prompt * a->n_in},
    };
    return sizes[c->op][slot];
}

/* Statistics and gradients of parameters have the format `stat`, the rest is `real`. */
static inline bool op_slot_is_stat(espl_op op, int slot) {
    return (op == ESPL_OP_RESNORM && slot == OP_OUT2) || (op == ESPL_OP_ATTENTION && slot == OP_OUT1) || op_slot_is_fixed(op, slot) ||
           (op == ESPL_OP_CROSS_ATTENTION && slot == OP_OUT1) || (op == ESPL_OP_LINEAR_XENT && slot == OP_OUT0) || slot >= OP_DPARAM0;
}

static inline int64_t op_slot_size(const op_case *c, int slot) {
    if (slot < OP_DIN0)
        return op_forward_size(c, slot);
    if (c->flags & OP_FORWARD)
        return 0;
    if (slot < OP_DOUT0) {
        bool absent =
            c->flags & OP_NO_DIN || (slot == OP_DIN1 && (c->flags & OP_SHARED || c->op == ESPL_OP_LORA || c->op == ESPL_OP_MAGNITUDE));
        return absent ? 0 : op_forward_size(c, slot - OP_DIN0 + OP_IN0);
    }
    if (slot < OP_DPARAM0) {
        int of = slot - OP_DOUT0 + OP_OUT0;
        bool absent = op_slot_is_stat(c->op, of) || (slot == OP_DOUT0 && c->flags & OP_LAST) || (slot == OP_DOUT1 && c->op == ESPL_OP_MLP);
        return absent ? 0 : op_forward_size(c, of);
    }
    return c->flags & OP_FROZEN ? 0 : op_forward_size(c, slot - OP_DPARAM0 + OP_PARAM0);
}

static inline bool op_slot_is_result(int slot) {
    return (slot >= OP_OUT0 && slot <= OP_OUT2) || slot == OP_DIN0 || slot == OP_DIN1 || slot >= OP_DPARAM0;
}

/* The stream of a case, from its name: a new row does not change the numbers of the others. */
static inline uint64_t op_case_seed(const op_case *c) {
    uint64_t seed = 0;
    for (const char *p = c->name; *p; p++)
        seed = seed * 131 + (unsigned char)*p;
    return seed;
}

/* The first n normal numbers of a slot; those of the last case are kept, because every check takes them several times and they cost as much
 * as a kernel. */
static inline const double *op_normals(const op_case *c, int slot, int64_t n) {
    static struct {
        uint64_t seed;
        int64_t n;
        double *x;
    } kept[OP_SLOTS];
    espl_rng_key key = {.seed = op_case_seed(c), .purpose = ESPL_RNG_TEST, .op = (uint32_t)slot};
    if (kept[slot].seed == key.seed && kept[slot].n >= n)
        return kept[slot].x;
    free(kept[slot].x);
    kept[slot].x = malloc((size_t)n * sizeof(double));
    kept[slot].seed = key.seed;
    kept[slot].n = n;
    for (int64_t e = 0; e < n; e++)
        kept[slot].x[e] = espl_rng_normal(&key, (uint64_t)e);
    return kept[slot].x;
}

/* A number of the case on the grid of `format`, from a normal one. */
static inline double op_number(const op_case *c, int slot, int64_t element, double x, espl_dtype format) {
    double rounded;
    char narrow[sizeof(double)];
    if ((slot == OP_PARAM0 && (c->op == ESPL_OP_RESNORM || c->op == ESPL_OP_MAGNITUDE)) || op_slot_is_fixed(c->op, slot))
        x = 1 + 0.2 * x;
    else if (slot == OP_PARAM0 && c->op != ESPL_OP_EMBED && c->op != ESPL_OP_ATTENTION)
        x /= sqrt((double)c->attrs.n_in);
    else if (slot == OP_PARAM2 && c->op == ESPL_OP_MLP)
        x /= sqrt((double)c->attrs.ffn);
    else if (slot == OP_PARAM1 && c->op == ESPL_OP_MLP && c->attrs.kind == ESPL_ACT_RELU)
        x += element % 2 ? 5 : -5; /* so is the kink */
    if ((c->op == ESPL_OP_ACT || c->op == ESPL_OP_GLU) && slot == OP_IN0 && fabs(x) < 0.0625)
        x = x < 0 ? -0.0625 : 0.0625; /* finite differences must not step over the kink of relu */
    espl_dtype_convert(narrow, format, &x, ESPL_F64, 1);
    espl_dtype_convert(&rounded, ESPL_F64, narrow, format, 1);
    return rounded;
}

static inline bool op_has_target(const op_case *c, int64_t t) {
    bool learned = t % 150 == 100 || (t % 150 >= 120 && t % 150 < 140);
    if (c->flags & (OP_MASKED | OP_NO_TARGETS))
        return c->flags & OP_MASKED && t * 7 % 20 < 3;
    return c->flags & OP_PROMPTS ? learned : !(c->flags & OP_IGNORE && t % 3 == 1);
}

/* Positions count in each segment, as in packed documents; ids and targets are random. */
static inline void op_fill_tokens(const op_case *c, op_values *v) {
    espl_rng_key key = {.seed = op_case_seed(c), .purpose = ESPL_RNG_TEST, .op = OP_SLOTS};
    int64_t n = v->batch.n, vocab = c->attrs.vocab > 0 ? c->attrs.vocab : 1, types = c->attrs.types > 0 ? c->attrs.types : 1, segment = 0;
    int32_t *ids = v->tokens, *positions = ids + n, *targets = positions + n, *kinds = targets + n;
    for (int64_t t = 0; t < n; t++) {
        segment += t == c->segments[segment + 1];
        ids[t] = (int32_t)(espl_rng_u32(&key, (uint64_t)(2 * t)) % vocab);
        targets[t] = op_has_target(c, t) ? (int32_t)(espl_rng_u32(&key, (uint64_t)(2 * t + 1)) % vocab) : -1;
        positions[t] = (int32_t)t - c->segments[segment];
        if (positions[t] < c->attrs.prompt)
            ids[t] = (int32_t)(c->attrs.vocab + positions[t]);
        kinds[t] = (int32_t)(espl_rng_u32(&key, (uint64_t)(2 * n + t)) % types);
        v->weights[t] = (float)(1 + espl_rng_u32(&key, (uint64_t)(3 * n + t)) % 8) / 4;
    }
    v->batch.ids = ids;
    v->batch.positions = positions;
    v->batch.targets = targets;
    v->batch.types = c->flags & OP_TYPES ? kinds : NULL;
    v->batch.weights = c->flags & OP_WEIGHTS ? v->weights : NULL;
}

/* cos and sin of position / 10000^(2 i / rope_dim). */
static inline void op_fill_rope(op_values *v) {
    int64_t dim = v->attrs.rope_dim;
    v->rope = malloc((size_t)(v->attrs.positions * dim + 1) * sizeof(float));
    for (int64_t p = 0; p < v->attrs.positions && dim > 0; p++)
        for (int64_t i = 0; i < dim / 2; i++) {
            double angle = (double)p * pow(10000, -2.0 * (double)i / (double)dim);
            v->rope[p * dim + i] = (float)cos(angle);
            v->rope[p * dim + dim / 2 + i] = (float)sin(angle);
        }
}

/* Whether a gradient is added to what is there. */
static inline bool op_slot_is_added(const op_case *c, int slot) {
    bool first = slot == OP_DIN0 || slot == OP_DPARAM0;
    return slot >= OP_DIN0 && (c->flags & OP_ADD || (first && c->flags & OP_ADD_FIRST));
}

/* The source of a case that has one. */
static inline void op_fill_source(const op_case *c, op_values *v) {
    int32_t n = op_source_segments(c);
    if (n == 0)
        return;
    v->source = malloc(sizeof *v->source);
    *v->source = (espl_batch){.n = op_source_tokens(c), .n_segments = n, .segments = op_source(c), .training = v->batch.training};
    v->batch.source = v->source;
    if (!(c->flags & OP_CHOSEN))
        return;
    v->source_segment = malloc((size_t)v->batch.n_segments * sizeof *v->source_segment);
    for (int32_t s = 0; s < v->batch.n_segments; s++)
        v->source_segment[s] = n - 1 - s % n;
    v->batch.source_segment = v->source_segment;
}

/* The inputs of a case, and what gradients are added to, on the grid of `format`; results are NaN. Free with op_values_free. */
static inline op_values op_values_make(const op_case *c, espl_dtype format) {
    op_values v = {.op = c->op, .attrs = c->attrs};
    int64_t n = op_case_tokens(c);
    v.batch = (espl_batch){.n = n, .segments = c->segments, .loss_scale = 0.125f, .training = !(c->flags & OP_EVAL)};
    v.batch.rng = (espl_rng_key){.seed = 3, .purpose = ESPL_RNG_DROPOUT, .step = 5, .micro = 2};
    while (c->segments[v.batch.n_segments] < n)
        v.batch.n_segments++;
    v.out_rows = c->op == ESPL_OP_POOL ? v.batch.n_segments : n;
    v.tokens = malloc((size_t)(4 * n) * sizeof *v.tokens);
    v.weights = malloc((size_t)n * sizeof *v.weights);
    op_fill_tokens(c, &v);
    op_fill_rope(&v);
    op_fill_source(c, &v);
    for (int s = 0; s < OP_SLOTS; s++) {
        v.size[s] = op_slot_size(c, s);
        v.slot[s] = v.size[s] ? malloc((size_t)v.size[s] * sizeof(double)) : NULL;
        bool empty = op_slot_is_result(s) && !op_slot_is_added(c, s);
        const double *normals = empty ? NULL : op_normals(c, s, v.size[s]);
        for (int64_t e = 0; e < v.size[s]; e++)
            v.slot[s][e] = empty ? NAN : op_number(c, s, e, normals[e], format);
    }
    return v;
}

static inline void op_values_free(op_values *v) {
    for (int s = 0; s < OP_SLOTS; s++)
        free(v->slot[s]);
    free(v->tokens);
    free(v->weights);
    free(v->source);
    free(v->source_segment);
    free(v->rope);
    memset(v, 0, sizeof *v);
}

#endif
