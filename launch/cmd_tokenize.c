#include "launch/commands.h"
#include "launch/recipe.h"
#include "launch/session.h"
#include "launch/show_samples.h"

#include "io/tokenizer/tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char text[] =
    "Prints the ids of each line of a file (default or '-': standard input), separated by spaces, one line for each.\n"
    "TOKENIZER is a tokenizer.json or a model folder that holds one.\n"
    "With a config instead: what its model will see of the first N texts (--show, default 3) of data.train, a token a line: id, type, "
    "token\n"
    "and, behind an arrow, what it is to say there. Of conversations and prompts the text, with what is not learned in grey, or in [[ ]] "
    "where\n"
    "the output is no terminal.\n";

static bool is_config(const char *path) {
    size_t n = strlen(path);
    return (n > 5 && strcmp(path + n - 5, ".yaml") == 0) || (n > 4 && strcmp(path + n - 4, ".yml") == 0);
}

typedef struct wish {
    espl_words operands, sets;
    bool decode, offsets, no_special, null, pairs, types;
    int64_t show, length;
    const char *keep;
    espl_truncation truncation;
} wish;

static espl_status show_recipe(espl_comm *comm, void *context) {
    const wish *wanted = context;
    espl_config config;
    espl_status status = ESPL_OK;
    espl_config_make(&config);
    ESPL_TRY_DONE(espl_recipe_share(comm, wanted->operands.items[0], &wanted->sets, &config));
    ESPL_TRY_DONE(espl_show_samples(comm, &config, wanted->show > 0 ? wanted->show : 3, stdout));
done:
    espl_config_free(&config);
    return status;
}

/* One text, or a pair when there is a second. */
typedef struct unit {
    const char *text, *second;
    size_t n, n_second;
} unit;

static espl_status encode(const espl_tokenizer *tokenizer, const wish *wanted, const unit *u, espl_encoding *encoding) {
    const espl_encode_input input = {.text = u->text,
                                     .size = u->n,
                                     .second = u->second,
                                     .second_size = u->n_second,
                                     .special = !wanted->no_special,
                                     .length = wanted->length,
                                     .truncation = wanted->truncation};
    encoding->n = 0;
    return espl_tokenizer_encode_input(tokenizer, &input, encoding, NULL);
}

static espl_status put_ids(const espl_tokenizer *tokenizer, const wish *wanted, const unit *u, espl_encoding *encoding) {
    ESPL_TRY(encode(tokenizer, wanted, u, encoding));
    for (int64_t i = 0; i < encoding->n; i++) {
        printf("%s%" PRId32, i > 0 ? " " : "", encoding->ids[i]);
        if (wanted->types)
            printf("/%d", encoding->types[i]);
        if (wanted->offsets)
            printf(":%" PRId64 "-%" PRId64, encoding->begin[i], encoding->end[i]);
    }
    putchar('\n');
    return ESPL_OK;
}

/* One token a line: id, place in the text, what it decodes to. */
static espl_status put_tokens(const espl_tokenizer *tokenizer, const wish *wanted, const unit *u, espl_encoding *encoding) {
    ESPL_TRY(encode(tokenizer, wanted, u, encoding));
    for (int64_t i = 0; i < encoding->n; i++) {
        espl_buffer token = {0};
        ESPL_TRY(espl_tokenizer_decode(tokenizer, &encoding->ids[i], 1, false, &token));
        printf("%8" PRId32 " %6" PRId64 "-%-6" PRId64 " |%s|\n", encoding->ids[i], encoding->begin[i], encoding->end[i], token.data);
        espl_buffer_free(&token);
    }
    putchar('\n');
    return ESPL_OK;
}

static espl_status read_ids(const char *line, int64_t number, espl_encoding *encoding) {
    encoding->n = 0;
    for (char *end; *(line += strspn(line, " \t\r")) != '\0'; line = end) {
        errno = 0;
        long id = strtol(line, &end, 10);
        if (end == line || errno != 0 || id < 0 || id > INT32_MAX)
            ESPL_FAIL(ESPL_ERR_DATA, "line %" PRId64 ": '%.20s' is not an id", number, line);
        if (encoding->n == encoding->capacity) {
            encoding->capacity = 2 * encoding->capacity + 64;
            encoding->ids = espl_realloc(encoding->ids, (size_t)encoding->capacity * sizeof *encoding->ids);
        }
        encoding->ids[encoding->n++] = (int32_t)id;
    }
    return ESPL_OK;
}

static espl_status put_text(const espl_tokenizer *tokenizer, const wish *wanted, const espl_encoding *encoding) {
    espl_status status = ESPL_OK;
    espl_buffer decoded = {0};
    ESPL_TRY_DONE(espl_tokenizer_decode(tokenizer, encoding->ids, encoding->n, wanted->no_special, &decoded));
    fwrite(decoded.data, 1, decoded.size, stdout);
    putchar(wanted->null ? '\0' : '\n');
done:
    espl_buffer_free(&decoded);
    return status;
}

static espl_status put_unit(const espl_tokenizer *tokenizer, const wish *wanted, const unit *u, int64_t number, espl_encoding *encoding) {
    if (!wanted->decode)
        return (wanted->show > 0 ? put_tokens : put_ids)(tokenizer, wanted, u, encoding);
    ESPL_TRY(read_ids(u->text, number, encoding));
    return put_text(tokenizer, wanted, encoding);
}

/* The next line without its end; *found false after the last. */
static void next_line(FILE *in, int delimiter, char **line, size_t *capacity, size_t *n, bool *found) {
    ssize_t got = getdelim(line, capacity, delimiter, in);
    *found = got >= 0;
    *n = got > 0 ? (size_t)got : 0;
    if (*n > 0 && (*line)[*n - 1] == delimiter)
        (*line)[--*n] = '\0';
}

static espl_status each_unit(const espl_tokenizer *tokenizer, const wish *wanted, FILE *in) {
    espl_status status = ESPL_OK;
    espl_encoding encoding = {.want_offsets = (wanted->offsets || wanted->show > 0) && !wanted->decode, .want_kinds = wanted->types};
    int delimiter = wanted->null && !wanted->decode ? '\0' : '\n';
    char *line = NULL, *second = NULL;
    size_t capacity = 0, second_capacity = 0;
    for (int64_t number = 1; wanted->show == 0 || number <= wanted->show; number++) {
        unit u = {0};
        bool found;
        next_line(in, delimiter, &line, &capacity, &u.n, &found);
        if (!found)
            break;
        if (wanted->pairs) {
            next_line(in, delimiter, &second, &second_capacity, &u.n_second, &found);
            if (!found)
                ESPL_FAIL_DONE(ESPL_ERR_DATA, "text %" PRId64 " has no second one, expected pairs", 2 * number - 1);
        }
        u.text = line;
        u.second = wanted->pairs ? second : NULL;
        ESPL_TRY_DONE(put_unit(tokenizer, wanted, &u, number, &encoding));
    }
    if (ferror(in) || fflush(stdout) != 0)
        ESPL_FAIL_DONE(ESPL_ERR_IO, "tokenize: %s", strerror(errno));
done:
    free(line);
    free(second);
    espl_encoding_free(&encoding);
    return status;
}

static espl_status check_wish(const espl_tokenizer *tokenizer, wish *wanted) {
    static const char *const words[] = {"head", "tail", "head_tail"};
    int64_t specials = wanted->no_special ? 0 : espl_tokenizer_specials(tokenizer, wanted->pairs);
    for (int i = 0; i < 3 && wanted->keep != NULL; i++)
        if (strcmp(wanted->keep, words[i]) == 0) {
            wanted->truncation = (espl_truncation)i;
            wanted->keep = NULL;
        }
    if (wanted->keep != NULL)
        ESPL_FAIL(ESPL_ERR_USAGE, "--keep %s: expected head, tail or head_tail", wanted->keep);
    if (wanted->length < 0 || (wanted->length > 0 && wanted->length <= specials))
        ESPL_FAIL(ESPL_ERR_USAGE, "--length %" PRId64 ": expected more than the %" PRId64 " special tokens", wanted->length, specials);
    return ESPL_OK;
}

static espl_status show_lines(wish *wanted) {
    const espl_words *operands = &wanted->operands;
    espl_status status = ESPL_OK;
    espl_tokenizer *tokenizer = NULL;
    const char *path = operands->n > 1 ? operands->items[1] : "-";
    FILE *in = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!in)
        ESPL_FAIL(ESPL_ERR_DATA, "%s: cannot be opened: %s", path, strerror(errno));
    ESPL_TRY_DONE(espl_tokenizer_open(operands->items[0], &tokenizer));
    ESPL_TRY_DONE(check_wish(tokenizer, wanted));
    ESPL_TRY_DONE(each_unit(tokenizer, wanted, in));
done:
    espl_tokenizer_close(&tokenizer);
    if (in != stdin)
        fclose(in);
    return status;
}

static espl_status answer(void *job) {
    wish *wanted = job;
    return is_config(wanted->operands.items[0]) ? espl_session_run(0, show_recipe, wanted) : show_lines(wanted);
}

espl_status espl_cmd_tokenize(int argc, char **argv) {
    wish wanted = {0};
    const espl_option options[] = {
        {"decode", NULL, "the other way: each line holds ids, print their text", ESPL_OPTION_SWITCH, &wanted.decode},
        {"offsets", NULL, "print each id with its bytes in the line, as id:begin-end", ESPL_OPTION_SWITCH, &wanted.offsets},
        {"no-special", NULL, "do not add special tokens; with --decode: leave them out", ESPL_OPTION_SWITCH, &wanted.no_special},
        {"pairs", NULL, "every two lines are one pair, in the tokenizer's template for pairs", ESPL_OPTION_SWITCH, &wanted.pairs},
        {"types", NULL, "print each id with its token type, as id/type", ESPL_OPTION_SWITCH, &wanted.types},
        {"length", "N", "cut to N tokens, special ones included", ESPL_OPTION_INT, &wanted.length},
        {"keep", "WHAT", "of what is cut: head (default), tail, head_tail", ESPL_OPTION_TEXT, &wanted.keep},
        {"null", NULL, "texts end in a NUL byte, not in a newline", ESPL_OPTION_SWITCH, &wanted.null},
        {"show", "N", "only the first N lines or texts, one token a line with its text", ESPL_OPTION_INT, &wanted.show},
        {"set", "KEY=VALUE", "with a config: override one key, as section.key=value", ESPL_OPTION_TEXTS, &wanted.sets},
    };
    const espl_usage usage = {.verb = "tokenize",
                              .operands = "TOKENIZER|CONFIG.yaml [FILE|-]",
                              .text = text,
                              ESPL_OPTIONS(options),
                              .min_operands = 1,
                              .max_operands = 2};
    return espl_options_run(&usage, argc, argv, &wanted.operands, answer, &wanted);
}
