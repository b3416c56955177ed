#include "src/report/page.h"

#include <math.h>
#include <stdlib.h>

espl_table espl_table_make(int columns) { return (espl_table){.columns = columns}; }

void espl_table_free(espl_table *t) {
    for (int64_t i = 0; i < t->n; i++)
        free(t->cells[i]);
    free(t->cells);
    free(t->heat);
    *t = (espl_table){0};
}

static void add(espl_table *t, char *text, double heat) {
    if (t->n == t->capacity) {
        t->capacity = t->capacity > 0 ? 2 * t->capacity : 32;
        t->cells = espl_realloc(t->cells, (size_t)t->capacity * sizeof *t->cells);
        t->heat = espl_realloc(t->heat, (size_t)t->capacity * sizeof *t->heat);
    }
    t->cells[t->n] = text;
    t->heat[t->n++] = heat;
}

void espl_table_text(espl_table *t, const char *text) { add(t, espl_strdup(text != NULL ? text : "–"), NAN); }

void espl_table_heat(espl_table *t, double value, double heat) {
    espl_buffer text = {0};
    espl_number_print(&text, value);
    add(t, text.data, heat);
}

void espl_table_number(espl_table *t, double value) { espl_table_heat(t, value, NAN); }
