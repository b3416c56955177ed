#include "io/readers/readers_internal.h"

static const struct {
    espl_field fields[ESPL_FIELDS];
} rules[] = {
    [ESPL_READ_PLAIN] = {{[ESPL_FIELD_TEXT] = {{"text", "input"}, "data.text_field", true}}},
    [ESPL_READ_LABELLED] = {{[ESPL_FIELD_TEXT] = {{"text", "input"}, "data.text_field", true},
                             [ESPL_FIELD_SECOND] = {{"text_pair", NULL}, "data.pair_field", false},
                             [ESPL_FIELD_LABEL] = {{"label", NULL}, "data.label_field", true}}},
    [ESPL_READ_PAIRED] = {{[ESPL_FIELD_TEXT] = {{"input", NULL}, "data.source_field", true},
                           [ESPL_FIELD_SECOND] = {{"target", NULL}, "data.target_field", true}}},
    [ESPL_READ_PROMPT] = {{[ESPL_FIELD_TEXT] = {{"prompt", NULL}, "data.source_field", true},
                           [ESPL_FIELD_SECOND] = {{"response", NULL}, "data.target_field", true}}},
    [ESPL_READ_RECORD] = {{[ESPL_FIELD_TEXT] = {{NULL, NULL}, NULL, false}}},
};

void espl__fields_of(const espl_reader_options *options, espl_field fields[ESPL_FIELDS]) {
    const char *given[ESPL_FIELDS] = {options->text_field, options->second_field, options->label_field};
    for (int f = 0; f < ESPL_FIELDS; f++) {
        fields[f] = rules[options->kind].fields[f];
        if (fields[f].key != NULL && given[f] != NULL && given[f][0] != '\0')
            fields[f] = (espl_field){.names = {given[f], NULL}, .key = fields[f].key, .needed = true};
    }
}

void espl__record_clear(espl_record *record) {
    for (int f = 0; f < ESPL_FIELDS; f++) {
        record->fields[f].size = 0;
        record->has[f] = false;
    }
}

void espl__record_free(espl_record *record) {
    for (int f = 0; f < ESPL_FIELDS; f++)
        espl_buffer_free(&record->fields[f]);
}
