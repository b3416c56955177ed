/* Patterns: regular expressions (PCRE2, compiled to machine code where it can be), literal texts, and classes of characters. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "io/tokenizer/tokenizer_parts.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { JIT_STACK_START = 32 << 10, JIT_STACK_LIMIT = 64 << 20, HEAP_LIMIT_KIB = 4 << 20, MATCH_LIMIT = 1 << 28 };

struct espl__pattern {
    pcre2_code *code; /* one of these three */
    char *literal;
    bool (*contains)(int32_t code);
    size_t n_literal;
};

struct espl__regex_work {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static espl__regex_work *regex_work(espl__scratch *scratch) {
    if (scratch->regex)
        return scratch->regex;
    espl__regex_work *work = espl_malloc(sizeof *work);
    work->data = pcre2_match_data_create(1, NULL);
    work->context = pcre2_match_context_create(NULL);
    work->stack = pcre2_jit_stack_create(JIT_STACK_START, JIT_STACK_LIMIT, NULL);
    ESPL_ASSERT(work->data && work->context && work->stack, "out of host memory");
    pcre2_jit_stack_assign(work->context, NULL, work->stack);
    pcre2_set_match_limit(work->context, MATCH_LIMIT);
    pcre2_set_depth_limit(work->context, UINT32_MAX);
    pcre2_set_heap_limit(work->context, HEAP_LIMIT_KIB);
    return scratch->regex = work;
}

void espl__regex_work_free(espl__regex_work **work) {
    if (!*work)
        return;
    pcre2_match_data_free((*work)->data);
    pcre2_match_context_free((*work)->context);
    pcre2_jit_stack_free((*work)->stack);
    free(*work);
    *work = NULL;
}

static espl_status compile(const espl__where *where, const char *source, size_t n, const espl_buffer *translated, espl__pattern **pattern) {
    int error;
    PCRE2_SIZE offset;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)translated->data, translated->size, options, &error, &offset, NULL);
    if (!code) {
        char reason[128] = "";
        pcre2_get_error_message(error, (PCRE2_UCHAR *)reason, sizeof reason);
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: the regular expression '%.*s' does not compile: %s", where->path, where->section, where->type,
                  (int)n, source, reason);
    }
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where there is no JIT, matching interprets */
    *pattern = espl_calloc(1, sizeof **pattern);
    (*pattern)->code = code;
    return ESPL_OK;
}

espl_status espl__pattern_regex(const espl__where *where, const char *source, size_t n, espl__pattern **pattern) {
    espl_status status = ESPL_OK;
    espl_buffer translated = {0};
    ESPL_TRY_DONE(espl__regex_translate(where, source, n, &translated));
    ESPL_TRY_DONE(compile(where, source, n, &translated, pattern));
done:
    espl_buffer_free(&translated);
    return status;
}

espl__pattern *espl__pattern_literal(const char *text, size_t n) {
    espl__pattern *pattern = espl_calloc(1, sizeof *pattern);
    pattern->literal = memcpy(espl_malloc(n), text, n);
    pattern->n_literal = n;
    return pattern;
}

espl__pattern *espl__pattern_class(bool (*contains)(int32_t code)) {
    espl__pattern *pattern = espl_calloc(1, sizeof *pattern);
    pattern->contains = contains;
    return pattern;
}

espl_status espl__pattern_parse(const espl__where *where, json_t *component, espl__pattern **pattern) {
    json_t *object = json_object_get(component, "pattern"), *text = json_object_get(object, "String");
    if (json_is_string(text) && json_string_length(text) > 0) {
        *pattern = espl__pattern_literal(json_string_value(text), json_string_length(text));
        return ESPL_OK;
    }
    text = text ? text : json_object_get(object, "Regex"); /* an empty String matches where an empty expression does */
    if (!json_is_string(text))
        ESPL_FAIL(ESPL_ERR_DATA, "%s: %s %s: 'pattern' must be {\"String\": text} or {\"Regex\": expression}", where->path, where->section,
                  where->type);
    return espl__pattern_regex(where, json_string_value(text), json_string_length(text), pattern);
}

void espl__pattern_free(espl__pattern **pattern) {
    if (!*pattern)
        return;
    pcre2_code_free((*pattern)->code);
    free((*pattern)->literal);
    free(*pattern);
    *pattern = NULL;
}

static void push_match(espl__matches *matches, size_t *previous, size_t begin, size_t end) {
    if (begin != *previous)
        ESPL__PUSH(matches, (espl__match){*previous, begin, false});
    ESPL__PUSH(matches, (espl__match){begin, end, true});
    *previous = end;
}

static int match_at(const espl__pattern *pattern, espl__regex_work *work, const char *text, size_t n, size_t from) {
    int rc = pcre2_match(pattern->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, work->data, work->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter takes its memory from the heap */
        rc = pcre2_match(pattern->code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, work->data, work->context);
    return rc;
}

static espl_status find_regex(const espl__pattern *pattern, espl__scratch *scratch, const char *text, size_t n, espl__matches *matches,
                              size_t *previous) {
    espl__regex_work *work = regex_work(scratch);
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(work->data);
    bool matched = false;
    for (size_t from = 0; from <= n;) {
        int rc = match_at(pattern, work, text, n, from);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            ESPL_FAIL(ESPL_ERR_DATA, "a tokenizer's regular expression gave up on a text of %zu bytes (PCRE2 error %d); split the text", n,
                      rc);
        if (range[0] >= range[1] && matched && *previous == range[1]) { /* no empty match where the last one ended */
            int size = 1;
            if (from < n)
                espl__utf8_decode(text + from, &size);
            from += (size_t)size;
            continue;
        }
        push_match(matches, previous, range[0] < range[1] ? range[0] : range[1], range[1]);
        matched = true;
        from = range[1];
    }
    return ESPL_OK;
}

static void find_literal(const espl__pattern *pattern, const char *text, size_t n, espl__matches *matches, size_t *previous) {
    const char *at = text, *end = text + n;
    while ((at = memmem(at, (size_t)(end - at), pattern->literal, pattern->n_literal))) {
        push_match(matches, previous, (size_t)(at - text), (size_t)(at - text) + pattern->n_literal);
        at += pattern->n_literal;
    }
}

static void find_class(const espl__pattern *pattern, const char *text, size_t n, espl__matches *matches, size_t *previous) {
    int size;
    for (size_t i = 0; i < n; i += (size_t)size)
        if (pattern->contains(espl__utf8_decode(text + i, &size)))
            push_match(matches, previous, i, i + (size_t)size);
}

espl_status espl__pattern_find(const espl__pattern *pattern, espl__scratch *scratch, const char *text, size_t n, espl__matches *matches) {
    size_t previous = 0;
    matches->n = 0;
    if (n == 0)
        return ESPL_OK;
    if (pattern->code)
        ESPL_TRY(find_regex(pattern, scratch, text, n, matches, &previous));
    else if (pattern->literal)
        find_literal(pattern, text, n, matches, &previous);
    else
        find_class(pattern, text, n, matches, &previous);
    if (previous != n)
        ESPL__PUSH(matches, (espl__match){previous, n, false});
    return ESPL_OK;
}
