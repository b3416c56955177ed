/* Status codes and the error trail.
 *
 * A function that can fail because of the world returns an espl_status. The first failure writes
 * one message with its values (what, where, what was expected, what to do) onto a trail that
 * belongs to the thread; every ESPL_TRY that the status passes adds a frame. The user is shown the
 * message; the frames go to the log and to bug reports. The codes are the program's exit codes.
 * Broken invariants of ours are not statuses: ESPL_ASSERT prints the trail and aborts the job. */
#ifndef ESPL_CORE_STATUS_H
#define ESPL_CORE_STATUS_H

#include "src/core/export.h"

#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum espl_status {
    ESPL_OK = 0,
    ESPL_ERR_USAGE = 2,   /* command line or config */
    ESPL_ERR_DATA = 3,    /* a model folder, a tokenizer or a data file says something wrong */
    ESPL_ERR_NUMERIC = 4, /* non-finite values beyond what is tolerated */
    ESPL_ERR_IO = 5,      /* a file system, a network or a library under us failed */
    ESPL_ERR_BUG = 70,    /* we are wrong */
    ESPL_STOPPED = 75     /* stopped by a signal, checkpoint saved: requeue me */
} espl_status;

/* Room for a message: two of the longest paths that there are (PATH_MAX), and as many words. What is wrong stands at its end. */
enum { ESPL_MESSAGE_BYTES = 12288 };

/* Local. Starts a new trail with one message and returns `code`; use ESPL_FAIL. */
ESPL_EXPORT espl_status espl_status_fail(espl_status code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Local. Adds the frame file:line to the trail and returns `status`; use ESPL_TRY. */
ESPL_EXPORT espl_status espl_status_frame(espl_status status, const char *file, int line, const char *call);

/* Local. The message of the failure in hand, without a newline; "" when there is none. */
ESPL_EXPORT const char *espl_status_message(void);

/* Local. Replaces the message in hand (a failure of another rank, a wider context). */
ESPL_EXPORT void espl_status_set_message(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Local. Prints the message and all frames, innermost first. */
ESPL_EXPORT void espl_status_print_trail(FILE *out);

/* Local. Forgets the failure in hand (it was handled). */
ESPL_EXPORT void espl_status_clear(void);

/* Local. Installs what ESPL_ASSERT calls after printing (MPI_Abort); default abort(3). */
ESPL_EXPORT void espl_status_set_abort(void (*abort_job)(int code));

/* Local. Prints a failed assertion and its trail, aborts the job; use ESPL_ASSERT. */
ESPL_EXPORT void espl_status_assert_failed(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((noreturn, format(printf, 4, 5)));

#ifdef __cplusplus
}
#endif

#define ESPL_FAIL(code, ...) return espl_status_fail((code), __FILE__, __LINE__, __VA_ARGS__)

#define ESPL_TRY(call)                                                                                                                     \
    do {                                                                                                                                   \
        espl_status espl_try_status_ = (call);                                                                                             \
        if (espl_try_status_ != ESPL_OK)                                                                                                   \
            return espl_status_frame(espl_try_status_, __FILE__, __LINE__, #call);                                                         \
    } while (0)

/* For functions that own something: needs `espl_status status` and one label `done:` in scope. */
#define ESPL_TRY_DONE(call)                                                                                                                \
    do {                                                                                                                                   \
        status = (call);                                                                                                                   \
        if (status != ESPL_OK) {                                                                                                           \
            espl_status_frame(status, __FILE__, __LINE__, #call);                                                                          \
            goto done;                                                                                                                     \
        }                                                                                                                                  \
    } while (0)

#define ESPL_FAIL_DONE(code, ...)                                                                                                          \
    do {                                                                                                                                   \
        status = espl_status_fail((code), __FILE__, __LINE__, __VA_ARGS__);                                                                \
        goto done;                                                                                                                         \
    } while (0)

/* ESPL_ASSERT(condition, "what it means", values...): on in every build; not for inner loops. */
#define ESPL_ASSERT(condition, ...)                                                                                                        \
    do {                                                                                                                                   \
        if (!(condition))                                                                                                                  \
            espl_status_assert_failed(__FILE__, __LINE__, #condition, __VA_ARGS__);                                                        \
    } while (0)

#endif
