#include "src/train/log/energy.h"

#include "src/core/buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_counter(int fd, uint64_t *value) {
    char text[32];
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0)
        return false;
    text[n] = '\0';
    *value = strtoull(text, NULL, 10);
    return true;
}

static int open_counter(const char *root, int package, const char *file) {
    char *path = espl_format("%s/intel-rapl:%d/%s", root, package, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    free(path);
    return fd;
}

/* Top-level zones are the packages (AMD has the same names); zones within them would be counted twice. */
static bool add_package(espl__energy *energy, const char *root, int package) {
    uint64_t range, now;
    int fd = open_counter(root, package, "energy_uj");
    if (fd < 0)
        return false;
    int range_fd = open_counter(root, package, "max_energy_range_uj");
    bool readable = range_fd >= 0 && read_counter(range_fd, &range) && read_counter(fd, &now);
    if (range_fd >= 0)
        close(range_fd);
    if (!readable) {
        close(fd);
        return false;
    }
    energy->fds[energy->n] = fd;
    energy->range[energy->n] = range;
    energy->last[energy->n++] = now;
    return true;
}

void espl__energy_open(espl__energy *energy, const char *root) {
    *energy = (espl__energy){0};
    errno = ENOENT;
    for (int package = 0; package < ESPL__ENERGY_PACKAGES; package++)
        if (!add_package(energy, root, package))
            break;
    if (energy->n == 0)
        snprintf(energy->reason, sizeof energy->reason, "%s: %s", root,
                 errno == EACCES ? "only root may read it here" : "no RAPL counters");
}

void espl__energy_sample(espl__energy *energy) {
    for (int i = 0; i < energy->n; i++) {
        uint64_t now, last = energy->last[i];
        if (!read_counter(energy->fds[i], &now))
            continue;
        uint64_t used = now >= last ? now - last : now + energy->range[i] - last;
        energy->joules += 1e-6 * (double)used;
        energy->last[i] = now;
    }
}

void espl__energy_close(espl__energy *energy) {
    for (int i = 0; i < energy->n; i++)
        close(energy->fds[i]);
    energy->n = 0;
}
