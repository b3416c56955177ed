/* Chat templates: the part of Jinja that templates of public models use, rendered as transformers does it.
 *
 * Blocks: if, for (with a condition, else, break, continue), set (names, namespaces, blocks), macro, generation, raw. Expressions, filters,
 * tests and methods of strings, mappings and lists as far as the tables in jinja_filters.c, jinja_tests.c and jinja_methods.c go. Lines are
 * trimmed as transformers sets it (trim_blocks, lstrip_blocks). All else is an error with line and column. A template is data of
 * unknown origin: nesting, steps and bytes of a rendering are bounded. */
#ifndef ESPL_IO_JINJA_JINJA_H
#define ESPL_IO_JINJA_JINJA_H

#include "src/core/buffer.h"
#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct espl_jinja espl_jinja;

/* Bytes [begin, end) of a rendering. */
typedef struct espl_jinja_span {
    size_t begin, end;
} espl_jinja_span;

/* What a rendering made; zero it before the first one, later ones begin anew in the same memory. */
typedef struct espl_jinja_output {
    espl_buffer text;
    espl_jinja_span *generated; /* [n] what generation blocks wrote, in order */
    int64_t n, capacity;
} espl_jinja_output;

typedef struct espl_jinja_limits {
    int64_t steps; /* nodes that are evaluated; 0: 20 million */
    int64_t bytes; /* of all texts and lists that are made; 0: 256 MiB */
} espl_jinja_limits;

/* Local. Parses a template; `name` stands in messages. Errors: data "NAME:LINE:COLUMN: what, expected". */
espl_status espl_jinja_parse(const char *name, const char *text, size_t size, espl_jinja **jinja);

/* Local. Whether the template holds a generation block. */
bool espl_jinja_generates(const espl_jinja *jinja);

/* Local. Hash of the template's text (XXH3). */
uint64_t espl_jinja_hash(const espl_jinja *jinja);

/* Local. Renders with an object of variables; `date`, as in 2026-01-31, is what strftime_now gives (NULL or "": asking for it is an
 * error). Any number of threads may render one template. Errors: data, at a place of the template; raise_exception is one. */
espl_status espl_jinja_render(const espl_jinja *jinja, const json_t *variables, const char *date, const espl_jinja_limits *limits,
                              espl_jinja_output *output);

/* Local. Frees what an output holds and zeroes it. */
void espl_jinja_output_free(espl_jinja_output *output);

/* Local. Frees; takes the address, nulls it, accepts NULL. */
void espl_jinja_free(espl_jinja **jinja);

#endif
