// test: libs=kernels,core ranks=1 tier=short timeout=60 arguments=short
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=embed
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=resnorm
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=act
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=linear
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=qkv
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=mlp
// test: libs=kernels,core ranks=1 tier=default timeout=900 arguments=attention
// test: libs=kernels,core ranks=1 tier=default timeout=600 arguments=cross
// test: libs=kernels,core ranks=1 tier=default timeout=300 arguments=xent
/* The kernels of the GPU backend over the emulator, a group of ops by name: every case and format by the 2x rule; padding, recordings and
 * the order in which threads and streams run change no bits.
 *
 *   test_ops_emu GROUP            the tests of a group
 *   test_ops_emu GROUP digest     prints a number that stands for all bits of its results
 *
 * ESPL_TEST_BACKEND=cuda runs them on a GPU (tests/gpu/run.sh). */
#include "tests/unit/op_run.h"

#include "kernels/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#define OP_SEVERAL_TILES                                                                                                                   \
    { 0, 1, 206, 207, 290 }
#define OP_THOUSANDS                                                                                                                       \
    { 0, 4101, 4133, 4180 }
#define sqrt_of_12 3.46410162f
#define sqrt_of_72 8.48528137f
#define sqrt_of_80 8.94427191f
#define sqrt_of_96 9.79795897f
#define sqrt_of_128 11.3137085f
#define sqrt_of_256 16.0f
#define sqrt_of_320 17.8885438f

static const op_case more_cases[] = {
    /* rows of 16 bytes: a warp's, a block's, two pieces a thread; and what is too wide for that */
    OP_RESNORM_ROW("resnorm 768", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 768, ESPL_NORM_LAYER, 0.1f),
    OP_RESNORM_ROW("resnorm 1024 rms", 0, OP_ONE_SEGMENT, 1024, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm 512 add", OP_BIAS | OP_ADD, OP_ONE_SEGMENT, 512, ESPL_NORM_LAYER, 0.1f),
    OP_RESNORM_ROW("resnorm 512 add first", OP_BIAS | OP_ADD_FIRST, OP_ONE_SEGMENT, 512, ESPL_NORM_LAYER, 0.1f),
    OP_RESNORM_ROW("resnorm 1032 alias", OP_BIAS | OP_ALIAS, OP_ONE_SEGMENT, 1032, ESPL_NORM_LAYER, 0.1f),
    OP_RESNORM_ROW("resnorm 4096 rms", OP_ADD, OP_ONE_SEGMENT, 4096, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm 5120", OP_BIAS | OP_LAST, OP_LONE_TOKENS, 5120, ESPL_NORM_LAYER, 0.1f),
    OP_RESNORM_ROW("resnorm 8200 rms", OP_SHARED, OP_LONE_TOKENS, 8200, ESPL_NORM_RMS, 0),
    OP_RESNORM_ROW("resnorm 301", OP_BIAS, OP_LONG_SEGMENTS, 301, ESPL_NORM_LAYER, 0.1f),
    /* runs of equal ids over several chunks, digits of two and three passes, wide rows */
    OP_EMBED_ROW("embed types 768", OP_BIAS | OP_TYPES | OP_LARGE, OP_LONG_SEGMENTS, 768, 50, 256, 2, 2, 1, 0.1f),
    OP_EMBED_ROW("embed absent types large", OP_LARGE, OP_LONG_SEGMENTS, 40, 50, 0, 0, 2, 1, 0),
    OP_POOL_ROW("pool last 768 add", OP_ADD, OP_LONG_SEGMENTS, 768, ESPL_POOL_LAST),
    OP_POOL_ROW("pool first 301", 0, OP_LONG_SEGMENTS, 301, ESPL_POOL_FIRST),
    {"embed few words", ESPL_OP_EMBED, OP_BIAS, OP_LONG_SEGMENTS, {.n_out = 40, .vocab = 3, .positions = 256, .scale = 1, .dropout = 0.1f}},
    {"embed add first", ESPL_OP_EMBED, OP_BIAS | OP_ADD_FIRST, OP_LONG_SEGMENTS, {.n_out = 24, .vocab = 17, .positions = 256, .scale = 1}},
    {"embed one word", ESPL_OP_EMBED, OP_ADD, OP_LONG_SEGMENTS, {.n_out = 24, .vocab = 1, .scale = 2}},
    {"embed 50257 words", ESPL_OP_EMBED, OP_BIAS, OP_LONG_SEGMENTS, {.n_out = 8, .vocab = 50257, .positions = 1024, .scale = 1}},
    {"embed 128256 words", ESPL_OP_EMBED, OP_ADD, OP_ONE_SEGMENT, {.n_out = 4, .vocab = 128256, .scale = 1}},
    {"embed 768", ESPL_OP_EMBED, OP_BIAS, OP_LONG_SEGMENTS, {.n_out = 768, .vocab = 50, .positions = 256, .scale = 1, .dropout = 0.1f}},
    {"embed prompt 768",
     ESPL_OP_EMBED,
     OP_BIAS,
     OP_LONG_SEGMENTS,
     {.n_out = 768, .vocab = 50, .positions = 256, .prompt = 20, .scale = 1, .dropout = 0.1f}},
    {"embed prompt 1027", ESPL_OP_EMBED, OP_ADD, OP_LONG_SEGMENTS, {.n_out = 1027, .vocab = 5, .prompt = 3, .scale = 2}},
    OP_PREFIX_ROW("prefix bf16 stretches", 0, OP_LONG_SEGMENTS, 9, 80, 32, 48, 96),
    OP_PREFIX_ROW("prefix two blocks add", OP_ADD | OP_NO_DIN, OP_LONG_SEGMENTS, 5, 1024, 512, 512, 768),
    {"embed 5120", ESPL_OP_EMBED, 0, OP_ONE_SEGMENT, {.n_out = 5120, .vocab = 5, .scale = 1}},
    {"embed 1027", ESPL_OP_EMBED, OP_BIAS, OP_ONE_SEGMENT, {.n_out = 1027, .vocab = 5, .positions = 40, .scale = 1, .dropout = 0.1f}},
    OP_ACT_ROW("gelu tanh 3072", 0, OP_ONE_SEGMENT, 3072, ESPL_ACT_GELU_TANH),
    OP_ACT_ROW("silu 1001 add", OP_ADD, OP_ONE_SEGMENT, 1001, ESPL_ACT_SILU),
    OP_GLU_ROW("glu silu 4096", 0, OP_ONE_SEGMENT, 4096, ESPL_ACT_SILU),
    OP_ACT_DROP_ROW("gelu dropout 3072", 0, OP_ONE_SEGMENT, 3072, ESPL_ACT_GELU, 0.1f),
    OP_GLU_DROP_ROW("glu gelu tanh dropout 1024", 0, OP_ONE_SEGMENT, 1024, ESPL_ACT_GELU_TANH, 0.1f),
    OP_GLU_ROW("glu gelu 1001", OP_ADD, OP_ONE_SEGMENT, 1001, ESPL_ACT_GELU),
    /* every size of head that has its own kernels, and others; segments that lie over tiles, windows within one and over several */
    OP_ATTENTION_ROW("attention d64 tiles", OP_LARGE, OP_SEVERAL_TILES, 2, 1, 64, 1, 0, 0),
    OP_ATTENTION_ROW("attention d64 gqa4 window 100 tiles", OP_LARGE, OP_SEVERAL_TILES, 8, 2, 64, 1, 100, 0),
    OP_ATTENTION_ROW("attention d64 full dropout tiles", OP_LARGE, OP_SEVERAL_TILES, 2, 1, 64, 0, 0, 0.2f),
    OP_ATTENTION_ROW("attention d72 window 30 dropout", OP_LARGE, OP_SEVERAL_TILES, 2, 1, 72, 1, 30, 0.2f),
    OP_ATTENTION_ROW("attention d80 full", OP_LARGE, OP_LONG_SEGMENTS, 2, 2, 80, 0, 0, 0),
    OP_ATTENTION_ROW("attention d96 add", OP_LARGE | OP_ADD, OP_LONG_SEGMENTS, 2, 1, 96, 1, 0, 0.2f),
    OP_ATTENTION_ROW("attention d128 tiles", OP_LARGE, OP_SEVERAL_TILES, 2, 1, 128, 1, 0, 0),
    OP_ATTENTION_ROW("attention d128 dropout", OP_LARGE, OP_LONG_SEGMENTS, 2, 1, 128, 1, 0, 0.2f),
    OP_ATTENTION_ROW("attention d256", OP_LARGE, OP_LONG_SEGMENTS, 2, 1, 256, 1, 0, 0),
    OP_ATTENTION_ROW("attention d256 full dropout", OP_LARGE, OP_SHORT_SEGMENTS, 2, 2, 256, 0, 0, 0.2f),
    OP_ATTENTION_ROW("attention d12 dropout", OP_LARGE, OP_LONG_SEGMENTS, 2, 1, 12, 1, 0, 0.2f),
    OP_ATTENTION_ROW("attention d320", OP_LARGE, OP_SHORT_SEGMENTS, 2, 1, 320, 1, 0, 0),
    OP_BIASED_ROW("attention bias d64 tiles", OP_LARGE, OP_SEVERAL_TILES, 2, 1, 64, 0, 0, 0, 1, 32, 20),
    OP_BIASED_ROW("attention bias d64 causal dropout", OP_LARGE | OP_ADD, OP_SEVERAL_TILES, 2, 2, 64, 1, 0, 0.2f, 0.125f, 32, 128),
    OP_BIASED_ROW("attention bias d128 window", OP_LARGE, OP_SEVERAL_TILES, 2, 1, 128, 1, 90, 0, 0.0625f, 32, 24),
    OP_BIASED_ROW("attention bias d72 full dropout", OP_LARGE, OP_LONG_SEGMENTS, 2, 1, 72, 0, 0, 0.2f, 0.125f, 24, 64),
    OP_BIASED_ROW("attention bias d160", OP_LARGE, OP_SHORT_SEGMENTS, 2, 2, 160, 0, 0, 0, 0.0625f, 32, 128),
    OP_BIASED_ROW("attention bias far", OP_LARGE, OP_SHORT_SEGMENTS, 2, 2, 8, 0, 0, 0, 0.25f, 32, 1000),
    OP_CROSS_ROW("cross d64 tiles", OP_LARGE, 2, 1, 64, 0.125f, 0, 0, 1, 206, 207, 290, 0, 300, 301, 365, 430),
    OP_CROSS_ROW("cross d64 dropout tiles", OP_LARGE, 2, 2, 64, 0.125f, 0.2f, 0, 1, 206, 207, 290, 0, 150, 153, 153 + 64, 300),
    OP_CROSS_ROW("cross d80 add", OP_LARGE | OP_ADD, 2, 1, 80, 0.1f, 0, 0, 131, 132, 199, 203, 0, 1, 90, 222, 290),
    OP_CROSS_ROW("cross d96 dropout", OP_LARGE, 2, 1, 96, 0.1f, 0.2f, 0, 131, 132, 199, 203, 0, 1, 90, 222, 290),
    OP_CROSS_ROW("cross d128", OP_LARGE, 2, 2, 128, 0.09f, 0, 0, 131, 132, 199, 203, 0, 80, 90, 91, 200),
    OP_CROSS_ROW("cross d256", OP_LARGE, 2, 1, 256, 0.0625f, 0, 0, 3, 8, 9, 16, 17, 29, 0, 40, 90, 91, 97, 98, 140),
    OP_CROSS_ROW("cross d320", OP_LARGE, 2, 1, 320, 0.0625f, 0.2f, 0, 3, 8, 9, 16, 17, 29, 0, 40, 90, 91, 97, 98, 140),
    OP_CROSS_ROW("cross chosen d128", OP_LARGE | OP_CHOSEN | OP_FORWARD, 4, 2, 128, 0.09f, 0, 0, 1, 2, 3, 4, 5, 0, 80, 390),
    OP_LINEAR_ROW("linear out-in 768", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 768, 256, ESPL_OUT_IN),
    OP_LINEAR_ROW("linear in-out 768", OP_BIAS | OP_LARGE, OP_LONG_SEGMENTS, 768, 256, ESPL_IN_OUT),
    OP_MLP_ROW("mlp gelu tanh 768", OP_BIAS | OP_LARGE, OP_SHORT_SEGMENTS, 768, 1024, 768, ESPL_IN_OUT, ESPL_ACT_GELU_TANH),
    OP_MLP_ROW("mlp gelu 768", OP_BIAS | OP_LARGE, OP_SHORT_SEGMENTS, 768, 1024, 768, ESPL_OUT_IN, ESPL_ACT_GELU),
    OP_XENT_ROW("xent 5003 words", OP_IGNORE | OP_LARGE, OP_LONG_SEGMENTS, 64, 5003, 1),
    OP_XENT_ROW("xent 997 words add", OP_IGNORE | OP_ADD, OP_ONE_SEGMENT, 24, 997, 0.5f),
    OP_XENT_ROW("xent bias 5003 words", OP_BIAS | OP_WEIGHTS | OP_MASKED | OP_LARGE, OP_LONG_SEGMENTS, 64, 5003, 1),
    OP_XENT_ROW("xent bias two chunks", OP_BIAS | OP_MASKED | OP_ADD | OP_LARGE, OP_THOUSANDS, 8, 29, 0.5f),
    OP_XENT_ROW("xent two chunks", OP_IGNORE | OP_LARGE, OP_THOUSANDS, 8, 29, 0.5f),
};

enum { N_CASES = OP_N_CASES + sizeof more_cases / sizeof *more_cases };

static const op_case *case_of(int i) { return i < OP_N_CASES ? &op_cases[i] : &more_cases[i - OP_N_CASES]; }

static const espl_backend *emu;
static espl_device *device;
static op_work work;
static const char *group, *program;

static const char *group_of(const op_case *c) {
    static const char *const groups[ESPL_N_OPS] = {
        [ESPL_OP_EMBED] = "embed", [ESPL_OP_RESNORM] = "resnorm", [ESPL_OP_LINEAR] = "linear",       [ESPL_OP_QKV] = "qkv",
        [ESPL_OP_LORA] = "qkv",    [ESPL_OP_ROPE] = "qkv",        [ESPL_OP_ATTENTION] = "attention", [ESPL_OP_CROSS_ATTENTION] = "cross",
        [ESPL_OP_ACT] = "act",     [ESPL_OP_GLU] = "act",         [ESPL_OP_LINEAR_XENT] = "xent",    [ESPL_OP_MLP] = "mlp",
        [ESPL_OP_POOL] = "embed",  [ESPL_OP_WEIGHT_NORM] = "act", [ESPL_OP_MAGNITUDE] = "act",       [ESPL_OP_PREFIX] = "embed"};
    return groups[c->op];
}

/* `short` has every tenth small case. */
static bool in_group(int i) {
    const op_case *c = case_of(i);
    return strcmp(group, "short") == 0 ? i % 10 == 3 && !(c->flags & OP_LARGE) && i < OP_N_CASES : strcmp(group, group_of(c)) == 0;
}

static op_backend emu_backend(int bf16) {
    op_backend backend = op_backend_of(bf16 ? emu->bf16 : emu->fp32, 1);
    backend.calls = emu->device;
    backend.device = device;
    backend.work = &work;
    return backend;
}

static void check_rule(const op_backend *backend, const op_case *c) { assert_true(op_worst_2x(backend, c, stdout) <= 1); }

/* Under sanitizers, where all has run without them, large cases are run for the rule alone, every other in bf16; so are small ones, but for
 * the rule, which they keep in both. */
static bool left_out(int i, int bf16, void (*check)(const op_backend *backend, const op_case *c)) {
    bool large = case_of(i)->flags & OP_LARGE, rule = check == check_rule;
    return getenv("ESPL_TEST_LIGHT") != NULL && ((large && !rule) || (bf16 != i % 2 && (large || !rule)));
}

/* Calls `check` for every case of the group and both formats; there must be some. */
static void for_each_case(void (*check)(const op_backend *backend, const op_case *c)) {
    int checked = 0;
    for (int i = 0; i < 2 * N_CASES; i++) {
        op_backend backend = emu_backend(i % 2);
        if (!in_group(i / 2) || left_out(i / 2, i % 2, check))
            continue;
        check(&backend, case_of(i / 2));
        checked++;
    }
    assert_true(checked > 0);
}

static void keeps_the_rule(void **state) {
    (void)state;
    for_each_case(check_rule);
}

/* Where kernels cannot read 16 bytes at a time. */
static void check_unaligned(const op_backend *backend, const op_case *c) {
    if (c->flags & OP_LARGE)
        return;
    op_backend shifted = *backend;
    shifted.shift = sizeof(float);
    check_rule(&shifted, c);
}

static void keeps_the_rule_unaligned(void **state) {
    (void)state;
    for_each_case(check_unaligned);
}

static op_values results_of(const op_backend *backend, const op_case *c) {
    op_values v = op_values_make(c, backend->kernels->real);
    op_run(backend, c, &v);
    return v;
}

/* The first slot whose bits differ, or OP_SLOTS. */
static int differing_slot(const op_values *a, const op_values *b) {
    int s = 0;
    while (s < OP_SLOTS && (!a->slot[s] || memcmp(a->slot[s], b->slot[s], (size_t)a->size[s] * sizeof(double)) == 0))
        s++;
    return s;
}

static void check_same(const op_backend *plain, const op_backend *other, const op_case *c, const char *with) {
    op_values a = results_of(plain, c), b = results_of(other, c);
    int s = differing_slot(&a, &b);
    if (s < OP_SLOTS)
        fail_msg("%s: %s: %s differs %s", plain->kernels->name, c->name, op_slot_names[s], with);
    op_values_free(&a);
    op_values_free(&b);
}

/* Products of other shapes may be cut differently by the library, so those ops keep the rule; all others keep their bits. */
static bool is_product(espl_op op) {
    return op == ESPL_OP_LINEAR || op == ESPL_OP_LORA || op == ESPL_OP_QKV || op == ESPL_OP_MLP || op == ESPL_OP_LINEAR_XENT;
}

static void check_padding(const op_backend *backend, const op_case *c) {
    op_backend padded = *backend;
    padded.more_rows = c->flags & OP_LARGE ? 5 : 64 - op_case_tokens(c) % 64;
    if (is_product(c->op))
        check_rule(&padded, c);
    else
        check_same(backend, &padded, c, "with rows of padding");
}

static void padding_is_harmless(void **state) {
    (void)state;
    for_each_case(check_padding);
}

/* Segments choose in generation alone, which is not recorded. */
static void check_replay(const op_backend *backend, const op_case *c) {
    op_backend plain = *backend, replayed;
    if (c->flags & (OP_LARGE | OP_CHOSEN))
        return;
    plain.more_rows = 3;
    replayed = plain;
    replayed.replay = true;
    check_same(&plain, &replayed, c, "when it is recorded and replayed");
}

static void recordings_give_the_same_bits(void **state) {
    (void)state;
    for_each_case(check_replay);
}

/* The same tokens as another stream's; pooled rows have neither ids nor segments. */
static void check_streams(const op_backend *backend, const op_case *c) {
    bool tokens =
        c->op == ESPL_OP_EMBED || c->op == ESPL_OP_QKV || c->op == ESPL_OP_ROPE || c->op == ESPL_OP_ATTENTION || c->op == ESPL_OP_PREFIX;
    bool rows = c->op == ESPL_OP_LINEAR || c->op == ESPL_OP_LORA || c->op == ESPL_OP_MAGNITUDE || c->op == ESPL_OP_MLP ||
                c->op == ESPL_OP_ACT || c->op == ESPL_OP_GLU || c->op == ESPL_OP_RESNORM || c->op == ESPL_OP_LINEAR_XENT;
    op_backend other = *backend;
    if (c->flags & OP_LARGE)
        return;
    other.stream = ESPL_STREAM_SOURCE;
    if (tokens || rows)
        check_same(backend, &other, c, "as the encoder's tokens");
    other.stream = ESPL_STREAM_POOLED;
    if (rows)
        check_same(backend, &other, c, "as pooled rows");
}

static void streams_change_no_bits(void **state) {
    (void)state;
    for_each_case(check_streams);
}

static void check_renew(const op_backend *backend, const op_case *c) { assert_true(c->op != ESPL_OP_RESNORM || op_renews(backend, c)); }

static void resnorm_renews(void **state) {
    (void)state;
    for_each_case(check_renew);
}

static void check_alone(const op_backend *backend, const op_case *c) {
    assert_true(!(espl_ops[c->op].flags & ESPL_OP_ALONE) || op_is_alone(backend, c));
}

static void what_is_asked_for_changes_no_bits(void **state) {
    (void)state;
    for_each_case(check_alone);
}

static uint64_t digest;

static void add_to_digest(const op_backend *backend, const op_case *c) {
    op_values v = results_of(backend, c);
    for (int s = 0; s < OP_SLOTS; s++)
        for (int64_t e = 0; v.slot[s] && e < v.size[s]; e++) {
            uint64_t bits;
            memcpy(&bits, &v.slot[s][e], sizeof bits);
            digest = (digest ^ bits) * 0x100000001B3u; /* FNV-1a by words */
            digest ^= digest >> 29;
        }
    op_values_free(&v);
}

static uint64_t digest_of_group(void) {
    digest = 0xCBF29CE484222325u;
    for_each_case(add_to_digest);
    return digest;
}

static void schedules_change_no_bits(void **state) {
    (void)state;
    static const char *const settings[] = {"EMU_SCHEDULE=reverse EMU_STREAMS=late", "EMU_SCHEDULE=random:1 EMU_STREAMS=random:1",
                                           "EMU_SCHEDULE=random:2 EMU_STREAMS=random:2 EMU_CPASYNC=early"};
    uint64_t here = digest_of_group();
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char command[4096];
        unsigned long long there = 0;
        snprintf(command, sizeof command, "%s '%s' %s digest", settings[i], program, group);
        FILE *child = popen(command, "r");
        assert_non_null(child);
        assert_int_equal(fscanf(child, "%llx", &there), 1);
        assert_int_equal(pclose(child), 0);
        if (there != here)
            fail_msg("%s: bits differ with %s", group, settings[i]);
    }
}

/* Controls: a table that plants an error in the first element of a result, once a large one and once in the last bit. */
static const espl_kernels *honest;
static bool plant_a_bit;

static void plant(espl_op op, const espl_args *args) {
    unsigned char element[4], *out = args->out[op == ESPL_OP_RESNORM ? 1 : 0];
    size_t size = op == ESPL_OP_LINEAR_XENT || op == ESPL_OP_WEIGHT_NORM ? sizeof(float) : espl_dtype_size(honest->real);
    op_must(emu->device->read(device, element, out, size));
    if (plant_a_bit)
        element[0] ^= 1;
    else
        element[size - 1] ^= 0x40; /* of the exponent */
    op_must(emu->device->write(device, out, element, size));
}

#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags)                                                              \
    static void wrong_##name(const espl_args *args) {                                                                                      \
        honest->forward[ESPL_OP_##ID](args);                                                                                               \
        plant(ESPL_OP_##ID, args);                                                                                                         \
    }
#include "kernels/ops.def"
#undef OP

/* Backward of the loss writes it again. */
static void wrong_loss(const espl_args *args) {
    honest->backward[ESPL_OP_LINEAR_XENT](args);
    plant(ESPL_OP_LINEAR_XENT, args);
}

static espl_kernels wrong_kernels(const op_backend *backend) {
    espl_kernels wrong = *backend->kernels;
    honest = backend->kernels;
#define OP(ID, name, inputs, outputs, params, bwd_inputs, bwd_outputs, flags) wrong.forward[ESPL_OP_##ID] = wrong_##name;
#include "kernels/ops.def"
#undef OP
    wrong.backward[ESPL_OP_LINEAR_XENT] = wrong_loss;
    return wrong;
}

static void check_controls(const op_backend *backend, const op_case *c) {
    if (c->flags & OP_LARGE)
        return;
    op_backend bad = *backend;
    espl_kernels wrong = wrong_kernels(backend);
    bad.kernels = &wrong;
    plant_a_bit = false;
    assert_true(op_worst_2x(&bad, c, NULL) > 1);
    plant_a_bit = true;
    op_values a = results_of(backend, c), b = results_of(&bad, c);
    assert_true(differing_slot(&a, &b) < OP_SLOTS);
    op_values_free(&a);
    op_values_free(&b);
}

static void planted_errors_are_found(void **state) {
    (void)state;
    for_each_case(check_controls);
}

/* A cached run against the fp64 reference of plain attention; allowed: twice the error of the reference in fp32 and one rounding. */
static void check_cached(const op_backend *backend, const op_case *c) {
    if (c->op != ESPL_OP_ATTENTION || !c->attrs.causal || c->attrs.dropout > 0)
        return;
    op_backend truth = op_backend_of(espl_kernels_ref(ESPL_F64), 1), plain = op_backend_of(espl_kernels_ref(ESPL_F32), 1);
    espl_dtype real = backend->kernels->real;
    plain.round = real;
    op_values t = op_values_make(c, real), p = op_values_make(c, real);
    int64_t n = t.size[OP_OUT0];
    double *out = malloc((size_t)n * sizeof *out);
    op_run_forward(&truth, c, &t);
    op_run_forward(&plain, c, &p);
    op_run_cached(backend, c, &t, out);
    double error = op_error(out, t.slot[OP_OUT0], n), top = op_max(t.slot[OP_OUT0], n);
    double allowed = 2 * op_error(p.slot[OP_OUT0], t.slot[OP_OUT0], n) + op_unit(real) * top;
    if (!(error <= allowed))
        fail_msg("%s: cached %s: error %.3g, allowed %.3g", backend->kernels->name, c->name, error, allowed);
    out[n / 2] += 0.1 * top;
    assert_true(op_error(out, t.slot[OP_OUT0], n) > allowed);
    free(out);
    op_values_free(&t);
    op_values_free(&p);
}

static void cached_attention_is_attention(void **state) {
    (void)state;
    for_each_case(check_cached);
}

static void check_expands(const op_backend *backend, const op_case *c) {
    for (int format = ESPL_QUANT_INT8; format <= ESPL_QUANT_NF4_DOUBLE && op_has_matrix(c); format++)
        assert_true(op_expands(backend, c, format));
}

static void quantised_matrices_are_what_they_expand_to(void **state) {
    (void)state;
    for_each_case(check_expands);
}

static int run_the_tests(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_the_rule),
        cmocka_unit_test(padding_is_harmless),
        cmocka_unit_test(recordings_give_the_same_bits),
        cmocka_unit_test(streams_change_no_bits),
        cmocka_unit_test(resnorm_renews),
        cmocka_unit_test(what_is_asked_for_changes_no_bits),
        cmocka_unit_test(cached_attention_is_attention),
        cmocka_unit_test(planted_errors_are_found),
        cmocka_unit_test(schedules_change_no_bits),
        cmocka_unit_test(keeps_the_rule_unaligned),
        cmocka_unit_test(quantised_matrices_are_what_they_expand_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: test_ops_emu GROUP [digest]\n");
        return 2;
    }
    program = argv[0];
    group = argv[1];
    const char *name = getenv("ESPL_TEST_BACKEND"); /* "cuda": the same on a GPU */
    op_must(espl_backend_open(name != NULL ? name : "emu", &emu));
    op_must(emu->device->open(0, &device));
    int failed = 0;
    if (argc > 2)
        printf("%llx\n", (unsigned long long)digest_of_group());
    else
        failed = run_the_tests();
    op_backend backend = emu_backend(0);
    op_work_resize(&backend, &work, 0);
    emu->device->close(&device);
    return failed;
}
