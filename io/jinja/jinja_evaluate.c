/* Expressions to values. */
#include "io/jinja/jinja_parts.h"

#include <string.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

enum { MOST_ARGUMENTS = 16 };

static espl_status evaluate_list(run *r, const node *n, value *out) {
    json_t *list = json_array();
    *out = espl__jinja_keep(r, list);
    for (int i = 0; i < n->n; i++) {
        value item;
        ESPL_TRY(espl__jinja_evaluate(r, n->items[i], &item));
        if (item.type != ESPL__JINJA_JSON)
            return espl__jinja_fail(r, n->items[i], "a list cannot hold %s", espl__jinja_type_name(&item));
        ESPL_TRY(espl__jinja_spend(r, n, sizeof(json_t *)));
        json_array_append(list, item.json);
    }
    return ESPL_OK;
}

static espl_status evaluate_mapping(run *r, const node *n, value *out) {
    json_t *object = json_object();
    *out = espl__jinja_keep(r, object);
    for (int i = 0; i < n->n; i += 2) {
        value key, item;
        ESPL_TRY(espl__jinja_evaluate(r, n->items[i], &key));
        ESPL_TRY(espl__jinja_evaluate(r, n->items[i + 1], &item));
        if (!espl__jinja_is_text(&key))
            return espl__jinja_fail(r, n->items[i], "a mapping's key is %s, expected a text", espl__jinja_type_name(&key));
        if (item.type != ESPL__JINJA_JSON)
            return espl__jinja_fail(r, n->items[i + 1], "a mapping cannot hold %s", espl__jinja_type_name(&item));
        ESPL_TRY(espl__jinja_spend(r, n, json_string_length(key.json) + sizeof(json_t *)));
        json_object_set(object, json_string_value(key.json), item.json);
    }
    return ESPL_OK;
}

static espl_status evaluate_arguments(run *r, const node *n, value list[MOST_ARGUMENTS], espl__jinja_arguments *arguments) {
    if (n->n > MOST_ARGUMENTS)
        return espl__jinja_fail(r, n, "%d arguments, expected at most %d", n->n, MOST_ARGUMENTS);
    for (int i = 0; i < n->n; i++)
        ESPL_TRY(espl__jinja_evaluate(r, n->items[i], &list[i]));
    *arguments = (espl__jinja_arguments){.at = list, .names = n->names, .n = n->n, .n_names = n->n_names};
    return ESPL_OK;
}

static espl_status evaluate_call(run *r, const node *n, value *out) {
    value list[MOST_ARGUMENTS], of;
    espl__jinja_arguments arguments;
    if (n->a->form == ESPL__JINJA_ATTRIBUTE) {
        ESPL_TRY(espl__jinja_evaluate(r, n->a->a, &of));
        ESPL_TRY(evaluate_arguments(r, n, list, &arguments));
        return espl__jinja_method(r, n->a, n->a->text, &of, &arguments, out);
    }
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    if (of.type == ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, n, "'%s' is not defined, expected a function or macro", of.name);
    if (of.type != ESPL__JINJA_CALLABLE)
        return espl__jinja_fail(r, n, "%s cannot be called", espl__jinja_type_name(&of));
    ESPL_TRY(evaluate_arguments(r, n, list, &arguments));
    return of.macro != NULL ? espl__jinja_macro(r, n, of.macro, &arguments, out) : espl__jinja_builtin(r, n, of.name, &arguments, out);
}

static espl_status evaluate_filter(run *r, const node *n, value *out) {
    value list[MOST_ARGUMENTS], of;
    espl__jinja_arguments arguments;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    ESPL_TRY(evaluate_arguments(r, n, list, &arguments));
    return espl__jinja_filter(r, n, n->text, &of, &arguments, out);
}

static espl_status evaluate_test(run *r, const node *n, value *out) {
    value list[MOST_ARGUMENTS], of;
    espl__jinja_arguments arguments;
    bool truth;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    ESPL_TRY(evaluate_arguments(r, n, list, &arguments));
    ESPL_TRY(espl__jinja_test(r, n, n->text, &of, &arguments, &truth));
    *out = espl__jinja_bool(truth != n->negated);
    return ESPL_OK;
}

static espl_status evaluate_slice(run *r, const node *n, value *out) {
    value of, bounds[3] = {{ESPL__JINJA_UNDEFINED, NULL, NULL, NULL}};
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    for (int i = 0; i < 3; i++) {
        bounds[i] = espl__jinja_undefined("");
        if (n->items[i] != NULL)
            ESPL_TRY(espl__jinja_evaluate(r, n->items[i], &bounds[i]));
    }
    return espl__jinja_slice(r, n, &of, bounds, out);
}

static espl_status compare_two(run *r, const node *at, const char *text, const value *a, const value *b, bool *truth) {
    int order;
    bool equality = text[0] == '!' || (text[0] == '=' && text[1] == '=');
    if (text[0] == 'i' || text[0] == 'n') {
        ESPL_TRY(espl__jinja_contains(r, at, a, b, truth));
        *truth = *truth != (text[0] == 'n');
        return ESPL_OK;
    }
    if (equality) {
        bool equal = a->type == b->type && (a->type == ESPL__JINJA_UNDEFINED || espl__jinja_equal(a->json, b->json, 0));
        *truth = equal != (text[0] == '!');
        return ESPL_OK;
    }
    if (a->type != ESPL__JINJA_JSON || b->type != ESPL__JINJA_JSON)
        return espl__jinja_fail(r, at, "%s and %s have no order", espl__jinja_type_name(a), espl__jinja_type_name(b));
    ESPL_TRY(espl__jinja_order(r, at, a->json, b->json, &order));
    *truth = text[0] == '<' ? order < 0 || (text[1] == '=' && order == 0) : order > 0 || (text[1] == '=' && order == 0);
    return ESPL_OK;
}

/* a < b < c is a < b and b < c. */
static espl_status evaluate_comparison(run *r, const node *n, value *out) {
    value a, b;
    bool truth = true;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &a));
    for (int i = 0; i < n->n && truth; i++, a = b) {
        ESPL_TRY(espl__jinja_evaluate(r, n->items[i], &b));
        ESPL_TRY(compare_two(r, n->items[i], n->names[i], &a, &b, &truth));
    }
    *out = espl__jinja_bool(truth);
    return ESPL_OK;
}

static espl_status evaluate_sign(run *r, const node *n, value *out) {
    value of;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    if (of.type != ESPL__JINJA_JSON || !json_is_number(of.json))
        return espl__jinja_fail(r, n, "a sign before %s, expected a number", espl__jinja_type_name(&of));
    bool negative = n->form == ESPL__JINJA_NEGATIVE;
    if (json_is_real(of.json))
        *out = espl__jinja_keep(r, json_real(negative ? -json_real_value(of.json) : json_real_value(of.json)));
    else if (negative && json_integer_value(of.json) == INT64_MIN)
        return espl__jinja_fail(r, n, "a number that is too large");
    else
        *out = espl__jinja_keep(r, json_integer(negative ? -json_integer_value(of.json) : json_integer_value(of.json)));
    return ESPL_OK;
}

static espl_status evaluate_logic(run *r, const node *n, value *out) {
    ESPL_TRY(espl__jinja_evaluate(r, n->a, out));
    if (n->form == ESPL__JINJA_NOT)
        *out = espl__jinja_bool(!espl__jinja_truth(out));
    else if (espl__jinja_truth(out) == (n->form == ESPL__JINJA_AND))
        return espl__jinja_evaluate(r, n->b, out);
    return ESPL_OK;
}

static espl_status evaluate_choice(run *r, const node *n, value *out) {
    value condition;
    ESPL_TRY(espl__jinja_evaluate(r, n->b, &condition));
    if (espl__jinja_truth(&condition))
        return espl__jinja_evaluate(r, n->a, out);
    *out = espl__jinja_undefined("an 'if' without 'else'");
    return n->c != NULL ? espl__jinja_evaluate(r, n->c, out) : ESPL_OK;
}

static espl_status evaluate_pair(run *r, const node *n, value *out) {
    value a, b = espl__jinja_undefined("");
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &a));
    if (n->form == ESPL__JINJA_ATTRIBUTE)
        return espl__jinja_attribute(r, n, &a, n->text, out);
    ESPL_TRY(espl__jinja_evaluate(r, n->b, &b));
    return n->form == ESPL__JINJA_ITEM ? espl__jinja_item(r, n, &a, &b, out) : espl__jinja_binary(r, n, &a, &b, out);
}

static espl_status evaluate_form(run *r, const node *n, value *out) {
    switch (n->form) {
    case ESPL__JINJA_CONSTANT: *out = espl__jinja_borrow(n->json); return ESPL_OK;
    case ESPL__JINJA_VARIABLE: *out = espl__jinja_find(r, n->text); return ESPL_OK;
    case ESPL__JINJA_LIST: return evaluate_list(r, n, out);
    case ESPL__JINJA_MAPPING: return evaluate_mapping(r, n, out);
    case ESPL__JINJA_SLICE: return evaluate_slice(r, n, out);
    case ESPL__JINJA_CALL: return evaluate_call(r, n, out);
    case ESPL__JINJA_FILTER: return evaluate_filter(r, n, out);
    case ESPL__JINJA_TEST: return evaluate_test(r, n, out);
    case ESPL__JINJA_NOT:
    case ESPL__JINJA_AND:
    case ESPL__JINJA_OR: return evaluate_logic(r, n, out);
    case ESPL__JINJA_NEGATIVE:
    case ESPL__JINJA_POSITIVE: return evaluate_sign(r, n, out);
    case ESPL__JINJA_COMPARE: return evaluate_comparison(r, n, out);
    case ESPL__JINJA_CHOICE: return evaluate_choice(r, n, out);
    default: return evaluate_pair(r, n, out);
    }
}

espl_status espl__jinja_evaluate(run *r, const node *n, value *out) {
    *out = espl__jinja_undefined("");
    ESPL_TRY(espl__jinja_step(r, n));
    r->depth++;
    espl_status status = evaluate_form(r, n, out);
    r->depth--;
    return status;
}
