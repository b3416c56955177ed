#include "src/plan/peak.h"

#include "src/core/buffer.h"
#include "src/core/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HOST_SIDE = 2048, THREAD_SIDE = 1024, CROWDED_SIDE = 512, GPU_SIDE = 4096, EMULATED_SIDE = 64, GPU_REPEATS = 8 };

/* One product and what it works on. */
typedef struct product {
    espl_attrs attrs;
    int64_t rows;
    int repeats; /* of one measurement: a GPU's launches take their time, too */
    espl_args args;
    espl_batch batch;
    int32_t segments[2];
    espl_arena arena;
} product;

/* Some hundredths of a second for the threads; where they share cores, less than the system's slices of time, so that one is undisturbed.
 */
static int64_t host_side(int threads, double crowd) {
    int64_t side = crowd > 1.0 ? CROWDED_SIDE : THREAD_SIDE;
    while (crowd <= 1.0 && side < HOST_SIDE && pow((double)side / THREAD_SIDE, 3.0) < threads)
        side *= 2;
    return side;
}

static product choose(const espl_engine *engine, int threads, double crowd, int64_t tokens) {
    int64_t side = !engine->calls->remote ? host_side(threads, crowd) : strcmp(engine->name, "emu") == 0 ? EMULATED_SIDE : GPU_SIDE;
    return (product){.attrs = {.n_in = side, .n_out = side, .layout = ESPL_OUT_IN},
                     .rows = engine->calls->remote ? tokens : side,
                     .repeats = engine->calls->remote ? GPU_REPEATS : 1};
}

static void layout(const espl_engine *engine, int threads, product *p) {
    const espl_kernels *k = engine->kernels;
    size_t real = espl_dtype_size(k->real), width = (size_t)p->attrs.n_in, rows = (size_t)p->rows;
    p->args.work = espl_arena_take(&p->arena, k->work_bytes(ESPL_OP_LINEAR, &p->attrs, p->rows, threads, 0));
    p->args.in[0] = espl_arena_take(&p->arena, rows * width * real);
    p->args.out[0] = espl_arena_take(&p->arena, rows * width * real);
    p->args.param[0] = espl_arena_take(&p->arena, width * width * real);
}

/* Zeros would not do on a GPU: libraries choose algorithms by what comes out, and zeros take less power. */
static espl_status fill(const espl_engine *engine, const product *p, const void *tensor, int64_t rows) {
    enum { AT_ONCE = 64 };
    size_t width = (size_t)p->attrs.n_in, real = espl_dtype_size(engine->kernels->real);
    float *block = espl_malloc(AT_ONCE * width * sizeof *block);
    espl_status status = ESPL_OK;
    for (size_t i = 0; i < AT_ONCE * width; i++)
        block[i] = (float)(i * 7919 % 4093) / 4093.0f - 0.5f;
    for (int64_t row = 0; row < rows && status == ESPL_OK; row += AT_ONCE) {
        size_t n = (size_t)(rows - row < AT_ONCE ? rows - row : AT_ONCE) * width;
        char *to = (char *)(uintptr_t)tensor + (size_t)row * width * real;
        status = espl_engine_put(engine, to, engine->kernels->real, block, ESPL_F32, n);
    }
    free(block);
    return status;
}

static espl_status run_once(const espl_engine *engine, const product *p, double *seconds) {
    double before = espl_now();
    for (int i = 0; i < p->repeats; i++)
        engine->kernels->forward[ESPL_OP_LINEAR](&p->args);
    ESPL_TRY(engine->calls->sync(engine->device));
    *seconds = (espl_now() - before) / p->repeats;
    return ESPL_OK;
}

/* The fastest run: a peak is what is reached when nothing disturbs. */
static espl_status least_seconds(const espl_engine *engine, product *p, double seconds, double *least) {
    double now = 0.0;
    p->segments[1] = (int32_t)p->rows;
    p->batch = (espl_batch){.n = p->rows, .n_segments = 1, .segments = p->segments};
    p->args.attrs = &p->attrs;
    p->args.batch = &p->batch;
    if (engine->calls->remote) {
        ESPL_TRY(fill(engine, p, p->args.in[0], p->rows));
        ESPL_TRY(fill(engine, p, p->args.param[0], p->attrs.n_in));
    }
    ESPL_TRY(run_once(engine, p, &now)); /* the first one is slow */
    *least = INFINITY;
    for (double start = espl_now(); !isfinite(*least) || espl_now() - start < seconds;) {
        ESPL_TRY(run_once(engine, p, &now));
        *least = fmin(*least, now);
    }
    return ESPL_OK;
}

espl_status espl_peak_measure(const espl_engine *engine, int threads, double crowd, int64_t tokens, double seconds, double *flops) {
    product p = choose(engine, threads, crowd, tokens);
    double least = INFINITY;
    *flops = 0.0;
    p.arena = espl_arena_measure("PEAK");
    layout(engine, threads, &p);
    if (espl_engine_take(engine, &p.arena, "PEAK", p.arena.used) != ESPL_OK) {
        espl_status_clear();
        return ESPL_OK;
    }
    layout(engine, threads, &p);
    espl_status status = least_seconds(engine, &p, seconds, &least);
    espl_engine_give_back(engine, &p.arena);
    if (status == ESPL_OK)
        *flops = espl_op_flops(ESPL_OP_LINEAR, &p.attrs, (double)p.rows, 0.0) / least / (engine->calls->remote ? 1.0 : crowd);
    return status;
}
