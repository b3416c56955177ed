/* metrics.jsonl: one JSON object a line, each line one write. Internal to src/train/log. */
#ifndef ESPL_TRAIN_METRICS_LINES_H
#define ESPL_TRAIN_METRICS_LINES_H

#include "src/core/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct espl__metric {
    const char *name, *tag, *help; /* as in metrics.def */
    bool whole;
} espl__metric;

typedef struct espl__lines {
    char *path;
    int fd;
    int64_t size;    /* of the file; the next line goes here */
    char text[8192]; /* the line being written */
} espl__lines;

/* Local. Opens or makes the file. With resume_step > 0 lines of later steps and a torn last line are removed, by replacing the
 * file; with 0 all lines are. Errors: io. */
espl_status espl__lines_open(espl__lines *lines, const char *path, int64_t resume_step);

/* Local. Writes {"event", "step", "time", columns...}; values that are not finite are null, the others read back to the same bits. */
espl_status espl__lines_write(espl__lines *lines, const char *event, int64_t step, const espl__metric *columns, const double *values,
                              size_t n);

/* Local. Writes the same head, then the keys of `more`. Takes memory: not for the training loop. */
espl_status espl__lines_write_object(espl__lines *lines, const char *event, int64_t step, json_t *more);

/* Local. Closes; accepts what was never opened (zeroed, fd -1). */
void espl__lines_close(espl__lines *lines);

#endif
