/* Placing buffers whose lives are known: an interval graph packed into one range of bytes. Internal to src/model. */
#ifndef ESPL_MODEL_LIFETIMES_H
#define ESPL_MODEL_LIFETIMES_H

#include "src/model/tape.h"

/* Local. Gives every buffer an offset (a multiple of ESPL_ALIGN) so that buffers with overlapping lives do not overlap in memory. A life
 * that begins after it ends goes on from the beginning, as lists are run again and again.
 * Largest first, each at the lowest place that is free for all of its life. Returns the bytes needed. */
size_t espl__lives_place(espl_life *lives, int n);

/* Local. Makes room for a call behind call `at`: lives that reach beyond it move by one. */
void espl__lives_shift(espl_life *lives, int n, int at);

#endif
