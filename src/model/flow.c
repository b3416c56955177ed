#include "src/model/flow.h"

#include "src/core/buffer.h"
#include "src/model/lifetimes.h"

#include <stdlib.h>

/* Lives are told in moves: at move i what it ends is over at 2 i, and what it begins is there from 2 i + 1 on. */
static int ends_at(int move) { return 2 * move; }
static int begins_at(int move) { return 2 * move + 1; }

/* ---- Windows. */

/* Whether a call reads the weights of parameter i of its row: backward of a look-up reads none. */
static bool reads(const espl_tape *t, int call, int i) {
    const espl_call *c = &t->calls[call];
    if (c->kind == ESPL_CALL_BUCKET)
        return false;
    const espl_row *r = &t->model->rows[c->row];
    bool look_up = c->kind == ESPL_CALL_BACKWARD && r->op == ESPL_OP_EMBED;
    return !look_up && r->param[i] >= 0 && !t->model->params[r->param[i]].frozen;
}

/* Whether two other buckets have been used since the bucket's last use. */
static bool is_left(const int *last_use, int n_buckets, int bucket) {
    int others = 0;
    for (int b = 0; b < n_buckets; b++)
        others += last_use[b] > last_use[bucket];
    return others >= 2;
}

static void list_windows(const espl_tape *t, espl_flow *f) {
    const espl_model *m = t->model;
    int *last_use = espl_malloc((size_t)m->n_buckets * 2 * sizeof *last_use), *window = last_use + m->n_buckets;
    f->windows = espl_malloc((size_t)t->n_calls * ESPL_MAX_PARAM * sizeof *f->windows);
    for (int b = 0; b < m->n_buckets; b++)
        last_use[b] = window[b] = -1;
    for (int c = 0; c < t->n_calls; c++)
        for (int i = 0; i < ESPL_MAX_PARAM; i++) {
            if (!reads(t, c, i))
                continue;
            int b = m->params[m->rows[t->calls[c].row].param[i]].bucket;
            if (window[b] < 0 || is_left(last_use, m->n_buckets, b)) {
                window[b] = f->n_windows++;
                f->windows[window[b]] = (espl_window){.bucket = b, .first = c};
            }
            f->windows[window[b]].last = last_use[b] = c;
        }
    free(last_use);
}

const espl_window *espl_flow_window(const espl_flow *f, int bucket, int call) {
    for (int w = 0; w < f->n_windows; w++)
        if (f->windows[w].bucket == bucket && f->windows[w].first <= call && call <= f->windows[w].last)
            return &f->windows[w];
    return NULL;
}

/* ---- Moves. */

static void add_move(espl_flow *f, const espl_move *move) { f->moves[f->n_moves++] = *move; }

/* Before it nothing but forward; it may be the loss, whose weights only it reads. */
static int first_backward(const espl_tape *t) {
    int c = 0;
    while (c < t->n_calls && t->calls[c].kind == ESPL_CALL_FORWARD)
        c++;
    return c;
}

/* First call that reads each bucket, at the latest where backward begins; -1: nothing of it is trained in this phase. */
static void find_first_reads(const espl_tape *t, int *first) {
    const espl_model *m = t->model;
    for (int b = 0; b < m->n_buckets; b++)
        first[b] = 0;
    for (int c = t->n_calls - 1; c >= 0; c--)
        for (int i = 0; i < ESPL_MAX_PARAM; i++)
            if (reads(t, c, i))
                first[m->params[m->rows[t->calls[c].row].param[i]].bucket] = c;
    for (int b = 0; b < m->n_buckets; b++) {
        ESPL_ASSERT(first[b] <= first_backward(t), "bucket %d is first read by call %d, in backward", b, first[b]);
        if (!espl_model_trains_bucket(m, b, t->phase))
            first[b] = -1;
    }
}

/* First call that writes gradients of each bucket; -1: none does. */
static void find_first_writes(const espl_tape *t, int *first) {
    const espl_model *m = t->model;
    for (int b = 0; b < m->n_buckets; b++)
        first[b] = -1;
    for (int c = t->n_calls - 1; c >= 0; c--)
        for (int i = 0; i < ESPL_MAX_PARAM && t->calls[c].kind == ESPL_CALL_BACKWARD; i++) {
            int param = m->rows[t->calls[c].row].param[i];
            if (espl_model_trains(m, param, t->phase))
                first[m->params[param].bucket] = c;
        }
}

/* The call that follows a mark, and others behind it. */
static int behind_marks(const espl_tape *t, int call) {
    while (call < t->n_calls && t->calls[call].kind == ESPL_CALL_BUCKET)
        call++;
    return call;
}

static void fetch(espl_flow *f, int window, int call, bool next) {
    add_move(f, &(espl_move){ESPL_MOVE_FETCH, f->windows[window].bucket, window, call, next});
}

/* Those that begin here, and for each the one behind it. */
static void add_windows(espl_flow *f, int call) {
    for (int w = 0; w < f->n_windows; w++) {
        if (f->windows[w].first != call)
            continue;
        if (w == 0)
            fetch(f, 0, call, false);
        add_move(f, &(espl_move){ESPL_MOVE_ARRIVE, f->windows[w].bucket, w, call, false});
        if (w + 1 < f->n_windows)
            fetch(f, w + 1, call, false);
        else if (f->ahead)
            fetch(f, 0, call, true);
    }
}

static void add_updates(const espl_tape *t, const int *first, espl_flow *f, int call) {
    for (int b = 0; b < t->model->n_buckets; b++)
        if (first[b] == call)
            add_move(f, &(espl_move){ESPL_MOVE_UPDATED, b, -1, call, false});
}

static void add_openings(const espl_tape *t, const int *first, bool *opened, espl_flow *f, int call) {
    for (int b = 0; b < t->model->n_buckets; b++) {
        if (first[b] != call)
            continue;
        if (!*opened)
            add_move(f, &(espl_move){ESPL_MOVE_SETTLE, -1, -1, call, false});
        *opened = true;
        add_move(f, &(espl_move){ESPL_MOVE_OPEN, b, -1, call, false});
    }
}

static void list_moves(const espl_tape *t, const espl_flow_way *way, espl_flow *f) {
    const int n = t->model->n_buckets;
    int *first_write = espl_malloc((size_t)n * 2 * sizeof *first_write), *first_read = first_write + n;
    bool opened = false;
    find_first_writes(t, first_write);
    find_first_reads(t, first_read);
    f->moves = espl_malloc(((size_t)n * 3 + 1 + (size_t)f->n_windows * 2) * sizeof *f->moves);
    for (int c = 0; c < t->n_calls; c++) {
        if (way->gradients && t->calls[c].kind == ESPL_CALL_BUCKET)
            add_move(f, &(espl_move){ESPL_MOVE_SUM, t->calls[c].bucket, -1, behind_marks(t, c), false});
        if (way->updates)
            add_updates(t, first_read, f, c);
        add_windows(f, c);
        if (way->gradients)
            add_openings(t, first_write, &opened, f, c);
    }
    free(first_write);
}

/* ---- Places. */

/* The move that waits for the sum that move `i` starts: the next sum; of the last, what settles it in the next micro-batch. */
static int end_of_sum(const espl_flow *f, int i) {
    do
        i++;
    while (i < f->n_moves && f->moves[i].kind != ESPL_MOVE_SUM);
    return ends_at(i);
}

/* Lives 2 b and 2 b + 1 are the gradients and the stage of bucket b. */
static void find_lives(const espl_tape *t, const espl_flow_way *way, const espl_flow *f, espl_life *lives) {
    for (int i = 0; i < f->n_moves; i++) {
        const espl_move *move = &f->moves[i];
        if (move->kind != ESPL_MOVE_OPEN && move->kind != ESPL_MOVE_SUM)
            continue;
        const size_t bytes = (size_t)espl_model_bucket_size(t->model, move->bucket, way->ranks) * espl_dtype_size(t->kernels->stat);
        espl_life *gradients = &lives[2 * move->bucket], *stage = gradients + 1;
        if (move->kind == ESPL_MOVE_OPEN) {
            gradients->first = begins_at(i);
            continue;
        }
        gradients->last = stage->last = end_of_sum(f, i);
        stage->first = begins_at(i);
        gradients->bytes = bytes;
        stage->bytes = way->narrow || way->shards == 1 ? 0 : way->tree ? bytes : bytes / (size_t)way->shards;
    }
}

static void place_gradients(const espl_tape *t, const espl_flow_way *way, espl_flow *f) {
    const int n = t->model->n_buckets;
    espl_life *lives = espl_calloc((size_t)n * 2, sizeof *lives);
    find_lives(t, way, f, lives);
    f->gradient_bytes = espl__lives_place(lives, 2 * n);
    f->gradients = espl_malloc((size_t)n * sizeof *f->gradients);
    f->stages = espl_malloc((size_t)n * sizeof *f->stages);
    for (int b = 0; b < n; b++) {
        f->gradients[b] = lives[2 * b].offset;
        f->stages[b] = lives[2 * b + 1].offset;
    }
    free(lives);
}

bool espl_flow_fetches(const espl_flow *f, const espl_move *move, bool first, bool last) {
    return move->next ? !last : first || !f->ahead || move->window > 0;
}

/* The first move behind the last call that uses a window. */
static int end_of_window(const espl_flow *f, const espl_window *window) {
    int i = 0;
    while (i < f->n_moves && f->moves[i].call <= window->last)
        i++;
    return ends_at(i);
}

/* What is fetched ahead has its place from there on to its end in the next micro-batch. */
static void place_windows(const espl_tape *t, const espl_flow_way *way, espl_flow *f) {
    espl_life *lives = espl_calloc((size_t)f->n_windows, sizeof *lives);
    for (int i = 0; i < f->n_moves; i++)
        if (f->moves[i].kind == ESPL_MOVE_FETCH)
            lives[f->moves[i].window].first = begins_at(i);
    for (int w = 0; w < f->n_windows; w++) {
        lives[w].last = end_of_window(f, &f->windows[w]);
        lives[w].bytes = (size_t)espl_model_bucket_size(t->model, f->windows[w].bucket, way->ranks) * espl_dtype_size(t->kernels->real);
        f->fetched_bytes += lives[w].bytes;
    }
    f->window_bytes = espl__lives_place(lives, f->n_windows);
    for (int w = 0; w < f->n_windows; w++)
        f->windows[w].offset = lives[w].offset;
    free(lives);
}

void espl_flow_make(const espl_tape *tape, const espl_flow_way *way, espl_flow *flow) {
    *flow = (espl_flow){0};
    if (way->weights)
        list_windows(tape, flow);
    flow->ahead = way->ahead && flow->n_windows > 1;
    list_moves(tape, way, flow);
    if (way->gradients)
        place_gradients(tape, way, flow);
    if (way->weights)
        place_windows(tape, way, flow);
}

espl_status espl_flow_run(const espl_flow *flow, const espl_tape *tape, const espl_flow_hooks *hooks) {
    for (int i = 0, from = 0, to; i <= flow->n_moves; i++, from = to) {
        to = i < flow->n_moves ? flow->moves[i].call : tape->n_calls;
        if (from < to)
            ESPL_TRY(hooks->stretch(hooks->context, i, from, to));
        if (i < flow->n_moves)
            ESPL_TRY(hooks->move(hooks->context, &flow->moves[i]));
    }
    return ESPL_OK;
}

void espl_flow_free(espl_flow *flow) {
    free(flow->moves);
    free(flow->gradients);
    free(flow->stages);
    free(flow->windows);
    *flow = (espl_flow){0};
}
