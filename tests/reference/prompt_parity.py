#!/usr/bin/env python3
"""Soft prompts against PEFT: logits, loss and the prompt's gradient, for all families; twenty steps of training from a prompt that begins as a
text or at random, to adapters that PEFT reads; adapters that PEFT wrote; what is generated behind a prompt.

    python prompt_parity.py --espalier PROGRAM --build FOLDER

PEFT makes the last row of a prompt guess the text's first token where a label says so; labels here never do, as in the program. Bounds as in
model_parity.py: fp32 within 1e-5 of PEFT in fp64, relative to the tensor's norm."""
import json
import sys
import tempfile
from types import SimpleNamespace

import peft
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from bottleneck_parity import probe
from documents import check_tuned, kind_of, loss_of, make_document, pack
from lora_parity import digest_of
from parity_tools import TEXT, TOKENIZER, arguments, bert, check, distilbert, error, espalier, finish, gpt2, llama, make_model, roberta, t5, tokenize
from train_parity import LABELS, documents_of, rows_of

ROWS, LENGTHS, STEPS, END = 7, [37, 1, 20, 6], 20, 0
TASKS = {"lm": "CAUSAL_LM", "class": "SEQ_CLS", "pair": "SEQ_2_SEQ_LM", "mlm": "FEATURE_EXTRACTION"}  # the last passes logits on as they are
CASES = {
    "gpt2": (None, gpt2()),
    "llama": (None, llama()),
    "llama-tied": (None, llama(tie_word_embeddings=True)),
    "gpt2-classes": (tf.GPT2ForSequenceClassification, gpt2(num_labels=3)),
    "bert-classes": (tf.BertForSequenceClassification, bert(num_labels=3)),
    "bert-mlm": (tf.BertForMaskedLM, bert()),
    "distilbert-classes": (tf.DistilBertForSequenceClassification, distilbert(num_labels=3)),
    "roberta-mlm": (tf.RobertaForMaskedLM, roberta()),
    "t5-v1.0": (tf.T5ForConditionalGeneration, t5()),
    "t5-v1.1": (tf.T5ForConditionalGeneration, t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False)),
}
SMALL = dict(vocab_size=2048, bos_token_id=END, eos_token_id=END)
TRAINED = {  # name: class, config, the text that the prompt begins as
    "gpt2": (None, gpt2(**SMALL), "Answer as the poet would have done, and nobody else."),
    "llama": (None, llama(**SMALL), ""),
    "bert-classes": (tf.BertForSequenceClassification, bert(vocab_size=2048, num_labels=3), "good"),
    "t5": (tf.T5ForConditionalGeneration, t5(vocab_size=2048, eos_token_id=END, initializer_factor=1.0), "What follows"),
}
CONFIG = """
run: {{threads: 1, dir: {folder}/run}}
model: {{path: {folder}/base, dropout: 0}}
data: {{train: {text}, tokenizer: {tokenizer}, cache: {folder}/cache, sequence_length: 32, {data}}}
train: {{steps: {steps}, micro_batch_tokens: 64, micro_batch_target_tokens: 64, micro_batches: 1, clip_norm: 0}}
tune: {{method: {method}, prompt_length: {rows}, prompt_text: "{prompt}"}}
optim: {{lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-4, weight_decay: 0.1, schedule: constant}}
log: {{tensorboard: false}}
"""
DATA = {"lm": "document: line", "class": f"task: classification, labels: [{', '.join(LABELS)}]", "pair": "task: seq2seq"}


def config_of(model, **keys):
    shape = dict(token_dim=model.get_input_embeddings().embedding_dim, num_layers=model.config.num_hidden_layers, num_attention_heads=model.config.num_attention_heads)
    return peft.PromptTuningConfig(task_type=TASKS[kind_of(model)], num_virtual_tokens=ROWS, num_transformer_submodules=1, **shape, **keys)


def prompt_in(tuned):
    return tuned.prompt_encoder["default"].embedding.weight


def logits_of(tuned, d):
    """PEFT's, of the prompt's rows, too."""
    kind = kind_of(tuned.get_base_model())
    if kind == "pair":
        return tuned(input_ids=d["source_ids"][None], decoder_input_ids=d["ids"][None]).logits[0]
    typed = {"token_type_ids": d["types"][None]} if "types" in d and getattr(tuned.config, "type_vocab_size", 1) > 1 else {}
    if kind == "mlm":
        return tuned(input_ids=d["ids"][None], attention_mask=torch.ones_like(d["ids"])[None]).logits[0]
    logits = tuned(input_ids=d["ids"][None], **typed).logits
    return logits if kind == "class" else logits[0]


def behind(d, vocabulary, backwards=False):
    """A document behind its prompt, as the program has it."""
    ids = torch.arange(vocabulary, vocabulary + ROWS)
    ids = ids.flip(0) if backwards else ids
    if "source_ids" in d:
        return {**d, "source_ids": torch.cat([ids, d["source_ids"]])}
    before = {"ids": ids, "targets": -torch.ones(ROWS, dtype=torch.long), "types": torch.zeros(ROWS, dtype=torch.long)}
    return {name: torch.cat([before[name], x]) if name in before else x for name, x in d.items()}


def compare(name, args, folder, kind, config):
    model = make_model(config, folder, kind)
    documents = [make_document(model, torch.randint(3, config.vocab_size, (n,))) for n in LENGTHS]
    packed = [behind(d, config.vocab_size) for d in documents]
    tuned = peft.get_peft_model(model, config_of(model)).eval()
    save_file({**load_file(f"{folder}/model.safetensors"), "prompt_embeddings": prompt_in(tuned).detach().clone()}, f"{folder}/model.safetensors", {"format": "pt"})
    trained = sum(p.numel() for n, p in tuned.named_parameters() if p.requires_grad and "modules_to_save" not in n)
    tuned.double()
    logits = [logits_of(tuned, d) for d in documents]
    parts = [loss_of(y, d) for y, d in zip(logits, packed)]
    weight = sum(part[1] for part in parts)
    loss = sum(part[0] for part in parts) / weight
    tuned.zero_grad()
    loss.backward()
    logits, gradient = torch.cat(logits).detach(), prompt_in(tuned).grad
    batch = pack(packed)
    check_tuned(name, batch, (logits, loss.item(), {"prompt_embeddings": gradient}), trained, lambda dtype: probe(args, folder, batch, dtype, f"prompt,{ROWS}"))
    out = probe(args, folder, pack([behind(d, config.vocab_size, True) for d in documents]), "fp32", f"prompt,{ROWS}")
    worst = error(out["logits"], logits), error(out["prompt_embeddings"], gradient)
    check(min(worst) > 1e-4, f"{name}: a prompt that is read backwards is noticed, logits {worst[0]:.1e}, gradient {worst[1]:.1e}")


# What differs between methods that put something in front of a text: PEFT's config and logits, and a document as the program has it.
SOFT_PROMPT = SimpleNamespace(method="prompt", config_of=config_of, logits_of=logits_of, behind=behind)


def train(args, folder, name, *sets):
    """Runs; returns the losses of its steps."""
    words = [w for key in (f"run.dir={folder}/{name}", *sets) for w in ("--set", key)]
    espalier(args, "train", f"{folder}/config.yaml", *words)
    with open(f"{folder}/{name}/metrics.jsonl") as lines:
        return [row["loss"] for row in map(json.loads, lines) if row["event"] == "step"]


def write_data(args, folder, kind, prompt, method):
    """A config and its data, of one document; the document."""
    line = next(x.strip() for x in open(TEXT) if len(x.split()) > 9)
    text = f"{folder}/text.{'txt' if kind == 'lm' else 'jsonl'}"
    open(text, "w").write("".join(row + "\n" for row in rows_of(kind, [line])))
    open(f"{folder}/config.yaml", "w").write(CONFIG.format(folder=folder, text=text, tokenizer=TOKENIZER, data=DATA[kind], steps=STEPS, rows=ROWS, prompt=prompt, method=method))
    return documents_of(kind, [torch.tensor(tokenize(args, [line])[0])])[0]


def check_start(name, args, model, prompt, written):
    """A prompt that begins as a text, against PEFT's own; at random it is normal."""
    if prompt == "":
        check(abs(float(written.std()) - 1) < 0.1 and abs(float(written.mean())) < 0.1, f"{name}: begins with mean {written.mean():.2f}, deviation {written.std():.2f}")
        return
    text = dict(prompt_tuning_init="TEXT", prompt_tuning_init_text=prompt, tokenizer_name_or_path=str(TOKENIZER))
    theirs = peft.PromptEmbedding(config_of(model, **text), model.get_input_embeddings()).embedding.weight
    check(torch.equal(theirs, written) and len(set(map(tuple, written.tolist()))) > 1, f"{name}: begins as PEFT's of '{prompt}', {len(tokenize(args, [prompt])[0])} tokens in {ROWS} rows")


def generated(args, folder, path, lines):
    words = [word for line in lines for word in ("--prompt", line)]
    out = espalier(args, "generate", path, "--ids", "--greedy", "--set", "run.threads=1", "--set", f"data.tokenizer={TOKENIZER}",
                   "--set", f"model.path={folder}/base", "--set", "generate.max_new_tokens=20", *words)
    return [[int(word) for word in line.split()] for line in out.splitlines()]


def check_generation(name, args, folder, tuned):
    """Token for token, several prompts at once; without the soft prompt other texts."""
    words = TEXT.read_text().split()
    lines = [" ".join(words[at : at + n]) for at, n in ((0, 5), (500, 1), (900, 30))]
    expected, end = [], tuned.config.eos_token_id
    for ids in tokenize(args, lines):
        keys = dict(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), do_sample=False, max_new_tokens=20, pad_token_id=END)
        out = tuned.generate(**keys)[0, (1 if kind_of(tuned.get_base_model()) == "pair" else len(ids)):].tolist()
        expected.append(out[: out.index(end) + 1] if end in out else out)
    for path in (f"{folder}/run", f"{folder}/run/adapter"):
        found = generated(args, folder, path, lines)
        check(found == expected, f"{name}: {sum(map(len, expected))} tokens generated from {path.removeprefix(folder)}")
    check(generated(args, folder, f"{folder}/base", lines) != expected, f"{name}: the base generates others")


def compare_training(how, name, args, folder, kind, config, prompt):
    model = make_model(config, f"{folder}/base", kind)
    before, kind = digest_of(f"{folder}/base"), kind_of(model)
    document, head = write_data(args, folder, kind, prompt, how.method), ["tune.train=[head]"] if kind == "class" else []
    train(args, folder, "start", "train.steps=1", "optim.lr=0", *head)
    check_start(name, args, model, prompt, load_file(f"{folder}/start/adapter/adapter_model.safetensors")["prompt_embeddings"])
    tuned = peft.PeftModel.from_pretrained(type(model).from_pretrained(f"{folder}/base"), f"{folder}/start/adapter").double().eval()
    trained = {n: p.requires_grad_() for n, p in tuned.named_parameters() if "prompt_encoder" in n or ".modules_to_save." in n}  # what PEFT trains
    groups = [dict(params=[p for p in trained.values() if (p.dim() > 1) == matrix], weight_decay=0.1 * matrix) for matrix in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-4)
    expected, whole = [], how.behind(document, config.vocab_size)
    for _ in range(STEPS):
        total, weight = loss_of(how.logits_of(tuned, document), whole)
        (total / weight).backward()
        expected.append(float((total / weight).detach()))
        optimizer.step()
        optimizer.zero_grad()
    losses = train(args, folder, "run", *head)
    off = max(abs(a / b - 1) for a, b in zip(losses, expected))
    check(len(losses) == STEPS and off <= 1e-5 and expected[-1] < expected[0] - 0.03, f"{name}: {STEPS} steps, loss {expected[0]:.3f} to {expected[-1]:.3f}, off by {off:.1e}")
    written = load_file(f"{folder}/run/adapter/adapter_model.safetensors")
    mine = {n.replace(".modules_to_save.default", ""): p for n, p in trained.items() if "prompt_encoder" not in n}
    mine["prompt_embeddings"] = prompt_in(tuned)
    worst = max((error(written[n], p), n) for n, p in mine.items() if n in written)
    check(set(written) == set(mine) and worst[0] <= 1e-5, f"{name}: {sum(p.numel() for p in mine.values())} trained parameters, the worst {worst[0]:.1e} ({worst[1]}) {sorted(set(written) ^ set(mine))[:3]}")
    check(digest_of(f"{folder}/base") == before, f"{name}: the base's folder is as it was")
    if kind != "class":
        check_generation(name, args, folder, tuned)


def compare_adapter(how, name, args, folder, kind, config, **keys):
    """What PEFT made: written again as it is, and judged."""
    model = make_model(config, f"{folder}/base", kind)
    document = write_data(args, folder, kind_of(model), "", how.method)
    tuned = peft.get_peft_model(type(model).from_pretrained(f"{folder}/base"), how.config_of(model, **keys)).eval()
    tuned.save_pretrained(f"{folder}/theirs")
    train(args, folder, "again", "train.steps=1", "optim.lr=0", f"model.adapter={folder}/theirs", "tune.method=full")
    theirs, again = (load_file(f"{folder}/{which}/adapter_model.safetensors") for which in ("theirs", "again/adapter"))
    check(set(theirs) == set(again) and all(torch.equal(theirs[n], again[n]) for n in theirs), f"{name}: PEFT's adapter is written as it was read {sorted(set(theirs) ^ set(again))[:3]}")
    with torch.no_grad():
        total, weight = loss_of(how.logits_of(tuned.double(), document), how.behind(document, config.vocab_size))
    words = ["--json", "--set", f"data.valid={folder}/text.{'txt' if kind is None else 'jsonl'}", "--set", f"data.tokenizer={TOKENIZER}"]
    for what, path, more in (("adapter", "theirs", []), ("base and model.adapter", "base", ["--set", f"model.adapter={folder}/theirs"])):
        found = json.loads(espalier(args, "eval", f"{folder}/config.yaml", "--model", f"{folder}/{path}", *words, *more))["loss"]
        check(abs(found / float(total / weight) - 1) <= 1e-5, f"{name}: eval of {what}, loss {found:.4f}, PEFT's {float(total / weight):.4f}")


def main():
    args = arguments(__doc__)
    torch.manual_seed(13)
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args, folder, *case)
    for name, case in TRAINED.items():
        with tempfile.TemporaryDirectory() as folder:
            compare_training(SOFT_PROMPT, name, args, folder, *case)
    for name in ("llama", "t5"):
        with tempfile.TemporaryDirectory() as folder:
            compare_adapter(SOFT_PROMPT, f"from-peft-{name}", args, folder, *TRAINED[name][:2])
    return finish()


if __name__ == "__main__":
    sys.exit(main())
