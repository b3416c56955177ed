#include "launch/options.h"

#include "src/config/nearest.h"
#include "src/core/buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void words_add(espl_words *words, const char *word) {
    words->items = espl_realloc(words->items, (size_t)(words->n + 1) * sizeof *words->items);
    words->items[words->n++] = word;
}

void espl_words_free(espl_words *words) {
    free(words->items);
    *words = (espl_words){0};
}

static void print_usage(const espl_usage *usage) {
    printf("usage: espalier %s%s%s%s\n\n%s", usage->verb, usage->operands[0] ? " " : "", usage->operands,
           usage->n_options > 0 ? " [options]" : "", usage->text);
    printf("\noptions:\n");
    for (int64_t i = 0; i < usage->n_options; i++) {
        const espl_option *o = &usage->options[i];
        char *left = espl_format("--%s%s%s", o->name, o->value != NULL ? " " : "", o->value != NULL ? o->value : "");
        printf("  %-24s %s%s\n", left, o->help, o->kind == ESPL_OPTION_TEXTS ? " (may be repeated)" : "");
        free(left);
    }
    printf("  %-24s %s\n", "--help", "print this");
}

static espl_status unknown_option(const espl_usage *usage, const char *name) {
    const char **known = espl_calloc((size_t)usage->n_options + 1, sizeof *known);
    for (int64_t i = 0; i < usage->n_options; i++)
        known[i] = usage->options[i].name;
    known[usage->n_options] = "help";
    int64_t near = espl_word_nearest(name, known, usage->n_options + 1);
    espl_status status = espl_status_fail(ESPL_ERR_USAGE, __FILE__, __LINE__,
                                          near >= 0 ? "%s: unknown option '--%s'; did you mean '--%s'?"
                                                    : "%s: unknown option '--%s'; see `espalier %s --help`",
                                          usage->verb, name, near >= 0 ? known[near] : usage->verb);
    free(known);
    return status;
}

static espl_status store_value(const espl_usage *usage, const espl_option *option, const char *value) {
    char *end = NULL;
    errno = 0;
    switch (option->kind) {
    case ESPL_OPTION_SWITCH: *(bool *)option->target = true; break;
    case ESPL_OPTION_INT: *(int64_t *)option->target = strtoll(value, &end, 10); break;
    case ESPL_OPTION_FLOAT: *(double *)option->target = strtod(value, &end); break;
    case ESPL_OPTION_TEXT: *(const char **)option->target = value; break;
    default: words_add(option->target, value); break;
    }
    if (end != NULL && (end == value || *end != '\0' || errno == ERANGE))
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: --%s wants a %s, found '%s'", usage->verb, option->name,
                  option->kind == ESPL_OPTION_INT ? "whole number" : "number", value);
    return ESPL_OK;
}

/* Takes the option at argv[*at] and, when it stands apart, its value. */
static espl_status parse_option(const espl_usage *usage, int argc, char **argv, int *at) {
    const char *name = argv[*at] + 2;
    size_t length = strcspn(name, "=");
    const char *value = name[length] == '=' ? name + length + 1 : NULL;
    const espl_option *option = NULL;
    for (int64_t i = 0; i < usage->n_options && option == NULL; i++)
        if (strncmp(usage->options[i].name, name, length) == 0 && usage->options[i].name[length] == '\0')
            option = &usage->options[i];
    if (option == NULL) {
        char *word = espl_format("%.*s", (int)length, name);
        espl_status status = unknown_option(usage, word);
        free(word);
        return status;
    }
    if (option->kind == ESPL_OPTION_SWITCH && value != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: --%s takes no value", usage->verb, option->name);
    if (option->kind != ESPL_OPTION_SWITCH && value == NULL) {
        if (*at + 1 >= argc)
            ESPL_FAIL(ESPL_ERR_USAGE, "%s: --%s wants a value: %s", usage->verb, option->name, option->value);
        value = argv[++*at];
    }
    return store_value(usage, option, value);
}

static espl_status check_operands(const espl_usage *usage, const espl_words *operands) {
    if (operands->n > usage->max_operands)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: '%s' is one argument too many; usage: espalier %s %s", usage->verb,
                  operands->items[usage->max_operands], usage->verb, usage->operands);
    if (operands->n < usage->min_operands)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s: an argument is missing; usage: espalier %s %s", usage->verb, usage->verb, usage->operands);
    return ESPL_OK;
}

espl_status espl_options_parse(const espl_usage *usage, int argc, char **argv, espl_words *operands, bool *done) {
    *operands = (espl_words){0};
    *done = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_usage(usage);
            *done = true;
            return ESPL_OK;
        }
        if (strcmp(argv[i], "--") == 0) {
            while (++i < argc)
                words_add(operands, argv[i]);
        } else if (strncmp(argv[i], "--", 2) == 0) {
            ESPL_TRY(parse_option(usage, argc, argv, &i));
        } else if (argv[i][0] == '-' && argv[i][1] != '\0') {
            ESPL_FAIL(ESPL_ERR_USAGE, "%s: unknown option '%s'; options are spelled out, see `espalier %s --help`", usage->verb, argv[i],
                      usage->verb);
        } else {
            words_add(operands, argv[i]);
        }
    }
    return check_operands(usage, operands);
}

espl_status espl_options_run(const espl_usage *usage, int argc, char **argv, espl_words *operands, espl_verb *verb, void *job) {
    bool done = false;
    espl_status status = espl_options_parse(usage, argc, argv, operands, &done);
    if (status == ESPL_OK && !done)
        status = verb(job);
    espl_words_free(operands);
    for (int64_t i = 0; i < usage->n_options; i++)
        if (usage->options[i].kind == ESPL_OPTION_TEXTS)
            espl_words_free(usage->options[i].target);
    return status;
}
