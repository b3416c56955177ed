#include "src/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Everything stands in the page: it can be mailed, and opens where there is no network. */
static const char style[] =
    ":root{color-scheme:light dark;--ink:#1c2024;--soft:#667;--paper:#fff;--line:#dde1e6;--panel:#f6f7f9;--heat:37,99,235;"
    "--c0:#2563eb;--c1:#d9480f;--c2:#2b8a3e;--c3:#9c36b5;--c4:#0b7285;--c5:#c2255c;--c6:#846a00;--c7:#495057}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3ad;--paper:#15181c;--line:#30363d;--panel:#1d2126;--heat:96,165,250;"
    "--c0:#60a5fa;--c1:#ff922b;--c2:#69db7c;--c3:#da77f2;--c4:#3bc9db;--c5:#f783ac;--c6:#ffd43b;--c7:#adb5bd}}"
    "*{box-sizing:border-box}body{margin:0 auto;max-width:62rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);"
    "background:var(--paper);overflow-wrap:anywhere}h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem;"
    "border-bottom:1px solid var(--line)}h3{font-size:1rem;margin:1.2rem 0 .3rem}p{margin:.4rem 0}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}"
    "th,td{border:1px solid var(--line);padding:.25rem "
    ".55rem;text-align:left;vertical-align:top;overflow-wrap:normal}th{background:var(--panel)}"
    "td.n{text-align:right;white-space:nowrap}td.long{min-width:18rem;white-space:pre-wrap}"
    "figure{margin:1rem 0;padding:.6rem;background:var(--panel);border-radius:6px}figcaption{font-weight:600}"
    "svg{width:100%;height:auto;display:block}polyline{fill:none;stroke-width:2;stroke-linejoin:round}.faint{opacity:.3;stroke-width:1}"
    ".dashed{stroke-dasharray:5 4}.grid{stroke:var(--line);fill:none}.tick{font-size:12px;fill:var(--soft)}"
    ".legend{margin:.2rem 0 0;font-size:.85rem}.legend span{margin-right:1rem;white-space:nowrap}"
    ".legend i{display:inline-block;width:.9rem;height:.25rem;margin-right:.35rem;vertical-align:middle}"
    "@media(max-width:600px){.tick{font-size:17px}}details{margin:.6rem "
    "0}summary{cursor:pointer;font-weight:600}pre{overflow-x:auto;background:var(--panel);padding:.6rem;font-size:.8rem}";

static void begin(espl_buffer *out, const char *title) {
    espl_buffer_printf(out, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
                            "content=\"width=device-width,initial-scale=1\">\n<link rel=\"icon\" href=\"data:,\"><title>");
    espl_escape(out, title);
    espl_buffer_printf(out, "</title>\n<style>%s", style);
    for (int i = 0; i < 8; i++)
        espl_buffer_printf(out, ".c%d{stroke:var(--c%d)}.m%d{fill:var(--c%d)}.b%d{background:var(--c%d)}", i, i, i, i, i, i);
    espl_buffer_printf(out, "</style></head>\n<body><h1>");
    espl_escape(out, title);
    espl_buffer_printf(out, "</h1>\n");
}

static void heading(espl_buffer *out, int level, const char *text) {
    espl_buffer_printf(out, "<h%d>", level);
    espl_escape(out, text);
    espl_buffer_printf(out, "</h%d>\n", level);
}

static void paragraph(espl_buffer *out, const char *text) {
    espl_buffer_printf(out, "<p>");
    espl_escape(out, text);
    espl_buffer_printf(out, "</p>\n");
}

static bool is_number(const char *text) {
    char *end;
    strtod(text, &end);
    return end != text && *end == '\0';
}

static void cell(espl_buffer *out, const espl_table *t, int64_t i) {
    enum { LONG = 40 }; /* bytes from which a cell may fill several lines */
    const char *text = t->cells[i];
    const char *kind = is_number(text) ? " class=\"n\"" : strnlen(text, LONG) == LONG ? " class=\"long\"" : "";
    const char *tag = i < t->columns ? "th" : "td";
    espl_buffer_printf(out, "<%s%s", tag, i < t->columns ? "" : kind);
    if (!isnan(t->heat[i]))
        espl_buffer_printf(out, " style=\"background:rgba(var(--heat),%.2f)\"", 0.6 * t->heat[i]);
    espl_buffer_printf(out, ">");
    espl_escape(out, text);
    espl_buffer_printf(out, "</%s>", tag);
}

static void table(espl_buffer *out, const espl_table *t) {
    espl_buffer_printf(out, "<div class=\"wide\"><table>\n");
    for (int64_t i = 0; i < t->n; i++) {
        if (i % t->columns == 0)
            espl_buffer_printf(out, "<tr>");
        cell(out, t, i);
        if (i % t->columns == t->columns - 1)
            espl_buffer_printf(out, "</tr>\n");
    }
    espl_buffer_printf(out, "</table></div>\n");
}

static void chart(espl_buffer *out, const espl_chart *c) { espl_chart_draw(c, out); }

static void folded(espl_buffer *out, const char *title, const char *text) {
    espl_buffer_printf(out, "<details><summary>");
    espl_escape(out, title);
    espl_buffer_printf(out, "</summary><pre>");
    espl_escape(out, text);
    espl_buffer_printf(out, "</pre></details>\n");
}

static void end(espl_buffer *out) { espl_buffer_printf(out, "</body></html>\n"); }

const espl_page_format espl_page_html = {begin, heading, paragraph, table, chart, folded, end};
