/* Regular expressions of tokenizer.json, which Oniguruma reads in its Ruby syntax, rewritten for PCRE2.
 *
 * The two agree on most of what tokenizers use. Where they do not: the classes \s \w \d \h \b and properties (Oniguruma's follow a newer
 * Unicode), \v and \uHHHH, long names of properties, (?m) (Ruby: the dot matches newlines), {,n}, and {n,m}+ (Ruby: a repeated repetition,
 * PCRE2: possessive). Set operations inside brackets have no counterpart in PCRE2 10.42 and are refused. */
#include "io/tokenizer/tokenizer_parts.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define SPACE "\\p{White_Space}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LATIN "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" /* word characters by Oniguruma's table of Latin-1, but not inside brackets */
#define HEX "0-9A-Fa-f"

/* What a backslash and a letter stand for: the text, where it stands alone within [ ] or [^ ], and the newer characters of `categories`. */
static const struct {
    char letter;
    bool negated;
    const char *outside, *inside; /* of brackets; NULL: refused there */
    const char *categories;
} escapes[] = {
    {'s', false, SPACE, SPACE, ""},
    {'S', true, SPACE, "\\P{White_Space}", ""},
    {'w', false, WORD LATIN, WORD, "LMD"},
    {'W', true, WORD LATIN, NULL, "LMD"},
    {'d', false, "\\p{Nd}", "\\p{Nd}", "D"},
    {'D', true, "\\p{Nd}", NULL, "D"},
    {'h', false, HEX, HEX, ""},
    {'H', true, HEX, NULL, ""},
    {'v', false, "\\x0b", "\\x0b", ""},
};

/* Names that PCRE2 does not know, and categories to which newer characters belong. */
static const struct {
    const char *name, *replacement, *categories;
} properties[] = {
    {"letter", "L", "L"},
    {"mark", "M", "M"},
    {"number", "N", "DN"},
    {"punctuation", "P", "P"},
    {"symbol", "S", "S"},
    {"separator", "Z", ""},
    {"other", "C", ""},
    {"alpha", "Alphabetic", "L"},
    {"digit", "Nd", "D"},
    {"space", "White_Space", ""},
    {"punct", "P", "P"},
    {"upper", "Uppercase", ""},
    {"lower", "Lowercase", ""},
    {"L", "L", "L"},
    {"M", "M", "M"},
    {"N", "N", "DN"},
    {"P", "P", "P"},
    {"S", "S", "S"},
    {"Nd", "Nd", "D"},
    {"No", "No", "N"},
};

typedef struct regex_reader {
    const espl__where *where;
    const char *at, *end;
    espl_buffer *out;
    size_t atom;    /* where the last atom begins in out */
    size_t *groups; /* where open groups begin in out */
    size_t n_groups;
} regex_reader;

static void copy(regex_reader *r, size_t n) {
    espl_buffer_append(r->out, r->at, n);
    r->at += n;
}

static void put(regex_reader *r, const char *text) { espl_buffer_append(r->out, text, strlen(text)); }

static size_t left(const regex_reader *r) { return (size_t)(r->end - r->at); }

/* A set of characters: its members alone inside brackets, else in brackets of its own. A negated one inside brackets comes as `text`. */
static void put_set(regex_reader *r, bool inside, bool negated, const char *text, const char *categories) {
    if (!inside)
        put(r, negated ? "[^" : "[");
    put(r, text);
    for (const char *c = categories; (!inside || !negated) && *c; c++)
        espl__unicode_newer_ranges(*c, r->out);
    if (!inside)
        put(r, "]");
}

/* \p{Name}, \P{Name}, \p{^Name}: at stands on the backslash. */
static void property(regex_reader *r, bool inside) {
    const char *close = memchr(r->at, '}', left(r));
    if (left(r) < 4 || r->at[2] != '{' || !close) {
        copy(r, left(r) < 2 ? left(r) : 2);
        return;
    }
    bool negated = (r->at[1] == 'P') != (r->at[3] == '^');
    const char *name = r->at + (r->at[3] == '^' ? 4 : 3), *categories = "";
    size_t n = (size_t)(close - name);
    r->at = close + 1;
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        if (strlen(properties[i].name) != n || strncasecmp(properties[i].name, name, n) != 0)
            continue;
        name = properties[i].replacement;
        n = strlen(name);
        categories = properties[i].categories;
        break;
    }
    char *text = espl_format("\\%c{%.*s}", inside && negated ? 'P' : 'p', (int)n, name);
    put_set(r, inside, negated, text, categories);
    free(text);
}

/* \b and \B: a word character on one side only, or on both or neither. */
static void boundary(regex_reader *r, bool none) {
    static const char *const parts[2][4] = {{"(?:(?<=", ")(?!", ")|(?<!", ")(?="}, {"(?:(?<=", ")(?=", ")|(?<!", ")(?!"}};
    for (int i = 0; i < 4; i++) {
        put(r, parts[none][i]);
        put_set(r, false, false, WORD LATIN, "LMD");
    }
    put(r, "))");
    r->at += 2;
}

/* \uHHHH as \x{HHHH}. */
static bool unicode_escape(regex_reader *r) {
    if (left(r) < 6 || r->at[1] != 'u')
        return false;
    for (int i = 2; i < 6; i++)
        if (!isxdigit((unsigned char)r->at[i]))
            return false;
    espl_buffer_printf(r->out, "\\x{%.4s}", r->at + 2);
    r->at += 6;
    return true;
}

static espl_status escape(regex_reader *r, bool inside) {
    char letter = left(r) > 1 ? r->at[1] : '\0';
    if (letter == 'p' || letter == 'P') {
        property(r, inside);
        return ESPL_OK;
    }
    if (!inside && (letter == 'b' || letter == 'B')) {
        boundary(r, letter == 'B');
        return ESPL_OK;
    }
    if (unicode_escape(r))
        return ESPL_OK;
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++) {
        if (escapes[i].letter != letter)
            continue;
        const char *text = inside ? escapes[i].inside : escapes[i].outside;
        if (!text)
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: \\%c inside brackets is not supported", r->where->path, r->where->section, r->where->type,
                      letter);
        put_set(r, inside, escapes[i].negated, text, escapes[i].categories);
        r->at += 2;
        return ESPL_OK;
    }
    copy(r, left(r) < 2 ? left(r) : 2);
    return ESPL_OK;
}

/* [...]: at stands on the bracket. */
static espl_status brackets(regex_reader *r) {
    copy(r, 1);
    if (left(r) && *r->at == '^')
        copy(r, 1);
    if (left(r) && *r->at == ']')
        copy(r, 1);
    while (left(r) && *r->at != ']') {
        const char *posix = *r->at == '[' && left(r) > 1 && r->at[1] == ':' ? memmem(r->at, left(r), ":]", 2) : NULL;
        if (posix) {
            copy(r, (size_t)(posix - r->at) + 2);
        } else if (*r->at == '[' || (*r->at == '&' && left(r) > 1 && r->at[1] == '&')) {
            ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: sets inside brackets ('[a[b]]', '&&') are not supported", r->where->path,
                      r->where->section, r->where->type);
        } else if (*r->at == '\\') {
            ESPL_TRY(escape(r, true));
        } else {
            copy(r, 1);
        }
    }
    if (left(r))
        copy(r, 1);
    return ESPL_OK;
}

/* ( and what follows it up to the group's content; m among the option letters becomes s. */
static void group_open(regex_reader *r) {
    r->groups = espl_realloc(r->groups, (r->n_groups + 1) * sizeof *r->groups);
    r->groups[r->n_groups++] = r->out->size;
    copy(r, 1);
    if (left(r) < 2 || *r->at != '?')
        return;
    size_t n = strspn(r->at + 1, "imx-");
    copy(r, 1);
    if (n == 0 || n >= left(r) || (r->at[n] != ':' && r->at[n] != ')'))
        return;
    for (size_t i = 0; i < n; i++)
        espl_buffer_append(r->out, r->at[i] == 'm' ? "s" : r->at + i, 1);
    r->at += n;
}

/* Bytes of a {n,m} at `at`, 0 when the brace is a literal. */
static size_t interval(const regex_reader *r) {
    size_t n = 1, digits = 0;
    while (n < left(r) && (isdigit((unsigned char)r->at[n]) || r->at[n] == ','))
        digits += r->at[n++] != ',';
    return digits > 0 && n < left(r) && r->at[n] == '}' ? n + 1 : 0;
}

static void repeat(regex_reader *r, size_t n) {
    bool again = n < left(r) && r->at[n] == '+';
    if (r->at[1] == ',') {
        put(r, "{0");
        r->at++;
        n--;
    }
    copy(r, n);
    if (!again)
        return;
    put(r, ")+");
    r->at++;
    espl_buffer_reserve(r->out, 3);
    memmove(r->out->data + r->atom + 3, r->out->data + r->atom, r->out->size - r->atom + 1);
    memcpy(r->out->data + r->atom, "(?:", 3);
    r->out->size += 3;
}

static espl_status step(regex_reader *r) {
    size_t before = r->out->size, n = *r->at == '{' ? interval(r) : 0;
    if (n > 0) {
        repeat(r, n);
        return ESPL_OK;
    }
    if (*r->at == '(') {
        group_open(r);
        return ESPL_OK;
    }
    if (*r->at == ')') {
        before = r->n_groups > 0 ? r->groups[--r->n_groups] : 0;
        copy(r, 1);
    } else if (*r->at == '[') {
        ESPL_TRY(brackets(r));
    } else if (*r->at == '\\') {
        ESPL_TRY(escape(r, false));
    } else {
        bool quantifier = strchr("?*+", *r->at) != NULL, inner = ((unsigned char)*r->at & 0xC0) == 0x80;
        copy(r, 1);
        if (quantifier || inner)
            return ESPL_OK;
    }
    r->atom = before;
    return ESPL_OK;
}

espl_status espl__regex_translate(const espl__where *where, const char *source, size_t n, espl_buffer *out) {
    espl_status status = ESPL_OK;
    regex_reader r = {.where = where, .at = source, .end = source + n, .out = out};
    espl_buffer_append(out, "", 0);
    while (r.at < r.end)
        ESPL_TRY_DONE(step(&r));
done:
    free(r.groups);
    return status;
}
