/* Tests: value is name(arguments). */
#include "io/jinja/jinja_calls.h"

#include <string.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

static bool is_json(const value *of) { return of->type == ESPL__JINJA_JSON; }
static bool is_integer(const value *of) { return is_json(of) && json_is_integer(of->json); }

static espl_status give(bool truth, value *out) {
    *out = espl__jinja_bool(truth);
    return ESPL_OK;
}

/* The simple ones ask for the kind of a value alone. */
#define KIND_TEST(name, condition)                                                                                                         \
    static ESPL__JINJA_CALL(name) { return (void)r, (void)at, (void)a, give(condition, out); }

KIND_TEST(is_defined, of->type != ESPL__JINJA_UNDEFINED)
KIND_TEST(is_undefined, of->type == ESPL__JINJA_UNDEFINED)
KIND_TEST(is_none, is_json(of) && json_is_null(of->json))
KIND_TEST(is_string, espl__jinja_is_text(of))
KIND_TEST(is_mapping, is_json(of) && json_is_object(of->json))
KIND_TEST(is_number, is_json(of) && (json_is_number(of->json) || json_is_boolean(of->json)))
KIND_TEST(is_whole, is_integer(of))
KIND_TEST(is_float, is_json(of) && json_is_real(of->json))
KIND_TEST(is_boolean, is_json(of) && json_is_boolean(of->json))
KIND_TEST(is_true, is_json(of) && json_is_true(of->json))
KIND_TEST(is_false, is_json(of) && json_is_false(of->json))
KIND_TEST(is_callable, of->type == ESPL__JINJA_CALLABLE)
KIND_TEST(is_iterable, of->type == ESPL__JINJA_UNDEFINED ||
                           (is_json(of) && (json_is_object(of->json) || json_is_array(of->json) || json_is_string(of->json))))
KIND_TEST(is_equal, of->type == a[0].type && (of->type == ESPL__JINJA_UNDEFINED || espl__jinja_equal(of->json, a[0].json, 0)))
KIND_TEST(is_unequal, of->type != a[0].type || (of->type != ESPL__JINJA_UNDEFINED && !espl__jinja_equal(of->json, a[0].json, 0)))

static espl_status divides(const run *r, const node *at, const value *of, int64_t by, int64_t rest, value *out) {
    if (!is_integer(of) || by == 0)
        return espl__jinja_fail(r, at, "%s, expected a whole number, not divided by 0", espl__jinja_type_name(of));
    int64_t remainder = by == -1 ? 0 : json_integer_value(of->json) % by;
    return give((remainder < 0 ? -remainder : remainder) == rest, out);
}

static ESPL__JINJA_CALL(is_odd) { return (void)a, divides(r, at, of, 2, 1, out); }
static ESPL__JINJA_CALL(is_even) { return (void)a, divides(r, at, of, 2, 0, out); }

static ESPL__JINJA_CALL(is_divisible) {
    int64_t by;
    ESPL_TRY(espl__jinja_need_integer(r, at, &a[0], 0, &by));
    return divides(r, at, of, by, 0, out);
}

static ESPL__JINJA_CALL(is_in) {
    bool found;
    ESPL_TRY(espl__jinja_contains(r, at, of, &a[0], &found));
    return give(found, out);
}

static espl_status order(const run *r, const node *at, const value *of, const value *other, int *result) {
    if (!is_json(of) || !is_json(other))
        return espl__jinja_fail(r, at, "%s and %s have no order", espl__jinja_type_name(of), espl__jinja_type_name(other));
    return espl__jinja_order(r, at, of->json, other->json, result);
}

#define ORDER_TEST(name, condition)                                                                                                        \
    static ESPL__JINJA_CALL(name) {                                                                                                        \
        int o = 0;                                                                                                                         \
        ESPL_TRY(order(r, at, of, &a[0], &o));                                                                                             \
        return give(condition, out);                                                                                                       \
    }

ORDER_TEST(is_less, o < 0)
ORDER_TEST(is_greater, o > 0)
ORDER_TEST(is_at_most, o <= 0)
ORDER_TEST(is_at_least, o >= 0)

static const espl__jinja_function tests[] = {
    {"defined", {NULL}, 0, is_defined},
    {"undefined", {NULL}, 0, is_undefined},
    {"none", {NULL}, 0, is_none},
    {"string", {NULL}, 0, is_string},
    {"mapping", {NULL}, 0, is_mapping},
    {"sequence", {NULL}, 0, is_iterable},
    {"iterable", {NULL}, 0, is_iterable},
    {"number", {NULL}, 0, is_number},
    {"integer", {NULL}, 0, is_whole},
    {"float", {NULL}, 0, is_float},
    {"boolean", {NULL}, 0, is_boolean},
    {"true", {NULL}, 0, is_true},
    {"false", {NULL}, 0, is_false},
    {"callable", {NULL}, 0, is_callable},
    {"odd", {NULL}, 0, is_odd},
    {"even", {NULL}, 0, is_even},
    {"divisibleby", {"num"}, 1, is_divisible},
    {"in", {"seq"}, 1, is_in},
    {"equalto", {"other"}, 1, is_equal},
    {"eq", {"other"}, 1, is_equal},
    {"ne", {"other"}, 1, is_unequal},
    {"lt", {"other"}, 1, is_less},
    {"lessthan", {"other"}, 1, is_less},
    {"gt", {"other"}, 1, is_greater},
    {"greaterthan", {"other"}, 1, is_greater},
    {"le", {"other"}, 1, is_at_most},
    {"ge", {"other"}, 1, is_at_least},
};
enum { TESTS = sizeof tests / sizeof tests[0] };

/* In calls by name, as in selectattr("role", "==", "user"), operators are tests, too. */
static const char *word_of(const char *name) {
    static const char *const words[][2] = {{"==", "eq"}, {"!=", "ne"}, {"<", "lt"}, {">", "gt"}, {"<=", "le"}, {">=", "ge"}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i][0], name) == 0)
            return words[i][1];
    return name;
}

espl_status espl__jinja_test(run *r, const node *at, const char *name, const value *of, const espl__jinja_arguments *arguments,
                             bool *truth) {
    const espl__jinja_function *test = espl__jinja_lookup(tests, TESTS, word_of(name));
    value bound[ESPL__JINJA_PARAMETERS], result;
    if (test == NULL)
        return espl__jinja_unknown(r, at, "test", name, tests, TESTS);
    ESPL_TRY(espl__jinja_bind(r, at, test, arguments, bound));
    ESPL_TRY(test->call(r, at, of, bound, &result));
    *truth = espl__jinja_truth(&result);
    return ESPL_OK;
}
