#include "src/config/sweep.h"

#include "src/core/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_NAME = 120 }; /* characters of a folder's name */

int64_t espl_sweep_runs(const espl_sweep *sweep) {
    int64_t n = sweep->n > 0;
    for (int64_t a = 0; a < sweep->n; a++)
        n = n < INT64_MAX / sweep->axes[a].n ? n * sweep->axes[a].n : INT64_MAX;
    return n;
}

int64_t espl_sweep_choice(const espl_sweep *sweep, int64_t run, int64_t axis) {
    for (int64_t a = sweep->n - 1; a > axis; a--)
        run /= sweep->axes[a].n;
    return run % sweep->axes[axis].n;
}

espl_status espl_sweep_set(const espl_sweep *sweep, int64_t run, espl_config *config) {
    for (int64_t a = 0; a < sweep->n; a++) {
        const espl_axis *axis = &sweep->axes[a];
        char *text = espl_format("%s=%s", axis->key, axis->values[espl_sweep_choice(sweep, run, a)]);
        espl_status status = espl_config_set(config, text);
        free(text);
        ESPL_TRY(status);
    }
    return ESPL_OK;
}

char *espl_sweep_name(const espl_sweep *sweep, int64_t run) {
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+=-";
    espl_buffer name = {0};
    espl_buffer_printf(&name, "%03lld", (long long)run);
    for (int64_t a = 0; a < sweep->n; a++) {
        const espl_axis *axis = &sweep->axes[a];
        espl_buffer_printf(&name, "-%s=%s", strchr(axis->key, '.') + 1, axis->values[espl_sweep_choice(sweep, run, a)]);
    }
    if (name.size > MOST_NAME)
        name.data[MOST_NAME] = '\0';
    for (char *c = name.data; *c != '\0'; c++)
        if (strchr(fine, *c) == NULL)
            *c = '_';
    return name.data;
}

void espl_sweep_free(espl_sweep *sweep) {
    for (int64_t a = 0; a < sweep->n; a++) {
        free(sweep->axes[a].key);
        for (int64_t i = 0; i < sweep->axes[a].n; i++)
            free(sweep->axes[a].values[i]);
        free(sweep->axes[a].values);
    }
    free(sweep->axes);
    *sweep = (espl_sweep){0};
}
