#include "src/train/health/spikes.h"

#include "src/core/buffer.h"
#include "src/core/median.h"

#include <math.h>
#include <stdlib.h>

static const struct {
    const char *name, *key;
    bool watched[3]; /* by train.spike_watch */
} rows[ESPL_N_SPIKES] = {
    [ESPL_SPIKES_LOSS] = {"loss", "losses", {[ESPL_WATCH_LOSS] = true, [ESPL_WATCH_EITHER] = true}},
    [ESPL_SPIKES_NORM] = {"gradient norm", "norms", {[ESPL_WATCH_GRAD_NORM] = true, [ESPL_WATCH_EITHER] = true}},
};

void espl_spikes_open(const espl_config *config, espl_spikes *s) {
    size_t window = (size_t)config->train_spike_window;
    *s = (espl_spikes){.watch = config->train_spike_watch,
                       .factor = config->train_spike_factor,
                       .window = config->train_spike_window,
                       .scratch = espl_malloc(window * sizeof(double)),
                       .left_out = json_array()};
    for (int k = 0; k < ESPL_N_SPIKES; k++)
        s->values[k] = espl_malloc(window * sizeof(double));
}

static double limit_of(const espl_spikes *s, int k, double *median) {
    size_t n = (size_t)s->window;
    for (size_t i = 0; i < n; i++)
        s->scratch[i] = s->values[k][i];
    *median = espl_median(s->scratch, n);
    for (size_t i = 0; i < n; i++)
        s->scratch[i] = fabs(s->values[k][i] - *median);
    return *median + s->factor * fmax(1.4826 * espl_median(s->scratch, n), 0.01 * fabs(*median));
}

bool espl_spikes_judge(const espl_spikes *s, double loss, double norm, espl_spike *spike) {
    const double now[ESPL_N_SPIKES] = {loss, norm};
    if (s->n < s->window)
        return false;
    for (int k = 0; k < ESPL_N_SPIKES; k++) {
        *spike = (espl_spike){.what = rows[k].name, .value = now[k]};
        spike->limit = limit_of(s, k, &spike->median);
        if (rows[k].watched[s->watch] && now[k] > spike->limit)
            return true;
    }
    return false;
}

void espl_spikes_add(espl_spikes *s, double loss, double norm) {
    s->values[ESPL_SPIKES_LOSS][s->n % s->window] = loss;
    s->values[ESPL_SPIKES_NORM][s->n % s->window] = norm;
    s->n++;
}

json_t *espl_spikes_to_json(const espl_spikes *s) {
    json_t *object = json_pack("{s:I, s:O}", "rollbacks", (json_int_t)s->rollbacks, "left_out", s->left_out);
    for (int k = 0; k < ESPL_N_SPIKES; k++) {
        json_t *list = json_array();
        for (int64_t i = s->n > s->window ? s->n - s->window : 0; i < s->n; i++)
            json_array_append_new(list, json_real(s->values[k][i % s->window]));
        json_object_set_new(object, rows[k].key, list);
    }
    return object;
}

espl_status espl_spikes_from_json(const json_t *object, const char *path, espl_spikes *s) {
    const json_t *losses = json_object_get(object, rows[ESPL_SPIKES_LOSS].key),
                 *norms = json_object_get(object, rows[ESPL_SPIKES_NORM].key);
    json_t *left_out = json_object_get(object, "left_out");
    size_t n = json_array_size(losses);
    s->n = s->rollbacks = 0;
    json_array_clear(s->left_out);
    if (object == NULL)
        return ESPL_OK;
    if (json_array_size(norms) != n || !json_is_array(left_out))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: the record's 'spikes' are not those of this program's training", path);
    for (size_t i = n > (size_t)s->window ? n - (size_t)s->window : 0; i < n; i++)
        espl_spikes_add(s, json_number_value(json_array_get(losses, i)), json_number_value(json_array_get(norms, i)));
    s->rollbacks = json_integer_value(json_object_get(object, "rollbacks"));
    json_array_extend(s->left_out, left_out);
    return ESPL_OK;
}

void espl_spikes_free(espl_spikes *s) {
    for (int k = 0; k < ESPL_N_SPIKES; k++)
        free(s->values[k]);
    free(s->scratch);
    json_decref(s->left_out);
    *s = (espl_spikes){0};
}
