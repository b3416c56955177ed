/* How long a message takes from one rank to another. */
#ifndef ESPL_TRAIN_PING_H
#define ESPL_TRAIN_PING_H

#include "comm/comm.h"

/* Local, entered by both of two ranks. Seconds that `bytes` in host memory take from one to the other: half the least of eight ways there
 * and back, as what disturbs is not the link's; one more opens the connection first. Errors: io. */
espl_status espl_ping(espl_comm *comm, int other, void *message, size_t bytes, double *seconds);

#endif
