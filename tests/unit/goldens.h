/* A file of tests/goldens as the state of a group of tests. */
#ifndef ESPL_TESTS_GOLDENS_H
#define ESPL_TESTS_GOLDENS_H

#include <jansson.h>

/* Local. Its path as ESPL_SOURCE_DIR "/tests/goldens/NAME.json"; not 0, after a message, where it cannot be read. */
static inline int load_goldens(void **state, const char *path) {
    json_error_t error;
    *state = json_load_file(path, 0, &error);
    if (*state == NULL)
        print_error("%s:%d: %s\n", error.source, error.line, error.text);
    return *state == NULL;
}

static inline int free_goldens(void **state) {
    json_decref(*state);
    return 0;
}

#endif
