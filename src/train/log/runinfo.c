#include "src/train/log/runinfo.h"

#include <ctype.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* One row a batch system: it is the one we run under when its first variable is set. */
static const struct {
    const char *name;
    const char *variables[8]; /* stored under these names, as they are */
} batch_systems[] = {
    {"slurm",
     {"SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS",
      "SLURM_RESTART_COUNT"}},
    {"pbs", {"PBS_JOBID", "PBS_JOBNAME", "PBS_QUEUE", "PBS_NUM_NODES", "PBS_NP"}},
    {"lsf", {"LSB_JOBID", "LSB_JOBNAME", "LSB_QUEUE", "LSB_DJOB_NUMPROC"}},
    {"flux", {"FLUX_JOB_ID", "FLUX_JOB_NNODES", "FLUX_JOB_SIZE"}},
};

/* The start of a file of /proc, read without taking memory; "" when it cannot be read. */
static void read_start(const char *path, char *to, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, to, room - 1) : 0;
    to[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
}

/* The number after `key` in /proc/self/status, whose unit is KiB. */
static size_t status_bytes(const char *key) {
    char text[4096];
    read_start("/proc/self/status", text, sizeof text);
    const char *found = strstr(text, key);
    return found != NULL ? (size_t)strtoull(found + strlen(key), NULL, 10) * 1024 : 0;
}

size_t espl_runinfo_rss(void) { return status_bytes("VmRSS:"); }

size_t espl_runinfo_peak_rss(void) { return status_bytes("VmHWM:"); }

size_t espl_runinfo_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
    return pages > 0 && bytes > 0 ? (size_t)pages * (size_t)bytes : 0;
}

int espl_runinfo_cores(void) {
    cpu_set_t *mask = NULL;
    int n = 0;
    /* The kernel refuses a mask that is shorter than its own: ask with longer ones. */
    for (int bits = 1024; bits <= 1 << 20 && n == 0; bits *= 4) {
        size_t bytes = CPU_ALLOC_SIZE(bits);
        mask = CPU_ALLOC(bits);
        if (mask != NULL && sched_getaffinity(0, bytes, mask) == 0)
            n = CPU_COUNT_S(bytes, mask);
        CPU_FREE(mask);
    }
    return n > 0 ? n : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* "model name" is what x86 has; elsewhere the line may be absent. */
static void add_cpu(json_t *about) {
    char text[4096];
    read_start("/proc/cpuinfo", text, sizeof text);
    char *line = strstr(text, "model name"), *value = line != NULL ? strchr(line, ':') : NULL,
         *end = value != NULL ? strchr(value, '\n') : NULL;
    if (end == NULL)
        return;
    for (value++; isspace((unsigned char)*value) && value < end;)
        value++;
    json_object_set_new(about, "cpu", json_stringn(value, (size_t)(end - value)));
}

static void add_system(json_t *about) {
    struct utsname name;
    if (uname(&name) < 0)
        return;
    json_object_set_new(about, "host", json_string(name.nodename));
    json_object_set_new(about, "os", json_sprintf("%s %s", name.sysname, name.release));
    json_object_set_new(about, "arch", json_string(name.machine));
}

void espl_runinfo_time(char text[32]) {
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static void add_time(json_t *about) {
    char text[32];
    espl_runinfo_time(text);
    json_object_set_new(about, "started", json_string(text));
}

static void add_job(json_t *about) {
    for (size_t i = 0; i < sizeof batch_systems / sizeof *batch_systems; i++) {
        if (getenv(batch_systems[i].variables[0]) == NULL)
            continue;
        json_t *job = json_pack("{s:s}", "system", batch_systems[i].name);
        for (const char *const *name = batch_systems[i].variables; *name != NULL; name++)
            if (getenv(*name) != NULL)
                json_object_set_new(job, *name, json_string(getenv(*name)));
        json_object_set_new(about, "job", job);
        return;
    }
}

json_t *espl_runinfo_make(const espl_library *libraries, size_t n) {
    json_t *about = json_object(), *versions = json_object();
    add_system(about);
    add_cpu(about);
    json_object_set_new(about, "cores", json_integer(espl_runinfo_cores()));
    if (espl_runinfo_memory() > 0)
        json_object_set_new(about, "memory_bytes", json_integer((json_int_t)espl_runinfo_memory()));
    add_time(about);
    add_job(about);
    for (size_t i = 0; i < n; i++)
        json_object_set_new(versions, libraries[i].name, json_string(libraries[i].version));
    json_object_set_new(about, "libraries", versions);
    return about;
}
