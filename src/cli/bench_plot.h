/* Line plots as SVG, side by side: logarithmic x, y from 0. Nothing but a file to write to is needed. */
#ifndef OCTAVO_CLI_BENCH_PLOT_H
#define OCTAVO_CLI_BENCH_PLOT_H

#include <stddef.h>
#include <stdio.h>

struct plot_series {
    const char *label;
    int color;            /* which of the palette's */
    size_t num_points;    /* >= 1 */
    const double *x, *y;  /* (num_points) x > 0, rising; y >= 0 */
    const double *limit;  /* (num_points) drawn dashed in the same color */
    const double *shares; /* (num_points) of the limit, written at each point, 0..1 */
};

struct plot_panel {
    const char *title, *x_label, *y_label;
    const struct plot_series *series; /* (num_series) */
    size_t num_series;
};

/* One SVG document; title and subtitle may hold any text. */
void plot_write(FILE *f, const char *title, const char *subtitle, const struct plot_panel *panels, size_t num_panels);

#endif
