/* Arithmetic, joining, attributes, items and slices. */
#include "io/jinja/jinja_parts.h"

#include <math.h>
#include <string.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

static espl_status no_operator(const run *r, const node *at, const value *a, const value *b) {
    if (a->type == ESPL__JINJA_UNDEFINED || b->type == ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, at, "'%s' is not defined", a->type == ESPL__JINJA_UNDEFINED ? a->name : b->name);
    return espl__jinja_fail(r, at, "%s %s %s is not supported", espl__jinja_type_name(a), at->text, espl__jinja_type_name(b));
}

static bool is_number(const value *of) { return of->type == ESPL__JINJA_JSON && (json_is_number(of->json) || json_is_boolean(of->json)); }

static json_int_t integer_of(const value *of) { return json_is_integer(of->json) ? json_integer_value(of->json) : json_is_true(of->json); }

static double real_of(const value *of) { return json_is_real(of->json) ? json_real_value(of->json) : (double)integer_of(of); }

/* ---- Arithmetic. */

/* Quotient and remainder round down, as Python's do. */
static bool divide(json_int_t a, json_int_t b, bool remainder, json_int_t *result) {
    if (b == -1) {
        *result = 0;
        return remainder || !__builtin_sub_overflow((json_int_t)0, a, result);
    }
    json_int_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) {
        m += b;
        q--;
    }
    *result = remainder ? m : q;
    return true;
}

static espl_status with_integers(run *r, const node *at, json_int_t a, json_int_t b, value *out) {
    json_int_t result = 0;
    bool good;
    switch (at->text[0]) {
    case '+': good = !__builtin_add_overflow(a, b, &result); break;
    case '-': good = !__builtin_sub_overflow(a, b, &result); break;
    case '*': good = !__builtin_mul_overflow(a, b, &result); break;
    default:
        if (b == 0)
            return espl__jinja_fail(r, at, "division by zero");
        good = divide(a, b, at->text[0] == '%', &result);
    }
    if (!good)
        return espl__jinja_fail(r, at, "a number that is too large");
    *out = espl__jinja_keep(r, json_integer(result));
    return ESPL_OK;
}

static espl_status with_reals(run *r, const node *at, double a, double b, value *out) {
    double result;
    char what = at->text[0];
    if ((what == '/' || what == '%') && b == 0)
        return espl__jinja_fail(r, at, "division by zero");
    switch (what) {
    case '+': result = a + b; break;
    case '-': result = a - b; break;
    case '*': result = a * b; break;
    case '%': result = a - b * floor(a / b); break;
    default: result = at->text[1] == '/' ? floor(a / b) : a / b;
    }
    json_t *made = json_real(result);
    if (made == NULL)
        return espl__jinja_fail(r, at, "a number that is too large");
    *out = espl__jinja_keep(r, made);
    return ESPL_OK;
}

/* ---- Texts and lists. */

static espl_status join(run *r, const node *at, const value *a, const value *b, value *out) {
    espl_buffer text = {0};
    espl_status status = espl__jinja_write(r, at, a, &text);
    if (status == ESPL_OK)
        status = espl__jinja_write(r, at, b, &text);
    if (status == ESPL_OK)
        status = espl__jinja_string(r, at, text.data, text.size, out);
    espl_buffer_free(&text);
    return status;
}

static espl_status repeat(run *r, const node *at, const value *text, json_int_t times, value *out) {
    espl_buffer made = {0};
    size_t size = json_string_length(text->json);
    if (times < 0 || size == 0)
        times = 0;
    if (size > 0 && times > r->left.bytes / (json_int_t)size)
        return espl__jinja_fail(r, at, "the template makes too much text, expected less");
    for (json_int_t i = 0; i < times; i++)
        espl_buffer_append(&made, json_string_value(text->json), size);
    espl_status status = espl__jinja_string(r, at, made.data, made.size, out);
    espl_buffer_free(&made);
    return status;
}

static espl_status chain(run *r, const node *at, const value *a, const value *b, value *out) {
    json_t *made = json_array();
    *out = espl__jinja_keep(r, made);
    ESPL_TRY(espl__jinja_spend(r, at, sizeof(json_t *) * (json_array_size(a->json) + json_array_size(b->json))));
    json_array_extend(made, a->json);
    json_array_extend(made, b->json);
    return ESPL_OK;
}

espl_status espl__jinja_binary(run *r, const node *at, const value *a, const value *b, value *out) {
    char what = at->text[0];
    if (what == '~')
        return join(r, at, a, b, out);
    if (is_number(a) && is_number(b)) {
        bool reals = json_is_real(a->json) || json_is_real(b->json) || (what == '/' && at->text[1] == '\0');
        return reals ? with_reals(r, at, real_of(a), real_of(b), out) : with_integers(r, at, integer_of(a), integer_of(b), out);
    }
    if (what == '+' && espl__jinja_is_text(a) && espl__jinja_is_text(b))
        return join(r, at, a, b, out);
    if (what == '*' && espl__jinja_is_text(a) && is_number(b) && !json_is_real(b->json))
        return repeat(r, at, a, integer_of(b), out);
    if (what == '*' && espl__jinja_is_text(b) && is_number(a) && !json_is_real(a->json))
        return repeat(r, at, b, integer_of(a), out);
    if (what == '+' && a->type == ESPL__JINJA_JSON && b->type == ESPL__JINJA_JSON && json_is_array(a->json) && json_is_array(b->json))
        return chain(r, at, a, b, out);
    return no_operator(r, at, a, b);
}

/* ---- Parts of a value. */

espl_status espl__jinja_attribute(run *r, const node *at, const value *of, const char *name, value *out) {
    *out = espl__jinja_undefined(name);
    if (of->type == ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, at, "'%s' is not defined, so it has no '%s'", of->name, name);
    if (of->type == ESPL__JINJA_JSON && json_is_object(of->json) && espl__jinja_is_mapping_method(name))
        return espl__jinja_fail(r, at, "'.%s' of a mapping is a method and not called, expected ['%s'] or .%s()", name, name, name);
    const json_t *found = of->json != NULL && json_is_object(of->json) ? json_object_get(of->json, name) : NULL;
    if (found != NULL)
        *out = espl__jinja_borrow(found);
    return ESPL_OK;
}

/* The bytes of character `index` of a text (negative: from its end); false: there is none. */
static bool find_character(const json_t *text, json_int_t index, size_t *begin, size_t *end) {
    const char *s = json_string_value(text);
    size_t size = json_string_length(text);
    json_int_t n = 0;
    for (size_t i = 0; i < size; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80;
    index += index < 0 ? n : 0;
    if (index < 0 || index >= n)
        return false;
    size_t i = 0;
    for (json_int_t at = 0; at < index; at++)
        for (i++; ((unsigned char)s[i] & 0xC0) == 0x80;)
            i++;
    *begin = i;
    for (i++; i < size && ((unsigned char)s[i] & 0xC0) == 0x80;)
        i++;
    *end = i;
    return true;
}

espl_status espl__jinja_item(run *r, const node *at, const value *of, const value *key, value *out) {
    size_t begin, end;
    if (of->type == ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, at, "'%s' is not defined, so it has no items", of->name);
    if (espl__jinja_is_text(key) && (of->type != ESPL__JINJA_JSON || json_is_object(of->json))) {
        const char *name = json_string_value(key->json);
        const json_t *found = json_object_get(of->json, name);
        *out = found != NULL ? espl__jinja_borrow(found) : espl__jinja_undefined(name);
        return ESPL_OK;
    }
    *out = espl__jinja_undefined("an item that is not there");
    if (of->type != ESPL__JINJA_JSON || key->type != ESPL__JINJA_JSON || !json_is_integer(key->json))
        return ESPL_OK;
    json_int_t index = json_integer_value(key->json);
    ESPL_TRY(espl__jinja_spend(r, at, json_is_string(of->json) ? json_string_length(of->json) / 8 : 0));
    if (json_is_string(of->json) && find_character(of->json, index, &begin, &end))
        return espl__jinja_string(r, at, json_string_value(of->json) + begin, end - begin, out);
    if (json_is_array(of->json)) {
        json_int_t n = (json_int_t)json_array_size(of->json);
        index += index < 0 ? n : 0;
        if (index >= 0 && index < n)
            *out = espl__jinja_borrow(json_array_get(of->json, (size_t)index));
    }
    return ESPL_OK;
}

/* ---- Slices. */

static espl_status take_bound(const run *r, const node *at, const value *bound, json_int_t fallback, json_int_t *number) {
    *number = fallback;
    if (bound->type == ESPL__JINJA_UNDEFINED || (bound->type == ESPL__JINJA_JSON && json_is_null(bound->json)))
        return ESPL_OK;
    if (bound->type != ESPL__JINJA_JSON || !json_is_integer(bound->json))
        return espl__jinja_fail(r, at, "a slice by %s, expected whole numbers", espl__jinja_type_name(bound));
    *number = json_integer_value(bound->json);
    return ESPL_OK;
}

static json_int_t clamp(json_int_t at, json_int_t n, json_int_t low, json_int_t high) {
    at += at < 0 ? n : 0;
    return at < low ? low : at > high ? high : at;
}

static bool is_given(const value *bound) { return bound->type == ESPL__JINJA_JSON && !json_is_null(bound->json); }

espl_status espl__jinja_slice(run *r, const node *at, const value *of, const value bounds[3], value *out) {
    json_t *elements, *made;
    json_int_t begin, end, step;
    if (of->type != ESPL__JINJA_JSON || (!json_is_array(of->json) && !json_is_string(of->json)))
        return espl__jinja_fail(r, at, "a slice of %s, expected a list or text", espl__jinja_type_name(of));
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    json_int_t n = (json_int_t)json_array_size(elements);
    ESPL_TRY(take_bound(r, at, &bounds[2], 1, &step));
    if (step == 0)
        return espl__jinja_fail(r, at, "a slice with step 0");
    bool back = step < 0;
    step = step > n + 1 ? n + 1 : step < -n - 1 ? -n - 1 : step;
    ESPL_TRY(take_bound(r, at, &bounds[0], back ? n - 1 : 0, &begin));
    ESPL_TRY(take_bound(r, at, &bounds[1], n, &end));
    begin = clamp(begin, n, back ? -1 : 0, back ? n - 1 : n);
    end = back && !is_given(&bounds[1]) ? -1 : clamp(end, n, back ? -1 : 0, back ? n - 1 : n);
    made = json_array();
    *out = espl__jinja_keep(r, made);
    ESPL_TRY(espl__jinja_spend(r, at, sizeof(json_t *) * (size_t)n));
    for (json_int_t i = begin; back ? i > end : i < end; i += step)
        json_array_append(made, json_array_get(elements, (size_t)i));
    if (json_is_array(of->json))
        return ESPL_OK;
    espl_buffer text = {0};
    for (size_t i = 0; i < json_array_size(made); i++)
        espl_buffer_append(&text, json_string_value(json_array_get(made, i)), json_string_length(json_array_get(made, i)));
    espl_status status = espl__jinja_string(r, at, text.data, text.size, out);
    espl_buffer_free(&text);
    return status;
}
