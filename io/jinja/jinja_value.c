/* Values: their truth, order and text as Python has them. */
#include "io/jinja/jinja_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

enum { DEEPEST = 500 }; /* of lists within lists */

value espl__jinja_borrow(const json_t *json) {
    return (value){.type = ESPL__JINJA_JSON, .json = (json_t *)(uintptr_t)json}; /* given values are never written to */
}

value espl__jinja_undefined(const char *name) { return (value){.type = ESPL__JINJA_UNDEFINED, .json = NULL, .macro = NULL, .name = name}; }

value espl__jinja_bool(bool truth) { return espl__jinja_borrow(json_boolean(truth)); }

bool espl__jinja_is_text(const value *of) { return of->type == ESPL__JINJA_JSON && json_is_string(of->json); }

espl_status espl__jinja_string(run *r, const node *at, const char *text, size_t size, value *out) {
    ESPL_TRY(espl__jinja_spend(r, at, size + 32));
    json_t *made = json_stringn(size > 0 ? text : "", size);
    if (made == NULL)
        return espl__jinja_fail(r, at, "a text that is not UTF-8");
    *out = espl__jinja_keep(r, made);
    return ESPL_OK;
}

const char *espl__jinja_type_name(const value *of) {
    static const char *const names[] = {
        [JSON_OBJECT] = "a mapping", [JSON_ARRAY] = "a list", [JSON_STRING] = "a text", [JSON_INTEGER] = "a number",
        [JSON_REAL] = "a number",    [JSON_TRUE] = "true",    [JSON_FALSE] = "false",   [JSON_NULL] = "none"};
    switch (of->type) {
    case ESPL__JINJA_JSON: return names[json_typeof(of->json)];
    case ESPL__JINJA_NAMESPACE: return "a namespace";
    case ESPL__JINJA_LOOP: return "'loop'";
    case ESPL__JINJA_CALLABLE: return "a function";
    default: return "something undefined";
    }
}

bool espl__jinja_truth(const value *of) {
    if (of->type != ESPL__JINJA_JSON)
        return of->type != ESPL__JINJA_UNDEFINED;
    switch (json_typeof(of->json)) {
    case JSON_OBJECT: return json_object_size(of->json) > 0;
    case JSON_ARRAY: return json_array_size(of->json) > 0;
    case JSON_STRING: return json_string_length(of->json) > 0;
    case JSON_INTEGER: return json_integer_value(of->json) != 0;
    case JSON_REAL: return json_real_value(of->json) != 0;
    default: return json_is_true(of->json);
    }
}

/* ---- Order. */

static bool is_countable(const json_t *json) { return json_is_number(json) || json_is_boolean(json); }

static double number_of(const json_t *json) { return json_is_boolean(json) ? json_is_true(json) : json_number_value(json); }

static int compare_numbers(const json_t *a, const json_t *b) {
    if (!json_is_real(a) && !json_is_real(b)) {
        json_int_t x = json_is_integer(a) ? json_integer_value(a) : json_is_true(a),
                   y = json_is_integer(b) ? json_integer_value(b) : json_is_true(b);
        return (x > y) - (x < y);
    }
    return (number_of(a) > number_of(b)) - (number_of(a) < number_of(b));
}

/* By code points, which in UTF-8 is by bytes. */
static int compare_texts(const json_t *a, const json_t *b) {
    size_t n = json_string_length(a), m = json_string_length(b);
    int order = memcmp(json_string_value(a), json_string_value(b), n < m ? n : m);
    return order != 0 ? order : (n > m) - (n < m);
}

static bool equal_objects(const json_t *a, const json_t *b, int depth) {
    const char *key;
    json_t *item;
    bool equal = json_object_size(a) == json_object_size(b);
    json_object_foreach((json_t *)(uintptr_t)a, key, item) {
        const json_t *other = json_object_get(b, key);
        if (!equal || other == NULL || !espl__jinja_equal(item, other, depth + 1))
            return false;
    }
    return equal;
}

bool espl__jinja_equal(const json_t *a, const json_t *b, int depth) {
    if (a == b || depth > DEEPEST)
        return a == b;
    if (is_countable(a) && is_countable(b))
        return compare_numbers(a, b) == 0;
    if (json_typeof(a) != json_typeof(b))
        return false;
    if (json_is_string(a))
        return compare_texts(a, b) == 0;
    if (json_is_object(a))
        return equal_objects(a, b, depth);
    bool equal = json_is_null(a) || json_array_size(a) == json_array_size(b);
    for (size_t i = 0; equal && i < json_array_size(a); i++)
        equal = espl__jinja_equal(json_array_get(a, i), json_array_get(b, i), depth + 1);
    return equal;
}

espl_status espl__jinja_order(const run *r, const node *at, const json_t *a, const json_t *b, int *order) {
    value x = espl__jinja_borrow(a), y = espl__jinja_borrow(b);
    if (is_countable(a) && is_countable(b))
        *order = compare_numbers(a, b);
    else if (json_is_string(a) && json_is_string(b))
        *order = compare_texts(a, b);
    else
        return espl__jinja_fail(r, at, "%s and %s have no order", espl__jinja_type_name(&x), espl__jinja_type_name(&y));
    return ESPL_OK;
}

espl_status espl__jinja_contains(run *r, const node *at, const value *item, const value *in, bool *found) {
    json_t *elements;
    *found = false;
    if (espl__jinja_is_text(in)) {
        if (!espl__jinja_is_text(item))
            return espl__jinja_fail(r, at, "%s in a text, expected a text", espl__jinja_type_name(item));
        *found = memmem(json_string_value(in->json), json_string_length(in->json), json_string_value(item->json),
                        json_string_length(item->json)) != NULL;
        return ESPL_OK;
    }
    if (in->type == ESPL__JINJA_JSON && json_is_object(in->json)) {
        *found = espl__jinja_is_text(item) && json_object_get(in->json, json_string_value(item->json)) != NULL;
        return ESPL_OK;
    }
    ESPL_TRY(espl__jinja_elements(r, at, in, &elements));
    ESPL_TRY(espl__jinja_spend(r, at, json_array_size(elements)));
    for (size_t i = 0; i < json_array_size(elements) && !*found; i++)
        *found = item->type == ESPL__JINJA_JSON && espl__jinja_equal(item->json, json_array_get(elements, i), 0);
    return ESPL_OK;
}

/* ---- Elements. */

static size_t character(const char *text, size_t size) {
    unsigned char c = (unsigned char)*text;
    size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    return n < size ? n : size;
}

espl_status espl__jinja_elements(run *r, const node *at, const value *of, json_t **array) {
    const char *key;
    json_t *item;
    if (of->type == ESPL__JINJA_JSON && json_is_array(of->json)) {
        *array = of->json;
        return ESPL_OK;
    }
    *array = espl__jinja_keep(r, json_array()).json;
    if (of->type == ESPL__JINJA_UNDEFINED)
        return ESPL_OK;
    if (espl__jinja_is_text(of)) {
        const char *text = json_string_value(of->json);
        size_t size = json_string_length(of->json);
        ESPL_TRY(espl__jinja_spend(r, at, 40 * size));
        for (size_t i = 0, n; i < size; i += n) {
            n = character(text + i, size - i);
            json_array_append_new(*array, json_stringn(text + i, n));
        }
    } else if (of->type == ESPL__JINJA_JSON && json_is_object(of->json)) {
        ESPL_TRY(espl__jinja_spend(r, at, 40 * json_object_size(of->json)));
        json_object_foreach(of->json, key, item) { json_array_append_new(*array, json_string(key)); }
    } else {
        return espl__jinja_fail(r, at, "%s has no elements, expected a list, text or mapping", espl__jinja_type_name(of));
    }
    return ESPL_OK;
}

/* ---- Text. */

/* The shortest that reads as the same number, with Python's choice of notation. */
static void write_real(double number, espl_buffer *out) {
    char digits[40];
    int precision = 0, exponent;
    if (isnan(number) || isinf(number)) {
        espl_buffer_printf(out, "%s", isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");
        return;
    }
    do
        snprintf(digits, sizeof digits, "%.*e", precision, number);
    while (strtod(digits, NULL) != number && precision++ < 17);
    exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        *strchr(digits, 'e') = '\0';
        espl_buffer_printf(out, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        espl_buffer_printf(out, "%.*f", precision > exponent ? precision - exponent : 1, number);
    }
}

static void write_number(const json_t *json, espl_buffer *out) {
    if (json_is_integer(json))
        espl_buffer_printf(out, "%lld", (long long)json_integer_value(json));
    else
        write_real(json_real_value(json), out);
}

/* As Python's repr: in single quotes, unless there are such in it and no double ones. */
static void write_quoted(const char *text, size_t size, espl_buffer *out) {
    static const char from[] = "\n\r\t\\", to[] = "nrt\\";
    char quote = memchr(text, '\'', size) != NULL && memchr(text, '"', size) == NULL ? '"' : '\'';
    espl_buffer_append(out, &quote, 1);
    for (size_t i = 0, n; i < size; i += n) {
        unsigned char c = (unsigned char)text[i];
        n = character(text + i, size - i);
        const char *known = c != '\0' ? strchr(from, c) : NULL;
        if (known != NULL)
            espl_buffer_append(out, (char[]){'\\', to[known - from]}, 2);
        else if (c == (unsigned char)quote)
            espl_buffer_append(out, (char[]){'\\', quote}, 2);
        else if (c < 0x20 || c == 0x7F)
            espl_buffer_printf(out, "\\x%02x", c);
        else
            espl_buffer_append(out, text + i, n);
    }
    espl_buffer_append(out, &quote, 1);
}

static espl_status write_piece(run *r, const node *at, const json_t *json, int depth, espl_buffer *out) {
    const char *key, *between = "";
    json_t *item;
    ESPL_TRY(espl__jinja_spend(r, at, json_is_string(json) ? json_string_length(json) + 8 : 8));
    if (depth > DEEPEST)
        return espl__jinja_fail(r, at, "lists are nested too deeply");
    if (json_is_array(json)) {
        espl_buffer_append(out, "[", 1);
        for (size_t i = 0; i < json_array_size(json); i++, between = ", ") {
            espl_buffer_printf(out, "%s", between);
            ESPL_TRY(write_piece(r, at, json_array_get(json, i), depth + 1, out));
        }
        espl_buffer_append(out, "]", 1);
    } else if (json_is_object(json)) {
        espl_buffer_append(out, "{", 1);
        json_object_foreach((json_t *)(uintptr_t)json, key, item) {
            espl_buffer_printf(out, "%s", between);
            write_quoted(key, strlen(key), out);
            espl_buffer_append(out, ": ", 2);
            ESPL_TRY(write_piece(r, at, item, depth + 1, out));
            between = ", ";
        }
        espl_buffer_append(out, "}", 1);
    } else if (json_is_string(json)) {
        write_quoted(json_string_value(json), json_string_length(json), out);
    } else if (json_is_number(json)) {
        write_number(json, out);
    } else {
        espl_buffer_printf(out, "%s", json_is_true(json) ? "True" : json_is_false(json) ? "False" : "None");
    }
    return ESPL_OK;
}

espl_status espl__jinja_write(run *r, const node *at, const value *of, espl_buffer *out) {
    if (of->type == ESPL__JINJA_UNDEFINED)
        return ESPL_OK;
    if (of->type != ESPL__JINJA_JSON)
        return espl__jinja_fail(r, at, "%s has no text", espl__jinja_type_name(of));
    if (!json_is_string(of->json))
        return write_piece(r, at, of->json, 0, out);
    ESPL_TRY(espl__jinja_spend(r, at, json_string_length(of->json)));
    espl_buffer_append(out, json_string_value(of->json), json_string_length(of->json));
    return ESPL_OK;
}

/* ---- JSON as Python's json.dumps writes it. */

typedef struct dumper {
    run *r;
    const node *at;
    espl_buffer *out;
    int indent;
    bool ascii, sorted;
} dumper;

static void dump_escaped(const dumper *d, const char *text, size_t n) {
    utf8proc_int32_t code = 0;
    utf8proc_iterate((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &code);
    if (code >= 0x10000)
        espl_buffer_printf(d->out, "\\u%04x\\u%04x", 0xD7C0 + (unsigned)(code >> 10), 0xDC00 + (unsigned)(code & 0x3FF));
    else
        espl_buffer_printf(d->out, "\\u%04x", (unsigned)code);
}

static void dump_text(const dumper *d, const char *text, size_t size) {
    static const char from[] = "\n\r\t\b\f\"\\", to[] = "nrtbf\"\\";
    espl_buffer_append(d->out, "\"", 1);
    for (size_t i = 0, n; i < size; i += n) {
        n = character(text + i, size - i);
        const char *known = text[i] != '\0' ? strchr(from, text[i]) : NULL;
        if (known != NULL)
            espl_buffer_append(d->out, (char[]){'\\', to[known - from]}, 2);
        else if ((unsigned char)text[i] < 0x20 || (d->ascii && (unsigned char)text[i] >= 0x7F))
            dump_escaped(d, text + i, n);
        else
            espl_buffer_append(d->out, text + i, n);
    }
    espl_buffer_append(d->out, "\"", 1);
}

/* Before an element, and before the closing bracket. */
static espl_status dump_break(const dumper *d, int depth, const char *between) {
    espl_buffer_printf(d->out, "%s", between);
    if (d->indent < 0)
        return ESPL_OK;
    size_t spaces = (size_t)d->indent * (size_t)depth;
    ESPL_TRY(espl__jinja_spend(d->r, d->at, spaces));
    espl_buffer_append(d->out, "\n", 1);
    for (size_t i = 0; i < spaces; i++)
        espl_buffer_append(d->out, " ", 1);
    return ESPL_OK;
}

static espl_status dump(const dumper *d, const json_t *json, int depth);

static int by_key(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static espl_status dump_object(const dumper *d, const json_t *json, int depth) {
    espl_status status = ESPL_OK;
    size_t n = 0, size = json_object_size(json);
    const char *key, **keys = espl_malloc((size + 1) * sizeof *keys);
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)json, key, item) keys[n++] = key;
    if (d->sorted)
        qsort(keys, n, sizeof *keys, by_key);
    espl_buffer_append(d->out, "{", 1);
    for (size_t i = 0; i < n; i++) {
        ESPL_TRY_DONE(dump_break(d, depth + 1, i == 0 ? "" : d->indent < 0 ? ", " : ","));
        dump_text(d, keys[i], strlen(keys[i]));
        espl_buffer_append(d->out, ": ", 2);
        ESPL_TRY_DONE(dump(d, json_object_get(json, keys[i]), depth + 1));
    }
    if (n > 0)
        ESPL_TRY_DONE(dump_break(d, depth, ""));
    espl_buffer_append(d->out, "}", 1);
done:
    free(keys);
    return status;
}

static espl_status dump_array(const dumper *d, const json_t *json, int depth) {
    espl_buffer_append(d->out, "[", 1);
    for (size_t i = 0; i < json_array_size(json); i++) {
        ESPL_TRY(dump_break(d, depth + 1, i == 0 ? "" : d->indent < 0 ? ", " : ","));
        ESPL_TRY(dump(d, json_array_get(json, i), depth + 1));
    }
    if (json_array_size(json) > 0)
        ESPL_TRY(dump_break(d, depth, ""));
    espl_buffer_append(d->out, "]", 1);
    return ESPL_OK;
}

static espl_status dump(const dumper *d, const json_t *json, int depth) {
    ESPL_TRY(espl__jinja_spend(d->r, d->at, json_is_string(json) ? json_string_length(json) + 8 : 8));
    if (depth > DEEPEST)
        return espl__jinja_fail(d->r, d->at, "lists are nested too deeply");
    if (json_is_object(json))
        return dump_object(d, json, depth);
    if (json_is_array(json))
        return dump_array(d, json, depth);
    if (json_is_string(json))
        dump_text(d, json_string_value(json), json_string_length(json));
    else if (json_is_number(json))
        write_number(json, d->out);
    else
        espl_buffer_printf(d->out, "%s", json_is_true(json) ? "true" : json_is_false(json) ? "false" : "null");
    return ESPL_OK;
}

espl_status espl__jinja_dump(run *r, const node *at, const json_t *json, int indent, bool ascii, bool sorted, espl_buffer *out) {
    const dumper d = {.r = r, .at = at, .out = out, .indent = indent, .ascii = ascii, .sorted = sorted};
    return dump(&d, json, 0);
}

/* ---- Characters. */

static bool is_space(utf8proc_int32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t espl__jinja_space(const char *s, size_t n) {
    utf8proc_int32_t code = -1;
    utf8proc_ssize_t size = n > 0 ? utf8proc_iterate((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &code) : 0;
    return size > 0 && is_space(code) ? (size_t)size : 0;
}

size_t espl__jinja_space_before(const char *s, size_t n) {
    size_t back = 1;
    while (back < n && back < 4 && ((unsigned char)s[n - back] & 0xC0) == 0x80)
        back++;
    return n > 0 && espl__jinja_space(s + n - back, back) == back ? back : 0;
}

/* Whether a character is one of a text's. */
static bool is_among(const char *c, size_t n, const char *set, size_t size) {
    for (size_t i = 0, m; i < size; i += m) {
        m = character(set + i, size - i);
        if (m == n && memcmp(set + i, c, n) == 0)
            return true;
    }
    return false;
}

void espl__jinja_strip(const char **text, size_t *size, const char *strip, size_t n_strip, bool left, bool right) {
    while (left && *size > 0) {
        size_t n = character(*text, *size);
        if (strip != NULL ? !is_among(*text, n, strip, n_strip) : espl__jinja_space(*text, *size) == 0)
            break;
        *text += n;
        *size -= n;
    }
    while (right && *size > 0) {
        size_t n = 1;
        while (n < *size && n < 4 && ((unsigned char)(*text)[*size - n] & 0xC0) == 0x80)
            n++;
        if (strip != NULL ? !is_among(*text + *size - n, n, strip, n_strip) : espl__jinja_space_before(*text, *size) == 0)
            break;
        *size -= n;
    }
}

void espl__jinja_case(const char *text, size_t size, bool upper, espl_buffer *out) {
    for (size_t i = 0; i < size;) {
        utf8proc_int32_t code;
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(size - i), &code);
        if (n <= 0)
            break;
        utf8proc_ssize_t m = utf8proc_encode_char(upper ? utf8proc_toupper(code) : utf8proc_tolower(code), bytes);
        espl_buffer_append(out, bytes, (size_t)m);
        i += (size_t)n;
    }
}
