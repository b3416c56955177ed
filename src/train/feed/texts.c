#include "src/train/feed/texts.h"

#include "src/train/feed/dataset.h"

typedef struct reading {
    espl_reader_options options;
    espl_text_visit *visit;
    void *context;
    int64_t number;
} reading;

static espl_status read_input(reading *r, const espl_inputs *inputs, int64_t i) {
    const espl_share all = {i, 0, inputs->items[i].bytes};
    espl_reader *reader = NULL;
    espl_document document;
    bool found = true;
    espl_status status = ESPL_OK;
    ESPL_TRY_DONE(espl_reader_open(inputs, &all, &r->options, &reader));
    while (found) {
        ESPL_TRY_DONE(espl_reader_next(reader, &document, &found));
        if (found)
            r->visit(r->context, r->number++, &document);
    }
done:
    espl_reader_close(&reader);
    return status;
}

espl_status espl_texts_read(const espl_config *config, const espl_strings *paths, const espl_labels *labels, espl_text_visit *visit,
                            void *context) {
    reading r = {espl_dataset_reading(config), visit, context, 0};
    espl_inputs inputs = {0};
    espl_status status = ESPL_OK;
    for (int64_t p = 0; p < paths->n; p++) {
        ESPL_TRY_DONE(espl_inputs_find(&paths->items[p], 1, (espl_read_format)config->data_format, &inputs));
        espl_labels_keep(labels, &inputs);
        for (int64_t i = 0; i < inputs.n; i++) {
            if (inputs.items[i].format == ESPL_READ_TOKENS)
                goto done;
            ESPL_TRY_DONE(read_input(&r, &inputs, i));
        }
        espl_inputs_free(&inputs);
    }
done:
    espl_inputs_free(&inputs);
    return status;
}
