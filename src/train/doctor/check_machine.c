/* Cores, memory and limits of processes. */
#include "src/train/doctor/doctor_checks.h"

#include "kernels/kernels.h"
#include "src/core/buffer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

static const double GIB = 1073741824.0, MIB = 1048576.0;

/* ---- Control groups, which is how batch systems and containers hold a job to its share. */

/* Whether a list with commas has a name; a controller's hierarchy may be that of others, too. */
static bool names_one(const char *list, const char *name) {
    size_t n = strlen(name);
    for (const char *at = list; at != NULL; at = strchr(at, ','), at = at != NULL ? at + 1 : NULL)
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    return false;
}

/* This process's group in a hierarchy: "0::/path" of version 2, "5:memory:/path" of version 1. The caller frees. */
static char *group_path(const char *controller) {
    char *text = espl__doctor_text("/proc/self/cgroup"), *found = NULL, *rest = text;
    for (char *line; found == NULL && (line = strsep(&rest, "\n")) != NULL;) {
        char *names = strchr(line, ':'), *path = names != NULL ? strchr(names + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = '\0';
        bool is = controller == NULL ? names[1] == '\0' : names_one(names + 1, controller);
        found = is ? espl_strdup(path) : NULL;
    }
    free(text);
    return found != NULL ? found : espl_strdup("");
}

/* The least of what `read` says of a group and of all that it is in; INFINITY where nothing is said. */
static double least_above(const char *root, char *path, double (*read)(const char *folder)) {
    double least = INFINITY;
    for (;;) {
        char *folder = espl_format("%s%s", root, path);
        least = fmin(least, read(folder));
        free(folder);
        char *slash = strrchr(path, '/');
        if (slash == NULL)
            return least;
        *slash = '\0';
    }
}

static double least_of(const char *controller, const char *root, double (*read)(const char *folder)) {
    char *path = group_path(controller);
    double least = least_above(root, path, read);
    free(path);
    return least;
}

static double number_in(const char *folder, const char *name) {
    char *path = espl_format("%s/%s", folder, name);
    double value = espl__doctor_number(path, INFINITY);
    free(path);
    return value;
}

static double memory_v2(const char *folder) { return number_in(folder, "memory.max"); }
static double memory_v1(const char *folder) { return number_in(folder, "memory.limit_in_bytes"); }

static double cores_v2(const char *folder) {
    char *path = espl_format("%s/cpu.max", folder), *text = espl__doctor_text(path);
    double quota, period, cores = sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0.0 ? quota / period : INFINITY;
    free(path);
    free(text);
    return cores;
}

static double cores_v1(const char *folder) {
    double quota = number_in(folder, "cpu.cfs_quota_us"), period = number_in(folder, "cpu.cfs_period_us");
    return isfinite(quota) && quota > 0.0 && isfinite(period) ? quota / period : INFINITY;
}

static double group_memory(void) {
    return fmin(least_of(NULL, "/sys/fs/cgroup", memory_v2), least_of("memory", "/sys/fs/cgroup/memory", memory_v1));
}

static double group_cores(void) {
    return fmin(least_of(NULL, "/sys/fs/cgroup", cores_v2), least_of("cpu", "/sys/fs/cgroup/cpu", cores_v1));
}

/* ---- Cores. */

/* Of one host: what all its ranks run together. */
void espl__check_host_cores(espl__doctor *d) {
    int threads = d->threads * d->ranks->node_size;
    double quota = group_cores();
    espl__doctor_say(d, ESPL_FINE, "", "%d rank%s of %d thread%s a host, %d cores, kernels for %s", d->ranks->node_size,
                     d->ranks->node_size > 1 ? "s" : "", d->threads, d->threads > 1 ? "s" : "", d->cores.on_host, espl_kernels_describe());
    if (threads > d->cores.on_host)
        espl__doctor_say(d, ESPL_POOR, "start fewer ranks a host, or set run.threads so that ranks times threads is at most the cores",
                         "%d ranks of %d threads run on %d cores: they take turns, and every step waits for the slowest",
                         d->ranks->node_size, d->threads, d->cores.on_host);
    if (quota < threads)
        espl__doctor_say(d, ESPL_POOR, "ask for more CPUs, or lower run.threads", "the control group gives %.3g cores to %d threads", quota,
                         threads);
}

/* Of one rank: what its launcher has bound it to. */
void espl__check_cores(espl__doctor *d) {
    if (d->threads > d->cores.mine && d->cores.on_host > d->cores.mine)
        espl__doctor_say(d, ESPL_POOR, "mpirun --bind-to none, or --map-by slot:PE=THREADS; srun --cpus-per-task=THREADS",
                         "a rank of %d threads is bound to %d of the host's %d cores", d->threads, d->cores.mine, d->cores.on_host);
}

static int count_list(const char *text) {
    int n = 0, first, last, used;
    for (const char *at = text; sscanf(at, "%d%n", &first, &used) == 1;) {
        at += used;
        last = first;
        if (*at == '-' && sscanf(at, "-%d%n", &last, &used) == 1)
            at += used;
        n += last - first + 1;
        at += *at == ',';
    }
    return n;
}

void espl__check_numa(espl__doctor *d) {
    char *online = espl__doctor_text("/sys/devices/system/node/online"),
         *pages = espl__doctor_text("/sys/kernel/mm/transparent_hugepage/enabled");
    int nodes = count_list(online);
    const char *mode = strstr(pages, "[never]") != NULL ? "never" : strstr(pages, "[always]") != NULL ? "always" : "where asked for";
    espl__doctor_say(d, ESPL_FINE, "", "%d memory node%s; huge pages: %s", nodes, nodes == 1 ? "" : "s", mode);
    if (nodes > 1 && d->ranks->node_size > 1 && d->cores.mine == d->cores.on_host)
        espl__doctor_say(d, ESPL_POOR, "mpirun --map-by numa --bind-to numa; srun --cpu-bind=ldoms --distribution=block:cyclic",
                         "ranks are bound to no cores, but this host has %d memory nodes: threads wander away from their memory", nodes);
    free(online);
    free(pages);
}

/* ---- Memory. */

static double meminfo(const char *name) {
    char *text = espl__doctor_text("/proc/meminfo"), *at = strstr(text, name);
    double bytes = at != NULL ? 1024.0 * strtod(at + strlen(name), NULL) : NAN;
    free(text);
    return bytes;
}

void espl__check_memory(espl__doctor *d) {
    double total = meminfo("MemTotal:"), available = meminfo("MemAvailable:"), group = group_memory();
    espl__doctor_say(d, ESPL_FINE, "", "%.1f GiB, %.1f GiB of it free%s", total / GIB, available / GIB,
                     group < total ? "; less by the control group" : "");
    if (group < total)
        espl__doctor_say(d, group < 0.25 * GIB ? ESPL_FAILS : ESPL_FINE,
                         group < 0.25 * GIB ? "ask for more memory (srun --mem, docker --memory)" : "",
                         "the control group gives %.2f GiB; beyond it the system kills ranks without a word", group / GIB);
    if (available < 0.5 * GIB)
        espl__doctor_say(d, ESPL_FAILS, "end what else runs here, or take another host", "%.2f GiB of memory are free", available / GIB);
    if (espl__doctor_number("/proc/sys/vm/overcommit_memory", 0.0) == 2.0)
        espl__doctor_say(d, ESPL_POOR, "have `espalier plan` count for the whole host, or ask for vm.overcommit_memory 0",
                         "vm.overcommit_memory is 2: memory that is only reserved counts as used");
}

/* Open MPI's messages within a host lie there, some 8 MiB a rank. */
void espl__check_shared_memory(espl__doctor *d) {
    static const double A_RANK = 16.0;
    const char *temporary = espl__doctor_variable("TMPDIR");
    struct statvfs found;
    if (statvfs("/dev/shm", &found) != 0) {
        espl__doctor_say(d, ESPL_POOR, "mount a tmpfs there", "/dev/shm is not there: ranks of a host cannot share memory");
        return;
    }
    double mib = (double)found.f_bavail * (double)found.f_frsize / MIB;
    espl__doctor_say(d, ESPL_FINE, "", "%.0f MiB free in /dev/shm", mib);
    if (mib < A_RANK * d->ranks->node_size)
        espl__doctor_say(d, ESPL_POOR, "docker run --shm-size=1g; or remove what ended jobs left there",
                         "%.0f MiB are free in /dev/shm, messages of %d ranks take up to %.0f", mib, d->ranks->node_size,
                         A_RANK * d->ranks->node_size);
    if (temporary != NULL && strlen(temporary) > 60)
        espl__doctor_say(d, ESPL_POOR, "export TMPDIR=/tmp",
                         "TMPDIR is %zu characters long: names of Open MPI's sockets in it become too long", strlen(temporary));
    temporary = temporary != NULL ? temporary : "/tmp";
    if (access(temporary, W_OK | X_OK) != 0)
        espl__doctor_say(d, ESPL_POOR, "export TMPDIR=FOLDER on this host's own disk", "%s cannot be written to: Open MPI starts there",
                         temporary);
}

/* ---- Limits. */

typedef struct limit {
    int which;
    const char *name;
    double fails, poor; /* below these */
    double unit;
    const char *unit_name, *why, *advice;
} limit;

static const limit limits[] = {
    {RLIMIT_NOFILE, "open files", 128, 1024, 1, "", "ranks, shards and sockets of the launcher each take some", "ulimit -n 4096"},
    {RLIMIT_AS, "address space", 4.0, INFINITY, 1073741824.0, " GiB", "arenas and mapped files count whole, used or not",
     "ulimit -v unlimited"},
    {RLIMIT_DATA, "data", 4.0, INFINITY, 1073741824.0, " GiB", "arenas count whole, used or not", "ulimit -d unlimited"},
    {RLIMIT_FSIZE, "size of a file", 1.0, INFINITY, 1073741824.0, " GiB", "a checkpoint's shard may be larger", "ulimit -f unlimited"},
    {RLIMIT_NPROC, "processes", 64, 512, 1, "", "threads count, too", "ulimit -u 4096"},
};

static bool pins_memory(void) { return access("/sys/class/infiniband", F_OK) == 0 || access("/dev/nvidiactl", F_OK) == 0; }

void espl__check_limits(espl__doctor *d) {
    struct rlimit found;
    espl__doctor_say(d, ESPL_FINE, "", "limits of a process were looked at: files, memory, file size, threads, locked memory");
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const limit *l = &limits[i];
        if (getrlimit((__rlimit_resource_t)l->which, &found) != 0 || found.rlim_cur == RLIM_INFINITY)
            continue;
        double value = (double)found.rlim_cur / l->unit;
        if (value < l->poor)
            espl__doctor_say(d, value < l->fails ? ESPL_FAILS : ESPL_POOR, l->advice, "the limit of %s is %.4g%s: %s", l->name, value,
                             l->unit_name, l->why);
    }
    if (pins_memory() && getrlimit(RLIMIT_MEMLOCK, &found) == 0 && found.rlim_cur != RLIM_INFINITY && (double)found.rlim_cur < GIB)
        espl__doctor_say(d, ESPL_POOR, "ulimit -l unlimited (for jobs of Slurm: PropagateResourceLimitsExcept=MEMLOCK)",
                         "the limit of locked memory is %.0f MiB: GPUs and fast networks lock what they send",
                         (double)found.rlim_cur / MIB);
}
