# test: tier=default timeout=200
"""What decoder-only models answer to prompts and in conversations: generated and scored alike on any number of ranks, in training and by
`espalier eval`; JSON; examples before prompts (eval.shots), and what is said when they do not fit; `espalier generate --chat`."""

import json
import math

from job import DATA, IN_DATA, LIGHT, OK, USAGE, Job, check, main

ROWS = [{"prompt": f"Letter {i}?", "response": json.dumps({"n": i % 3})} for i in range(40)]
ODD = [{"prompt": "a", "response": "{\"n\": 1"}]
TEMPLATE = str(DATA / "support_chat.jinja")


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def keys_of(case, **keys):
    return {"data__records": "prompts", "data__train": [str(write(case.folder / "train.jsonl", ROWS))], "data__valid": [str(write(case.folder / "valid.jsonl", ROWS[:18]))],
            "data__placement": "packed", "train__micro_batches": 2, "train__steps": 40, "optim__lr": 5e-3, "generate__temperature": 0, "generate__max_new_tokens": 12, **keys}


def evaluate(case, ranks, *words):
    out = case.folder / f"out-{ranks}"
    job = Job(case.folder, ranks, "eval", case.folder / f"config-{case.n_configs}.yaml", "--json", "--output", out, *words)
    job.expect(OK)
    return json.loads(job.stdout), [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()], job


def is_json(text):
    try:
        return isinstance(json.loads(text), (dict, list))
    except ValueError:
        return False


def keys_are(text, reference):
    return is_json(text) and isinstance(json.loads(text), dict) and json.loads(text).keys() == json.loads(reference).keys()


def check_scores(scores, lines):
    def share(test):
        return sum(map(test, lines)) / len(lines)

    for name, value in {"json_valid": share(lambda line: is_json(line["prediction"])), "exact_match": share(lambda line: line["prediction"] == line["reference"]),
                        "json_keys": share(lambda line: keys_are(line["prediction"], line["reference"])), "rougeL": share(lambda line: line["rougeL"])}.items():
        check(math.isclose(scores[name], value, abs_tol=1e-9), f"{name} is {scores[name]}, the predictions give {value}")


def answers_choose(case):
    """A model is rated by the share of its answers that are JSON; on any number of ranks the same texts, and the weights of a run that writes none."""
    counts = (1,) if LIGHT else (1, 2)
    keys = {"train__eval_every": 20, "checkpoint__every": 20, "checkpoint__keep_best": True}
    for n in counts:
        case.train(n, f"run-{n}", **keys_of(case, eval__best="json_valid", **keys))
    rows = [[{k: v for k, v in row.items() if k not in ("time", "eval_seconds")} for row in case.metrics(f"run-{n}", "eval")] for n in counts]
    check(all(found == rows[0] for found in rows), f"{rows}")
    found = [evaluate(case, n, "--model", case.folder / "run-1") for n in counts]
    check(all(f[:2] == found[0][:2] for f in found), f"{found}")
    scores, lines, _ = found[0]
    check(len(lines) == 18 and [line["reference"] for line in lines] == [row["response"] for row in ROWS[:18]], f"{lines}")
    check_scores(scores, lines)
    check(math.isclose(rows[0][-1]["json_valid"], scores["json_valid"]) and scores["json_valid"] > rows[0][0]["json_valid"], f"training should make JSON: {scores} {rows[0]}")
    if not LIGHT:
        case.train(1, "plain", **keys_of(case, **keys))
        check(case.digest("run-1") == case.digest("plain"), "generating changes the weights")


def json_is_judged(case):
    """Of references of which one is no JSON nothing is said of JSON, unless it is asked for."""
    case.train(0, **keys_of(case, train__steps=1, data__valid=[str(write(case.folder / "odd.jsonl", ROWS[:3] + ODD))]))
    scores, lines, _ = evaluate(case, 0)
    check("json_valid" not in scores and "rougeL" in scores and len(lines) == 4, f"{scores}")
    scores, lines, _ = evaluate(case, 0, "--set", "eval.best=json_keys")
    check_scores(scores, [line for line in lines if is_json(line["reference"]) or not is_json(line["prediction"])])


def examples_stand_before(case):
    """Examples are records that are not evaluated; those that do not fit are left out, and counted."""
    keys = keys_of(case, train__steps=1, data__valid=[str(write(case.folder / "few.jsonl", ROWS[:4]))], data__sequence_length=None)
    case.train(0, **keys)
    texts = []
    for words in ((), ("--set", "eval.shots=2"), ("--set", "eval.shots=2", "--set", "eval.shots_seed=7"), ("--set", "eval.shots=2", "--set", "eval.shots_between=|")):
        _, lines, job = evaluate(case, 0, *words)
        texts.append([line["prediction"] for line in lines])
        check(len(lines) == 4 and "fewer than" not in job.stderr, job.stderr)
    check(all(a != b for i, a in enumerate(texts) for b in texts[:i]), "examples change nothing")
    _, lines, job = evaluate(case, 0, "--set", "eval.shots=20")
    check("4 of 4 prompts have fewer than eval.shots (20) examples" in job.stderr and len(lines) == 4, job.stderr)
    words = ("eval", case.folder / f"config-{case.n_configs}.yaml", "--set")
    Job(case.folder, 0, *words, "eval.shots=37").expect_failure(IN_DATA, "eval.shots is 37", "36 texts that are not among those evaluated")
    Job(case.folder, 0, *words, "eval.shots=1", "--set", "data.records=text").expect_failure(USAGE, "eval.shots is 1", "prompts and chat")
    Job(case.folder, 0, *words, "generate.max_new_tokens=126").expect_failure(IN_DATA, "no prompt to generate for")
    job = Job(case.folder, 0, *words, "generate.max_new_tokens=126", "--set", "eval.generate=false")
    job.expect(OK)
    check("rouge" not in job.stdout, "nothing was to be generated")


def conversations_go_on(case):
    """The next turn of conversations, by the run's own template; of a finished one its last turn, which an evaluation finds, too."""
    talks = [{"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]} for row in ROWS]
    file = write(case.folder / "talks.jsonl", talks)
    case.train(0, **keys_of(case, data__records="chat", data__chat_template=TEMPLATE, data__train=[str(file)], data__valid=[str(write(case.folder / "last.jsonl", talks[:3]))]))
    scores, lines, _ = evaluate(case, 0)
    check_scores(scores, lines)
    check([line["input"] for line in lines] == [row["prompt"] for row in ROWS[:3]], f"{lines}")
    asked = ("generate", case.folder / "run", "--greedy", "--set", "generate.max_new_tokens=12")
    job = Job(case.folder, 0, *asked, "--conversations", case.folder / "last.jsonl")
    job.expect(OK)
    check(job.stdout == "".join(f"== {i + 1}: {line['prediction']}\n" for i, line in enumerate(lines)), f"{job.stdout} {lines}")
    job = Job(case.folder, 0, *asked, "--chat", "--prompt", ROWS[0]["prompt"])
    job.expect(OK)
    check(job.stdout == lines[0]["prediction"] + "\n", f"{job.stdout} {lines[0]}")
    Job(case.folder, 0, *asked, "--conversations", file, "--prompt", "x").expect_failure(USAGE, "--conversations", "one of them")
    bad = write(case.folder / "bad.jsonl", [{"messages": [{"role": "critic", "content": "x"}]}])
    Job(case.folder, 0, *asked, "--conversations", bad).expect_failure(IN_DATA, "prompt 1", "the roles are")


if __name__ == "__main__":
    raise SystemExit(main([answers_choose, json_is_judged, examples_stand_before, conversations_go_on]))
