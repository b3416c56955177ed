#include "comm/board.h"

#include "src/core/clock.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { MOST_TOLD = 4 };

void espl__board_join(espl__place *place, int rank) {
    place->rank = rank;
    place->pid = (int32_t)getpid();
    espl__board_post(place, 0, "start");
}

void espl__board_post(espl__place *place, int64_t step, const char *op) {
    strncpy(place->op, op, sizeof place->op - 1);
    atomic_store_explicit(&place->step, step, memory_order_relaxed);
    atomic_store_explicit(&place->since, espl_now(), memory_order_relaxed);
}

/* As the system tells it (proc(5)): behind the name, which may hold anything but ends at the last parenthesis. */
static bool is_stopped(int32_t pid) {
    char path[48], text[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    const char *end = fgets(text, sizeof text, file) != NULL ? strrchr(text, ')') : NULL;
    fclose(file);
    return end != NULL && (end[2] == 'T' || end[2] == 't');
}

static void tell_one(const espl__place *place, char *text, size_t room) {
    double seconds = espl_now() - atomic_load(&place->since);
    snprintf(text, room, ", rank %d %s at step %lld in %.*s since %.0f s", (int)place->rank, is_stopped(place->pid) ? "is stopped" : "is",
             (long long)atomic_load(&place->step), ESPL__BOARD_OP - 1, place->op, seconds);
}

void espl__board_tell(const espl__place *places, int n, int mine, char *text, size_t room) {
    int same = 0, others = 0;
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < n; i++) {
        bool here = places[i].step == places[mine].step && strcmp(places[i].op, places[mine].op) == 0 && !is_stopped(places[i].pid);
        same += i != mine && here;
        others += i != mine && !here;
        if (i == mine || here || others > MOST_TOLD || used + 1 >= room)
            continue;
        tell_one(&places[i], text + used, room - used);
        used += strlen(text + used);
    }
    char count[64];
    int length = snprintf(count, sizeof count, "; of its node %d other rank%s there", same, same == 1 ? " is" : "s are");
    if (n == 1 || used + (size_t)length >= room)
        return;
    memmove(text + length, text, used + 1);
    memcpy(text, count, (size_t)length);
    if (others > MOST_TOLD)
        snprintf(text + used + (size_t)length, room - used - (size_t)length, ", %d more elsewhere", others - MOST_TOLD);
}
