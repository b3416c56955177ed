#include "src/train/log/tape_log.h"

#include "src/core/buffer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct espl_tape_log {
    FILE *file;
    const espl_engine *engine;
    char *copy; /* of a tensor that lies on a device; grows */
    size_t room;
    int64_t first_step; /* -1: none seen */
};

espl_status espl_tape_log_open(const char *run_dir, int rank, const espl_engine *engine, espl_tape_log **log) {
    char *path = espl_format("%s/tape-%d.jsonl", run_dir, rank);
    FILE *file = fopen(path, "w");
    espl_status status = ESPL_OK;
    if (file == NULL)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "%s: cannot be written: %s", path, strerror(errno));
    *log = espl_calloc(1, sizeof **log);
    (*log)->file = file;
    (*log)->engine = engine;
    (*log)->first_step = -1;
done:
    free(path);
    return status;
}

static double magnitude(const void *data, espl_dtype dtype, int64_t n) {
    double most = 0.0, block[256];
    size_t size = espl_dtype_size(dtype);
    for (int64_t at = 0; at < n; at += 256) {
        int64_t count = n - at < 256 ? n - at : 256;
        espl_dtype_convert(block, ESPL_F64, (const char *)data + (size_t)at * size, dtype, (size_t)count);
        for (int64_t i = 0; i < count; i++)
            most = isnan(block[i]) || fabs(block[i]) > most ? fabs(block[i]) : most;
    }
    return most;
}

/* *data becomes a place where the host can read the tensor. */
static espl_status bring(espl_tape_log *log, const void **data, size_t bytes) {
    const espl_engine *e = log->engine;
    if (!e->calls->remote)
        return ESPL_OK;
    if (log->room < bytes) {
        log->copy = espl_realloc(log->copy, bytes);
        log->room = bytes;
    }
    ESPL_TRY(e->calls->read(e->device, log->copy, *data, bytes));
    *data = log->copy;
    return ESPL_OK;
}

static espl_status write_tensor(espl_tape_log *log, const char *what, const void *data, espl_dtype dtype, int64_t rows, int64_t columns) {
    int64_t n = rows * columns;
    ESPL_TRY(bring(log, &data, (size_t)n * espl_dtype_size(dtype)));
    fprintf(log->file, ", \"%s\": {\"shape\": [%" PRId64 ", %" PRId64 "], \"max\": %.9g, \"xxh3\": \"%016" PRIx64 "\"}", what, rows,
            columns, magnitude(data, dtype, n), (uint64_t)XXH3_64bits(data, (size_t)n * espl_dtype_size(dtype)));
    return ESPL_OK;
}

static espl_status write_buffer(espl_tape_log *log, const char *what, int number, const espl_tape *tape, int life,
                                const espl_batch *batch) {
    char name[16];
    if (life < 0)
        return ESPL_OK;
    const espl_life *l = &tape->lives[life];
    snprintf(name, sizeof name, "%s%d", what, number);
    return write_tensor(log, name, espl_tape_buffer(tape, life), l->stat ? tape->kernels->stat : tape->kernels->real,
                        l->fixed ? 1 : espl_tape_stream(batch, l->stream)->n, l->width);
}

static espl_status write_gradients(espl_tape_log *log, const espl_tape *tape, int call) {
    const espl_row *row = &tape->model->rows[tape->calls[call].row];
    for (int i = 0; i < ESPL_MAX_PARAM; i++) {
        const void *data = tape->args[call].dparam[i];
        if (data == NULL)
            continue;
        const espl_param *p = &tape->model->params[row->param[i]];
        ESPL_TRY(write_tensor(log, p->name, data, tape->kernels->stat, p->shape[0], p->n_dims > 1 ? p->shape[1] : 1));
    }
    return ESPL_OK;
}

espl_status espl_tape_log_call(espl_tape_log *log, const espl_tape *tape, int call, const espl_batch *batch) {
    int64_t step = batch->rng.step;
    if (log == NULL)
        return ESPL_OK;
    if (log->first_step < 0)
        log->first_step = step;
    if (step - log->first_step >= ESPL_TAPE_LOG_STEPS)
        return ESPL_OK;
    const espl_call *c = &tape->calls[call];
    const espl_row *row = &tape->model->rows[c->row];
    bool forward = c->kind == ESPL_CALL_FORWARD;
    fprintf(log->file,
            "{\"step\": %" PRId64 ", \"micro\": %u, \"call\": %d, \"op\": \"%s\", \"row\": \"%s\", \"layer\": %d, \"pass\": \"%s\"",
            step + 1, batch->rng.micro, call, espl_ops[row->op].name, row->name, row->layer,
            !forward   ? "backward"
            : c->again ? "again"
                       : "forward");
    for (int i = 0; i < ESPL_MAX_OUT && (forward || (espl_ops[row->op].flags & ESPL_OP_LOSS)); i++)
        ESPL_TRY(write_buffer(log, "out", i, tape, c->out[i], batch));
    for (int i = 0; i < ESPL_MAX_IN && !forward; i++)
        ESPL_TRY(write_buffer(log, "din", i, tape, c->din[i], batch));
    if (!forward)
        ESPL_TRY(write_gradients(log, tape, call));
    fputs("}\n", log->file);
    return ESPL_OK;
}

void espl_tape_log_close(espl_tape_log **log) {
    if (*log == NULL)
        return;
    fclose((*log)->file);
    free((*log)->copy);
    free(*log);
    *log = NULL;
}
