/* Energy that the CPU packages of this node have used, from the RAPL counters that Linux shows in /sys/class/powercap. Many
 * sites let only root read them; then there is no number. Internal to src/train/log. */
#ifndef ESPL_TRAIN_ENERGY_H
#define ESPL_TRAIN_ENERGY_H

#include <stdint.h>

enum { ESPL__ENERGY_PACKAGES = 16 };

typedef struct espl__energy {
    int n; /* packages whose counter can be read; 0: no number */
    int fds[ESPL__ENERGY_PACKAGES];
    uint64_t last[ESPL__ENERGY_PACKAGES], range[ESPL__ENERGY_PACKAGES]; /* microjoules; a counter starts again after `range` */
    double joules;
    char reason[160]; /* why n is 0 */
} espl__energy;

/* Local. Starts counting; `root` is /sys/class/powercap but in tests. */
void espl__energy_open(espl__energy *energy, const char *root);

/* Local. Adds what was used since the last call; due more often than a counter wraps (minutes). Takes no memory. */
void espl__energy_sample(espl__energy *energy);

/* Local. Closes the counters. */
void espl__energy_close(espl__energy *energy);

#endif
