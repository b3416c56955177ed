# test: tier=default timeout=240
"""What is forgotten: the loss on sets of data.probe, before, during and after training, on any number of ranks, resumed or not."""

import json
import random

from job import DATA, IN_DATA, LIGHT, OK, STOPPED, USAGE, Job, check, main

KEPT = ("name", "step", "probe_loss", "rise", "probe_tokens")


def probes(case, run="run"):
    return [tuple(row[key] for key in KEPT) for row in case.metrics(run, "probe")]


def sets(case):
    """The text that is trained on, whose loss falls, and digits, whose loss can only rise from where chance is."""
    digits = case.folder / "digits.txt"
    digits.write_text("".join(random.Random(1).choices("0123456789", k=20000)), encoding="utf-8")
    part = case.folder / "part.txt"
    part.write_bytes((DATA / "shakespeare_valid.txt").read_bytes()[:20000])
    return part, digits


def watched(case, run, part, digits, ranks=0, **keys):
    case.train(ranks, run, **{"data__valid": [str(part)], "data__probe": [str(part), f"base-2={digits}"], "train__eval_every": 3, **keys})


def is_the_loss_of_the_set(case):
    part, digits = sets(case)
    watched(case, "one", part, digits, log__tensorboard=True)
    lines = probes(case, "one")
    check([line[:2] for line in lines] == [(name, step) for step in (0, 3, 6, 8) for name in ("part", "base-2")], f"lines of {lines}")
    valid = {row["step"]: row["valid_loss"] for row in case.metrics("one", "eval")}
    for name, step, loss, rise, _ in lines:
        before = next(line[2] for line in lines if line[0] == name)
        check(abs(rise - (loss - before)) < 1e-12, f"{name}, step {step}: rise {rise}")
        if name == "part" and step > 0:
            check(abs(loss - valid[step]) < 1e-12, f"step {step}: probe {loss}, validation {valid[step]} of the same file")
    check(lines[-1][3] > 0.05 > 0 > lines[-2][3], f"expected digits to be forgotten and plays learned, got {lines[-2:]}")
    last = json.loads((case.folder / "one" / "evaluations" / "step-00000008" / "evaluation.json").read_text(encoding="utf-8"))
    check(abs(last["probes"][1]["rise"] - lines[-1][3]) < 1e-12 and last["probes"][0]["name"] == "part", f"evaluation.json: {last['probes']}")
    events = b"".join(path.read_bytes() for path in (case.folder / "one").glob("events.out.*"))
    check(b"probe/base-2" in events, "TensorBoard has no probe/base-2")
    job = Job(case.folder, 0, "report", "--format", "md", case.folder / "one")
    job.expect(OK)
    page = open(job.stdout.strip(), encoding="utf-8").read()
    row = next((line for line in page.splitlines() if line.startswith("| base-2 |")), "")
    numbers = [float(cell) for cell in row.split("|")[2:5]]
    check(len(numbers) == 3 and abs(numbers[2] - lines[-1][3]) < 1e-3 * abs(lines[-1][3]) + 1e-3, f"the report's row is {row!r}")


def same_on_two_ranks_and_resumed(case):
    part, digits = sets(case)
    watched(case, "one", part, digits)
    if not LIGHT:
        watched(case, "two", part, digits, ranks=2)
        check(probes(case, "two") == probes(case, "one"), "two ranks have other losses than one")
    watched(case, "parts", part, digits, code=STOPPED, train__stop_after=4)
    watched(case, "parts", part, digits)
    check(probes(case, "parts") == probes(case, "one"), f"resumed:\n{probes(case, 'parts')}\nat once:\n{probes(case, 'one')}")


def plain_text_beside_conversations(case):
    talk = case.folder / "talk.jsonl"
    talk.write_text("".join(json.dumps({"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"said {i}"}]})
                            + "\n" for i in range(300)), encoding="utf-8")
    template = case.folder / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}", encoding="utf-8")
    part, digits = sets(case)
    keys = {"data__train": [str(talk)], "data__records": "chat", "data__chat_template": str(template), "data__placement": "packed",
            "train__steps": 2, "train__micro_batches": 1}
    case.train(0, "talk", data__probe=[str(part), str(talk)], **keys)
    case.train(0, "text", data__probe=[str(part)], data__placement="packed", train__steps=1, train__micro_batches=1)
    before = {(row[0], row[1]): row[2] for row in probes(case, "talk")}
    check(before["part", 0] == probes(case, "text")[0][2] and ("talk", 2) in before, f"{before}, as text {probes(case, 'text')}")


def of_masked_and_paired_texts(case):
    lines = case.folder / "pairs.jsonl"
    lines.write_text("".join(json.dumps({"input": f"say {i}", "target": f"said {i}", "text": f"the {i}. word [MASK] is " * 3}) + "\n"
                             for i in range(200)), encoding="utf-8")
    bert = {"architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 64, "max_position_embeddings": 64, "vocab_size": 2000, "type_vocab_size": 2, "hidden_act": "gelu",
            "pad_token_id": 0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    t5 = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1,
          "num_decoder_layers": 1, "num_heads": 2, "vocab_size": 2048, "relative_attention_num_buckets": 8, "feed_forward_proj": "relu",
          "relative_attention_max_distance": 32, "decoder_start_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "dropout_rate": 0.0}
    for task, model, tokenizer in (("mlm", bert, "wordpiece2000"), ("seq2seq", t5, "bpe2048")):
        case.model.write_text(json.dumps(model), encoding="utf-8")
        case.train(0, task, data__task=task, data__train=[str(lines)], data__valid=[str(lines)], data__probe=[f"same={lines}"],
                   data__placement="packed", data__tokenizer=str(DATA / tokenizer), train__steps=2, train__micro_batches=1)
        valid, found = case.metrics(task, "eval")[-1]["valid_loss"], probes(case, task)
        check([row[1] for row in found] == [0, 2] and abs(found[-1][2] - valid) < 1e-12, f"{task}: {found}, validation {valid}")


def ends_training_or_warns(case):
    _, digits = sets(case)
    keys = {"data__probe": [str(digits)], "train__eval_every": 2, "train__max_forgetting": 0.01, "checkpoint__every": 2}
    job = case.train(0, "warned", **keys)
    check("more than train.max_forgetting 0.01" in job.stderr and case.last_step("warned") == 8, "no warning, or not all steps")
    job = case.train(0, "ended", train__on_forgetting="stop", **keys)
    step = case.last_step("ended")
    check(0 < step < 8 and (case.folder / "ended" / "done").exists(), f"ended at step {step}, expected earlier than 8, and as done")
    check("probe digits is above train.max_forgetting" in job.stderr, "the reason is not told", job)
    case.train(0, "ended", train__on_forgetting="stop", **keys)
    check(case.last_step("ended") == step, "the same command trained on")
    case.train(0, "ended", train__on_forgetting="stop", **{**keys, "train__max_forgetting": 100})
    check(case.last_step("ended") == 8, "with a higher limit it does not go on")


def bad_input_is_told_in_a_line(case):
    for words, code, keys in ((("two sets are called 'text'",), USAGE, {"data__probe": [str(case.text), "text=other.txt"]}),
                              (("needs a name",), USAGE, {"data__probe": ["texts/*.txt"]}),
                              (("has no path",), USAGE, {"data__probe": ["texts="]}),
                              (("data.probe is empty",), USAGE, {"train__max_forgetting": 1}),
                              (("sets no limit",), USAGE, {"data__probe": [str(case.text)], "train__on_forgetting": "stop"}),
                              (("nowhere.txt",), IN_DATA, {"data__probe": ["base=nowhere.txt"]})):
        case.start(0, **keys).expect_failure(code, *words)


if __name__ == "__main__":
    raise SystemExit(main([is_the_loss_of_the_set, same_on_two_ranks_and_resumed, of_masked_and_paired_texts, plain_text_beside_conversations,
                           ends_training_or_warns,
                           bad_input_is_told_in_a_line]))
