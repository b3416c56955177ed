#include "src/model/low_rank.h"

#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Which matrices. */

static bool can_be_adapted(const espl_param *p) {
    switch (p->role) {
    case ESPL_ROLE_QKV:
    case ESPL_ROLE_OUT:
    case ESPL_ROLE_CROSS_Q:
    case ESPL_ROLE_CROSS_KV:
    case ESPL_ROLE_CROSS_OUT:
    case ESPL_ROLE_UP:
    case ESPL_ROLE_DOWN:
    case ESPL_ROLE_TRANSFORM: return p->n_dims == 2;
    default: return false;
    }
}

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

/* A or B of parameter `of`; the second and further ones of a group follow the one before without a gap. */
static int add_param(espl_model *m, const espl_lora_options *lora, int of, bool is_b, bool joined) {
    const espl_param *base = &m->params[of];
    espl_param *p = &m->params[m->n_params];
    char module[ESPL_MAX_NAME];
    module_of(base, module);
    int64_t rank = (int64_t)number_for(module, lora->ranks, lora->n_ranks, (double)lora->rank);
    *p = (espl_param){.section = base->section,
                      .layer = base->layer,
                      .n_dims = 2,
                      .shape = {is_b ? outputs_of(m, base) : rank, is_b ? rank : inputs_of(m, base)},
                      .bucket = base->bucket,
                      .init = is_b ? ESPL_INIT_ZERO : ESPL_INIT_UNIFORM_FAN_IN,
                      .decay = true,
                      .joined = joined,
                      .adapts = of,
                      .lora_a = -1,
                      .lora_b = -1,
                      .bottleneck = -1,
                      .alpha = number_for(module, lora->alphas, lora->n_alphas, lora->alpha)};
    int length = snprintf(p->name, sizeof p->name, "%.100s.lora_%c.weight", module, is_b ? 'B' : 'A');
    ESPL_ASSERT(length < (int)sizeof p->name, "the name of '%s' is too long", module);
    p->numel = p->shape[0] * p->shape[1];
    return m->n_params++;
}

static int end_of_group(const espl_model *m, int first, int end) {
    int i = first + 1;
    while (i < end && m->params[i].joined)
        i++;
    return i;
}

static void add_group(espl_model *m, const espl_lora_options *lora, int first, int end) {
    for (int pass = 0; pass < 2; pass++) {
        bool joined = false;
        for (int i = first; i < end; i++) {
            if (!is_target(&m->params[i], lora))
                continue;
            int added = add_param(m, lora, i, pass == 1, joined);
            *(pass == 0 ? &m->params[i].lora_a : &m->params[i].lora_b) = added;
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

/* x, or drop(x) */
static int add_dropout(espl_model *m, const espl_row *base, double rate) {
    if (rate == 0.0)
        return base->in[0];
    int out = add_slot(m, base, "lora_dropout", base->attrs.n_in);
    espl_row *r = add_row(m, base, ESPL_OP_ACT, "lora_dropout");
    r->attrs.kind = ESPL_ACT_NONE;
    r->attrs.dropout = (float)rate;
    r->in[0] = base->in[0];
    r->out[0] = out;
    m->n_rows++;
    return out;
}

/* u = x A^T, of all As */
static int add_down(espl_model *m, const espl_row *base, int x, int first_a, int64_t ranks) {
    int out = add_slot(m, base, "lora_A", ranks);
    espl_row *r = add_row(m, base, ESPL_OP_LINEAR, "lora_A");
    r->attrs.n_out = ranks;
    r->in[0] = x;
    r->out[0] = out;
    r->param[0] = first_a;
    m->n_rows++;
    return out;
}

static void add_up(espl_model *m, const espl_row *base, int u, int y) {
    espl_row *r = add_row(m, base, ESPL_OP_LORA, "lora_B");
    int64_t column = 0, ranks = 0;
    for (int i = base->param[0]; i < end_of_group(m, base->param[0], m->n_params); i++) {
        const espl_param *p = &m->params[i];
        int64_t width = outputs_of(m, p);
        if (p->lora_b >= 0) {
            const espl_param *b = &m->params[p->lora_b];
            ESPL_ASSERT(r->attrs.n_parts < ESPL_LORA_PARTS, "more parts than %d", ESPL_LORA_PARTS);
            r->param[0] = r->param[0] >= 0 ? r->param[0] : p->lora_b;
            r->attrs.part[r->attrs.n_parts++] =
                (espl_lora_part){.column = column, .width = width, .rank = (int32_t)b->shape[1], .scale = espl_lora_scale(m, p->lora_b)};
            ranks += b->shape[1];
        }
        column += width;
    }
    r->attrs.n_in = ranks;
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

void espl__lora_add_rows(espl_model *model, const espl_lora_options *lora, bool rotates) {
    const espl_row base = model->rows[model->n_rows - 1];
    int first_a = -1;
    int64_t ranks = 0;
    for (int i = base.param[0]; i < end_of_group(model, base.param[0], model->n_params); i++)
        if (model->params[i].lora_a >= 0) {
            first_a = first_a >= 0 ? first_a : model->params[i].lora_a;
            ranks += model->params[model->params[i].lora_a].shape[0];
        }
    int x = add_dropout(model, &base, lora->dropout), u = add_down(model, &base, x, first_a, ranks);
    add_up(model, &base, u, base.out[0]);
    if (rotates)
        add_rotation(model, &base, base.out[0]);
}
