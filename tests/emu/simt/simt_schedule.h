/* In which order threads, warps and blocks run, and when asynchronous copies are made. A GPU promises none, so results and faults must not
 * depend on it:
 *   EMU_SCHEDULE=forward|reverse|random:SEED   (default forward)
 *   EMU_CPASYNC=late|early                     when somebody waits for it (the default), or at once */
#ifndef ESPL_TESTS_EMU_SIMT_SCHEDULE_H
#define ESPL_TESTS_EMU_SIMT_SCHEDULE_H

#include <stdint.h>

namespace simt {

enum class order { forward, reverse, random };

struct schedule_choice {
    simt::order order;
    bool copies_early;
    uint64_t random;
};

/* As the environment says, or the last set_schedule. */
schedule_choice &schedule();
/* Reads the two values as in the environment; false when one is neither. */
bool set_schedule(const char *order, const char *copies);
uint32_t schedule_random();

} // namespace simt

#endif
