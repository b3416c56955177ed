#!/usr/bin/env python3
"""`espalier generate --ids` against transformers' generate: greedy and beams, token for token; several prompts of real text at once.

    python generate_parity.py --espalier PROGRAM --build FOLDER

The reference takes each prompt by itself, in fp64, so that no padding is among its tokens. Where two choices are nearer to each other than
fp32 can tell, another case would be needed: the script then says so and fails. Sampling: a seed is a text."""
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


def main():
    args = arguments(__doc__)
    texts = read_prompts()
    for name, config in MODELS.items():
        torch.manual_seed(3)
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config, folder).double()
            compare(name, args, folder, TOKENIZER, model, texts, CASES)
            compare_seeds(name, args, folder, texts)
    compare_stories(args, texts)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
