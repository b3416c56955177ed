#include "kernels/cuda/cudnn_attention.h"

#include "kernels/cuda/cudnn_plans.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda_cudnn_work.h"
#include "src/core/buffer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHAPES = 32, PIECES = 32, PIECE_BYTES = 4096, FORWARD = 0, BACKWARD = 1 };

typedef struct choice {
    espl__cudnn_shape shape;
    bool chosen, compared[2];
    char why[256]; /* not chosen */
    espl__cudnn_plan plan[2];
} choice;

static struct {
    bool opened;
    char closed[256]; /* why it did not open; "" when it did */
    espl__cudnn_counts counts;
    choice choices[SHAPES];
} dnn;

static bool asked_for(const char *what) {
    const char *asked = getenv("ESPL_CUDA_ATTENTION");
    return asked != NULL && strcmp(asked, what) == 0;
}

static bool is_recording(void) {
    enum cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(espl__cuda->compute, &capture) != cudaSuccess || capture != cudaStreamCaptureStatusNone;
}

/* ---- What fits. */

static bool is_aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

/* What cannot change between the calls of a shape: pointers lie where the plan of memory put them. */
static bool is_one_for_cudnn(const espl_args *args, char *why, size_t room) {
    const espl__rows *rows = espl__rows_of(args);
    if (!espl__cudnn_may_do(args->attrs, ESPL_BF16))
        snprintf(why, room, "dropout of probabilities, a window, a position bias or heads of %d", args->attrs->head_dim);
    else if (rows->segment_capacity * ESPL_CUDNN_LEAST_ROWS_A_SEGMENT > rows->capacity + ESPL_CUDNN_LEAST_ROWS_A_SEGMENT - 1 ||
             rows->segment_capacity * rows->longest > ESPL_CUDNN_MOST_PLACES_A_ROW * rows->capacity)
        snprintf(why, room, "a micro-batch of %lld tokens may hold %lld documents of up to %lld", (long long)rows->capacity,
                 (long long)rows->segment_capacity, (long long)rows->longest);
    else if (!is_aligned(args->in[0]) || !is_aligned(args->out[0]) || !is_aligned(args->dout[0]) || !is_aligned(args->din[0]))
        snprintf(why, room, "operands that are not aligned to 16 bytes");
    else
        return true;
    return false;
}

static espl__cudnn_shape shape_of(const espl_args *args) {
    const espl__rows *rows = espl__rows_of(args);
    const espl_attrs *attrs = args->attrs;
    return (espl__cudnn_shape){.rows = rows->capacity,
                               .segments = rows->segment_capacity,
                               .longest = rows->longest,
                               .heads = attrs->heads,
                               .kv_heads = attrs->kv_heads,
                               .head_dim = attrs->head_dim,
                               .causal = attrs->causal != 0};
}

/* ---- Choosing. */

static bool opened(void) {
    if (!dnn.opened) {
        dnn.opened = true;
        espl__cudnn_open(espl__cuda->compute, dnn.closed, sizeof dnn.closed);
    }
    return dnn.closed[0] == '\0';
}

static bool make_plans(choice *c, const espl_attrs *attrs, char *why, size_t room) {
    for (int pass = FORWARD; pass <= BACKWARD; pass++) {
        if (!espl__cudnn_make_plan(&c->shape, pass == BACKWARD, NULL, &c->plan[pass], why, room))
            return false;
        size_t planned = espl__cudnn_work(attrs, ESPL_BF16, c->shape.rows, pass);
        if ((size_t)c->plan[pass].work_bytes > planned) {
            snprintf(why, room, "cuDNN asks for %lld bytes of work where %zu are planned", (long long)c->plan[pass].work_bytes, planned);
            return false;
        }
    }
    return true;
}

static void drop(choice *c, const char *why) {
    dnn.counts.chosen -= c->chosen;
    c->chosen = false;
    snprintf(c->why, sizeof c->why, "%s", why);
    for (int pass = FORWARD; pass <= BACKWARD; pass++)
        espl__cudnn_free_plan(&c->plan[pass]);
}

static choice *choose(const espl__cudnn_shape *shape, const espl_attrs *attrs) {
    char why[256] = "";
    choice *c = &dnn.choices[dnn.counts.shapes++];
    c->shape = *shape;
    if (is_recording())
        drop(c, "the shape was first met in a recording");
    else if (!opened())
        drop(c, dnn.closed);
    else if (!make_plans(c, attrs, why, sizeof why))
        drop(c, why);
    else
        c->chosen = true;
    dnn.counts.chosen += c->chosen;
    return c;
}

/* NULL: there are too many shapes, as where generation makes them. */
static choice *choice_of(const espl_args *args) {
    espl__cudnn_shape shape = shape_of(args);
    for (int64_t i = 0; i < dnn.counts.shapes; i++)
        if (memcmp(&dnn.choices[i].shape, &shape, sizeof shape) == 0)
            return &dnn.choices[i];
    return dnn.counts.shapes < SHAPES ? choose(&shape, args->attrs) : NULL;
}

/* ---- Running. */

static bool run(const choice *c, const espl_args *args, int pass, char *why, size_t room) {
    const espl__rows *rows = espl__rows_of(args);
    const espl_attrs *attrs = args->attrs;
    int64_t row = (int64_t)attrs->heads * attrs->head_dim * 2, keys = row, values = row + (int64_t)attrs->kv_heads * attrs->head_dim * 2;
    char *qkv = (char *)(uintptr_t)args->in[0], *dqkv = args->din[0];
    void *tensors[ESPL__CUDNN_TENSORS] = {[ESPL__CUDNN_Q] = qkv,
                                          [ESPL__CUDNN_K] = qkv + keys,
                                          [ESPL__CUDNN_V] = qkv + values,
                                          [ESPL__CUDNN_O] = args->out[0],
                                          [ESPL__CUDNN_LSE] = args->out[1],
                                          [ESPL__CUDNN_DO] = args->dout[0],
                                          [ESPL__CUDNN_SEGMENTS] = rows->segments,
                                          [ESPL__CUDNN_LENGTHS_Q] = rows->segments,
                                          [ESPL__CUDNN_LENGTHS_K] = rows->segments,
                                          [ESPL__CUDNN_SCALE] = (void *)(uintptr_t)&attrs->scale};
    if (pass == BACKWARD) {
        tensors[ESPL__CUDNN_DQ] = dqkv;
        tensors[ESPL__CUDNN_DK] = dqkv + keys;
        tensors[ESPL__CUDNN_DV] = dqkv + values;
    }
    if (!espl__cudnn_run(&c->plan[pass], tensors, args->work, why, room))
        return false;
    if (pass == BACKWARD) {
        espl__cuda_zero_padding(rows, dqkv, values + (values - keys));
        return true;
    }
    espl__cuda_zero_padding(rows, args->out[0], row);
    espl__cuda_zero_padding(rows, args->out[1], attrs->heads * (int64_t)sizeof(float));
    return true;
}

/* ---- The first call of a shape: our kernel's results beside cuDNN's, and cuDNN's beside its own. */

typedef struct result {
    const char *x;
    int64_t columns, element; /* bytes */
} result;

static int results_of(const espl_args *args, int pass, result results[2]) {
    const espl_attrs *attrs = args->attrs;
    int64_t row = (int64_t)attrs->heads * attrs->head_dim;
    if (pass == BACKWARD) {
        results[0] = (result){args->din[0], row + 2 * (int64_t)attrs->kv_heads * attrs->head_dim, 2};
        return 1;
    }
    results[0] = (result){args->out[0], row, 2};
    results[1] = (result){args->out[1], attrs->heads, sizeof(float)};
    return 2;
}

/* Pieces of a result, spread over it. Returns their bytes; 0 when they cannot be read. */
static int64_t read_pieces(const result *r, int64_t rows, char *to) {
    int64_t bytes = rows * r->columns * r->element, piece = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
    for (int64_t i = 0; i < PIECES; i++) {
        int64_t from = (bytes - piece) * i / (PIECES - 1) / 16 * 16;
        if (cudaMemcpyAsync(to + i * piece, r->x + from, (size_t)piece, cudaMemcpyDeviceToHost, espl__cuda->compute) != cudaSuccess)
            return 0;
    }
    return cudaStreamSynchronize(espl__cuda->compute) == cudaSuccess ? PIECES * piece : 0;
}

static double value_at(const char *x, int64_t element, int64_t i) {
    uint32_t bits;
    float value;
    if (element == 2)
        bits = (uint32_t)((const uint16_t *)(const void *)x)[i] << 16;
    else
        bits = ((const uint32_t *)(const void *)x)[i];
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

/* Two ways of computing attention in bf16 part by some 2^-8 of the values' size, a mistake by the size itself: 2^-5 lies between. */
static bool are_alike(const char *a, const char *b, int64_t bytes, int64_t element) {
    double apart = 0, size = 0;
    for (int64_t i = 0; i < bytes / element; i++) {
        double x = value_at(a, element, i), y = value_at(b, element, i);
        apart += (x - y) * (x - y);
        size += x * x;
    }
    return apart <= size / 1024;
}

typedef struct findings {
    char *pieces[2];
    int64_t bytes[2];
    uint64_t digest[2];
} findings;

static bool find(const espl_args *args, int pass, findings *f) {
    result results[2];
    int n = results_of(args, pass, results);
    int64_t rows = espl__rows_of(args)->tokens;
    for (int i = 0; i < n; i++) {
        espl__digest digest;
        f->bytes[i] = read_pieces(&results[i], rows, f->pieces[i]);
        if (f->bytes[i] == 0 ||
            !espl__cuda_digest_of(results[i].x, results[i].element, rows, results[i].columns, results[i].columns, args->work, &digest))
            return false;
        f->digest[i] = digest.sum;
    }
    return true;
}

static bool is_right(const choice *c, const espl_args *args, int pass, espl_kernel *own, findings *ours, findings theirs[2], char *why,
                     size_t room) {
    result results[2];
    int n = results_of(args, pass, results);
    own(args);
    if (!find(args, pass, ours))
        return snprintf(why, room, "our own results cannot be read"), false;
    for (int i = 0; i < 2; i++)
        if (!run(c, args, pass, why, room) || !find(args, pass, &theirs[i]))
            return false;
    for (int i = 0; i < n; i++) {
        if (!are_alike(ours->pieces[i], theirs[0].pieces[i], ours->bytes[i], results[i].element))
            return snprintf(why, room, "cuDNN's %s gives other values than ours", pass == BACKWARD ? "backward" : "forward"), false;
        if (theirs[0].digest[i] != theirs[1].digest[i])
            return snprintf(why, room, "cuDNN's %s does not give the same bits again", pass == BACKWARD ? "backward" : "forward"), false;
    }
    return true;
}

/* Leaves the results of cuDNN where they are right. */
static bool compare(choice *c, const espl_args *args, int pass, espl_kernel *own, char *why, size_t room) {
    char *memory = espl_malloc((size_t)6 * PIECES * PIECE_BYTES);
    findings of[3] = {{.bytes = {0}}};
    for (int i = 0; i < 6; i++)
        of[i / 2].pieces[i % 2] = memory + (size_t)i * PIECES * PIECE_BYTES;
    bool right = is_right(c, args, pass, own, &of[0], &of[1], why, room);
    free(memory);
    c->compared[pass] = true;
    if (!right) {
        dnn.counts.refused++;
        drop(c, why);
    }
    return right;
}

static bool take(const espl_args *args, espl_kernel *own, int pass, char *why, size_t room) {
    if (!is_one_for_cudnn(args, why, room))
        return false;
    choice *c = choice_of(args);
    if (c == NULL || !c->chosen || (pass == BACKWARD && args->din_add[0])) {
        snprintf(why, room, "%s", c == NULL ? "too many shapes" : c->chosen ? "a gradient that is added to another" : c->why);
        return false;
    }
    if (!c->compared[pass] && is_recording())
        drop(c, "the pass was first met in a recording");
    else if (!c->compared[pass])
        return compare(c, args, pass, own, why, room);
    if (!c->chosen)
        return snprintf(why, room, "%s", c->why), false;
    if (!run(c, args, pass, why, room))
        espl__cuda_note_text("attention", why);
    return true;
}

static bool take_pass(const espl_args *args, espl_kernel *own, int pass) {
    char why[256] = "";
    if (asked_for("own") || !espl__cuda_is_whole() || args->batch->cache != NULL)
        return false;
    bool taken = take(args, own, pass, why, sizeof why);
    if (!taken)
        snprintf(dnn.counts.why, sizeof dnn.counts.why, "%s", why);
    if (!taken && asked_for("cudnn"))
        espl__cuda_note_text("attention, which ESPL_CUDA_ATTENTION=cudnn wants by cuDNN", why);
    return taken;
}

bool espl__cudnn_forward(const espl_args *args, espl_kernel *own) { return take_pass(args, own, FORWARD); }

bool espl__cudnn_backward(const espl_args *args, espl_kernel *own) { return take_pass(args, own, BACKWARD); }

void espl__cudnn_describe(char *text, size_t room) {
    size_t version = asked_for("own") ? 0 : espl__cudnn_version();
    text[0] = '\0';
    if (version > 0)
        snprintf(text, room, ", cuDNN %zu.%zu.%zu%s", version / 10000, version / 100 % 100, version % 100,
                 version < ESPL__CUDNN_LEAST ? " (too old for attention)" : "");
}

void espl__cudnn_tell(char *text, size_t room) {
    text[0] = '\0';
    for (int64_t i = 0; i < dnn.counts.shapes; i++)
        if (dnn.choices[i].chosen) {
            const espl__cudnn_plan *plan = dnn.choices[i].plan;
            snprintf(text, room, "cuDNN's, by its engines %lld forward and %lld backward", (long long)plan[FORWARD].engine,
                     (long long)plan[BACKWARD].engine);
            return;
        }
    if (dnn.counts.why[0] != '\0')
        snprintf(text, room, "our own kernels; cuDNN's not: %.200s", dnn.counts.why);
}

void espl__cudnn_close(void) {
    for (int64_t i = 0; i < dnn.counts.shapes; i++)
        drop(&dnn.choices[i], "");
    espl__cudnn_shut();
    memset(&dnn, 0, sizeof dnn);
}

espl__cudnn_counts espl__cudnn_count(void) { return dnn.counts; }
