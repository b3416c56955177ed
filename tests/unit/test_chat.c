// test: libs=io,comm,core ranks=1 tier=short timeout=60
/* Conversations: records of each shape, what of them is learned, what is cut, bad ones; templates that are refused, and runaway ones. The
 * texts themselves are compared with transformers (tests/reference/chat_parity.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "io/tokens/tokens_internal.h"
#include "src/core/log.h"
#include "tests/unit/scratch.h"

#include <stdlib.h>
#include <string.h>

#define PLAIN "{% for m in messages %}{{ '<' ~ m.role ~ '>' ~ m.content ~ ';' }}{% endfor %}{{ '<assistant>' if add_generation_prompt }}"
#define MARKED                                                                                                                             \
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }};{% endgeneration %}"               \
    "{% else %}{{ m.content }};{% endif %}{% endfor %}"
#define TALK                                                                                                                               \
    "{\"system\": \"s\", \"messages\": [{\"role\": \"user\", \"content\": \"one\"}, {\"role\": \"assistant\", \"content\": \"two\"}, "     \
    "{\"role\": \"user\", \"content\": \"three\"}, {\"role\": \"assistant\", \"content\": \"four\"}]}"

static espl_tokenizer *tokenizer;
static char *folder;

static int set_up(void **state) {
    (void)state;
    espl_log_set(0, ESPL_LOG_ERROR, NULL);
    folder = make_scratch();
    return espl_tokenizer_open(ESPL_SOURCE_DIR "/configs/data/bpe2048", &tokenizer) != ESPL_OK;
}

static int tear_down(void **state) {
    (void)state;
    espl_tokenizer_close(&tokenizer);
    remove_scratch(folder);
    return 0;
}

static void put(const char *name, const char *text) {
    char *path = espl_format("%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    free(path);
}

static espl_chat *open_chat(const char *template, espl_chat_loss loss) {
    espl_chat *chat;
    char *path = espl_format("%s/template", folder);
    put("template", template);
    const espl_chat_options options = {.template = path, .folder = folder, .loss = loss};
    if (espl_chat_open(&options, &chat) != ESPL_OK)
        fail_msg("%s", espl_status_message());
    free(path);
    return chat;
}

/* What becomes of a record. */
typedef struct made {
    espl_document_tokens tokens;
    char *problem;
    espl_buffer text; /* what is not learned in brackets */
} made;

static void put_run(const made *m, int64_t begin, int64_t end, bool learned, espl_buffer *out) {
    espl_buffer_printf(out, "%s", learned ? "" : "[");
    assert_int_equal(espl_tokenizer_decode(tokenizer, m->tokens.tokens.ids + begin, end - begin, false, out), ESPL_OK);
    espl_buffer_printf(out, "%s", learned ? "" : "]");
}

static made make(const espl_tokens_recipe *recipe, const espl_document *document) {
    made m = {.problem = NULL};
    assert_int_equal(espl__document_tokenise(tokenizer, recipe, document, &m.tokens, &m.problem), ESPL_OK);
    const char *mask = m.tokens.mask.data;
    for (int64_t from = 0, to; m.problem == NULL && from < m.tokens.tokens.n && m.tokens.n > 0; from = to) {
        for (to = from + 1; to < m.tokens.tokens.n && mask[to] == mask[from];)
            to++;
        put_run(&m, from, to, mask[from] != 0, &m.text);
    }
    return m;
}

static void drop(made *m) {
    espl__document_free(&m->tokens);
    espl_buffer_free(&m->text);
    free(m->problem);
}

static void expect_cut(const char *template, espl_chat_loss loss, int64_t length, espl_truncation truncation, const char *record,
                       const char *expected, bool cut) {
    espl_chat *chat = open_chat(template, loss);
    const espl_tokens_recipe recipe = {.chat = chat, .length = length, .truncation = truncation};
    made m = make(&recipe, &(espl_document){.text = record, .size = strlen(record)});
    if (m.problem != NULL)
        fail_msg("%s: %s", record, m.problem);
    assert_string_equal(m.text.data != NULL ? m.text.data : "", expected);
    assert_int_equal(m.tokens.n_lost > 0, cut);
    assert_int_equal(m.tokens.left_out, expected[0] == '\0');
    assert_int_equal(m.tokens.n, expected[0] != '\0');
    drop(&m);
    espl_chat_close(&chat);
}

static void expect(const char *template, espl_chat_loss loss, const char *record, const char *expected) {
    expect_cut(template, loss, 0, ESPL_KEEP_HEAD, record, expected, false);
}

static void expect_bad(const char *template, const char *record, const char *part) {
    espl_chat *chat = open_chat(template, ESPL_CHAT_ASSISTANT);
    const espl_tokens_recipe recipe = {.chat = chat};
    made m = make(&recipe, &(espl_document){.text = record, .size = strlen(record)});
    if (m.problem == NULL || strstr(m.problem, part) == NULL)
        fail_msg("%s: '%s' does not say '%s'", record, m.problem != NULL ? m.problem : "(no problem)", part);
    drop(&m);
    espl_chat_close(&chat);
}

static void learns_assistant_turns(void **state) {
    (void)state;
    const char *const templates[] = {PLAIN, MARKED};
    for (int i = 0; i < 2; i++) {
        expect(templates[i], ESPL_CHAT_ASSISTANT, TALK, "[<system>s;<user>one;<assistant>]two;[<user>three;<assistant>]four;");
        expect(templates[i], ESPL_CHAT_LAST, TALK, "[<system>s;<user>one;<assistant>two;<user>three;<assistant>]four;");
    }
    espl_chat *all = open_chat(PLAIN, ESPL_CHAT_ALL);
    assert_true(espl_chat_learns_all(all));
    espl_chat_close(&all);
}

static void asks_for_the_next_turn(void **state) {
    (void)state;
    espl_chat *chat = open_chat(PLAIN, ESPL_CHAT_ALL);
    espl_conversation talk;
    espl_chat_text text = {0};
    char *problem;
    size_t size;
    assert_true(espl_conversation_read(chat, TALK, strlen(TALK), &talk, &problem));
    int64_t last = espl_conversation_last(&talk, "assistant");
    assert_int_equal(last, talk.n - 1);
    assert_int_equal(espl_conversation_last(&talk, "critic"), -1);
    assert_true(espl_chat_ask(chat, &talk, last, &text, &problem));
    assert_int_equal(text.whole.text.size, strlen("<system>s;<user>one;<assistant>two;<user>three;<assistant>"));
    assert_memory_equal(text.whole.text.data, "<system>s;<user>one;<assistant>two;<user>three;<assistant>", text.whole.text.size);
    const char *end = espl_chat_turn_end(chat, &text, &size);
    assert_int_equal(size, 1);
    assert_memory_equal(end, ";", 1);
    espl_chat_close(&chat);
    chat = open_chat("{{ raise_exception('no') }}", ESPL_CHAT_ALL);
    assert_null(espl_chat_turn_end(chat, &text, &size));
    assert_int_equal(size, 0);
    assert_false(espl_chat_ask(chat, &talk, last, &text, &problem));
    free(problem);
    espl_conversation_free(&talk);
    espl_chat_text_free(&text);
    espl_chat_close(&chat);
}

static void takes_each_shape(void **state) {
    (void)state;
    const char *expected = "[<user>a\n\nb;<assistant>]c;";
    expect(PLAIN, ESPL_CHAT_ASSISTANT, "{\"prompt\": \"a\\n\\nb\", \"response\": \"c\"}", expected);
    expect(PLAIN, ESPL_CHAT_ASSISTANT, "{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\"}", expected);
    expect(PLAIN, ESPL_CHAT_ASSISTANT, "{\"instruction\": \"a\\n\\nb\", \"input\": \"\", \"output\": \"c\"}", expected);
    expect(PLAIN, ESPL_CHAT_ASSISTANT,
           "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\\n\\nb\"}, {\"from\": \"gpt\", \"value\": \"c\"}]}", expected);
    expect(PLAIN, ESPL_CHAT_ASSISTANT, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\\u00e4\\u0000\"}]}",
           "[<assistant>]\xC3\xA4");
}

static void names_bad_records(void **state) {
    (void)state;
    expect_bad(PLAIN, "{", "is not JSON");
    expect_bad(PLAIN, "[1]", "is no object, expected {\"messages\"");
    expect_bad(PLAIN, "{\"text\": \"a\"}", "is no conversation, expected");
    expect_bad(PLAIN, "{\"messages\": []}", "'messages' is no list");
    expect_bad(PLAIN, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, 1]}", "message 2 is no object");
    expect_bad(PLAIN, "{\"messages\": [{\"content\": \"a\"}]}", "message 1 has no 'role'");
    expect_bad(PLAIN, "{\"messages\": [{\"role\": \"user\"}]}", "message 1 has no 'content'");
    expect_bad(PLAIN, "{\"messages\": [{\"role\": \"user\", \"content\": 7}]}", "message 1: 'content' is neither");
    expect_bad(PLAIN, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "nothing to learn");
    expect_bad(PLAIN, "{\"prompt\": \"a\"}", "'response' is missing");
    expect_bad(PLAIN, "{\"instruction\": \"a\", \"input\": 3, \"output\": \"b\"}", "is no text");
    expect_bad(PLAIN, "{\"system\": 1, \"messages\": []}", "'system' is no text");
    expect_bad("{{ raise_exception('not ' ~ messages[0].role) }}", TALK, "refuses the conversation: not system");
}

/* A template that writes the beginning of a talk in another way than the whole: parts cannot be told, and that is said. */
static void needs_beginnings(void **state) {
    (void)state;
    expect_bad("{{ messages | length }}" PLAIN, TALK, "otherwise than it begins the whole");
    expect("{{ messages | length }}" MARKED, ESPL_CHAT_ASSISTANT, TALK,
           "[5<system>s;<user>one;<assistant>]two;[<user>three;<assistant>]four;");
}

static int64_t tokens_of(const char *text) {
    espl_encoding encoding = {0};
    assert_int_equal(espl_tokenizer_encode(tokenizer, text, strlen(text), false, &encoding), ESPL_OK);
    int64_t n = encoding.n;
    espl_encoding_free(&encoding);
    return n;
}

static void cuts_whole_turns(void **state) {
    (void)state;
    const char *whole = "<system>s;<user>one;<assistant>two;<user>three;<assistant>four;", *first = "<system>s;<user>one;<assistant>two;";
    const char *last = "<system>s;<user>three;<assistant>four;";
    expect_cut(PLAIN, ESPL_CHAT_ASSISTANT, tokens_of(whole), ESPL_KEEP_HEAD, TALK,
               "[<system>s;<user>one;<assistant>]two;[<user>three;<assistant>]four;", false);
    for (int64_t n = tokens_of(first); n < tokens_of(whole); n++)
        expect_cut(PLAIN, ESPL_CHAT_ASSISTANT, n, ESPL_KEEP_HEAD, TALK, "[<system>s;<user>one;<assistant>]two;", true);
    for (int64_t n = tokens_of(last); n < tokens_of(whole); n++)
        expect_cut(MARKED, ESPL_CHAT_ASSISTANT, n, ESPL_KEEP_TAIL, TALK, "[<system>s;<user>three;<assistant>]four;", true);
    expect_cut(PLAIN, ESPL_CHAT_ASSISTANT, tokens_of(first) - 1, ESPL_KEEP_HEAD, TALK, "", true);
}

static void expect_answer(int64_t length, espl_truncation truncation, const char *expected) {
    const espl_tokens_recipe recipe = {.separator = "=", .length = length, .truncation = truncation, .append_eos = true};
    const espl_document document = {.text = "a b c d e", .size = 9, .second = "x y", .second_size = 3};
    made m = make(&recipe, &document);
    assert_null(m.problem);
    assert_string_equal(m.text.data != NULL ? m.text.data : "", expected);
    drop(&m);
}

static void cuts_prompts_before_responses(void **state) {
    (void)state;
    expect_answer(0, ESPL_KEEP_HEAD, "[a b c d e=]x y<|endoftext|>");
    expect_answer(9, ESPL_KEEP_HEAD, "[a b c d e=]x y<|endoftext|>");
    expect_answer(7, ESPL_KEEP_HEAD, "[a b c d]x y<|endoftext|>");
    expect_answer(7, ESPL_KEEP_TAIL, "[ c d e=]x y<|endoftext|>");
    expect_answer(4, ESPL_KEEP_TAIL, "[=]x y<|endoftext|>");
    expect_answer(3, ESPL_KEEP_TAIL, "");
}

/* ---- Where templates come from. */

static void check_source(const char *record_text, const char *part) {
    espl_chat *chat = NULL;
    const espl_chat_options options = {.folder = folder, .loss = ESPL_CHAT_ALL};
    espl_status status = espl_chat_open(&options, &chat);
    if (record_text == NULL) {
        assert_int_not_equal(status, ESPL_OK);
        if (strstr(espl_status_message(), part) == NULL)
            fail_msg("'%s' does not say '%s'", espl_status_message(), part);
        espl_status_clear();
        return;
    }
    espl_conversation conversation;
    espl_chat_text text = {.n = 0};
    char *problem;
    assert_int_equal(status, ESPL_OK);
    assert_true(espl_conversation_read(chat, record_text, strlen(record_text), &conversation, &problem));
    assert_true(espl_chat_write(chat, &conversation, 0, 0, conversation.n, &text, &problem));
    assert_string_equal(text.whole.text.data, part);
    espl_chat_text_free(&text);
    espl_conversation_free(&conversation);
    espl_chat_close(&chat);
}

static void finds_templates(void **state) {
    (void)state;
    const char *record = "{\"prompt\": \"a\", \"response\": \"b\"}";
    check_source(NULL, "has neither chat_template.jinja nor a chat_template");
    put("tokenizer_config.json", "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\", \"pad_token\": null, \"chat_template\": "
                                 "\"{{ bos_token }}{{ messages[1].content }}{{ eos_token }}{{ pad_token }}\"}");
    check_source(record, "<s>b</s>");
    put("tokenizer_config.json",
        "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, {\"name\": \"default\", \"template\": \"yes\"}]}");
    check_source(record, "yes");
    put("special_tokens_map.json", "{\"eos_token\": \"<e>\"}");
    put("chat_template.jinja", "file{{ eos_token }}\n");
    check_source(record, "file<e>");
    put("chat_template.jinja", "one\n  {{ two");
    check_source(NULL, "/chat_template.jinja:2:3: a tag is not closed");
}

/* ---- Templates that run away. */

static void expect_render_fails(const char *template, const char *part) {
    espl_jinja *jinja = NULL;
    espl_jinja_output output = {0};
    json_t *variables = json_pack("{s:[s, s]}", "messages", "a", "b");
    espl_status status = espl_jinja_parse("t", template, strlen(template), &jinja);
    if (status == ESPL_OK)
        status = espl_jinja_render(jinja, variables, NULL, &(espl_jinja_limits){.steps = 100000, .bytes = 1 << 20}, &output);
    assert_int_equal(status, ESPL_ERR_DATA);
    if (strstr(espl_status_message(), part) == NULL)
        fail_msg("%s: '%s' does not say '%s'", template, espl_status_message(), part);
    espl_status_clear();
    espl_jinja_output_free(&output);
    espl_jinja_free(&jinja);
    json_decref(variables);
}

static void repeated(const char *begin, const char *part, int times, const char *end, const char *message) {
    espl_buffer text = {0};
    espl_buffer_printf(&text, "%s", begin);
    for (int i = 0; i < times; i++)
        espl_buffer_printf(&text, "%s", part);
    espl_buffer_printf(&text, "%s", end);
    expect_render_fails(text.data, message);
    espl_buffer_free(&text);
}

static void bounds_templates(void **state) {
    (void)state;
    expect_render_fails(
        "{% for a in range(90) %}{% for b in 'ab' * 9 %}{% for c in range(90) %}{% if c %}{% endif %}{% endfor %}{% endfor %}{% endfor %}",
        "too many steps");
    expect_render_fails("{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
                        "too much text");
    expect_render_fails("{{ 'ab' * 1000000000 }}", "too much text");
    expect_render_fails("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "nested too deeply");
    repeated("{{ ", "- ", 5000, "1 }}", "fewer levels");
    repeated("{{ 1", " + 1", 5000, " }}", "fewer levels");
    repeated("", "{% if 1 %}", 5000, "", "fewer levels");
    repeated("{{ ", "not ", 5000, "1 }}", "fewer levels");
    repeated("{{ x", ".a", 5000, " }}", "fewer levels");
    expect_render_fails("{{ strftime_now('%Y') }}", "data.chat_date");
    expect_render_fails("a\n {{ 'b' | nothing }}", "t:2:11: filter 'nothing' is not known, expected one of trim, upper");
    expect_render_fails("{% include 'x' %}", "t:1:4: 'include', expected if, for, set");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(learns_assistant_turns),
        cmocka_unit_test(asks_for_the_next_turn),
        cmocka_unit_test(takes_each_shape),
        cmocka_unit_test(names_bad_records),
        cmocka_unit_test(needs_beginnings),
        cmocka_unit_test(cuts_whole_turns),
        cmocka_unit_test(cuts_prompts_before_responses),
        cmocka_unit_test(finds_templates),
        cmocka_unit_test(bounds_templates),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
