/* Statements into a tree, and what parsing is made of. */
#include "io/jinja/jinja_parts.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

typedef espl__jinja_node node;
typedef espl__jinja_parser parser;

/* ---- Tokens in hand. */

const espl__jinja_token *espl__jinja_now(const parser *p) { return &p->tokens.at[p->at]; }

bool espl__jinja_is(const parser *p, espl__jinja_kind kind, const char *text) {
    const espl__jinja_token *token = espl__jinja_now(p);
    return token->kind == kind && (text == NULL || strcmp(token->text, text) == 0);
}

bool espl__jinja_take(parser *p, espl__jinja_kind kind, const char *text) {
    bool is = espl__jinja_is(p, kind, text);
    p->at += is;
    return is;
}

espl_status espl__jinja_unexpected(const parser *p, const char *expected) {
    static const char *const names[] = {[ESPL__JINJA_DATA] = "text",
                                        [ESPL__JINJA_PRINT_BEGIN] = "'{{'",
                                        [ESPL__JINJA_PRINT_END] = "'}}'",
                                        [ESPL__JINJA_BLOCK_BEGIN] = "'{%'",
                                        [ESPL__JINJA_BLOCK_END] = "'%}'",
                                        [ESPL__JINJA_STRING] = "a text",
                                        [ESPL__JINJA_END] = "the template's end"};
    const espl__jinja_token *token = espl__jinja_now(p);
    if (names[token->kind] != NULL)
        ESPL_FAIL(ESPL_ERR_DATA, "%s:%d:%d: %s, expected %s", p->jinja->name, token->line, token->column, names[token->kind], expected);
    ESPL_FAIL(ESPL_ERR_DATA, "%s:%d:%d: '%.40s', expected %s", p->jinja->name, token->line, token->column, token->text, expected);
}

espl_status espl__jinja_expect(parser *p, espl__jinja_kind kind, const char *text, const char *where) {
    if (espl__jinja_take(p, kind, text))
        return ESPL_OK;
    char expected[96];
    snprintf(expected, sizeof expected, "'%s' %s %s",
             text != NULL                    ? text
             : kind == ESPL__JINJA_BLOCK_END ? "%}"
                                             : "}}",
             kind == ESPL__JINJA_OPERATOR ? "in" : "behind", where);
    return espl__jinja_unexpected(p, expected);
}

/* ---- Nodes. */

node *espl__jinja_node_make(parser *p, espl__jinja_form form) {
    node *made = espl_calloc(1, sizeof *made);
    const espl__jinja_token *token = espl__jinja_now(p);
    made->form = form;
    made->line = token->line;
    made->column = token->column;
    made->next = p->jinja->nodes;
    p->jinja->nodes = made;
    return made;
}

void espl__jinja_node_item(node *made, node *item) {
    if (made->n == made->room)
        made->items = espl_realloc(made->items, (size_t)(made->room = 2 * made->room + 4) * sizeof(node *));
    made->items[made->n++] = item;
}

void espl__jinja_node_name(node *made, const char *name) {
    if (made->n_names == made->name_room)
        made->names = espl_realloc(made->names, (size_t)(made->name_room = 2 * made->name_room + 2) * sizeof(char *));
    made->names[made->n_names++] = espl_strdup(name);
}

espl_status espl__jinja_node_close(const parser *p, node *made) {
    const node *const parts[] = {made->a, made->b, made->c};
    int depth = 0;
    for (int i = 0; i < 3; i++)
        depth = parts[i] != NULL && parts[i]->depth > depth ? parts[i]->depth : depth;
    for (int i = 0; i < made->n; i++)
        depth = made->items[i] != NULL && made->items[i]->depth > depth ? made->items[i]->depth : depth;
    made->depth = depth + 1;
    return made->depth > ESPL__JINJA_DEPTH ? espl__jinja_unexpected(p, "fewer levels of nesting") : ESPL_OK;
}

/* ---- Statements. */

static espl_status parse_body(parser *p, node **out);

static bool at_tag(const parser *p, const char *name) {
    return espl__jinja_is(p, ESPL__JINJA_BLOCK_BEGIN, NULL) && p->tokens.at[p->at + 1].kind == ESPL__JINJA_NAME &&
           strcmp(p->tokens.at[p->at + 1].text, name) == 0;
}

static espl_status end_tag(parser *p, const char *where) { return espl__jinja_expect(p, ESPL__JINJA_BLOCK_END, NULL, where); }

/* Uses "{% name %}". */
static espl_status close_tag(parser *p, const char *name) {
    char expected[64];
    snprintf(expected, sizeof expected, "'{%% %s %%}'", name);
    if (!at_tag(p, name))
        return espl__jinja_unexpected(p, expected);
    p->at += 2;
    return end_tag(p, name);
}

static espl_status parse_name(parser *p, node *to) {
    if (!espl__jinja_is(p, ESPL__JINJA_NAME, NULL))
        return espl__jinja_unexpected(p, "a name");
    espl__jinja_node_name(to, espl__jinja_now(p)->text);
    p->at++;
    return ESPL_OK;
}

/* One name, or several between commas, with or without brackets. */
static espl_status parse_names(parser *p, node *to) {
    bool brackets = espl__jinja_take(p, ESPL__JINJA_OPERATOR, "(");
    do
        ESPL_TRY(parse_name(p, to));
    while (espl__jinja_take(p, ESPL__JINJA_OPERATOR, ","));
    return brackets ? espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ")", "names") : ESPL_OK;
}

/* Behind "if" or "elif". */
static espl_status parse_if(parser *p, node **out) {
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_IF);
    if (++p->depth > ESPL__JINJA_DEPTH)
        return espl__jinja_unexpected(p, "fewer levels of nesting");
    ESPL_TRY(espl__jinja_expression(p, false, &made->a));
    ESPL_TRY(end_tag(p, "a condition"));
    ESPL_TRY(parse_body(p, &made->b));
    if (at_tag(p, "elif")) {
        p->at += 2;
        ESPL_TRY(parse_if(p, &made->c));
    } else {
        if (at_tag(p, "else")) {
            p->at += 2;
            ESPL_TRY(end_tag(p, "else"));
            ESPL_TRY(parse_body(p, &made->c));
        }
        ESPL_TRY(close_tag(p, "endif"));
    }
    p->depth--;
    return espl__jinja_node_close(p, made);
}

static espl_status parse_for(parser *p, node **out) {
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_FOR), *condition = NULL;
    ESPL_TRY(parse_names(p, made));
    ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_NAME, "in", "a loop's names"));
    ESPL_TRY(espl__jinja_expression_plain(p, &made->a));
    if (espl__jinja_take(p, ESPL__JINJA_NAME, "if"))
        ESPL_TRY(espl__jinja_expression(p, false, &condition));
    espl__jinja_node_item(made, condition);
    if (espl__jinja_is(p, ESPL__JINJA_NAME, "recursive"))
        return espl__jinja_unexpected(p, "'%}': recursive loops are not supported");
    ESPL_TRY(end_tag(p, "a loop's list"));
    p->loops++;
    ESPL_TRY(parse_body(p, &made->b));
    p->loops--;
    if (at_tag(p, "else")) {
        p->at += 2;
        ESPL_TRY(end_tag(p, "else"));
        ESPL_TRY(parse_body(p, &made->c));
    }
    ESPL_TRY(close_tag(p, "endfor"));
    return espl__jinja_node_close(p, made);
}

static espl_status parse_set(parser *p, node **out) {
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_SET);
    ESPL_TRY(parse_names(p, made));
    if (made->n_names == 1 && espl__jinja_take(p, ESPL__JINJA_OPERATOR, ".")) {
        made->text = made->names[--made->n_names];
        ESPL_TRY(parse_name(p, made));
    }
    if (espl__jinja_take(p, ESPL__JINJA_OPERATOR, "=")) {
        ESPL_TRY(espl__jinja_expression(p, true, &made->a));
        ESPL_TRY(end_tag(p, "a value"));
        return espl__jinja_node_close(p, made);
    }
    if (made->n_names > 1 || made->text != NULL || !espl__jinja_is(p, ESPL__JINJA_BLOCK_END, NULL))
        return espl__jinja_unexpected(p, "'=' and a value");
    p->at++;
    made->form = ESPL__JINJA_SET_BLOCK;
    p->captures++;
    ESPL_TRY(parse_body(p, &made->b));
    p->captures--;
    ESPL_TRY(close_tag(p, "endset"));
    return espl__jinja_node_close(p, made);
}

static espl_status parse_parameters(parser *p, node *macro) {
    ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, "(", "a macro's name"));
    while (!espl__jinja_take(p, ESPL__JINJA_OPERATOR, ")")) {
        node *fallback = NULL;
        ESPL_TRY(parse_name(p, macro));
        if (espl__jinja_take(p, ESPL__JINJA_OPERATOR, "="))
            ESPL_TRY(espl__jinja_expression(p, false, &fallback));
        espl__jinja_node_item(macro, fallback);
        if (!espl__jinja_is(p, ESPL__JINJA_OPERATOR, ")"))
            ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_OPERATOR, ",", "a macro's parameters"));
    }
    return ESPL_OK;
}

static espl_status parse_macro(parser *p, node **out) {
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_MACRO);
    int loops = p->loops;
    if (!espl__jinja_is(p, ESPL__JINJA_NAME, NULL))
        return espl__jinja_unexpected(p, "a macro's name");
    if (p->loops > 0 || p->captures > 0)
        return espl__jinja_unexpected(p, "macros only outside of loops and other blocks");
    made->text = espl_strdup(espl__jinja_now(p)->text);
    p->at++;
    ESPL_TRY(parse_parameters(p, made));
    ESPL_TRY(end_tag(p, "a macro's parameters"));
    p->loops = 0;
    p->captures++;
    ESPL_TRY(parse_body(p, &made->b));
    p->captures--;
    p->loops = loops;
    ESPL_TRY(close_tag(p, "endmacro"));
    return espl__jinja_node_close(p, made);
}

static espl_status parse_generation(parser *p, node **out) {
    if (p->captures > 0)
        return espl__jinja_unexpected(p, "generation blocks only where what they write goes straight to the text");
    node *made = *out = espl__jinja_node_make(p, ESPL__JINJA_GENERATION);
    int loops = p->loops;
    ESPL_TRY(end_tag(p, "generation"));
    p->loops = 0;
    p->captures++;
    p->jinja->generates = true;
    ESPL_TRY(parse_body(p, &made->b));
    p->captures--;
    p->loops = loops;
    ESPL_TRY(close_tag(p, "endgeneration"));
    return espl__jinja_node_close(p, made);
}

static espl_status parse_leap(parser *p, espl__jinja_form form, node **out) {
    if (p->loops == 0)
        return espl__jinja_unexpected(p, "break and continue only in loops");
    *out = espl__jinja_node_make(p, form);
    ESPL_TRY(end_tag(p, "break or continue"));
    return espl__jinja_node_close(p, *out);
}

static espl_status parse_break(parser *p, node **out) { return parse_leap(p, ESPL__JINJA_BREAK, out); }
static espl_status parse_continue(parser *p, node **out) { return parse_leap(p, ESPL__JINJA_CONTINUE, out); }

static const struct {
    const char *name;
    espl_status (*parse)(parser *p, node **out);
} statements[] = {
    {"if", parse_if},       {"for", parse_for},          {"set", parse_set}, {"macro", parse_macro}, {"generation", parse_generation},
    {"break", parse_break}, {"continue", parse_continue}};
enum { STATEMENTS = sizeof statements / sizeof statements[0] };

static espl_status parse_tag(parser *p, node **out) {
    p->at++;
    for (int i = 0; i < STATEMENTS; i++)
        if (espl__jinja_take(p, ESPL__JINJA_NAME, statements[i].name))
            return statements[i].parse(p, out);
    return espl__jinja_unexpected(p, "if, for, set, macro, generation, break, continue or raw, or the end of an open block");
}

/* Whether the tag in hand ends or divides an open block. */
static bool closes(const parser *p) {
    static const char *const names[] = {"elif", "else", "endif", "endfor", "endset", "endmacro", "endgeneration"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (at_tag(p, names[i]))
            return true;
    return false;
}

static espl_status parse_piece(parser *p, node **out) {
    if (espl__jinja_is(p, ESPL__JINJA_BLOCK_BEGIN, NULL))
        return parse_tag(p, out);
    bool text = espl__jinja_is(p, ESPL__JINJA_DATA, NULL);
    node *made = *out = espl__jinja_node_make(p, text ? ESPL__JINJA_WRITE : ESPL__JINJA_PRINT);
    if (text) {
        const espl__jinja_token *token = espl__jinja_now(p);
        made->size = token->size;
        made->text = espl_malloc(token->size + 1);
        memcpy(made->text, token->text, token->size + 1);
        p->at++;
    } else {
        p->at++;
        ESPL_TRY(espl__jinja_expression(p, false, &made->a));
        ESPL_TRY(espl__jinja_expect(p, ESPL__JINJA_PRINT_END, NULL, "a value"));
    }
    return espl__jinja_node_close(p, made);
}

static espl_status parse_body(parser *p, node **out) {
    node *body = *out = espl__jinja_node_make(p, ESPL__JINJA_BODY), *piece;
    if (++p->depth > ESPL__JINJA_DEPTH)
        return espl__jinja_unexpected(p, "fewer levels of nesting");
    while (!espl__jinja_is(p, ESPL__JINJA_END, NULL) && !closes(p)) {
        ESPL_TRY(parse_piece(p, &piece));
        espl__jinja_node_item(body, piece);
    }
    p->depth--;
    return espl__jinja_node_close(p, body);
}

/* ---- The whole. */

static void free_node(node *made) {
    free(made->text);
    json_decref(made->json);
    free(made->items);
    for (int i = 0; i < made->n_names; i++)
        free(made->names[i]);
    free(made->names);
    free(made);
}

void espl_jinja_free(espl_jinja **jinja) {
    if (*jinja == NULL)
        return;
    for (node *at = (*jinja)->nodes, *next; at != NULL; at = next) {
        next = at->next;
        free_node(at);
    }
    free((*jinja)->name);
    free(*jinja);
    *jinja = NULL;
}

bool espl_jinja_generates(const espl_jinja *jinja) { return jinja->generates; }

uint64_t espl_jinja_hash(const espl_jinja *jinja) { return jinja->hash; }

espl_status espl_jinja_parse(const char *name, const char *text, size_t size, espl_jinja **jinja) {
    espl_status status = ESPL_OK;
    espl_jinja *made = *jinja = espl_calloc(1, sizeof *made);
    parser p = {.jinja = made};
    made->name = espl_strdup(name);
    made->hash = XXH3_64bits(text, size);
    ESPL_TRY_DONE(espl__jinja_lex(name, text, size, &p.tokens));
    ESPL_TRY_DONE(parse_body(&p, &made->root));
    if (!espl__jinja_is(&p, ESPL__JINJA_END, NULL)) {
        p.at++;
        status = espl__jinja_unexpected(&p, "an open block that this ends");
    }
done:
    espl__jinja_tokens_free(&p.tokens);
    if (status != ESPL_OK)
        espl_jinja_free(jinja);
    return status;
}
