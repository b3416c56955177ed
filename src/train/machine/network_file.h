/* The file in which `espalier bench comm` leaves what it fitted, for `espalier plan --network`. */
#ifndef ESPL_TRAIN_NETWORK_FILE_H
#define ESPL_TRAIN_NETWORK_FILE_H

#include "src/plan/network.h"

/* Local. Writes it as JSON. Errors: io. */
espl_status espl_network_write(const char *path, const espl_network *network);

/* Local. A known network by name, else one that was written. Errors: usage, when it is neither; data, when the file says something else. */
espl_status espl_network_find(const char *name_or_path, espl_network *network);

#endif
