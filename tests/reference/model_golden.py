"""Writes tests/goldens/models/<name>/: tiny models of random weights, with what transformers makes of them in fp64.

    python tests/reference/model_golden.py tests/goldens/models

golden.safetensors: ids and segments of one packed batch, logits, and under "grad." + name every gradient of its mean loss, each document
computed by itself. golden.json: the loss, and what generate() finds, greedily and with beams, for each prompt by itself.
"""
import json
import os
import sys

import torch
import transformers as tf
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm

LENGTHS = [17, 1, 9, 6]
PROMPTS = [[5, 17, 80, 3], [41], [9, 9, 12, 60, 33, 71, 2, 8, 50]]
NEW = 20
ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}
LLAMA = dict(vocab_size=101, hidden_size=24, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=64, initializer_range=0.3, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1)
MODELS = {
    "tiny-gpt2": (torch.float32, tf.GPT2LMHeadModel, tf.GPT2Config(
        vocab_size=101, n_embd=24, n_head=3, n_layer=2, n_inner=40, n_positions=40, initializer_range=0.3, bos_token_id=0, eos_token_id=1)),
    "tiny-llama": (torch.float32, tf.LlamaForCausalLM, tf.LlamaConfig(**LLAMA, num_hidden_layers=2, tie_word_embeddings=False)),
    "tiny-llama3": (torch.bfloat16, tf.LlamaForCausalLM, tf.LlamaConfig(
        **LLAMA, num_hidden_layers=1, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_parameters=ROPE)),
}


def norm_in_full(self, x):
    """transformers computes this in fp32 whatever the format of x, which would be the largest error of the goldens."""
    return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)


def make(kind, config, dtype):
    model = kind(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(0.1 * torch.randn_like(p))  # norms and biases off their trivial values
    return model.to(dtype).eval()


def batch_goldens(model):
    documents = [torch.randint(2, model.config.vocab_size, (n,)) for n in LENGTHS]
    logits = [model(input_ids=x[None]).logits[0] for x in documents]
    total = sum(torch.nn.functional.cross_entropy(y[:-1], x[1:], reduction="sum") for x, y in zip(documents, logits) if len(x) > 1)
    loss = total / sum(n - 1 for n in LENGTHS)
    loss.backward()
    tensors = {"ids": torch.cat(documents), "segments": torch.tensor([sum(LENGTHS[:i]) for i in range(len(LENGTHS) + 1)]),
               "logits": torch.cat(logits).detach().float()}
    tensors.update({"grad." + name: p.grad.float().contiguous() for name, p in model.named_parameters()})
    return tensors, loss.item()


def cases(eos):
    base = {"beams": 1, "length_penalty": 1.0, "repetition_penalty": 1.0, "no_repeat_ngram": 0, "min_new": 0, "eos": []}
    yield base
    yield {**base, "eos": [eos]}
    yield {**base, "eos": [eos], "min_new": 12, "repetition_penalty": 1.3}
    yield {**base, "no_repeat_ngram": 2, "repetition_penalty": 0.8}
    for beams, penalty in ((2, 1.0), (4, 0.5), (4, 1.0), (4, 2.0)):
        yield {**base, "beams": beams, "length_penalty": penalty, "eos": [eos]}
    yield {**base, "beams": 3, "eos": [eos], "no_repeat_ngram": 2, "repetition_penalty": 1.2, "min_new": 5}


def generate(model, case, prompt):
    out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=NEW, num_beams=case["beams"],
                         length_penalty=case["length_penalty"], repetition_penalty=case["repetition_penalty"],
                         no_repeat_ngram_size=case["no_repeat_ngram"], min_new_tokens=case["min_new"] or None,
                         eos_token_id=case["eos"] or None, pad_token_id=model.config.vocab_size)
    return [token for token in out[0, len(prompt):].tolist() if token != model.config.vocab_size]


def generate_goldens(model, rounded):
    """What is kept is what fp64 and fp32 agree on: no choice hangs on a rounding."""
    free = generate(model, next(cases(0)), PROMPTS[0])
    rows = [{**case, "found": [generate(model, case, prompt) for prompt in PROMPTS]} for case in cases(free[len(free) // 2])]
    for row in rows:
        assert row["found"] == [generate(rounded, row, prompt) for prompt in PROMPTS], row
    return rows


def main():
    LlamaRMSNorm.forward = norm_in_full
    tf.logging.set_verbosity_error()
    for seed, (name, (dtype, kind, config)) in enumerate(MODELS.items()):
        torch.manual_seed(seed)
        folder = os.path.join(sys.argv[1], name)
        stored = make(kind, config, dtype)
        stored.save_pretrained(folder)
        os.remove(os.path.join(folder, "generation_config.json"))
        truth, rounded = (kind(config).to(wide).eval() for wide in (torch.float64, torch.float32))
        for model in (truth, rounded):
            model.load_state_dict(stored.state_dict())
            model.generation_config = tf.GenerationConfig()
        tensors, loss = batch_goldens(truth)
        save_file(tensors, os.path.join(folder, "golden.safetensors"))
        golden = {"made_with": f"transformers {tf.__version__}, torch {torch.__version__}", "loss": loss, "prompts": PROMPTS, "max_new": NEW}
        with open(os.path.join(folder, "golden.json"), "w") as out:
            head = json.dumps(golden)[:-1]
            out.write(head + ', "cases": [\n' + ",\n".join(json.dumps(row) for row in generate_goldens(truth, rounded)) + "\n]}\n")


if __name__ == "__main__":
    main()
