#include "io/readers_internal.h"

#include <ctype.h>
#include <jansson.h>
#include <string.h>

static const char *type_name(const json_t *value) {
    static const char *const names[] = {
        [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",      [JSON_FALSE] = "false",     [JSON_NULL] = "null"};
    return names[json_typeof(value)];
}

static bool take_text(const json_t *root, const char *text_field, espl_buffer *text) {
    bool named = text_field[0] != '\0';
    if (!json_is_object(root)) {
        espl_buffer_printf(text, "is %s, expected an object like {\"%s\": \"...\"}", type_name(root), named ? text_field : "text");
        return false;
    }
    const json_t *value = json_object_get(root, named ? text_field : "text");
    if (value == NULL && !named)
        value = json_object_get(root, "input");
    if (value == NULL) {
        espl_buffer_printf(text, "key '%s'%s missing, expected an object like {\"%s\": \"...\"}; data.text_field names another key",
                           named ? text_field : "text", named ? "" : " (or 'input')", named ? text_field : "text");
        return false;
    }
    if (!json_is_string(value)) {
        espl_buffer_printf(text, "key '%s' holds %s, expected a string", named ? text_field : "text", type_name(value));
        return false;
    }
    espl_buffer_append(text, json_string_value(value), json_string_length(value));
    return true;
}

bool espl__json_text(const char *record, size_t size, const char *text_field, espl_buffer *text) {
    json_error_t error;
    text->size = 0;
    json_t *root = json_loadb(record, size, JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    if (root == NULL) {
        espl_buffer_printf(text, "is not JSON: %s at byte %d of the record, expected one object a line", error.text, error.position);
        return false;
    }
    bool good = take_text(root, text_field, text);
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
