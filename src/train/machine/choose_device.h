/* Which device a rank computes on: run.device, the devices of its node, and what the other ranks found. */
#ifndef ESPL_TRAIN_CHOOSE_DEVICE_H
#define ESPL_TRAIN_CHOOSE_DEVICE_H

#include "comm/comm.h"
#include "kernels/engine.h"
#include "src/config/config.h"

/* Collective. Opens the device of run.device for run.dtype: rank by rank of a node, one each. `why` gets the reason of an automatic choice,
 * "" when it was no choice. Errors: usage, the same on all ranks: no such backend or device, more ranks than devices on a node, different
 * models of GPU over ranks, a GPU on some ranks alone. */
espl_status espl_choose_device(espl_comm *comm, const espl_config *config, espl_engine *engine, char why[ESPL_MESSAGE_BYTES]);

#endif
