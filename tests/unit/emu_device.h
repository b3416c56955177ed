/* An emulated device for tests of what runs on one. */
#ifndef ESPL_TESTS_UNIT_EMU_DEVICE_H
#define ESPL_TESTS_UNIT_EMU_DEVICE_H

#include "kernels/backend.h"

#include <stdlib.h>

/* When streams run (tests/emu/include/cuda_runtime_api.h): what is right is right in all of them. */
static const char *const schedules[] = {"early", "late", "random:1", "random:2", "random:3"};
enum { N_SCHEDULES = sizeof schedules / sizeof *schedules };

static const espl_backend *backend;
static const espl_device_calls *calls;
static espl_device *device;

static inline void find_emulator(void) {
    if (espl_backend_open("emu", &backend) != ESPL_OK) {
        espl_status_print_trail(stderr);
        exit(1);
    }
    calls = backend->device;
}

static inline int open_device(void **state) {
    (void)state;
    if (calls->open(0, &device) == ESPL_OK)
        return 0;
    espl_status_print_trail(stderr);
    return 1;
}

static inline int close_device(void **state) {
    (void)state;
    calls->close(&device);
    return device != NULL;
}

static inline void assert_ok(espl_status status) {
    if (status != ESPL_OK)
        fail_msg("%s", espl_status_message());
}

static inline void assert_message(const char *part) {
    if (strstr(espl_status_message(), part) == NULL)
        fail_msg("'%s' is not in: %s", part, espl_status_message());
}

static inline void *on_device(size_t bytes) {
    void *memory;
    assert_ok(calls->alloc(device, "test", bytes, &memory));
    return memory;
}

#endif
