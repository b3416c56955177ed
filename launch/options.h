/* Options of a verb: a table of rows, parsed the same way everywhere.
 *
 *     --name VALUE or --name=VALUE; a switch takes no value; `--` ends options; --help prints the whole usage.
 *
 * A mistyped option is a usage error that names the nearest one. */
#ifndef ESPL_LAUNCH_OPTIONS_H
#define ESPL_LAUNCH_OPTIONS_H

#include "src/core/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum espl_option_kind {
    ESPL_OPTION_SWITCH,
    ESPL_OPTION_INT,
    ESPL_OPTION_FLOAT,
    ESPL_OPTION_TEXT,
    ESPL_OPTION_TEXTS
} espl_option_kind;

/* Words of a command line; the strings are argv's. */
typedef struct espl_words {
    const char **items;
    int64_t n;
} espl_words;

typedef struct espl_option {
    const char *name;  /* "ranks", without the dashes */
    const char *value; /* what its value is called in the help ("N"); NULL for a switch */
    const char *help;  /* one line */
    espl_option_kind kind;
    void *target; /* SWITCH: bool, INT: int64_t, FLOAT: double, TEXT: const char *, TEXTS (repeatable): espl_words; set only when given */
} espl_option;

typedef struct espl_usage {
    const char *verb;
    const char *operands; /* "CONFIG.yaml [PATH]" */
    const char *text;     /* what the verb does; lines end in a newline */
    const espl_option *options;
    int64_t n_options;
    int64_t min_operands, max_operands;
} espl_usage;

/* Local. Parses argv[1..]; operands (items freed by espl_words_free, as are those of TEXTS) may stand anywhere. With --help prints the
 * usage to stdout and sets *done: the verb then returns ESPL_OK. Errors: usage. */
espl_status espl_options_parse(const espl_usage *usage, int argc, char **argv, espl_words *operands, bool *done);

/* Local. Frees the list, not the words. */
void espl_words_free(espl_words *words);

/* A table as the rows of a usage. */
#define ESPL_OPTIONS(table) .options = (table), .n_options = sizeof(table) / sizeof(table)[0]

/* The row of an option that many verbs have; list: espl_words. */
#define ESPL_OPTION_SET(list)                                                                                                              \
    { "set", "KEY=VALUE", "override one key, as section.key=value", ESPL_OPTION_TEXTS, (list) }

/* What a verb does; `job` holds its words. Local or collective, as the verb is. */
typedef espl_status espl_verb(void *job);

/* As the verb is. All of it: parses its words, does it unless they asked for help, and frees operands and the words of all TEXTS. Errors:
 * usage, and what the verb returns. */
espl_status espl_options_run(const espl_usage *usage, int argc, char **argv, espl_words *operands, espl_verb *verb, void *job);

#endif
