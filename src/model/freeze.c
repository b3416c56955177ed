#include "src/model/freeze.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

/* "PREFIX.A-B" or "PREFIX.A" */
static bool layer_range(const char *text, const char *prefix, int *first, int *last) {
    size_t length = strlen(prefix);
    char rest;
    if (strncmp(text, prefix, length) != 0)
        return false;
    if (sscanf(text + length, "%d-%d%c", first, last, &rest) == 2)
        return true;
    *last = -1;
    bool one = sscanf(text + length, "%d%c", first, &rest) == 1;
    *last = *first;
    return one;
}

static bool in_layers(const espl_param *p, espl_section section, int first, int last) {
    return p->section == section && p->layer >= first && p->layer <= last;
}

static bool selects(const char *selection, const espl_param *p) {
    int first, last;
    if (strcmp(selection, "head") == 0)
        return p->head;
    if (strcmp(selection, "embeddings") == 0)
        return p->section == ESPL_SECTION_EMBED || p->section == ESPL_SECTION_SOURCE_EMBED;
    if (layer_range(selection, "layers.", &first, &last))
        return in_layers(p, ESPL_SECTION_LAYER, first, last);
    if (layer_range(selection, "encoder.layers.", &first, &last))
        return in_layers(p, ESPL_SECTION_SOURCE_LAYER, first, last);
    return fnmatch(selection, p->name, 0) == 0;
}

static bool is_selected(const espl_param *p, char *const *selections, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (selects(selections[i], p))
            return true;
    return false;
}

static espl_status check_selection(const espl_model *m, const char *selection) {
    for (int i = 0; i < m->n_params; i++)
        if (selects(selection, &m->params[i]))
            return ESPL_OK;
    ESPL_FAIL(ESPL_ERR_USAGE,
              "tune.train: '%s' is no parameter of this %s model; give head, embeddings, layers.A-B (0 to %lld) or a pattern of names "
              "such as '%s' (espalier plan --tensors lists them)",
              selection, m->family->model_type, (long long)m->dims.layers - 1, m->params[m->n_params - 1].name);
}

espl_status espl__model_freeze(espl_model *model, char *const *selections, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        ESPL_TRY(check_selection(model, selections[i]));
    for (int i = 0; i < model->n_params; i++) {
        espl_param *p = &model->params[i];
        bool by_method = p->adapts >= 0 || (p->head && model->new_head); /* there is nothing yet to be frozen */
        p->frozen = model->lora.rank > 0 ? !by_method && !is_selected(p, selections, n) : n > 0 && !is_selected(p, selections, n);
        if (p->joined && p->frozen != p[-1].frozen)
            ESPL_FAIL(ESPL_ERR_USAGE, "tune.train selects one of '%s' and '%s', which are one matrix here; select both or neither",
                      p[-1].name, p->name);
    }
    return ESPL_OK;
}
