#include "src/model/freeze.h"
#include "src/model/phases.h"
#include "src/model/select.h"

static bool is_selected(const espl_param *p, char *const *selections, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (espl__selects(selections[i], p))
            return true;
    return false;
}

/* What is used as one matrix is trained as one. */
static espl_status check_joined(const espl_model *m) {
    for (int i = 1; i < m->n_params; i++) {
        const espl_param *p = &m->params[i], *before = p - 1;
        if (p->joined && (p->frozen != before->frozen || p->phase != before->phase))
            ESPL_FAIL(ESPL_ERR_USAGE, "%s selects one of '%s' and '%s', which are one matrix here; select both or neither",
                      p->phase != before->phase ? "tune.unfreeze" : "tune.train", before->name, p->name);
    }
    return ESPL_OK;
}

espl_status espl__model_freeze(espl_model *m, const espl_model_options *o) {
    bool method = espl_model_is_adapted(m), part = method || o->n_train > 0;
    for (int64_t i = 0; i < o->n_train; i++)
        ESPL_TRY(espl__select_check(m, "tune.train", o->train[i]));
    if (o->n_unfreeze > 0 && !part)
        ESPL_FAIL(ESPL_ERR_USAGE, "tune.unfreeze names what joins tune.train later, but that is empty, so everything is trained from the "
                                  "start; set tune.train to what begins, such as head");
    for (int i = 0; i < m->n_params; i++) {
        espl_param *p = &m->params[i];
        bool by_method = method && (p->adapts >= 0 || (p->head && m->new_head)); /* there is nothing yet to be frozen */
        p->frozen = part && !by_method && !is_selected(p, o->train, o->n_train);
    }
    ESPL_TRY(espl__phases_make(m, o));
    return check_joined(m);
}
