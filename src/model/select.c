#include "src/model/select.h"

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

bool espl__selects(const char *selection, const espl_param *p) {
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

espl_status espl__select_check(const espl_model *m, const char *key, const char *selection) {
    for (int i = 0; i < m->n_params; i++)
        if (espl__selects(selection, &m->params[i]))
            return ESPL_OK;
    ESPL_FAIL(ESPL_ERR_USAGE,
              "%s: '%s' is no parameter of this %s model; give head, embeddings, layers.A-B (0 to %lld) or a pattern of names "
              "such as '%s' (espalier plan --tensors lists them)",
              key, selection, m->family->model_type, (long long)m->dims.layers - 1, m->params[m->n_params - 1].name);
}

bool espl__is_layer_matrix(const espl_param *p) {
    switch (p->role) {
    case ESPL_ROLE_QKV:
    case ESPL_ROLE_OUT:
    case ESPL_ROLE_CROSS_Q:
    case ESPL_ROLE_CROSS_KV:
    case ESPL_ROLE_CROSS_OUT:
    case ESPL_ROLE_UP:
    case ESPL_ROLE_DOWN: return p->n_dims == 2;
    default: return false;
    }
}
