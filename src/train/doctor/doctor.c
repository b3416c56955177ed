#include "src/train/doctor/doctor.h"

#include "src/core/buffer.h"
#include "src/core/job_files.h"
#include "src/train/doctor/doctor_checks.h"
#include "src/train/machine/threads.h"

#include <jansson.h>
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- Findings. */

static void add(espl_findings *findings, const espl_finding *finding) {
    findings->items = espl_realloc(findings->items, (size_t)(findings->n + 1) * sizeof *findings->items);
    findings->items[findings->n++] = *finding;
}

void espl__doctor_say(espl__doctor *d, espl_finding_level level, const char *advice, const char *format, ...) {
    char text[ESPL_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    espl_finding finding = {
        .level = level, .check = espl_strdup(d->check), .text = espl_strdup(text), .advice = espl_strdup(advice), .ranks = 1};
    memcpy(finding.host, d->ranks->host, sizeof finding.host);
    add(d->findings, &finding);
}

static void free_finding(espl_finding *finding) {
    free(finding->check);
    free(finding->text);
    free(finding->advice);
}

void espl_findings_free(espl_findings *findings) {
    for (int i = 0; i < findings->n; i++)
        free_finding(&findings->items[i]);
    free(findings->items);
    *findings = (espl_findings){0};
}

int espl_findings_count(const espl_findings *findings, espl_finding_level level) {
    int n = 0;
    for (int i = 0; i < findings->n; i++)
        n += findings->items[i].level == level;
    return n;
}

/* ---- What checks look with. */

char *espl__doctor_text(const char *path) {
    espl_buffer text = {0};
    if (espl_file_read(path, &text) == 0)
        return text.data;
    espl_buffer_free(&text);
    return espl_strdup("");
}

double espl__doctor_number(const char *path, double otherwise) {
    char *text = espl__doctor_text(path), *end = NULL;
    double value = strtod(text, &end);
    if (end == text)
        value = otherwise;
    free(text);
    return value;
}

const char *espl__doctor_variable(const char *name) {
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

typedef struct affinity {
    int64_t node;
    cpu_set_t cores;
} affinity;

static espl_status look_at_cores(espl__doctor *d) {
    affinity mine = {.node = d->ranks->node}, *all = espl_calloc((size_t)d->ranks->size, sizeof *all);
    cpu_set_t together;
    CPU_ZERO(&together);
    sched_getaffinity(0, sizeof mine.cores, &mine.cores);
    espl_status status = espl_comm_allgather(d->comm, &mine, sizeof mine, all);
    for (int r = 0; r < d->ranks->size && status == ESPL_OK; r++) {
        if (all[r].node != mine.node)
            continue;
        CPU_OR(&together, &together, &all[r].cores);
        d->cores.sharers += CPU_EQUAL(&all[r].cores, &mine.cores);
    }
    d->cores.mine = CPU_COUNT(&mine.cores);
    d->cores.on_host = CPU_COUNT(&together);
    free(all);
    return status;
}

/* ---- The checks. */

typedef enum scope { OF_RANK, OF_HOST, OF_JOB } scope;

static const struct {
    const char *name;
    scope scope;
    void (*look)(espl__doctor *d);
} checks[] = {
    {"mpi", OF_RANK, espl__check_mpi},           {"scheduler", OF_JOB, espl__check_scheduler},
    {"device", OF_HOST, espl__check_device},     {"cores", OF_HOST, espl__check_host_cores},
    {"cores", OF_RANK, espl__check_cores},       {"numa", OF_HOST, espl__check_numa},
    {"memory", OF_HOST, espl__check_memory},     {"limits", OF_RANK, espl__check_limits},
    {"shm", OF_HOST, espl__check_shared_memory}, {"environment", OF_RANK, espl__check_environment},
    {"files", OF_JOB, espl__check_files},
};

static bool is_mine(const espl__doctor *d, scope scope) {
    return scope == OF_RANK || (scope == OF_HOST && d->ranks->node_rank == 0) || d->ranks->rank == 0;
}

static espl_status look_at_all(espl__doctor *d) {
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        d->check = checks[i].name;
        if (is_mine(d, checks[i].scope))
            checks[i].look(d);
        espl_status_clear();
    }
    d->check = "files";
    ESPL_TRY(espl__check_shared_folder(d));
    d->check = "clocks";
    return espl__check_clocks(d);
}

/* ---- From all ranks to rank 0. Facts of the others are not news. */

static void pack(const espl_findings *findings, const espl_ranks *ranks, espl_buffer *packed) {
    for (int i = 0; i < findings->n && ranks->rank != 0; i++) {
        const espl_finding *f = &findings->items[i];
        if (f->level != ESPL_FINE)
            espl_buffer_printf(packed, "%d%c%s%c%s%c%s%c%s%c", (int)f->level, 0, f->check, 0, f->text, 0, f->advice, 0, f->host, 0);
    }
}

static void merge(espl_findings *findings, espl_finding *found) {
    for (int i = 0; i < findings->n; i++) {
        espl_finding *known = &findings->items[i];
        if (strcmp(known->check, found->check) == 0 && strcmp(known->text, found->text) == 0) {
            known->ranks++;
            free_finding(found);
            return;
        }
    }
    add(findings, found);
}

static void unpack(espl_findings *findings, const char *at, const char *end) {
    while (at < end && *at != '\0') {
        const char *part[5];
        for (int i = 0; i < 5; i++) {
            part[i] = at;
            at += strlen(at) + 1;
        }
        espl_finding found = {.level = (espl_finding_level)atoi(part[0]),
                              .check = espl_strdup(part[1]),
                              .text = espl_strdup(part[2]),
                              .advice = espl_strdup(part[3]),
                              .ranks = 1};
        snprintf(found.host, sizeof found.host, "%s", part[4]);
        merge(findings, &found);
    }
}

static espl_status gather(espl_comm *comm, espl_findings *findings) {
    const espl_ranks *ranks = espl_comm_ranks(comm);
    espl_buffer mine = {0};
    pack(findings, ranks, &mine);
    int64_t most = (int64_t)mine.size;
    espl_status status = espl_comm_allreduce_i64(comm, &most, 1, ESPL_MAX);
    if (status == ESPL_OK && most > 0) {
        char *own = espl_calloc(1, (size_t)most), *all = espl_malloc((size_t)most * (size_t)ranks->size);
        if (mine.size > 0)
            memcpy(own, mine.data, mine.size);
        status = espl_comm_allgather(comm, own, (size_t)most, all);
        for (int r = 0; r < ranks->size && status == ESPL_OK; r++)
            unpack(findings, all + most * r, all + most * (r + 1));
        free(own);
        free(all);
    }
    espl_buffer_free(&mine);
    return status;
}

espl_status espl_doctor_examine(espl_comm *comm, const espl_config *config, const espl_doctor_options *options, espl_findings *findings) {
    espl__doctor d = {.comm = comm, .ranks = espl_comm_ranks(comm), .config = config, .options = options, .findings = findings};
    espl_status status = ESPL_OK;
    *findings = (espl_findings){0};
    ESPL_TRY_DONE(espl_threads_choose(comm, config->run_threads, &d.threads));
    ESPL_TRY_DONE(look_at_cores(&d));
    ESPL_TRY_DONE(look_at_all(&d));
    ESPL_TRY_DONE(gather(comm, findings));
done:
    if (status != ESPL_OK || d.ranks->rank != 0)
        espl_findings_free(findings);
    return status;
}

/* ---- Telling. */

static const char *const level_words[] = {[ESPL_FINE] = "ok", [ESPL_POOR] = "WARN", [ESPL_FAILS] = "FAIL"};

void espl_findings_print(const espl_findings *findings, int n_ranks, FILE *out) {
    for (int i = 0; i < findings->n; i++) {
        const espl_finding *f = &findings->items[i];
        fprintf(out, "%-5s %-12s %s", level_words[f->level], f->check, f->text);
        if (f->level != ESPL_FINE && n_ranks > 1)
            fprintf(out, " (%s%s)", f->host, f->ranks > 1 ? " and others" : "");
        fprintf(out, "\n");
        if (f->advice[0] != '\0')
            fprintf(out, "%18s -> %s\n", "", f->advice);
    }
}

void espl_findings_print_json(const espl_findings *findings, FILE *out) {
    json_t *list = json_array();
    for (int i = 0; i < findings->n; i++) {
        const espl_finding *f = &findings->items[i];
        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:i, s:s}", "check", f->check, "level", level_words[f->level], "text",
                                              f->text, "advice", f->advice, "ranks", f->ranks, "host", f->host));
    }
    json_t *all = json_pack("{s:i, s:i, s:o}", "failed", espl_findings_count(findings, ESPL_FAILS), "warned",
                            espl_findings_count(findings, ESPL_POOR), "findings", list);
    char *text = json_dumps(all, JSON_COMPACT);
    fprintf(out, "%s\n", text != NULL ? text : "{}");
    free(text);
    json_decref(all);
}
