#include "src/train/machine/walltime.h"

#include "src/core/log.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Times as people write them. */

/* What begins with a digit; *at moves on. */
static bool read_number(const char **at, double *value) {
    char *end = NULL;
    if (!isdigit((unsigned char)**at))
        return false;
    *value = strtod(*at, &end);
    *at = end;
    return isfinite(*value);
}

/* Two digits below 60 behind a colon; *at moves on. */
static bool read_sixty(const char **at, double *value) {
    const char *c = *at;
    if (c[0] != ':' || !isdigit((unsigned char)c[1]) || !isdigit((unsigned char)c[2]) || c[1] > '5')
        return false;
    *value = (c[1] - '0') * 10 + (c[2] - '0');
    *at = c + 3;
    return true;
}

/* [D-]HH:MM:SS */
static bool read_clock(const char *at, double *seconds) {
    double days = 0.0, hours = 0.0, minutes = 0.0, rest = 0.0;
    if (!read_number(&at, &hours))
        return false;
    if (*at == '-') {
        days = hours;
        at++;
        if (!read_number(&at, &hours))
            return false;
    }
    *seconds = 0.0;
    if (days != floor(days) || hours != floor(hours) || !read_sixty(&at, &minutes) || !read_sixty(&at, &rest) || *at != '\0')
        return false;
    *seconds = ((days * 24.0 + hours) * 60.0 + minutes) * 60.0 + rest;
    return true;
}

espl_status espl_walltime_parse(const char *name, const char *text, double *seconds) {
    const char *at = text;
    *seconds = 0.0;
    if ((read_number(&at, seconds) && *at == '\0') || read_clock(text, seconds))
        return ESPL_OK;
    ESPL_FAIL(ESPL_ERR_USAGE, "%s: '%s' is no time; seconds (5400), HH:MM:SS (01:30:00) or D-HH:MM:SS (1-12:00:00) are expected", name,
              text);
}

espl_status espl_walltime_check(const espl_config *config) {
    double seconds = 0.0;
    if (config->run_walltime[0] == '\0')
        return ESPL_OK;
    ESPL_TRY(espl_walltime_parse("run.walltime", config->run_walltime, &seconds));
    if (seconds <= config->run_walltime_margin)
        ESPL_FAIL(ESPL_ERR_USAGE, "run.walltime is %s, and run.walltime_margin takes %g s of it: nothing is left to train in",
                  config->run_walltime, config->run_walltime_margin);
    return ESPL_OK;
}

void espl_walltime_begin(espl_walltime *walltime, const espl_config *config, double started, const espl_job_end *job, double now) {
    *walltime = (espl_walltime){.opened = now, .ends = job->at, .margin = config->run_walltime_margin, .source = job->source};
    double seconds = 0.0;
    if (config->run_walltime[0] == '\0' || espl_walltime_parse("run.walltime", config->run_walltime, &seconds) != ESPL_OK)
        return;
    walltime->ends = started + seconds;
    walltime->source = "run.walltime";
}

/* ---- What things take. */

void espl_walltime_add_step(espl_walltime *walltime, double seconds) {
    walltime->steps[walltime->n_steps++ % ESPL_WALLTIME_STEPS] = seconds;
}

void espl_walltime_add_evaluation(espl_walltime *walltime, double seconds) { walltime->evaluation = fmax(walltime->evaluation, seconds); }

void espl_walltime_add_save(espl_walltime *walltime, double seconds) { walltime->save = fmax(walltime->save, seconds); }

static double slowest_step(const espl_walltime *walltime) {
    double slowest = 0.0;
    for (int i = 0; i < ESPL_WALLTIME_STEPS; i++)
        slowest = fmax(slowest, walltime->steps[i]);
    return slowest;
}

/* ---- Deciding. */

double espl_walltime_leave(const espl_walltime *walltime, int evaluations) {
    return walltime->ends - walltime->margin - slowest_step(walltime) - evaluations * walltime->evaluation - 2.0 * walltime->save;
}

espl_walltime_vote espl_walltime_decide(espl_walltime *walltime, double now, int evaluations) {
    if (!isfinite(walltime->ends))
        return ESPL_WALLTIME_GO;
    if (now >= espl_walltime_leave(walltime, evaluations))
        return ESPL_WALLTIME_STOP;
    if (walltime->save > 0.0 || walltime->asked || now - walltime->opened < 0.5 * (walltime->ends - walltime->opened))
        return ESPL_WALLTIME_GO;
    walltime->asked = true;
    return ESPL_WALLTIME_SAVE;
}

/* A moment of the monotonic clock as the wall shows it. */
static void moment(double at, double now, char text[32]) {
    time_t when = time(NULL) + (time_t)floor(at - now);
    struct tm local;
    localtime_r(&when, &local);
    strftime(text, 32, "%Y-%m-%d %H:%M:%S", &local);
}

void espl_walltime_tell(const espl_walltime *walltime, double now) {
    char ends[32], leaves[32];
    if (!isfinite(walltime->ends))
        return;
    double leave = espl_walltime_leave(walltime, 0);
    moment(walltime->ends, now, ends);
    moment(leave, now, leaves);
    if (walltime->save > 0.0)
        ESPL_INFO("the job ends at %s: the run will save and leave from %s on (a save took %.1f s, a step %.1f s)", ends, leaves,
                  walltime->save, slowest_step(walltime));
    else
        ESPL_INFO("the job ends at %s (%s), in %.0f s: the run will save and leave from %s on, and earlier by what steps and saves take",
                  ends, walltime->source, walltime->ends - now, leaves);
    if (leave <= now)
        ESPL_WARN("that leaves no time to train in: each job does one step; ask for more time, or lower run.walltime_margin (%g s)",
                  walltime->margin);
}
