#include "src/report/report_evaluation.h"

#include <math.h>
#include <stdlib.h>

static double number_of(const json_t *value) { return json_is_number(value) ? json_number_value(value) : NAN; }

static void add_value(espl_table *t, const json_t *value) {
    if (json_is_string(value))
        espl_table_text(t, json_string_value(value));
    else
        espl_table_number(t, number_of(value));
}

/* ---- Tables from arrays of objects, a column a key. */

typedef struct column {
    const char *key, *head;
} column;

static void table_of(const espl_page_format *page, const json_t *rows, const column *columns, int n, espl_buffer *out) {
    espl_table t = espl_table_make(n);
    size_t i;
    json_t *row;
    for (int c = 0; c < n; c++)
        espl_table_text(&t, columns[c].head);
    json_array_foreach(rows, i, row) {
        for (int c = 0; c < n; c++)
            add_value(&t, json_object_get(row, columns[c].key));
    }
    page->table(out, &t);
    espl_table_free(&t);
}

static const column class_columns[] = {
    {"label", "class"}, {"precision", "precision"}, {"recall", "recall"}, {"f1", "F1"}, {"support", "examples"}};
static const column calibration_columns[] = {{"confidence", "mean confidence"}, {"accuracy", "accuracy"}, {"n", "examples"}};
static const column mistake_columns[] = {
    {"text", "text"}, {"gold", "true"}, {"predicted", "predicted"}, {"probability", "its probability"}, {"loss", "loss"}};
static const column sample_columns[] = {{"input", "input"}, {"reference", "reference"}, {"prediction", "prediction"}};

/* Parts of an evaluation that are such tables. */
static const struct part {
    const char *key, *heading;
    const column *columns;
    int n;
} parts[] = {
    {"classes", "Classes", class_columns, sizeof class_columns / sizeof class_columns[0]},
    {"calibration", "Calibration", calibration_columns, sizeof calibration_columns / sizeof calibration_columns[0]},
    {"mistakes", "Worst mistakes", mistake_columns, sizeof mistake_columns / sizeof mistake_columns[0]},
    {"samples", "Samples", sample_columns, sizeof sample_columns / sizeof sample_columns[0]},
};

/* ---- Scores. */

static void scores(const espl_page_format *page, json_t *evaluation, espl_buffer *out) {
    json_t *all = json_object_get(evaluation, "scores"), *value;
    const char *key;
    espl_table t = espl_table_make(2);
    espl_table_text(&t, "score");
    espl_table_text(&t, "value");
    json_object_foreach(all, key, value) {
        espl_table_text(&t, key);
        add_value(&t, value);
    }
    if (json_object_size(all) > 0)
        page->table(out, &t);
    espl_table_free(&t);
}

/* ---- The confusion matrix; a cell's colour is its share of the true class. */

static double sum_of(const json_t *row) {
    double sum = 0.0;
    size_t i;
    json_t *value;
    json_array_foreach(row, i, value) sum += json_number_value(value);
    return sum;
}

static void confusion(const espl_page_format *page, const json_t *evaluation, espl_buffer *out) {
    const json_t *rows = json_object_get(evaluation, "confusion"), *labels = json_object_get(evaluation, "labels");
    size_t n = json_array_size(rows);
    if (n == 0 || json_array_size(labels) != n)
        return;
    espl_table t = espl_table_make((int)n + 1);
    espl_table_text(&t, "true \\ predicted");
    for (size_t k = 0; k < n; k++)
        add_value(&t, json_array_get(labels, k));
    for (size_t i = 0; i < n; i++) {
        const json_t *row = json_array_get(rows, i);
        double total = sum_of(row);
        add_value(&t, json_array_get(labels, i));
        for (size_t k = 0; k < n; k++) {
            double count = number_of(json_array_get(row, k));
            espl_table_heat(&t, count, total > 0.0 ? count / total : 0.0);
        }
    }
    page->heading(out, 3, "Confusion matrix");
    page->table(out, &t);
    espl_table_free(&t);
}

static void threshold(const espl_page_format *page, const json_t *evaluation, espl_buffer *out) {
    const json_t *t = json_object_get(evaluation, "threshold");
    espl_buffer text = {0};
    if (!json_is_object(t))
        return;
    espl_buffer_printf(&text, "Threshold chosen on this data: %s from a probability of ", json_string_value(json_object_get(t, "label")));
    espl_number_print(&text, number_of(json_object_get(t, "threshold")));
    espl_buffer_printf(&text, " up: precision ");
    espl_number_print(&text, number_of(json_object_get(t, "precision")));
    espl_buffer_printf(&text, ", recall ");
    espl_number_print(&text, number_of(json_object_get(t, "recall")));
    espl_buffer_printf(&text, ", F1 ");
    espl_number_print(&text, number_of(json_object_get(t, "f1")));
    espl_buffer_printf(&text, json_is_false(json_object_get(t, "reached")) ? " (what was asked for is not reached)." : ".");
    page->paragraph(out, text.data);
    espl_buffer_free(&text);
}

static void one_evaluation(const espl_page_format *page, const char *run, json_t *evaluation, espl_buffer *out) {
    char *title = espl_format("Evaluation %s of %s", json_string_value(json_object_get(evaluation, "name")), run);
    page->heading(out, 2, title);
    free(title);
    scores(page, evaluation, out);
    threshold(page, evaluation, out);
    confusion(page, evaluation, out);
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        const json_t *rows = json_object_get(evaluation, parts[p].key);
        if (json_array_size(rows) == 0)
            continue;
        page->heading(out, 3, parts[p].heading);
        table_of(page, rows, parts[p].columns, parts[p].n, out);
    }
}

void espl__report_evaluations(const espl_page_format *page, const espl_run_files *run, espl_buffer *out) {
    size_t i;
    json_t *evaluation;
    json_array_foreach(run->evaluations, i, evaluation) one_evaluation(page, run->name, evaluation, out);
}
