#!/usr/bin/env python3
"""`espalier generate --ids` against transformers' generate: greedy and beams, token for token; several prompts of real text at once.

    python generate_parity.py --espalier PROGRAM --build FOLDER

The reference takes each prompt by itself, in fp64, so that no padding is among its tokens. Where two choices are nearer to each other than
fp32 can tell, another case would be needed: the script then says so and fails. Sampling: a seed is a text. Conversations by chat templates, with
several end tokens, against apply_chat_template and generate; and what an evaluation generates behind examples."""
import json
import os
import shutil
import sys
import tempfile

import torch
import transformers as tf

from parity_tools import ROOT, ROPE, TEXT, TOKENIZER, arguments, check, espalier, finish, gpt2, llama, make_model, t5, tokenize

END = 0
WIDE = dict(vocab_size=2048, bos_token_id=END, eos_token_id=END, initializer_range=0.3, max_position_embeddings=256)
MODELS = {
    "gpt2": gpt2(vocab_size=2048, n_positions=256, bos_token_id=END, eos_token_id=END, initializer_range=0.3),
    "llama-gqa": llama(**WIDE),
    "llama3-rope-tied": llama(**{**WIDE, "tie_word_embeddings": True}, rope_parameters=ROPE),
    "t5-v1.0": t5(vocab_size=2048, eos_token_id=END, initializer_factor=4.0),
    "t5-v1.1": t5(vocab_size=2048, eos_token_id=END, initializer_factor=4.0, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
}
NAMES = {"beams": "num_beams", "length_penalty": "length_penalty", "repetition_penalty": "repetition_penalty",
         "no_repeat_ngram": "no_repeat_ngram_size", "min_new_tokens": "min_new_tokens", "max_new_tokens": "max_new_tokens"}
CASES = [
    {"max_new_tokens": 40},
    {"max_new_tokens": 40, "repetition_penalty": 1.3},
    {"max_new_tokens": 40, "repetition_penalty": 0.8, "no_repeat_ngram": 3},
    {"max_new_tokens": 40, "no_repeat_ngram": 2, "min_new_tokens": 25},
    *({"max_new_tokens": 24, "beams": beams, "length_penalty": penalty} for beams in (2, 4) for penalty in (0.5, 1.0, 2.0)),
    {"max_new_tokens": 24, "beams": 4, "repetition_penalty": 1.2, "no_repeat_ngram": 2, "min_new_tokens": 6},
]


def read_prompts():
    """Real text of several lengths; the longest does not fit into one pass with the others."""
    words = TEXT.read_text().split()
    return [" ".join(words[at : at + n]) for at, n in ((0, 5), (500, 1), (900, 30), (2000, 12), (3100, 55))]


def options(case):
    return [word for key, value in case.items() for word in ("--set", f"generate.{key}={value}")]


def ours(args, folder, tokenizer, case, prompts):
    words = [word for prompt in prompts for word in ("--prompt", prompt)]
    out = espalier(args, "generate", folder, "--ids", "--greedy", "--set", "run.threads=1", "--set", f"data.tokenizer={tokenizer}",
                   *options(case), *words)
    return [[int(word) for word in line.split()] for line in out.splitlines()]


def generate(model, ids, **keys):
    """New tokens; those of an encoder-decoder follow its start token, of which repetition is counted, too."""
    if model.config.is_encoder_decoder:
        return model.generate(torch.tensor([ids]), do_sample=False, decoder_start_token_id=model.config.decoder_start_token_id, **keys)[0, 1:].tolist()
    return model.generate(torch.tensor([ids]), do_sample=False, **keys)[0, len(ids):].tolist()


def reference(model, case, ids):
    keys = {NAMES[key]: value for key, value in case.items()}
    eos = model.config.eos_token_id
    out = generate(model, ids, eos_token_id=eos, pad_token_id=eos, **keys)
    return out[: out.index(eos) + 1] if eos in out else out


def likely_end(model, prompts):
    """A token that greedy decoding comes upon, so that an end is within reach."""
    return generate(model, prompts[0], max_new_tokens=24, eos_token_id=None, pad_token_id=0)[12]


def set_end(folder, model, token):
    with open(f"{folder}/config.json") as text:
        config = json.load(text)
    config["eos_token_id"] = model.config.eos_token_id = token
    with open(f"{folder}/config.json", "w") as out:
        json.dump(config, out)


def compare(name, args, folder, tokenizer, model, texts, cases):
    prompts = tokenize(args, texts, tokenizer)
    model.generation_config = tf.GenerationConfig()
    set_end(folder, model, likely_end(model, prompts))
    ended = 0
    for case in cases:
        found = ours(args, folder, tokenizer, case, texts)
        expected = [reference(model, case, ids) for ids in prompts]
        ended += sum(ids[-1] == model.config.eos_token_id for ids in expected)
        same = sum(a == b for a, b in zip(found, expected))
        check(found == expected, f"{name} {json.dumps(case)}: {same} of {len(prompts)} prompts token for token, {sum(map(len, expected))} tokens")
    check(0 < ended < len(cases) * len(prompts), f"{name}: {ended} of {len(cases) * len(prompts)} generations reach the end token")


def compare_seeds(name, args, folder, texts):
    how = ["--set", "generate.temperature=0.9", "--set", "generate.top_k=50", "--set", "generate.top_p=0.95", "--set", "generate.max_new_tokens=30",
           "--set", f"data.tokenizer={TOKENIZER}", "--set", "run.threads=1"]
    several = [word for text in texts for word in ("--prompt", text)]
    def text(seed, words):
        return espalier(args, "generate", folder, "--ids", *how, "--set", f"generate.seed={seed}", *words)
    first = text(1, several)
    check(text(1, several) == first, f"{name}: the same seed, the same tokens")
    check(text(2, several) != first, f"{name}: another seed, other tokens")
    check(text(1, several[:2]).strip() == first.splitlines()[0], f"{name}: the first prompt alone, the same tokens as with others")


def compare_stories(args, texts):
    """A trained model: as the others, and its 200 greedy tokens, which another program has written down."""
    folder = os.path.join(os.environ.get("ESPL_SHARED_DATA") or ROOT.parent / "shared/data", "models/stories260K")
    if not os.path.exists(folder):
        print("stories260K is not there (ESPL_SHARED_DATA): left out")
        return
    with open(f"{folder}/greedy.json") as text:
        golden = json.load(text)["greedy_ids_200"]
    start = espalier(args, "tokenize", folder, "--decode", "--no-special", text=" ".join(map(str, golden[:6])) + "\n").rstrip("\n")
    found = espalier(args, "generate", folder, "--ids", "--greedy", "--set", "generate.max_new_tokens=194", "--prompt", start)
    check(golden[:6] + [int(word) for word in found.split()] == golden, f"stories260K: {len(golden)} tokens that go on from '{start}'")
    with tempfile.TemporaryDirectory() as copy:
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(f"{folder}/{file}", f"{copy}/{file}")
        model = tf.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        compare("stories260K", args, copy, folder, model, texts[:3], CASES[1::3])


def talk(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def make_chat(folder, model, template, ends):
    """A model folder with a chat template, and several end tokens in its generation_config.json."""
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER / "tokenizer.json"), eos_token="<|endoftext|>")
    tokenizer.chat_template = template.read_text()
    tokenizer.save_pretrained(folder)
    tf.GenerationConfig(eos_token_id=ends, pad_token_id=END).save_pretrained(folder)
    model.generation_config = tf.GenerationConfig.from_pretrained(folder)
    return tokenizer


def chat_reference(model, tokenizer, messages, ends, new_tokens=40):
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    out = generate(model, ids, max_new_tokens=new_tokens)
    return next((out[: i + 1] for i, token in enumerate(out) if token in ends), out)


def compare_chat(args, folder, model, template):
    """apply_chat_template(add_generation_prompt=True) and generate, against --chat and --conversations."""
    ends = [END, *make_ends(folder, model, template)]
    tokenizer = make_chat(folder, model, template, ends)
    talks = [talk("Who is there?"), talk("Good night", "Good night, sir.", "Who goes?"), [{"role": "system", "content": "Be short."}, *talk("É'en so\n\"x\"")]]
    answered = talk("Speak.", "Long live the king!")
    expected = [chat_reference(model, tokenizer, messages, ends) for messages in (*talks, answered[:1])]
    lines = f"{folder}/talks.jsonl"
    with open(lines, "w") as out:
        out.writelines(json.dumps({"messages": messages}) + "\n" for messages in (*talks, answered))
    how = ("--greedy", "--ids", "--set", "generate.max_new_tokens=40", "--set", "run.threads=1")
    found = [[int(word) for word in line.split()] for line in espalier(args, "generate", folder, *how, "--conversations", lines).splitlines()]
    check(found == expected, f"{template.name}: {len(expected)} conversations token for token, {sum(map(len, expected))} tokens")
    one = espalier(args, "generate", folder, *how, "--chat", "--prompt", talks[0][0]["content"])
    check([int(word) for word in one.split()] == expected[0], f"{template.name}: a prompt is a user's turn")
    check(any(ids[-1] in ends[1:] for ids in expected), f"{template.name}: an end token of generation_config.json is reached")
    plain = espalier(args, "generate", folder, *how, "--prompt", talks[0][0]["content"])
    check([int(word) for word in plain.split()] != expected[0], f"{template.name}: without the template it would be another text")


def make_ends(folder, model, template):
    """A token that greedy decoding comes upon."""
    tokenizer = make_chat(folder, model, template, [END])
    return [chat_reference(model, tokenizer, talk("Who is there?"), [], 24)[9]]


def compare_shots(args, folder, model, template, n_shots):
    """Few-shot evaluation: what is generated behind examples that are turns before, or records before."""
    ends = [END, *make_ends(folder, model, template)]
    tokenizer = make_chat(folder, model, template, ends)
    rows = [{"prompt": f"Say word number {i}.", "response": word} for i, word in enumerate(TEXT.read_text().split()[100:112])]
    for name, part in (("train", rows[:6]), ("valid", rows[5:])):
        with open(f"{folder}/{name}.jsonl", "w") as out:
            out.writelines(json.dumps(row) + "\n" for row in part)
    with open(f"{folder}/eval.yaml", "w") as out:
        out.write("data: {task: lm}\n")
    shots = rows[:5][:n_shots]  # the sixth is evaluated, too
    for records in ("chat", "prompts"):
        sets = {"data.records": records, "data.train": f"{folder}/train.jsonl", "data.valid": f"{folder}/valid.jsonl", "data.cache": f"{folder}/cache", "model.path": folder,
                "eval.shots": n_shots, "generate.temperature": 0, "generate.max_new_tokens": 12, "run.threads": 1}
        words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        scores = json.loads(espalier(args, "eval", f"{folder}/eval.yaml", "--model", folder, "--json", "--output", f"{folder}/out-{records}", *words))
        with open(f"{folder}/out-{records}/predictions.jsonl") as lines:
            found = [json.loads(line)["prediction"] for line in lines]
        if records == "chat":
            before = [turn for row in shots for turn in talk(row["prompt"], row["response"])]
            made = [chat_reference(model, tokenizer, [*before, *talk(row["prompt"])], ends, 12) for row in rows[5:]]
        else:
            before = "".join(f"{row['prompt']}\n{row['response']}\n\n" for row in shots)
            made = [generate(model, tokenizer(f"{before}{row['prompt']}\n")["input_ids"], max_new_tokens=12) for row in rows[5:]]
        expected = [tokenizer.decode(ids, skip_special_tokens=True) for ids in made]
        check(found == expected and "rougeL" in scores, f"{template.name}, {records}, {n_shots} examples: {len(expected)} texts are equal")


def main():
    args = arguments(__doc__)
    torch.manual_seed(5)
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(MODELS["llama-gqa"], folder).double()
        for template in (ROOT / "configs/data/support_chat.jinja", ROOT / "tests/goldens/chat/im_lines.jinja"):
            compare_chat(args, folder, model, template)
            for n_shots in (0, 3):
                compare_shots(args, folder, model, template, n_shots)
    texts = read_prompts()
    for name, config in MODELS.items():
        torch.manual_seed(3)
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config, folder).double()
            os.remove(f"{folder}/generation_config.json")  # whose end token would go first
            compare(name, args, folder, TOKENIZER, model, texts, CASES)
            compare_seeds(name, args, folder, texts)
    compare_stories(args, texts)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
