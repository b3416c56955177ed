#!/usr/bin/env python3
"""Bottleneck adapters against plain torch modules that hang on transformers' own: logits, loss and the gradient of every parameter, for all
families; twenty steps of training, from and to adapters that the program writes.

    python bottleneck_parity.py --espalier PROGRAM --build FOLDER

Where an adapter stands is what the library `adapters` has as DoubleSeqBnConfig (both) and as SeqBnConfig(original_ln_before=False) (mlp).
Bounds as in model_parity.py: fp32 within 1e-5 of torch in fp64, relative to the tensor's norm."""
import json
import subprocess
import sys
import tempfile

import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from documents import check_tuned, logits_of, loss_of, make_document, pack, reference
from parity_tools import TEXT, TOKENIZER, arguments, bert, check, distilbert, error, espalier, finish, gpt2, llama, make_model, roberta, t5, tokenize

F = torch.nn.functional
ACTIVATIONS = {"gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh}
PLACES = {  # what attention, and what an MLP leaves for the stream
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "bert": ("attention.output.dense", "output.dense"),
    "roberta": ("attention.output.dense", "output.dense"),
    "distilbert": ("attention.out_lin", "ffn.lin2"),
    "t5": ("SelfAttention.o", "DenseReluDense.wo"),
}
CASES = {  # name: class, config, width, activation, at
    "gpt2": (None, gpt2(), 8, "silu", "both"),
    "gpt2-mlp": (None, gpt2(), 5, "gelu_tanh", "mlp"),
    "llama": (None, llama(), 8, "gelu", "both"),
    "bert-classes": (tf.BertForSequenceClassification, bert(), 8, "relu", "both"),
    "bert-mlm-mlp": (tf.BertForMaskedLM, bert(), 8, "silu", "mlp"),
    "distilbert-classes": (tf.DistilBertForSequenceClassification, distilbert(), 8, "tanh", "both"),
    "roberta-mlm": (tf.RobertaForMaskedLM, roberta(), 3, "relu", "both"),
    "t5-v1.0": (tf.T5ForConditionalGeneration, t5(), 8, "relu", "both"),
    "t5-v1.1-mlp": (tf.T5ForConditionalGeneration, t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False), 8, "silu", "mlp"),
}
LENGTHS = [37, 1, 20, 6]
STEPS, END = 20, 0
SMALL = dict(vocab_size=2048, bos_token_id=END, eos_token_id=END)
TRAINED = {"gpt2": (gpt2(**SMALL), 16, "silu", "both"), "llama-mlp": (llama(**SMALL), 16, "gelu", "mlp")}  # name: config, width, activation, at
CONFIG = """
run: {{threads: 1, dir: {folder}/run}}
model: {{path: {folder}/base, dropout: 0}}
data: {{train: {folder}/text.txt, tokenizer: {tokenizer}, cache: {folder}/cache, sequence_length: 32, document: line}}
train: {{steps: {steps}, micro_batch_tokens: 32, micro_batches: 1, clip_norm: 0}}
tune: {{method: bottleneck, bottleneck: {width}, bottleneck_activation: {activation}, bottleneck_at: {at}}}
optim: {{lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0, schedule: constant}}
log: {{tensorboard: false}}
"""


def adapted(model, width, activation, at):
    """The model with adapters of random parameters, under the program's names."""
    places = PLACES[model.config.model_type][0 if at == "both" else 1:]
    f = ACTIVATIONS[activation]
    model.requires_grad_(False)
    for name, module in list(model.named_modules()):
        if not name.endswith(places) or (at == "mlp" and "attention" in name):
            continue
        out = module.nf if hasattr(module, "nf") else module.out_features
        module.adapter_down, module.adapter_up = torch.nn.Linear(out, width), torch.nn.Linear(width, out)
        torch.nn.init.normal_(module.adapter_up.weight, std=0.1)
        module.register_forward_hook(lambda m, _, y: y + m.adapter_up(f(m.adapter_down(y))))
    return model


def added(model):
    return {name: p for name, p in model.named_parameters() if ".adapter_" in name}


def probe(args, folder, batch, dtype, method):
    with tempfile.TemporaryDirectory() as tmp:
        save_file(batch, f"{tmp}/in.safetensors")
        subprocess.run([f"{args.build}/tests/probe", folder, f"{tmp}/in.safetensors", f"{tmp}/out", dtype, method], check=True, timeout=120)
        return load_file(f"{tmp}/out/model.safetensors")


def compare(name, args, folder, model, documents, method):
    batch = pack(documents)
    logits, loss, grads = reference(model.double(), documents)
    check_tuned(name, batch, (logits, loss, grads), sum(p.numel() for p in model.parameters() if p.requires_grad),
                lambda dtype: probe(args, folder, batch, dtype, method))


def compare_model(name, args, kind, config, width, activation, at):
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(config, folder, kind)
        base = load_file(f"{folder}/model.safetensors")
        documents = [make_document(model, torch.randint(3, config.vocab_size, (n,))) for n in LENGTHS]
        adapted(model, width, activation, at)
        save_file({**base, **{n: p.detach().clone() for n, p in added(model).items()}}, f"{folder}/model.safetensors", {"format": "pt"})
        compare(name, args, folder, model, documents, f"bottleneck,{width},{activation},{at}")


def train(args, folder, name, *sets):
    """Runs; returns the losses of its steps."""
    words = [w for key in (f"run.dir={folder}/{name}", *sets) for w in ("--set", key)]
    espalier(args, "train", f"{folder}/config.yaml", *words)
    with open(f"{folder}/{name}/metrics.jsonl") as lines:
        return [row["loss"] for row in map(json.loads, lines) if row["event"] == "step"]


def one_line(args, folder):
    """A text of one line, as the program's document of it."""
    line = next(x.strip() for x in open(TEXT) if len(x.split()) > 9)
    open(f"{folder}/text.txt", "w").write(line + "\n")
    ids = torch.tensor(tokenize(args, [line])[0] + [END])
    return dict(ids=ids, targets=torch.cat([ids[1:], torch.tensor([-1])]))


def steps_of(model, parameters, document):
    """The losses of as many steps."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)
    losses = []
    for _ in range(STEPS):
        total, weight = loss_of(logits_of(model, document), document)
        (total / weight).backward()
        losses.append(float(total / weight))
        optimizer.step()
        optimizer.zero_grad()
    return losses


def compare_training(name, args, folder, config, width, activation, at):
    model = make_model(config, f"{folder}/base")
    document = one_line(args, folder)
    open(f"{folder}/config.yaml", "w").write(CONFIG.format(folder=folder, tokenizer=TOKENIZER, steps=STEPS, width=width, activation=activation, at=at))
    train(args, folder, "start", "train.steps=1", "optim.lr=0")
    parameters = added(adapted(model, width, activation, at))
    model.load_state_dict(load_file(f"{folder}/start/adapter/adapter_model.safetensors"), strict=False)
    check(all(float(p.abs().sum()) == 0.0 for n, p in parameters.items() if "_up." in n), f"{name}: `up` begins as zero")
    expected = steps_of(model.double(), list(parameters.values()), document)
    losses = train(args, folder, "run")
    off = max(abs(a / b - 1) for a, b in zip(losses, expected))
    check(len(losses) == STEPS and off <= 1e-5 and expected[-1] < 0.9 * expected[0], f"{name}: {STEPS} steps, loss {expected[0]:.3f} to {expected[-1]:.3f}, off by {off:.1e}")
    written = load_file(f"{folder}/run/adapter/adapter_model.safetensors")
    worst = max(error(written[n], p) for n, p in parameters.items())
    check(set(written) == set(parameters) and worst <= 1e-5, f"{name}: {len(parameters)} tensors of the adapters, the worst {worst:.1e}")


def main():
    args = arguments(__doc__)
    torch.manual_seed(12)
    for name, case in CASES.items():
        compare_model(name, args, *case)
    for name, case in TRAINED.items():
        with tempfile.TemporaryDirectory() as folder:
            compare_training(name, args, folder, *case)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
