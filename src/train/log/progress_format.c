#include "src/train/log/progress.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FIELD_BYTES = 96, GAP = 2, LEAST_BAR = 6, MOST_BAR = 40 };

typedef struct view {
    const espl_progress_state *state;
    const char *note;
} view;

static void field_step(char *to, view v) {
    snprintf(to, FIELD_BYTES, "step %lld/%lld", (long long)v.state->step, (long long)v.state->total);
}

static void field_loss(char *to, view v) { snprintf(to, FIELD_BYTES, "loss %.4f", v.state->loss); }

static void field_rate(char *to, view v) { snprintf(to, FIELD_BYTES, "lr %.2e", v.state->lr); }

static void field_norm(char *to, view v) { snprintf(to, FIELD_BYTES, "norm %.3g", v.state->grad_norm); }

static void field_speed(char *to, view v) {
    static const char *const units[] = {"", "k", "M", "G"};
    double value = v.state->tokens_per_second;
    int unit = 0;
    for (; value >= 999.5 && unit < 3; unit++)
        value /= 1000.0;
    snprintf(to, FIELD_BYTES, "%.*f%s tok/s", value < 9.995 && unit > 0 ? 2 : value < 99.95 && unit > 0 ? 1 : 0, value, units[unit]);
}

static void field_utilisation(char *to, view v) {
    if (isfinite(v.state->utilisation))
        snprintf(to, FIELD_BYTES, "%.1f%% %s", 100.0 * v.state->utilisation, v.state->utilisation_name);
}

static void field_memory(char *to, view v) {
    double mib = (double)v.state->memory / 1048576.0;
    snprintf(to, FIELD_BYTES, mib >= 1024.0 ? "%.2f GiB" : "%.0f MiB", mib >= 1024.0 ? mib / 1024.0 : mib);
}

static void field_left(char *to, view v) {
    if (v.note != NULL) {
        snprintf(to, FIELD_BYTES, "%s", v.note);
    } else if (isfinite(v.state->seconds_left)) {
        int64_t s = (int64_t)ceil(v.state->seconds_left), days = s / 86400;
        int hours = (int)(s / 3600 % 24), minutes = (int)(s / 60 % 60), seconds = (int)(s % 60);
        if (days > 0)
            snprintf(to, FIELD_BYTES, "%lldd %02d:%02d left", (long long)days, hours, minutes);
        else
            snprintf(to, FIELD_BYTES, "%d:%02d:%02d left", hours, minutes, seconds);
    }
}

/* In the order they are shown. On a narrow terminal the highest rank goes first; ranks from 3 on also make room for a bar. */
static const struct {
    void (*print)(char *to, view v);
    int rank;
} fields[] = {{field_step, 0},  {field_loss, 1},        {field_rate, 5},   {field_norm, 7},
              {field_speed, 3}, {field_utilisation, 4}, {field_memory, 6}, {field_left, 2}};

enum { N_FIELDS = sizeof fields / sizeof *fields };

/* Columns of UTF-8 text: its code points (our notes hold no wide or combining characters). */
static int columns_of(const char *text) {
    int n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0u) != 0x80u;
    return n;
}

/* Empties the fields of the highest ranks, down to `last`, until the others take at most `columns`, with a gap between each two.
 * Returns the columns they take. */
static int drop_fields(char text[N_FIELDS][FIELD_BYTES], int last, int columns) {
    int used = -GAP;
    for (int i = 0; i < N_FIELDS; i++)
        used += text[i][0] != '\0' ? columns_of(text[i]) + GAP : 0;
    for (int rank = N_FIELDS - 1; rank >= last && used > columns; rank--)
        for (int i = 0; i < N_FIELDS; i++)
            if (fields[i].rank == rank && text[i][0] != '\0') {
                used -= columns_of(text[i]) + GAP;
                text[i][0] = '\0';
            }
    return used;
}

/* A bar of `width` columns in brackets; eighths of a block where they can be shown. */
static void print_bar(char *to, int width, double share, bool utf8) {
    const int eighths = (int)(8.0 * width * fmin(fmax(share, 0.0), 1.0));
    char *at = to;
    *at++ = '[';
    for (int i = 0; i < width; i++) {
        int part = eighths - 8 * i > 8 ? 8 : eighths - 8 * i;
        if (utf8 && part > 0)
            at += sprintf(at, "\xE2\x96%c", 0x90 - part); /* U+2588 full block ... U+258F one eighth */
        else
            *at++ = part == 8 ? '#' : utf8 ? ' ' : '.';
    }
    *at++ = ']';
    *at = '\0';
}

int espl_progress_format(char *to, size_t room, int columns, const espl_progress_state *state, bool bar, bool utf8, const char *note) {
    char text[N_FIELDS][FIELD_BYTES] = {{0}}, drawn[3 * MOST_BAR + 3] = "";
    for (int i = 0; i < N_FIELDS; i++)
        fields[i].print(text[i], (view){state, note});
    int brackets = 2 + GAP, width = 0;
    if (bar)
        width = columns - brackets - drop_fields(text, 3, columns - brackets - LEAST_BAR);
    if (width >= LEAST_BAR)
        print_bar(drawn, width < MOST_BAR ? width : MOST_BAR, state->total > 0 ? (double)state->step / (double)state->total : 0.0, utf8);
    else
        drop_fields(text, 1, columns);
    size_t used = (size_t)snprintf(to, room, "%s", drawn);
    for (int i = 0; i < N_FIELDS; i++)
        if (text[i][0] != '\0' && used + strlen(text[i]) + GAP + 1 < room)
            used += (size_t)snprintf(to + used, room - used, "%s%s", used > 0 ? "  " : "", text[i]);
    return columns_of(to);
}
