#!/usr/bin/env python3
"""Chat templates rendered by us and by transformers: the text, and the spans of generation blocks, must be the same.

    chat_parity.py --build BUILD [--templates FOLDER ...]

Templates: tests/goldens/chat/*.jinja, those in ESPL_SHARED_DATA/chat_templates, and every .jinja in the folders given. Conversations: plain
ones, several turns, unicode, empty contents, control tokens in contents, tools, and ones that templates refuse; where transformers fails,
we must fail too. Of templates with generation blocks also ids and masks, for each tokenizer that is there; and the masks that we find for a
template without such blocks must be those of the same template with them. Where trl is installed (its folder of templates is read, not its code) the same
holds for each of its templates and the one with generation blocks that it trains with in its place; and for templates that it does not know masks are
compared with their definition by differences of texts, from transformers' renderings. Needs transformers; exit 77 without it.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

try:
    from transformers import PreTrainedTokenizerFast
    from transformers.utils.chat_template_utils import _compile_jinja_template, _plain_template_data, _render_with_assistant_indices
except ImportError:
    print("transformers is not installed")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent
SHARED = os.environ.get("ESPL_SHARED_DATA") or HERE.parents[2] / "shared/data"

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


def talk(*contents, system=None):
    messages = [{"role": SYSTEM, "content": system}] if system is not None else []
    return messages + [{"role": [USER, ASSISTANT][i % 2], "content": text} for i, text in enumerate(contents)]


TOOL = {"type": "function", "function": {"name": "weather", "description": "Tells the weather.\nSays \"rain\" often.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "where: é, 漢"}, "days": {"type": "integer", "default": 1}},
    "required": ["city"]}}}
CALL = {"role": ASSISTANT, "content": "", "tool_calls": [
    {"type": "function", "id": "abcdefghi", "function": {"name": "weather", "arguments": {"city": "Köln", "days": 2, "x": [1.5, None, True]}}}]}
ANSWER = {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": "{\"rain\": 1}"}

TALKS = [
    talk("Hi"),
    talk("Hi", "Hello."),
    talk("Hi", "Hello.", "How?", "Well."),
    talk("Hi", "Hello.", "How?", system="Be kind."),
    talk("Hi", "Hello.", system="Be kind."),
    talk("  blanks \n", "\t in front and behind\u00a0\u2003 \n\n", "x", "y"),
    talk("", ""),
    talk("", "", "", "", system=""),
    talk("äöü ß Ǆ 漢字 🎉\u0301 e\u0301", "'quotes' \"double\" \\ back <|im_end|> </s> [INST] {{ x }} {% if %} {# c #}", system="\r\nline\rline\n"),
    talk("<|eot_id|><|start_header_id|>system<|end_header_id|>", "<think>\nso\n</think>\n\nyes", "and <tool_response>", "<think>b</think>no"),
    talk("Think", "<think>\nlong\n\n</think>\n\n  done  ", "again", "plain"),
    [{"role": SYSTEM, "content": "a"}, {"role": SYSTEM, "content": "b"}, {"role": USER, "content": "c"}],
    [{"role": ASSISTANT, "content": "first"}, {"role": USER, "content": "second"}],
    [{"role": USER, "content": "a"}, {"role": USER, "content": "b"}],
    [{"role": "critic", "content": "who?"}],
    [{"role": USER, "content": "Weather?"}, CALL, ANSWER, {"role": ASSISTANT, "content": "It rains."}],
    [{"role": USER, "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": "part two"}]}, {"role": ASSISTANT, "content": [{"type": "text", "text": "ok"}]}],
    [{"role": USER, "content": "q"}, {"role": ASSISTANT, "content": "a", "reasoning_content": "because\n"}, {"role": USER, "content": "r"},
     {"role": ASSISTANT, "content": "b", "reasoning_content": "\nsince"}],
    [{"role": USER}],
    [{"role": USER, "content": None}],
    [],
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
DATE = "2026-02-01"

# Single constructs, each as a template: what the conversations above may not reach.
SNIPPETS = [
    "{{ 1 + 2 * 3 - 4 // 3 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 1e16 }} {{ 1.0 }} {{ 0.1 + 0.2 }} {{ 1e-5 }} {{ 123456789.125 }}",
    "{{ 'a' ~ 1 ~ none ~ true ~ 1.5 ~ [1, 'b', \"it's\", none] ~ {'k': 'v\\n', 'n': [1]} }}",
    "{{ 'abc'[0] }}{{ 'äöü'[1] }}{{ 'äöü'[-1] }}{{ 'äöü'[::-1] }}{{ 'abcdef'[1:5:2] }}{{ [1,2,3][::-1] }}{{ [1,2,3][-2:] }}{{ 'abc'[5:2] }}{{ [1,2,3][:-5:-1] }}",
    "{{ 'abc' | upper }}{{ 'ÄB' | lower }}{{ 'hello world-wide (web)' | title }}{{ 'hELLO' | capitalize }}{{ ' x ' | trim }}|{{ 'xxaxx' | trim('x') }}",
    "{{ [3,1,2] | sort }}{{ [3,1,2] | sort(reverse=true) }}{{ ['b','A','c'] | sort | join(',') }}{% for k, v in {'b':1,'a':2} | dictsort %}{{ k }}{{ v }}{% endfor %}{{ [1,1,2] | unique | list }}",
    "{{ [1,2,3] | first }}{{ [1,2,3] | last }}{{ [] | first is defined }}{{ 'abc' | length }}{{ {'a':1} | count }}{{ 'äb' | list }}{{ [1,2] | reverse | list }}",
    "{{ x is defined }}{{ x is undefined }}{{ none is none }}{{ 'a' is string }}{{ {} is mapping }}{{ [] is sequence }}{{ 'a' is iterable }}{{ 1 is number }}{{ true is boolean }}{{ 1 is odd }}{{ 2 is divisibleby 2 }}{{ 1 is not string }}",
    "{{ x | default('d') }}{{ '' | default('d') }}{{ '' | default('d', true) }}{{ none | d('e', boolean=true) }}",
    "{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' in 'abc' }}{{ 'k' in {'k': 1} }}{{ 3 not in [1, 2] }}{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' < 'b' }}{{ [1, 'a'] == [1.0, 'a'] }}",
    "{{ 'yes' if x else 'no' }}{{ 'yes' if x }}{{ not x or y }}{{ (x or 'z') and 'w' }}",
    "{% for i in range(3) %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }},{% else %}none{% endfor %}{% for i in [] %}{% else %}none{% endfor %}",
    "{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %}{% for i in range(10) if i % 2 %}{{ loop.index }}{{ i }}{% if i > 6 %}{% break %}{% endif %}{% if i == 3 %}{% continue %}{% endif %}.{% endfor %}",
    "{% set ns = namespace(a=1) %}{% for i in [1,2] %}{% set ns.a = ns.a + i %}{% set b = i %}{% endfor %}{{ ns.a }}{{ b is defined }}{% set c %}  text {{ ns.a }}{% endset %}[{{ c }}]{% set d, e = 1, 2 %}{{ d }}{{ e }}",
    "{% macro m(a, b='x') %}({{ a }}{{ b }}){% endmacro %}{{ m(1) }}{{ m(1, b=2) }}{{ m('a') | upper }}{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}",
    "a  {%- if true -%}  b  {%- endif -%}  c {# note #} d\n  {% if true %}\n  e\n  {%+ if true %}\n f {%- endif +%}\n{% endif %}\n {#- x -#} g {{- 'h' -}} \n i\n",
    "{% raw %}{{ x }} {% if %}{% endraw %}|{%- raw -%}  {{ y }}  {%- endraw -%}  z",
    "{{ {'a': [1, 2.5, none, true], 'b': 'é\"\\n\\t\\u0001/', 'c': {}} | tojson }}{{ {'b': 1, 'a': [1]} | tojson(indent=2) }}{{ {'b': 'é', 'a': 2} | tojson(ensure_ascii=true, sort_keys=true) }}{{ [] | tojson(indent=4) }}",
    "{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'x-x-x'.replace('x', 'y', 2) }}{{ 'aXbX'.rstrip('X') }}{{ '\\n a'.lstrip('\\n') }}{{ 'a\\nb\\r\\nc'.splitlines() }}",
    "{{ [{'r': 'u', 'c': {'t': 1}}, {'r': 'a', 'c': {'t': 2}}] | selectattr('r', 'equalto', 'u') | map(attribute='c.t') | list }}{{ ['a', 'b'] | map('upper') | join('+') }}{{ [1, 2, 3] | select('odd') | list }}{{ [0, 1] | reject | list }}{{ [{'a': 1}, {}] | rejectattr('a') | list }}",
    "{{ 'l1\\nl2\\n\\nl3' | indent(2) }}|{{ 'l1\\nl2' | indent(1, true) }}|{{ '3' | int + 1 }}{{ 'x' | int }}{{ '2.5' | float }}{{ -3 | abs }}{{ 5 | string + 'x' }}",
    "{{ strftime_now('%d %b %Y') }}", "{{ raise_exception('no: ' ~ 1) }}", "{{ undefined_name.attribute }}", "{{ missing + 'x' }}", "{{ 1 + 'a' }}", "{{ 1 // 0 }}",
    "{{ messages[0]['role'] }}{{ messages[0].role }}{{ messages.0.role if messages }}", "{{ 'a' 'b' \"c\" }}{{ '\\x41\\u00e9\\'\\\\' }}{{ 'a\\qb' }}",
    "{{ {'x': {'y': 2}}.get('x').y }}{{ {'x': 1}.get('z', 5) }}{{ {'x': 1}.get('z') }}{{ {'x': 1}.keys() | list }}{{ {'x': 1}.values() | list }}",
    "{% if a is defined and a %}1{% elif true %}2{% else %}3{% endif %}{% if messages | length > 0 and messages[0].role == 'user' %}u{% endif %}",
    "{% generation %}one{% set q = 1 %}{% endgeneration %}-{{ q is defined }}-{% for m in messages %}{% generation %}{{ m.content }}é{% endgeneration %}é{% endfor %}",
    "{{ 'abc' * 2 }}{{ 'a' ~ 'b' * 2 }}{{ [1] + [2] }}{{ (1, 2) | list }}{{ {'a': 1,} }}{{ [1, 2,] }}{{ 10 | string | length }}",
    "{{ a.b is defined }}", "{{ messages[9] is defined }}{{ 'x' in messages }}{{ none == false }}{{ '' == none }}",
]

# Jinja that we do not take: an error, never another text.
REFUSED = ["{% include 'x' %}", "{% extends 'x' %}", "{{ 'x' | nofilter }}", "{{ 1 is notest }}", "{% for x in y recursive %}{% endfor %}", "{{ 2 ** 3 }}",
           "{{ [].append(1) }}", "{{ x.__class__ }}{{ ''.__class__.mro() }}", "{% call x() %}{% endcall %}", "{% if true %}", "{{ 'x }}", "{{ ( }}", "{% endif %}", "{{ '%s' % 1 }}"]


def variables(messages, generation, tools):
    return {**SPECIAL, "messages": messages, "tools": tools, "documents": None, "add_generation_prompt": generation}


def reference(template, given):
    """The text and the spans in bytes, or None where transformers fails."""
    try:
        compiled = _compile_jinja_template(template)
        compiled.environment.globals["strftime_now"] = lambda form: __import__("datetime").datetime.fromisoformat(DATE).strftime(form)
        text, spans = _render_with_assistant_indices(compiled_template=compiled, **_plain_template_data(given))
    except Exception:  # whatever it raises, it refuses
        return None
    return text, [[len(text[:begin].encode()), len(text[:end].encode())] for begin, end in spans]


def cases(templates):
    for name, template in templates:
        for messages in TALKS:
            for generation in (False, True):
                for tools in (None, [TOOL]):
                    yield name, template, variables(messages, generation, tools)
    for template in SNIPPETS:
        yield "snippet", template, variables(TALKS[3], False, None)


def render(args, requests):
    return probe(args, [{"template": t, "variables": v, "date": DATE} for _, t, v in requests])


def compare_texts(args, templates):
    requests = list(cases(templates))
    wrong, refused = 0, 0
    for (name, template, given), ours in zip(requests, render(args, requests), strict=True):
        theirs = reference(template, given)
        refused += theirs is None
        if ("error" in ours) == (theirs is None) and (theirs is None or (ours["text"], ours["generated"]) == (theirs[0], theirs[1])):
            continue
        wrong += 1
        if wrong <= args.show:
            print(f"{name}: {template[:100] if name == 'snippet' else ''} {json.dumps(given['messages'])[:200]} {given['add_generation_prompt']} {bool(given['tools'])}")
            print("  ours  ", ours, "\n  theirs", theirs)
    print(f"{len(requests)} renderings of {len(templates)} templates and {len(SNIPPETS)} snippets, {refused} refused by both: {wrong} differ")
    return wrong


def check_refused(args):
    answers = render(args, [("", t, variables(TALKS[1], False, None)) for t in REFUSED])
    accepted = [t for t, a in zip(REFUSED, answers, strict=True) if "error" not in a]
    print(f"{len(REFUSED)} templates outside what is supported: {len(accepted)} accepted {accepted}")
    return len(accepted)


def probe(args, requests):
    lines = "".join(json.dumps(request) + "\n" for request in requests)
    out = subprocess.run([f"{args.build}/tests/chat_probe"], input=lines, capture_output=True, text=True, check=True, timeout=600)
    return [json.loads(line) for line in out.stdout.splitlines()]


def tokenizers():
    found = [HERE.parents[1] / "configs/data/bpe2048", *(pathlib.Path(SHARED) / "tokenizers" / name for name in ("gpt2", "llama2-32k", "llama3"))]
    return [path for path in found if (path / "tokenizer.json").is_file()]


def open_tokenizer(folder):
    fast = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    special = json.loads(config.read_text()) if config.is_file() else {}
    for key in SPECIAL:
        token = special.get(key)
        if token:
            setattr(fast, key, token["content"] if isinstance(token, dict) else token)
    return fast


def reference_mask(fast, template, messages):
    """ids and mask by transformers, or None where it refuses."""
    try:
        made = fast.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    except Exception:  # whatever it raises
        return None
    return {"ids": made["input_ids"], "mask": made["assistant_masks"]}


def has_empty_span(template, messages):
    return any(begin == end for begin, end in reference(template, variables(messages, False, None))[1])


def compare_masks(args, paths):
    """ids and masks of records, ours against transformers' return_assistant_tokens_mask."""
    wrong = done = 0
    paths = [path for path in paths if "generation %}" in path.read_text() and "strftime" not in path.read_text()]
    talks = [t for t in TALKS if any(m["role"] == ASSISTANT for m in t)]
    for folder in tokenizers():
        fast = open_tokenizer(folder)
        cases = [(path, messages) for path in paths for messages in talks]
        answers = probe(args, [{"file": str(path), "tokenizer": str(folder), "record": {"messages": messages}} for path, messages in cases])
        for (path, messages), ours in zip(cases, answers, strict=True):
            theirs = reference_mask(fast, path.read_text(), messages)
            done += 1
            if ours == theirs or (theirs is None and "error" in ours):
                continue
            if theirs and ours.get("ids") == theirs["ids"] and has_empty_span(path.read_text(), messages):
                continue  # transformers marks the token at an empty block's place; nothing was written there
            wrong += 1
            if wrong <= args.show:
                print(f"{path.name} {folder.name} {json.dumps(messages)[:200]}\n  ours   {str(ours)[:700]}\n  theirs {str(theirs)[:700]}")
    print(f"{done} records by {len(paths)} templates with generation blocks and {len(tokenizers())} tokenizers: ids or masks of {wrong} differ")
    return wrong if done else 1


def compare_beginnings(args):
    """A template without generation blocks against the same with them."""
    folder, goldens = str(tokenizers()[0]), HERE.parent / "goldens/chat"
    talks = [t for t in TALKS if len(t) > 1 and t[0]["role"] != ASSISTANT and all(isinstance(m.get("content"), str) for m in t)]
    talks = [t for t in talks if any(m["role"] == ASSISTANT for m in t)]
    plain, marked = (probe(args, [{"file": str(goldens / name), "tokenizer": folder, "record": {"messages": t}} for t in talks])
                     for name in ("im_lines.jinja", "im_lines_generation.jinja"))
    wrong = sum(a != b or "error" in a for a, b in zip(plain, marked, strict=True))
    print(f"{len(talks)} records with masks from beginnings and from generation blocks: {wrong} differ")
    return wrong


# trl's blocks begin within what the template's generation prompt writes, which a model is given and need not say; or end behind the next turn's begin.
TRL_DIFFERS = {"diffusion_gemma": "with tools, what begins their answer", "glm4moe": "the next turn's role is learned", "llava_next": "a blank before the answer",
               "muse_glimmer": "the turn's header is learned", "qwen2_5": "the line break of the turn's header is learned", "qwen3_5_nothink": "empty thoughts of the prompt are learned",
               "qwen3_5_think": "the prompt's <think> is learned", "qwen3_6": "the prompt's <think> is learned", "qwen3_8": "the prompt's <think> is learned"}


def special_tokenizer(folder):
    """The small tokenizer, whose special tokens are the strings above."""
    shutil.copy(HERE.parents[1] / "configs/data/bpe2048/tokenizer.json", folder)
    (pathlib.Path(folder) / "tokenizer_config.json").write_text(json.dumps(SPECIAL))
    return open_tokenizer(pathlib.Path(folder))


def ask_masks(args, folder, cases):
    return probe(args, [{"file": str(path), "tokenizer": str(folder), "record": {"messages": messages}} for path, messages in cases])


def trl_pairs():
    spec = importlib.util.find_spec("trl")
    folder = pathlib.Path(spec.submodule_search_locations[0]) / "chat_templates" if spec else pathlib.Path("absent")
    pairs = [(path, folder / f"{path.stem}_training.jinja") for path in sorted(folder.glob("*.jinja"))]
    return [(path, training) for path, training in pairs if training.exists()]


def compare_trl(args, paths):
    """Masks of templates as they are, ours by differences of texts, against those of trl's blocks; a shared template by its text."""
    talks = [t for t in TALKS if any(m["role"] == ASSISTANT for m in t)]
    pairs = trl_pairs()
    trained = {path.read_text(): training for path, training in pairs}
    pairs += [(path, trained[path.read_text()]) for path in paths if path.read_text() in trained]
    total, wrong = {}, 0
    with tempfile.TemporaryDirectory() as folder:
        fast = special_tokenizer(folder)
        cases = [(path, training, messages) for path, training in pairs for messages in talks]
        plain, marked = (ask_masks(args, folder, [(case[i], case[2]) for case in cases]) for i in (0, 1))
        for (path, training, messages), ours, blocks in zip(cases, plain, marked, strict=True):
            theirs = reference_mask(fast, training.read_text(), messages)
            if theirs is None or "error" in blocks:
                kind = "refused" if theirs is None and "error" in blocks else "refused by one" if "strftime" not in training.read_text() else "a date"
            elif blocks != theirs and not has_empty_span(training.read_text(), messages):
                kind = "blocks differ"
            elif "error" in ours:
                kind = "cannot be told without blocks"
            elif ours["ids"] != theirs["ids"]:
                kind = "trained with another text"
            else:
                kind = "equal" if ours == theirs else "differ as listed" if path.stem in TRL_DIFFERS else "differ"
            total[kind] = total.get(kind, 0) + 1
            if kind in ("differ", "blocks differ", "refused by one"):
                wrong += 1
                print(f"{path.name}: {kind}: {json.dumps(messages)[:200]}")
    print(f"trl: {len(pairs)} templates, {total}" if pairs else "trl: not installed, left out")
    unseen = bool(pairs) and not total.get("differ as listed")  # the control: differences are seen
    return wrong + unseen


def mask_by_texts(fast, template, messages):
    """A turn is what the text up to it has more than the text up to the one before with the generation prompt; a token is learned with any of its letters."""
    def text(count, prompt):
        return fast.apply_chat_template(messages[:count], chat_template=template, tokenize=False, add_generation_prompt=prompt)

    try:
        whole = text(len(messages), False)
        spans = [(len(text(i, True)) if i else 0, len(text(i + 1, False))) for i, m in enumerate(messages) if m["role"] == ASSISTANT]
    except Exception:  # whatever it raises
        return None
    made = fast(whole, add_special_tokens=False, return_offsets_mapping=True)
    return {"ids": made["input_ids"], "mask": [int(any(a < end and begin < b for a, b in spans)) for begin, end in made["offset_mapping"]]}


def compare_definition(args, paths):
    wrong = done = 0
    talks = [t for t in TALKS if t and t[0]["role"] != ASSISTANT and any(m["role"] == ASSISTANT for m in t)]
    paths = [path for path in paths if "generation %}" not in path.read_text() and "strftime" not in path.read_text()]
    with tempfile.TemporaryDirectory() as folder:
        fast = special_tokenizer(folder)
        cases = [(path, messages) for path in paths for messages in talks]
        for (path, messages), ours in zip(cases, ask_masks(args, folder, cases), strict=True):
            theirs = mask_by_texts(fast, path.read_text(), messages)
            if "error" in ours:  # also where beginnings are rewritten, which the definition does not see
                continue
            done += 1
            if ours != theirs:
                wrong += 1
                print(f"{path.name}: {json.dumps(messages)[:200]}\n  ours   {str(ours)[:500]}\n  theirs {str(theirs)[:500]}")
    print(f"{done} records by {len(paths)} templates without blocks: masks of {wrong} differ from their definition")
    return wrong if done else 1


def find_templates(args):
    folders = [HERE.parent / "goldens/chat", pathlib.Path(SHARED) / "chat_templates", *map(pathlib.Path, args.templates)]
    return [path for folder in folders for path in sorted(folder.glob("*.jinja"))]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", required=True)
    parser.add_argument("--templates", nargs="*", default=[])
    parser.add_argument("--show", type=int, default=5)
    args = parser.parse_args()
    paths = find_templates(args)
    wrong = compare_texts(args, [(path.name, path.read_text()) for path in paths]) + check_refused(args)
    wrong += compare_masks(args, paths) + compare_beginnings(args) + compare_trl(args, paths) + compare_definition(args, paths)
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
