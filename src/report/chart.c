#include "src/report/chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 720, HEIGHT = 280, LEFT = 80, RIGHT = 26, TOP = 14, BOTTOM = 34, MOST_POINTS = 700 };

/* ---- Text. */

void espl_escape(espl_buffer *out, const char *text) {
    for (; *text != '\0'; text++) {
        const char *as = *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : *text == '"' ? "&quot;" : NULL;
        espl_buffer_append(out, as != NULL ? as : text, as != NULL ? strlen(as) : 1);
    }
}

void espl_number_print(espl_buffer *out, double value) {
    double size = fabs(value);
    if (isnan(value))
        espl_buffer_printf(out, "–");
    else if (value == floor(value) && size < 1e15)
        espl_buffer_printf(out, "%.0f", value);
    else if (size >= 1e-3 && size < 1e6)
        espl_buffer_printf(out, "%.*f", size >= 100.0 ? 1 : size >= 1.0 ? 3 : 4, value);
    else
        espl_buffer_printf(out, "%.3g", value);
}

/* ---- Axes. */

typedef struct axis {
    double low, high, step;
} axis;

/* A step of 1, 2 or 5 times a power of ten, for about `parts` steps. */
static double round_step(double span, int parts) {
    double raw = span / parts, power = pow(10.0, floor(log10(raw))), lead = raw / power;
    return power * (lead <= 1.0 ? 1.0 : lead <= 2.0 ? 2.0 : lead <= 5.0 ? 5.0 : 10.0);
}

static axis axis_over(double low, double high, int parts) {
    double span = high > low ? high - low : fmax(fabs(high), 1.0) * 0.1;
    axis a = {low, high > low ? high : low + span, round_step(span, parts)};
    a.low = floor(a.low / a.step) * a.step;
    a.high = ceil(a.high / a.step) * a.step;
    return a;
}

static void find_range(const espl_chart *c, axis *x, axis *y) {
    double range[4] = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (int64_t k = 0; k < c->n; k++)
        for (int64_t i = 0; i < c->curves[k].points.n; i++) {
            range[0] = fmin(range[0], c->curves[k].points.x[i]);
            range[1] = fmax(range[1], c->curves[k].points.x[i]);
            range[2] = fmin(range[2], c->curves[k].points.y[i]);
            range[3] = fmax(range[3], c->curves[k].points.y[i]);
        }
    *x = axis_over(range[0], range[1], 6);
    x->low = range[0];
    x->high = range[1] > range[0] ? range[1] : range[0] + 1.0;
    *y = axis_over(range[2], range[3], 5);
}

static double at_x(const axis *x, double value) { return LEFT + (value - x->low) / (x->high - x->low) * (WIDTH - LEFT - RIGHT); }

static double at_y(const axis *y, double value) { return TOP + (y->high - value) / (y->high - y->low) * (HEIGHT - TOP - BOTTOM); }

static void draw_axes(const espl_chart *c, const axis *x, const axis *y, espl_buffer *out) {
    int rows = (int)lround((y->high - y->low) / y->step);
    for (int i = 0; i <= rows; i++) {
        double v = y->low + i * y->step, h = at_y(y, v);
        espl_buffer_printf(out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
                           LEFT, h, WIDTH - RIGHT, LEFT - 6, h + 4);
        espl_number_print(out, fabs(v) < y->step * 1e-9 ? 0.0 : v);
        espl_buffer_printf(out, "</text>");
    }
    int first = (int)ceil(x->low / x->step), last = (int)floor(x->high / x->step + 1e-9);
    for (int i = first; i <= last; i++) {
        double v = i * x->step;
        espl_buffer_printf(out, "<text class=\"tick\" x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">", at_x(x, v), HEIGHT - BOTTOM + 18);
        espl_number_print(out, v);
        espl_buffer_printf(out, "</text>");
    }
    espl_buffer_printf(out, "<text class=\"tick\" x=\"%d\" y=\"%d\" text-anchor=\"end\">step</text><text class=\"tick\" x=\"4\" y=\"%d\">",
                       WIDTH - RIGHT, HEIGHT - 3, HEIGHT - 3);
    espl_escape(out, c->unit);
    espl_buffer_printf(out, "</text>");
}

/* ---- Curves. */

static void draw_point(const espl_series *s, int64_t i, const axis *x, const axis *y, espl_buffer *out) {
    espl_buffer_printf(out, "%.1f,%.1f ", at_x(x, s->x[i]), at_y(y, s->y[i]));
}

/* Of a stretch, its lowest and highest point in their order: spikes stay. */
static void draw_stretch(const espl_series *s, int64_t begin, int64_t end, const axis *x, const axis *y, espl_buffer *out) {
    int64_t low = begin, high = begin;
    for (int64_t i = begin; i < end; i++) {
        low = s->y[i] < s->y[low] ? i : low;
        high = s->y[i] > s->y[high] ? i : high;
    }
    draw_point(s, low < high ? low : high, x, y, out);
    if (low != high)
        draw_point(s, low < high ? high : low, x, y, out);
}

static void draw_marks(const espl_curve *c, const axis *x, const axis *y, espl_buffer *out) {
    for (int64_t i = 0; i < c->points.n; i++) {
        espl_buffer_printf(out, "<circle class=\"m%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>step %.0f: ", c->colour,
                           at_x(x, c->points.x[i]), at_y(y, c->points.y[i]), c->points.x[i]);
        espl_number_print(out, c->points.y[i]);
        espl_buffer_printf(out, "</title></circle>");
    }
}

static void draw_curve(const espl_curve *c, const axis *x, const axis *y, espl_buffer *out) {
    static const char *const strokes[] = {"line", "faint", "dashed"};
    int64_t n = c->points.n, stretches = n > MOST_POINTS ? MOST_POINTS / 2 : n;
    espl_buffer_printf(out, "<polyline class=\"%s c%d\" points=\"", strokes[c->stroke], c->colour);
    for (int64_t s = 0; s < stretches; s++)
        draw_stretch(&c->points, s * n / stretches, (s + 1) * n / stretches, x, y, out);
    espl_buffer_printf(out, "\"/>");
    if (c->stroke == ESPL_STROKE_MARKED && n <= 200)
        draw_marks(c, x, y, out);
}

static void draw_legend(const espl_chart *c, espl_buffer *out) {
    espl_buffer_printf(out, "<p class=\"legend\">");
    for (int64_t k = 0; k < c->n; k++) {
        if (c->curves[k].name == NULL)
            continue;
        espl_buffer_printf(out, "<span><i class=\"b%d\"></i>", c->curves[k].colour);
        espl_escape(out, c->curves[k].name);
        espl_buffer_printf(out, "</span> ");
    }
    espl_buffer_printf(out, "</p>\n");
}

bool espl_chart_drawable(const espl_chart *c) {
    for (int64_t k = 0; k < c->n; k++)
        if (c->curves[k].points.n >= 2)
            return true;
    return false;
}

void espl_chart_draw(const espl_chart *c, espl_buffer *out) {
    axis x, y;
    find_range(c, &x, &y);
    espl_buffer_printf(out, "<figure><figcaption>");
    espl_escape(out, c->title);
    espl_buffer_printf(out, "</figcaption>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", WIDTH, HEIGHT);
    espl_escape(out, c->title);
    espl_buffer_printf(out, "\">");
    draw_axes(c, &x, &y, out);
    for (int64_t k = 0; k < c->n; k++)
        draw_curve(&c->curves[k], &x, &y, out);
    espl_buffer_printf(out, "</svg>\n");
    draw_legend(c, out);
    espl_buffer_printf(out, "</figure>\n");
}

espl_series espl_series_smooth(const espl_series *s) {
    espl_series smooth = {espl_malloc((size_t)(s->n + 1) * sizeof *s->x), espl_malloc((size_t)(s->n + 1) * sizeof *s->y), s->n};
    const int64_t reach = s->n / 60;
    for (int64_t i = 0; i < s->n; i++) {
        int64_t near = i < s->n - 1 - i ? i : s->n - 1 - i, side = near < reach ? near : reach;
        double sum = 0.0;
        for (int64_t k = i - side; k <= i + side; k++)
            sum += s->y[k];
        smooth.x[i] = s->x[i];
        smooth.y[i] = sum / (double)(2 * side + 1);
    }
    return smooth;
}
