#include "src/model/low_rank.h"

#include "src/model/select.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Which matrices. */

static bool can_be_adapted(const espl_param *p) { return espl__is_layer_matrix(p) || (p->role == ESPL_ROLE_TRANSFORM && p->n_dims == 2); }

/* The name without ".weight". */
static void module_of(const espl_param *p, char name[ESPL_MAX_NAME]) {
    snprintf(name, ESPL_MAX_NAME, "%s", p->name);
    char *end = strrchr(name, '.');
    if (end != NULL)
        *end = '\0';
}

/* As PEFT has it: all-linear, the end of a module's name from a dot on, or all of it by a pattern. */
static bool matches(const char *target, const char *module) {
    size_t length = strlen(module), tail = strlen(target);
    bool ends = tail <= length && strcmp(module + length - tail, target) == 0 && (tail == length || module[length - tail - 1] == '.');
    return strcmp(target, "all-linear") == 0 || ends || fnmatch(target, module, 0) == 0;
}

/* What PEFT takes where nothing is said, by family. */
static const char *const usual[] = {"c_attn", "q_proj", "v_proj", "query", "value", "q_lin", "v_lin", "q", "v"};

static bool is_target(const espl_param *p, const espl_lora_options *lora) {
    char module[ESPL_MAX_NAME];
    module_of(p, module);
    bool found = false;
    for (int64_t i = 0; i < lora->n_targets; i++)
        found = found || matches(lora->targets[i], module);
    for (size_t i = 0; i < sizeof usual / sizeof *usual && lora->n_targets == 0; i++)
        found = found || matches(usual[i], module);
    return found && can_be_adapted(p);
}

/* Whether a target is a matrix that can be (has: that is) adapted; *example is one. */
static bool is_there(const espl_model *model, const char *target, bool has, const espl_param **example) {
    bool found = false;
    char module[ESPL_MAX_NAME];
    for (int i = 0; i < model->n_params; i++) {
        const espl_param *p = &model->params[i];
        if (!can_be_adapted(p) || (has && p->lora_a < 0))
            continue;
        *example = p;
        module_of(p, module);
        found = found || matches(target, module);
    }
    return found;
}

/* ---- TARGET=NUMBER */

/* A target is what stands before the last equals sign. */
static void target_of(const char *entry, char target[ESPL_MAX_NAME]) {
    const char *end = strrchr(entry, '=');
    snprintf(target, ESPL_MAX_NAME, "%.*s", (int)(end - entry), entry);
}

static double number_for(const char *module, char *const *entries, int64_t n, double otherwise) {
    char target[ESPL_MAX_NAME];
    for (int64_t i = 0; i < n; i++) {
        target_of(entries[i], target);
        if (matches(target, module))
            return strtod(strrchr(entries[i], '=') + 1, NULL);
    }
    return otherwise;
}

static espl_status check_numbers(const char *key, char *const *entries, int64_t n, double least, double most, bool whole) {
    for (int64_t i = 0; i < n; i++) {
        const char *number = strrchr(entries[i], '=');
        char *end = NULL;
        double value = number != NULL ? strtod(number + 1, &end) : -1.0;
        bool good = number != NULL && number > entries[i] && number - entries[i] < ESPL_MAX_NAME && end != number + 1 && *end == '\0';
        if (!good || !(value >= least && value <= most) || (whole && value != floor(value)))
            ESPL_FAIL(ESPL_ERR_USAGE, "%s: '%s' is not of the form TARGET=NUMBER, with a target as in tune.targets and %s", key, entries[i],
                      whole ? "a whole number from 1 to 1024" : "a number that is not negative");
    }
    return ESPL_OK;
}

espl_status espl__lora_check_numbers(const espl_lora_options *lora) {
    ESPL_TRY(check_numbers("tune.ranks", lora->ranks, lora->n_ranks, 1.0, 1024.0, true));
    return check_numbers("tune.alphas", lora->alphas, lora->n_alphas, 0.0, 1e30, false);
}

static espl_status check_entries(const espl_model *model, const char *key, char *const *entries, int64_t n) {
    char target[ESPL_MAX_NAME], module[ESPL_MAX_NAME] = "";
    const espl_param *example = NULL;
    for (int64_t i = 0; i < n; i++) {
        target_of(entries[i], target);
        if (is_there(model, target, true, &example))
            continue;
        if (example != NULL)
            module_of(example, module);
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: '%s' is no matrix that tune.targets takes%s%s%s", key, target, example != NULL ? "; one is '" : "",
                  module, example != NULL ? "'" : "");
    }
    return ESPL_OK;
}

espl_status espl__lora_check(const espl_model *model, const espl_lora_options *lora) {
    char module[ESPL_MAX_NAME];
    const espl_param *example = NULL;
    if (lora->rank == 0)
        return ESPL_OK;
    for (int64_t t = 0; t < lora->n_targets; t++)
        if (!is_there(model, lora->targets[t], false, &example)) {
            module_of(example, module);
            ESPL_FAIL(
                ESPL_ERR_USAGE,
                "tune.targets: '%s' is no matrix of this %s model; give all-linear, the end of a name such as '%s', or a pattern of names",
                lora->targets[t], model->family->model_type, strrchr(module, '.') + 1);
        }
    ESPL_TRY(check_entries(model, "tune.ranks", lora->ranks, lora->n_ranks));
    return check_entries(model, "tune.alphas", lora->alphas, lora->n_alphas);
}

/* ---- Parameters. */

float espl_lora_scale(const espl_model *model, int param) {
    const espl_param *p = &model->params[param], *a = &model->params[model->params[p->adapts].lora_a];
    double rank = (double)a->shape[0];
    return (float)(p->alpha / (model->lora.rank_stabilised ? sqrt(rank) : rank));
}

static int64_t inputs_of(const espl_model *m, const espl_param *p) { return p->shape[m->family->weight_layout == ESPL_OUT_IN ? 1 : 0]; }

static int64_t outputs_of(const espl_model *m, const espl_param *p) { return p->shape[m->family->weight_layout == ESPL_OUT_IN ? 0 : 1]; }

typedef enum piece { PIECE_A, PIECE_B, PIECE_MAGNITUDE, N_PIECES } piece;

/* A piece of the update of parameter `of`; the second and further ones of a group follow the one before without a gap. */
static int add_param(espl_model *m, const espl_lora_options *lora, int of, piece which, bool joined) {
    static const char *const ends[] = {".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"}; /* as PEFT's files have them */
    const espl_param *base = &m->params[of];
    espl_param *p = &m->params[m->n_params];
    char module[ESPL_MAX_NAME];
    module_of(base, module);
    int64_t rank = (int64_t)number_for(module, lora->ranks, lora->n_ranks, (double)lora->rank), outputs = outputs_of(m, base);
    *p = (espl_param){.section = base->section,
                      .layer = base->layer,
                      .n_dims = which == PIECE_MAGNITUDE ? 1 : 2,
                      .shape = {which == PIECE_A ? rank : outputs, which == PIECE_A   ? inputs_of(m, base)
                                                                   : which == PIECE_B ? rank
                                                                                      : 0},
                      .bucket = base->bucket,
                      .init = which == PIECE_A ? ESPL_INIT_UNIFORM_FAN_IN : ESPL_INIT_ZERO,
                      .decay = which != PIECE_MAGNITUDE,
                      .joined = joined,
                      .adapts = of,
                      .lora_a = -1,
                      .lora_b = -1,
                      .bottleneck = -1,
                      .magnitude = -1,
                      .alpha = number_for(module, lora->alphas, lora->n_alphas, lora->alpha)};
    int length = snprintf(p->name, sizeof p->name, "%.100s%s", module, ends[which]);
    ESPL_ASSERT(length < (int)sizeof p->name, "the name of '%s' is too long", module);
    p->numel = p->shape[0] * (p->n_dims > 1 ? p->shape[1] : 1);
    return m->n_params++;
}

static int end_of_group(const espl_model *m, int first, int end) {
    int i = first + 1;
    while (i < end && m->params[i].joined)
        i++;
    return i;
}

static int *piece_of(espl_param *p, piece which) { return which == PIECE_A ? &p->lora_a : which == PIECE_B ? &p->lora_b : &p->magnitude; }

static void add_group(espl_model *m, const espl_lora_options *lora, int first, int end) {
    for (piece which = PIECE_A; which < (lora->magnitudes ? N_PIECES : PIECE_MAGNITUDE); which++) {
        bool joined = false;
        for (int i = first; i < end; i++) {
            if (!is_target(&m->params[i], lora))
                continue;
            int added = add_param(m, lora, i, which, joined);
            *piece_of(&m->params[i], which) = added;
            joined = true;
        }
    }
}

void espl__lora_add_params(espl_model *model, const espl_lora_options *lora, int first) {
    int end = model->n_params;
    for (int i = first; i < end && lora->rank > 0; i = end_of_group(model, i, end))
        add_group(model, lora, i, end_of_group(model, i, end));
}

/* ---- Rows. */

bool espl__lora_adapts(const espl_model *model, int param) {
    if (param < 0)
        return false;
    for (int i = param; i < end_of_group(model, param, model->n_params); i++)
        if (model->params[i].lora_a >= 0)
            return true;
    return false;
}

static int add_slot(espl_model *m, const espl_row *like, const char *name, int64_t width) {
    m->slots[m->n_slots] =
        (espl_slot){.name = name, .layer = like->layer, .stream = like->attrs.stream, .producer = m->n_rows, .width = width};
    return m->n_slots++;
}

/* A row beside `base`, of the same rows; its inputs, output and parameter are set by the caller. */
static espl_row *add_row(espl_model *m, const espl_row *base, espl_op op, const char *name) {
    espl_row *r = &m->rows[m->n_rows];
    *r = (espl_row){.op = op,
                    .name = name,
                    .section = base->section,
                    .layer = base->layer,
                    .in = {-1, -1},
                    .out = {-1, -1, -1},
                    .param = {-1, -1, -1, -1},
                    .attrs = {.layout = ESPL_OUT_IN,
                              .scale = 1.0f,
                              .rng_op = (uint32_t)m->n_rows,
                              .stream = base->attrs.stream,
                              .heads = base->attrs.heads,
                              .kv_heads = base->attrs.kv_heads,
                              .head_dim = base->attrs.head_dim,
                              .positions = base->attrs.positions,
                              .n_in = base->attrs.n_in,
                              .n_out = base->attrs.n_out}};
    return r;
}

/* drop(x), or x - drop(x) by the same draw. */
static int add_act(espl_model *m, const espl_row *base, const char *name, double rate, int kind, uint32_t draw) {
    int out = add_slot(m, base, name, base->attrs.n_in);
    espl_row *r = add_row(m, base, ESPL_OP_ACT, name);
    r->attrs.kind = kind;
    r->attrs.dropout = (float)rate;
    r->attrs.rng_op = draw;
    r->in[0] = base->in[0];
    r->out[0] = out;
    m->n_rows++;
    return out;
}

/* x, or drop(x) */
static int add_dropout(espl_model *m, const espl_row *base, double rate) {
    return rate == 0.0 ? base->in[0] : add_act(m, base, "lora_dropout", rate, ESPL_ACT_NONE, (uint32_t)m->n_rows);
}

/* The columns of a row's output that have updates. */
static void set_parts(const espl_model *m, const espl_row *base, espl_attrs *attrs) {
    int64_t column = 0;
    for (int i = base->param[0]; i < end_of_group(m, base->param[0], m->n_params); i++) {
        const espl_param *p = &m->params[i];
        int64_t width = outputs_of(m, p);
        if (p->lora_b >= 0) {
            ESPL_ASSERT(attrs->n_parts < ESPL_LORA_PARTS, "more parts than %d", ESPL_LORA_PARTS);
            attrs->part[attrs->n_parts++] = (espl_lora_part){
                .column = column, .width = width, .rank = (int32_t)m->params[p->lora_b].shape[1], .scale = espl_lora_scale(m, p->lora_b)};
        }
        column += width;
    }
}

/* The first of the pieces of a kind that a row's matrices have. */
static int first_piece(espl_model *m, const espl_row *base, piece which) {
    int i = base->param[0];
    while (m->params[i].lora_a < 0)
        i++;
    return *piece_of(&m->params[i], which);
}

static int64_t ranks_of(const espl_attrs *attrs) {
    int64_t ranks = 0;
    for (int i = 0; i < attrs->n_parts; i++)
        ranks += attrs->part[i].rank;
    return ranks;
}

/* u = x A^T, of all As */
static int add_down(espl_model *m, const espl_row *base, int x) {
    espl_attrs parts = {0};
    set_parts(m, base, &parts);
    int out = add_slot(m, base, "lora_A", ranks_of(&parts));
    espl_row *r = add_row(m, base, ESPL_OP_LINEAR, "lora_A");
    r->attrs.n_out = ranks_of(&parts);
    r->in[0] = x;
    r->out[0] = out;
    r->param[0] = first_piece(m, base, PIECE_A);
    m->n_rows++;
    return out;
}

static void add_up(espl_model *m, const espl_row *base, int u, int y) {
    espl_row *r = add_row(m, base, ESPL_OP_LORA, "lora_B");
    set_parts(m, base, &r->attrs);
    r->attrs.n_in = ranks_of(&r->attrs);
    r->param[0] = first_piece(m, base, PIECE_B);
    r->in[0] = u;
    r->in[1] = r->out[0] = y;
    m->n_rows++;
}

static void add_rotation(espl_model *m, const espl_row *base, int y) {
    espl_row *r = add_row(m, base, ESPL_OP_ROPE, "rope");
    r->attrs.n_in = r->attrs.n_out;
    r->in[0] = r->out[0] = y;
    m->n_rows++;
}

/* ---- With magnitudes. */

/* x W alone, in a value of its own. */
static int add_product(espl_model *m, const espl_row *base, int x) {
    int out = add_slot(m, base, base->name, base->attrs.n_out);
    espl_row *r = add_row(m, base, ESPL_OP_LINEAR, base->name);
    r->attrs.layout = base->attrs.layout;
    r->in[0] = x;
    r->out[0] = out;
    r->param[0] = base->param[0];
    m->n_rows++;
    return out;
}

static int add_norms(espl_model *m, const espl_row *base) {
    espl_row *r = add_row(m, base, ESPL_OP_WEIGHT_NORM, "lora_norm");
    set_parts(m, base, &r->attrs);
    int64_t width = 0;
    for (int i = 0; i < r->attrs.n_parts; i++)
        width += r->attrs.part[i].width;
    int out = add_slot(m, base, "lora_norm", width);
    m->slots[out].stat = m->slots[out].fixed = true;
    r->attrs.layout = base->attrs.layout;
    r->param[0] = base->param[0];
    r->param[1] = first_piece(m, base, PIECE_A);
    r->param[2] = first_piece(m, base, PIECE_B);
    r->out[0] = out;
    m->n_rows++;
    return out;
}

/* What the row computed before is now made here. */
static void add_magnitudes(espl_model *m, const espl_row *base, int v, int norms) {
    espl_row *r = add_row(m, base, ESPL_OP_MAGNITUDE, "lora_magnitude");
    set_parts(m, base, &r->attrs);
    r->attrs.n_in = r->attrs.n_out;
    r->in[0] = v;
    r->in[1] = norms;
    r->out[0] = base->out[0];
    r->param[0] = first_piece(m, base, PIECE_MAGNITUDE);
    r->param[1] = base->param[1];
    m->slots[base->out[0]].producer = m->n_rows++;
}

/* y += (x - drop(x)) W */
static void add_rest(espl_model *m, const espl_row *base, double rate, uint32_t draw) {
    int rest = add_act(m, base, "lora_rest", rate, ESPL_ACT_REST, draw);
    m->rows[m->n_rows - 1].noise = true;
    espl_row *r = add_row(m, base, ESPL_OP_LORA, base->name);
    r->noise = true;
    r->attrs.layout = base->attrs.layout;
    r->attrs.part[r->attrs.n_parts++] = (espl_lora_part){.width = base->attrs.n_out, .rank = (int32_t)base->attrs.n_in, .scale = 1.0f};
    r->in[0] = rest;
    r->in[1] = r->out[0] = base->out[0];
    r->param[0] = base->param[0];
    m->n_rows++;
}

/* In place of the last row, which is `base`. */
static void add_with_magnitudes(espl_model *m, const espl_row *base, double dropout) {
    uint32_t draw = (uint32_t)--m->n_rows;
    int x = add_dropout(m, base, dropout), v = add_product(m, base, x);
    add_up(m, base, add_down(m, base, x), v);
    add_magnitudes(m, base, v, add_norms(m, base));
    if (dropout > 0.0)
        add_rest(m, base, dropout, draw);
}

void espl__lora_add_rows(espl_model *model, const espl_lora_options *lora, bool rotates) {
    const espl_row base = model->rows[model->n_rows - 1];
    if (lora->magnitudes)
        add_with_magnitudes(model, &base, lora->dropout);
    else
        add_up(model, &base, add_down(model, &base, add_dropout(model, &base, lora->dropout)), base.out[0]);
    if (rotates)
        add_rotation(model, &base, base.out[0]);
}
