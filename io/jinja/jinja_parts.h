/* What the files of this folder share: text ─► tokens (jinja_lex.c) ─► tree (jinja_parse.c, jinja_expression.c) ─► text (jinja_render.c for
 * statements, jinja_evaluate.c for expressions, jinja_operators.c, jinja_filters.c, jinja_tests.c, jinja_methods.c for what they call).
 * Local, all. */
#ifndef ESPL_IO_JINJA_PARTS_H
#define ESPL_IO_JINJA_PARTS_H

#include "io/jinja/jinja.h"

enum { ESPL__JINJA_DEPTH = 200, ESPL__JINJA_CALLS = 600, ESPL__JINJA_PARAMETERS = 4 };

/* ---- Tokens. */

typedef enum espl__jinja_kind {
    ESPL__JINJA_DATA,
    ESPL__JINJA_PRINT_BEGIN,
    ESPL__JINJA_PRINT_END,
    ESPL__JINJA_BLOCK_BEGIN,
    ESPL__JINJA_BLOCK_END,
    ESPL__JINJA_NAME,
    ESPL__JINJA_STRING, /* unescaped */
    ESPL__JINJA_INTEGER,
    ESPL__JINJA_REAL,
    ESPL__JINJA_OPERATOR,
    ESPL__JINJA_END
} espl__jinja_kind;

typedef struct espl__jinja_token {
    espl__jinja_kind kind;
    char *text; /* owned, terminated */
    size_t size;
    int line, column; /* from 1; columns in bytes */
} espl__jinja_token;

typedef struct espl__jinja_tokens {
    espl__jinja_token *at;
    size_t n, capacity;
} espl__jinja_tokens;

/* Local. Cuts a template into tokens, the last one END. Errors: data. */
espl_status espl__jinja_lex(const char *name, const char *text, size_t size, espl__jinja_tokens *tokens);
void espl__jinja_tokens_free(espl__jinja_tokens *tokens);

/* ---- The tree. */

typedef enum espl__jinja_form {
    /* expressions */
    ESPL__JINJA_CONSTANT,  /* json */
    ESPL__JINJA_VARIABLE,  /* text */
    ESPL__JINJA_LIST,      /* items */
    ESPL__JINJA_MAPPING,   /* items: key, value, ... */
    ESPL__JINJA_ATTRIBUTE, /* a.text */
    ESPL__JINJA_ITEM,      /* a[b] */
    ESPL__JINJA_SLICE,     /* a[items[0]:items[1]:items[2]], NULL: absent */
    ESPL__JINJA_CALL,      /* a(items), names of those by name */
    ESPL__JINJA_FILTER,    /* a | text(items) */
    ESPL__JINJA_TEST,      /* a is text(items) */
    ESPL__JINJA_NOT,
    ESPL__JINJA_NEGATIVE,
    ESPL__JINJA_POSITIVE,
    ESPL__JINJA_AND,
    ESPL__JINJA_OR,
    ESPL__JINJA_BINARY,  /* a text b */
    ESPL__JINJA_COMPARE, /* a names[0] items[0] names[1] items[1] ... */
    ESPL__JINJA_CHOICE,  /* a if b else c (NULL: absent) */
    /* statements */
    ESPL__JINJA_WRITE,      /* text as it is */
    ESPL__JINJA_PRINT,      /* a */
    ESPL__JINJA_BODY,       /* items */
    ESPL__JINJA_IF,         /* a: condition, b: body, c: other body or NULL */
    ESPL__JINJA_FOR,        /* names in a, if items[0] (may be NULL): b, else c */
    ESPL__JINJA_SET,        /* names = a; with text: the namespace `text`'s names[0] = a */
    ESPL__JINJA_SET_BLOCK,  /* names[0] = what b writes */
    ESPL__JINJA_MACRO,      /* text(names), defaults items (NULL: none), body b */
    ESPL__JINJA_GENERATION, /* b */
    ESPL__JINJA_BREAK,
    ESPL__JINJA_CONTINUE
} espl__jinja_form;

typedef struct espl__jinja_node espl__jinja_node;
struct espl__jinja_node {
    espl__jinja_form form;
    int line, column, depth;
    bool negated; /* tests */
    char *text;   /* owned, as are those below but for the nodes */
    size_t size;
    json_t *json;
    espl__jinja_node *a, *b, *c;
    espl__jinja_node **items; /* [n]; of calls the last n_names are given by name */
    char **names;             /* [n_names] */
    int n, n_names, room, name_room;
    espl__jinja_node *next; /* of all the template's nodes */
};

struct espl_jinja {
    char *name;
    espl__jinja_node *root, *nodes;
    bool generates;
    uint64_t hash;
};

typedef struct espl__jinja_parser {
    espl_jinja *jinja;
    espl__jinja_tokens tokens;
    size_t at;
    int depth, loops, captures;
} espl__jinja_parser;

const espl__jinja_token *espl__jinja_now(const espl__jinja_parser *p);

/* Local. Whether the token in hand is an operator or a name of this spelling; take: and uses it. */
bool espl__jinja_is(const espl__jinja_parser *p, espl__jinja_kind kind, const char *text);
bool espl__jinja_take(espl__jinja_parser *p, espl__jinja_kind kind, const char *text);
espl_status espl__jinja_expect(espl__jinja_parser *p, espl__jinja_kind kind, const char *text, const char *where);

/* Local. A node at the token in hand, and its parts. */
espl__jinja_node *espl__jinja_node_make(espl__jinja_parser *p, espl__jinja_form form);
void espl__jinja_node_item(espl__jinja_node *node, espl__jinja_node *item);
void espl__jinja_node_name(espl__jinja_node *node, const char *name);

/* Local. Says how deep a finished node is. Errors: data, when too deep. */
espl_status espl__jinja_node_close(const espl__jinja_parser *p, espl__jinja_node *node);

/* Local. An expression; with `tuple` also several between commas, as a list. */
espl_status espl__jinja_expression(espl__jinja_parser *p, bool tuple, espl__jinja_node **node);

/* Local. The same without "a if b else c", as a loop's list stands before its condition. */
espl_status espl__jinja_expression_plain(espl__jinja_parser *p, espl__jinja_node **node);

/* Local. Fails at the token in hand. */
espl_status espl__jinja_unexpected(const espl__jinja_parser *p, const char *expected);

/* ---- Values. */

typedef enum espl__jinja_type {
    ESPL__JINJA_UNDEFINED,
    ESPL__JINJA_JSON,
    ESPL__JINJA_NAMESPACE, /* json: an object that changes */
    ESPL__JINJA_LOOP,      /* json: an object */
    ESPL__JINJA_CALLABLE,  /* macro, or NULL: the built-in function `name` */
} espl__jinja_type;

typedef struct espl__jinja_value {
    espl__jinja_type type;
    json_t *json; /* borrowed: of the variables, the tree or the run's pool */
    const espl__jinja_node *macro;
    const char *name; /* of what is undefined, or of a function */
} espl__jinja_value;

typedef struct espl__jinja_variable {
    const char *name;
    espl__jinja_value value;
} espl__jinja_variable;

/* One rendering. All that it makes stays in the pool until its end. */
typedef struct espl__jinja_run {
    const espl_jinja *jinja;
    const json_t *given;
    const char *date;
    espl_jinja_limits left;
    int depth, captures;
    json_t **pool;
    size_t n_pool, pool_room;
    espl__jinja_variable *variables;
    size_t n_variables, variable_room;
    size_t scope, base, root_end; /* where the innermost scope, the macro's first and the end of the outermost lie */
    int scopes;
    enum { ESPL__JINJA_GOES_ON, ESPL__JINJA_BREAKS, ESPL__JINJA_CONTINUES } flow;
    espl_buffer *out;
    espl_jinja_output *output;
} espl__jinja_run;

/* Local. Fails at a node: "NAME:LINE:COLUMN: ...". */
espl_status espl__jinja_fail(const espl__jinja_run *run, const espl__jinja_node *at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Local. Takes bytes from the budget; and steps. */
espl_status espl__jinja_spend(espl__jinja_run *run, const espl__jinja_node *at, size_t bytes);
espl_status espl__jinja_step(espl__jinja_run *run, const espl__jinja_node *at);

/* Local. Gives a fresh reference to the pool. */
espl__jinja_value espl__jinja_keep(espl__jinja_run *run, json_t *json);
espl_status espl__jinja_string(espl__jinja_run *run, const espl__jinja_node *at, const char *text, size_t size, espl__jinja_value *value);
espl__jinja_value espl__jinja_borrow(const json_t *json);
espl__jinja_value espl__jinja_undefined(const char *name);
espl__jinja_value espl__jinja_bool(bool truth);

bool espl__jinja_truth(const espl__jinja_value *value);
bool espl__jinja_is_text(const espl__jinja_value *value);

/* Local. What kind of value it is, for messages. */
const char *espl__jinja_type_name(const espl__jinja_value *value);

/* Local. Appends a value as Python's str() writes it, or as a piece of a list (repr). Errors: data, of what has no text. */
espl_status espl__jinja_write(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *value, espl_buffer *out);

/* Local. Appends JSON as Python's json.dumps does; indent < 0: on one line. */
espl_status espl__jinja_dump(espl__jinja_run *run, const espl__jinja_node *at, const json_t *json, int indent, bool ascii, bool sorted,
                             espl_buffer *out);

/* Local. The elements of a list, characters of a text, keys of a mapping; none of what is undefined. */
espl_status espl__jinja_elements(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *value, json_t **array);

/* Local. Python's order and equality; `in`. */
bool espl__jinja_equal(const json_t *a, const json_t *b, int depth);
espl_status espl__jinja_order(const espl__jinja_run *run, const espl__jinja_node *at, const json_t *a, const json_t *b, int *order);
espl_status espl__jinja_contains(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *item,
                                 const espl__jinja_value *in, bool *found);

/* Local. White space by Python's str.isspace at s[at]; its bytes, 0: none. */
size_t espl__jinja_space(const char *s, size_t n);
size_t espl__jinja_space_before(const char *s, size_t n);

/* Local. A text without the characters of `strip` (NULL: white space) at its ends. */
void espl__jinja_strip(const char **text, size_t *size, const char *strip, size_t n_strip, bool left, bool right);

/* Local. Upper or lower case, letter by letter. */
void espl__jinja_case(const char *text, size_t size, bool upper, espl_buffer *out);

/* ---- Operators and calls. */

espl_status espl__jinja_evaluate(espl__jinja_run *run, const espl__jinja_node *node, espl__jinja_value *value);
espl_status espl__jinja_binary(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *a, const espl__jinja_value *b,
                               espl__jinja_value *value);
espl_status espl__jinja_attribute(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of, const char *name,
                                  espl__jinja_value *value);
espl_status espl__jinja_item(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of, const espl__jinja_value *key,
                             espl__jinja_value *value);
espl_status espl__jinja_slice(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of,
                              const espl__jinja_value bounds[3], espl__jinja_value *value);

/* Arguments of a call as they were written. */
typedef struct espl__jinja_arguments {
    espl__jinja_value *at; /* [n]; the last n_names by name; the run's pool does not own this list */
    char *const *names;
    int n, n_names;
} espl__jinja_arguments;

/* Something that is called: its parameters' names, and what it does with them ([ESPL__JINJA_PARAMETERS], UNDEFINED where not given). */
typedef struct espl__jinja_function {
    const char *name;
    const char *parameters[ESPL__JINJA_PARAMETERS];
    int needed;
    espl_status (*call)(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of, const espl__jinja_value *arguments,
                        espl__jinja_value *value);
} espl__jinja_function;

/* Local. Puts arguments in their places. Errors: data, of too many, too few, unknown names. */
espl_status espl__jinja_bind(const espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_function *function,
                             const espl__jinja_arguments *arguments, espl__jinja_value bound[ESPL__JINJA_PARAMETERS]);

espl_status espl__jinja_filter(espl__jinja_run *run, const espl__jinja_node *at, const char *name, const espl__jinja_value *of,
                               const espl__jinja_arguments *arguments, espl__jinja_value *value);
espl_status espl__jinja_test(espl__jinja_run *run, const espl__jinja_node *at, const char *name, const espl__jinja_value *of,
                             const espl__jinja_arguments *arguments, bool *truth);
espl_status espl__jinja_method(espl__jinja_run *run, const espl__jinja_node *at, const char *name, const espl__jinja_value *of,
                               const espl__jinja_arguments *arguments, espl__jinja_value *value);

/* Local. A method of mappings: as an attribute it hides a key of the same name. */
bool espl__jinja_is_mapping_method(const char *name);

/* Local. Fails with the names that are there. */
espl_status espl__jinja_unknown(const espl__jinja_run *run, const espl__jinja_node *at, const char *what, const char *name,
                                const espl__jinja_function *functions, size_t n);

/* Local. A built-in function, by its name. */
bool espl__jinja_is_builtin(const char *name);
espl_status espl__jinja_builtin(espl__jinja_run *run, const espl__jinja_node *at, const char *name, const espl__jinja_arguments *arguments,
                                espl__jinja_value *value);

/* ---- Statements and scopes. */

espl_status espl__jinja_execute(espl__jinja_run *run, const espl__jinja_node *node);

/* Local. Runs a macro; its value is what it writes. */
espl_status espl__jinja_macro(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_node *macro,
                              const espl__jinja_arguments *arguments, espl__jinja_value *value);

/* Local. A name's value, UNDEFINED when it has none; and sets one in the innermost scope. */
espl__jinja_value espl__jinja_find(const espl__jinja_run *run, const char *name);
void espl__jinja_assign(espl__jinja_run *run, const char *name, const espl__jinja_value *value);

#endif
