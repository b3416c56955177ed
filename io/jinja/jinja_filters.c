/* Filters, and what binds arguments. */
#include "io/jinja/jinja_calls.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

/* ---- Calling. */

const espl__jinja_function *espl__jinja_lookup(const espl__jinja_function *functions, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(functions[i].name, name) == 0)
            return &functions[i];
    return NULL;
}

espl_status espl__jinja_unknown(const run *r, const node *at, const char *what, const char *name, const espl__jinja_function *functions,
                                size_t n) {
    espl_buffer names = {0};
    for (size_t i = 0; i < n; i++)
        espl_buffer_printf(&names, "%s%s", i > 0 ? ", " : "", functions[i].name);
    espl_status status = espl__jinja_fail(r, at, "%s '%s' is not known, expected one of %s", what, name, names.data);
    espl_buffer_free(&names);
    return status;
}

static int parameter_of(const espl__jinja_function *function, const char *name) {
    for (int i = 0; i < ESPL__JINJA_PARAMETERS && function->parameters[i] != NULL; i++)
        if (strcmp(function->parameters[i], name) == 0)
            return i;
    return -1;
}

espl_status espl__jinja_bind(const run *r, const node *at, const espl__jinja_function *function, const espl__jinja_arguments *arguments,
                             value bound[ESPL__JINJA_PARAMETERS]) {
    int most = 0, by_place = arguments->n - arguments->n_names, given = 0;
    while (most < ESPL__JINJA_PARAMETERS && function->parameters[most] != NULL)
        most++;
    if (by_place > most)
        return espl__jinja_fail(r, at, "'%s' takes at most %d arguments, not %d", function->name, most, by_place);
    for (int i = 0; i < ESPL__JINJA_PARAMETERS; i++)
        bound[i] = i < by_place ? arguments->at[i] : espl__jinja_undefined("");
    for (int i = 0; i < arguments->n_names; i++) {
        int place = parameter_of(function, arguments->names[i]);
        if (place < by_place)
            return espl__jinja_fail(r, at, "'%s' takes no '%s' here", function->name, arguments->names[i]);
        bound[place] = arguments->at[by_place + i];
        given += place < function->needed;
    }
    if (by_place + given < function->needed)
        return espl__jinja_fail(r, at, "'%s' needs %d arguments", function->name, function->needed);
    return ESPL_OK;
}

espl_status espl__jinja_need_text(const run *r, const node *at, const value *of, const char **text, size_t *size) {
    *text = "";
    *size = 0;
    if (of->type == ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, at, "'%s' is not defined, expected a text", of->name);
    if (!espl__jinja_is_text(of))
        return espl__jinja_fail(r, at, "%s, expected a text", espl__jinja_type_name(of));
    *text = json_string_value(of->json);
    *size = json_string_length(of->json);
    return ESPL_OK;
}

espl_status espl__jinja_need_integer(const run *r, const node *at, const value *of, int64_t fallback, int64_t *number) {
    *number = fallback;
    if (of->type == ESPL__JINJA_UNDEFINED || (of->type == ESPL__JINJA_JSON && json_is_null(of->json)))
        return ESPL_OK;
    if (of->type != ESPL__JINJA_JSON || !(json_is_integer(of->json) || json_is_boolean(of->json)))
        return espl__jinja_fail(r, at, "%s, expected a whole number", espl__jinja_type_name(of));
    *number = json_is_integer(of->json) ? json_integer_value(of->json) : json_is_true(of->json);
    return ESPL_OK;
}

/* A value as text: Jinja's filters take any. */
static espl_status soften(run *r, const node *at, const value *of, value *text) {
    espl_buffer written = {0};
    *text = *of;
    if (espl__jinja_is_text(of))
        return ESPL_OK;
    espl_status status = espl__jinja_write(r, at, of, &written);
    if (status == ESPL_OK)
        status = espl__jinja_string(r, at, written.data, written.size, text);
    espl_buffer_free(&written);
    return status;
}

/* ---- Of texts. */

espl_status espl__jinja_strip_value(run *r, const node *at, const value *of, const value *characters, bool left, bool right, value *out) {
    const char *text, *strip = NULL;
    size_t size, n_strip = 0;
    ESPL_TRY(espl__jinja_need_text(r, at, of, &text, &size));
    if (characters->type == ESPL__JINJA_JSON && !json_is_null(characters->json))
        ESPL_TRY(espl__jinja_need_text(r, at, characters, &strip, &n_strip));
    ESPL_TRY(espl__jinja_spend(r, at, n_strip * (size / 16))); /* each character may be compared with each */
    espl__jinja_strip(&text, &size, strip, n_strip, left, right);
    return espl__jinja_string(r, at, text, size, out);
}

ESPL__JINJA_CALL(espl__jinja_trim) {
    value text;
    ESPL_TRY(soften(r, at, of, &text));
    return espl__jinja_strip_value(r, at, &text, &a[0], true, true, out);
}

static espl_status change_case(run *r, const node *at, const value *of, bool first, bool rest, value *out) {
    value soft;
    espl_buffer text = {0};
    ESPL_TRY(soften(r, at, of, &soft));
    const char *from = json_string_value(soft.json);
    size_t size = json_string_length(soft.json), n = size > 0;
    while (n > 0 && n < size && ((unsigned char)from[n] & 0xC0) == 0x80)
        n++;
    espl__jinja_case(from, n, first, &text);
    espl__jinja_case(from + n, size - n, rest, &text);
    espl_status status = espl__jinja_string(r, at, text.data, text.size, out);
    espl_buffer_free(&text);
    return status;
}

ESPL__JINJA_CALL(espl__jinja_upper) { return (void)a, change_case(r, at, of, true, true, out); }
ESPL__JINJA_CALL(espl__jinja_lower) { return (void)a, change_case(r, at, of, false, false, out); }
ESPL__JINJA_CALL(espl__jinja_capitalize) { return (void)a, change_case(r, at, of, true, false, out); }

/* Each word's first letter; words begin behind blanks, hyphens and opening brackets. */
static ESPL__JINJA_CALL(filter_title) {
    value lower = {0};
    (void)a;
    ESPL_TRY(change_case(r, at, of, false, false, &lower));
    espl_buffer text = {0};
    const char *from = json_string_value(lower.json);
    size_t size = json_string_length(lower.json);
    bool begins = true;
    for (size_t i = 0, n; i < size; i += n) {
        for (n = 1; i + n < size && ((unsigned char)from[i + n] & 0xC0) == 0x80;)
            n++;
        espl__jinja_case(from + i, n, begins, &text);
        begins = espl__jinja_space(from + i, n) > 0 || strchr("-({[<", from[i]) != NULL;
    }
    espl_status status = espl__jinja_string(r, at, text.data, text.size, out);
    espl_buffer_free(&text);
    return status;
}

ESPL__JINJA_CALL(espl__jinja_replace) {
    const char *old, *new, *text;
    size_t n_old, n_new, size;
    int64_t count;
    value soft;
    ESPL_TRY(soften(r, at, of, &soft));
    ESPL_TRY(espl__jinja_need_text(r, at, &soft, &text, &size));
    ESPL_TRY(espl__jinja_need_text(r, at, &a[0], &old, &n_old));
    ESPL_TRY(espl__jinja_need_text(r, at, &a[1], &new, &n_new));
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[2], -1, &count));
    if (n_old == 0)
        return espl__jinja_fail(r, at, "replacing an empty text is not supported");
    espl_buffer made = {0};
    const char *end = text + size, *found;
    espl_status status = ESPL_OK;
    for (; count != 0 && (found = memmem(text, (size_t)(end - text), old, n_old)) != NULL; count--, text = found + n_old) {
        ESPL_TRY_DONE(espl__jinja_spend(r, at, n_new));
        espl_buffer_append(&made, text, (size_t)(found - text));
        espl_buffer_append(&made, new, n_new);
    }
    espl_buffer_append(&made, text, (size_t)(end - text));
    status = espl__jinja_string(r, at, made.data, made.size, out);
done:
    espl_buffer_free(&made);
    return status;
}

/* indent(width, first, blank): spaces before each line but the first, and but for empty ones. */
static ESPL__JINJA_CALL(filter_indent) {
    int64_t width;
    value soft;
    espl_buffer made = {0};
    espl_status status = ESPL_OK;
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[0], 4, &width));
    ESPL_TRY(soften(r, at, of, &soft));
    if (width < 0 || width > 1000)
        return espl__jinja_fail(r, at, "indent by %lld, expected 0 to 1000", (long long)width);
    const char *line = json_string_value(soft.json), *end = line + json_string_length(soft.json);
    for (bool first = true; line <= end; first = false) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const char *stop = newline != NULL ? newline : end;
        bool spaces = first ? espl__jinja_truth(&a[1]) : stop > line || espl__jinja_truth(&a[2]);
        ESPL_TRY_DONE(espl__jinja_spend(r, at, (size_t)width));
        espl_buffer_printf(&made, "%*s", spaces ? (int)width : 0, "");
        espl_buffer_append(&made, line, (size_t)(stop - line) + (newline != NULL));
        line = stop + 1;
    }
    status = espl__jinja_string(r, at, made.data, made.size, out);
done:
    espl_buffer_free(&made);
    return status;
}

static ESPL__JINJA_CALL(filter_string) { return (void)a, soften(r, at, of, out); }

static ESPL__JINJA_CALL(filter_tojson) {
    int64_t indent;
    espl_buffer made = {0};
    if (of->type != ESPL__JINJA_JSON)
        return espl__jinja_fail(r, at, "%s has no JSON", espl__jinja_type_name(of));
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[1], -1, &indent));
    if (a[2].type == ESPL__JINJA_JSON && !json_is_null(a[2].json))
        return espl__jinja_fail(r, at, "'tojson' with separators is not supported");
    if (indent > 100)
        return espl__jinja_fail(r, at, "indent by %lld, expected at most 100", (long long)indent);
    espl_status status = espl__jinja_dump(r, at, of->json, (int)indent, espl__jinja_truth(&a[0]), espl__jinja_truth(&a[3]), &made);
    if (status == ESPL_OK)
        status = espl__jinja_string(r, at, made.data, made.size, out);
    espl_buffer_free(&made);
    return status;
}

/* ---- Of numbers. */

static double number_of(const value *of, double fallback) {
    char *end;
    if (of->type != ESPL__JINJA_JSON)
        return fallback;
    if (!json_is_string(of->json))
        return json_is_boolean(of->json) ? json_is_true(of->json) : json_is_number(of->json) ? json_number_value(of->json) : fallback;
    double number = strtod(json_string_value(of->json), &end);
    return end != json_string_value(of->json) && *end == '\0' && isfinite(number) ? number : fallback;
}

static ESPL__JINJA_CALL(filter_int) {
    int64_t fallback;
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[0], 0, &fallback));
    if (of->type == ESPL__JINJA_JSON && json_is_integer(of->json)) {
        *out = *of;
        return ESPL_OK;
    }
    double number = number_of(of, (double)fallback);
    if (!(fabs(number) < 9e15))
        return espl__jinja_fail(r, at, "a number that is too large");
    *out = espl__jinja_keep(r, json_integer((json_int_t)number));
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_float) {
    (void)at;
    *out = espl__jinja_keep(r, json_real(number_of(of, number_of(&a[0], 0))));
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_abs) {
    (void)a;
    if (of->type != ESPL__JINJA_JSON || !json_is_number(of->json))
        return espl__jinja_fail(r, at, "%s, expected a number", espl__jinja_type_name(of));
    json_int_t whole = json_is_integer(of->json) ? json_integer_value(of->json) : 0;
    if (whole == INT64_MIN)
        return espl__jinja_fail(r, at, "a number that is too large");
    *out = espl__jinja_keep(r, json_is_integer(of->json) ? json_integer(whole < 0 ? -whole : whole)
                                                         : json_real(fabs(json_real_value(of->json))));
    return ESPL_OK;
}

/* ---- Of lists and mappings. */

static ESPL__JINJA_CALL(filter_length) {
    json_t *elements;
    (void)a;
    size_t n = 0;
    if (of->type == ESPL__JINJA_JSON && json_is_object(of->json)) {
        n = json_object_size(of->json);
    } else if (espl__jinja_is_text(of)) {
        const char *text = json_string_value(of->json);
        for (size_t i = 0; i < json_string_length(of->json); i++)
            n += ((unsigned char)text[i] & 0xC0) != 0x80;
        ESPL_TRY(espl__jinja_spend(r, at, n / 8));
    } else {
        ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
        n = json_array_size(elements);
    }
    *out = espl__jinja_keep(r, json_integer((json_int_t)n));
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_default) {
    (void)at;
    bool absent = of->type == ESPL__JINJA_UNDEFINED || (espl__jinja_truth(&a[1]) && !espl__jinja_truth(of));
    *out = !absent ? *of : a[0].type == ESPL__JINJA_UNDEFINED ? espl__jinja_keep(r, json_string("")) : a[0];
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_first) {
    json_t *elements;
    (void)a;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    *out = json_array_size(elements) > 0 ? espl__jinja_borrow(json_array_get(elements, 0)) : espl__jinja_undefined("the first of none");
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_last) {
    json_t *elements;
    (void)a;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    size_t n = json_array_size(elements);
    *out = n > 0 ? espl__jinja_borrow(json_array_get(elements, n - 1)) : espl__jinja_undefined("the last of none");
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_list) {
    json_t *elements;
    (void)a;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    *out = espl__jinja_borrow(elements);
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_reverse) {
    const value back[3] = {espl__jinja_undefined(""), espl__jinja_undefined(""), espl__jinja_keep(r, json_integer(-1))};
    (void)a;
    return espl__jinja_slice(r, at, of, back, out);
}

ESPL__JINJA_CALL(espl__jinja_items) {
    const char *key;
    json_t *item, *made = json_array();
    (void)a;
    *out = espl__jinja_keep(r, made);
    if (of->type == ESPL__JINJA_UNDEFINED)
        return ESPL_OK;
    if (of->type != ESPL__JINJA_JSON || !json_is_object(of->json))
        return espl__jinja_fail(r, at, "items of %s, expected a mapping", espl__jinja_type_name(of));
    ESPL_TRY(espl__jinja_spend(r, at, 80 * json_object_size(of->json)));
    json_object_foreach(of->json, key, item) { json_array_append_new(made, json_pack("[sO]", key, item)); }
    return ESPL_OK;
}

/* Smaller ones first, texts without regard to case: a stable sort. */
static espl_status sort_list(run *r, const node *at, json_t *list, bool pairs) {
    size_t n = json_array_size(list);
    ESPL_TRY(espl__jinja_spend(r, at, n * n));
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0; k--) {
            json_t *a = json_array_get(list, k - 1), *b = json_array_get(list, k);
            const json_t *x = pairs ? json_array_get(a, 0) : a, *y = pairs ? json_array_get(b, 0) : b;
            int order;
            if (json_is_string(x) && json_is_string(y)) {
                order = strcasecmp(json_string_value(x), json_string_value(y));
            } else {
                ESPL_TRY(espl__jinja_order(r, at, x, y, &order));
            }
            if (order <= 0)
                break;
            json_incref(a);
            json_array_set(list, k - 1, b);
            json_array_set_new(list, k, a);
        }
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_dictsort) {
    ESPL_TRY(espl__jinja_items(r, at, of, a, out));
    return sort_list(r, at, out->json, true);
}

static ESPL__JINJA_CALL(filter_sort) {
    json_t *elements, *made = json_array();
    *out = espl__jinja_keep(r, made);
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    json_array_extend(made, elements);
    ESPL_TRY(sort_list(r, at, made, false));
    return espl__jinja_truth(&a[0]) ? filter_reverse(r, at, &(value){.type = ESPL__JINJA_JSON, .json = made}, a, out) : ESPL_OK;
}

static ESPL__JINJA_CALL(filter_unique) {
    json_t *elements, *made = json_array();
    (void)a;
    *out = espl__jinja_keep(r, made);
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    for (size_t i = 0; i < json_array_size(elements); i++) {
        value item = espl__jinja_borrow(json_array_get(elements, i));
        bool found;
        ESPL_TRY(espl__jinja_contains(r, at, &item, out, &found));
        if (!found)
            json_array_append(made, item.json);
    }
    return ESPL_OK;
}

/* An element's attribute, "a.b" reaching deeper. */
static espl_status reach(run *r, const node *at, const value *of, const char *path, value *out) {
    char name[128];
    *out = *of;
    for (const char *dot; path != NULL; path = dot != NULL ? dot + 1 : NULL) {
        dot = strchr(path, '.');
        size_t n = dot != NULL ? (size_t)(dot - path) : strlen(path);
        if (n >= sizeof name)
            return espl__jinja_fail(r, at, "an attribute's name that is too long");
        memcpy(name, path, n);
        name[n] = '\0';
        value key = espl__jinja_keep(r, json_string(name));
        ESPL_TRY(espl__jinja_item(r, at, out, &key, out));
    }
    return ESPL_OK;
}

static ESPL__JINJA_CALL(filter_join) {
    json_t *elements;
    espl_buffer text = {0};
    espl_status status = ESPL_OK;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    for (size_t i = 0; i < json_array_size(elements); i++) {
        value item = espl__jinja_borrow(json_array_get(elements, i));
        if (i > 0)
            ESPL_TRY_DONE(espl__jinja_write(r, at, &a[0], &text));
        if (espl__jinja_is_text(&a[1]))
            ESPL_TRY_DONE(reach(r, at, &item, json_string_value(a[1].json), &item));
        ESPL_TRY_DONE(espl__jinja_write(r, at, &item, &text));
    }
    status = espl__jinja_string(r, at, text.data, text.size, out);
done:
    espl_buffer_free(&text);
    return status;
}

static const espl__jinja_function filters[] = {
    {"trim", {"chars"}, 0, espl__jinja_trim},
    {"upper", {NULL}, 0, espl__jinja_upper},
    {"lower", {NULL}, 0, espl__jinja_lower},
    {"capitalize", {NULL}, 0, espl__jinja_capitalize},
    {"title", {NULL}, 0, filter_title},
    {"replace", {"old", "new", "count"}, 2, espl__jinja_replace},
    {"indent", {"width", "first", "blank"}, 0, filter_indent},
    {"string", {NULL}, 0, filter_string},
    {"safe", {NULL}, 0, filter_string},
    {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, filter_tojson},
    {"int", {"default"}, 0, filter_int},
    {"float", {"default"}, 0, filter_float},
    {"abs", {NULL}, 0, filter_abs},
    {"length", {NULL}, 0, filter_length},
    {"count", {NULL}, 0, filter_length},
    {"default", {"default_value", "boolean"}, 0, filter_default},
    {"d", {"default_value", "boolean"}, 0, filter_default},
    {"first", {NULL}, 0, filter_first},
    {"last", {NULL}, 0, filter_last},
    {"list", {NULL}, 0, filter_list},
    {"reverse", {NULL}, 0, filter_reverse},
    {"items", {NULL}, 0, espl__jinja_items},
    {"dictsort", {NULL}, 0, filter_dictsort},
    {"sort", {"reverse"}, 0, filter_sort},
    {"unique", {NULL}, 0, filter_unique},
    {"join", {"d", "attribute"}, 0, filter_join},
    {"map", {NULL}, 0, NULL},
    {"select", {NULL}, 0, NULL},
    {"reject", {NULL}, 0, NULL},
    {"selectattr", {NULL}, 0, NULL},
    {"rejectattr", {NULL}, 0, NULL},
};
enum { FILTERS = sizeof filters / sizeof filters[0] };

/* ---- Filters that apply others to each element. */

static espl_status map_one(run *r, const node *at, const value *item, const espl__jinja_arguments *arguments, value *out) {
    const value *first = &arguments->at[0];
    if (!espl__jinja_is_text(first))
        return espl__jinja_fail(r, at, "'map' by %s, expected a filter's name or attribute=", espl__jinja_type_name(first));
    if (arguments->n_names == 0) {
        const espl__jinja_arguments rest = {.at = arguments->at + 1, .n = arguments->n - 1};
        return espl__jinja_filter(r, at, json_string_value(first->json), item, &rest, out);
    }
    ESPL_TRY(reach(r, at, item, json_string_value(first->json), out));
    if (out->type == ESPL__JINJA_UNDEFINED && arguments->n > 1)
        *out = arguments->at[1];
    return ESPL_OK;
}

static espl_status map_all(run *r, const node *at, const json_t *elements, const espl__jinja_arguments *arguments, json_t *made) {
    bool named = arguments->n_names > 0;
    bool known = named && arguments->n == arguments->n_names && strcmp(arguments->names[0], "attribute") == 0 &&
                 (arguments->n_names == 1 || (arguments->n_names == 2 && strcmp(arguments->names[1], "default") == 0));
    if (arguments->n == 0 || (named && !known))
        return espl__jinja_fail(r, at, "'map' needs a filter's name, or attribute= and default=");
    for (size_t i = 0; i < json_array_size(elements); i++) {
        value item = espl__jinja_borrow(json_array_get(elements, i)), mapped = {0};
        ESPL_TRY(espl__jinja_step(r, at));
        r->depth++;
        espl_status status = map_one(r, at, &item, arguments, &mapped);
        r->depth--;
        ESPL_TRY(status);
        if (mapped.type != ESPL__JINJA_JSON)
            return espl__jinja_fail(r, at, "'map' gives %s", espl__jinja_type_name(&mapped));
        json_array_append(made, mapped.json);
    }
    return ESPL_OK;
}

/* select, reject: (test, arguments); selectattr, rejectattr: (attribute, test, arguments). */
static espl_status choose(run *r, const node *at, const char *name, const json_t *elements, const espl__jinja_arguments *arguments,
                          json_t *made) {
    bool by_attribute = strstr(name, "attr") != NULL, wanted = name[0] == 's', truth;
    if (arguments->n_names > 0 || (by_attribute && arguments->n == 0))
        return espl__jinja_fail(r, at, "'%s' needs %s, and takes nothing by name", name, by_attribute ? "an attribute" : "a test");
    for (int i = 0; i < arguments->n && i < 1 + by_attribute; i++)
        if (!espl__jinja_is_text(&arguments->at[i]))
            return espl__jinja_fail(r, at, "'%s' by %s, expected a name", name, espl__jinja_type_name(&arguments->at[i]));
    const espl__jinja_arguments test = {.at = arguments->at + by_attribute, .n = arguments->n - by_attribute};
    const espl__jinja_arguments rest = {.at = test.at + 1, .n = test.n - 1};
    for (size_t i = 0; i < json_array_size(elements); i++) {
        value item = espl__jinja_borrow(json_array_get(elements, i)), judged = item;
        ESPL_TRY(espl__jinja_step(r, at));
        if (by_attribute)
            ESPL_TRY(reach(r, at, &item, json_string_value(arguments->at[0].json), &judged));
        truth = espl__jinja_truth(&judged);
        if (test.n > 0)
            ESPL_TRY(espl__jinja_test(r, at, json_string_value(test.at[0].json), &judged, &rest, &truth));
        if (truth == wanted)
            json_array_append(made, item.json);
    }
    return ESPL_OK;
}

static espl_status apply_to_each(run *r, const node *at, const char *name, const value *of, const espl__jinja_arguments *arguments,
                                 value *out) {
    json_t *elements, *made = json_array();
    *out = espl__jinja_keep(r, made);
    if (!espl__jinja_truth(of))
        return ESPL_OK;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    ESPL_TRY(espl__jinja_spend(r, at, sizeof(json_t *) * json_array_size(elements)));
    return name[0] == 'm' ? map_all(r, at, elements, arguments, made) : choose(r, at, name, elements, arguments, made);
}

espl_status espl__jinja_filter(run *r, const node *at, const char *name, const value *of, const espl__jinja_arguments *arguments,
                               value *out) {
    const espl__jinja_function *filter = espl__jinja_lookup(filters, FILTERS, name);
    value bound[ESPL__JINJA_PARAMETERS];
    if (filter == NULL)
        return espl__jinja_unknown(r, at, "filter", name, filters, FILTERS);
    if (filter->call == NULL)
        return apply_to_each(r, at, name, of, arguments, out);
    ESPL_TRY(espl__jinja_bind(r, at, filter, arguments, bound));
    return filter->call(r, at, of, bound, out);
}
