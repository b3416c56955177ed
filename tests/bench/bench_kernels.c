/* Times every kernel of the CPU backend on the shapes of GPT-2 124M (4 segments of 256 tokens), beside the rate of one large
 * sgemm and of a copy on the same threads in the same run. With one thread times are CPU time, so that other programs count less.
 *
 *   bench_kernels [threads] [fp32|bf16] [avx512|avx2|portable] [part of a label] */
#include "kernels/kernels.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { N = 1024, D = 768, F = 3072, V = 50257, H = 12, SEGMENTS = 4, CACHE = 1024, REPEATS = 7 };

typedef struct row {
    const char *label;
    espl_op op;
    espl_attrs attrs;
    int64_t n;
    int64_t in[2], out[3], param[4]; /* elements; 0: absent */
} row;

#define LINEAR_ROW(name, tokens, k, m)                                                                                                     \
    {                                                                                                                                      \
        name, ESPL_OP_LINEAR, {.n_in = (k), .n_out = (m), .layout = ESPL_IN_OUT}, (tokens), {(tokens) * (k)}, {(tokens) * (m)}, {          \
            (int64_t)(k) * (m), (m)                                                                                                        \
        }                                                                                                                                  \
    }

static const row rows[] = {
    {"embed", ESPL_OP_EMBED, {.n_out = D, .vocab = V, .positions = N, .scale = 1}, N, {0}, {N * D}, {(int64_t)V * D, N *D}},
    {"embed types drop",
     ESPL_OP_EMBED,
     {.n_out = D, .vocab = V, .positions = N, .types = 2, .scale = 1, .dropout = 0.1f},
     N,
     {0},
     {N * D},
     {(int64_t)V * D, N *D, 2 * D}},
    {"resnorm", ESPL_OP_RESNORM, {.n_in = D, .eps = 1e-5f}, N, {N * D, N *D}, {N * D, N *D, 2 * N}, {D, D}},
    {"resnorm drop", ESPL_OP_RESNORM, {.n_in = D, .eps = 1e-5f, .dropout = 0.1f}, N, {N * D, N *D}, {N * D, N *D, 2 * N}, {D, D}},
    {"qkv",
     ESPL_OP_QKV,
     {.n_in = D, .n_out = 3 * D, .layout = ESPL_IN_OUT, .heads = H, .kv_heads = H, .head_dim = 64},
     N,
     {N * D},
     {N * 3 * D},
     {3 * D * D, 3 * D}},
    {"attention",
     ESPL_OP_ATTENTION,
     {.heads = H, .kv_heads = H, .head_dim = 64, .causal = 1, .scale = 0.125f},
     N,
     {N * 3 * D},
     {N * D, N *H},
     {0}},
    {"attention 4 kv",
     ESPL_OP_ATTENTION,
     {.heads = H, .kv_heads = 4, .head_dim = 64, .causal = 1, .scale = 0.125f},
     N,
     {N * 1280},
     {N * D, N *H},
     {0}},
    {"attention drop",
     ESPL_OP_ATTENTION,
     {.heads = H, .kv_heads = H, .head_dim = 64, .causal = 1, .scale = 0.125f, .dropout = 0.1f},
     N,
     {N * 3 * D},
     {N * D, N *H},
     {0}},
    {"attention full", ESPL_OP_ATTENTION, {.heads = H, .kv_heads = H, .head_dim = 64, .scale = 0.125f}, N, {N * 3 * D}, {N * D, N *H}, {0}},
    {"attention d32",
     ESPL_OP_ATTENTION,
     {.heads = H, .kv_heads = H, .head_dim = 32, .scale = 0.177f},
     N,
     {N * 3 * D / 2},
     {N * D / 2, N *H},
     {0}},
    {"attention bias",
     ESPL_OP_ATTENTION,
     {.heads = H, .kv_heads = H, .head_dim = 64, .scale = 1, .rel_buckets = 32, .rel_distance = 128},
     N,
     {N * 3 * D},
     {N * D, N *H},
     {32 * H}},
    {"cross",
     ESPL_OP_CROSS_ATTENTION,
     {.heads = H, .kv_heads = H, .head_dim = 64, .scale = 0.125f},
     N,
     {N * D, N * 2 * D},
     {N * D, N *H},
     {0}},
    LINEAR_ROW("proj", N, D, D),
    LINEAR_ROW("fc", N, D, F),
    {"gelu", ESPL_OP_ACT, {.n_in = F, .kind = ESPL_ACT_GELU_TANH}, N, {N * F}, {N * F}, {0}},
    {"relu drop", ESPL_OP_ACT, {.n_in = F, .kind = ESPL_ACT_RELU, .dropout = 0.1f}, N, {N * F}, {N * F}, {0}},
    {"gelu glu drop", ESPL_OP_GLU, {.n_out = F, .kind = ESPL_ACT_GELU_TANH, .dropout = 0.1f}, N, {2 * N * F}, {N * F}, {0}},
    {"silu glu", ESPL_OP_GLU, {.n_out = F, .kind = ESPL_ACT_SILU}, N, {2 * N * F}, {N * F}, {0}},
    LINEAR_ROW("fc out", N, F, D),
    {"mlp",
     ESPL_OP_MLP,
     {.n_in = D, .ffn = F, .n_out = D, .layout = ESPL_IN_OUT, .kind = ESPL_ACT_GELU_TANH},
     N,
     {N * D},
     {N * D, N *F},
     {D * F, F, F *D, D}},
    {"xent", ESPL_OP_LINEAR_XENT, {.n_in = D, .vocab = V, .scale = 1}, N, {N * D}, {N}, {(int64_t)V * D}},
    {"xent masked", ESPL_OP_LINEAR_XENT, {.n_in = D, .vocab = V, .scale = 1}, N, {N * D}, {N}, {(int64_t)V * D, V}},
    {"xent 2 labels", ESPL_OP_LINEAR_XENT, {.n_in = D, .vocab = 2, .scale = 1}, 32, {32 * D}, {32}, {2 * D, 2}},
    {"pool first", ESPL_OP_POOL, {.n_in = D, .kind = ESPL_POOL_FIRST}, N, {N * D}, {SEGMENTS * D}, {0}},
    LINEAR_ROW("fc 1 token", 1, D, F),
    LINEAR_ROW("fc 4 tokens", 4, D, F),
    LINEAR_ROW("fc 8 tokens", 8, D, F),
    LINEAR_ROW("fc 16 tokens", 16, D, F),
    {"head 1 token", ESPL_OP_LINEAR, {.n_in = D, .n_out = V, .layout = ESPL_OUT_IN}, 1, {D}, {V}, {(int64_t)V * D}},
    {"head 4 tokens", ESPL_OP_LINEAR, {.n_in = D, .n_out = V, .layout = ESPL_OUT_IN}, 4, {4 * D}, {4 * V}, {(int64_t)V * D}},
    {"head 16 tokens", ESPL_OP_LINEAR, {.n_in = D, .n_out = V, .layout = ESPL_OUT_IN}, 16, {16 * D}, {16 * V}, {(int64_t)V * D}},
    {"cached 4 x 1023",
     ESPL_OP_ATTENTION_CACHED,
     {.heads = H, .kv_heads = H, .head_dim = 64, .causal = 1, .scale = 0.125f},
     SEGMENTS,
     {SEGMENTS * 3 * D},
     {SEGMENTS * D},
     {0}},
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *filled(int64_t n, espl_dtype dtype) {
    void *x = aligned_alloc(64, ((size_t)n * 8 + 63) / 64 * 64);
    espl_rng_key key = {.seed = 1, .purpose = ESPL_RNG_TEST, .op = (uint32_t)n};
    for (int64_t i = 0; i < n; i++) {
        float v = 0.2f * (espl_rng_uniform(espl_rng_u32(&key, (uint64_t)i)) - 0.5f);
        espl_dtype_convert((char *)x + (size_t)i * espl_dtype_size(dtype), dtype, &v, ESPL_F32, 1);
    }
    return x;
}

static int32_t ids[N], positions[N], targets[N], whole[SEGMENTS + 1], single[SEGMENTS + 1], cache_row[SEGMENTS], cache_length[SEGMENTS];

/* In a row of masked tokens one of seven has a target, as in a masked language model. */
static bool has_target(const row *r, int token) { return strcmp(r->label, "xent masked") != 0 || token % 7 == 0; }

static espl_batch batch_of(const row *r, const espl_cache *cache) {
    static const espl_batch source = {.n = N, .n_segments = SEGMENTS, .segments = whole};
    bool cached = r->op == ESPL_OP_ATTENTION_CACHED;
    for (int i = 0; i <= SEGMENTS; i++) {
        whole[i] = i * N / SEGMENTS;
        single[i] = i;
    }
    for (int i = 0; i < N; i++) {
        ids[i] = (int32_t)((int64_t)i * 7919 % V);
        targets[i] = has_target(r, i) ? (int32_t)((int64_t)i * 104729 % (r->attrs.vocab > 0 ? r->attrs.vocab : V)) : -1;
        positions[i] = i % (N / SEGMENTS);
    }
    for (int i = 0; i < SEGMENTS; i++) {
        cache_row[i] = i;
        cache_length[i] = CACHE - 1;
    }
    return (espl_batch){.n = r->n,
                        .n_segments = SEGMENTS,
                        .segments = cached ? single : whole,
                        .ids = ids,
                        .positions = positions,
                        .targets = targets,
                        .loss_scale = 1.0f / N,
                        .rng = {.seed = 1, .purpose = ESPL_RNG_DROPOUT},
                        .training = 1,
                        .cache = cache,
                        .source = &source};
}

static double now(void) {
    struct timespec t;
    if (espl_kernels_threads() > 1)
        return omp_get_wtime();
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double median_time(espl_kernel *kernel, const espl_args *args) {
    double t[REPEATS];
    kernel(args);
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
        kernel(args);
        t[i] = now() - start;
    }
    qsort(t, REPEATS, sizeof *t, by_value);
    return t[REPEATS / 2];
}

static void *work_of(const espl_kernels *k, const row *r, int backward) {
    size_t bytes = k->work_bytes(r->op, &r->attrs, r->n, espl_kernels_threads(), backward);
    return aligned_alloc(64, (bytes + 127) / 64 * 64);
}

static void bench(const espl_kernels *k, const row *r, const espl_cache *cache, double peak, double copy) {
    espl_batch batch = batch_of(r, cache);
    espl_args args = {.attrs = &r->attrs, .batch = &batch};
    for (int i = 0; i < 3; i++) {
        espl_dtype dtype = (r->op == ESPL_OP_RESNORM && i == 2) || r->op == ESPL_OP_LINEAR_XENT ? ESPL_F32 : k->real;
        dtype = (r->op == ESPL_OP_ATTENTION || r->op == ESPL_OP_CROSS_ATTENTION) && i == 1 ? ESPL_F32 : dtype;
        args.out[i] = r->out[i] ? filled(r->out[i], dtype) : NULL;
        args.dout[i] = r->out[i] ? filled(r->out[i], k->real) : NULL;
    }
    for (int i = 0; i < 2; i++) {
        args.in[i] = r->in[i] ? filled(r->in[i], k->real) : NULL;
        args.din[i] = r->in[i] ? filled(r->in[i], k->real) : NULL;
    }
    for (int i = 0; i < 4; i++) {
        args.param[i] = r->param[i] ? filled(r->param[i], k->real) : NULL;
        args.dparam[i] = r->param[i] ? filled(r->param[i], ESPL_F32) : NULL;
    }
    int64_t elements = 0;
    for (int i = 0; i < 4; i++)
        elements += (i < 2 ? r->in[i] + r->out[i] : 0) + (r->op == ESPL_OP_EMBED ? 0 : r->param[i]);
    elements += r->op == ESPL_OP_ATTENTION_CACHED ? (int64_t)SEGMENTS * CACHE * 2 * D : 0;
    double length = (double)N / SEGMENTS, pairs = SEGMENTS * length * (r->attrs.causal ? (length + 1) / 2 : length);
    double flops = espl_op_flops(r->op, &r->attrs, (double)r->n, pairs), bytes = (double)elements * (double)espl_dtype_size(k->real);
    for (int backward = 0; backward < 2; backward++) {
        espl_kernel *kernel = backward ? k->backward[r->op] : k->forward[r->op];
        if (!kernel || (backward && r->n < N))
            continue;
        args.work = work_of(k, r, backward);
        double t = median_time(kernel, &args), times = backward ? r->op == ESPL_OP_LINEAR_XENT ? 3 : 2 : 1;
        printf("%-16s %-8s %9.3f ms", r->label, backward ? "backward" : "forward", t * 1e3);
        if (flops > 0 && r->n == N)
            printf("  %7.1f GFLOP/s  %5.1f %% of sgemm\n", times * flops / t * 1e-9, 100 * times * flops / t / peak);
        else
            printf("  %7.1f GB/s     %5.1f %% of copy\n", bytes / t * 1e-9, 100 * bytes / t / copy);
        free(args.work);
    }
    for (int i = 0; i < 3; i++) {
        free(args.out[i]);
        free(args.dout[i]);
    }
    for (int i = 0; i < 2; i++) {
        free((void *)(uintptr_t)args.in[i]);
        free(args.din[i]);
    }
    for (int i = 0; i < 4; i++) {
        free((void *)(uintptr_t)args.param[i]);
        free(args.dparam[i]);
    }
}

/* Each thread multiplies its own large matrices: the best this BLAS does here. */
static double sgemm_peak(void) {
    enum { SIDE = 1536 };
    double t[REPEATS];
    float *a = filled(SIDE * SIDE, ESPL_F32), *b = filled(SIDE * SIDE, ESPL_F32);
    float *c = filled((int64_t)SIDE * SIDE * espl_kernels_threads(), ESPL_F32);
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
#pragma omp parallel
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, SIDE, SIDE, SIDE, 1.0f, a, SIDE, b, SIDE, 0.0f,
                    c + (size_t)omp_get_thread_num() * SIDE * SIDE, SIDE);
        t[i] = now() - start;
    }
    qsort(t, REPEATS, sizeof *t, by_value);
    free(a), free(b), free(c);
    return 2.0 * SIDE * SIDE * SIDE * espl_kernels_threads() / t[REPEATS / 2];
}

static double copy_rate(void) {
    enum { BYTES = 1 << 28 };
    double t[REPEATS];
    char *a = calloc(1, BYTES), *b = malloc(BYTES);
    for (int i = 0; i < REPEATS; i++) {
        double start = now();
#pragma omp parallel for
        for (int64_t at = 0; at < BYTES; at += 1 << 20)
            memcpy(b + at, a + at, 1 << 20);
        t[i] = now() - start;
    }
    qsort(t, REPEATS, sizeof *t, by_value);
    free(a), free(b);
    return 2.0 * BYTES / t[REPEATS / 2];
}

static void report_bytes(const char *name, double seconds, double bytes, double copy) {
    printf("%-16s %-8s %9.3f ms  %7.1f GB/s     %5.1f %% of copy\n", name, "", seconds * 1e3, bytes / seconds * 1e-9,
           100 * bytes / seconds / copy);
}

static void bench_adamw(const espl_kernels *k, bool masters, double copy) {
    int64_t n = 1 << 25;
    espl_rule_range all = {.begin = 0, .end = n, .lr = 1e-4f, .decay = 0.01f, .c1 = 0.1f, .c2 = 0.001f};
    espl_rule_step step = {.weight = filled(n, k->real),
                           .master = masters ? filled(n, ESPL_F32) : NULL,
                           .state = {filled(n, ESPL_F32), calloc((size_t)n, sizeof(float))},
                           .grad = filled(n, ESPL_F32),
                           .ranges = &all,
                           .n_ranges = 1,
                           .grad_scale = 1,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .eps = 1e-8f};
    double t[REPEATS], s[REPEATS], size = (double)espl_dtype_size(k->real);
    for (int i = 0; i < REPEATS; i++) {
        espl_exact sum = {0};
        double start = now();
        k->update[ESPL_RULE_ADAMW](&step);
        t[i] = now() - start;
        start = now();
        k->sum_squares(step.grad, n, &sum);
        s[i] = now() - start;
    }
    qsort(t, REPEATS, sizeof *t, by_value);
    qsort(s, REPEATS, sizeof *s, by_value);
    report_bytes(masters ? "adamw masters" : "adamw 2^25", t[REPEATS / 2], (20.0 + size + (masters ? 8 : size)) * (double)n, copy);
    report_bytes("squares 2^25", s[REPEATS / 2], 4.0 * (double)n, copy);
    free(step.weight), free(step.master), free(step.state[0]), free(step.state[1]), free((void *)(uintptr_t)step.grad);
}

int main(int argc, char **argv) {
    espl_dtype real = argc > 2 && strcmp(argv[2], "bf16") == 0 ? ESPL_BF16 : ESPL_F32;
    espl_kernels_set_threads(argc > 1 ? atoi(argv[1]) : omp_get_num_procs());
    const espl_kernels *k = argc > 3 ? espl_kernels_cpu_isa(argv[3], real) : espl_kernels_cpu(real);
    if (!k)
        return fprintf(stderr, "this machine lacks %s\n", argv[3]), 2;
    espl_cache cache = {.data = filled((int64_t)SEGMENTS * CACHE * 2 * D, k->real),
                        .rows = SEGMENTS,
                        .capacity = CACHE,
                        .row = cache_row,
                        .length = cache_length};
    double peak = sgemm_peak(), copy = copy_rate();
    printf("%s: %s\nsgemm %.0f GFLOP/s, copy %.1f GB/s\n", k->name, espl_kernels_describe(), peak * 1e-9, copy * 1e-9);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (argc < 5 || strstr(rows[i].label, argv[4]))
            bench(k, &rows[i], &cache, peak, copy);
    if (argc < 5)
        bench_adamw(k, false, copy);
    if (argc < 5 && k->real == ESPL_BF16)
        bench_adamw(k, true, copy);
    free(cache.data);
    return 0;
}
