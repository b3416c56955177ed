/* Parts of files from rank to rank. Both sides go through all pieces whatever fails on one of them, so that no other rank waits in vain;
 * the failure is kept for the agreement that follows. */
#ifndef ESPL_IO_CARRY_FILE_H
#define ESPL_IO_CARRY_FILE_H

#include "comm/comm.h"

enum { ESPL_CARRY_BYTES = 4 << 20 };

typedef struct espl_carrier {
    espl_comm *comm;
    int tag;
    char *piece;        /* ESPL_CARRY_BYTES, the caller's */
    espl_status status; /* the first failure of this rank */
    char *message;
} espl_carrier;

/* Local. Keeps a failure, the first one, and forgets it elsewhere. */
void espl_carrier_note(espl_carrier *carrier, espl_status status);

/* Local (both sides must call, in an order without circles). Bytes [from, to) of the file at `path` go to the same place of another rank's
 * file, which is begun anew where from is 0. Errors: those of communication alone. */
espl_status espl_carrier_send(espl_carrier *carrier, const char *path, int64_t from, int64_t to, int rank);
espl_status espl_carrier_receive(espl_carrier *carrier, const char *path, int64_t from, int64_t to, int rank);

/* Collective. Agrees on what was noted, which is forgotten. */
espl_status espl_carrier_agree(espl_carrier *carrier, const char *where);

#endif
