/* Whether the ranks of a job are alike: the same program, the same files, the same kind of host. */
#ifndef ESPL_TRAIN_LIKENESS_H
#define ESPL_TRAIN_LIKENESS_H

#include "comm/comm.h"

#include <stdbool.h>

enum { ESPL_LIKENESS_TEXT = 128 };

typedef struct espl_likeness {
    const char *what;              /* "program", a string constant */
    char text[ESPL_LIKENESS_TEXT]; /* what this rank has */
    bool must;                     /* ranks that differ cannot train together; else it is told */
} espl_likeness;

/* Local. The build of this program: the linker's identification of it, as hexadecimal digits; "" where it has none. */
void espl_build_id(char text[64]);

/* Collective. Compares n rows, the same ones on all ranks, in one reduction. Where ranks differ, a line names those that have something
 * else than most, what it is, and what the others have: a warning, or the error. Errors: usage. */
espl_status espl_likeness_check(espl_comm *comm, const espl_likeness *rows, int n);

#endif
