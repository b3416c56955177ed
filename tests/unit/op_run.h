/* Runs a case of op_cases.h on a backend and compares backends.
 *
 * op_run gives the values to a table in its own formats, runs forward and backward, and takes the
 * results back as double. A backend may be a device with memory of its own: then everything goes there, each tensor
 * by itself, and rows behind the tokens of the case are padding (device.h). op_expands runs a case over matrices that are quantised, and
 * over what those expand to: the same bits. op_run_cached feeds a causal attention case piece by piece
 * through a cache. op_worst_2x is the rule for fast kernels: their error against fp64 is at most twice that of the plain reference in the
 * same precision. */
#ifndef ESPL_TESTS_UNIT_OP_RUN_H
#define ESPL_TESTS_UNIT_OP_RUN_H

#include "tests/unit/op_cases.h"

#include "kernels/device.h"

#include <stdio.h>

/* Work that is kept from call to call while it has the right size: much of it takes long to make. */
typedef struct op_work {
    void *memory;
    size_t bytes;
} op_work;

/* Who computes: a table, its threads, and the format to which its activations are rounded (its own, or a narrower one to stand for it). */
typedef struct op_backend {
    const espl_kernels *kernels;
    int threads;
    espl_dtype round;
    const espl_device_calls *calls; /* NULL: kernels work on the host's memory */
    espl_device *device;
    int64_t more_rows;  /* padding behind the tokens; 0 on the host */
    size_t shift;       /* tensors begin so many bytes behind a multiple of 256 */
    op_work *work;      /* NULL: made for each call */
    bool replay;        /* each kernel is recorded while another micro-batch is under way, then replayed on the case's */
    espl_stream stream; /* the tokens of the case are that stream's */
} op_backend;

static inline op_backend op_backend_of(const espl_kernels *kernels, int threads) {
    return (op_backend){.kernels = kernels, .threads = threads, .round = kernels->real};
}

static inline espl_dtype op_slot_format(const op_backend *backend, espl_op op, int slot) {
    return op_slot_is_stat(op, slot) ? backend->kernels->stat : backend->kernels->real;
}

/* Exact size, so that a sanitizer sees a step over the end; aligned as the arenas are. */
static inline void *op_alloc(size_t bytes) {
    void *p = NULL;
    return bytes == 0 || posix_memalign(&p, 64, bytes) ? NULL : p;
}

/* What must not fail in a test. */
static inline void op_must(espl_status status) {
    if (status == ESPL_OK)
        return;
    espl_status_print_trail(stderr);
    abort();
}

/* The same where the kernels work. */
static inline void *op_memory(const op_backend *backend, size_t bytes) {
    void *memory = NULL;
    if (!backend->calls || bytes == 0)
        return op_alloc(bytes);
    op_must(backend->calls->alloc(backend->device, "test", bytes + backend->shift, &memory));
    return (char *)memory + backend->shift;
}

static inline void op_release(const op_backend *backend, void *memory, size_t bytes) {
    if (!backend->calls)
        free(memory);
    else if (memory)
        backend->calls->release(backend->device, (char *)memory - backend->shift, bytes + backend->shift);
}

static inline void op_put(const op_backend *backend, void *to, const void *from, size_t bytes) {
    if (backend->calls)
        op_must(backend->calls->write(backend->device, to, from, bytes));
    else
        memcpy(to, from, bytes);
}

static inline void op_get(const op_backend *backend, void *to, const void *from, size_t bytes) {
    if (backend->calls)
        op_must(backend->calls->read(backend->device, to, from, bytes));
    else
        memcpy(to, from, bytes);
}

/* Rounds n numbers of the backend's `real` in place to its `round` format. */
static inline void op_round(const op_backend *backend, void *x, int64_t n) {
    if (!x || backend->calls || backend->round == backend->kernels->real)
        return;
    void *narrow = op_alloc((size_t)n * espl_dtype_size(backend->round));
    espl_dtype_convert(narrow, backend->round, x, backend->kernels->real, (size_t)n);
    espl_dtype_convert(x, backend->kernels->real, narrow, backend->round, (size_t)n);
    free(narrow);
}

/* Where a result lies: aliased ones in the buffer of what they overwrote. */
static inline int op_slot_buffer(const op_case *c, int slot) {
    bool alias = c->flags & OP_ALIAS;
    if (c->op == ESPL_OP_LORA)
        return slot == OP_OUT0 ? OP_IN1 : slot;
    if (c->op == ESPL_OP_ROPE || c->op == ESPL_OP_PREFIX)
        return slot == OP_OUT0 ? OP_IN0 : slot == OP_DIN0 ? OP_DOUT0 : slot;
    return alias && slot == OP_DIN0 ? OP_DOUT0 : alias && slot == OP_OUT0 && c->op == ESPL_OP_RESNORM ? OP_IN0 : slot;
}

static inline void op_round_slots(const op_backend *backend, const op_case *c, const op_values *v, void *const buffer[OP_SLOTS], int first,
                                  int last) {
    for (int s = first; s <= last; s++)
        if (!op_slot_is_stat(c->op, s))
            op_round(backend, buffer[op_slot_buffer(c, s)], v->size[s]);
}

enum { OP_ROPE = OP_SLOTS, OP_BUFFERS };

/* How the matrix in a slot is quantised; NULL: it is not. */
static inline const espl_quant *op_quant(const op_values *v, int slot) {
    const espl_quant *quant = slot == OP_PARAM0 ? &v->attrs.quant[0] : slot == OP_PARAM2 ? &v->attrs.quant[1] : NULL;
    return quant && quant->format != ESPL_QUANT_NONE ? quant : NULL;
}

/* The numbers of a slot quantised, part by part; `expanded`, or NULL: what they expand to. */
static inline void op_quantise(const espl_quant *quant, const double *x, char *to, double *expanded) {
    int64_t n = espl_quant_numel(quant);
    float *values = op_alloc((size_t)n * sizeof *values), *part_of = values;
    espl_dtype_convert(values, ESPL_F32, x, ESPL_F64, (size_t)n);
    for (int part = 0; part < quant->n_parts; part++) {
        espl_quant_places at = espl_quant_places_of(quant, part);
        espl_quantise(quant, part, part_of, ESPL_F32, to);
        espl_dequantise(quant, part, to, part_of);
        part_of += at.n;
        to += at.bytes;
    }
    if (expanded)
        espl_dtype_convert(expanded, ESPL_F64, values, ESPL_F32, (size_t)n);
    free(values);
}

/* Elements of a slot's buffer: with the rows of padding, where a row is a token's. */
static inline int64_t op_buffer_size(const op_backend *backend, const op_values *v, int slot) {
    bool parameter = (slot >= OP_PARAM0 && slot < OP_DIN0) || slot >= OP_DPARAM0 || op_slot_is_fixed(v->op, slot);
    int64_t rows = slot == OP_OUT0 || slot == OP_DOUT0 ? v->out_rows : v->batch.n;
    if (v->source && (slot == OP_IN1 || slot == OP_DIN1))
        rows = v->source->n;
    return parameter ? v->size[slot] : v->size[slot] / rows * (rows + backend->more_rows);
}

static inline size_t op_buffer_bytes(const op_backend *backend, const op_case *c, const op_values *v, int slot) {
    if (slot == OP_ROPE)
        return (size_t)(v->attrs.positions * v->attrs.rope_dim) * sizeof(float);
    if (op_quant(v, slot))
        return espl_quant_bytes(op_quant(v, slot));
    return (size_t)op_buffer_size(backend, v, slot) * espl_dtype_size(op_slot_format(backend, c->op, slot));
}

/* Rows of padding hold numbers where something was computed from token 0, and no gradient; results there are NaN before, or nothing. */
static inline void op_fill_padding(const op_backend *backend, const op_case *c, const op_values *v, int slot, double *to) {
    bool gradient = slot >= OP_DOUT0 || op_slot_is_added(c, slot);
    for (int64_t e = v->size[slot]; e < op_buffer_size(backend, v, slot); e++)
        to[e] = gradient ? 0 : op_slot_is_result(slot) ? NAN : v->slot[slot][e % v->size[slot]];
}

static inline void op_buffers_make(const op_backend *backend, const op_case *c, const op_values *v, void *buffer[OP_BUFFERS]) {
    for (int s = 0; s < OP_SLOTS; s++) {
        espl_dtype format = op_slot_format(backend, c->op, s);
        int64_t size = op_buffer_size(backend, v, s);
        size_t bytes = op_buffer_bytes(backend, c, v, s);
        buffer[s] = op_memory(backend, bytes);
        if (!buffer[s])
            continue;
        double *wide = op_alloc((size_t)size * sizeof *wide);
        void *narrow = op_alloc(bytes);
        memcpy(wide, v->slot[s], (size_t)v->size[s] * sizeof *wide);
        op_fill_padding(backend, c, v, s, wide);
        if (op_quant(v, s))
            op_quantise(op_quant(v, s), wide, narrow, NULL);
        else
            espl_dtype_convert(narrow, format, wide, ESPL_F64, (size_t)size);
        op_put(backend, buffer[s], narrow, bytes);
        free(narrow);
        free(wide);
    }
    buffer[OP_ROPE] = op_memory(backend, op_buffer_bytes(backend, c, v, OP_ROPE));
    if (buffer[OP_ROPE])
        op_put(backend, buffer[OP_ROPE], v->rope, op_buffer_bytes(backend, c, v, OP_ROPE));
}

/* Whether the rows of padding are harmless: what was computed there is finite, and gradients are zero. Complains. */
static inline bool op_padding_is_harmless(const op_backend *backend, const op_case *c, const op_values *v, int slot, const double *x) {
    for (int64_t e = v->size[slot]; e < op_buffer_size(backend, v, slot); e++)
        if (!isfinite(x[e]) || (slot >= OP_DIN0 && x[e] != 0)) {
            printf("%s: %s: %s of a row of padding is %g\n", backend->kernels->name, c->name, op_slot_names[slot], x[e]);
            return false;
        }
    return true;
}

/* Takes the results up to slot `last` back; aliased ones lie in the buffers of what they overwrote. */
static inline void op_buffers_collect(const op_backend *backend, const op_case *c, op_values *v, void *const buffer[OP_BUFFERS], int last) {
    for (int s = 0; s <= last; s++) {
        if (!op_slot_is_result(s) || !buffer[s])
            continue;
        int64_t size = op_buffer_size(backend, v, s);
        size_t bytes = op_buffer_bytes(backend, c, v, s);
        void *narrow = op_alloc(bytes);
        double *wide = op_alloc((size_t)size * sizeof *wide);
        op_get(backend, narrow, buffer[op_slot_buffer(c, s)], bytes);
        espl_dtype_convert(wide, ESPL_F64, narrow, op_slot_format(backend, c->op, s), (size_t)size);
        if (!op_padding_is_harmless(backend, c, v, s, wide))
            wide[0] = NAN;
        memcpy(v->slot[s], wide, (size_t)v->size[s] * sizeof *wide);
        free(wide);
        free(narrow);
    }
}

static inline void op_buffers_free(const op_backend *backend, const op_case *c, const op_values *v, void *buffer[OP_BUFFERS]) {
    for (int s = 0; s < OP_BUFFERS; s++)
        op_release(backend, buffer[s], op_buffer_bytes(backend, c, v, s));
}

static inline espl_args op_args(const op_case *c, const op_values *v, void *const buffer[OP_BUFFERS]) {
    espl_args args = {.attrs = &v->attrs, .batch = &v->batch, .rope = buffer[OP_ROPE]};
    for (int i = 0; i < 2; i++) {
        args.in[i] = buffer[OP_IN0 + i];
        args.din[i] = buffer[OP_DIN0 + i];
        args.din_add[i] = op_slot_is_added(c, OP_DIN0 + i);
    }
    for (int i = 0; i < 4; i++) {
        args.param[i] = buffer[OP_PARAM0 + i];
        args.dparam[i] = buffer[OP_DPARAM0 + i];
        args.dparam_add[i] = op_slot_is_added(c, OP_DPARAM0 + i);
    }
    for (int i = 0; i < 3; i++) {
        args.out[i] = buffer[OP_OUT0 + i];
        args.dout[i] = buffer[OP_DOUT0 + i];
    }
    args.out[0] = buffer[op_slot_buffer(c, OP_OUT0)];
    args.din[0] = buffer[OP_DIN0] ? buffer[op_slot_buffer(c, OP_DIN0)] : NULL;
    return args;
}

/* The micro-batch becomes the one that kernels of a device work on; of another stream than the main one it goes with a main token, of the
 * main one with a pooled row a segment. */
static inline void op_start(const op_backend *backend, const espl_batch *batch) {
    static const int32_t zero, segments[] = {0, 1}, none = -1;
    const espl_batch pooled = {.n = batch->n_segments};
    espl_batch main = {.n = 1, .n_segments = 1, .segments = segments, .ids = &zero, .positions = &zero, .targets = &none};
    if (backend->stream == ESPL_STREAM_MAIN)
        main = *batch;
    if (backend->stream == ESPL_STREAM_SOURCE)
        main.source = batch;
    main.pooled = backend->stream == ESPL_STREAM_POOLED ? batch : backend->stream == ESPL_STREAM_MAIN ? &pooled : NULL;
    op_must(backend->calls->begin(backend->device, &main));
}

/* Records the kernel for a micro-batch of one token, with nothing in common with the case's, and replays it on that. */
static inline void op_replay(const op_backend *backend, espl_kernel *kernel, const espl_args *args) {
    static const int32_t zero, segments[] = {0, 1}, none = -1;
    const espl_batch other = {.n = 1,
                              .n_segments = 1,
                              .segments = segments,
                              .ids = &zero,
                              .positions = &zero,
                              .targets = &none,
                              .loss_scale = 77,
                              .training = !args->batch->training,
                              .rng = {.seed = 99, .purpose = ESPL_RNG_TEST}};
    espl_args recorded = *args;
    espl_graph *graph = NULL;
    recorded.batch = &other;
    op_start(backend, &other);
    op_must(backend->calls->record(backend->device));
    kernel(&recorded);
    op_must(backend->calls->recorded(backend->device, &graph));
    op_start(backend, args->batch);
    op_must(backend->calls->replay(backend->device, graph));
    op_must(backend->calls->sync(backend->device));
    backend->calls->forget(backend->device, &graph);
}

static inline void op_work_resize(const op_backend *backend, op_work *work, size_t bytes) {
    op_backend aligned = *backend;
    aligned.shift = 0;
    if (work->bytes == bytes)
        return;
    op_release(&aligned, work->memory, work->bytes);
    work->memory = op_memory(&aligned, bytes);
    work->bytes = bytes;
}

/* NaN in every format, at both ends: in all that kernels of small cases use. */
static inline void op_work_spoil(const op_backend *backend, const op_work *work) {
    size_t bytes = work->bytes < 1 << 18 ? work->bytes : 1 << 18;
    void *dirt = op_alloc(bytes);
    if (bytes == 0)
        return;
    memset(dirt, 0xFF, bytes);
    op_put(backend, work->memory, dirt, bytes);
    op_put(backend, (char *)work->memory + work->bytes - bytes, dirt, bytes);
    free(dirt);
}

/* Calls a kernel with the work it asks for, which holds NaN. */
static inline void op_call(const op_backend *backend, espl_op op, espl_args *args, int backward) {
    espl_kernel *kernel = (backward ? backend->kernels->backward : backend->kernels->forward)[op];
    op_work own = {0}, *work = backend->work ? backend->work : &own;
    op_work_resize(backend, work,
                   backend->kernels->work_bytes(op, args->attrs, args->batch->n + backend->more_rows, backend->threads, backward));
    op_work_spoil(backend, work);
    args->work = work->memory;
    if (backend->replay)
        op_replay(backend, kernel, args);
    else
        kernel(args);
    if (backend->calls)
        op_must(backend->calls->sync(backend->device));
    op_work_resize(backend, &own, 0);
}

static inline int64_t op_longest_segment(const espl_batch *batch) {
    int64_t longest = 1;
    for (int32_t s = 0; s < batch->n_segments; s++)
        if (batch->segments[s + 1] - batch->segments[s] > longest)
            longest = batch->segments[s + 1] - batch->segments[s];
    return longest;
}

/* The micro-batch becomes the one that kernels of a device work on, with the rows of padding. */
static inline void op_begin(const op_backend *backend, const espl_batch *batch, int64_t rows) {
    if (!backend->calls)
        return;
    espl_capacity capacity[ESPL_N_STREAMS] = {{.rows = 1, .segments = 1}};
    if (backend->stream == ESPL_STREAM_MAIN)
        capacity[ESPL_STREAM_POOLED].rows = batch->n_segments + rows - batch->n;
    capacity[backend->stream] = (espl_capacity){rows, batch->n_segments, op_longest_segment(batch)};
    if (backend->stream == ESPL_STREAM_POOLED)
        capacity[backend->stream] = (espl_capacity){.rows = rows};
    if (batch->source)
        capacity[ESPL_STREAM_SOURCE] =
            (espl_capacity){batch->source->n + rows - batch->n, batch->source->n_segments, op_longest_segment(batch->source)};
    op_must(backend->calls->reserve(backend->device, capacity));
    op_start(backend, batch);
}

/* Forward alone, or forward, then backward on its outputs; fills the results of `v` up to slot `last`. */
static inline void op_run_to(const op_backend *backend, const op_case *c, op_values *v, int last) {
    void *buffer[OP_BUFFERS];
    v->attrs.stream = backend->stream;
    op_begin(backend, &v->batch, v->batch.n + backend->more_rows);
    op_buffers_make(backend, c, v, buffer);
    espl_args args = op_args(c, v, buffer);
    op_call(backend, c->op, &args, 0);
    op_round_slots(backend, c, v, buffer, OP_OUT0, OP_OUT2);
    if (last > OP_OUT2 && !(c->flags & OP_FORWARD)) {
        op_call(backend, c->op, &args, 1);
        op_round_slots(backend, c, v, buffer, OP_DIN0, OP_DIN1);
    }
    op_buffers_collect(backend, c, v, buffer, last);
    op_buffers_free(backend, c, v, buffer);
}

static inline void op_run_forward(const op_backend *backend, const op_case *c, op_values *v) { op_run_to(backend, c, v, OP_OUT2); }
static inline void op_run(const op_backend *backend, const op_case *c, op_values *v) { op_run_to(backend, c, v, OP_SLOTS - 1); }

/* Whether RENEW gives the bits that forward gave: out1 and out2 again from out0. */
static inline bool op_renews(const op_backend *backend, const op_case *c) {
    op_values v = op_values_make(c, backend->kernels->real), again = op_values_make(c, backend->kernels->real);
    op_case plain = *c;
    void *buffer[OP_BUFFERS];
    bool same = true;
    plain.flags &= ~(unsigned)OP_ALIAS;
    op_run_forward(backend, c, &v);
    memcpy(again.slot[OP_OUT0], v.slot[OP_OUT0], (size_t)v.size[OP_OUT0] * sizeof(double));
    op_begin(backend, &again.batch, again.batch.n + backend->more_rows);
    op_buffers_make(backend, &plain, &again, buffer);
    espl_args args = op_args(&plain, &again, buffer);
    args.in[0] = args.out[0];
    args.in[1] = NULL;
    op_call(backend, c->op, &args, 0);
    op_buffers_collect(backend, &plain, &again, buffer, OP_OUT2);
    op_buffers_free(backend, &plain, &again, buffer);
    for (int s = OP_OUT0; s <= OP_OUT2; s++)
        same = same && memcmp(again.slot[s], v.slot[s], (size_t)v.size[s] * sizeof(double)) == 0;
    op_values_free(&v);
    op_values_free(&again);
    return same;
}

/* Whether out1 of an op that is ALONE has the same bits when out0 is not asked for. */
static inline bool op_is_alone(const op_backend *backend, const op_case *c) {
    op_values v = op_values_make(c, backend->kernels->real), again = op_values_make(c, backend->kernels->real);
    void *buffer[OP_BUFFERS];
    op_run_forward(backend, c, &v);
    op_begin(backend, &again.batch, again.batch.n + backend->more_rows);
    op_buffers_make(backend, c, &again, buffer);
    espl_args args = op_args(c, &again, buffer);
    args.out[0] = NULL;
    op_call(backend, c->op, &args, 0);
    op_buffers_collect(backend, c, &again, buffer, OP_OUT2);
    op_buffers_free(backend, c, &again, buffer);
    bool same = memcmp(again.slot[OP_OUT1], v.slot[OP_OUT1], (size_t)v.size[OP_OUT1] * sizeof(double)) == 0;
    op_values_free(&v);
    op_values_free(&again);
    return same;
}

static inline bool op_has_matrix(const op_case *c) { return c->op == ESPL_OP_LINEAR || c->op == ESPL_OP_QKV || c->op == ESPL_OP_MLP; }

/* A matrix of `inputs` by `outputs`; of QKV q, k and v by themselves, where they are rows. */
static inline espl_quant op_quant_of(const op_case *c, int format, int64_t inputs, int64_t outputs) {
    const espl_attrs *a = &c->attrs;
    bool rows = a->layout == ESPL_OUT_IN, three = c->op == ESPL_OP_QKV && rows;
    espl_quant quant = {.format = format,
                        .n_parts = three ? 3 : 1,
                        .outputs_across = !rows,
                        .rows = {rows ? outputs : inputs},
                        .columns = rows ? inputs : outputs};
    for (int part = 0; part < 3 && three; part++)
        quant.rows[part] = (part == 0 ? a->heads : a->kv_heads) * a->head_dim;
    return quant;
}

/* The results of the case with frozen matrices that are quantised, or with what those expand to. */
static inline op_values op_run_quantised(const op_backend *backend, const op_case *c, int format, bool expanded) {
    op_values v = op_values_make(c, backend->kernels->real);
    const espl_attrs *a = &c->attrs;
    bool mlp = c->op == ESPL_OP_MLP;
    espl_quant quant[2] = {op_quant_of(c, format, a->n_in, mlp ? a->ffn : a->n_out)};
    if (mlp)
        quant[1] = op_quant_of(c, format, a->ffn, a->n_out);
    for (int i = 0; i < 2; i++) {
        char *bytes = op_alloc(espl_quant_bytes(&quant[i]));
        if (expanded && bytes)
            op_quantise(&quant[i], v.slot[OP_PARAM0 + 2 * i], bytes, v.slot[OP_PARAM0 + 2 * i]);
        else
            v.attrs.quant[i] = quant[i];
        free(bytes);
    }
    op_run(backend, c, &v);
    return v;
}

/* Whether the case has the bits over quantised matrices that it has over what they expand to. Complains. */
static inline bool op_expands(const op_backend *backend, const op_case *c, int format) {
    op_case frozen = *c;
    frozen.flags |= OP_FROZEN;
    op_values a = op_run_quantised(backend, &frozen, format, false), b = op_run_quantised(backend, &frozen, format, true);
    bool same = true;
    for (int s = 0; s < OP_SLOTS; s++)
        if (op_slot_is_result(s) && a.slot[s] && memcmp(a.slot[s], b.slot[s], (size_t)a.size[s] * sizeof(double)) != 0) {
            printf("%s: %s: %s over %s differs\n", backend->kernels->name, c->name, op_slot_names[s], espl_quant_name(format));
            same = false;
        }
    op_values_free(&a);
    op_values_free(&b);
    return same;
}

/* Pieces of a segment: two chunks of a third, then one token at a time. */
static inline int32_t op_piece(int32_t length, int32_t done) {
    int32_t chunk = length / 3 > 0 ? length / 3 : 1;
    if (done == length)
        return 0;
    return done < 2 * chunk && length >= 3 ? chunk : 1;
}

/* The next pieces of all segments as one micro-batch: copies their rows of qkv and notes where they come from. Returns its tokens. */
static inline int32_t op_next_pieces(const op_case *c, const op_values *v, int32_t *done, int32_t *segments, int32_t *from, int32_t *length,
                                     int32_t *row) {
    int32_t n = 0, live = 0, n_segments = v->batch.n_segments;
    segments[0] = 0;
    for (int32_t s = 0; s < n_segments; s++) {
        int32_t total = c->segments[s + 1] - c->segments[s], piece = op_piece(total, done[s]);
        if (piece == 0)
            continue;
        length[live] = done[s];
        row[live] = n_segments - s; /* not the identity; row 0 stays unused */
        for (int32_t i = 0; i < piece; i++)
            from[n++] = c->segments[s] + done[s] + i;
        done[s] += piece;
        segments[++live] = n;
    }
    return n;
}

/* n numbers in the backend's `real`, where its kernels work; NULL for none. */
static inline void *op_number_memory(const op_backend *backend, const double *x, int64_t n) {
    size_t bytes = (size_t)n * espl_dtype_size(backend->kernels->real);
    void *narrow = op_alloc(bytes), *there = op_memory(backend, bytes);
    if (n == 0)
        return NULL;
    espl_dtype_convert(narrow, backend->kernels->real, x, ESPL_F64, (size_t)n);
    op_put(backend, there, narrow, bytes);
    free(narrow);
    return there;
}

/* One micro-batch of generation: rows `from` of in0, their outputs to the same rows of `out`. */
static inline void op_cached_step(const op_backend *backend, const op_values *v, espl_batch *batch, const int32_t *from, double *out) {
    int64_t heads = v->attrs.heads, d = v->attrs.head_dim, width = (heads + 2 * v->attrs.kv_heads) * d, wide = heads * d;
    espl_dtype real = backend->kernels->real;
    size_t size = espl_dtype_size(real), in_bytes = (size_t)(batch->n * width) * size, out_bytes = (size_t)(batch->n * wide) * size;
    char *host_in = op_alloc(in_bytes), *host_out = op_alloc(out_bytes);
    void *in = op_memory(backend, in_bytes), *result = op_memory(backend, out_bytes);
    for (int64_t i = 0; i < batch->n; i++)
        espl_dtype_convert(host_in + (size_t)(i * width) * size, real, v->slot[OP_IN0] + from[i] * width, ESPL_F64, (size_t)width);
    op_put(backend, in, host_in, in_bytes);
    if (backend->calls)
        op_must(backend->calls->begin(backend->device, batch));
    void *bias = op_number_memory(backend, v->slot[OP_PARAM0], v->size[OP_PARAM0]);
    espl_args args = {.attrs = &v->attrs, .batch = batch, .in = {in}, .out = {result}, .param = {bias}, .layer = 1};
    op_call(backend, ESPL_OP_ATTENTION_CACHED, &args, 0);
    op_get(backend, host_out, result, out_bytes);
    for (int64_t i = 0; i < batch->n; i++)
        espl_dtype_convert(out + from[i] * wide, ESPL_F64, host_out + (size_t)(i * wide) * size, real, (size_t)wide);
    op_release(backend, in, in_bytes);
    op_release(backend, result, out_bytes);
    op_release(backend, bias, (size_t)v->size[OP_PARAM0] * size);
    free(host_in);
    free(host_out);
}

/* ATTENTION_CACHED on a causal ATTENTION case without dropout, several sequences at once: fills out [N, H d], which should be its out0. */
static inline void op_run_cached(const op_backend *backend, const op_case *c, const op_values *v, double *out) {
    int32_t segments[14], done[12] = {0}, length[12], row[12], n, *from = malloc((size_t)v->batch.n * sizeof *from);
    int32_t *tokens = calloc((size_t)v->batch.n, sizeof *tokens);
    espl_cache cache = {.rows = v->batch.n_segments + 1, .capacity = v->batch.n + 1, .row = row, .length = length};
    int64_t width = 2 * v->attrs.kv_heads * v->attrs.head_dim;
    size_t bytes = (size_t)(2 * cache.rows * cache.capacity * width) * espl_dtype_size(backend->kernels->real);
    void *dirt = memset(op_alloc(bytes), 0xFF, bytes); /* NaN in every format */
    cache.data = op_memory(backend, bytes);
    op_put(backend, cache.data, dirt, bytes);
    op_begin(backend, &v->batch, v->batch.n);
    while ((n = op_next_pieces(c, v, done, segments, from, length, row)) > 0) {
        espl_batch batch = {.n = n, .segments = segments, .cache = &cache, .ids = tokens, .positions = tokens, .targets = tokens};
        while (segments[batch.n_segments] < n)
            batch.n_segments++;
        op_cached_step(backend, v, &batch, from, out);
    }
    op_release(backend, cache.data, bytes);
    free(dirt);
    free(tokens);
    free(from);
}

static inline double op_max(const double *x, int64_t n) {
    double top = 0;
    for (int64_t i = 0; i < n; i++)
        top = fabs(x[i]) > top ? fabs(x[i]) : top;
    return top;
}

/* The largest difference; infinite where one is not finite. */
static inline double op_error(const double *x, const double *y, int64_t n) {
    double top = 0;
    for (int64_t i = 0; i < n; i++) {
        double error = fabs(x[i] - y[i]);
        top = isfinite(error) ? (error > top ? error : top) : INFINITY;
    }
    return top;
}

/* The longest sum of a case: what multiplies one rounding in a bound. */
static inline double op_longest_sum(const op_case *c) {
    const espl_attrs *a = &c->attrs;
    int64_t lengths[] = {a->n_in, a->n_out, a->ffn, a->vocab, a->head_dim, op_case_tokens(c), op_source_tokens(c)}, longest = 16;
    for (int i = 0; i < 7; i++)
        longest = lengths[i] > longest ? lengths[i] : longest;
    return (double)longest;
}

/* Whether results OP_OUT0 .. last agree within `roundings` of their largest value; says where not, unless log is NULL. */
static inline bool op_close_to(const op_case *c, const op_values *got, const op_values *want, int last, double roundings, FILE *log) {
    bool close = true;
    for (int s = OP_OUT0; s <= last; s++) {
        if (!op_slot_is_result(s) || !got->slot[s])
            continue;
        double error = op_error(got->slot[s], want->slot[s], got->size[s]), bound = roundings * op_max(want->slot[s], got->size[s]);
        close = close && error <= bound;
        if (log && !(error <= bound))
            fprintf(log, "%s: %s is off by %.3g, allowed %.3g\n", c->name, op_slot_names[s], error, bound);
    }
    return close;
}

/* The negative control of op_close_to: whether an error of `planted` of the largest value in one element is noticed in each result. */
static inline bool op_planted_is_noticed(const op_case *c, op_values *got, const op_values *want, int last, double roundings,
                                         double planted) {
    bool noticed = true;
    for (int s = OP_OUT0; s <= last; s++) {
        if (!op_slot_is_result(s) || !got->slot[s])
            continue;
        double *victim = &got->slot[s][got->size[s] / 2], good = *victim, top = op_max(want->slot[s], got->size[s]);
        *victim += planted * top;
        noticed = noticed && (top == 0 || !op_close_to(c, got, want, last, roundings, NULL));
        *victim = good;
    }
    return noticed;
}

/* Half the distance of neighbours at 1: what one rounding costs. */
static inline double op_unit(espl_dtype format) { return format == ESPL_F64 ? 0x1p-53 : format == ESPL_F32 ? 0x1p-24 : 0x1p-8; }

/* The format that limits a result, where a plain implementation rounds on the way to it: LINEAR_XENT multiplies probabilities, QKV
 * gradients that were rotated back in place, MLP what is between its matrices, ATTENTION's gradient of biases differences from out0 (of
 * probabilities that kernels may hold in `real`), all held in `real`; RESNORM's statistics are those of out0 as it is stored (RENEW). */
static inline espl_dtype op_result_format(const op_backend *fast, const op_case *c, int slot) {
    bool gradient = slot >= OP_DPARAM0;
    bool through_real = (c->op == ESPL_OP_LINEAR_XENT && gradient) || (c->op == ESPL_OP_QKV && c->attrs.rope_dim > 0 && gradient) ||
                        (c->op == ESPL_OP_MLP && gradient && slot != OP_DPARAM3) || (c->op == ESPL_OP_RESNORM && slot == OP_OUT2) ||
                        (c->op == ESPL_OP_ATTENTION && slot == OP_DPARAM0) || c->op == ESPL_OP_WEIGHT_NORM;
    return through_real ? fast->kernels->real : op_slot_format(fast, c->op, slot);
}

/* How often a plain implementation in that format rounds what a result is the sum of: MLP's dh as a product, and again times the slope. */
static inline int op_roundings(const op_case *c, int slot) {
    return c->op == ESPL_OP_MLP && (slot == OP_DPARAM0 || slot == OP_DPARAM1) ? 2 : 1;
}

/* What the references make of a case with values of a format. */
typedef struct op_known {
    op_case c;
    espl_dtype real;
    op_values truth;
    double plain_error[OP_SLOTS];
} op_known;

static inline op_known op_find_out(const op_case *c, espl_dtype real) {
    op_backend truth = op_backend_of(espl_kernels_ref(ESPL_F64), 1), plain = op_backend_of(espl_kernels_ref(ESPL_F32), 1);
    op_known known = {.c = *c, .real = real, .truth = op_values_make(c, real)};
    op_values rounded = op_values_make(c, real);
    plain.round = real;
    op_run(&plain, c, &rounded);
    op_run(&truth, c, &known.truth);
    for (int s = 0; s < OP_SLOTS; s++)
        if (op_slot_is_result(s) && known.truth.slot[s])
            known.plain_error[s] = op_error(rounded.slot[s], known.truth.slot[s], known.truth.size[s]);
    op_values_free(&rounded);
    return known;
}

/* Kept as long as the program runs: a case is asked for by many kernels, and the references are slow. */
static inline const op_known *op_known_of(const op_case *c, espl_dtype real) {
    static op_known *known[1024];
    static int n;
    for (int i = 0; i < n; i++)
        if (known[i]->real == real && memcmp(&known[i]->c, c, sizeof *c) == 0)
            return known[i];
    op_known *fresh = n < 1024 ? malloc(sizeof *fresh) : NULL;
    ESPL_ASSERT(fresh != NULL, "no room for case %d", n);
    *fresh = op_find_out(c, real);
    known[n++] = fresh;
    return fresh;
}

/* error(fast) / (2 error(plain) + op_roundings of the largest result), worst of all results; above 1 the rule is broken. Says where, unless
 * log is NULL. */
static inline double op_worst_2x(const op_backend *fast, const op_case *c, FILE *log) {
    const op_known *known = op_known_of(c, fast->kernels->real);
    const op_values t = known->truth;
    op_values a = op_values_make(c, fast->kernels->real);
    double worst = 0;
    op_run(fast, c, &a);
    for (int s = 0; s < OP_SLOTS; s++) {
        if (!op_slot_is_result(s) || !t.slot[s])
            continue;
        double top = op_max(t.slot[s], t.size[s]), unit = op_roundings(c, s) * op_unit(op_result_format(fast, c, s)) * top;
        double error = op_error(a.slot[s], t.slot[s], t.size[s]), bound = 2 * known->plain_error[s] + unit;
        double ratio = error == 0 ? 0 : error / bound;
        if (!(ratio <= 1) && log)
            fprintf(log, "%s: %s %s: error %.3g, allowed %.3g (largest value %.3g)\n", fast->kernels->name, c->name, op_slot_names[s],
                    error, bound, top);
        worst = ratio > worst ? ratio : worst;
    }
    op_values_free(&a);
    return worst;
}

#endif
