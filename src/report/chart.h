/* Line charts as SVG, without scripts: they scale with the page and take their colours from its style sheet. */
#ifndef ESPL_REPORT_CHART_H
#define ESPL_REPORT_CHART_H

#include "src/core/buffer.h"
#include "src/report/run_files.h"

typedef enum espl_stroke { ESPL_STROKE_LINE, ESPL_STROKE_FAINT, ESPL_STROKE_MARKED } espl_stroke; /* MARKED: dashed, a mark at each point */

typedef struct espl_curve {
    const char *name; /* in the legend; NULL: not there. Borrowed */
    espl_series points;
    int colour; /* 0 .. 7 */
    espl_stroke stroke;
} espl_curve;

typedef struct espl_chart {
    const char *title; /* borrowed */
    const char *unit;  /* of y; borrowed */
    espl_curve *curves;
    int64_t n;
} espl_chart;

/* Local. Whether there is anything to draw: two points somewhere. */
bool espl_chart_drawable(const espl_chart *chart);

/* Local. Appends the chart as an <svg>. Long curves are thinned, keeping each stretch's lowest and highest point. */
void espl_chart_draw(const espl_chart *chart, espl_buffer *out);

/* Local. The mean around each point, over a thirtieth of all; the caller frees. */
espl_series espl_series_smooth(const espl_series *series);

/* Local. A number with the digits that a reader needs: 3 after the point for ordinary ones, powers for very small and large ones. */
void espl_number_print(espl_buffer *out, double value);

/* Local. Text with what HTML and SVG reserve replaced. */
void espl_escape(espl_buffer *out, const char *text);

#endif
