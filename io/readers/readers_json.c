#include "io/readers/readers_internal.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

static const char *type_name(const json_t *value) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",      [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
    return names[json_typeof(value)];
}

/* The value of a field; NULL, with the record's text saying so, where it is needed and missing. */
static const json_t *find_field(const json_t *root, const espl_field *field, espl_buffer *problem) {
    const json_t *value = json_object_get(root, field->names[0]);
    const char *other = field->names[1];
    if (value == NULL && other != NULL)
        value = json_object_get(root, other);
    if (value == NULL && field->needed) {
        problem->size = 0;
        espl_buffer_printf(problem, "key '%s'%s%s%s missing, expected an object like {\"%s\": \"...\"}; %s names another key",
                           field->names[0], other != NULL ? " (or '" : "", other != NULL ? other : "", other != NULL ? "')" : "",
                           field->names[0], field->key);
    }
    return value;
}

static bool take_field(const json_t *root, const espl_field *field, bool is_label, bool *has, espl_buffer *to, espl_buffer *problem) {
    const json_t *value = find_field(root, field, problem);
    *has = value != NULL && (field->needed || !json_is_null(value));
    if (!*has)
        return value != NULL || !field->needed;
    if (json_is_string(value)) {
        espl_buffer_append(to, json_string_value(value), json_string_length(value));
    } else if (is_label && json_is_integer(value)) {
        espl_buffer_printf(to, "%lld", (long long)json_integer_value(value));
    } else {
        problem->size = 0;
        espl_buffer_printf(problem, "key '%s' holds %s, expected a string%s", field->names[0], type_name(value),
                           is_label ? " or an integer" : "");
        return false;
    }
    return true;
}

static bool take_fields(const json_t *root, const espl_field fields[ESPL_FIELDS], espl_record *record) {
    espl_buffer *problem = &record->fields[ESPL_FIELD_TEXT];
    if (!json_is_object(root)) {
        espl_buffer_printf(problem, "is %s, expected an object like {\"%s\": \"...\"}", type_name(root), fields[0].names[0]);
        return false;
    }
    for (int f = 0; f < ESPL_FIELDS; f++)
        if (fields[f].key != NULL && !take_field(root, &fields[f], f == ESPL_FIELD_LABEL, &record->has[f], &record->fields[f], problem))
            return false;
    return true;
}

bool espl__json_record(const char *text, size_t size, const espl_field fields[ESPL_FIELDS], espl_record *record) {
    json_error_t error;
    espl__record_clear(record);
    json_t *root = json_loadb(text, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (root == NULL) {
        espl_buffer_printf(&record->fields[ESPL_FIELD_TEXT], "is not JSON: %s at byte %d of the record, expected one object a line",
                           error.text, error.position);
        return false;
    }
    bool good = take_fields(root, fields, record);
    json_decref(root);
    return good;
}

/* Uses what stands before the next element; *closing at the array's bracket, *ended at the end of the file. */
static espl_status skip_between(espl_stretch *stretch, bool *closing, bool *ended) {
    bool more = true;
    while (more) {
        size_t n = 0, held = stretch->end - stretch->at;
        const char *at = stretch->data + stretch->at;
        while (n < held && (isspace((unsigned char)at[n]) || at[n] == ','))
            n++;
        *closing = n < held && at[n] == ']';
        espl__stretch_use(stretch, n);
        *ended = false;
        if (n < held)
            return ESPL_OK;
        ESPL_TRY(espl__stretch_more(stretch, &more));
    }
    *ended = true;
    return ESPL_OK;
}

typedef struct element_scan {
    size_t at;
    int64_t depth;
    bool in_string, escaped, closed;
} element_scan;

/* An element ends with its outermost bracket or, when it has none, before a comma or the array's bracket. */
static void scan_bytes(element_scan *scan, const char *text, size_t n) {
    for (; scan->at < n && !scan->closed; scan->at++) {
        char c = text[scan->at];
        if (scan->in_string) {
            scan->in_string = scan->escaped || c != '"';
            scan->escaped = !scan->escaped && c == '\\';
        } else if (c == '"') {
            scan->in_string = true;
        } else if (c == '{' || c == '[') {
            scan->depth++;
        } else if (c == '}' || c == ']') {
            scan->closed = --scan->depth <= 0;
        } else if (c == ',') {
            scan->closed = scan->depth == 0;
        }
    }
}

espl_status espl__json_element(espl_stretch *stretch, size_t *size, bool *found, bool *closed) {
    bool closing, ended, more = true;
    element_scan scan = {0};
    ESPL_TRY(skip_between(stretch, &closing, &ended));
    while (!closing && !ended && more && !scan.closed) {
        scan_bytes(&scan, stretch->data + stretch->at, stretch->end - stretch->at);
        if (!scan.closed)
            ESPL_TRY(espl__stretch_more(stretch, &more));
    }
    bool delimiter = scan.closed && scan.at > 1 && (scan.depth < 0 || stretch->data[stretch->at + scan.at - 1] == ',');
    *size = scan.at - delimiter; /* the comma or the array's own bracket is not the element's; a stray bracket is an element, a bad one */
    *found = !closing;
    *closed = scan.closed;
    return ESPL_OK;
}

espl_status espl__json_is_array(espl_stretch *stretch, bool *array) {
    bool more = true;
    while (more) {
        size_t n = 0, held = stretch->end - stretch->at;
        while (n < held && isspace((unsigned char)stretch->data[stretch->at + n]))
            n++;
        *array = n < held && stretch->data[stretch->at + n] == '[';
        if (n < held)
            return ESPL_OK;
        ESPL_TRY(espl__stretch_more(stretch, &more));
    }
    return ESPL_OK;
}
