/* A page of a report, written from top to bottom: the same calls make HTML or Markdown. */
#ifndef ESPL_REPORT_PAGE_H
#define ESPL_REPORT_PAGE_H

#include "src/report/chart.h"

/* Cells of a table, row after row; the first row is its head. Texts are owned. */
typedef struct espl_table {
    int columns;
    char **cells;
    double *heat; /* 0 .. 1: how strongly a cell is coloured; NAN: not */
    int64_t n, capacity;
} espl_table;

typedef struct espl_page_format {
    void (*begin)(espl_buffer *out, const char *title);
    void (*heading)(espl_buffer *out, int level, const char *text); /* level 2 or 3 */
    void (*paragraph)(espl_buffer *out, const char *text);
    void (*table)(espl_buffer *out, const espl_table *table);
    void (*chart)(espl_buffer *out, const espl_chart *chart);
    void (*folded)(espl_buffer *out, const char *title, const char *text); /* long text that opens on demand */
    void (*end)(espl_buffer *out);
} espl_page_format;

extern const espl_page_format espl_page_html, espl_page_markdown;

/* Local. A table of that many columns, and its release. */
espl_table espl_table_make(int columns);
void espl_table_free(espl_table *table);

/* Local. Adds a cell: text, a number as espl_number_print has it, or a number with a colour. */
void espl_table_text(espl_table *table, const char *text);
void espl_table_number(espl_table *table, double value);
void espl_table_heat(espl_table *table, double value, double heat);

#endif
