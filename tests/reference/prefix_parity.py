#!/usr/bin/env python3
"""Prefix tuning against PEFT: logits, loss and the prefix's gradient, for all families on which PEFT has it; twenty steps of training, to adapters that
PEFT reads; adapters that PEFT wrote, with a projection, too; what is generated behind a prefix.

    python prefix_parity.py --espalier PROGRAM --build FOLDER

PEFT has no prefix for DistilBERT, whose attention takes no keys from elsewhere. Bounds as in model_parity.py."""
import sys
import tempfile
from types import SimpleNamespace

import peft
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from bottleneck_parity import probe
from documents import check_tuned, kind_of, loss_of, make_document, pack
from parity_tools import arguments, bert, check, error, finish, gpt2, llama, make_model, roberta, t5
from prompt_parity import END, LENGTHS, ROWS, SMALL, TASKS, compare_adapter, compare_training, prompt_in

CASES = {
    "gpt2": (None, gpt2()),
    "llama": (None, llama()),
    "llama-heads": (None, llama(head_dim=12)),
    "mistral": (None, tf.MistralConfig(**{**llama().to_diff_dict(), "model_type": "mistral", "sliding_window": 9})),
    "gpt2-classes": (tf.GPT2ForSequenceClassification, gpt2(num_labels=3)),
    "bert-classes": (tf.BertForSequenceClassification, bert(num_labels=3)),
    "bert-mlm": (tf.BertForMaskedLM, bert()),
    "roberta-classes": (tf.RobertaForSequenceClassification, roberta(num_labels=3)),
    "roberta-mlm": (tf.RobertaForMaskedLM, roberta()),
    "t5-v1.0": (tf.T5ForConditionalGeneration, t5()),
    "t5-even": (tf.T5ForConditionalGeneration, t5(num_layers=4, num_decoder_layers=4)),  # layers share what PEFT cuts
}
TRAINED = {
    "gpt2": (None, gpt2(**SMALL)),
    "llama": (None, llama(**SMALL)),
    "bert-classes": (tf.BertForSequenceClassification, bert(vocab_size=2048, num_labels=3)),
    "t5": (tf.T5ForConditionalGeneration, t5(vocab_size=2048, eos_token_id=END, initializer_factor=1.0)),
}


def config_of(model, **keys):
    shape = dict(token_dim=model.config.num_heads * model.config.d_kv) if kind_of(model) == "pair" else {}
    return peft.PrefixTuningConfig(task_type=TASKS[kind_of(model)], num_virtual_tokens=ROWS, **shape, **keys)


def logits_of(tuned, d):
    """PEFT's: of the tokens alone."""
    kind = kind_of(tuned.get_base_model())
    if kind == "pair":
        return tuned(input_ids=d["source_ids"][None], decoder_input_ids=d["ids"][None]).logits[0]
    typed = {"token_type_ids": d["types"][None]} if "types" in d and getattr(tuned.config, "type_vocab_size", 1) > 1 else {}
    logits = tuned(input_ids=d["ids"][None], attention_mask=torch.ones_like(d["ids"])[None], **typed).logits
    return logits if kind == "class" else logits[0]


def in_front(d, first):
    """A document behind tokens that the program's prefix stands in for."""
    before = {"ids": torch.arange(first, first + ROWS), "targets": -torch.ones(ROWS, dtype=torch.long), "types": torch.zeros(ROWS, dtype=torch.long)}
    return {name: torch.cat([before[name], x]) if name in before else x for name, x in d.items()}


PREFIX = SimpleNamespace(method="prefix", config_of=config_of, logits_of=logits_of, behind=lambda d, vocabulary: d)


def of_tokens(out, batch, kind):
    """Without the logits of the rows in front."""
    if kind == "class":
        return out
    keep = torch.cat([torch.arange(a + ROWS, b) for a, b in zip(batch["segments"], batch["segments"][1:])])
    return {**out, "logits": out["logits"][keep]}


def compare(name, args, folder, kind, config):
    model = make_model(config, folder, kind)
    documents = [make_document(model, torch.randint(3, config.vocab_size, (n,))) for n in LENGTHS]
    batch, kind = pack([in_front(d, 0) for d in documents]), kind_of(model)
    tuned = peft.get_peft_model(model, config_of(model)).eval()
    base, prefix = load_file(f"{folder}/model.safetensors"), prompt_in(tuned).detach().clone()
    save_file({**base, "prompt_embeddings": prefix}, f"{folder}/model.safetensors", {"format": "pt"})
    trained = sum(p.numel() for n, p in tuned.named_parameters() if p.requires_grad and "modules_to_save" not in n)
    tuned.double()
    logits = [logits_of(tuned, d) for d in documents]
    parts = [loss_of(y, d) for y, d in zip(logits, documents)]
    loss = sum(part[0] for part in parts) / sum(part[1] for part in parts)
    tuned.zero_grad()
    loss.backward()
    logits, gradient = torch.cat(logits).detach(), prompt_in(tuned).grad

    def run(dtype, which=batch):
        return of_tokens(probe(args, folder, which, dtype, f"prefix,{ROWS}"), which, kind)

    check_tuned(name, batch, (logits, loss.item(), {"prompt_embeddings": gradient}), trained, run)
    found, others = run("fp32"), run("fp32", pack([in_front(d, 5) for d in documents]))
    check(all(torch.equal(found[n], others[n]) for n in ("logits", "prompt_embeddings")), f"{name}: which tokens stand in front does not matter")
    swapped = prefix.unflatten(1, (-1, 2, tuned.peft_config["default"].token_dim)).flip(2).flatten(1).contiguous()
    save_file({**base, "prompt_embeddings": swapped}, f"{folder}/model.safetensors", {"format": "pt"})
    out = run("fp32")
    worst = error(out["logits"], logits), error(out["prompt_embeddings"], gradient)
    check(min(worst) > 1e-4, f"{name}: keys taken for values are noticed, logits {worst[0]:.1e}, gradient {worst[1]:.1e}")


def main():
    args = arguments(__doc__)
    torch.manual_seed(17)
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, args, folder, *case)
    for name, case in TRAINED.items():
        with tempfile.TemporaryDirectory() as folder:
            compare_training(PREFIX, name, args, folder, *case, "")
    for name, keys in (("llama", {}), ("gpt2", dict(prefix_projection=True, encoder_hidden_size=16)), ("t5", {})):
        with tempfile.TemporaryDirectory() as folder:
            compare_adapter(PREFIX, f"from-peft-{name}", args, folder, *TRAINED[name], **keys)
    return finish()


if __name__ == "__main__":
    sys.exit(main())
