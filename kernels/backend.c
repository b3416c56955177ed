/* Finds and opens backend libraries. */
#include "kernels/backend.h"

#include "kernels/cuda_batch_work.h"
#include "kernels/cuda_work.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const libraries[] = {"cuda", "emu"};
enum { N_LIBRARIES = sizeof libraries / sizeof *libraries, N_PLACES = 3 };

static const espl_backend *opened[N_LIBRARIES];

static const espl_backend *host(void) {
    static espl_backend backend;
    backend = (espl_backend){.device = espl_device_host(), .fp32 = espl_kernels_cpu(ESPL_F32), .bf16 = espl_kernels_cpu(ESPL_BF16)};
    return &backend;
}

static void program_folder(char folder[PATH_MAX]) {
    ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
}

/* The first place that has the file; all places, for the message, where none has. */
static bool find_library(const char *name, char path[PATH_MAX], char *places, size_t room) {
    char folder[PATH_MAX];
    program_folder(folder);
    const char *set = getenv("ESPL_BACKEND_DIR");
    const char *roots[N_PLACES] = {set != NULL ? set : "", folder, folder};
    const char *below[N_PLACES] = {"", "", "/../lib/espalier"};
    size_t used = 0;
    places[0] = '\0';
    for (int i = 0; i < N_PLACES; i++) {
        if (roots[i][0] == '\0')
            continue;
        snprintf(path, PATH_MAX, "%.3000s%s/libespalier_%s.so", roots[i], below[i], name);
        if (access(path, F_OK) == 0)
            return true;
        int more = snprintf(places + used, room - used, "%s%s%s", used > 0 ? ", " : "", roots[i], below[i]);
        used = used + (size_t)more < room ? used + (size_t)more : room - 1;
    }
    return false;
}

static const char *what_then(const char *name) {
    return strcmp(name, "cuda") == 0 ? "build with ESPL_CUDA=ON (needs nvcc, cuBLASLt, NCCL), or set run.device: cpu"
                                     : "it is built beside the tests where there is a C++ compiler";
}

static espl_status load(const char *name, const espl_backend **backend) {
    char path[PATH_MAX], places[N_PLACES * PATH_MAX];
    if (!find_library(name, path, places, sizeof places))
        ESPL_FAIL(ESPL_ERR_USAGE, "libespalier_%s.so is in none of %s; %s", name, places, what_then(name));
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *why = dlerror();
        ESPL_FAIL(ESPL_ERR_USAGE, "%s does not load: %s; a library that it needs is missing or too old for it", path,
                  why != NULL ? why : "the loader does not say why");
    }
    espl_backend_get_fn *get;
    *(void **)&get = dlsym(library, "espl_backend_get");
    *backend = get != NULL ? get(ESPL_DEVICE_VERSION) : NULL;
    if (*backend == NULL) {
        dlclose(library);
        ESPL_FAIL(ESPL_ERR_USAGE,
                  "%s is of another version of Espalier (this program wants version %d of the device table); install both of "
                  "one build",
                  path, (int)ESPL_DEVICE_VERSION);
    }
    return ESPL_OK;
}

espl_status espl_backend_open(const char *name, const espl_backend **backend) {
    if (strcmp(name, "cpu") == 0) {
        *backend = host();
        return ESPL_OK;
    }
    for (int i = 0; i < N_LIBRARIES; i++)
        if (strcmp(name, libraries[i]) == 0) {
            if (opened[i] == NULL)
                ESPL_TRY(load(name, &opened[i]));
            *backend = opened[i];
            return ESPL_OK;
        }
    ESPL_FAIL(ESPL_ERR_USAGE, "there is no backend '%s'; there are cpu, cuda and emu", name);
}

bool espl_backend_has_driver(void) {
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (driver != NULL)
        dlclose(driver);
    return driver != NULL;
}

const espl_kernels *espl_backend_planned(const char *name, espl_dtype real) {
    static const espl_kernels fp32 = {.name = "cuda fp32",
                                      .real = ESPL_F32,
                                      .stat = ESPL_F32,
                                      .work_bytes = espl__cuda_fp32_work,
                                      .rule_work = espl__cuda_fp32_rule_work};
    static const espl_kernels bf16 = {.name = "cuda bf16",
                                      .real = ESPL_BF16,
                                      .stat = ESPL_F32,
                                      .work_bytes = espl__cuda_bf16_work,
                                      .rule_work = espl__cuda_bf16_rule_work};
    if (strcmp(name, "cpu") == 0)
        return espl_kernels_cpu(real);
    return real == ESPL_F32 ? &fp32 : real == ESPL_BF16 ? &bf16 : NULL;
}

size_t espl_backend_batch_bytes(const espl_capacity capacity[ESPL_N_STREAMS]) { return espl__batch_bytes(capacity); }
