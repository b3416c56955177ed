/* Put in front of PMIx (LD_PRELOAD) by tests: the process learns a second late that its first fence is over, the one in which MPI_Init
 * exchanges addresses. Others may be through with theirs: if the next one holds nobody, they send what this process is not ready for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef void done_function(int status, void *context);
typedef int fence_function(const void *procs, size_t n_procs, const void *info, size_t n_info, done_function *done, void *context);

static struct {
    done_function *done;
    int status;
    void *context;
} first;

static void *tell_late(void *unused) {
    sleep(1);
    first.done(first.status, first.context);
    return unused;
}

/* In PMIx's own thread, which others of its answers come from: it is not held up. */
static void done_late(int status, void *context) {
    pthread_t thread;
    fputs("late_fence: the first fence is over, a second late\n", stderr);
    first.status = status;
    first.context = context;
    if (pthread_create(&thread, NULL, tell_late, NULL) != 0)
        abort();
    pthread_detach(thread);
}

int PMIx_Fence_nb(const void *procs, size_t n_procs, const void *info, size_t n_info, done_function *done, void *context);

int PMIx_Fence_nb(const void *procs, size_t n_procs, const void *info, size_t n_info, done_function *done, void *context) {
    void *library = dlopen("libpmix.so.2", RTLD_LAZY | RTLD_NOLOAD);
    fence_function *fence = library != NULL ? (fence_function *)dlsym(library, "PMIx_Fence_nb") : NULL;
    if (fence == NULL)
        abort();
    if (first.done == NULL && done != NULL) {
        first.done = done;
        done = done_late;
    }
    return fence(procs, n_procs, info, n_info, done, context);
}
