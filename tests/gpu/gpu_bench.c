/* Times the kernels of a backend on whole-model shapes: what they move or multiply a second, beside a plain copy and one large matrix
 * product on the same device in the same run.
 *
 *   gpu_bench BACKEND full|small fp32|bf16 [part of a name]
 *
 * Prints one JSON object a line: first the device, then a line for each kernel and pass with the milliseconds of one call (the median of
 * some series, each of enough calls), the bytes that it must read and write at least, and its floating-point operations. `small` is for
 * rehearsals on an emulator. */
#include "kernels/backend.h"
#include "src/core/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN0, IN1, OUT0, OUT1, OUT2, PARAM0, PARAM1, PARAM2, PARAM3, DIN0, DOUT0, DOUT1, DPARAM0, DPARAM1, DPARAM2, DPARAM3, SLOTS };
enum { SERIES = 5, BLOCK = 1 << 20 };

typedef struct bench_case {
    const char *name;
    espl_op op;
    int64_t sequences, length; /* tokens of each */
    espl_attrs attrs;
} bench_case;

typedef struct bench {
    const espl_device_calls *calls;
    const espl_kernels *kernels;
    espl_device *device;
    double series_seconds;
    const char *only;
} bench;

#define RESNORM(name, sequences, length, width, norm)                                                                                      \
    {                                                                                                                                      \
        name, ESPL_OP_RESNORM, sequences, length, { .n_in = width, .kind = norm, .eps = 1e-5f }                                            \
    }
#define LINEAR(name, sequences, length, in, out, order)                                                                                    \
    {                                                                                                                                      \
        name, ESPL_OP_LINEAR, sequences, length, { .n_in = in, .n_out = out, .layout = order }                                             \
    }
#define MLP(name, sequences, length, width, between, order, f)                                                                             \
    {                                                                                                                                      \
        name, ESPL_OP_MLP, sequences, length, { .n_in = width, .ffn = between, .n_out = width, .layout = order, .kind = f }                \
    }
#define ATTENTION(name, sequences, length, h, g, d)                                                                                        \
    {                                                                                                                                      \
        name, ESPL_OP_ATTENTION, sequences, length, { .heads = h, .kv_heads = g, .head_dim = d, .causal = 1 }                              \
    }

/* GPT-2 124M with 32 sequences of 1,024 tokens; Llama-3-8B with one of 8,192. */
static const bench_case full_cases[] = {
    LINEAR("matrix", 8, 1024, 8192, 8192, ESPL_OUT_IN),
    {"gpt2 embed", ESPL_OP_EMBED, 32, 1024, {.n_out = 768, .vocab = 50257, .positions = 1024, .scale = 1}},
    RESNORM("gpt2 resnorm", 32, 1024, 768, ESPL_NORM_LAYER),
    {"gpt2 qkv", ESPL_OP_QKV, 32, 1024, {.n_in = 768, .n_out = 2304, .heads = 12, .kv_heads = 12, .head_dim = 64, .layout = ESPL_IN_OUT}},
    ATTENTION("gpt2 attention", 32, 1024, 12, 12, 64),
    LINEAR("gpt2 linear", 32, 1024, 768, 3072, ESPL_IN_OUT),
    {"gpt2 act", ESPL_OP_ACT, 32, 1024, {.n_in = 3072, .kind = ESPL_ACT_GELU_TANH}},
    MLP("gpt2 mlp", 32, 1024, 768, 3072, ESPL_IN_OUT, ESPL_ACT_GELU_TANH), /* GELU on the products */
    MLP("bert mlp", 32, 1024, 768, 3072, ESPL_OUT_IN, ESPL_ACT_GELU),      /* and in a pass of its own */
    {"gpt2 linear_xent", ESPL_OP_LINEAR_XENT, 32, 1024, {.n_in = 768, .vocab = 50257, .scale = 1}},
    {"llama embed", ESPL_OP_EMBED, 1, 8192, {.n_out = 4096, .vocab = 128256, .scale = 1}},
    RESNORM("llama resnorm", 1, 8192, 4096, ESPL_NORM_RMS),
    {"llama qkv",
     ESPL_OP_QKV,
     1,
     8192,
     {.n_in = 4096, .n_out = 6144, .heads = 32, .kv_heads = 8, .head_dim = 128, .rope_dim = 128, .positions = 8192}},
    ATTENTION("llama attention", 1, 8192, 32, 8, 128),
    LINEAR("llama linear", 1, 8192, 14336, 4096, ESPL_OUT_IN),
    {"llama glu", ESPL_OP_GLU, 1, 8192, {.n_in = 28672, .n_out = 14336, .kind = ESPL_ACT_SILU}},
    {"llama linear_xent", ESPL_OP_LINEAR_XENT, 1, 8192, {.n_in = 4096, .vocab = 128256, .scale = 1}},
};

static const bench_case small_cases[] = {
    LINEAR("matrix", 2, 16, 32, 32, ESPL_OUT_IN),
    {"gpt2 embed", ESPL_OP_EMBED, 2, 16, {.n_out = 32, .vocab = 97, .positions = 16, .scale = 1}},
    RESNORM("gpt2 resnorm", 2, 16, 32, ESPL_NORM_LAYER),
    {"gpt2 qkv", ESPL_OP_QKV, 2, 16, {.n_in = 32, .n_out = 384, .heads = 2, .kv_heads = 2, .head_dim = 64, .layout = ESPL_IN_OUT}},
    ATTENTION("gpt2 attention", 2, 16, 2, 2, 64),
    LINEAR("gpt2 linear", 2, 16, 32, 64, ESPL_IN_OUT),
    {"gpt2 act", ESPL_OP_ACT, 2, 16, {.n_in = 64, .kind = ESPL_ACT_GELU_TANH}},
    MLP("gpt2 mlp", 2, 16, 32, 64, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    MLP("bert mlp", 2, 16, 32, 64, ESPL_OUT_IN, ESPL_ACT_GELU),
    {"gpt2 linear_xent", ESPL_OP_LINEAR_XENT, 2, 16, {.n_in = 32, .vocab = 97, .scale = 1}},
    RESNORM("llama resnorm", 1, 40, 48, ESPL_NORM_RMS),
    {"llama qkv",
     ESPL_OP_QKV,
     1,
     40,
     {.n_in = 48, .n_out = 512, .heads = 2, .kv_heads = 1, .head_dim = 128, .rope_dim = 128, .positions = 64}},
    ATTENTION("llama attention", 1, 40, 2, 1, 128),
    LINEAR("llama linear", 1, 40, 64, 48, ESPL_OUT_IN),
    {"llama glu", ESPL_OP_GLU, 1, 40, {.n_in = 128, .n_out = 64, .kind = ESPL_ACT_SILU}},
};

static int64_t tokens_of(const bench_case *c) { return c->sequences * c->length; }

static bool is_stat(const bench_case *c, int slot) {
    return slot >= DPARAM0 || (c->op == ESPL_OP_RESNORM && slot == OUT2) || (c->op == ESPL_OP_ATTENTION && slot == OUT1) ||
           (c->op == ESPL_OP_LINEAR_XENT && slot == OUT0);
}

/* Elements of each tensor of a case; 0: absent. The gradient of an input that may lie in that of the output does. */
static void sizes_of(const bench_case *c, int64_t size[SLOTS]) {
    const espl_attrs *a = &c->attrs;
    int64_t n = tokens_of(c), heads = a->heads, wide = (heads + 2 * a->kv_heads) * a->head_dim;
    memset(size, 0, SLOTS * sizeof *size);
    switch (c->op) {
    case ESPL_OP_EMBED: size[OUT0] = n * a->n_out, size[PARAM0] = a->vocab * a->n_out, size[PARAM1] = a->positions * a->n_out; break;
    case ESPL_OP_RESNORM:
        size[IN0] = size[IN1] = size[OUT0] = size[OUT1] = size[DOUT1] = n * a->n_in;
        size[OUT2] = 2 * n;
        size[PARAM0] = a->n_in, size[PARAM1] = a->kind == ESPL_NORM_LAYER ? a->n_in : 0;
        break;
    case ESPL_OP_LINEAR:
    case ESPL_OP_QKV:
        size[IN0] = size[DIN0] = n * a->n_in, size[OUT0] = n * a->n_out, size[PARAM0] = a->n_in * a->n_out;
        size[PARAM1] = a->layout == ESPL_IN_OUT ? a->n_out : 0;
        break;
    case ESPL_OP_MLP:
        size[IN0] = size[DIN0] = n * a->n_in, size[OUT0] = n * a->n_out, size[OUT1] = n * a->ffn;
        size[PARAM0] = a->n_in * a->ffn, size[PARAM1] = a->ffn, size[PARAM2] = a->ffn * a->n_out, size[PARAM3] = a->n_out;
        break;
    case ESPL_OP_ATTENTION: size[IN0] = size[DIN0] = n * wide, size[OUT0] = n * heads * a->head_dim, size[OUT1] = n * heads; break;
    case ESPL_OP_ACT: size[IN0] = size[OUT0] = n * a->n_in; break;
    case ESPL_OP_GLU: size[IN0] = size[DIN0] = n * a->n_in, size[OUT0] = n * a->n_out; break;
    default: size[IN0] = size[DIN0] = n * a->n_in, size[OUT0] = n, size[PARAM0] = a->vocab * a->n_in; break;
    }
    size[DOUT0] = c->op == ESPL_OP_LINEAR_XENT ? 0 : size[OUT0];
    for (int p = 0; p < ESPL_MAX_PARAM; p++)
        size[DPARAM0 + p] = size[PARAM0 + p];
}

/* Bytes that a pass must move at least: every row of what it reads and writes, once. */
static double bytes_of(const bench_case *c, size_t real, int backward) {
    const espl_attrs *a = &c->attrs;
    double n = (double)tokens_of(c), r = (double)real;
    switch (c->op) {
    case ESPL_OP_EMBED: /* backward: the gradient, and the table of fp32 written whole */
        return backward ? n * (double)a->n_out * r + 4 * (double)a->vocab * (double)a->n_out : 2 * n * (double)a->n_out * r;
    case ESPL_OP_RESNORM: return 4 * n * (double)a->n_in * r;
    case ESPL_OP_ACT: return (backward ? 3 : 2) * n * (double)a->n_in * r;
    case ESPL_OP_GLU: return (backward ? 5 : 3) * n * (double)a->n_out * r;
    default: return 0;
    }
}

/* Backward of attention multiplies five matrices where forward multiplies two (Dao 2023); the loss's backward includes its forward. */
static double flops_of(const bench_case *c, int backward) {
    double length = (double)c->length, pairs = (double)c->sequences * length * (length + 1) / 2;
    double forward = espl_op_flops(c->op, &c->attrs, (double)tokens_of(c), pairs);
    return !backward ? forward : c->op == ESPL_OP_ATTENTION ? 2.5 * forward : c->op == ESPL_OP_LINEAR_XENT ? 3 * forward : 2 * forward;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef void timed_call(const bench *b, void *context);

static espl_status time_series(const bench *b, timed_call *call, void *context, int calls, double *seconds) {
    ESPL_TRY(b->calls->sync(b->device));
    double start = espl_now();
    for (int i = 0; i < calls; i++)
        call(b, context);
    ESPL_TRY(b->calls->sync(b->device));
    *seconds = (espl_now() - start) / calls;
    return ESPL_OK;
}

/* Seconds of one call: the median of SERIES series, each long enough that launching and waiting do not count. */
static espl_status time_call(const bench *b, timed_call *call, void *context, double *seconds) {
    double series[SERIES], once;
    ESPL_TRY(time_series(b, call, context, 1, &once)); /* libraries load and choose */
    ESPL_TRY(time_series(b, call, context, b->series_seconds > 0 ? 3 : 1, &once));
    double wanted = ceil(b->series_seconds / once);
    int calls = wanted < 1 ? 1 : wanted > 500 ? 500 : (int)wanted;
    for (int i = 0; i < SERIES; i++)
        ESPL_TRY(time_series(b, call, context, calls, &series[i]));
    qsort(series, SERIES, sizeof *series, ascending);
    *seconds = series[SERIES / 2];
    return ESPL_OK;
}

static void report(const char *name, const char *pass, const char *shape, double seconds, double bytes, double flops) {
    printf("{\"name\": \"%s\", \"pass\": \"%s\", \"shape\": \"%s\", \"ms\": %.6g, \"bytes\": %.17g, \"flops\": %.17g}\n", name, pass, shape,
           1e3 * seconds, bytes, flops);
    fflush(stdout);
}

/* Device memory of `bytes`, filled with a block of random numbers again and again; zeros where `format` is that of statistics. */
static espl_status filled(const bench *b, size_t bytes, espl_dtype format, bool zero, void **memory) {
    static float block[BLOCK];
    static double narrow[BLOCK];
    ESPL_TRY(b->calls->alloc(b->device, "bench", bytes, memory));
    if (zero)
        return ESPL_OK;
    espl_rng_key key = {.seed = 1, .purpose = ESPL_RNG_TEST};
    for (int i = 0; block[0] == 0 && i < BLOCK; i++)
        block[i] = 0.05f * (float)espl_rng_normal(&key, (uint64_t)i);
    espl_dtype_convert(narrow, format, block, ESPL_F32, BLOCK);
    size_t step = BLOCK * espl_dtype_size(format);
    for (size_t at = 0; at < bytes; at += step)
        ESPL_TRY(b->calls->write(b->device, (char *)*memory + at, narrow, bytes - at < step ? bytes - at : step));
    return ESPL_OK;
}

/* The micro-batch of a case: random tokens, every sequence a segment. */
typedef struct tokens {
    espl_batch batch;
    int32_t *numbers;
} tokens;

static tokens tokens_make(const bench_case *c) {
    int64_t n = tokens_of(c);
    int32_t vocab = c->attrs.vocab > 0 ? (int32_t)c->attrs.vocab : 2;
    tokens t = {.numbers = calloc((size_t)(3 * n + c->sequences + 1), sizeof(int32_t))};
    int32_t *ids = t.numbers, *positions = ids + n, *targets = positions + n, *segments = targets + n;
    espl_rng_key key = {.seed = 2, .purpose = ESPL_RNG_TEST};
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(espl_rng_u32(&key, (uint64_t)i) % (uint32_t)vocab);
        targets[i] = (int32_t)(espl_rng_u32(&key, (uint64_t)(n + i)) % (uint32_t)vocab);
        positions[i] = (int32_t)(i % c->length);
    }
    for (int64_t s = 0; s <= c->sequences; s++)
        segments[s] = (int32_t)(s * c->length);
    t.batch = (espl_batch){.n = n,
                           .n_segments = (int32_t)c->sequences,
                           .segments = segments,
                           .ids = ids,
                           .positions = positions,
                           .targets = targets,
                           .loss_scale = 1.0f / (float)n,
                           .training = 1};
    return t;
}

typedef struct op_call {
    espl_kernel *kernel;
    const espl_args *args;
} op_call;

static void call_op(const bench *b, void *context) {
    const op_call *c = context;
    (void)b;
    c->kernel(c->args);
}

typedef struct case_memory {
    void *slot[SLOTS], *work, *rope;
    size_t bytes[SLOTS], work_bytes, rope_bytes;
} case_memory;

static espl_status memory_make(const bench *b, const bench_case *c, const espl_attrs *attrs, case_memory *m) {
    int64_t size[SLOTS];
    sizes_of(c, size);
    for (int s = 0; s < SLOTS; s++) {
        espl_dtype format = is_stat(c, s) ? b->kernels->stat : b->kernels->real;
        m->bytes[s] = (size_t)size[s] * espl_dtype_size(format);
        if (m->bytes[s] > 0)
            ESPL_TRY(filled(b, m->bytes[s], format, is_stat(c, s), &m->slot[s]));
    }
    for (int backward = 0; backward < 2; backward++) {
        size_t bytes = b->kernels->work_bytes(c->op, attrs, tokens_of(c), 1, backward);
        m->work_bytes = bytes > m->work_bytes ? bytes : m->work_bytes;
    }
    if (m->work_bytes > 0)
        ESPL_TRY(b->calls->alloc(b->device, "work", m->work_bytes, &m->work));
    m->rope_bytes = (size_t)(attrs->rope_dim * attrs->positions) * sizeof(float);
    return m->rope_bytes > 0 ? filled(b, m->rope_bytes, ESPL_F32, false, &m->rope) : ESPL_OK;
}

static void memory_free(const bench *b, case_memory *m) {
    for (int s = 0; s < SLOTS; s++)
        if (m->slot[s] != NULL)
            b->calls->release(b->device, m->slot[s], m->bytes[s]);
    if (m->work != NULL)
        b->calls->release(b->device, m->work, m->work_bytes);
    if (m->rope != NULL)
        b->calls->release(b->device, m->rope, m->rope_bytes);
}

static espl_args args_of(const bench_case *c, const espl_attrs *attrs, const espl_batch *batch, const case_memory *m) {
    bool in_place = c->op == ESPL_OP_RESNORM || c->op == ESPL_OP_ACT;
    return (espl_args){.attrs = attrs,
                       .batch = batch,
                       .in = {m->slot[IN0], m->slot[IN1]},
                       .out = {m->slot[OUT0], m->slot[OUT1], m->slot[OUT2]},
                       .param = {m->slot[PARAM0], m->slot[PARAM1], m->slot[PARAM2], m->slot[PARAM3]},
                       .din = {in_place ? m->slot[DOUT0] : m->slot[DIN0]},
                       .dout = {m->slot[DOUT0], m->slot[DOUT1]},
                       .dparam = {m->slot[DPARAM0], m->slot[DPARAM1], m->slot[DPARAM2], m->slot[DPARAM3]},
                       .rope = m->rope,
                       .work = m->work};
}

static espl_status time_passes(const bench *b, const bench_case *c, const espl_args *args) {
    char shape[128];
    const espl_attrs *a = &c->attrs;
    if (c->op == ESPL_OP_ATTENTION)
        snprintf(shape, sizeof shape, "B%lld T%lld H%d G%d d%d", (long long)c->sequences, (long long)c->length, a->heads, a->kv_heads,
                 a->head_dim);
    else
        snprintf(shape, sizeof shape, "N%lld %lld x %lld", (long long)tokens_of(c), (long long)(a->n_in > 0 ? a->n_in : a->n_out),
                 (long long)(a->vocab > 0   ? a->vocab
                             : a->n_out > 0 ? a->n_out
                                            : a->n_in));
    size_t real = espl_dtype_size(b->kernels->real);
    for (int backward = 0; backward < 2; backward++) {
        op_call call = {(backward ? b->kernels->backward : b->kernels->forward)[c->op], args};
        double seconds = 0;
        ESPL_TRY(time_call(b, call_op, &call, &seconds));
        report(c->name, backward ? "backward" : "forward", shape, seconds, bytes_of(c, real, backward), flops_of(c, backward));
    }
    return ESPL_OK;
}

static espl_status time_case(const bench *b, const bench_case *c) {
    espl_attrs attrs = c->attrs;
    attrs.scale = c->op == ESPL_OP_ATTENTION ? 1.0f / sqrtf((float)attrs.head_dim) : attrs.scale;
    tokens t = tokens_make(c);
    case_memory memory = {0};
    espl_args args;
    espl_status status;
    ESPL_TRY_DONE(b->calls->reserve(b->device, (const espl_capacity[ESPL_N_STREAMS]){{t.batch.n, t.batch.n_segments, c->length}}));
    ESPL_TRY_DONE(b->calls->begin(b->device, &t.batch));
    ESPL_TRY_DONE(memory_make(b, c, &attrs, &memory));
    args = args_of(c, &attrs, &t.batch, &memory);
    ESPL_TRY_DONE(time_passes(b, c, &args));
done:
    memory_free(b, &memory);
    free(t.numbers);
    return status;
}

typedef struct copy_call {
    void *to, *from;
    size_t bytes;
} copy_call;

static void call_copy(const bench *b, void *context) {
    const copy_call *c = context;
    b->kernels->copy(c->to, c->from, c->bytes);
}

static espl_status time_copy(const bench *b, size_t bytes) {
    copy_call call = {.bytes = bytes};
    double seconds = 0;
    char shape[64];
    ESPL_TRY(filled(b, bytes, ESPL_F32, false, &call.to));
    ESPL_TRY(filled(b, bytes, ESPL_F32, false, &call.from));
    ESPL_TRY(time_call(b, call_copy, &call, &seconds));
    snprintf(shape, sizeof shape, "%zu bytes", bytes);
    report("copy", "forward", shape, seconds, 2.0 * (double)bytes, 0);
    b->calls->release(b->device, call.to, bytes);
    b->calls->release(b->device, call.from, bytes);
    return ESPL_OK;
}

static void call_adamw(const bench *b, void *context) { b->kernels->update[ESPL_RULE_ADAMW](context); }

typedef struct squares_call {
    const float *x;
    int64_t n;
    espl_exact *sum;
} squares_call;

static void call_squares(const bench *b, void *context) {
    const squares_call *c = context;
    b->kernels->sum_squares(c->x, c->n, c->sum);
}

/* One step over n elements in the ranges of a layer: matrices that decay and vectors that do not. `parameter` is the bytes that a parameter
 * reads and writes. */
static espl_status time_adamw(const bench *b, espl_rule_step *step, int64_t n, const char *name, double parameter) {
    const espl_rule_range matrix = {.lr = 1e-4f, .decay = 0.01f, .c1 = 0.1f, .c2 = 0.001f},
                          vector = {.lr = 1e-4f, .c1 = 0.1f, .c2 = 0.001f};
    espl_rule_range ranges[] = {matrix, vector, matrix};
    const int64_t ends[] = {n / 2, n / 2 + n / 64, n};
    for (int i = 0; i < 3; i++) {
        ranges[i].begin = i > 0 ? ends[i - 1] : 0;
        ranges[i].end = ends[i];
    }
    double seconds = 0;
    char shape[64];
    snprintf(shape, sizeof shape, "%lld elements", (long long)n);
    step->ranges = ranges;
    step->n_ranges = sizeof ranges / sizeof *ranges;
    ESPL_TRY(time_call(b, call_adamw, step, &seconds));
    report(name, "forward", shape, seconds, (double)n * parameter, 0);
    return ESPL_OK;
}

/* The optimizer over n elements: reads weights, m, v, gradient, writes weights, m, v, with and without masters; then the norm of the
 * gradient. */
static espl_status time_update(const bench *b, int64_t n) {
    bool narrow = b->kernels->real != ESPL_F32;
    size_t wide = (size_t)n * sizeof(float), size = espl_dtype_size(b->kernels->real);
    void *memory[5] = {0}, *sum;
    char shape[64];
    double seconds = 0;
    for (int i = 0; i < 5; i++)
        ESPL_TRY(filled(b, i < 4 ? wide : (size_t)n * size, i < 4 ? ESPL_F32 : b->kernels->real, i == 1 || i == 2, &memory[i]));
    espl_rule_step step = {.weight = memory[4],
                           .state = {memory[1], memory[2]},
                           .grad = memory[3],
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .grad_scale = 1,
                           .eps = 1e-8f,
                           .rng = {.seed = 1, .purpose = ESPL_RNG_ROUND}};
    ESPL_TRY(time_adamw(b, &step, n, narrow ? "adamw alone" : "adamw", 20.0 + 2.0 * (double)size));
    step.master = memory[0];
    if (narrow)
        ESPL_TRY(time_adamw(b, &step, n, "adamw", 28.0 + (double)size));
    snprintf(shape, sizeof shape, "%lld elements", (long long)n);
    ESPL_TRY(b->calls->alloc(b->device, "sum", sizeof(espl_exact), &sum));
    squares_call squares = {memory[3], n, sum};
    ESPL_TRY(time_call(b, call_squares, &squares, &seconds));
    report("sum_squares", "forward", shape, seconds, 4.0 * (double)n, 0);
    for (int i = 0; i < 5; i++)
        b->calls->release(b->device, memory[i], i < 4 ? wide : (size_t)n * size);
    b->calls->release(b->device, sum, sizeof(espl_exact));
    return ESPL_OK;
}

static bool wanted(const bench *b, const char *name) { return b->only == NULL || strstr(name, b->only) != NULL; }

static espl_status run(bench *b, const char *backend_name, bool small, espl_dtype real) {
    const espl_backend *backend;
    espl_device_info info;
    ESPL_TRY(espl_backend_open(backend_name, &backend));
    b->calls = backend->device;
    b->kernels = real == ESPL_BF16 ? backend->bf16 : backend->fp32;
    if (b->kernels == NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "backend %s has no %s", backend_name, espl_dtype_name(real));
    ESPL_TRY(b->calls->open(0, &b->device));
    b->calls->info(b->device, &info);
    printf("{\"device\": \"%s\", \"libraries\": \"%s\", \"backend\": \"%s\", \"kernels\": \"%s\", \"bytes_total\": %zu, \"bytes_free\": "
           "%zu}\n",
           info.name, info.libraries, backend_name, b->kernels->name, info.bytes_total, info.bytes_free);
    const bench_case *cases = small ? small_cases : full_cases;
    size_t n = small ? sizeof small_cases / sizeof *small_cases : sizeof full_cases / sizeof *full_cases;
    ESPL_TRY(b->calls->reserve(b->device, (const espl_capacity[ESPL_N_STREAMS]){{1, 1, 1}}));
    if (wanted(b, "copy"))
        ESPL_TRY(time_copy(b, small ? 1 << 16 : (size_t)1 << 31));
    if (wanted(b, "adamw"))
        ESPL_TRY(time_update(b, small ? 2048 : (int64_t)124439808));
    for (size_t i = 0; i < n; i++)
        if (wanted(b, cases[i].name))
            ESPL_TRY(time_case(b, &cases[i]));
    b->calls->close(&b->device);
    return ESPL_OK;
}

int main(int argc, char **argv) {
    if (argc < 4 || argc > 5) {
        fprintf(stderr, "gpu_bench BACKEND full|small fp32|bf16 [part of a name]\n");
        return ESPL_ERR_USAGE;
    }
    bool small = strcmp(argv[2], "small") == 0;
    bench b = {.series_seconds = small ? 0 : 0.06, .only = argc > 4 ? argv[4] : NULL};
    espl_status status = run(&b, argv[1], small, strcmp(argv[3], "fp32") == 0 ? ESPL_F32 : ESPL_BF16);
    if (status != ESPL_OK)
        fprintf(stderr, "gpu_bench: %s\n", espl_status_message());
    return status;
}
