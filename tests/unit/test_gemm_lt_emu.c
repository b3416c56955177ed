// test: libs=kernels,core ranks=1 tier=short timeout=180
/* Products on the emulated GPU against plain loops in double; what the cache of shapes does; that timing changes no bits.
 *
 * The bound of an error follows from the formats alone: k roundings of fp32 on the sum of |a b|, and one of C's format. */
#include "kernels/backend.h"
#include "kernels/cuda/gemm_lt.h"
#include "src/core/rng.h"
#include "tests/unit/scratch.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { A, B, C, BIAS, AUX, WORK, N_PARTS, TOKENS = 16 };

static const espl_device_calls *calls;
static espl_device *device;
static void (*gemm)(const espl__gemm *g);
static espl__gemm_counts (*counts)(void);

static void begin(void) {
    int32_t zeros[TOKENS] = {0}, segments[2] = {0, TOKENS};
    espl_batch batch = {.n = TOKENS, .n_segments = 1, .segments = segments, .ids = zeros, .positions = zeros, .targets = zeros};
    assert_int_equal(calls->begin(device, &batch), ESPL_OK);
}

/* Opens the device anew; `tune` as in the environment, NULL: unset. */
static void open_device(const char *tune) {
    if (device)
        calls->close(&device);
    if (tune)
        setenv("ESPL_CUDA_TUNE", tune, 1);
    else
        unsetenv("ESPL_CUDA_TUNE");
    assert_int_equal(calls->open(0, &device), ESPL_OK);
    assert_int_equal(calls->reserve(device, (const espl_capacity[ESPL_N_STREAMS]){{TOKENS, 1, 0}}), ESPL_OK);
    begin();
}

static int open_library(void **state) {
    (void)state;
    char path[4096];
    const espl_backend *backend;
    snprintf(path, sizeof path, "%s/libespalier_emu.so", getenv("ESPL_BACKEND_DIR"));
    if (espl_backend_open("emu", &backend) != ESPL_OK) {
        fprintf(stderr, "%s\n", espl_status_message());
        return -1;
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    *(void **)&gemm = library ? dlsym(library, "espl__cuda_gemm") : NULL;
    *(void **)&counts = library ? dlsym(library, "espl__cuda_gemm_counts") : NULL;
    calls = backend->device;
    return gemm && counts ? 0 : -1;
}

static int close_library(void **state) {
    (void)state;
    calls->close(&device);
    return 0;
}

/* A product with its numbers on the host, as double, and on the device. */
typedef struct problem {
    espl__gemm g;
    int64_t pad;   /* elements after each row */
    int64_t shift; /* elements by which A, B and C are off their alignment */
    double *host[N_PARTS];
    int64_t size[N_PARTS];
    size_t bytes;
    char *memory;
} problem;

static bool writes_aux(const espl__gemm *g) { return g->epilogue == ESPL__GELU || g->epilogue == ESPL__GELU_BIAS; }

static espl_dtype format_of(const problem *p, int part) { return part == A || part == B ? p->g.in : p->g.out; }

static void measure(problem *p) {
    espl__gemm *g = &p->g;
    g->lda = (g->trans_a ? g->m : g->k) + p->pad;
    g->ldb = (g->trans_b ? g->k : g->n) + p->pad;
    g->ldc = g->n + p->pad;
    g->ld_aux = g->epilogue >= ESPL__GELU ? (g->n + 7) / 8 * 8 : 0;
    p->size[A] = (g->trans_a ? g->k : g->m) * g->lda;
    p->size[B] = (g->trans_b ? g->n : g->k) * g->ldb;
    p->size[C] = g->m * g->ldc;
    p->size[BIAS] = g->epilogue == ESPL__BIAS || g->epilogue == ESPL__GELU_BIAS ? g->n : 0;
    p->size[AUX] = g->m * g->ld_aux;
}

static void upload(problem *p, int part, size_t offset) {
    espl_dtype format = format_of(p, part);
    size_t n = (size_t)p->size[part], bytes = n * espl_dtype_size(format);
    void *narrow = malloc(bytes + 1);
    espl_dtype_convert(narrow, format, p->host[part], ESPL_F64, n);
    espl_dtype_convert(p->host[part], ESPL_F64, narrow, format, n); /* what the device has */
    assert_int_equal(calls->write(device, p->memory + offset, narrow, bytes), ESPL_OK);
    free(narrow);
}

/* Random numbers on the grid of their formats; C is NaN unless it is added to, and so is aux where it is a result. */
static void fill(problem *p, int part) {
    p->host[part] = malloc((size_t)p->size[part] * sizeof(double) + 1);
    bool result = (part == C && !p->g.add) || (part == AUX && writes_aux(&p->g));
    espl_rng_key key = {.seed = 11, .purpose = ESPL_RNG_TEST, .op = (uint32_t)part};
    for (int64_t i = 0; i < p->size[part]; i++)
        p->host[part][i] = result ? NAN : espl_rng_normal(&key, (uint64_t)i);
}

static void make(problem *p) {
    size_t offset[N_PARTS], at = 0;
    measure(p);
    for (int part = 0; part < WORK; part++) {
        offset[part] = at + (part <= C ? (size_t)p->shift * espl_dtype_size(format_of(p, part)) : 0);
        at = (offset[part] + (size_t)p->size[part] * espl_dtype_size(format_of(p, part)) + 255) / 256 * 256;
    }
    p->bytes = at + ESPL_GEMM_WORK;
    assert_int_equal(calls->alloc(device, "test", p->bytes, (void **)&p->memory), ESPL_OK);
    for (int part = 0; part < WORK; part++) {
        fill(p, part);
        upload(p, part, offset[part]);
    }
    p->g.a = p->memory + offset[A];
    p->g.b = p->memory + offset[B];
    p->g.c = p->memory + offset[C];
    p->g.bias = p->size[BIAS] ? p->memory + offset[BIAS] : NULL;
    p->g.aux = p->size[AUX] ? p->memory + offset[AUX] : NULL;
    p->g.work = p->memory + at;
}

static void release(problem *p) {
    calls->release(device, p->memory, p->bytes);
    for (int part = 0; part < WORK; part++)
        free(p->host[part]);
}

/* A part as it is on the device now; the caller frees. */
static double *download(const problem *p, int part) {
    espl_dtype format = format_of(p, part);
    size_t n = (size_t)p->size[part], bytes = n * espl_dtype_size(format);
    void *narrow = malloc(bytes + 1);
    double *wide = malloc(n * sizeof *wide + 1);
    espl_status status = calls->read(device, narrow, part == AUX ? p->g.aux : p->g.c, bytes);
    if (status != ESPL_OK)
        fprintf(stderr, "%s\n", espl_status_message());
    assert_int_equal(status, ESPL_OK);
    espl_dtype_convert(wide, ESPL_F64, narrow, format, n);
    free(narrow);
    return wide;
}

static double unit(espl_dtype format) { return format == ESPL_F32 ? 0x1p-24 : 0x1p-8; }

/* gelu_tanh(x) = x/2 (1 + tanh u), u = sqrt(2/pi) (x + 0.044715 x^3), and its slope; both slopes are below 1.2. */
static double gelu(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }
static double gelu_slope(double x) {
    double t = tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x));
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

typedef struct expected {
    double c, aux, bound;
} expected;

/* Element (i, j): alpha sum over l of a[i][l] b[l][j], and what the epilogue makes of it. */
static expected element(const problem *p, int64_t i, int64_t j) {
    const espl__gemm *g = &p->g;
    double sum = 0, size = 0;
    for (int64_t l = 0; l < g->k; l++) {
        double term = p->host[A][g->trans_a ? l * g->lda + i : i * g->lda + l] * p->host[B][g->trans_b ? j * g->ldb + l : l * g->ldb + j];
        sum += term;
        size += fabs(term);
    }
    expected e = {.c = (double)g->alpha * sum, .bound = (double)(g->k + 4) * 0x1p-24 * fabs((double)g->alpha) * size};
    if (g->add)
        e.c += p->host[C][i * g->ldc + j];
    if (p->size[BIAS])
        e.c += p->host[BIAS][j];
    e.aux = e.c;
    if (writes_aux(g)) {
        e.c = gelu(e.aux);
        e.bound = 1.2 * (e.bound + unit(g->out) * fabs(e.aux)) + 16 * 0x1p-24 * fabs(e.aux);
    } else if (g->epilogue == ESPL__DGELU) {
        double slope = gelu_slope(p->host[AUX][i * g->ld_aux + j]);
        e.c *= slope;
        e.bound = 1.2 * e.bound + 16 * 0x1p-24 * fabs(e.aux);
    }
    e.bound += unit(g->out) * fabs(e.c) + 0x1p-24 * fabs(e.aux);
    return e;
}

/* Whether C (and aux) are what they should be, padding untouched. */
static bool right(const problem *p, const double *c, const double *aux) {
    const espl__gemm *g = &p->g;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n + p->pad; j++) {
            double got = c[i * g->ldc + j], was = p->host[C][i * g->ldc + j];
            if (j >= g->n) {
                if (!(got == was || (isnan(got) && isnan(was))))
                    return false;
                continue;
            }
            expected e = element(p, i, j);
            if (!(fabs(got - e.c) <= e.bound))
                return false;
            if (writes_aux(g) && !(fabs(aux[i * g->ld_aux + j] - e.aux) <= e.bound + unit(g->out) * fabs(e.aux)))
                return false;
        }
    return true;
}

static bool is_right(const problem *p) {
    double *c = download(p, C), *aux = p->size[AUX] ? download(p, AUX) : NULL;
    bool good = right(p, c, aux);
    free(c);
    free(aux);
    return good;
}

static problem problem_of(int64_t m, int64_t n, int64_t k, espl_dtype in, espl_dtype out) {
    return (problem){.g = {.m = m, .n = n, .k = k, .alpha = 1.0f, .in = in, .out = out}};
}

/* The formats: fp32, bf16, bf16 to fp32. */
static void set_formats(espl__gemm *g, int i) {
    g->in = i == 0 ? ESPL_F32 : ESPL_BF16;
    g->out = i == 1 ? ESPL_BF16 : ESPL_F32;
}

static void products_are_right(void **state) {
    (void)state;
    open_device(NULL);
    for (int i = 0; i < 3 * 4 * 2 * 3; i++) {
        problem p = problem_of(24, 40, 32, ESPL_F32, ESPL_F32);
        set_formats(&p.g, i % 3);
        p.g.trans_a = i / 3 & 1;
        p.g.trans_b = i / 6 & 1;
        p.g.add = i / 12 & 1;
        p.g.alpha = i / 24 == 1 ? 0.25f : 1.0f;
        p.pad = i / 24 == 0 ? 0 : i / 24 == 1 ? 8 : 3;
        make(&p);
        gemm(&p.g);
        assert_true(is_right(&p));
        release(&p);
    }
}

static void odd_shapes_are_right(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1}, {1, 37, 5}, {13, 1, 64}, {7, 9, 203}, {64, 3, 2}};
    open_device(NULL);
    for (int i = 0; i < 5 * 3; i++) {
        problem p = problem_of(shapes[i / 3][0], shapes[i / 3][1], shapes[i / 3][2], ESPL_F32, ESPL_F32);
        set_formats(&p.g, i % 3);
        p.shift = i % 4;
        make(&p);
        gemm(&p.g);
        assert_true(is_right(&p));
        release(&p);
    }
}

static void epilogues_are_right(void **state) {
    (void)state;
    open_device(NULL);
    for (int i = 0; i < 2 * 4 * 2; i++) {
        problem p = problem_of(16, 24, 40, ESPL_F32, ESPL_F32);
        set_formats(&p.g, i % 2);
        p.g.epilogue = (espl__epilogue)(ESPL__BIAS + i / 2 % 4);
        p.g.trans_b = i / 8;
        make(&p);
        gemm(&p.g);
        assert_true(is_right(&p));
        release(&p);
    }
}

static void planted_errors_are_found(void **state) {
    (void)state;
    open_device(NULL);
    for (int i = 0; i < 3; i++) {
        problem p = problem_of(8, 16, 32, ESPL_F32, ESPL_F32);
        int64_t largest = 0;
        set_formats(&p.g, i);
        p.pad = 8;
        make(&p);
        gemm(&p.g);
        double *c = download(&p, C);
        for (int64_t e = 0; e < 8 * p.g.ldc; e++)
            largest = fabs(c[e]) > fabs(c[largest]) ? e : largest;
        assert_true(right(&p, c, NULL));
        c[largest] *= 1.02;
        assert_false(right(&p, c, NULL));
        c[largest] /= 1.02;
        c[p.g.n] = 0; /* padding */
        assert_false(right(&p, c, NULL));
        free(c);
        release(&p);
    }
}

static void shapes_are_made_once(void **state) {
    (void)state;
    open_device("0");
    problem p = problem_of(16, 24, 40, ESPL_BF16, ESPL_BF16), q = p;
    q.shift = 1;
    make(&p);
    make(&q);
    assert_int_equal(counts().made, 0);
    gemm(&p.g);
    gemm(&p.g);
    p.g.add = true; /* adding needs no other algorithm */
    gemm(&p.g);
    assert_int_equal(counts().made, 1);
    gemm(&q.g); /* less aligned: another shape */
    gemm(&q.g);
    assert_int_equal(counts().made, 2);
    assert_int_equal(counts().shapes, 2);
    assert_int_equal(counts().timed, 0);
    assert_true(is_right(&q));
    release(&p);
    release(&q);
}

static void many_shapes_make_room(void **state) {
    (void)state;
    open_device("0");
    for (int64_t m = 1; m <= 600; m++) {
        problem p = problem_of(m, 2, 3, ESPL_F32, ESPL_F32);
        make(&p);
        gemm(&p.g);
        assert_true(is_right(&p));
        release(&p);
    }
    assert_int_equal(counts().made, 600);
    assert_true(counts().evicted >= 600 - 512 && counts().evicted < 300);
    assert_int_equal(counts().shapes, 600 - counts().evicted);
}

static void whole_batches_are_timed(void **state) {
    (void)state;
    int32_t zeros[TOKENS] = {0}, segments[2] = {0, 3};
    espl_cache cache = {.rows = 1, .capacity = 4, .row = zeros, .length = zeros};
    espl_batch generated = {
        .n = 3, .n_segments = 1, .segments = segments, .ids = zeros, .positions = zeros, .targets = zeros, .cache = &cache};
    open_device(NULL);
    problem p = problem_of(TOKENS, 24, 40, ESPL_BF16, ESPL_F32);
    p.g.add = true;
    make(&p);
    gemm(&p.g);
    assert_int_equal(counts().timed, 0);
    assert_true(is_right(&p)); /* added once */
    p.g.add = false;
    assert_int_equal(calls->begin(device, &generated), ESPL_OK);
    gemm(&p.g);
    assert_int_equal(counts().timed, 0);
    begin();
    gemm(&p.g);
    gemm(&p.g);
    assert_int_equal(counts().timed, 1);
    assert_int_equal(counts().made, 1);
    assert_true(is_right(&p));
    release(&p);
}

static void recordings_take_the_first(void **state) {
    (void)state;
    espl_graph *graph;
    open_device(NULL);
    problem p = problem_of(TOKENS, 24, 40, ESPL_BF16, ESPL_BF16);
    p.g.epilogue = ESPL__BIAS;
    make(&p);
    assert_int_equal(calls->record(device), ESPL_OK);
    gemm(&p.g);
    assert_int_equal(calls->recorded(device, &graph), ESPL_OK);
    assert_int_equal(counts().timed, 0);
    double *c = download(&p, C);
    assert_true(isnan(c[0])); /* written down, not run */
    free(c);
    assert_int_equal(calls->replay(device, graph), ESPL_OK);
    assert_true(is_right(&p));
    gemm(&p.g);
    assert_int_equal(counts().timed, 1);
    calls->forget(device, &graph);
    release(&p);
}

/* Runs with stderr in a file; returns whether `text` was written. */
static bool says(const espl__gemm *g, const char *text) {
    int file, stderr_kept = dup(2);
    char *name = make_scratch_file(&file), *line = NULL;
    size_t room = 0;
    bool found = false;
    unlink(name);
    free(name);
    fflush(stderr);
    dup2(file, 2);
    gemm(g);
    fflush(stderr);
    dup2(stderr_kept, 2);
    close(stderr_kept);
    FILE *written = fdopen(file, "r");
    rewind(written);
    while (getline(&line, &room, written) > 0)
        found = found || strstr(line, text);
    free(line);
    fclose(written);
    return found;
}

static void timing_changes_no_bits(void **state) {
    (void)state;
    double *bits[2];
    for (int tuned = 0; tuned < 2; tuned++) {
        open_device(tuned ? "show" : "0");
        problem p = problem_of(TOKENS, 64, 517, ESPL_BF16, ESPL_F32);
        make(&p);
        assert_int_equal(says(&p.g, "has other bits"), tuned); /* the emulator's second algorithm sums in another order */
        assert_int_equal(counts().timed, tuned);
        bits[tuned] = download(&p, C);
        release(&p);
    }
    assert_memory_equal(bits[0], bits[1], TOKENS * 64 * sizeof(double));
    free(bits[0]);
    free(bits[1]);
}

/* C is zero under all algorithms; that does not make them equal. */
static void zero_proves_nothing(void **state) {
    (void)state;
    open_device("show");
    problem p = problem_of(TOKENS, 64, 517, ESPL_BF16, ESPL_F32);
    p.g.alpha = 0.0f;
    make(&p);
    assert_false(says(&p.g, "candidate 1"));
    assert_true(is_right(&p));
    release(&p);
}

/* Chunks of LINEAR_XENT: they fit, there are no more than needed, and the work planned for a micro-batch is enough for a smaller one. */
static void chunks_fit(void **state) {
    (void)state;
    static const int64_t words[] = {1, 29, 997, 32000, 50257, 128256, 262144, 10000000},
                         tokens[] = {1, 63, 64, 127, 2048, 4097, 8192, 32768, 65537};
    for (int i = 0; i < 8 * 9; i++) {
        espl_attrs attrs = {.vocab = words[i / 9]};
        int64_t n = tokens[i % 9], rows = espl__xent_rows(&attrs, n), most = espl__xent_most_rows(&attrs), ld = espl__logits_ld(&attrs);
        size_t work = espl__xent_work(&attrs, ESPL_BF16, n, 1);
        assert_true(ld >= attrs.vocab && ld < attrs.vocab + 8 && ld * 4 % 16 == 0);
        assert_true(rows >= 1 && rows <= n && rows <= most && (rows == n || rows % ESPL_XENT_UNIT == 0));
        assert_true(most == ESPL_XENT_LEAST_ROWS || most * ld * 4 <= ESPL_XENT_BYTES);
        assert_true((n + rows - 1) / rows <= (n + most - 1) / most);
        for (int64_t fewer = 1; fewer <= n; fewer = fewer * 3 / 2 + 1)
            assert_true(ESPL_GEMM_WORK + (size_t)(espl__xent_rows(&attrs, fewer) * ld * 4) <= work && work % 256 == 0);
    }
}

static void failures_are_told(void **state) {
    (void)state;
    float got;
    open_device(NULL);
    problem p = problem_of(TOKENS, 24, 40, ESPL_F32, ESPL_F32);
    make(&p);
    p.g.out = ESPL_BF16; /* fp32 to bf16: there is no such product */
    gemm(&p.g);
    assert_int_equal(calls->read(device, &got, p.g.a, sizeof got), ESPL_ERR_IO);
    assert_non_null(strstr(espl_status_message(), "product [16,24] of k = 40, fp32 to bf16"));
    espl_status_clear();
    release(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right),        cmocka_unit_test(odd_shapes_are_right),   cmocka_unit_test(epilogues_are_right),
        cmocka_unit_test(planted_errors_are_found),  cmocka_unit_test(shapes_are_made_once),   cmocka_unit_test(many_shapes_make_room),
        cmocka_unit_test(whole_batches_are_timed),   cmocka_unit_test(timing_changes_no_bits), cmocka_unit_test(zero_proves_nothing),
        cmocka_unit_test(recordings_take_the_first), cmocka_unit_test(failures_are_told),      cmocka_unit_test(chunks_fit),
    };
    return cmocka_run_group_tests(tests, open_library, close_library);
}
