/* Methods of texts and mappings, as Python's, and the functions that templates find. */
#include "io/jinja/jinja_calls.h"

#include <string.h>
#include <time.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

/* ---- Texts. */

static ESPL__JINJA_CALL(text_strip) { return espl__jinja_strip_value(r, at, of, &a[0], true, true, out); }
static ESPL__JINJA_CALL(text_lstrip) { return espl__jinja_strip_value(r, at, of, &a[0], true, false, out); }
static ESPL__JINJA_CALL(text_rstrip) { return espl__jinja_strip_value(r, at, of, &a[0], false, true, out); }

/* Whether a text begins or ends with one of the given. */
static espl_status has_end(run *r, const node *at, const value *of, const value *ends, bool begins, value *out) {
    const char *text = json_string_value(of->json), *end;
    size_t size = json_string_length(of->json), n;
    bool list = ends->type == ESPL__JINJA_JSON && json_is_array(ends->json), found = false;
    for (size_t i = 0; i < (list ? json_array_size(ends->json) : 1) && !found; i++) {
        value one = list ? espl__jinja_borrow(json_array_get(ends->json, i)) : *ends;
        ESPL_TRY(espl__jinja_need_text(r, at, &one, &end, &n));
        found = n <= size && memcmp(begins ? text : text + size - n, end, n) == 0;
    }
    *out = espl__jinja_bool(found);
    return ESPL_OK;
}

static ESPL__JINJA_CALL(text_startswith) { return has_end(r, at, of, &a[0], true, out); }
static ESPL__JINJA_CALL(text_endswith) { return has_end(r, at, of, &a[0], false, out); }

static espl_status remove_end(run *r, const node *at, const value *of, const value *end, bool begin, value *out) {
    value found;
    ESPL_TRY(has_end(r, at, of, end, begin, &found));
    size_t n = espl__jinja_truth(&found) && espl__jinja_is_text(end) ? json_string_length(end->json) : 0;
    return espl__jinja_string(r, at, json_string_value(of->json) + (begin ? n : 0), json_string_length(of->json) - n, out);
}

static ESPL__JINJA_CALL(text_removeprefix) { return remove_end(r, at, of, &a[0], true, out); }
static ESPL__JINJA_CALL(text_removesuffix) { return remove_end(r, at, of, &a[0], false, out); }

static espl_status add_part(run *r, const node *at, json_t *list, const char *text, size_t size) {
    value part;
    ESPL_TRY(espl__jinja_string(r, at, text, size, &part));
    json_array_append(list, part.json);
    return ESPL_OK;
}

/* By white space: stretches of what is none. */
static espl_status split_blank(run *r, const node *at, const char *text, size_t size, int64_t most, json_t *list) {
    for (;;) {
        espl__jinja_strip(&text, &size, NULL, 0, true, false);
        if (size == 0)
            return ESPL_OK;
        size_t n = 0;
        while (n < size && espl__jinja_space(text + n, size - n) == 0)
            n++;
        if (most-- == 0) {
            espl__jinja_strip(&text, &size, NULL, 0, false, true);
            n = size;
        }
        ESPL_TRY(add_part(r, at, list, text, n));
        text += n;
        size -= n;
    }
}

static ESPL__JINJA_CALL(text_split) {
    const char *text = json_string_value(of->json), *by, *found;
    size_t size = json_string_length(of->json), n;
    int64_t most;
    json_t *list = json_array();
    *out = espl__jinja_keep(r, list);
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[1], -1, &most));
    if (a[0].type == ESPL__JINJA_UNDEFINED || (a[0].type == ESPL__JINJA_JSON && json_is_null(a[0].json)))
        return split_blank(r, at, text, size, most, list);
    ESPL_TRY(espl__jinja_need_text(r, at, &a[0], &by, &n));
    if (n == 0)
        return espl__jinja_fail(r, at, "split by an empty text");
    for (; most != 0 && (found = memmem(text, size, by, n)) != NULL; most--) {
        ESPL_TRY(add_part(r, at, list, text, (size_t)(found - text)));
        size -= (size_t)(found - text) + n;
        text = found + n;
    }
    return add_part(r, at, list, text, size);
}

static ESPL__JINJA_CALL(text_splitlines) {
    const char *text = json_string_value(of->json);
    size_t size = json_string_length(of->json);
    json_t *list = json_array();
    (void)a;
    *out = espl__jinja_keep(r, list);
    while (size > 0) {
        size_t n = 0;
        while (n < size && text[n] != '\n' && text[n] != '\r')
            n++;
        ESPL_TRY(add_part(r, at, list, text, n));
        n += n + 1 < size && text[n] == '\r' && text[n + 1] == '\n';
        n += n < size;
        text += n;
        size -= n;
    }
    return ESPL_OK;
}

static ESPL__JINJA_CALL(text_join) {
    const espl__jinja_arguments by = {.at = (value[]){*of}, .n = 1};
    return espl__jinja_filter(r, at, "join", &a[0], &by, out);
}

/* Characters before the first place of a text, -1: it is not there. */
static ESPL__JINJA_CALL(text_find) {
    const char *text = json_string_value(of->json), *what;
    size_t n;
    json_int_t before = 0;
    ESPL_TRY(espl__jinja_need_text(r, at, &a[0], &what, &n));
    const char *found = memmem(text, json_string_length(of->json), what, n);
    for (const char *c = text; found != NULL && c < found; c++)
        before += ((unsigned char)*c & 0xC0) != 0x80;
    *out = espl__jinja_keep(r, json_integer(found != NULL ? before : -1));
    return ESPL_OK;
}

static ESPL__JINJA_CALL(text_count) {
    const char *text = json_string_value(of->json), *end = text + json_string_length(of->json), *what, *found;
    size_t n;
    json_int_t count = 0;
    ESPL_TRY(espl__jinja_need_text(r, at, &a[0], &what, &n));
    if (n == 0)
        return espl__jinja_fail(r, at, "count of an empty text");
    for (; (found = memmem(text, (size_t)(end - text), what, n)) != NULL; text = found + n)
        count++;
    *out = espl__jinja_keep(r, json_integer(count));
    return ESPL_OK;
}

static const espl__jinja_function of_texts[] = {
    {"strip", {"chars"}, 0, text_strip},
    {"lstrip", {"chars"}, 0, text_lstrip},
    {"rstrip", {"chars"}, 0, text_rstrip},
    {"startswith", {"prefix"}, 1, text_startswith},
    {"endswith", {"suffix"}, 1, text_endswith},
    {"removeprefix", {"prefix"}, 1, text_removeprefix},
    {"removesuffix", {"suffix"}, 1, text_removesuffix},
    {"split", {"sep", "maxsplit"}, 0, text_split},
    {"splitlines", {NULL}, 0, text_splitlines},
    {"join", {"iterable"}, 1, text_join},
    {"replace", {"old", "new", "count"}, 2, espl__jinja_replace},
    {"find", {"sub"}, 1, text_find},
    {"count", {"sub"}, 1, text_count},
    {"upper", {NULL}, 0, espl__jinja_upper},
    {"lower", {NULL}, 0, espl__jinja_lower},
    {"capitalize", {NULL}, 0, espl__jinja_capitalize},
};

/* ---- Mappings. */

static ESPL__JINJA_CALL(mapping_keys) {
    json_t *elements;
    (void)a;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    *out = espl__jinja_borrow(elements);
    return ESPL_OK;
}

static ESPL__JINJA_CALL(mapping_values) {
    const char *key;
    json_t *item, *made = json_array();
    (void)a;
    *out = espl__jinja_keep(r, made);
    ESPL_TRY(espl__jinja_spend(r, at, sizeof(json_t *) * json_object_size(of->json)));
    json_object_foreach(of->json, key, item) { json_array_append(made, item); }
    return ESPL_OK;
}

static ESPL__JINJA_CALL(mapping_get) {
    const char *key;
    size_t n;
    ESPL_TRY(espl__jinja_need_text(r, at, &a[0], &key, &n));
    const json_t *found = json_object_get(of->json, key);
    *out = found != NULL ? espl__jinja_borrow(found) : a[1].type == ESPL__JINJA_UNDEFINED ? espl__jinja_borrow(json_null()) : a[1];
    return ESPL_OK;
}

static const espl__jinja_function of_mappings[] = {
    {"items", {NULL}, 0, espl__jinja_items},
    {"keys", {NULL}, 0, mapping_keys},
    {"values", {NULL}, 0, mapping_values},
    {"get", {"key", "default"}, 1, mapping_get},
};

bool espl__jinja_is_mapping_method(const char *name) {
    static const char *const others[] = {"clear", "copy", "fromkeys", "pop", "popitem", "setdefault", "update"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (strcmp(name, others[i]) == 0)
            return true;
    return espl__jinja_lookup(of_mappings, sizeof of_mappings / sizeof of_mappings[0], name) != NULL;
}

espl_status espl__jinja_method(run *r, const node *at, const char *name, const value *of, const espl__jinja_arguments *arguments,
                               value *out) {
    value bound[ESPL__JINJA_PARAMETERS];
    bool text = espl__jinja_is_text(of), mapping = of->type == ESPL__JINJA_JSON && json_is_object(of->json);
    if (of->type == ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, at, "'%s' is not defined, so it has no method '%s'", of->name, name);
    if (!text && !mapping)
        return espl__jinja_fail(r, at, "%s has no method '%s' here, only texts and mappings have some", espl__jinja_type_name(of), name);
    const espl__jinja_function *table = text ? of_texts : of_mappings;
    size_t n = text ? sizeof of_texts / sizeof of_texts[0] : sizeof of_mappings / sizeof of_mappings[0];
    const espl__jinja_function *method = espl__jinja_lookup(table, n, name);
    if (method == NULL)
        return espl__jinja_unknown(r, at, text ? "a text's method" : "a mapping's method", name, table, n);
    ESPL_TRY(espl__jinja_bind(r, at, method, arguments, bound));
    return method->call(r, at, of, bound, out);
}

/* ---- Functions. */

static ESPL__JINJA_CALL(call_raise) {
    espl_buffer text = {0};
    (void)of;
    (void)out;
    espl_status status = espl__jinja_write(r, at, &a[0], &text);
    if (status == ESPL_OK)
        status = espl__jinja_fail(r, at, "the template refuses the conversation: %s", text.data != NULL ? text.data : "");
    espl_buffer_free(&text);
    return status;
}

static ESPL__JINJA_CALL(call_range) {
    int64_t begin, end, step;
    json_t *list = json_array();
    (void)of;
    *out = espl__jinja_keep(r, list);
    bool two = a[1].type != ESPL__JINJA_UNDEFINED;
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[0], 0, two ? &begin : &end));
    if (two)
        ESPL_TRY(espl__jinja_need_integer(r, at, &a[1], 0, &end));
    else
        begin = 0;
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[2], 1, &step));
    if (step == 0 || begin < -1000000 || end > 1000000 || begin > 1000000 || end < -1000000 || step > 1000000 || step < -1000000)
        return espl__jinja_fail(r, at, "range(%lld, %lld, %lld), expected numbers within a million and a step", (long long)begin,
                                (long long)end, (long long)step);
    for (int64_t i = begin; step > 0 ? i < end : i > end; i += step) {
        ESPL_TRY(espl__jinja_spend(r, at, 40));
        json_array_append_new(list, json_integer(i));
    }
    return ESPL_OK;
}

static ESPL__JINJA_CALL(call_strftime) {
    const char *format;
    size_t n;
    char text[256];
    struct tm date = {0};
    (void)of;
    ESPL_TRY(espl__jinja_need_text(r, at, &a[0], &format, &n));
    if (r->date[0] == '\0')
        return espl__jinja_fail(r, at, "the template asks for today's date, which would make each day other data; data.chat_date sets one");
    const char *end = strptime(r->date, "%Y-%m-%d", &date);
    if (end == NULL || *end != '\0')
        return espl__jinja_fail(r, at, "data.chat_date: '%s', expected a date like 2026-01-31", r->date);
    size_t written = n > 0 ? strftime(text, sizeof text, format, &date) : 0;
    if (written == 0 && n > 0)
        return espl__jinja_fail(r, at, "'%.40s' makes no date of fewer than 256 bytes", format);
    return espl__jinja_string(r, at, text, written, out);
}

static const espl__jinja_function builtins[] = {
    {"raise_exception", {"message"}, 1, call_raise},
    {"range", {"start", "stop", "step"}, 1, call_range},
    {"strftime_now", {"format"}, 1, call_strftime},
    {"namespace", {NULL}, 0, NULL},
    {"dict", {NULL}, 0, NULL},
};
enum { BUILTINS = sizeof builtins / sizeof builtins[0] };

bool espl__jinja_is_builtin(const char *name) { return espl__jinja_lookup(builtins, BUILTINS, name) != NULL; }

/* namespace(name=value, ...) and dict(name=value, ...). */
static espl_status make_mapping(run *r, const node *at, const char *name, const espl__jinja_arguments *arguments, value *out) {
    json_t *made = json_object();
    *out = espl__jinja_keep(r, made);
    if (name[0] == 'n')
        out->type = ESPL__JINJA_NAMESPACE;
    if (arguments->n > arguments->n_names)
        return espl__jinja_fail(r, at, "%s() takes arguments by name alone", name);
    for (int i = 0; i < arguments->n; i++) {
        const value *item = &arguments->at[i];
        if (item->type != ESPL__JINJA_JSON && item->type != ESPL__JINJA_UNDEFINED)
            return espl__jinja_fail(r, at, "%s() cannot hold %s", name, espl__jinja_type_name(item));
        if (item->type == ESPL__JINJA_JSON)
            json_object_set(made, arguments->names[i], item->json);
    }
    return ESPL_OK;
}

espl_status espl__jinja_builtin(run *r, const node *at, const char *name, const espl__jinja_arguments *arguments, value *out) {
    const espl__jinja_function *function = espl__jinja_lookup(builtins, BUILTINS, name);
    value bound[ESPL__JINJA_PARAMETERS];
    if (function->call == NULL)
        return make_mapping(r, at, name, arguments, out);
    ESPL_TRY(espl__jinja_bind(r, at, function, arguments, bound));
    return function->call(r, at, NULL, bound, out);
}
