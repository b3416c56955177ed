#include "src/train/log/progress.h"

#include "src/config/config.h"
#include "src/core/clock.h"
#include "src/core/log.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

static const double redraw_seconds = 0.1;

static struct {
    pthread_mutex_t lock; /* log lines come from other threads too, and clear the bar */
    int mode;             /* ESPL_PROGRESS_NONE while closed */
    bool utf8, drawn, noted;
    double drawn_at;
    espl_progress_state state;
    char note[64];
} progress = {.lock = PTHREAD_MUTEX_INITIALIZER, .mode = ESPL_PROGRESS_NONE};

static bool terminal_draws(void) {
    const char *kind = getenv("TERM");
    return isatty(STDERR_FILENO) && kind != NULL && strcmp(kind, "dumb") != 0;
}

/* The first of these that is set decides, as in setlocale(3). */
static bool locale_is_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0')
            return strcasestr(value, "utf-8") != NULL || strcasestr(value, "utf8") != NULL;
    }
    return false;
}

static int terminal_columns(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

static void put(const char *text, size_t n) {
    if (write(STDERR_FILENO, text, n) < 0)
        progress.drawn = false; /* a lost terminal must not end a run */
}

static void clear_locked(void) {
    if (progress.drawn)
        put("\r\x1b[K", 4);
    progress.drawn = false;
}

static void clear_before_line(void) {
    pthread_mutex_lock(&progress.lock);
    clear_locked();
    pthread_mutex_unlock(&progress.lock);
}

/* One column stays free: a character in the last one would make some terminals wrap. */
static void draw_locked(void) {
    char line[LINE_BYTES] = "\r";
    const char *note = progress.noted ? progress.note : NULL;
    espl_progress_format(line + 1, sizeof line - 8, terminal_columns() - 1, &progress.state, true, progress.utf8, note);
    size_t used = strlen(line);
    snprintf(line + used, sizeof line - used, "\x1b[K");
    progress.drawn = true;
    progress.drawn_at = espl_now();
    put(line, strlen(line));
}

static bool redraw_is_due(void) { return espl_now() - progress.drawn_at >= redraw_seconds; }

void espl_progress_open(int mode) {
    if (mode == ESPL_PROGRESS_AUTO)
        mode = terminal_draws() ? ESPL_PROGRESS_BAR : ESPL_PROGRESS_LINES;
    progress.mode = mode;
    progress.utf8 = locale_is_utf8();
    progress.drawn = progress.noted = false;
    progress.drawn_at = -HUGE_VAL;
    progress.state = (espl_progress_state){.seconds_left = NAN, .utilisation = NAN};
    if (mode == ESPL_PROGRESS_BAR)
        espl_log_set_before_line(clear_before_line);
}

void espl_progress_step(const espl_progress_state *state, bool line) {
    if (progress.mode == ESPL_PROGRESS_LINES && line) {
        char text[LINE_BYTES];
        espl_progress_format(text, sizeof text, LINE_BYTES, state, false, false, NULL);
        ESPL_INFO("%s", text);
    }
    if (progress.mode != ESPL_PROGRESS_BAR)
        return;
    pthread_mutex_lock(&progress.lock);
    progress.state = *state;
    progress.noted = false;
    if (redraw_is_due() || state->step == state->total)
        draw_locked();
    pthread_mutex_unlock(&progress.lock);
}

void espl_progress_note(const char *text) {
    if (progress.mode != ESPL_PROGRESS_BAR)
        return;
    pthread_mutex_lock(&progress.lock);
    progress.noted = text != NULL;
    snprintf(progress.note, sizeof progress.note, "%s", text != NULL ? text : "");
    if (redraw_is_due())
        draw_locked();
    pthread_mutex_unlock(&progress.lock);
}

void espl_progress_close(void) {
    if (progress.mode == ESPL_PROGRESS_BAR) {
        clear_before_line();
        espl_log_set_before_line(NULL);
    }
    progress.mode = ESPL_PROGRESS_NONE;
}
