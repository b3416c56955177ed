/* Progress of a run on stderr: a bar that is redrawn in place on a terminal, plain log lines elsewhere.
 *
 * There is one in a process, since there is one stderr. The bar takes the terminal's width, is redrawn at most ten times a
 * second, and is cleared before any log line (espl_log_set_before_line, taken while it is open). Block characters are used
 * where the locale says UTF-8, ASCII elsewhere. Showing a step takes no memory. */
#ifndef ESPL_TRAIN_PROGRESS_H
#define ESPL_TRAIN_PROGRESS_H

#include <stddef.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct espl_progress_state {
    int64_t step, total;
    double loss, lr, grad_norm;
    double tokens_per_second;
    double utilisation;           /* share of the peak; NAN: unknown */
    const char *utilisation_name; /* "MFU"; borrowed */
    size_t memory;                /* bytes in use */
    double seconds_left;          /* NAN: unknown */
} espl_progress_state;

/* Local. Opens in the mode of log.progress (ESPL_PROGRESS_AUTO: a bar when stderr is a terminal that can move its cursor). */
void espl_progress_open(int mode);

/* Local. Shows a step. `line`: this step gets a line where there is no bar. */
void espl_progress_step(const espl_progress_state *state, bool line);

/* Local. Shows a short text at the end of the bar instead of the time left; NULL: the time again. */
void espl_progress_note(const char *text);

/* Local. Clears the bar and gives stderr back; nothing when it is not open. */
void espl_progress_close(void);

/* Local. One line about a state, at most `columns` wide and `room` bytes long: a bar first when `bar`, of block characters when
 * `utf8`; then fields in order of importance while they fit. `note` as above. Returns the columns used. */
int espl_progress_format(char *to, size_t room, int columns, const espl_progress_state *state, bool bar, bool utf8, const char *note);

#endif
