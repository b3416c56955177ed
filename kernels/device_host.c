/* The host as a device: everything is done when the call returns. */
#include "kernels/device.h"

#include "src/core/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct espl_device {
    char name[96];
};

static espl_status host_count(int *n) {
    *n = 1;
    return ESPL_OK;
}

/* "model name : ..." of the first core; other architectures do not say. */
static void read_cpu_name(char *name, size_t room) {
    snprintf(name, room, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[256];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon != NULL) {
            snprintf(name, room, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
            break;
        }
    }
    if (file != NULL)
        fclose(file);
}

static espl_status host_open(int ordinal, espl_device **device) {
    static espl_device host;
    ESPL_ASSERT(ordinal == 0, "host %d of one", ordinal);
    read_cpu_name(host.name, sizeof host.name);
    *device = &host;
    return ESPL_OK;
}

static void host_close(espl_device **device) { *device = NULL; }

static void host_info(const espl_device *device, espl_device_info *info) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *info = (espl_device_info){
        .n_devices = 1, .bytes_total = page * (size_t)sysconf(_SC_PHYS_PAGES), .bytes_free = page * (size_t)sysconf(_SC_AVPHYS_PAGES)};
    memcpy(info->name, device->name, sizeof info->name);
    snprintf(info->libraries, sizeof info->libraries, "%s", espl_kernels_describe());
}

static espl_status host_alloc(espl_device *device, const char *name, size_t bytes, void **memory) {
    (void)device;
    return espl_arena_map(name, bytes, memory);
}

static void host_release(espl_device *device, void *memory, size_t bytes) {
    (void)device;
    if (memory != NULL)
        munmap(memory, bytes);
}

static espl_status host_reserve(espl_device *device, const espl_capacity capacity[ESPL_N_STREAMS]) {
    (void)device, (void)capacity;
    return ESPL_OK;
}

static espl_status host_write(espl_device *device, void *to, const void *from, size_t bytes) {
    (void)device;
    memcpy(to, from, bytes);
    return ESPL_OK;
}

static espl_status host_sync(espl_device *device) {
    (void)device;
    return ESPL_OK;
}

static espl_status host_begin(espl_device *device, const espl_batch *batch) {
    (void)device, (void)batch; /* kernels take the micro-batch from their arguments */
    return ESPL_OK;
}

static void host_forget(espl_device *device, espl_graph **graph) {
    (void)device;
    *graph = NULL;
}

static espl_status host_mark(espl_device *device, int mark) {
    (void)device, (void)mark;
    return ESPL_OK;
}

static void host_after(espl_device *device, int mark) { (void)device, (void)mark; }

static espl_status host_pin(espl_device *device, void *memory, size_t bytes) {
    (void)device, (void)memory, (void)bytes;
    return ESPL_OK;
}

static void host_unpin(espl_device *device, void *memory) { (void)device, (void)memory; }

const espl_device_calls *espl_device_host(void) {
    static const espl_device_calls calls = {
        .version = ESPL_DEVICE_VERSION,
        .kind = "cpu",
        .remote = false,
        .count = host_count,
        .open = host_open,
        .close = host_close,
        .info = host_info,
        .alloc = host_alloc,
        .alloc_far = host_alloc,
        .release_far = host_release,
        .release = host_release,
        .reserve = host_reserve,
        .write = host_write,
        .read = host_write,
        .sync = host_sync,
        .begin = host_begin,
        .forget = host_forget,
        .mark = host_mark,
        .after = host_after,
        .pin = host_pin,
        .unpin = host_unpin,
        .fetch = host_write,
        .let_fetch = host_sync,
        .fetched = host_sync,
    };
    return &calls;
}
