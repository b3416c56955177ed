"""Writes tests/goldens/models/<name>/: tiny models of random weights, with what transformers makes of them in fp64.

    python tests/reference/model_golden.py tests/goldens/models [NAME...]

golden.safetensors: one packed batch (ids and segments; types, labels and their weights; an encoder's source_ids and source_segments; targets
where they are not the next tokens), logits, and under "grad." + name every gradient of its mean loss, each document computed by itself.
golden.json: the loss, and, for decoders, what generate() finds, greedily and with beams, for each prompt by itself.
"""
import json
import os
import sys

import torch
import transformers as tf
from safetensors.torch import save_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from documents import kind_of, make_document, pack, reference

LENGTHS = [17, 1, 9, 6]
PROMPTS = [[5, 17, 80, 3], [41], [9, 9, 12, 60, 33, 71, 2, 8, 50]]
NEW = 20
ROPE = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}
LLAMA = dict(vocab_size=101, hidden_size=24, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
             max_position_embeddings=64, initializer_range=0.3, rms_norm_eps=1e-5, bos_token_id=0, eos_token_id=1)
BERT = dict(vocab_size=67, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=20,
            initializer_range=0.3, id2label={i: f"class {i}" for i in range(5)}, label2id={f"class {i}": i for i in range(5)})
T5 = dict(vocab_size=67, d_model=16, d_kv=6, d_ff=24, num_heads=4, relative_attention_num_buckets=8, relative_attention_max_distance=12,
          decoder_start_token_id=0)
MODELS = {
    "tiny-gpt2": (torch.float32, tf.GPT2LMHeadModel, tf.GPT2Config(
        vocab_size=101, n_embd=24, n_head=3, n_layer=2, n_inner=40, n_positions=40, initializer_range=0.3, bos_token_id=0, eos_token_id=1)),
    "tiny-llama": (torch.float32, tf.LlamaForCausalLM, tf.LlamaConfig(**LLAMA, num_hidden_layers=2, tie_word_embeddings=False)),
    "tiny-llama3": (torch.bfloat16, tf.LlamaForCausalLM, tf.LlamaConfig(
        **LLAMA, num_hidden_layers=1, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, rope_parameters=ROPE)),
    "tiny-bert-class": (torch.float32, tf.BertForSequenceClassification, tf.BertConfig(**BERT)),
    "tiny-bert-mlm": (torch.float32, tf.BertForMaskedLM, tf.BertConfig(**{**BERT, "hidden_act": "gelu_new"})),
    "tiny-distilbert-class": (torch.float32, tf.DistilBertForSequenceClassification, tf.DistilBertConfig(
        vocab_size=67, dim=16, hidden_dim=24, n_layers=2, n_heads=2, max_position_embeddings=20, initializer_range=0.3)),
    "tiny-roberta-class": (torch.float32, tf.RobertaForSequenceClassification, tf.RobertaConfig(**{**BERT, "type_vocab_size": 1})),
    "tiny-gpt2-class": (torch.float32, tf.GPT2ForSequenceClassification, tf.GPT2Config(
        vocab_size=67, n_embd=16, n_head=2, n_layer=1, n_positions=20, initializer_range=0.3, bos_token_id=0, eos_token_id=1, num_labels=3)),
    "tiny-t5": (torch.float32, tf.T5ForConditionalGeneration, tf.T5Config(**T5, num_layers=2, num_decoder_layers=1)),
    "tiny-t5-gated": (torch.float32, tf.T5ForConditionalGeneration, tf.T5Config(
        **T5, num_layers=1, num_decoder_layers=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
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
    documents = [make_document(model, torch.randint(2, model.config.vocab_size, (n,))) for n in LENGTHS]
    logits, loss, grads = reference(model, documents)
    tensors = {**pack(documents), "logits": logits.float()}
    tensors.update({"grad." + name: grad.float().contiguous() for name, grad in grads.items()})
    return tensors, loss


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
    LlamaRMSNorm.forward = T5LayerNorm.forward = norm_in_full
    tf.logging.set_verbosity_error()
    for seed, (name, (dtype, kind, config)) in enumerate(MODELS.items()):
        if sys.argv[2:] and name not in sys.argv[2:]:
            continue
        torch.manual_seed(seed)
        folder = os.path.join(sys.argv[1], name)
        stored = make(kind, config, dtype)
        stored.save_pretrained(folder)
        if stored.can_generate():
            os.remove(os.path.join(folder, "generation_config.json"))
        truth, rounded = (kind(config).to(wide).eval() for wide in (torch.float64, torch.float32))
        for model in (truth, rounded):
            model.load_state_dict(stored.state_dict())
            model.generation_config = tf.GenerationConfig()
        tensors, loss = batch_goldens(truth)
        save_file(tensors, os.path.join(folder, "golden.safetensors"))
        golden = {"made_with": f"transformers {tf.__version__}, torch {torch.__version__}", "loss": loss, "prompts": PROMPTS, "max_new": NEW}
        with open(os.path.join(folder, "golden.json"), "w") as out:
            rows = generate_goldens(truth, rounded) if kind_of(truth) == "lm" else []
            out.write(json.dumps(golden)[:-1] + ', "cases": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")


if __name__ == "__main__":
    main()
