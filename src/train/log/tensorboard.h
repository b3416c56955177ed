/* TensorBoard event files: TFRecords of Event messages.
 *
 * A record is its length (uint64, little-endian), the masked CRC-32C of those 8 bytes, the message, its masked CRC-32C
 * (tensorflow/core/lib/io/record_writer.h; the mask is a rotation by 15 bits and an added constant). The messages are those
 * of tfevents.proto. Every process start makes a file of its own; its first messages are the version and a session start at
 * the next step, which makes TensorBoard drop what older files have from that step on. Writing takes no memory. */
#ifndef ESPL_TRAIN_TENSORBOARD_H
#define ESPL_TRAIN_TENSORBOARD_H

#include "src/core/status.h"

#include <stddef.h>
#include <stdint.h>

enum { ESPL_TENSORBOARD_SCALARS = 32 }; /* at most, in one event */

typedef struct espl_tensorboard espl_tensorboard;

typedef struct espl_scalar {
    const char *tag;
    const char *help; /* description shown by TensorBoard; NULL: none */
    double value;     /* stored as float; not finite: left out */
} espl_scalar;

/* Local. Makes `folder`/events.out.tfevents.TIME.HOST.PID.N; events will be of steps from `first_step` on. Errors: io. */
espl_status espl_tensorboard_open(espl_tensorboard **board, const char *folder, int64_t first_step);

/* Local. Appends one event with n <= ESPL_TENSORBOARD_SCALARS scalars, in one write. Errors: io. */
espl_status espl_tensorboard_write(espl_tensorboard *board, int64_t step, const espl_scalar *scalars, size_t n);

/* Local. Closes; takes the address, nulls it, accepts NULL. */
void espl_tensorboard_close(espl_tensorboard **board);

/* Local. Masked CRC-32C (Castagnoli) of n bytes, as TFRecords hold it. */
uint32_t espl_tensorboard_masked_crc(const void *bytes, size_t n);

#endif
