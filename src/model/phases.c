#include "src/model/phases.h"
#include "src/model/select.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct joining {
    char *selection;
    double at;
    bool epochs;
} joining;

static espl_status parse(const char *entry, joining *j) {
    const char *sign = strrchr(entry, '@');
    char *end = NULL;
    j->at = sign != NULL ? strtod(sign + 1, &end) : 0.0;
    j->epochs = sign != NULL && strcmp(end, "e") == 0;
    bool steps = sign != NULL && *end == '\0' && j->at == floor(j->at);
    if (sign == NULL || sign == entry || !(j->epochs || steps) || !(j->at > 0.0 && j->at < 0x1p52))
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "tune.unfreeze: '%s'; expected SELECTION@STEP or SELECTION@EPOCHSe with a time above 0, such as layers.1@200 or "
                  "layers.1@1.5e",
                  entry);
    j->selection = espl_format("%.*s", (int)(sign - entry), entry);
    return ESPL_OK;
}

static espl_status parse_all(const espl_model *m, char *const *entries, int64_t n, joining *list) {
    for (int64_t i = 0; i < n; i++) {
        ESPL_TRY(parse(entries[i], &list[i]));
        ESPL_TRY(espl__select_check(m, "tune.unfreeze", list[i].selection));
        if (list[i].epochs != list[0].epochs)
            ESPL_FAIL(ESPL_ERR_USAGE, "tune.unfreeze: '%s' and '%s': expected all times in steps, or all in epochs (1e)", entries[0],
                      entries[i]);
    }
    return ESPL_OK;
}

/* The first time behind `at`; infinite when there is none. */
static double next_time(const joining *list, int64_t n, double at) {
    double next = INFINITY;
    for (int64_t i = 0; i < n; i++)
        next = list[i].at > at ? fmin(next, list[i].at) : next;
    return next;
}

/* Those of the first, and the later ones of one time. */
static char *join_selections(const espl_model_options *o, const joining *list, double at) {
    espl_buffer text = {0};
    espl_buffer_append(&text, "", 0);
    for (int64_t i = 0; i < o->n_train && at == 0.0; i++)
        espl_buffer_printf(&text, "%s%s", text.size > 0 ? ", " : "", o->train[i]);
    for (int64_t i = 0; i < o->n_unfreeze; i++)
        if (list[i].at == at)
            espl_buffer_printf(&text, "%s%s", text.size > 0 ? ", " : "", list[i].selection);
    return text.data;
}

/* The phases by their times. */
static void list_phases(espl_model *m, const espl_model_options *o, const joining *list) {
    int64_t n = o->n_unfreeze;
    m->phases = espl_calloc((size_t)n + 1, sizeof *m->phases);
    for (double at = 0.0; isfinite(at); at = next_time(list, n, at))
        m->phases[m->n_phases++] = (espl_phase){.at = at, .epochs = n > 0 && list[0].epochs, .what = join_selections(o, list, at)};
}

static void thaw(espl_model *m, const joining *list, int64_t n) {
    for (int i = 0; i < m->n_params; i++) {
        espl_param *p = &m->params[i];
        double first = INFINITY;
        for (int64_t e = 0; e < n && p->frozen; e++)
            first = espl__selects(list[e].selection, p) ? fmin(first, list[e].at) : first;
        for (int phase = 1; phase < m->n_phases && p->frozen; phase++)
            if (m->phases[phase].at == first) {
                p->frozen = false;
                p->phase = phase;
            }
    }
}

espl_status espl__phases_make(espl_model *m, const espl_model_options *o) {
    int64_t n = o->n_unfreeze;
    joining *list = espl_calloc((size_t)n + 1, sizeof *list);
    espl_status status = parse_all(m, o->unfreeze, n, list);
    if (status == ESPL_OK) {
        list_phases(m, o, list);
        thaw(m, list, n);
    }
    for (int64_t i = 0; i < n; i++)
        free(list[i].selection);
    free(list);
    return status;
}
