# test: tier=default timeout=420
"""What is wrong with a config, a model folder, a tokenizer or data is said in one line, with its exit code, on one rank and on several."""

import json
import math
import struct
import sys

from job import DATA, IN_DATA, LIGHT, MODEL, NUMERIC, TOKENIZER, USAGE, check, main


def refused(case, code, *words, ranks=(0, 2), **keys):
    """The run is refused in one line with these words; nothing hangs. (Light: on one alone.)"""
    for n in ranks[:1] if LIGHT else ranks:
        case.start(n, **keys).expect_failure(code, *words)


# ---- Model folders.


def make_model(case):
    """A Hugging Face folder as the program itself exports it."""
    case.train(0, "made", train__steps=1, train__micro_batches=1, checkpoint__export=True)
    return case.folder / "made" / "model"


def read_weights(folder):
    blob = (folder / "model.safetensors").read_bytes()
    n = struct.unpack("<Q", blob[:8])[0]
    return json.loads(blob[8:8 + n]), blob[8 + n:]


def write_weights(folder, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def change_config(folder, **values):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config.update(values)
    path.write_text(json.dumps(config), encoding="utf-8")


def from_folder(folder, **keys):
    return {"model__config": None, "model__path": folder, **keys}


def sound_model_folder(case):
    """The control: what the cases below break is taken when it is whole."""
    folder = make_model(case)
    for ranks in (0, 2):
        case.train(ranks, f"run-{ranks}", train__steps=1, **from_folder(folder))
    check(case.digest("run-0") == case.digest("run-2"), "the weights differ between 1 and 2 ranks")


def weights_missing(case):
    folder = make_model(case)
    (folder / "model.safetensors").unlink()
    refused(case, IN_DATA, str(folder), "model.safetensors", **from_folder(folder, model__init="pretrained"))
    refused(case, USAGE, "model", model__config=None)
    refused(case, IN_DATA, "config.json", **from_folder(case.folder / "nowhere"))


def weights_truncated(case):
    folder = make_model(case)
    path = folder / "model.safetensors"
    blob = path.read_bytes()
    for size in (len(blob) - 1, 4, 0):
        path.write_bytes(blob[:size])
        refused(case, IN_DATA, "model.safetensors", **from_folder(folder))


def weights_of_another_shape(case):
    folder = make_model(case)
    change_config(folder, n_embd=96)
    refused(case, IN_DATA, "'transformer.wte.weight'", "[2048, 64]", "[2048, 96]", **from_folder(folder))


def weight_missing(case):
    folder = make_model(case)
    header, data = read_weights(folder)
    header["another"] = header.pop("transformer.h.1.mlp.c_fc.weight")
    write_weights(folder, header, data)
    refused(case, IN_DATA, "transformer.h.1.mlp.c_fc.weight", **from_folder(folder))


def nan_in_weights(case):
    folder = make_model(case)
    header, data = read_weights(folder)
    begin = header["transformer.h.0.ln_1.bias"]["data_offsets"][0]
    for value in (math.nan, math.inf):
        write_weights(folder, header, data[:begin] + struct.pack("<f", value) + data[begin + 4:])
        refused(case, IN_DATA, "transformer.h.0.ln_1.bias", **from_folder(folder))


def unknown_architecture(case):
    case.model.write_text(json.dumps({**MODEL, "architectures": ["BloomForCausalLM"], "model_type": "bloom"}), encoding="utf-8")
    refused(case, IN_DATA, str(case.model), "bloom", "gpt2")
    case.model.write_text('{"model_type": "gpt2",', encoding="utf-8")
    refused(case, IN_DATA, str(case.model))


# ---- Tokenizers.


def change_tokenizer(case, change):
    tokenizer = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    change(tokenizer)
    path = case.folder / "tokenizer.json"
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    return path


def tokenizer_of_unknown_kind(case):
    def change(tokenizer):
        tokenizer["model"]["type"] = "Quantum"

    refused(case, IN_DATA, "tokenizer.json", "Quantum", data__tokenizer=change_tokenizer(case, change))
    refused(case, IN_DATA, "nowhere", "tokenizer", data__tokenizer=case.folder / "nowhere")


def tokenizer_larger_than_the_model(case):
    def change(tokenizer):
        for i in range(3):
            tokenizer["added_tokens"].append({"id": 2048 + i, "content": f"<more-{i}>", "single_word": False, "lstrip": False, "rstrip": False,
                                              "normalized": False, "special": True})

    refused(case, IN_DATA, "tokenizer.json", "2051", "2048", data__tokenizer=change_tokenizer(case, change))


# ---- Data.


def bad_record(case):
    lines = (DATA / "plant_notes.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    lines[16] = '{"input": "no end'
    path = case.folder / "notes.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    keys = {"data__train": [str(path)], "data__placement": "packed", "train__steps": 1, "train__micro_batches": 2}
    refused(case, IN_DATA, "notes.jsonl:17:", **keys)
    for ranks in (0, 2):
        text = case.train(ranks, f"run-{ranks}", data__on_error="skip", data__cache=str(case.folder / f"cache-{ranks}"), **keys).stderr
        check("1 bad record" in text or "1 record" in text or "skipped 1" in text, f"the record that was skipped is not counted in: {text}")
        check("39 documents" in text, f"39 documents are left, but it says: {text}")


def bad_labels(case):
    """A label that only the validation data have, a column that is not there, weights for another number of labels."""
    def put(name, text):
        path = case.folder / name
        path.write_text(text, encoding="utf-8")
        return [str(path)]

    train = put("train.csv", "text,label\n" + "".join(f"to be or not to be {i},{'yes' if i % 2 else 'no'}\n" for i in range(20)))
    keys = {"data__task": "classification", "data__train": train, "data__placement": "packed", "train__steps": 1, "train__micro_batches": 2}
    valid = put("valid.jsonl", '{"text": "a", "label": "no"}\n{"text": "b", "label": "perhaps"}\n')
    refused(case, IN_DATA, "valid.jsonl:2: label 'perhaps'", "no, yes", data__valid=valid, **keys)
    refused(case, IN_DATA, "train.csv:1:", "'kind'", "text, label", **{**keys, "data__label_field": "kind"})
    refused(case, USAGE, "data.class_weights", "2 labels", **{**keys, "data__class_weights": ["1", "2", "3"]})
    refused(case, IN_DATA, "has no label", **{**keys, "data__train": put("notes.txt", "no label here")})


def no_data(case):
    empty = case.folder / "empty.txt"
    empty.write_text("", encoding="utf-8")
    refused(case, IN_DATA, "empty.txt", data__train=[str(empty)])
    refused(case, IN_DATA, "nowhere.txt", data__train=[str(case.folder / "nowhere.txt")])
    refused(case, USAGE, "data.train", data__train=None)


def data_shorter_than_a_step(case):
    case.text.write_text("To be, or not to be, that is the question.\n" * 4, encoding="utf-8")
    refused(case, IN_DATA, "train.micro_batches")


# ---- Configs.


def bad_configs(case):
    refused(case, USAGE, "optim.learning_rate", "did you mean 'optim.lr'", optim__learning_rate=1)
    refused(case, USAGE, "train.steps", train__steps="many")
    refused(case, USAGE, "run.dir", run__dir=None)
    refused(case, USAGE, "4 ranks", "train.micro_batches is 3", ranks=(4,), train__micro_batches=3, run__reduction="fast")
    refused(case, USAGE, "run.reduction: tree", "(3)", ranks=(3,), train__micro_batches=12)


def a_base_model_is_never_written_to(case):
    folder = make_model(case)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    link = case.folder / "link"
    link.symlink_to(folder)
    for name in (str(folder), f"{folder}/", str(link), f"{case.folder}/made/../made/model"):
        refused(case, USAGE, "run.dir", "model.path", **from_folder(folder, run__dir=name))
    check({path.name: path.read_bytes() for path in folder.iterdir()} == before, "the base model was written to")


def ranks_with_different_configs(case):
    wrapper = case.folder / "wrapper.sh"
    wrapper.write_text('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 1 ] && exec "$@" --set optim.lr=2e-3\nexec "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    case.start(2, before=[str(wrapper)]).expect_failure(USAGE, "differ in their config")
    wrapper.write_text('#!/bin/sh\n[ "$OMPI_COMM_WORLD_RANK" = 1 ] && exec "$@" --set optim.lrr=2e-3\nexec "$@"\n', encoding="utf-8")
    case.start(2, before=[str(wrapper)]).expect_failure(USAGE, "rank 1", "optim.lrr")


# ---- Numbers.


def loss_that_is_not_finite(case):
    keys = {"optim__lr": 1e30, "optim__schedule": "constant", "train__clip_norm": 0.0, "train__max_nonfinite_steps": 3, "train__steps": 20}
    for ranks in (0, 2):
        run = f"run-{ranks}"
        job = case.start(ranks, run, checkpoint__every=1, **keys)
        job.expect_failure(NUMERIC, "4 steps in a row", "train.max_nonfinite_steps is 3")
        rows = case.metrics(run, "step")
        check([row["loss"] for row in rows[-3:]] == [None] * 3, f"steps that are not finite should have no loss: {rows}")
        check(rows[-1]["skipped_steps"] == 3, f"skipped steps should be counted: {rows[-1]}")
        check(job.stderr.count("is skipped on all ranks") == 4, "every skipped step should be told once", job)


if __name__ == "__main__":
    sys.exit(main([sound_model_folder, weights_missing, weights_truncated, weights_of_another_shape, weight_missing, nan_in_weights, unknown_architecture,
                   tokenizer_of_unknown_kind, tokenizer_larger_than_the_model, bad_record, bad_labels, no_data, data_shorter_than_a_step, bad_configs,
                   a_base_model_is_never_written_to, ranks_with_different_configs, loss_that_is_not_finite]))
