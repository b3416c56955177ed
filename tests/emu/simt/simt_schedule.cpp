#include "tests/emu/simt/simt_schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace simt {

static schedule_choice chosen;
static bool was_chosen;

static bool read_order(const char *text, schedule_choice *choice) {
    static const char random_prefix[] = "random:";
    char *end = nullptr;
    if (strcmp(text, "forward") == 0)
        choice->order = order::forward;
    else if (strcmp(text, "reverse") == 0)
        choice->order = order::reverse;
    else if (strncmp(text, random_prefix, strlen(random_prefix)) == 0) {
        choice->order = order::random;
        choice->random = strtoull(text + strlen(random_prefix), &end, 10);
        return end != text + strlen(random_prefix) && *end == '\0';
    } else
        return false;
    return true;
}

bool set_schedule(const char *order, const char *copies) {
    schedule_choice choice = {};
    bool early = strcmp(copies, "early") == 0;
    if (!read_order(order, &choice) || (!early && strcmp(copies, "late") != 0))
        return false;
    choice.copies_early = early;
    chosen = choice;
    was_chosen = true;
    return true;
}

schedule_choice &schedule() {
    if (was_chosen)
        return chosen;
    const char *order = getenv("EMU_SCHEDULE"), *copies = getenv("EMU_CPASYNC");
    if (!set_schedule(order ? order : "forward", copies ? copies : "late")) {
        fprintf(stderr, "emu: EMU_SCHEDULE=%s, EMU_CPASYNC=%s: expected forward, reverse or random:SEED, and late or early\n",
                order ? order : "", copies ? copies : "");
        abort();
    }
    return chosen;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint32_t schedule_random() {
    uint64_t x = schedule().random += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ (x >> 31)) >> 32);
}

} // namespace simt
