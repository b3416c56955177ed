/* Expressions, by precedence as Jinja's parser has them: a if b else c; or; and; not; comparisons; + -; ~; * / // %; signs; a value with
 * what stands behind it: .name [item] (call) |filter is test. */
#include "io/jinja/jinja_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef espl__jinja_node node;
typedef espl__jinja_parser parser;

static espl_status parse_or(parser *p, node **out);
static espl_status parse_unary(parser *p, bool filters, node **out);

static bool is_operator(const parser *p, const char *text) { return espl__jinja_is(p, ESPL__JINJA_OPERATOR, text); }
static bool take_operator(parser *p, const char *text) { return espl__jinja_take(p, ESPL__JINJA_OPERATOR, text); }
static bool is_name(const parser *p, const char *text) { return espl__jinja_is(p, ESPL__JINJA_NAME, text); }
static bool take_name(parser *p, const char *text) { return espl__jinja_take(p, ESPL__JINJA_NAME, text); }

/* A level deeper, as brackets and signs nest. */
static espl_status descend(parser *p) {
    if (++p->depth > ESPL__JINJA_DEPTH)
        return espl__jinja_unexpected(p, "fewer levels of nesting");
    return ESPL_OK;
}

espl_status espl__jinja_expression_plain(parser *p, node **out) {
    ESPL_TRY(descend(p));
    ESPL_TRY(parse_or(p, out));
    p->depth--;
    return ESPL_OK;
}

/* "a if b else c", from left to right. */
static espl_status parse_choice(parser *p, node **out) {
    ESPL_TRY(descend(p));
    ESPL_TRY(parse_or(p, out));
    while (is_name(p, "if")) {
        node *choice = espl__jinja_node_make(p, ESPL__JINJA_CHOICE);
        p->at++;
        choice->a = *out;
        ESPL_TRY(parse_or(p, &choice->b));
        if (take_name(p, "else"))
            ESPL_TRY(parse_choice(p, &choice->c));
        ESPL_TRY(espl__jinja_node_close(p, choice));
        *out = choice;
    }
    p->depth--;
    return ESPL_OK;
}

/* Elements up to a closing bracket, or the end of a tag for a tuple without brackets. */
static espl_status parse_elements(parser *p, const char *closing, node *list) {
    while (!take_operator(p, closing)) {
        node *item;
        ESPL_TRY(parse_choice(p, &item));
        espl__jinja_node_item(list, item);
        if (!is_operator(p, closing))
            ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ",", "a list"));
    }
    return espl__jinja_node_close(p, list);
}

static espl_status parse_mapping(parser *p, node *mapping) {
    while (!take_operator(p, "}")) {
        node *key, *value;
        ESPL_TRY(parse_choice(p, &key));
        ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ":", "a mapping"));
        ESPL_TRY(parse_choice(p, &value));
        espl__jinja_node_item(mapping, key);
        espl__jinja_node_item(mapping, value);
        if (!is_operator(p, "}"))
            ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ",", "a mapping"));
    }
    return espl__jinja_node_close(p, mapping);
}

/* In parentheses stands an expression, or a tuple, which is taken for a list. */
static espl_status parse_brackets(parser *p, node **out) {
    node *list = espl__jinja_node_make(p, ESPL__JINJA_LIST), *first;
    p->at++;
    if (take_operator(p, ")")) {
        *out = list;
        return espl__jinja_node_close(p, list);
    }
    ESPL_TRY(parse_choice(p, &first));
    if (take_operator(p, ")")) {
        *out = first;
        return ESPL_OK;
    }
    espl__jinja_node_item(list, first);
    *out = list;
    ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ",", "parentheses"));
    return parse_elements(p, ")", list);
}

/* Texts that follow each other are one. */
static void parse_text(parser *p, node *constant) {
    espl_buffer text = {0};
    espl_buffer_reserve(&text, 1);
    while (espl__jinja_now(p)->kind == ESPL__JINJA_STRING) {
        espl_buffer_append(&text, espl__jinja_now(p)->text, espl__jinja_now(p)->size);
        p->at++;
    }
    constant->json = json_stringn(text.data, text.size);
    espl_buffer_free(&text);
}

static espl_status parse_constant(parser *p, node **out) {
    const espl__jinja_token *token = espl__jinja_now(p);
    node *constant = *out = espl__jinja_node_make(p, ESPL__JINJA_CONSTANT);
    errno = 0;
    if (token->kind == ESPL__JINJA_STRING) {
        parse_text(p, constant);
    } else {
        constant->json =
            token->kind == ESPL__JINJA_INTEGER ? json_integer(strtoll(token->text, NULL, 10)) : json_real(strtod(token->text, NULL));
        if (errno != 0)
            return espl__jinja_unexpected(p, "a smaller number");
        p->at++;
    }
    if (constant->json == NULL)
        return espl__jinja_unexpected(p, "text in UTF-8");
    return espl__jinja_node_close(p, constant);
}

static espl_status parse_name(parser *p, node **out) {
    static const char *const trues[] = {"true", "True"}, *const falses[] = {"false", "False"}, *const nones[] = {"none", "None"};
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_VARIABLE);
    const char *name = espl__jinja_now(p)->text;
    for (int i = 0; i < 2; i++)
        made->json = strcmp(name, trues[i]) == 0    ? json_true()
                     : strcmp(name, falses[i]) == 0 ? json_false()
                     : strcmp(name, nones[i]) == 0  ? json_null()
                                                    : made->json;
    if (made->json != NULL)
        made->form = ESPL__JINJA_CONSTANT;
    else
        made->text = espl_strdup(name);
    p->at++;
    return espl__jinja_node_close(p, made);
}

static espl_status parse_primary(parser *p, node **out) {
    switch (espl__jinja_now(p)->kind) {
    case ESPL__JINJA_NAME: return parse_name(p, out);
    case ESPL__JINJA_STRING:
    case ESPL__JINJA_INTEGER:
    case ESPL__JINJA_REAL: return parse_constant(p, out);
    default: break;
    }
    if (is_operator(p, "("))
        return parse_brackets(p, out);
    bool list = is_operator(p, "[");
    if (!list && !is_operator(p, "{")) {
        espl__jinja_unexpected(p, "a value");
        return ESPL_ERR_DATA;
    }
    *out = espl__jinja_node_make(p, list ? ESPL__JINJA_LIST : ESPL__JINJA_MAPPING);
    p->at++;
    return list ? parse_elements(p, "]", *out) : parse_mapping(p, *out);
}

/* ---- What stands behind a value. */

static espl_status parse_arguments(parser *p, node *call) {
    while (!take_operator(p, ")")) {
        node *argument;
        const espl__jinja_token *token = espl__jinja_now(p);
        bool named = token->kind == ESPL__JINJA_NAME && strcmp(token[1].text, "=") == 0 && token[1].kind == ESPL__JINJA_OPERATOR;
        if (is_operator(p, "*") || is_operator(p, "**"))
            return espl__jinja_unexpected(p, "arguments one by one");
        if (named) {
            espl__jinja_node_name(call, token->text);
            p->at += 2;
        } else if (call->n_names > 0) {
            return espl__jinja_unexpected(p, "arguments by name behind those by name");
        }
        ESPL_TRY(parse_choice(p, &argument));
        espl__jinja_node_item(call, argument);
        if (!is_operator(p, ")"))
            ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ",", "arguments"));
    }
    return ESPL_OK;
}

/* [key] or [begin:end:step]. */
static espl_status parse_subscript(parser *p, node *of, node **out) {
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_ITEM);
    node *bounds[3] = {NULL};
    int colons = 0;
    p->at++;
    made->a = of;
    while (!take_operator(p, "]")) {
        if (take_operator(p, ":")) {
            if (++colons > 2)
                return espl__jinja_unexpected(p, "at most [begin:end:step]");
        } else if (bounds[colons] != NULL) {
            return espl__jinja_unexpected(p, "']'");
        } else {
            ESPL_TRY(parse_choice(p, &bounds[colons]));
        }
    }
    if (colons == 0 && bounds[0] == NULL)
        return espl__jinja_unexpected(p, "a key or index in brackets");
    made->b = bounds[0];
    if (colons > 0) {
        made->form = ESPL__JINJA_SLICE;
        made->b = NULL;
        for (int i = 0; i < 3; i++)
            espl__jinja_node_item(made, bounds[i]);
    }
    return espl__jinja_node_close(p, made);
}

/* .name; and a.0 is a[0]. */
static espl_status parse_attribute(parser *p, node *of, node **out) {
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_ATTRIBUTE);
    p->at++;
    made->a = of;
    const espl__jinja_token *token = espl__jinja_now(p);
    if (token->kind == ESPL__JINJA_INTEGER) {
        made->form = ESPL__JINJA_ITEM;
        ESPL_TRY(parse_constant(p, &made->b));
    } else if (token->kind == ESPL__JINJA_NAME) {
        made->text = espl_strdup(token->text);
        p->at++;
    } else {
        return espl__jinja_unexpected(p, "a name behind '.'");
    }
    return espl__jinja_node_close(p, made);
}

static espl_status parse_call(parser *p, node *of, node **out) {
    node *call = *out = espl__jinja_node_make(p, ESPL__JINJA_CALL);
    p->at++;
    call->a = of;
    call->line = of->line;
    call->column = of->column;
    ESPL_TRY(parse_arguments(p, call));
    return espl__jinja_node_close(p, call);
}

static espl_status parse_postfix(parser *p, node **out) {
    for (;;) {
        if (is_operator(p, "."))
            ESPL_TRY(parse_attribute(p, *out, out));
        else if (is_operator(p, "["))
            ESPL_TRY(parse_subscript(p, *out, out));
        else if (is_operator(p, "("))
            ESPL_TRY(parse_call(p, *out, out));
        else
            return ESPL_OK;
    }
}

static espl_status parse_filter(parser *p, node **out) {
    node *filter = espl__jinja_node_make(p, ESPL__JINJA_FILTER);
    p->at++;
    filter->a = *out;
    if (espl__jinja_now(p)->kind != ESPL__JINJA_NAME)
        return espl__jinja_unexpected(p, "a filter's name behind '|'");
    filter->line = espl__jinja_now(p)->line;
    filter->column = espl__jinja_now(p)->column;
    filter->text = espl_strdup(espl__jinja_now(p)->text);
    p->at++;
    if (take_operator(p, "("))
        ESPL_TRY(parse_arguments(p, filter));
    *out = filter;
    return espl__jinja_node_close(p, filter);
}

/* A test's one argument may stand without brackets. */
static bool argument_follows(const parser *p) {
    espl__jinja_kind kind = espl__jinja_now(p)->kind;
    if (kind == ESPL__JINJA_NAME)
        return !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and") && !is_name(p, "if") && !is_name(p, "in") &&
               !is_name(p, "is") && !is_name(p, "not");
    return kind == ESPL__JINJA_STRING || kind == ESPL__JINJA_INTEGER || kind == ESPL__JINJA_REAL || is_operator(p, "[") ||
           is_operator(p, "{");
}

static espl_status parse_test(parser *p, node **out) {
    node *test = espl__jinja_node_make(p, ESPL__JINJA_TEST), *argument = NULL;
    p->at++;
    test->a = *out;
    test->negated = take_name(p, "not");
    if (espl__jinja_now(p)->kind != ESPL__JINJA_NAME)
        return espl__jinja_unexpected(p, "a test's name behind 'is'");
    test->text = espl_strdup(espl__jinja_now(p)->text);
    p->at++;
    if (take_operator(p, "(")) {
        ESPL_TRY(parse_arguments(p, test));
    } else if (argument_follows(p)) {
        ESPL_TRY(parse_primary(p, &argument));
        ESPL_TRY(parse_postfix(p, &argument));
        espl__jinja_node_item(test, argument);
    }
    *out = test;
    return espl__jinja_node_close(p, test);
}

static espl_status parse_unary(parser *p, bool filters, node **out) {
    ESPL_TRY(descend(p));
    if (is_operator(p, "-") || is_operator(p, "+")) {
        node *sign = espl__jinja_node_make(p, is_operator(p, "-") ? ESPL__JINJA_NEGATIVE : ESPL__JINJA_POSITIVE);
        p->at++;
        ESPL_TRY(parse_unary(p, false, &sign->a));
        ESPL_TRY(espl__jinja_node_close(p, sign));
        *out = sign;
    } else {
        ESPL_TRY(parse_primary(p, out));
    }
    ESPL_TRY(parse_postfix(p, out));
    while (filters) {
        if (is_operator(p, "|"))
            ESPL_TRY(parse_filter(p, out));
        else if (is_name(p, "is"))
            ESPL_TRY(parse_test(p, out));
        else if (is_operator(p, "("))
            ESPL_TRY(parse_call(p, *out, out));
        else
            break;
    }
    p->depth--;
    return ESPL_OK;
}

/* ---- Operators. */

static const char *const products[] = {"*", "/", "//", "%", NULL}, *const joins[] = {"~", NULL}, *const sums[] = {"+", "-", NULL};
static const char *const *const levels[] = {sums, joins, products};
enum { LEVELS = sizeof levels / sizeof levels[0] };

static const char *operator_of(const parser *p, const char *const *of) {
    for (; *of != NULL; of++)
        if (is_operator(p, *of))
            return *of;
    return NULL;
}

static espl_status parse_level(parser *p, int level, node **out) {
    const char *text;
    if (level == LEVELS) {
        ESPL_TRY(parse_unary(p, true, out));
        return is_operator(p, "**") ? espl__jinja_unexpected(p, "+, -, *, /, //, % or ~: powers are not supported") : ESPL_OK;
    }
    ESPL_TRY(parse_level(p, level + 1, out));
    while ((text = operator_of(p, levels[level])) != NULL) {
        node *made = espl__jinja_node_make(p, ESPL__JINJA_BINARY);
        p->at++;
        made->a = *out;
        made->text = espl_strdup(text);
        ESPL_TRY(parse_level(p, level + 1, &made->b));
        ESPL_TRY(espl__jinja_node_close(p, made));
        *out = made;
    }
    return ESPL_OK;
}

/* The comparison in hand, used; NULL: none. */
static const char *take_comparison(parser *p) {
    static const char *const of[] = {"==", "!=", "<", ">", "<=", ">=", NULL};
    const espl__jinja_token *next = espl__jinja_now(p) + 1;
    const char *text = operator_of(p, of);
    if (text != NULL) {
        p->at++;
        return text;
    }
    if (take_name(p, "in"))
        return "in";
    if (is_name(p, "not") && next->kind == ESPL__JINJA_NAME && strcmp(next->text, "in") == 0) {
        p->at += 2;
        return "not in";
    }
    return NULL;
}

static espl_status parse_comparison(parser *p, node **out) {
    ESPL_TRY(parse_level(p, 0, out));
    node *made = NULL, *operand;
    for (const char *text; (text = take_comparison(p)) != NULL;) {
        if (made == NULL) {
            made = espl__jinja_node_make(p, ESPL__JINJA_COMPARE);
            made->a = *out;
        }
        espl__jinja_node_name(made, text);
        ESPL_TRY(parse_level(p, 0, &operand));
        espl__jinja_node_item(made, operand);
    }
    if (made == NULL)
        return ESPL_OK;
    *out = made;
    return espl__jinja_node_close(p, made);
}

static espl_status parse_not(parser *p, node **out) {
    if (!is_name(p, "not"))
        return parse_comparison(p, out);
    ESPL_TRY(descend(p));
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_NOT);
    p->at++;
    ESPL_TRY(parse_not(p, &made->a));
    p->depth--;
    return espl__jinja_node_close(p, made);
}

static espl_status parse_and(parser *p, node **out) {
    ESPL_TRY(parse_not(p, out));
    while (is_name(p, "and")) {
        node *made = espl__jinja_node_make(p, ESPL__JINJA_AND);
        p->at++;
        made->a = *out;
        ESPL_TRY(parse_not(p, &made->b));
        ESPL_TRY(espl__jinja_node_close(p, made));
        *out = made;
    }
    return ESPL_OK;
}

static espl_status parse_or(parser *p, node **out) {
    ESPL_TRY(parse_and(p, out));
    while (is_name(p, "or")) {
        node *made = espl__jinja_node_make(p, ESPL__JINJA_OR);
        p->at++;
        made->a = *out;
        ESPL_TRY(parse_and(p, &made->b));
        ESPL_TRY(espl__jinja_node_close(p, made));
        *out = made;
    }
    return ESPL_OK;
}

espl_status espl__jinja_expression(parser *p, bool tuple, node **out) {
    node *list = NULL;
    ESPL_TRY(parse_choice(p, out));
    while (tuple && take_operator(p, ",")) {
        if (list == NULL) {
            list = espl__jinja_node_make(p, ESPL__JINJA_LIST);
            espl__jinja_node_item(list, *out);
        }
        if (espl__jinja_now(p)->kind == ESPL__JINJA_BLOCK_END)
            break;
        ESPL_TRY(parse_choice(p, out));
        espl__jinja_node_item(list, *out);
    }
    if (list == NULL)
        return ESPL_OK;
    *out = list;
    return espl__jinja_node_close(p, list);
}
