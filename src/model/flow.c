#include "src/model/flow.h"

#include "src/core/buffer.h"
#include "src/model/lifetimes.h"

#include <stdlib.h>

/* Lives are told in moves: at move i what it ends is over at 2 i, and what it begins is there from 2 i + 1 on. */
static int ends_at(int move) { return 2 * move; }
static int begins_at(int move) { return 2 * move + 1; }

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

static void add_move(espl_flow *f, espl_move_kind kind, int bucket, int call) {
    f->moves[f->n_moves++] = (espl_move){.kind = kind, .bucket = bucket, .call = call};
}

/* The call that follows a mark, and others behind it. */
static int behind_marks(const espl_tape *t, int call) {
    while (call < t->n_calls && t->calls[call].kind == ESPL_CALL_BUCKET)
        call++;
    return call;
}

static void list_moves(const espl_tape *t, espl_flow *f) {
    const espl_model *m = t->model;
    int *first = espl_malloc((size_t)m->n_buckets * sizeof *first);
    find_first_writes(t, first);
    f->moves = espl_malloc(((size_t)m->n_buckets * 2 + 1) * sizeof *f->moves);
    for (int c = 0; c < t->n_calls; c++) {
        if (t->calls[c].kind == ESPL_CALL_BUCKET)
            add_move(f, ESPL_MOVE_SUM, t->calls[c].bucket, behind_marks(t, c));
        for (int b = 0; b < m->n_buckets; b++)
            if (first[b] == c) {
                if (f->n_moves == 0)
                    add_move(f, ESPL_MOVE_SETTLE, -1, c);
                add_move(f, ESPL_MOVE_OPEN, b, c);
            }
    }
    free(first);
}

/* The move that waits for the sum that move `i` starts: the next sum; of the last, what settles it in the next micro-batch. */
static int end_of_sum(const espl_flow *f, int i) {
    do
        i++;
    while (i < f->n_moves && f->moves[i].kind != ESPL_MOVE_SUM);
    return ends_at(i);
}

/* Lives 2 b and 2 b + 1 are the gradients and the stage of bucket b. */
static void find_lives(const espl_tape *t, const espl_flow_way *way, const espl_flow *f, espl_life *lives) {
    for (int i = 1; i < f->n_moves; i++) { /* 0 settles */
        const espl_move *move = &f->moves[i];
        const size_t bytes = (size_t)espl_model_bucket_size(t->model, move->bucket, way->ranks) * espl_dtype_size(t->kernels->stat);
        espl_life *gradients = &lives[2 * move->bucket], *stage = gradients + 1;
        if (move->kind == ESPL_MOVE_OPEN) {
            gradients->first = begins_at(i);
            continue;
        }
        gradients->last = stage->last = end_of_sum(f, i);
        stage->first = begins_at(i);
        gradients->bytes = bytes;
        stage->bytes = way->narrow || way->ranks == 1 ? 0 : way->tree ? bytes : bytes / (size_t)way->ranks;
    }
}

void espl_flow_make(const espl_tape *tape, const espl_flow_way *way, espl_flow *flow) {
    const int n = tape->model->n_buckets;
    *flow = (espl_flow){0};
    list_moves(tape, flow);
    espl_life *lives = espl_calloc((size_t)n * 2, sizeof *lives);
    find_lives(tape, way, flow, lives);
    flow->bytes = espl__lives_place(lives, 2 * n);
    flow->gradients = espl_malloc((size_t)n * sizeof *flow->gradients);
    flow->stages = espl_malloc((size_t)n * sizeof *flow->stages);
    for (int b = 0; b < n; b++) {
        flow->gradients[b] = lives[2 * b].offset;
        flow->stages[b] = lives[2 * b + 1].offset;
    }
    free(lives);
}

void espl_flow_free(espl_flow *flow) {
    free(flow->moves);
    free(flow->gradients);
    free(flow->stages);
    *flow = (espl_flow){0};
}
