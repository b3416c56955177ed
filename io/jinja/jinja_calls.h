/* What filters and methods share. */
#ifndef ESPL_IO_JINJA_CALLS_H
#define ESPL_IO_JINJA_CALLS_H

#include "io/jinja/jinja_parts.h"

/* The head of everything that is called: what it is called on, and its arguments in their places. */
#define ESPL__JINJA_CALL(name)                                                                                                             \
    espl_status name(espl__jinja_run *r, const espl__jinja_node *at, const espl__jinja_value *of, const espl__jinja_value *a,              \
                     espl__jinja_value *out)

ESPL__JINJA_CALL(espl__jinja_trim); /* (characters) */
ESPL__JINJA_CALL(espl__jinja_upper);
ESPL__JINJA_CALL(espl__jinja_lower);
ESPL__JINJA_CALL(espl__jinja_capitalize);
ESPL__JINJA_CALL(espl__jinja_replace); /* (old, new, count) */
ESPL__JINJA_CALL(espl__jinja_items);

/* Local. The text of a value; fails when it is none. */
espl_status espl__jinja_need_text(const espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of, const char **text,
                                  size_t *size);

/* Local. A whole number, or the fallback where nothing is given. */
espl_status espl__jinja_need_integer(const espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of, int64_t fallback,
                                     int64_t *number);

/* Local. Strips a text at the ends asked for; `of` by default white space, else the characters in a. */
espl_status espl__jinja_strip_value(espl__jinja_run *run, const espl__jinja_node *at, const espl__jinja_value *of,
                                    const espl__jinja_value *characters, bool left, bool right, espl__jinja_value *value);

/* Local. The function of a name in a table, NULL: none. */
const espl__jinja_function *espl__jinja_lookup(const espl__jinja_function *functions, size_t n, const char *name);

#endif
