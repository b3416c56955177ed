#include "launch/job_end.h"

#include "src/core/clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Beyond this it is no limit: Slurm and Flux write the largest number of 32 bits where there is none. */
static const double longest = 3650.0 * 86400.0;

/* The number that is all of the text, or NAN. */
static double number(const char *text) {
    char *end = NULL;
    double value = text != NULL && *text != '\0' ? strtod(text, &end) : NAN;
    return end != NULL && *end == '\0' && value >= 0.0 ? value : NAN;
}

/* One line of what a command prints; "" when there is none. A batch system that does not answer must not hold the run up. */
static void ask(const char *command, char line[64]) {
    FILE *answer = popen(command, "r");
    if (answer == NULL || fgets(line, 64, answer) == NULL)
        line[0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    if (answer != NULL)
        pclose(answer);
}

static double slurm_says(void) {
    time_t now = time(NULL);
    return number(getenv("SLURM_JOB_END_TIME")) - (double)now;
}

/* squeue writes minutes and seconds where hours are none: 9:58; and words where there is no limit. */
static double squeue_says(void) {
    char line[64], more;
    unsigned minutes, seconds;
    double left = NAN;
    if (isnan(number(getenv("SLURM_JOB_ID"))))
        return NAN;
    /* Of an array this task: the number of its job can be that of the whole array. */
    ask("timeout 10 squeue -h -j \"${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}\" -o %L 2>/dev/null",
        line);
    if (sscanf(line, "%u:%u%c", &minutes, &seconds, &more) == 2)
        return 60.0 * minutes + seconds;
    if (strchr(line, ':') == NULL || espl_walltime_parse("squeue", line, &left) != ESPL_OK) {
        espl_status_clear();
        return NAN;
    }
    return left;
}

/* Seconds since the session's leader began: the job's script, of which the first rank is a descendant; 0 where that cannot be seen. */
static double session_age(void) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)getsid(0));
    FILE *file = fopen(path, "r");
    size_t n = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    text[n] = '\0';
    const char *at = strrchr(text, ')'); /* the command, field 2, may hold anything; field 22 is the start in ticks since boot */
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    struct timespec up;
    clock_gettime(CLOCK_BOOTTIME, &up);
    return at != NULL ? (double)up.tv_sec - strtod(at, NULL) / (double)sysconf(_SC_CLK_TCK) : 0.0;
}

static double torque_says(void) {
    double walltime = number(getenv("PBS_WALLTIME"));
    return isnan(walltime) ? NAN : walltime - fmax(session_age(), 0.0);
}

static double flux_says(void) {
    char line[64];
    if (getenv("FLUX_JOB_ID") == NULL)
        return NAN;
    ask("timeout 10 flux job timeleft 2>/dev/null", line);
    return number(line);
}

/* The first row that says something counts. */
static const struct {
    const char *source;
    double (*left)(void); /* seconds; NAN: nothing is said */
} rows[] = {{"SLURM_JOB_END_TIME", slurm_says}, {"squeue", squeue_says}, {"PBS_WALLTIME", torque_says}, {"flux job timeleft", flux_says}};

void espl_job_end_find(espl_job_end *end) {
    *end = (espl_job_end){.at = INFINITY, .source = ""};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && end->source[0] == '\0'; i++) {
        double left = rows[i].left();
        if (!isnan(left) && left < longest)
            *end = (espl_job_end){.at = espl_now() + left, .source = rows[i].source};
    }
}
