"""Writes tests/goldens/beam.json: what the beam search of the transformers package finds when the logits are toy_model.py's.

    python tests/reference/beam_golden.py tests/goldens/beam.json
"""
import itertools
import json
import sys

import torch
import transformers
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

import toy_model

GRID = 4096


class ToyConfig(PretrainedConfig):
    model_type = "toy"


class Toy(PreTrainedModel, GenerationMixin):
    config_class = ToyConfig
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, **_):
        rows = [toy_model.logits(row, self.config.vocab_size, GRID) for row in input_ids.tolist()]
        return CausalLMOutput(logits=torch.stack(rows)[:, None, :])


def search(vocab, prompts, beams, keys):
    model = Toy(ToyConfig(vocab_size=vocab))
    with torch.no_grad():
        out = model.generate(
            torch.tensor(prompts), attention_mask=torch.ones(len(prompts), len(prompts[0]), dtype=torch.long), do_sample=False,
            num_beams=beams, num_return_sequences=beams, max_new_tokens=keys["max_new"], length_penalty=keys["length_penalty"],
            early_stopping=keys["early"], eos_token_id=keys["eos"] or None, pad_token_id=vocab, use_cache=False,
            no_repeat_ngram_size=keys["no_repeat_ngram"], output_scores=True, return_dict_in_generate=True)
    found = []
    for row, score in zip(out.sequences.tolist(), out.sequences_scores.tolist()):
        ids = row[len(prompts[0]):]
        found.append({"ids": [token for token in ids if token != vocab], "score": score})
    return [found[i : i + beams] for i in range(0, len(found), beams)]


def cases():
    prompts = [[1, 2, 3], [7, 7, 2], [4, 0, 9]]
    for beams, penalty, early in itertools.product((2, 3, 5), (0.5, 1.0, 2.0), (False, True, "never")):
        yield 16, prompts, beams, {"length_penalty": penalty, "early": early, "eos": [0], "max_new": 12, "no_repeat_ngram": 0}
    yield 16, prompts, 3, {"length_penalty": 1.0, "early": False, "eos": [], "max_new": 6, "no_repeat_ngram": 0}
    yield 16, prompts, 4, {"length_penalty": 1.0, "early": False, "eos": [0, 3, 5], "max_new": 10, "no_repeat_ngram": 0}
    yield 16, prompts, 4, {"length_penalty": -1.0, "early": "never", "eos": [0, 3], "max_new": 10, "no_repeat_ngram": 0}
    yield 16, prompts, 3, {"length_penalty": 0.0, "early": "never", "eos": [2], "max_new": 10, "no_repeat_ngram": 0}
    yield 12, prompts[:1], 4, {"length_penalty": 1.5, "early": False, "eos": [1], "max_new": 20, "no_repeat_ngram": 2}
    yield 64, prompts, 2, {"length_penalty": 1.0, "early": False, "eos": [5], "max_new": 1, "no_repeat_ngram": 0}


def main():
    made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
    rows = [{"vocab": vocab, "prompts": prompts, "beams": beams, **keys, "found": search(vocab, prompts, beams, keys)}
            for vocab, prompts, beams, keys in cases()]
    with open(sys.argv[1], "w") as out:
        out.write('{"made_with": %s, "grid": %d, "cases": [\n' % (json.dumps(made_with), GRID))
        out.write(",\n".join(json.dumps(row) for row in rows) + "\n]}\n")


if __name__ == "__main__":
    main()
