/* Bulk operations by NCCL. */
#include "kernels/cuda/entries.h"

#include "comm/bulk.h"

const espl_bulk_calls espl__cuda_bulk = {.name = "NCCL"};
