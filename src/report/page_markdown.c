#include "src/report/page.h"

static void begin(espl_buffer *out, const char *title) { espl_buffer_printf(out, "# %s\n", title); }

static void heading(espl_buffer *out, int level, const char *text) {
    espl_buffer_printf(out, "\n%s %s\n", level == 2 ? "##" : "###", text);
}

static void paragraph(espl_buffer *out, const char *text) { espl_buffer_printf(out, "\n%s\n", text); }

/* A cell stands on one line, and its bars are no borders. */
static void cell(espl_buffer *out, const char *text) {
    espl_buffer_printf(out, " ");
    for (; *text != '\0'; text++)
        espl_buffer_printf(out, *text == '|' ? "\\|" : *text == '\n' ? "<br>" : "%c", *text);
    espl_buffer_printf(out, " |");
}

static void table(espl_buffer *out, const espl_table *t) {
    espl_buffer_printf(out, "\n");
    for (int64_t i = 0; i < t->n; i++) {
        if (i % t->columns == 0)
            espl_buffer_printf(out, "|");
        cell(out, t->cells[i]);
        if (i % t->columns < t->columns - 1)
            continue;
        espl_buffer_printf(out, "\n");
        for (int c = 0; i < t->columns && c < t->columns; c++)
            espl_buffer_printf(out, "%s", c == 0 ? "| --- |" : " --- |");
        espl_buffer_printf(out, "%s", i < t->columns ? "\n" : "");
    }
}

/* A chart as tables, one a curve with a name, of at most twelve of its points. */
static void chart(espl_buffer *out, const espl_chart *c) {
    enum { MOST = 12 };
    for (int64_t k = 0; k < c->n; k++) {
        const espl_curve *curve = &c->curves[k];
        if (curve->name == NULL || curve->points.n == 0)
            continue;
        espl_table t = espl_table_make(2);
        espl_buffer head = {0};
        espl_buffer_printf(&head, "%s: %s", c->title, curve->name);
        espl_table_text(&t, "step");
        espl_table_text(&t, head.data);
        int64_t n = curve->points.n, rows = n < MOST ? n : MOST;
        for (int64_t r = 0; r < rows; r++) {
            int64_t i = rows > 1 ? r * (n - 1) / (rows - 1) : 0;
            espl_table_number(&t, curve->points.x[i]);
            espl_table_number(&t, curve->points.y[i]);
        }
        table(out, &t);
        espl_table_free(&t);
        espl_buffer_free(&head);
    }
}

static void folded(espl_buffer *out, const char *title, const char *text) {
    espl_buffer_printf(out, "\n### %s\n\n```\n%s\n```\n", title, text);
}

static void end(espl_buffer *out) { (void)out; }

const espl_page_format espl_page_markdown = {begin, heading, paragraph, table, chart, folded, end};
