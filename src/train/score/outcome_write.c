/* The files of an evaluation. */
#include "src/train/score/outcome.h"

#include "io/fsio.h"
#include "src/core/buffer.h"
#include "src/eval/class_report.h"
#include "src/train/feed/texts.h"

#include <stdlib.h>
#include <string.h>

typedef struct writer {
    const espl_outcome *outcome;
    const espl_outcome_about *about;
    espl_buffer lines; /* predictions.jsonl */
    int64_t next;      /* the next prediction that has not been written */
    int64_t *worst;    /* [n_worst] predictions with the largest losses among the wrong ones, worst first */
    int64_t n_worst;
    json_t **mistakes; /* [n_worst] */
} writer;

/* ---- Which mistakes are the worst. */

typedef struct mistake {
    double loss;
    int64_t row;
} mistake;

static int compare_mistakes(const void *a, const void *b) {
    const mistake *x = a, *y = b;
    if (x->loss != y->loss)
        return x->loss > y->loss ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static void find_worst(writer *w) {
    const espl_predictions *p = &w->outcome->predictions;
    mistake *all = espl_malloc((size_t)(p->n + 1) * sizeof *all);
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const float *row = p->probabilities + i * p->classes;
        if (espl_likeliest(row, p->classes) != p->gold[i])
            all[n++] = (mistake){espl_class_loss(row, p->gold[i]), i};
    }
    qsort(all, (size_t)n, sizeof *all, compare_mistakes);
    w->n_worst = n < w->about->config->eval_mistakes ? n : w->about->config->eval_mistakes;
    w->worst = espl_malloc((size_t)(w->n_worst + 1) * sizeof *w->worst);
    w->mistakes = espl_calloc((size_t)w->n_worst + 1, sizeof *w->mistakes);
    for (int64_t i = 0; i < w->n_worst; i++)
        w->worst[i] = all[i].row;
    free(all);
}

/* ---- One prediction with its text. */

static json_t *text_of(const char *text, size_t size) {
    json_t *value = json_stringn(text, size);
    return value != NULL ? value : json_string("(not UTF-8)");
}

static json_t *describe(const writer *w, int64_t row, const espl_document *document) {
    const espl_predictions *p = &w->outcome->predictions;
    const float *probabilities = p->probabilities + row * p->classes;
    int32_t predicted = espl_likeliest(probabilities, p->classes);
    json_t *all = json_array();
    for (int k = 0; k < p->classes; k++)
        json_array_append_new(all, json_real((double)probabilities[k]));
    json_t *line = json_pack("{s:I, s:s, s:s, s:f, s:f, s:o}", "document", (json_int_t)p->documents[row], "gold",
                             w->about->labels->names[p->gold[row]], "predicted", w->about->labels->names[predicted], "probability",
                             (double)probabilities[predicted], "loss", espl_class_loss(probabilities, p->gold[row]), "probabilities", all);
    if (document->text != NULL)
        json_object_set_new(line, "text", text_of(document->text, document->size));
    if (document->second != NULL)
        json_object_set_new(line, "text_pair", text_of(document->second, document->second_size));
    return line;
}

static void add_line(writer *w, const espl_document *document) {
    json_t *line = describe(w, w->next, document);
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    espl_buffer_printf(&w->lines, "%s\n", text);
    for (int64_t i = 0; i < w->n_worst; i++)
        if (w->worst[i] == w->next)
            w->mistakes[i] = json_incref(line);
    free(text);
    json_decref(line);
    w->next++;
}

static void take_document(void *context, int64_t number, const espl_document *document) {
    writer *w = context;
    const espl_predictions *p = &w->outcome->predictions;
    if (w->next < p->n && p->documents[w->next] == number)
        add_line(w, document);
}

/* ---- The files. */

static espl_status write_text(const char *folder, const char *name, const char *text, size_t size) {
    char *path = espl_format("%s/%s", folder, name);
    espl_status status = espl_fs_write_file(path, text, size);
    free(path);
    return status;
}

static espl_status write_report(const writer *w, const char *folder) {
    json_t *report = json_deep_copy(w->outcome->report), *data = json_array(), *mistakes = json_array();
    for (int64_t i = 0; i < w->about->paths->n; i++)
        json_array_append_new(data, json_string(w->about->paths->items[i]));
    for (int64_t i = 0; i < w->n_worst; i++)
        if (w->mistakes[i] != NULL)
            json_array_append(mistakes, w->mistakes[i]);
    json_object_set_new(report, "model", json_string(w->about->model));
    json_object_set_new(report, "step", w->about->step >= 0 ? json_integer((json_int_t)w->about->step) : json_null());
    json_object_set_new(report, "data", data);
    if (w->outcome->predictions.n > 0)
        json_object_set(report, "mistakes", mistakes);
    if (json_array_size(w->about->probes) > 0)
        json_object_set(report, "probes", w->about->probes);
    json_decref(mistakes);
    char *text = json_dumps(report, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    espl_status status = write_text(folder, "evaluation.json", text, strlen(text));
    free(text);
    json_decref(report);
    return status;
}

espl_status espl_outcome_write(const espl_outcome *outcome, const espl_outcome_about *about, const char *folder) {
    writer w = {.outcome = outcome, .about = about};
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_fs_make_folders(folder));
    find_worst(&w);
    if (outcome->predictions.n > 0) {
        ESPL_TRY_DONE(espl_texts_read(about->config, about->paths, about->labels, take_document, &w));
        while (w.next < outcome->predictions.n) /* token stores have no texts */
            add_line(&w, &(espl_document){0});
        ESPL_TRY_DONE(write_text(folder, "predictions.jsonl", w.lines.data != NULL ? w.lines.data : "", w.lines.size));
    }
    ESPL_TRY_DONE(write_report(&w, folder));
done:
    for (int64_t i = 0; i < w.n_worst; i++)
        json_decref(w.mistakes[i]);
    free(w.mistakes);
    free(w.worst);
    espl_buffer_free(&w.lines);
    return status;
}
