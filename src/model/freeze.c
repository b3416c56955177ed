#include "src/model/freeze.h"
#include "src/model/select.h"

static bool is_selected(const espl_param *p, char *const *selections, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (espl__selects(selections[i], p))
            return true;
    return false;
}

espl_status espl__model_freeze(espl_model *model, char *const *selections, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        ESPL_TRY(espl__select_check(model, "tune.train", selections[i]));
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
