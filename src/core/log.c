#include "src/core/log.h"

#include "src/core/status.h"

#include <stdarg.h>
#include <time.h>

static const char *const level_names[] = {"debug", "info", "warning", "error"};

static struct {
    int rank;
    espl_log_level level;
    FILE *file;
    void (*before_line)(void);
} log_state = {.level = ESPL_LOG_INFO};

void espl_log_set(int rank, espl_log_level level, FILE *file) {
    log_state.rank = rank;
    log_state.level = level;
    log_state.file = file;
}

void espl_log_set_before_line(void (*before)(void)) { log_state.before_line = before; }

static void write_file_line(espl_log_level level, const char *text) {
    time_t now = time(NULL);
    struct tm utc;
    char stamp[32];
    gmtime_r(&now, &utc);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    fprintf(log_state.file, "%s rank %d %s: %s\n", stamp, log_state.rank, level_names[level], text);
    fflush(log_state.file);
}

static void write_stderr_line(espl_log_level level, const char *text) {
    char prefix[64] = "";
    if (log_state.rank > 0)
        snprintf(prefix, sizeof prefix, "rank %d: ", log_state.rank);
    const char *kind = level >= ESPL_LOG_WARN ? level_names[level] : "";
    if (log_state.before_line != NULL)
        log_state.before_line();
    fprintf(stderr, "%s%s%s%s\n", prefix, kind, kind[0] ? ": " : "", text);
}

void espl_log(espl_log_level level, const char *format, ...) {
    char text[ESPL_MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (log_state.file != NULL)
        write_file_line(level, text);
    if (level >= log_state.level && (log_state.rank == 0 || level >= ESPL_LOG_WARN))
        write_stderr_line(level, text);
}
