#include "src/train/unfreeze.h"

#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void espl_phases_open(const espl_model *model, double epoch_steps, espl_phases *phases) {
    size_t n = (size_t)model->n_phases;
    *phases = (espl_phases){.model = model,
                            .now = -1,
                            .known = 1,
                            .steps = espl_calloc(n, sizeof *phases->steps),
                            .born = espl_calloc(n, sizeof *phases->born),
                            .buckets = espl_calloc((size_t)model->n_buckets, sizeof *phases->buckets)};
    for (size_t i = 0; i < n; i++)
        phases->steps[i] = (int64_t)fmin(0x1p62, ceil(model->phases[i].at * (model->phases[i].epochs ? epoch_steps : 1.0)));
}

bool espl_phases_enter(espl_phases *p, int64_t step, int64_t updates) {
    int before = p->now;
    while (p->now + 1 < p->model->n_phases && p->steps[p->now + 1] <= step)
        if (++p->now >= p->known)
            p->born[p->now] = updates;
    for (int b = 0; b < p->model->n_buckets && p->now != before; b++)
        p->buckets[b] = espl_model_trains_bucket(p->model, b, p->now);
    return p->now != before;
}

json_t *espl_phases_to_json(const espl_phases *p) {
    json_t *list = json_array();
    for (int i = 0; i <= p->now; i++)
        json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "what", p->model->phases[i].what, "step", (json_int_t)p->steps[i],
                                              "updates", (json_int_t)p->born[i]));
    return list;
}

espl_status espl_phases_from_json(const json_t *list, const char *path, espl_phases *p) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *begun = json_array_get(list, i);
        const char *what = json_string_value(json_object_get(begun, "what"));
        int64_t step = json_integer_value(json_object_get(begun, "step"));
        if (what == NULL || (int)i >= p->model->n_phases || strcmp(what, p->model->phases[i].what) != 0 || step != p->steps[i])
            ESPL_FAIL(
                ESPL_ERR_USAGE,
                "%s: %s has been trained since step %lld there, by the config it is otherwise; set tune.train and tune.unfreeze as they "
                "were (phases to come may change), or start in another run.dir from its weights: model.checkpoint with this path",
                path, what != NULL ? what : "another selection", (long long)step);
        p->born[i] = json_integer_value(json_object_get(begun, "updates"));
        p->known = (int)i + 1;
    }
    return ESPL_OK;
}

void espl_phases_free(espl_phases *p) {
    free(p->steps);
    free(p->born);
    free(p->buckets);
    *p = (espl_phases){0};
}
