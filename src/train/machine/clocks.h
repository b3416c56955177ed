/* How far the clocks of two ranks are apart. */
#ifndef ESPL_TRAIN_CLOCKS_H
#define ESPL_TRAIN_CLOCKS_H

#include "comm/comm.h"

/* Local, for the one of two ranks that asks: seconds that the other's wall clock is ahead of this one's, less what the way of the messages
 * may explain. Errors: io. */
espl_status espl_clock_ask(espl_comm *comm, int other, double *ahead);

/* Local, for the other one. Errors: io. */
espl_status espl_clock_answer(espl_comm *comm, int asker);

#endif
