#!/usr/bin/env python3
"""Folders that a run leaves (run.dir/model, `espalier export` in fp32 and bf16) in transformers: they load, weights and logits are the run's
own, and so is the tokenizer.

    python export_parity.py --espalier PROGRAM --build FOLDER

Logits: fp32 within 1e-5, relative to their norm; bf16 by the 2x rule, against fp64 on the same weights."""
import json
import subprocess
import sys
import tempfile

import torch
import transformers as tf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from documents import kind_of, logits_of, pack
from parity_tools import ROPE, TEXT, TOKENIZER, arguments, bert, check, distilbert, error, espalier, finish, gpt2, llama, make_model, roberta, t5, tokenize

END = 0
WIDE = dict(vocab_size=2048, num_hidden_layers=2, bos_token_id=END, eos_token_id=END)
MODELS = {
    "gpt2": gpt2(vocab_size=2048, n_layer=2, bos_token_id=END, eos_token_id=END),
    "gpt2-untied": gpt2(vocab_size=2048, n_layer=2, bos_token_id=END, eos_token_id=END, tie_word_embeddings=False),
    "llama-gqa": llama(**WIDE),
    "llama3-rope-tied": llama(**{**WIDE, "tie_word_embeddings": True}, rope_parameters=ROPE, attention_bias=True, mlp_bias=True),
}
HEADS = {  # a model to start from, the config of which names it, and what training makes of it
    "bert-model": (tf.BertModel, bert(vocab_size=2048), tf.BertForSequenceClassification),
    "bert-mlm": (tf.BertForMaskedLM, bert(vocab_size=2048), tf.BertForMaskedLM),
    "distilbert-mlm": (tf.DistilBertForMaskedLM, distilbert(vocab_size=2048), tf.DistilBertForSequenceClassification),
    "roberta-mlm": (tf.RobertaForMaskedLM, roberta(vocab_size=2048), tf.RobertaForSequenceClassification),
    "gpt2": (tf.GPT2LMHeadModel, gpt2(vocab_size=2048, n_layer=2), tf.GPT2ForSequenceClassification),
    "llama": (tf.LlamaForCausalLM, llama(**WIDE), tf.LlamaForSequenceClassification),
    "t5-v1.0": (tf.T5ForConditionalGeneration, t5(vocab_size=2048, eos_token_id=1), tf.T5ForConditionalGeneration),
    "t5-v1.1": (tf.T5ForConditionalGeneration, t5(vocab_size=2048, eos_token_id=1, feed_forward_proj="gated-silu", tie_word_embeddings=False),
                tf.T5ForConditionalGeneration),
}
TASKS = {"class": "classification", "mlm": "mlm", "pair": "seq2seq"}
CONFIG = """
run: {{threads: 1}}
model: {{path: {base}, dropout: 0}}
data: {{train: {text}, document: line, tokenizer: {tokenizer}}}
train: {{steps: 5, micro_batch_tokens: 128, micro_batches: 2}}
optim: {{lr: 1e-3}}
log: {{tensorboard: false}}
"""


def train(args, folder, dtype):
    with open(f"{folder}/config.yaml", "w") as out:
        out.write(CONFIG.format(base=f"{folder}/base", text=f"{folder}/text.txt", tokenizer=TOKENIZER))
    espalier(args, "train", f"{folder}/config.yaml", "--set", f"run.dir={folder}/{dtype}", "--set", f"run.dtype={dtype}")


def probe(args, folder, dtype, ids):
    """Logits of the program's evaluation."""
    with tempfile.TemporaryDirectory() as tmp:
        batch = {"ids": ids, "targets": torch.cat([ids[1:], torch.tensor([-1])]), "positions": torch.arange(len(ids)),
                 "segments": torch.tensor([0, len(ids)])}
        save_file(batch, f"{tmp}/in.safetensors")
        subprocess.run([f"{args.build}/tests/probe", folder, f"{tmp}/in.safetensors", f"{tmp}/out", dtype], check=True, timeout=120)
        return load_file(f"{tmp}/out/model.safetensors")["logits"]


def logits(folder, dtype, ids):
    model = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.no_grad():
        return model(input_ids=ids[None]).logits[0].double()


def tensors(folder):
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def compare_folder(name, args, folder, dtype, ids, before):
    model, info = tf.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    # A tied head is no tensor of its own, and transformers does not miss it.
    odd = [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]]
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    stored, metadata = tensors(folder)
    check(not odd and metadata == {"format": "pt"}, f"{name}: from_pretrained finds every tensor and no other")
    check(all(t.dtype == kind for t in stored.values()) and model.dtype == kind, f"{name}: stored, named and loaded as {kind}")
    with open(f"{folder}/config.json") as text:
        config = json.load(text)
    changed = [key for key in before if key not in ("dtype", "torch_dtype") and config.get(key) != before[key]]
    check(not changed and config.keys() == before.keys(), f"{name}: config.json as it was, but for the format")
    truth = logits(folder, torch.float64, ids)
    found = error(probe(args, folder, "fp32", ids), truth)
    check(found <= 1e-5, f"{name}: logits of the program and of transformers, {found:.1e}")
    if dtype == "bf16":
        ratio = error(probe(args, folder, "bf16", ids), truth) / error(logits(folder, torch.bfloat16, ids), truth)
        check(ratio <= 2, f"{name}: in bf16 the error is {ratio:.2f} of transformers'")


def compare_tokenizer(name, args, folder, lines):
    loaded = tf.AutoTokenizer.from_pretrained(folder)
    ids = tokenize(args, lines, folder)
    check(loaded(lines)["input_ids"] == ids, f"{name}: AutoTokenizer gives the same ids of {len(lines)} lines")
    check([loaded.decode(row) for row in ids] == lines, f"{name}: and their text back")


def compare_rounding(name, folder):
    """bf16 is fp32 rounded; what a run exports is what `espalier export` makes of its checkpoint."""
    wide, narrow = tensors(f"{folder}/fp32-fp32")[0], tensors(f"{folder}/fp32-bf16")[0]
    check(all(torch.equal(t.to(torch.bfloat16), narrow[n]) for n, t in wide.items()), f"{name}: the bf16 export is the fp32 export, rounded")
    for dtype in ("fp32", "bf16"):
        left, made = tensors(f"{folder}/{dtype}/model")[0], tensors(f"{folder}/{dtype}-{dtype}")[0]
        check(left.keys() == made.keys() and all(torch.equal(t, made[n]) for n, t in left.items()), f"{name}: the {dtype} run's model is its export")
    start = tensors(f"{folder}/base")[0]
    check(all(not torch.equal(start[n], t) for n, t in wide.items()), f"{name}: training has moved every tensor")


def compare_use(name, args, folder):
    """The run, its newest checkpoint and the exported folder are one model; a folder that no export made is left alone."""
    words = ["--ids", "--greedy", "--set", "generate.max_new_tokens=20", "--prompt", "Before we proceed", "--prompt", "O"]
    found = [espalier(args, "generate", path, *words) for path in (f"{folder}/fp32", f"{folder}/fp32/checkpoints/step-00000005", f"{folder}/fp32/model")]
    check(len(found[0].split()) > 20 and len(set(found)) == 1, f"{name}: generate says the same from the run, its checkpoint and its model")
    done = subprocess.run([args.espalier, "export", f"{folder}/fp32", f"{folder}/base"], capture_output=True, text=True)
    check(done.returncode == 2 and "not exported" in done.stderr, f"{name}: export refuses the base model's folder")


def compare(name, args, folder, lines, ids):
    with open(f"{folder}/base/config.json") as text:
        before = json.load(text)
    for run in ("fp32", "bf16"):
        train(args, folder, run)
        compare_folder(f"{name}, {run} run's model", args, f"{folder}/{run}/model", run, ids, before)
        for dtype in ("fp32", "bf16"):
            espalier(args, "export", f"{folder}/{run}", f"{folder}/{run}-{dtype}", "--dtype", dtype)
            compare_folder(f"{name}, {run} run exported in {dtype}", args, f"{folder}/{run}-{dtype}", dtype, ids, before)
    compare_rounding(name, folder)
    compare_tokenizer(name, args, f"{folder}/fp32/model", lines)
    compare_use(name, args, folder)


def compare_head(name, args, folder, start, kind, lines):
    """Trains the kind of model from `start`, whose head it may lack; transformers loads the outcome, every tensor of it, labels and all."""
    task, rows = TASKS[kind_of(kind.__new__(kind))], [dict(text=row, label=f"label {i % 3}", input=row, target=lines[0]) for i, row in enumerate(lines)]
    with open(f"{folder}/rows.jsonl", "w") as out:
        out.write("".join(json.dumps(row) + "\n" for row in rows))
    with open(f"{folder}/config.yaml", "w") as out:
        out.write(CONFIG.format(base=f"{folder}/base", text=f"{folder}/rows.jsonl", tokenizer=TOKENIZER))
    done = subprocess.run([args.espalier, "train", f"{folder}/config.yaml", "--set", f"run.dir={folder}/run", "--set", f"data.task={task}",
                           *(["--set", "data.mask_token=<|endoftext|>"] if task == "mlm" else [])], capture_output=True, text=True, timeout=120)
    check(done.returncode == 0, f"{name}: {task} is trained{done.stderr[-300:] if done.returncode else ''}")
    if done.returncode != 0:
        return
    check((kind is not start) == ("start anew" in done.stderr), f"{name}: a head that the files lack is told of")
    model, info = kind.from_pretrained(f"{folder}/run/model", output_loading_info=True)
    odd = [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[key]]
    check(not odd and model.config.architectures == [kind.__name__], f"{name}: {kind.__name__} finds every tensor and no other")
    if task == "classification":
        check(model.config.id2label == {i: f"label {i}" for i in range(3)}, f"{name}: labels by name")
    ids = torch.arange(3, 30)
    document = dict(source_ids=ids, ids=ids[:9], targets=ids[:9]) if task == "seq2seq" else dict(ids=ids, targets=ids, labels=torch.tensor([1]))
    truth = logits_of(model.double().eval(), document).detach()
    with tempfile.TemporaryDirectory() as tmp:
        save_file(pack([document]), f"{tmp}/in.safetensors")
        subprocess.run([f"{args.build}/tests/probe", f"{folder}/run/model", f"{tmp}/in.safetensors", f"{tmp}/out"], check=True, timeout=120)
        off = error(load_file(f"{tmp}/out/model.safetensors")["logits"], truth)
    check(off <= 1e-5, f"{name}: logits of the program and of transformers, {off:.1e}")


def main():
    args = arguments(__doc__)
    torch.manual_seed(5)
    lines = [line for line in TEXT.read_text().split("\n") if line][:60]
    ids = torch.tensor(sum(tokenize(args, lines), [])[:100])
    for name, config in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            make_model(config, f"{folder}/base")
            with open(f"{folder}/text.txt", "w") as out:
                out.write("\n".join(lines) + "\n")
            compare(name, args, folder, lines, ids)
    for name, (start, config, kind) in HEADS.items():
        with tempfile.TemporaryDirectory() as folder:
            make_model(config, f"{folder}/base", start)
            compare_head(name, args, folder, start, kind, lines)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
