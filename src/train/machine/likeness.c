#include "src/train/machine/likeness.h"

#include "comm/alike.h"
#include "src/core/log.h"

#include <elf.h>
#include <link.h>
#include <string.h>
#include <xxhash.h>

enum { MOST_ROWS = 16 };

/* ---- The build. */

static size_t padded(size_t n) { return (n + 3) / 4 * 4; }

static void print_build_id(const char *notes, size_t size, char text[64]) {
    for (size_t at = 0; at + sizeof(ElfW(Nhdr)) <= size;) {
        ElfW(Nhdr) note;
        memcpy(&note, notes + at, sizeof note);
        const char *name = notes + at + sizeof note, *id = name + padded(note.n_namesz);
        at += sizeof note + padded(note.n_namesz) + padded(note.n_descsz);
        if (at > size || note.n_type != NT_GNU_BUILD_ID || note.n_namesz != 4 || memcmp(name, "GNU", 4) != 0)
            continue;
        for (size_t i = 0; i < note.n_descsz && i < 31; i++)
            snprintf(text + 2 * i, 3, "%02x", (unsigned char)id[i]);
    }
}

/* The program itself is the first that is visited. */
static int visit(struct dl_phdr_info *info, size_t size, void *text) {
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_NOTE)
            print_build_id((const char *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr), info->dlpi_phdr[i].p_memsz, text);
    return 1;
}

void espl_build_id(char text[64]) {
    text[0] = '\0';
    dl_iterate_phdr(visit, text);
}

/* ---- Comparing. */

static uint64_t hash_of(const char *text) { return XXH3_64bits(text, strlen(text)); }

static espl_status text_of(espl_comm *comm, const espl_likeness *row, int whose, char text[ESPL_LIKENESS_TEXT]) {
    memcpy(text, row->text, sizeof row->text);
    return espl_comm_bcast(comm, text, sizeof row->text, whose);
}

static espl_status tell(espl_comm *comm, const espl_likeness *row) {
    espl_odd odd;
    char theirs[ESPL_LIKENESS_TEXT], others[ESPL_LIKENESS_TEXT];
    ESPL_TRY(espl_comm_odd_ones(comm, hash_of(row->text), 1, &odd));
    ESPL_TRY(text_of(comm, row, odd.first, theirs));
    ESPL_TRY(text_of(comm, row, odd.most, others));
    const char *form = odd.majority ? "%s differs from most in its %s: %s, theirs: %s; %s" : "%s differ in their %s: %s, or %s; %s";
    const char *what_to_do = row->must ? "they cannot train together: make them alike, or leave those hosts out" : "the run goes on";
    char line[ESPL_ODD_TEXT + 3 * ESPL_LIKENESS_TEXT];
    snprintf(line, sizeof line, form, odd.text, row->what, theirs, others, what_to_do);
    if (row->must)
        ESPL_FAIL(ESPL_ERR_USAGE, "%s", line);
    if (espl_comm_ranks(comm)->rank == 0)
        ESPL_WARN("%s", line);
    return ESPL_OK;
}

espl_status espl_likeness_check(espl_comm *comm, const espl_likeness *rows, int n) {
    uint64_t hashes[MOST_ROWS] = {0};
    bool alike[MOST_ROWS];
    ESPL_ASSERT(n <= MOST_ROWS, "%d rows of likeness", n);
    for (int i = 0; i < n; i++)
        hashes[i] = hash_of(rows[i].text);
    ESPL_TRY(espl_comm_alike(comm, hashes, (size_t)n, 1, alike));
    for (int i = 0; i < n; i++)
        if (!alike[i])
            ESPL_TRY(tell(comm, &rows[i]));
    return ESPL_OK;
}
