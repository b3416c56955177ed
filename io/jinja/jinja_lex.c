/* Templates into tokens. White space goes as Jinja's lexer takes it with trim_blocks and lstrip_blocks: a block's tag takes the newline
 * behind it, and what is blank before it on its line; "-" takes all white space on its side, "+" keeps it. */
#include "io/jinja/jinja_parts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    const char *name;
    const char *text;
    size_t size, at;
    espl__jinja_tokens *tokens;
} lexer;

static void place_of(const lexer *l, size_t at, int *line, int *column) {
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        *column = l->text[i] == '\n' ? 1 : *column + 1;
        *line += l->text[i] == '\n';
    }
}

static espl_status fail_at(const lexer *l, size_t at, const char *what) {
    int line, column;
    place_of(l, at, &line, &column);
    ESPL_FAIL(ESPL_ERR_DATA, "%s:%d:%d: %s", l->name, line, column, what);
}

/* Places are filled in afterwards, in one pass: `line` holds the token's begin until then. */
static void push(lexer *l, espl__jinja_kind kind, size_t begin, const char *text, size_t size) {
    espl__jinja_tokens *list = l->tokens;
    if (list->n == list->capacity)
        list->at = espl_realloc(list->at, (list->capacity = 2 * list->capacity + 64) * sizeof *list->at);
    espl__jinja_token *token = &list->at[list->n++];
    *token = (espl__jinja_token){.kind = kind, .text = espl_malloc(size + 1), .size = size, .line = (int)begin};
    memcpy(token->text, text, size);
    token->text[size] = '\0';
}

static void set_places(lexer *l) {
    size_t at = 0;
    int line = 1, column = 1;
    for (size_t i = 0; i < l->tokens->n; i++) {
        espl__jinja_token *token = &l->tokens->at[i];
        for (size_t begin = (size_t)token->line; at < begin; at++) {
            column = l->text[at] == '\n' ? 1 : column + 1;
            line += l->text[at] == '\n';
        }
        token->line = line;
        token->column = column;
    }
}

/* ---- Text between tags. */

static size_t find_tag(const lexer *l) {
    for (size_t i = l->at; i + 1 < l->size; i++)
        if (l->text[i] == '{' && (l->text[i + 1] == '%' || l->text[i + 1] == '{' || l->text[i + 1] == '#'))
            return i;
    return l->size;
}

static bool is_blank(const char *text, size_t size) {
    for (size_t at = 0, n; at < size; at += n)
        if ((n = espl__jinja_space(text + at, size - at)) == 0)
            return false;
    return true;
}

/* Where the text before a tag ends. */
static size_t end_of_data(const lexer *l, size_t tag) {
    const char *from = l->text + l->at;
    size_t size = tag - l->at, line = size;
    char kind = l->text[tag + 1], sign = tag + 2 < l->size ? l->text[tag + 2] : '\0';
    if (sign == '-') {
        for (size_t n; (n = espl__jinja_space_before(from, size)) > 0;)
            size -= n;
        return l->at + size;
    }
    while (line > 0 && from[line - 1] != '\n')
        line--;
    bool begins = line > 0 || l->at == 0 || l->text[l->at - 1] == '\n';
    if (sign != '+' && kind != '{' && begins && is_blank(from + line, size - line))
        return l->at + line;
    return tag;
}

/* Uses a tag's closing characters; what the tag takes of the text behind it goes with them. */
static void use_end(lexer *l, char sign, bool block) {
    if (sign == '-')
        for (size_t n; (n = espl__jinja_space(l->text + l->at, l->size - l->at)) > 0;)
            l->at += n;
    else if (sign != '+' && block && l->at < l->size && l->text[l->at] == '\n')
        l->at++;
}

static espl_status skip_comment(lexer *l, size_t begin) {
    const char *end = memmem(l->text + begin + 2, l->size - begin - 2, "#}", 2);
    if (end == NULL)
        return fail_at(l, begin, "a comment is not closed, expected '#}'");
    char sign = end - (l->text + begin) > 2 ? end[-1] : '\0';
    l->at = (size_t)(end - l->text) + 2;
    use_end(l, sign, true);
    return ESPL_OK;
}

/* The length of a "{% word %}" at `from`, its sign behind the word; 0: it is another tag. */
static size_t match_word(const lexer *l, size_t from, const char *word, char *first, char *last) {
    size_t at = from + 2, n = strlen(word);
    if (from + 2 > l->size || memcmp(l->text + from, "{%", 2) != 0)
        return 0;
    *first = at < l->size ? l->text[at] : '\0';
    at += *first == '-' || *first == '+';
    while (at < l->size && isspace((unsigned char)l->text[at]))
        at++;
    if (l->size - at < n || memcmp(l->text + at, word, n) != 0)
        return 0;
    for (at += n; at < l->size && isspace((unsigned char)l->text[at]);)
        at++;
    *last = at < l->size ? l->text[at] : '\0';
    at += *last == '-' || *last == '+';
    return l->size - at >= 2 && memcmp(l->text + at, "%}", 2) == 0 ? at + 2 - from : 0;
}

/* Text between "{% raw %}" and "{% endraw %}" is text. */
static espl_status take_raw(lexer *l, size_t tag, size_t length, char sign) {
    char first, last = '\0';
    size_t end = tag + length, n = 0;
    l->at = end;
    use_end(l, sign, true);
    for (end = l->at; end < l->size && (n = match_word(l, end, "endraw", &first, &last)) == 0;)
        end++;
    if (n == 0)
        return fail_at(l, tag, "a raw block is not closed, expected '{% endraw %}'");
    push(l, ESPL__JINJA_DATA, l->at, l->text + l->at, end_of_data(l, end) - l->at);
    l->at = end + n;
    use_end(l, last, true);
    return ESPL_OK;
}

/* ---- Within tags. */

static size_t name_length(const lexer *l) {
    size_t n = 0;
    while (l->at + n < l->size && (isalnum((unsigned char)l->text[l->at + n]) || l->text[l->at + n] == '_'))
        n++;
    return n;
}

static size_t digits_at(const lexer *l, size_t at) {
    size_t n = 0;
    while (at + n < l->size && isdigit((unsigned char)l->text[at + n]))
        n++;
    return n;
}

static void take_number(lexer *l) {
    size_t begin = l->at, n = digits_at(l, begin), more;
    bool real = false;
    if (begin + n < l->size && l->text[begin + n] == '.' && (more = digits_at(l, begin + n + 1)) > 0) {
        n += 1 + more;
        real = true;
    }
    if (begin + n < l->size && (l->text[begin + n] == 'e' || l->text[begin + n] == 'E')) {
        size_t sign = begin + n + 1 < l->size && (l->text[begin + n + 1] == '-' || l->text[begin + n + 1] == '+');
        if ((more = digits_at(l, begin + n + 1 + sign)) > 0) {
            n += 1 + sign + more;
            real = true;
        }
    }
    l->at += n;
    push(l, real ? ESPL__JINJA_REAL : ESPL__JINJA_INTEGER, begin, l->text + begin, n);
}

static void put_code(espl_buffer *out, unsigned long code) {
    char bytes[4];
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 0; code >>= 6)
        bytes[i] = (char)(i > 0 ? 0x80 | (code & 0x3F) : lead[n] | code);
    espl_buffer_append(out, bytes, n);
}

/* A character by its number, "\x41" or "\u0041"; false when it is none. */
static bool put_numbered(const char *digits, size_t available, size_t n, espl_buffer *out) {
    char number[9] = {0};
    if (available < n)
        return false;
    memcpy(number, digits, n);
    for (size_t i = 0; i < n; i++)
        if (!isxdigit((unsigned char)number[i]))
            return false;
    unsigned long code = strtoul(number, NULL, 16);
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return false;
    put_code(out, code);
    return true;
}

/* What stands behind a backslash; returns its bytes, 0: it is no character. */
static size_t put_escape(const char *at, size_t available, espl_buffer *out) {
    static const char from[] = "nrtabfv\\'\"", to[] = "\n\r\t\a\b\f\v\\'\"";
    const char *known = available > 0 && *at != '\0' ? strchr(from, *at) : NULL;
    size_t digits = available == 0 ? 0 : *at == 'x' ? 2 : *at == 'u' ? 4 : *at == 'U' ? 8 : 0;
    if (known != NULL)
        espl_buffer_append(out, &to[known - from], 1);
    else if (digits > 0)
        return put_numbered(at + 1, available - 1, digits, out) ? 1 + digits : 0;
    else if (available > 0 && *at >= '0' && *at <= '7')
        return 0; /* octal numbers: no public template has one */
    else if (available > 0 && *at != '\n')
        espl_buffer_append(out, (char[]){'\\', *at}, 2);
    return 1;
}

static espl_status take_string(lexer *l) {
    espl_status status = ESPL_OK;
    espl_buffer text = {0};
    size_t begin = l->at;
    char quote = l->text[l->at++];
    espl_buffer_reserve(&text, 1);
    while (l->at < l->size && l->text[l->at] != quote) {
        size_t n = 1;
        if (l->text[l->at] == '\\') {
            l->at++;
            n = put_escape(l->text + l->at, l->size - l->at, &text);
            if (n == 0) {
                status = fail_at(l, l->at - 1, "not a character, expected an escape like \\n, \\', \\x41 or \\u0041");
                goto done;
            }
        } else {
            espl_buffer_append(&text, l->text + l->at, 1);
        }
        l->at += n;
    }
    if (l->at >= l->size) {
        status = fail_at(l, begin, "a text in quotes is not closed");
        goto done;
    }
    l->at++;
    push(l, ESPL__JINJA_STRING, begin, text.data != NULL ? text.data : "", text.size);
done:
    espl_buffer_free(&text);
    return status;
}

static espl_status take_operator(lexer *l, int *open) {
    static const char *const two[] = {"==", "!=", ">=", "<=", "//", "**"};
    const char *at = l->text + l->at;
    size_t n = 1;
    for (size_t i = 0; i < sizeof two / sizeof two[0] && l->size - l->at >= 2; i++)
        n = memcmp(at, two[i], 2) == 0 ? 2 : n;
    if (n == 1 && (*at == '\0' || strchr("+-/*%~[](){}<>=.:|,;", *at) == NULL)) {
        char what[96];
        snprintf(what, sizeof what, isprint((unsigned char)*at) ? "unexpected character '%c' in a tag" : "unexpected byte 0x%02x in a tag",
                 (unsigned char)*at);
        return fail_at(l, l->at, what);
    }
    *open += *at == '(' || *at == '[' || *at == '{';
    *open -= *at == ')' || *at == ']' || *at == '}';
    push(l, ESPL__JINJA_OPERATOR, l->at, at, n);
    l->at += n;
    return ESPL_OK;
}

/* Whether the tag ends here, and its sign. Within brackets "}}" closes two of them. */
static bool ends_here(const lexer *l, bool block, int open, char *sign) {
    const char *end = block ? "%}" : "}}";
    size_t at = l->at;
    *sign = l->text[at];
    bool signed_end = *sign == '-' || (block && *sign == '+');
    at += signed_end;
    if (!signed_end)
        *sign = '\0';
    return open <= 0 && l->size - at >= 2 && memcmp(l->text + at, end, 2) == 0;
}

static espl_status take_tag(lexer *l, size_t tag) {
    bool block = l->text[tag + 1] == '%';
    int open = 0;
    char sign;
    l->at = tag + 2;
    push(l, block ? ESPL__JINJA_BLOCK_BEGIN : ESPL__JINJA_PRINT_BEGIN, tag, "", 0);
    l->at += l->at < l->size && (l->text[l->at] == '-' || l->text[l->at] == '+');
    for (;;) {
        while (l->at < l->size && isspace((unsigned char)l->text[l->at]))
            l->at++;
        if (l->at >= l->size)
            return fail_at(l, tag, block ? "a tag is not closed, expected '%}'" : "a tag is not closed, expected '}}'");
        if (ends_here(l, block, open, &sign))
            break;
        char c = l->text[l->at];
        if (c == '"' || c == '\'') {
            ESPL_TRY(take_string(l));
        } else if (isdigit((unsigned char)c)) {
            take_number(l);
        } else if (name_length(l) > 0) {
            push(l, ESPL__JINJA_NAME, l->at, l->text + l->at, name_length(l));
            l->at += name_length(l);
        } else {
            ESPL_TRY(take_operator(l, &open));
        }
    }
    push(l, block ? ESPL__JINJA_BLOCK_END : ESPL__JINJA_PRINT_END, l->at, "", 0);
    l->at += 2 + (sign != '\0');
    use_end(l, sign, block);
    return ESPL_OK;
}

/* ---- The whole. */

static espl_status lex_all(lexer *l) {
    while (l->at < l->size) {
        size_t tag = find_tag(l), n;
        char first, last;
        size_t end = tag < l->size ? end_of_data(l, tag) : tag;
        if (end > l->at)
            push(l, ESPL__JINJA_DATA, l->at, l->text + l->at, end - l->at);
        if (tag >= l->size)
            break;
        if (l->text[tag + 1] == '#')
            ESPL_TRY(skip_comment(l, tag));
        else if ((n = match_word(l, tag, "raw", &first, &last)) > 0)
            ESPL_TRY(take_raw(l, tag, n, last));
        else
            ESPL_TRY(take_tag(l, tag));
    }
    push(l, ESPL__JINJA_END, l->size, "", 0);
    return ESPL_OK;
}

/* All newlines are "\n", and one at the end goes, as Jinja has it. */
static void normalise(const char *text, size_t size, espl_buffer *out) {
    espl_buffer_reserve(out, size + 1);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\r' && i + 1 < size && text[i + 1] == '\n')
            continue;
        out->data[out->size++] = text[i] == '\r' ? '\n' : text[i];
    }
    out->size -= out->size > 0 && out->data[out->size - 1] == '\n';
    out->data[out->size] = '\0';
}

espl_status espl__jinja_lex(const char *name, const char *text, size_t size, espl__jinja_tokens *tokens) {
    espl_buffer source = {0};
    *tokens = (espl__jinja_tokens){0};
    normalise(text, size, &source);
    lexer l = {.name = name, .text = source.data, .size = source.size, .tokens = tokens};
    espl_status status = lex_all(&l);
    set_places(&l);
    espl_buffer_free(&source);
    return status;
}

void espl__jinja_tokens_free(espl__jinja_tokens *tokens) {
    for (size_t i = 0; i < tokens->n; i++)
        free(tokens->at[i].text);
    free(tokens->at);
    *tokens = (espl__jinja_tokens){0};
}
