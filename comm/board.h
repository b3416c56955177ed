/* The board: where each rank of a node stands, in memory that they share, so that the watchdog of one can say of the others who has
 * arrived. Internal to comm. */
#ifndef ESPL_COMM_BOARD_H
#define ESPL_COMM_BOARD_H

#include "comm/comm.h"

#include <stddef.h>

enum { ESPL__BOARD_OP = 36 };

/* A rank writes its own, without locks; a reader may see the name of an operation half changed. */
typedef struct espl__place {
    _Atomic int64_t step;
    _Atomic double since; /* espl_now, which is one clock on a node */
    int32_t rank, pid;
    char op[ESPL__BOARD_OP];
    int32_t padding;
} espl__place;

/* Local. The rank comes to its place. */
void espl__board_join(espl__place *place, int rank);

/* Local. The rank has begun `op` of `step`. */
void espl__board_post(espl__place *place, int64_t step, const char *op);

/* Local. Tells of n places, of which places[mine] is ours: which ranks are at the same operation, and where the others are; "" of a single
 * one. */
void espl__board_tell(const espl__place *places, int n, int mine, char *text, size_t room);

#endif
