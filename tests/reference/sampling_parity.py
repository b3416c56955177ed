"""Writes tests/goldens/sampling.json: rows of logits after the logits processors of the transformers package, in the order in
which its generate() puts them.

    python tests/reference/sampling_parity.py tests/goldens/sampling.json
"""
import json
import math
import sys

import torch
import transformers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

import toy_model

VOCAB = 40
GRIDS = (4, 4096)  # many equal logits, hardly any
CONTEXTS = ([3, 9, 3, 9, 3], [1, 2, 3, 4, 5, 6, 7, 8, 1, 2], [39, 39, 0])
SETTINGS = (
    {},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 3, "repetition_penalty": 1.2},
    {"min_new_tokens": 3, "eos": [5, 7]},
    {"temperature": 0.7},
    {"temperature": 1.9},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 400},
    {"top_p": 0.9},
    {"top_p": 0.3},
    {"top_p": 0.0},
    {"top_p": 0.999},
    {"top_k": 12, "top_p": 0.8},
    {"temperature": 1.5, "top_k": 10, "top_p": 0.6},
    {"repetition_penalty": 1.3, "no_repeat_ngram": 2, "min_new_tokens": 4, "eos": [5], "temperature": 0.6, "top_k": 20, "top_p": 0.95},
    {"top_k": 1, "top_p": 0.1, "eos": [5], "beams": 2},
)


def processors(model, prompt, keys):
    beams = keys.get("beams", 1)
    config = GenerationConfig(
        do_sample=True, num_beams=beams, eos_token_id=keys.get("eos"), pad_token_id=0, max_length=None,
        repetition_penalty=keys.get("repetition_penalty"), no_repeat_ngram_size=keys.get("no_repeat_ngram"),
        min_new_tokens=keys.get("min_new_tokens"), temperature=keys.get("temperature", 1.0), top_k=keys.get("top_k", 0),
        top_p=keys.get("top_p", 1.0))
    model._prepare_special_tokens(config)
    return model._get_logits_processor(config, input_ids_seq_length=prompt)


def rows(model):
    for grid in GRIDS:
        for context in CONTEXTS:
            for keys in SETTINGS:
                n_new = 2
                chain = processors(model, len(context) - n_new, keys)
                out = chain(torch.tensor([context]), toy_model.logits(context, VOCAB, grid)[None].clone())[0]
                values = [None if math.isinf(x) else x for x in out.tolist()]
                least = 1 + len(keys["eos"]) if keys.get("beams", 1) > 1 else 1
                keys = {k: v for k, v in keys.items() if k != "beams"}
                yield {"grid": grid, "ids": context, "n_new": n_new, "keep": least, **keys, "logits": values}


def sort_stably():
    """torch.sort leaves the order of equal logits open, and with it which of them top-p drops; stable order is what Espalier keeps."""
    plain = torch.sort
    torch.sort = lambda x, **keys: plain(x, **keys, stable=True)


def main():
    sort_stably()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_embd=4, n_layer=1, n_head=1))
    made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
    with open(sys.argv[1], "w") as out:
        out.write('{"made_with": %s, "vocab": %d, "cases": [\n' % (json.dumps(made_with), VOCAB))
        out.write(",\n".join(json.dumps(row) for row in rows(model)) + "\n]}\n")


if __name__ == "__main__":
    main()
