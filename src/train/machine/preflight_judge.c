#include "src/core/buffer.h"
#include "src/core/median.h"
#include "src/train/machine/preflight.h"

#include <math.h>
#include <stdlib.h>

/* In the order of espl_measure. */
static const struct {
    const char *name;
    double unit; /* what a value is divided by to be shown */
    int digits;
} rows[ESPL_N_MEASURES] = {
    {"matrix GFLOP/s", 1e9, 1}, {"copy GB/s", 1e9, 2}, {"disk MB/s", 1e6, 0}, {"link MB/s", 1e6, 0}, {"clock ms", 1e-3, 1}};

/* Of those that were measured; NAN of none. */
static double median(const espl_preflight_host *hosts, int n, espl_measure what) {
    double *values = espl_malloc((size_t)n * sizeof *values);
    size_t found = 0;
    for (int h = 0; h < n; h++)
        if (!isnan(hosts[h].values[what]))
            values[found++] = hosts[h].values[what];
    double middle = espl_median(values, found);
    free(values);
    return middle;
}

bool espl_preflight_marked(const espl_preflight_host *host) {
    for (int m = 0; m < ESPL_N_MEASURES; m++)
        if (host->marked[m])
            return true;
    return false;
}

int espl_preflight_judge(espl_preflight_host *hosts, int n, double share, double clock, double medians[ESPL_N_MEASURES]) {
    int marked = 0;
    for (int m = 0; m < ESPL_N_MEASURES; m++)
        medians[m] = median(hosts, n, (espl_measure)m);
    for (int h = 0; h < n; h++) {
        for (int m = 0; m < ESPL_N_MEASURES; m++)
            hosts[h].marked[m] = m == ESPL_CLOCK ? fabs(hosts[h].values[m] - medians[m]) > clock : hosts[h].values[m] < share * medians[m];
        marked += espl_preflight_marked(&hosts[h]);
    }
    return marked;
}

static void print_values(const double values[ESPL_N_MEASURES], const bool *marked, FILE *out) {
    for (int m = 0; m < ESPL_N_MEASURES; m++) {
        char text[32] = "-";
        if (!isnan(values[m]))
            snprintf(text, sizeof text, "%.*f", rows[m].digits, values[m] / rows[m].unit);
        fprintf(out, "  %15s%c", text, marked != NULL && marked[m] ? '*' : ' ');
    }
    fputc('\n', out);
}

void espl_preflight_print(const espl_preflight_host *hosts, int n, const double medians[ESPL_N_MEASURES], FILE *out) {
    fprintf(out, "%-24s %5s", "host", "ranks");
    for (int m = 0; m < ESPL_N_MEASURES; m++)
        fprintf(out, "  %15s ", rows[m].name);
    fputc('\n', out);
    for (int h = 0; h < n; h++) {
        fprintf(out, "%-24s %5d", hosts[h].name, hosts[h].ranks);
        print_values(hosts[h].values, hosts[h].marked, out);
    }
    fprintf(out, "%-24s %5s", "median", "");
    print_values(medians, NULL, out);
}
