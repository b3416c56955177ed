/* Statements and scopes. A loop, a macro and a generation block open a scope; what is set in one is gone behind it. */
#include "io/jinja/jinja_parts.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef espl__jinja_node node;
typedef espl__jinja_run run;
typedef espl__jinja_value value;

enum { DEFAULT_STEPS = 20000000, DEFAULT_BYTES = 256 << 20 };

/* ---- Failing, and budgets. */

espl_status espl__jinja_fail(const run *r, const node *at, const char *format, ...) {
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    ESPL_FAIL(ESPL_ERR_DATA, "%s:%d:%d: %s", r->jinja->name, at->line, at->column, message);
}

espl_status espl__jinja_spend(run *r, const node *at, size_t bytes) {
    if ((int64_t)bytes > r->left.bytes)
        return espl__jinja_fail(r, at, "the template makes too much text, expected less");
    r->left.bytes -= (int64_t)bytes;
    return ESPL_OK;
}

espl_status espl__jinja_step(run *r, const node *at) {
    if (--r->left.steps < 0)
        return espl__jinja_fail(r, at, "the template takes too many steps, expected fewer");
    if (r->depth > ESPL__JINJA_CALLS)
        return espl__jinja_fail(r, at, "calls are nested too deeply: does a macro call itself without end?");
    return ESPL_OK;
}

value espl__jinja_keep(run *r, json_t *json) {
    if (r->n_pool == r->pool_room)
        r->pool = espl_realloc(r->pool, (r->pool_room = 2 * r->pool_room + 256) * sizeof(json_t *));
    r->pool[r->n_pool++] = json;
    return (value){.type = ESPL__JINJA_JSON, .json = json};
}

/* ---- Scopes. */

typedef struct scope_mark {
    size_t scope, n;
} scope_mark;

static scope_mark open_scope(run *r) {
    scope_mark mark = {r->scope, r->n_variables};
    if (r->scopes++ == 0)
        r->root_end = r->n_variables;
    r->scope = r->n_variables;
    return mark;
}

static void close_scope(run *r, scope_mark mark) {
    r->scope = mark.scope;
    r->n_variables = mark.n;
    r->scopes--;
}

static const espl__jinja_variable *find_from(const run *r, const char *name, size_t begin, size_t end) {
    for (size_t i = end; i-- > begin;)
        if (strcmp(r->variables[i].name, name) == 0)
            return &r->variables[i];
    return NULL;
}

value espl__jinja_find(const run *r, const char *name) {
    const espl__jinja_variable *variable = find_from(r, name, r->base, r->n_variables);
    if (variable == NULL && r->base > 0)
        variable = find_from(r, name, 0, r->root_end);
    if (variable != NULL)
        return variable->value;
    const json_t *given = json_object_get(r->given, name);
    if (given != NULL)
        return espl__jinja_borrow(given);
    if (espl__jinja_is_builtin(name))
        return (value){.type = ESPL__JINJA_CALLABLE, .name = name};
    return espl__jinja_undefined(name);
}

void espl__jinja_assign(run *r, const char *name, const value *of) {
    espl__jinja_variable *variable = (espl__jinja_variable *)(uintptr_t)find_from(r, name, r->scope, r->n_variables);
    if (variable == NULL) {
        if (r->n_variables == r->variable_room)
            r->variables = espl_realloc(r->variables, (r->variable_room = 2 * r->variable_room + 32) * sizeof *r->variables);
        variable = &r->variables[r->n_variables++];
        variable->name = name;
    }
    variable->value = *of;
}

/* ---- Writing. */

static espl_status write_text(run *r, const node *at, const char *text, size_t size) {
    ESPL_TRY(espl__jinja_spend(r, at, size));
    espl_buffer_append(r->out, text, size);
    return ESPL_OK;
}

static espl_status execute_print(run *r, const node *n) {
    value of;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    if (espl__jinja_is_text(&of))
        return write_text(r, n, json_string_value(of.json), json_string_length(of.json));
    return espl__jinja_write(r, n, &of, r->out);
}

/* What a body writes, as a text. */
static espl_status capture(run *r, const node *at, const node *body, value *out) {
    espl_buffer text = {0}, *before = r->out;
    espl_buffer_reserve(&text, 1);
    r->out = &text;
    espl_status status = espl__jinja_execute(r, body);
    r->out = before;
    if (status == ESPL_OK)
        status = espl__jinja_string(r, at, text.data, text.size, out);
    espl_buffer_free(&text);
    return status;
}

static espl_status execute_generation(run *r, const node *n) {
    espl_jinja_output *output = r->output;
    scope_mark mark = open_scope(r);
    size_t begin = r->out->size;
    espl_status status = espl__jinja_execute(r, n->b);
    close_scope(r, mark);
    if (output->n == output->capacity)
        output->generated =
            espl_realloc(output->generated, (size_t)(output->capacity = 2 * output->capacity + 8) * sizeof *output->generated);
    output->generated[output->n++] = (espl_jinja_span){begin, r->out->size};
    return status;
}

/* ---- Setting. */

/* One value to one name, or the elements of a list to several. */
static espl_status assign_names(run *r, const node *at, const value *of) {
    if (at->n_names == 1) {
        espl__jinja_assign(r, at->names[0], of);
        return ESPL_OK;
    }
    json_t *elements;
    ESPL_TRY(espl__jinja_elements(r, at, of, &elements));
    if (json_array_size(elements) != (size_t)at->n_names)
        return espl__jinja_fail(r, at, "%zu values for %d names", json_array_size(elements), at->n_names);
    for (int i = 0; i < at->n_names; i++) {
        value item = espl__jinja_borrow(json_array_get(elements, (size_t)i));
        espl__jinja_assign(r, at->names[i], &item);
    }
    return ESPL_OK;
}

static espl_status set_in_namespace(run *r, const node *n, const value *of) {
    value space = espl__jinja_find(r, n->text);
    if (space.type != ESPL__JINJA_NAMESPACE)
        return espl__jinja_fail(r, n, "'%s' is %s, expected a namespace", n->text, espl__jinja_type_name(&space));
    if (of->type != ESPL__JINJA_JSON && of->type != ESPL__JINJA_UNDEFINED)
        return espl__jinja_fail(r, n, "a namespace cannot hold %s", espl__jinja_type_name(of));
    if (of->type == ESPL__JINJA_UNDEFINED)
        json_object_del(space.json, n->names[0]);
    else
        json_object_set(space.json, n->names[0], of->json);
    return ESPL_OK;
}

static espl_status execute_set(run *r, const node *n) {
    value of;
    ESPL_TRY(n->form == ESPL__JINJA_SET_BLOCK ? capture(r, n, n->b, &of) : espl__jinja_evaluate(r, n->a, &of));
    return n->text != NULL ? set_in_namespace(r, n, &of) : assign_names(r, n, &of);
}

/* ---- Loops. */

static value describe_loop(run *r, const json_t *list, size_t i) {
    json_int_t n = (json_int_t)json_array_size(list), at = (json_int_t)i;
    json_t *loop = json_object();
    value made = espl__jinja_keep(r, loop);
    made.type = ESPL__JINJA_LOOP;
    json_object_set_new(loop, "index", json_integer(at + 1));
    json_object_set_new(loop, "index0", json_integer(at));
    json_object_set_new(loop, "revindex", json_integer(n - at));
    json_object_set_new(loop, "revindex0", json_integer(n - at - 1));
    json_object_set_new(loop, "first", json_boolean(at == 0));
    json_object_set_new(loop, "last", json_boolean(at == n - 1));
    json_object_set_new(loop, "length", json_integer(n));
    if (at > 0)
        json_object_set(loop, "previtem", json_array_get(list, i - 1));
    if (at < n - 1)
        json_object_set(loop, "nextitem", json_array_get(list, i + 1));
    return made;
}

/* The elements for which the loop's condition holds. */
static espl_status choose_elements(run *r, const node *n, json_t **list) {
    json_t *chosen = json_array();
    espl_status status = ESPL_OK;
    espl__jinja_keep(r, chosen);
    for (size_t i = 0; i < json_array_size(*list) && status == ESPL_OK; i++) {
        value item = espl__jinja_borrow(json_array_get(*list, i)), condition = item;
        scope_mark mark = open_scope(r);
        status = assign_names(r, n, &item);
        if (status == ESPL_OK)
            status = espl__jinja_evaluate(r, n->items[0], &condition);
        close_scope(r, mark);
        if (status == ESPL_OK && espl__jinja_truth(&condition))
            json_array_append(chosen, item.json);
    }
    *list = chosen;
    return status;
}

static espl_status execute_turn(run *r, const node *n, const json_t *list, size_t i) {
    value loop = describe_loop(r, list, i), item = espl__jinja_borrow(json_array_get(list, i));
    scope_mark mark = open_scope(r);
    espl__jinja_assign(r, "loop", &loop);
    espl_status status = assign_names(r, n, &item);
    if (status == ESPL_OK)
        status = espl__jinja_execute(r, n->b);
    close_scope(r, mark);
    return status;
}

static espl_status execute_for(run *r, const node *n) {
    value of;
    json_t *list;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &of));
    ESPL_TRY(espl__jinja_elements(r, n, &of, &list));
    if (n->items[0] != NULL)
        ESPL_TRY(choose_elements(r, n, &list));
    size_t turns = json_array_size(list);
    for (size_t i = 0; i < turns; i++) {
        ESPL_TRY(espl__jinja_step(r, n));
        ESPL_TRY(execute_turn(r, n, list, i));
        bool broken = r->flow == ESPL__JINJA_BREAKS;
        r->flow = ESPL__JINJA_GOES_ON;
        if (broken)
            break;
    }
    return turns == 0 && n->c != NULL ? espl__jinja_execute(r, n->c) : ESPL_OK;
}

/* ---- Macros. */

static espl_status bind_macro(run *r, const node *at, const node *macro, const espl__jinja_arguments *arguments) {
    int by_place = arguments->n - arguments->n_names, used = 0;
    if (by_place > macro->n_names)
        return espl__jinja_fail(r, at, "macro %s takes %d arguments, not %d", macro->text, macro->n_names, by_place);
    for (int i = 0; i < macro->n_names; i++) {
        value given = i < by_place ? arguments->at[i] : espl__jinja_undefined(macro->names[i]);
        bool found = i < by_place;
        for (int k = 0; k < arguments->n_names && !found; k++)
            if (strcmp(arguments->names[k], macro->names[i]) == 0) {
                given = arguments->at[by_place + k];
                found = true;
                used++;
            }
        if (!found && macro->items[i] != NULL)
            ESPL_TRY(espl__jinja_evaluate(r, macro->items[i], &given));
        espl__jinja_assign(r, macro->names[i], &given);
    }
    return used == arguments->n_names ? ESPL_OK : espl__jinja_fail(r, at, "macro %s has no parameter of a name given here", macro->text);
}

espl_status espl__jinja_macro(run *r, const node *at, const node *macro, const espl__jinja_arguments *arguments, value *out) {
    size_t base = r->base;
    ESPL_TRY(espl__jinja_step(r, at));
    scope_mark mark = open_scope(r);
    r->base = r->scope;
    r->depth += 4;
    espl_status status = bind_macro(r, at, macro, arguments);
    if (status == ESPL_OK)
        status = capture(r, at, macro->b, out);
    r->depth -= 4;
    r->base = base;
    close_scope(r, mark);
    return status;
}

/* ---- All statements. */

static espl_status execute_if(run *r, const node *n) {
    value condition;
    ESPL_TRY(espl__jinja_evaluate(r, n->a, &condition));
    const node *body = espl__jinja_truth(&condition) ? n->b : n->c;
    return body != NULL ? espl__jinja_execute(r, body) : ESPL_OK;
}

static espl_status execute_body(run *r, const node *n) {
    for (int i = 0; i < n->n && r->flow == ESPL__JINJA_GOES_ON; i++)
        ESPL_TRY(espl__jinja_execute(r, n->items[i]));
    return ESPL_OK;
}

static espl_status execute_form(run *r, const node *n) {
    value macro = {.type = ESPL__JINJA_CALLABLE, .macro = n, .name = n->text};
    switch (n->form) {
    case ESPL__JINJA_WRITE: return write_text(r, n, n->text, n->size);
    case ESPL__JINJA_PRINT: return execute_print(r, n);
    case ESPL__JINJA_BODY: return execute_body(r, n);
    case ESPL__JINJA_IF: return execute_if(r, n);
    case ESPL__JINJA_FOR: return execute_for(r, n);
    case ESPL__JINJA_SET:
    case ESPL__JINJA_SET_BLOCK: return execute_set(r, n);
    case ESPL__JINJA_MACRO: espl__jinja_assign(r, n->text, &macro); return ESPL_OK;
    case ESPL__JINJA_GENERATION: return execute_generation(r, n);
    default: r->flow = n->form == ESPL__JINJA_BREAK ? ESPL__JINJA_BREAKS : ESPL__JINJA_CONTINUES; return ESPL_OK;
    }
}

espl_status espl__jinja_execute(run *r, const node *n) {
    ESPL_TRY(espl__jinja_step(r, n));
    r->depth++;
    espl_status status = execute_form(r, n);
    r->depth--;
    return status;
}

/* ---- The whole. */

/* The youngest first: what holds others goes before they do, so that nothing deep is freed in one go. */
static void free_run(run *r) {
    while (r->n_pool > 0)
        json_decref(r->pool[--r->n_pool]);
    free(r->pool);
    free(r->variables);
}

espl_status espl_jinja_render(const espl_jinja *jinja, const json_t *variables, const char *date, const espl_jinja_limits *limits,
                              espl_jinja_output *output) {
    run r = {.jinja = jinja, .given = variables, .date = date != NULL ? date : "", .out = &output->text, .output = output};
    r.left.steps = limits != NULL && limits->steps > 0 ? limits->steps : DEFAULT_STEPS;
    r.left.bytes = limits != NULL && limits->bytes > 0 ? limits->bytes : DEFAULT_BYTES;
    output->text.size = 0;
    output->n = 0;
    espl_buffer_reserve(&output->text, 1);
    output->text.data[0] = '\0';
    espl_status status = espl__jinja_execute(&r, jinja->root);
    free_run(&r);
    return status;
}

void espl_jinja_output_free(espl_jinja_output *output) {
    espl_buffer_free(&output->text);
    free(output->generated);
    *output = (espl_jinja_output){0};
}
