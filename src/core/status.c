#include "src/core/status.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FRAMES = 32 };

typedef struct frame {
    const char *file;
    const char *call;
    int line;
} frame;

static _Thread_local struct {
    char message[ESPL_MESSAGE_BYTES];
    frame frames[MAX_FRAMES];
    int n_frames;
} trail;

static void (*abort_hook)(int code);

static void trail_push(const char *file, int line, const char *call) {
    if (trail.n_frames < MAX_FRAMES)
        trail.frames[trail.n_frames++] = (frame){.file = file, .call = call, .line = line};
}

/* A message is one line, whatever libraries and files put into it. */
static void make_one_line(char *text) {
    for (char *c = text; *c != '\0'; c++)
        if (*c == '\n' || *c == '\r')
            *c = ' ';
}

espl_status espl_status_fail(espl_status code, const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    trail.n_frames = 0;
    vsnprintf(trail.message, sizeof trail.message, format, args);
    va_end(args);
    make_one_line(trail.message);
    trail_push(file, line, "");
    return code;
}

espl_status espl_status_frame(espl_status status, const char *file, int line, const char *call) {
    trail_push(file, line, call);
    return status;
}

const char *espl_status_message(void) { return trail.message; }

void espl_status_set_message(const char *format, ...) {
    char text[ESPL_MESSAGE_BYTES]; /* the old message may be among the arguments */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    make_one_line(text);
    memcpy(trail.message, text, sizeof text);
}

void espl_status_print_trail(FILE *out) {
    if (trail.message[0] != '\0')
        fprintf(out, "espalier: %s\n", trail.message);
    for (int i = 0; i < trail.n_frames; i++)
        fprintf(out, "    at %s:%d  %s\n", trail.frames[i].file, trail.frames[i].line, trail.frames[i].call);
}

void espl_status_clear(void) {
    trail.message[0] = '\0';
    trail.n_frames = 0;
}

void espl_status_set_abort(void (*abort_job)(int code)) { abort_hook = abort_job; }

void espl_status_assert_failed(const char *file, int line, const char *condition, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "espalier: bug at %s:%d: %s: ", file, line, condition);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    espl_status_print_trail(stderr);
    fflush(NULL);
    if (abort_hook != NULL)
        abort_hook(ESPL_ERR_BUG);
    abort();
}
