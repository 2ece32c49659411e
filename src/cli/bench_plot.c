/* SVG by hand: see bench_plot.h. */
#include "cli/bench_plot.h"

#include "base/mem.h"

#include <math.h>

/* Of a panel: its own width, and the plot's place in it; INSET keeps the first and the last point off the frame. */
enum { PANEL = 470, LEFT = 64, TOP = 96, WIDTH = 386, HEIGHT = 280, INSET = 22, TOTAL_HEIGHT = 452, MAX_TICKS = 12 };

/* Apart for the color-blind too. */
static const char *const palette[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"};

static void put_text(FILE *f, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '<':
            fputs("&lt;", f);
            break;
        case '>':
            fputs("&gt;", f);
            break;
        case '&':
            fputs("&amp;", f);
            break;
        default:
            fputc((unsigned char)*s < 32 ? ' ' : *s, f);
        }
}

static void text_at(FILE *f, double x, double y, const char *attributes, const char *s)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    put_text(f, s);
    fputs("</text>\n", f);
}

/* A round step that makes about five of max: 1, 2 or 5 times a power of ten. */
static double nice_step(double max)
{
    double unit = pow(10, floor(log10(max / 5)));
    double parts = max / 5 / unit;
    return unit * (parts <= 1 ? 1 : parts <= 2 ? 2 : parts <= 5 ? 5 : 10);
}

struct scale {
    double left, log_lo, log_hi, y_max;
};

static double at_x(const struct scale *s, double x)
{
    double span = s->log_hi - s->log_lo;
    return s->left + LEFT + INSET + (span > 0 ? (log(x) - s->log_lo) / span : 0.5) * (WIDTH - 2 * INSET);
}

static double at_y(const struct scale *s, double y)
{
    return TOP + HEIGHT * (1 - y / s->y_max);
}

static struct scale scale_of(const struct plot_panel *p, double left, double *ret_step)
{
    double lo = INFINITY, hi = 0, max = 0;
    for (size_t i = 0; i < p->num_series; i++)
        for (size_t j = 0; j < p->series[i].num_points; j++) {
            lo = fmin(lo, p->series[i].x[j]);
            hi = fmax(hi, p->series[i].x[j]);
            max = fmax(max, fmax(p->series[i].y[j], p->series[i].limit[j]));
        }
    *ret_step = nice_step(max > 0 ? max : 1);
    return (struct scale){left, log(lo), log(hi), ceil(fmax(max, *ret_step) / *ret_step) * *ret_step};
}

static void short_number(char out[24], double x)
{
    if (x >= 1024 && fmod(x, 1024) == 0)
        snprintf(out, 24, "%.0fk", x / 1024);
    else
        snprintf(out, 24, "%.0f", x);
}

static void axes(FILE *f, const struct plot_panel *p, const struct scale *s, double step)
{
    char label[24];
    for (int i = 0; step * i <= s->y_max * 1.0001; i++) {
        double y = at_y(s, step * i);
        fprintf(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#ddd\"/>\n", s->left + LEFT, y,
                s->left + LEFT + WIDTH, y);
        snprintf(label, sizeof(label), "%g", step * i);
        text_at(f, s->left + LEFT - 6, y + 4, "text-anchor=\"end\"", label);
    }
    /* a tick for each x measured, unless they are too many */
    const struct plot_series *longest = p->series;
    for (size_t i = 1; i < p->num_series; i++)
        if (p->series[i].num_points > longest->num_points)
            longest = &p->series[i];
    size_t every = (longest->num_points + MAX_TICKS - 1) / MAX_TICKS;
    for (size_t j = 0; j < longest->num_points; j += every) {
        double x = at_x(s, longest->x[j]);
        fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#444\"/>\n", x, TOP + HEIGHT, x,
                TOP + HEIGHT + 5);
        short_number(label, longest->x[j]);
        text_at(f, x, TOP + HEIGHT + 19, "text-anchor=\"middle\"", label);
    }
    fprintf(f, "<path d=\"M%.1f %d V%d H%.1f\" fill=\"none\" stroke=\"#444\"/>\n", s->left + LEFT, TOP, TOP + HEIGHT,
            s->left + LEFT + WIDTH);
    text_at(f, s->left + LEFT + WIDTH / 2.0, TOP + HEIGHT + 40, "text-anchor=\"middle\"", p->x_label);
    fprintf(f, "<text transform=\"translate(%.1f %d) rotate(-90)\" text-anchor=\"middle\">", s->left + 14,
            TOP + HEIGHT / 2);
    put_text(f, p->y_label);
    fputs("</text>\n", f);
}

static void line(FILE *f, const struct scale *s, const struct plot_series *series, const double *y, const char *style)
{
    fprintf(f, "<polyline fill=\"none\" stroke=\"%s\" %s points=\"",
            palette[(size_t)series->color % ARRAY_LEN(palette)], style);
    for (size_t i = 0; i < series->num_points; i++)
        fprintf(f, "%s%.1f,%.1f", i ? " " : "", at_x(s, series->x[i]), at_y(s, y[i]));
    fputs("\"/>\n", f);
}

static void panel(FILE *f, const struct plot_panel *p, double left)
{
    double step;
    struct scale s = scale_of(p, left, &step);
    text_at(f, left + LEFT, TOP - 30, "font-size=\"14\" font-weight=\"bold\"", p->title);
    axes(f, p, &s, step);
    double legend = left + LEFT;
    for (size_t i = 0; i < p->num_series; i++) {
        const struct plot_series *series = &p->series[i];
        const char *color = palette[(size_t)series->color % ARRAY_LEN(palette)];
        line(f, &s, series, series->limit, "stroke-width=\"1.2\" stroke-dasharray=\"5 4\"");
        line(f, &s, series, series->y, "stroke-width=\"2\"");
        for (size_t j = 0; j < series->num_points; j++) {
            char share[16], style[64];
            double x = at_x(&s, series->x[j]), y = at_y(&s, series->y[j]);
            fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"%s\"/>\n", x, y, color);
            snprintf(share, sizeof(share), "%.0f%%", 100 * series->shares[j]);
            snprintf(style, sizeof(style), "text-anchor=\"middle\" font-size=\"10\" fill=\"%s\"", color);
            text_at(f, x, y + (i % 2 ? 15 : -8), style, share); /* above and below: lines lie close together */
        }
        fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"%s\" stroke-width=\"2\"/>\n", legend,
                TOP - 14, legend + 22, TOP - 14, color);
        text_at(f, legend + 27, TOP - 10, "", series->label);
        legend += 110;
    }
    fprintf(f, "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#444\" stroke-dasharray=\"5 4\"/>\n", legend,
            TOP - 14, legend + 22, TOP - 14);
    text_at(f, legend + 27, TOP - 10, "", "limit of the machine");
}

void plot_write(FILE *f, const char *title, const char *subtitle, const struct plot_panel *panels, size_t num_panels)
{
    double width = (double)(PANEL * num_panels);
    fprintf(f,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%d\" viewBox=\"0 0 %.0f %d\" "
            "font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            width, TOTAL_HEIGHT, width, TOTAL_HEIGHT);
    text_at(f, 16, 24, "font-size=\"16\" font-weight=\"bold\"", title);
    text_at(f, 16, 43, "fill=\"#555\"", subtitle);
    for (size_t i = 0; i < num_panels; i++)
        panel(f, &panels[i], (double)(i * PANEL));
    text_at(f, 16, TOTAL_HEIGHT - 12, "fill=\"#555\" font-size=\"11\"",
            "Percentages: share of the machine's limit, measured in the same run.");
    fputs("</svg>\n", f);
}
