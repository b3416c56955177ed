#!/usr/bin/env python3
"""Twenty steps of training with rates that differ between parameters, and with parameters that join later, against transformers and torch.optim
with parameter groups and requires_grad switched on at the same steps.

    python tuning_parity.py --espalier PROGRAM --build FOLDER

One document is all data, so every step sees it. Bounds: losses and weights of fp32 within 1e-5 of the same steps in fp64."""
import collections
import json
import re
import sys
import tempfile

import peft
import peft.optimizers
import torch
import transformers as tf
from safetensors.torch import load_file

from documents import logits_of, loss_of
from parity_tools import TEXT, TOKENIZER, arguments, bert, check, error, espalier, finish, gpt2, make_model, tokenize

STEPS, CLIP, END, LABELS = 20, 0.5, 0, ["bad", "fair", "good"]
Case = collections.namedtuple("Case", "config kind optimizer decay rates train unfreeze", defaults=(1, [], [], []))
SMALL = dict(vocab_size=2048, bos_token_id=END, eos_token_id=END)
CASES = {
    "gpt2, adamw, layer_decay": Case(gpt2(**SMALL), tf.GPT2LMHeadModel, "adamw", 0.5, []),
    "gpt2, sgd, rates": Case(gpt2(**SMALL), tf.GPT2LMHeadModel, "sgd", 1, ["layers.0=0.1", "*.h.2.mlp.*=3", "*bias=0.5"]),
    "gpt2, adamw, unfreeze": Case(gpt2(**SMALL), tf.GPT2LMHeadModel, "adamw", 1, [], ["layers.2"], ["*.bias@5", "layers.0-1@12", "*.wte.*@12"]),
    "gpt2, sgd, unfreeze": Case(gpt2(**SMALL), tf.GPT2LMHeadModel, "sgd", 1, [], ["layers.2"], ["layers.1@5", "*.ln_1.weight@12"]),
    "bert-classes, adamw, unfreeze and decay": Case(bert(vocab_size=2048, num_labels=3), tf.BertForSequenceClassification, "adamw", 0.7, [], ["head"],
                                                    ["layers.2@5e", "layers.0-1@12e", "embeddings@12e"]),
    "bert-classes, adamw, both": Case(bert(vocab_size=2048, num_labels=3), tf.BertForSequenceClassification, "adamw", 0.7, ["head=2", "*LayerNorm*=1"]),
}
LAYER = r"\.(?:h|layer)\.(\d+)\."
CONFIG = """
run: {{threads: 1}}
model: {{path: {folder}/base, dropout: 0}}
data: {{train: {text}, tokenizer: {tokenizer}, cache: {folder}/cache, sequence_length: 32, {data}}}
train: {{steps: {steps}, micro_batch_tokens: 32, micro_batches: 1, clip_norm: {clip}}}
optim: {{name: {name}, lr: 2e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, schedule: linear, warmup_steps: 4}}
log: {{tensorboard: false}}
"""


def write_data(args, folder, case):
    """The one document, as a file and as the model sees it."""
    line = next(x.strip() for x in open(TEXT) if len(x.split()) > 9)
    ids = torch.tensor(tokenize(args, [line])[0])
    labelled = case.kind is tf.BertForSequenceClassification
    text = f"{folder}/text.{'jsonl' if labelled else 'txt'}"
    rows = [json.dumps({"text": line, "label": LABELS[1]})] if labelled else [line]
    open(text, "w").write("".join(row + "\n" for row in rows))
    data = f"task: classification, labels: [{', '.join(LABELS)}]" if labelled else "document: line"
    open(f"{folder}/config.yaml", "w").write(CONFIG.format(folder=folder, text=text, tokenizer=TOKENIZER, data=data, steps=STEPS, clip=CLIP, name=case.optimizer))
    if labelled:
        return dict(ids=ids, labels=torch.tensor([1]), weights=torch.ones(1))
    ids = torch.cat([ids, torch.tensor([END])])
    return dict(ids=ids, targets=torch.cat([ids[1:], torch.tensor([-1])]))


def depth(name, layers):
    """Places above the embeddings: they are 0, the head is layers + 1."""
    layer = re.search(LAYER, name)
    return 1 + int(layer[1]) if layer else 0 if "emb" in name.lower() or ".wte." in name or ".wpe." in name else layers + 1


def matches(selection, name):
    """Of the selections of these cases alone."""
    if selection == "head":
        return name.startswith(("classifier.", "bert.pooler."))
    if selection == "embeddings":
        return "embeddings" in name
    if selection.startswith("layers."):
        first, _, last = selection[7:].partition("-")
        layer = re.search(LAYER, name)
        return layer is not None and int(first) <= int(layer[1]) <= int(last or first)
    return re.fullmatch(selection.replace(".", r"\.").replace("*", ".*"), name) is not None


def factor(case, name, layers):
    value = case.decay ** (layers + 1 - depth(name, layers))
    for entry in case.rates:
        selection, number = entry.rsplit("=", 1)
        value = float(number) if matches(selection, name) else value
    return value


def first_step(case, name):
    """How many steps are done when a parameter joins; None: it never does."""
    if not case.train or any(matches(selection, name) for selection in case.train):
        return 0
    entries = [entry.rsplit("@", 1) for entry in case.unfreeze]
    return min((int(at.rstrip("e")) for selection, at in entries if matches(selection, name)), default=None)


def optimizer_of(kind, named, factor_of):
    groups = [{"params": [p], "lr": 2e-3 * factor_of(name), "weight_decay": 0.1 if p.dim() > 1 else 0.0} for name, p in named]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=2e-3, momentum=0.9)
    return torch.optim.AdamW(groups, lr=2e-3, betas=(0.9, 0.95), eps=1e-8)


def truth(model, document, optimizer, joins=()):
    """(loss, gradient norm) of all steps; the model is then trained. `joins`: parameters, and the steps that are done when each joins. What has no
    gradient the optimizer leaves alone, and does not count as a step of that parameter."""
    rate, rows = tf.get_scheduler("linear", optimizer, num_warmup_steps=4, num_training_steps=STEPS), []
    for step in range(STEPS):
        for p, first in joins:
            p.requires_grad_(first is not None and first <= step)
        total, weight = loss_of(logits_of(model, document), document)
        (total / weight).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        rows.append(((total / weight).item(), norm.item()))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        rate.step()
    return rows


def train(args, folder, name, *sets):
    """Runs; returns losses and gradient norms of its steps."""
    words = [w for key in (f"run.dir={folder}/{name}", *sets) for w in ("--set", key)]
    espalier(args, "train", f"{folder}/config.yaml", *words)
    with open(f"{folder}/{name}/metrics.jsonl") as lines:
        return [(row["loss"], row["grad_norm"]) for row in map(json.loads, lines) if row["event"] == "step"]


def comparable(name, tensor):
    """Without the biases of keys: softmax does not see them, and AdamW makes steps of what is but rounding."""
    width = tensor.numel() // 3
    return tensor[:0] if name.endswith("key.bias") else torch.cat([tensor[:width], tensor[2 * width:]]) if name.endswith("c_attn.bias") else tensor


def worst_weight(folder, name, trained):
    found = load_file(f"{folder}/{name}/model/model.safetensors")
    return max((error(comparable(n, found[n]), comparable(n, p.detach())), n) for n, p in trained)


def sets_of(case):
    lists = {"optim.rates": case.rates, "tune.train": case.train, "tune.unfreeze": case.unfreeze}
    return [f"optim.layer_decay={case.decay}", *(f"{key}=[{', '.join(map(repr, entries))}]" for key, entries in lists.items())]


def worst_row(found, true):
    return max(abs(a / b - 1) for pair in zip(found, true) for a, b in zip(*pair))


def without(case):
    """One rate for all, or everything that joins does so a step later."""
    later = [re.sub(r"@(\d+)", lambda at: f"@{int(at[1]) + 1}", entry) for entry in case.unfreeze]
    return case._replace(unfreeze=later) if later else case._replace(decay=1, rates=[])


def compare(name, args, folder, case):
    start = make_model(case.config, f"{folder}/base", case.kind)
    document, layers = write_data(args, folder, case), start.config.num_hidden_layers
    model = start.double()
    named = list(model.named_parameters())
    optimizer = optimizer_of(case.optimizer, named, lambda n: factor(case, n, layers))
    expected = truth(model, document, optimizer, [(p, first_step(case, n)) for n, p in named])
    rows = train(args, folder, "run", *sets_of(case))
    off, worst = worst_row(rows, expected), worst_weight(folder, "run", named)
    check(len(rows) == STEPS and off <= 1e-5, f"{name}: {STEPS} steps, loss {expected[0][0]:.3f} to {expected[-1][0]:.3f}, losses and norms off by {off:.1e}")
    check(worst[0] <= 1e-5, f"{name}: final weights off by at most {worst[0]:.1e} ({worst[1]})")
    train(args, folder, "control", *sets_of(without(case)))
    worst = worst_weight(folder, "control", named)
    check(worst[0] > 1e-5, f"{name}: {'a step later' if case.unfreeze else 'one rate for all'} is noticed: {worst[0]:.1e} ({worst[1]})")


def compare_lora_plus(args, folder):
    """LoRA+ (Hayou et al. 2024): B learns faster than A; PEFT's own function makes the groups."""
    case = Case(gpt2(**SMALL), tf.GPT2LMHeadModel, "adamw", 1, [])
    model, lora = make_model(case.config, f"{folder}/base"), ["tune.method=lora", "tune.rank=4", "tune.targets=[c_attn, c_fc]"]
    document = write_data(args, folder, case)
    train(args, folder, "start", *lora, "train.steps=1", "optim.lr=0")
    tuned = peft.PeftModel.from_pretrained(model, f"{folder}/start/adapter", is_trainable=True).double()
    optimizer = peft.optimizers.create_loraplus_optimizer(tuned, torch.optim.AdamW, lr=2e-3, loraplus_lr_ratio=16, betas=(0.9, 0.95), eps=1e-8,
                                                          weight_decay=0.1)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.1
    expected = truth(tuned, document, optimizer)
    rows = train(args, folder, "run", *lora, "optim.rates=['*.lora_B.*=16']")
    plain = train(args, folder, "control", *lora)
    off = [worst_row(found, expected) for found in (rows, plain)]
    check(off[0] <= 1e-5 < off[1], f"LoRA+: {STEPS} steps, loss {expected[0][0]:.3f} to {expected[-1][0]:.3f}, off by {off[0]:.1e}; with one rate {off[1]:.1e}")


def main():
    args = arguments(__doc__)
    torch.manual_seed(11)
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args, folder, case)
    with tempfile.TemporaryDirectory() as folder:
        compare_lora_plus(args, folder)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
