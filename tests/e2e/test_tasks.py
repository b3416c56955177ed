# test: tier=default timeout=360
"""Classification, masked LM and text to text as a user runs them: what an evaluation says is what its predictions say, on any number of ranks; the best
checkpoint, patience, and mistakes in labels; the recipes on their own data, and those for long reviews and dialogues on IMDB and DialogSum where
those are there (ESPL_SHARED_DATA)."""

import json
import math
import os
import pathlib
import shutil

from job import DATA, IN_DATA, LIGHT, OK, ROOT, USAGE, Job, Skipped, check, main

BERT = json.loads((ROOT / "configs/models/bert-quickstart/config.json").read_text(encoding="utf-8"))
SPEECHES = DATA / "speeches.jsonl"


def keys_of(case, **keys):
    case.model.write_text(json.dumps({**BERT, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128}), encoding="utf-8")
    return {"data__task": "classification", "data__train": [str(SPEECHES)], "data__tokenizer": str(DATA / "wordpiece2000"), "data__placement": "packed",
            "data__valid_fraction": 0.2, "data__sequence_length": 64, "train__micro_batch_tokens": 512, "train__micro_batches": 4, "train__steps": 8,
            "optim__lr": 2e-3, **keys}


def evaluate(case, run, ranks, *arguments):
    job = Job(case.folder, ranks, "eval", case.folder / f"config-{case.n_configs}.yaml", "--json", "--model", case.folder / run, *arguments)
    job.expect(OK)
    return json.loads(job.stdout)


def last_evaluation(case, run, step):
    folder = case.folder / run / "evaluations" / f"step-{step:08d}"
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8")), lines


def near(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-7)


def scores_are_those_of_the_predictions(case):
    case.train(0, **keys_of(case, train__eval_every=4))
    evaluation, lines = last_evaluation(case, "run", 8)
    texts = {row["text"]: row["label"] for row in map(json.loads, SPEECHES.read_text(encoding="utf-8").splitlines())}
    check(len(lines) > 40 and all(texts[line["text"]] == line["gold"] for line in lines), "texts or labels are not those of the file")
    check(len({line["document"] for line in lines}) == len(lines), "a document was predicted twice")
    right = [line["gold"] == line["predicted"] for line in lines]
    labels = evaluation["labels"]
    hits = sum(line["gold"] == line["predicted"] == labels[1] for line in lines)
    precision = hits / max(1, sum(line["predicted"] == labels[1] for line in lines))
    recall = hits / sum(line["gold"] == labels[1] for line in lines)
    loss = sum(-math.log(line["probabilities"][labels.index(line["gold"])]) for line in lines) / len(lines)
    found = evaluation["scores"]
    for name, value in {"accuracy": sum(right) / len(lines), "precision": precision, "recall": recall, "loss": loss}.items():
        check(near(found[name], value), f"{name} is {found[name]}, the predictions give {value}")
    row = case.metrics("run", "eval")[-1]
    check(near(row["accuracy"], found["accuracy"]) and near(row["f1"], found["f1"]) and near(row["valid_loss"], loss), f"metrics.jsonl says {row}")
    check(sum(map(sum, evaluation["confusion"])) == len(lines), "the confusion matrix does not count every text")
    worst = [line["loss"] for line in evaluation["mistakes"]]
    expected = sorted((line["loss"] for line, ok in zip(lines, right) if not ok), reverse=True)[:20]
    check(len(worst) == len(expected) > 0 and all(map(near, worst, expected)), "these are not the worst mistakes")


def ranks_agree(case):
    counts = (1, 2) if LIGHT else (1, 2, 4)
    for task, keys in {"classification": {}, "mlm": {"data__whole_words": True}}.items():
        for n in counts:
            case.train(n, f"{task}-{n}", **keys_of(case, data__task=task, train__steps=3, **keys))
        digests = {n: case.digest(f"{task}-{n}") for n in counts}
        check(len(set(digests.values())) == 1, f"{task}: {digests}")
        found = {n: evaluate(case, f"{task}-1", n) for n in counts}
        check(all(value == found[1] for value in found.values()), f"{task}: {found}")
    losses = [[row["loss"] for row in case.metrics(f"{task}-1", "step")] for task in ("classification", "mlm")]
    check(losses[0][0] < 1.5 < losses[1][0], f"the first losses {losses} are not those of two labels and of a vocabulary")


def pairs_of(case, **keys):
    case.model.write_text((ROOT / "configs/models/t5-quickstart/config.json").read_text(encoding="utf-8"), encoding="utf-8")
    return {"data__task": "seq2seq", "data__train": [str(SPEECHES)], "data__source_field": "text", "data__target_field": "label", "data__placement": "packed",
            "data__prefix": "who: ", "data__valid_fraction": 0.2, "data__sequence_length": 64, "train__micro_batch_tokens": 512, "train__micro_batches": 2,
            "train__steps": 12, "optim__lr": 3e-3, "generate__temperature": 0, "generate__max_new_tokens": 12, **keys}


def text_to_text(case):
    """A T5 on two ranks and on one; what it writes does not depend on them either, and its scores are those of what it has written."""
    keys = pairs_of(case)
    for n in (1, 2):
        case.train(n, f"run-{n}", **keys)
    check(case.digest("run-1") == case.digest("run-2"), "another number of ranks, other weights")
    found = {n: evaluate(case, "run-1", n, "--output", case.folder / f"out-{n}") for n in (1, 2)}
    lines = [(case.folder / f"out-{n}" / "predictions.jsonl").read_text(encoding="utf-8").splitlines() for n in (1, 2)]
    check(found[1] == found[2] and lines[0] == lines[1], f"{found}")
    rows = [json.loads(line) for line in lines[0]]
    texts = {row["text"]: row["label"] for row in map(json.loads, SPEECHES.read_text(encoding="utf-8").splitlines())}
    check(len(rows) > 40 and all(texts[row["input"]] == row["reference"] for row in rows), "inputs or references are not those of the file")
    check(near(found[1]["exact_match"], sum(row["prediction"] == row["reference"] for row in rows) / len(rows)), f"{found[1]}")
    check(near(found[1]["rougeL"], sum(row["rougeL"] for row in rows) / len(rows)), f"{found[1]}")


def scores_of_texts_choose(case):
    """A T5 is rated by what it writes: alike on any number of ranks, with the weights of a run that never generates, and as `espalier eval` has it."""
    keys = {"data__tokenizer": str(DATA / "wordpiece2000"), "data__sequence_length": 32, "train__micro_batch_tokens": 256, "train__micro_batches": 4, "optim__lr": 5e-3,
            "train__steps": 12, "train__eval_every": 4, "checkpoint__export": True, "checkpoint__every": 4, "checkpoint__keep_last": 1, "checkpoint__keep_best": True,
            "eval__generate_texts": 20, "generate__beams": 2, "generate__max_new_tokens": 6}
    counts = (1, 2) if LIGHT else (1, 2, 4)
    for n in counts:
        case.train(n, f"run-{n}", **pairs_of(case, eval__best="rougeL", **keys))
    case.train(1, "plain", **pairs_of(case, **keys))
    rows = {n: [{key: value for key, value in row.items() if key not in ("time", "eval_seconds")} for row in case.metrics(f"run-{n}", "eval")] for n in counts}
    check(all(found == rows[1] for found in rows.values()), f"{rows}")
    check(all(case.digest(f"run-{n}") == case.digest("plain") for n in counts), "generating changes the weights")
    scores = {row["step"]: row["rougeL"] for row in rows[1]}
    best = max(scores, key=lambda step: (scores[step], step))
    check(0 < scores[best] > scores[4] and case.metrics("plain", "eval")[0]["rougeL"] is None, f"training should make texts better: {scores}")
    check(all(set(case.checkpoints(f"run-{n}")) == {best, 12} for n in counts), f"kept {sorted(case.checkpoints('run-1'))}, the best step is {best}")
    manifest = json.loads((case.folder / "run-1" / "checkpoints" / f"step-{best:08d}" / "manifest.json").read_text(encoding="utf-8"))
    check(near(manifest["rating"], -scores[best]), f"the manifest rates {manifest['rating']}")
    check(near(evaluate(case, "run-1/model", 0)["rougeL"], scores[best]), "espalier eval finds another score")
    evaluation, lines = last_evaluation(case, "run-2", 12)
    check(len(lines) == 20 and len(evaluation["samples"]) == 10 and near(evaluation["scores"]["rougeL"], scores[12]), f"{evaluation['scores']}")
    Job(case.folder, 0, "report", case.folder / "run-1", "--format", "md", "--output", case.folder / "report.md").expect(OK)
    report = (case.folder / "report.md").read_text(encoding="utf-8")
    check(f"{scores[12]:.4g}"[:5] in report and "ROUGE-L" in report, report)


def a_score_of_texts_needs_texts(case):
    case.start(0, **keys_of(case, eval__best="rougeL")).expect_failure(USAGE, "eval.best", "rougeL", "seq2seq", "classification")
    case.start(0, **keys_of(case, data__task="mlm", eval__best="f1")).expect_failure(USAGE, "eval.best", "f1", "mlm")
    case.start(0, **pairs_of(case, eval__best="accuracy")).expect_failure(USAGE, "eval.best", "accuracy", "seq2seq", "rougeL")
    case.start(0, **pairs_of(case, eval__best="chrf", eval__generate=False)).expect_failure(USAGE, "chrf", "eval.generate")


def a_pause_changes_nothing(case):
    keys = keys_of(case, train__steps=6, train__eval_every=2, eval__best="f1")
    case.train(1, "whole", **keys)
    case.train(2, "pieces", code=75, train__stop_after=3, **keys)
    case.train(1, "pieces", **keys)
    check(case.digest("whole") == case.digest("pieces"), "a run in two pieces ends elsewhere")


def patience_ends_a_run(case):
    keys = keys_of(case, train__steps=40, train__eval_every=2, eval__best="accuracy", eval__patience=2, optim__lr=0, checkpoint__every=2, checkpoint__keep_best=True,
                   checkpoint__export=True)
    case.train(0, **keys)
    check(case.last_step() == 6 and (case.folder / "run" / "done").exists(), f"with a rate of 0 the run should end at step 6, not {case.last_step()}")
    job = case.train(0, **keys)
    check(case.last_step() == 6, "a run that patience has ended goes on")
    job.expect(OK, "eval.patience")


def the_best_is_exported(case):
    case.train(0, **keys_of(case, train__steps=8, train__eval_every=1, eval__best="loss", checkpoint__every=1, checkpoint__keep_last=1, checkpoint__keep_best=True,
                            checkpoint__export=True, optim__lr=5e-2))
    losses = {row["step"]: row["valid_loss"] for row in case.metrics("run", "eval")}
    best = min(losses, key=lambda step: (losses[step], -step))
    check(best < 8, f"the rate is so high that the last step should not be the best: {losses}")
    check(set(case.checkpoints()) == {best, 8}, f"kept {sorted(case.checkpoints())}, the best step is {best}")
    kept = sorted(path.name for path in (case.folder / "run" / "evaluations").iterdir())
    check(kept == [f"step-{step:08d}" for step in (best, 8)], f"evaluations of {kept} are kept, the best step is {best}")
    shown = last_evaluation(case, "run", best)[0]["scores"]["loss"]
    check(math.isclose(shown, losses[best], rel_tol=1e-6), f"the evaluation that is kept has a loss of {shown}, step {best} had {losses[best]}")
    found = evaluate(case, "run/model", 0)["loss"]
    check(math.isclose(found, losses[best], rel_tol=1e-6), f"model/ has a loss of {found}, step {best} had {losses[best]}")


def labels_are_checked(case):
    valid = case.folder / "valid.jsonl"
    valid.write_text('{"text": "a", "label": "GLOUCESTER"}\n{"text": "b", "label": "HAMLET"}\n', encoding="utf-8")
    keys = keys_of(case, data__valid_fraction=None)
    case.start(0, **{**keys, "data__valid": [str(valid)]}).expect_failure(IN_DATA, "valid.jsonl:2", "HAMLET", "GLOUCESTER")
    case.start(0, **keys_of(case, eval__positive="HAMLET")).expect_failure(USAGE, "eval.positive", "HAMLET", "GLOUCESTER")
    case.train(0, "other", **keys_of(case, train__steps=1))
    lm = case.config("lm", data__valid=[str(case.text)], data__tokenizer=str(DATA / "wordpiece2000"))
    Job(case.folder, 0, "eval", lm, "--model", case.folder / "other").expect_failure(USAGE, "data.task", "BertForSequenceClassification")
    shutil.rmtree(case.folder / "other")


def another_tokenizer_is_seen(case):
    case.train(0, **keys_of(case, train__steps=1, checkpoint__export=True))
    other = case.folder / "tokenizer.json"
    vocabulary = json.loads((DATA / "wordpiece2000" / "tokenizer.json").read_text(encoding="utf-8"))
    words = vocabulary["model"]["vocab"]
    words["king"], words["queen"] = words["queen"], words["king"]
    other.write_text(json.dumps(vocabulary), encoding="utf-8")
    for tokenizer, warned in ((DATA / "wordpiece2000", False), (None, False), (other, True)):
        keys = keys_of(case, data__tokenizer=tokenizer, model__config=None, model__path=case.folder / "run" / "model", train__steps=1)
        job = case.train(0, f"next-{warned}-{tokenizer is None}", **keys)
        check(("is not the tokenizer of the pretrained model" in job.stderr) == warned, f"{tokenizer}", job)


# ---- Recipes, from their files.


def recipe_job(case, name, *sets):
    """Trains by configs/NAME.yaml as it stands, but for `sets`; what it writes lies under the case's folder."""
    link = case.folder / "configs"
    if not link.exists():
        link.symlink_to(ROOT / "configs")
    words = [word for text in ("run.threads=1", "log.progress=lines", *(["train.steps=2", "eval.generate_texts=4"] if LIGHT else []), *sets) for word in ("--set", text)]
    return Job(case.folder, 0, "train", f"configs/{name}.yaml", *words)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]  # within reviews there are separators that splitlines knows


def recipe_result(case, name):
    folder = max((case.folder / "runs" / name.replace("_", "-") / "evaluations").iterdir())
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8")), rows_of(folder / "predictions.jsonl")


def no_classifier(evaluation):
    """Whether the ROC area is within three standard errors of what scores give that know nothing (of the rank sum: Mann and Whitney 1947)."""
    negatives, positives = map(sum, evaluation["confusion"])
    return evaluation["scores"]["roc_auc"] < 0.5 + 3 * math.sqrt((negatives + positives + 1) / (12 * negatives * positives))


def no_summaries(lines):
    """Whether no more summaries are the reference's than one text for all dialogues, the commonest reference, could be (three standard errors)."""
    texts = [line["reference"] for line in lines]
    share = max(map(texts.count, texts)) / len(texts)
    return sum(line["prediction"] == line["reference"] for line in lines) / len(lines) < share + 3 * math.sqrt(share * (1 - share) / len(lines))


SHORTER = {"t5_dialogsum": ["train.epochs=11"], "imdb_long_reviews": ["train.epochs=8"]}  # enough to see that they learn
CLASSIFIERS = ("distilbert_sentiment", "imdb_long_reviews", "spam_filter", "screening", "sentence_pairs")


def recipes_learn(case):
    for pair in (("t5_dialogsum", "imdb_long_reviews"), ("distilbert_sentiment", "sentence_pairs"), ("spam_filter", "screening")):
        for job in [recipe_job(case, name, *SHORTER.get(name, [])) for name in pair]:
            job.expect(OK)
    found = {name: recipe_result(case, name)[0] for name in CLASSIFIERS}
    summaries = recipe_result(case, "t5_dialogsum")[1]
    for name, goal in {"spam_filter": "precision", "screening": "recall"}.items():
        threshold = found[name]["threshold"]
        check(threshold["label"] in ("spam", "include") and (not threshold["reached"] or threshold[goal] >= 0.95), f"{name}: {threshold}")
    job = Job(case.folder, 0, "eval", "configs/spam_filter.yaml", "--model", "runs/spam-filter/model", "--output", case.folder / "out")
    job.expect(OK)
    threshold = json.loads((case.folder / "out" / "evaluation.json").read_text(encoding="utf-8"))["threshold"]
    check(f"threshold {threshold['threshold']:.6f} of spam: precision {threshold['precision']:.6f}" in job.stdout, job.stdout)
    chosen = ["--set", "eval.threshold=fixed", "--set", f"eval.threshold_value={threshold['threshold']!r}"]
    job = Job(case.folder, 0, "eval", "configs/spam_filter.yaml", "--model", "runs/spam-filter/model", "--json", *chosen)
    job.expect(OK)
    check(json.loads(job.stdout)["threshold"] == {**threshold, "reached": True}, f"the threshold that was chosen, judged by itself: {job.stdout}, {threshold}")
    if not LIGHT:
        check(not any(map(no_classifier, found.values())), f"{ {name: (e['scores'], e['confusion']) for name, e in found.items()} }")
        check(found["spam_filter"]["threshold"]["reached"] and found["screening"]["threshold"]["reached"], "a threshold is not what was asked for")
        check(not no_summaries(summaries), f"{[line['prediction'] for line in summaries]}")


def recipes_that_do_not_learn_are_seen(case):
    """The control: with a rate of 0 the checks above must fail."""
    names = ("screening", "t5_dialogsum")
    for job in [recipe_job(case, name, "optim.lr=0", "train.steps=2", "checkpoint.export=false") for name in names]:
        job.expect(OK)
    check(no_classifier(recipe_result(case, names[0])[0]) and no_summaries(recipe_result(case, names[1])[1]), "a run that changes nothing passes for one that learns")


def shared_data(name):
    folder = pathlib.Path(os.environ.get("ESPL_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / name).exists():
        raise Skipped(f"{folder / name} is not there (ESPL_SHARED_DATA)")
    return folder


def imdb_at_512_tokens(case):
    folder = shared_data("imdb")
    model = json.loads((ROOT / "configs/models/distilbert-quickstart/config.json").read_text(encoding="utf-8"))
    case.model.write_text(json.dumps({**model, "vocab_size": 30522}), encoding="utf-8")
    job = recipe_job(case, "imdb_long_reviews", f"model.config={case.model}", f"data.tokenizer={folder / 'tokenizers/bert-base-uncased'}",
                     f"data.train={folder / 'imdb/q2000_train.jsonl'}", f"data.valid={folder / 'imdb/q1000_test.jsonl'}", "data.valid_fraction=0",
                     f"train.steps={1 if LIGHT else 4}", "train.micro_batch_tokens=4096", f"train.eval_batches={1 if LIGHT else 6}")
    job.expect(OK, "258 of 2000 texts were too long and cut", "training data: 2000 texts of 2 labels: 0 1000, 1 1000", "1000 texts of 2 labels: 0 500, 1 500")
    evaluation, lines = recipe_result(case, "imdb_long_reviews")
    labels = {row["text"]: str(row["label"]) for row in rows_of(folder / "imdb/q1000_test.jsonl")}
    check(len(lines) >= 8 and all(labels[line["text"]] == line["gold"] for line in lines), "texts or labels are not those of the file")
    check(near(evaluation["scores"]["accuracy"], sum(line["gold"] == line["predicted"] for line in lines) / len(lines)), f"{evaluation['scores']}")


def dialogsum_end_to_end(case):
    folder = shared_data("dialogsum")
    sets = ("data.source_field=prompt", "data.target_field=response", f"data.train={folder / 'dialogsum/dev.jsonl'}", f"data.valid={folder / 'dialogsum/test.jsonl'}",
            "data.valid_fraction=0", f"train.steps={1 if LIGHT else 8}", "train.micro_batch_tokens=2048", "train.eval_batches=1", "eval.best=loss", "eval.generate_texts=10",
            "generate.max_new_tokens=40")
    recipe_job(case, "t5_dialogsum", *sets).expect(OK)
    losses = [row["loss"] for row in case.metrics("runs/t5-dialogsum", "step")]
    check(LIGHT or losses[-1] < losses[0], f"the loss does not fall: {losses}")
    words = [word for text in sets for word in ("--set", text)]
    found = []
    for n in (1, 2):
        job = Job(case.folder, n, "eval", "configs/t5_dialogsum.yaml", *words, "--json", "--output", case.folder / f"out-{n}")
        job.expect(OK)
        found.append((json.loads(job.stdout), rows_of(case.folder / f"out-{n}" / "predictions.jsonl")))
    check(found[0] == found[1], f"another number of ranks, other summaries: {found}")
    rows = {row["prompt"]: row["response"] for row in rows_of(folder / "dialogsum/test.jsonl")}
    check(len(found[0][1]) == 10 and all(rows[line["input"]] == line["reference"] for line in found[0][1]), "dialogues or references are not those of the file")
    check(near(found[0][0]["rougeL"], sum(line["rougeL"] for line in found[0][1]) / 10), f"{found[0][0]}")


if __name__ == "__main__":
    raise SystemExit(main([scores_are_those_of_the_predictions, ranks_agree, text_to_text, scores_of_texts_choose, a_score_of_texts_needs_texts, a_pause_changes_nothing,
                           patience_ends_a_run, the_best_is_exported, labels_are_checked, another_tokenizer_is_seen, recipes_learn, recipes_that_do_not_learn_are_seen, imdb_at_512_tokens,
                           dialogsum_end_to_end]))
