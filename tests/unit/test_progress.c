// test: libs=train,core ranks=1 tier=short timeout=30
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "src/config/config.h"
#include "src/core/clock.h"
#include "src/core/log.h"
#include "src/train/log/progress.h"

#include <fcntl.h>
#include <math.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const espl_progress_state half = {.step = 500,
                                         .total = 1000,
                                         .loss = 3.25,
                                         .lr = 2e-5,
                                         .grad_norm = 1.5,
                                         .tokens_per_second = 12345,
                                         .utilisation = 0.375,
                                         .utilisation_name = "MFU",
                                         .memory = (size_t)3 << 29,
                                         .seconds_left = 3725};

/* ---- The line itself. */

static void a_line_shows_everything(void **state) {
    (void)state;
    char text[512];
    espl_progress_format(text, sizeof text, 500, &half, false, false, NULL);
    assert_string_equal(text, "step 500/1000  loss 3.2500  lr 2.00e-05  norm 1.5  12.3k tok/s  37.5% MFU  1.50 GiB  1:02:05 left");
}

static void what_is_unknown_is_left_out(void **state) {
    (void)state;
    char text[512];
    espl_progress_state unknown = half;
    unknown.utilisation = unknown.seconds_left = NAN;
    espl_progress_format(text, sizeof text, 500, &unknown, false, false, NULL);
    assert_string_equal(text, "step 500/1000  loss 3.2500  lr 2.00e-05  norm 1.5  12.3k tok/s  1.50 GiB");
    unknown.loss = NAN;
    espl_progress_format(text, sizeof text, 500, &unknown, false, false, "saving");
    assert_non_null(strstr(text, "loss nan"));
    assert_non_null(strstr(text, "  saving"));
}

static int code_points(const char *text) {
    int n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0u) != 0x80u;
    return n;
}

/* No line is wider than it may be, whatever the width and the share; fields go whole, the step last. */
static void a_bar_fits_every_width(void **state) {
    (void)state;
    char text[512];
    for (int columns = 14; columns < 200; columns++)
        for (int64_t step = 0; step <= 1000; step += 125)
            for (int utf8 = 0; utf8 < 2; utf8++) {
                espl_progress_state at = half;
                at.step = step;
                int used = espl_progress_format(text, sizeof text, columns, &at, true, utf8, NULL);
                assert_true(used <= columns);
                assert_int_equal(used, code_points(text));
                assert_non_null(strstr(text, "step "));
                int least = snprintf(NULL, 0, "step %lld/1000  loss 3.2500  1:02:05 left", (long long)step);
                assert_int_equal(strstr(text, "left") != NULL, columns >= least);
            }
}

static void a_bar_is_drawn_in_eighths(void **state) {
    (void)state;
    char text[512];
    espl_progress_state at = {.step = 5, .total = 32, .utilisation = NAN, .seconds_left = NAN};
    espl_progress_format(text, sizeof text, 63, &at, true, true, NULL);
    assert_memory_equal(text, "[\xE2\x96\x88\xE2\x96\x8E      ]  step", 19); /* 10 eighths: a block and a quarter */
    espl_progress_format(text, sizeof text, 63, &at, true, false, NULL);
    assert_memory_equal(text, "[#.......]  step", 15);
}

/* ---- On a terminal. */

typedef struct terminal {
    int master, saved_stderr;
    char text[1 << 16]; /* what was written to it */
    size_t size;
} terminal;

static void open_terminal(terminal *t, int columns) {
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = 24};
    int slave;
    *t = (terminal){0};
    assert_int_equal(openpty(&t->master, &slave, NULL, NULL, &size), 0);
    fcntl(t->master, F_SETFL, O_NONBLOCK);
    t->saved_stderr = dup(STDERR_FILENO);
    dup2(slave, STDERR_FILENO);
    close(slave);
    setenv("TERM", "xterm", 1);
    setenv("LC_ALL", "C.UTF-8", 1);
}

static void drain(terminal *t) {
    ssize_t n;
    while ((n = read(t->master, t->text + t->size, sizeof t->text - 1 - t->size)) > 0)
        t->size += (size_t)n;
    t->text[t->size] = '\0';
}

static void close_terminal(terminal *t) {
    drain(t);
    dup2(t->saved_stderr, STDERR_FILENO);
    close(t->saved_stderr);
    close(t->master);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (; (text = strstr(text, what)) != NULL; text += strlen(what))
        n++;
    return n;
}

/* What stands on the terminal: rows of code points, where \r goes to the row's start and ESC [ K clears its rest. */
static void screen_of(const char *text, char *rows, size_t room) {
    size_t start = 0, at = 0, size = 0;
    for (; *text != '\0' && size + 1 < room; text++) {
        if (*text == '\r') {
            at = start;
        } else if (*text == '\n') {
            rows[at = size++] = '\n';
            start = ++at;
        } else if (strncmp(text, "\x1b[K", 3) == 0) {
            size = at;
            text += 2;
        } else {
            rows[at++] = *text;
            size = at > size ? at : size;
        }
    }
    rows[size] = '\0';
}

static void log_lines_push_the_bar_away(void **state) {
    (void)state;
    static terminal t;
    static char screen[1 << 16];
    open_terminal(&t, 100);
    espl_progress_open(ESPL_PROGRESS_AUTO);
    espl_progress_step(&half, true);
    ESPL_INFO("a line between");
    espl_progress_state last = half;
    last.step = last.total;
    espl_progress_step(&last, true);
    drain(&t);
    screen_of(t.text, screen, sizeof screen);
    assert_ptr_equal(strstr(screen, "a line between\n"), screen); /* it took the bar's row, and the bar stands below */
    assert_non_null(strstr(screen, "1000/1000"));
    assert_null(strstr(screen, "500/1000"));
    espl_progress_close();
    ESPL_INFO("a line after");
    close_terminal(&t);
    screen_of(t.text, screen, sizeof screen);
    assert_string_equal(screen, "a line between\na line after\n");
}

static void a_bar_is_redrawn_at_most_ten_times_a_second(void **state) {
    (void)state;
    static terminal t;
    open_terminal(&t, 80);
    espl_progress_open(ESPL_PROGRESS_AUTO);
    const double begin = espl_now();
    double seconds = 0;
    while (seconds < 0.35) {
        espl_progress_step(&half, true);
        espl_progress_note("evaluating");
        seconds = espl_now() - begin;
    }
    espl_progress_close();
    close_terminal(&t);
    int drawn = count(t.text, "step ");
    assert_in_range(drawn, 1, 1 + (int)(10 * seconds));
}

static void elsewhere_there_are_lines(void **state) {
    (void)state;
    static terminal t;
    open_terminal(&t, 80);
    setenv("TERM", "dumb", 1);
    espl_progress_open(ESPL_PROGRESS_AUTO);
    espl_progress_step(&half, false); /* not this step's turn */
    espl_progress_step(&half, true);
    espl_progress_note("evaluating");
    espl_progress_close();
    espl_progress_open(ESPL_PROGRESS_NONE);
    espl_progress_step(&half, true);
    espl_progress_close();
    close_terminal(&t);
    assert_int_equal(count(t.text, "step 500/1000"), 1);
    assert_null(strchr(t.text, '\x1b'));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_shows_everything),     cmocka_unit_test(what_is_unknown_is_left_out),
        cmocka_unit_test(a_bar_fits_every_width),      cmocka_unit_test(a_bar_is_drawn_in_eighths),
        cmocka_unit_test(log_lines_push_the_bar_away), cmocka_unit_test(a_bar_is_redrawn_at_most_ten_times_a_second),
        cmocka_unit_test(elsewhere_there_are_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
