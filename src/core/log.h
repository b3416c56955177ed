/* The log: progress and warnings, to stderr and to the run's log.txt. stdout is for results.
 * Rank 0 speaks for the job; other ranks are heard from warnings upwards, with their number. */
#ifndef ESPL_CORE_LOG_H
#define ESPL_CORE_LOG_H

#include <stdio.h>

typedef enum espl_log_level { ESPL_LOG_DEBUG, ESPL_LOG_INFO, ESPL_LOG_WARN, ESPL_LOG_ERROR } espl_log_level;

/* Local. Sets this process's rank, the lowest level that stderr shows, and (or NULL) an open file that gets every line. */
void espl_log_set(int rank, espl_log_level level, FILE *file);

/* Local. Installs what runs before a line goes to stderr (clears a progress bar); NULL for nothing. */
void espl_log_set_before_line(void (*before)(void));

/* Local. Writes one line; the newline is added. Thread-safe. */
void espl_log(espl_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define ESPL_INFO(...) espl_log(ESPL_LOG_INFO, __VA_ARGS__)
#define ESPL_WARN(...) espl_log(ESPL_LOG_WARN, __VA_ARGS__)

#endif
