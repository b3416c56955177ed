/* Short forms for the rows of a family's tables. Included by the files that hold tables, and nothing else. */
#ifndef ESPL_MODEL_ROWS_H
#define ESPL_MODEL_ROWS_H

#include "src/model/family.h"

/* Parameters: {MATRIX(role, section, name, rows, columns, initialisation), when}; matrices decay, vectors and SCALES do not. */
#define ESPL_PARAM_ROW(role, section, name, rows, columns, init, decays)                                                                   \
    ESPL_ROLE_##role, ESPL_SECTION_##section, name, {ESPL_SIZE_##rows, ESPL_SIZE_##columns}, ESPL_INIT_##init, decays
#define MATRIX(role, section, name, rows, columns, init) ESPL_PARAM_ROW(role, section, name, rows, columns, init, true)
#define SCALES(role, section, name, rows, columns, init) ESPL_PARAM_ROW(role, section, name, rows, columns, init, false)
#define VECTOR(role, section, name, size, init) ESPL_PARAM_ROW(role, section, name, size, NONE, init, false)

/* Ops: {OP(op, section, name), IN..(values), OUT..(value, width, ...), WITH..(roles), .when = ..., .stream = ...}. */
#define OP(id, part, text) .op = ESPL_OP_##id, .section = ESPL_SECTION_##part, .name = (text)
#define IN1(a) .in = {ESPL_VALUE_##a}
#define IN2(a, b) .in = {ESPL_VALUE_##a, ESPL_VALUE_##b}
#define OUT1(a, wa) .out = {ESPL_VALUE_##a}, .width = {ESPL_SIZE_##wa}
#define OUT2(a, wa, b, wb) .out = {ESPL_VALUE_##a, ESPL_VALUE_##b}, .width = {ESPL_SIZE_##wa, ESPL_SIZE_##wb}
#define OUT3(a, wa, b, wb, c, wc)                                                                                                          \
    .out = {ESPL_VALUE_##a, ESPL_VALUE_##b, ESPL_VALUE_##c}, .width = {ESPL_SIZE_##wa, ESPL_SIZE_##wb, ESPL_SIZE_##wc}
#define WITH1(a) .param = {ESPL_ROLE_##a}
#define WITH2(a, b) .param = {ESPL_ROLE_##a, ESPL_ROLE_##b}
#define WITH3(a, b, c) .param = {ESPL_ROLE_##a, ESPL_ROLE_##b, ESPL_ROLE_##c}
#define WITH4(a, b, c, d) .param = {ESPL_ROLE_##a, ESPL_ROLE_##b, ESPL_ROLE_##c, ESPL_ROLE_##d}

/* Tables of a family or a head: ESPL_TABLE(params, rows), ... */
#define ESPL_TABLE(field, table) .field = (table), .n_##field = sizeof(table) / sizeof *(table)

#endif
