"""What the program says of summaries that it has written, beside rouge-score and sacrebleu on the file that they stand in. A T5 learns from
dialogues for some steps, `espalier eval` writes summaries and scores: those of every line and of the whole must agree to 1e-12. The
dialogues are the recipe's own, and DialogSum's where that is there (ESPL_SHARED_DATA)."""
import json
import os
import pathlib
import sys
import tempfile

import sacrebleu
from rouge_score import rouge_scorer

from parity_tools import ROOT, arguments, check, espalier, finish

RECIPE = ROOT / "configs/t5_dialogsum.yaml"
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
BOUND = 1e-12  # relative to 1, the best score (BLEU and chrF: to 100)


def jobs():
    """Name and settings of each run: what to train on, what to write summaries of."""
    data = ROOT / "configs/data"
    yield "the recipe's dialogues", [f"data.train={data / 'dialogues.jsonl'}", "train.steps=80"]
    shared = pathlib.Path(os.environ.get("ESPL_SHARED_DATA") or ROOT.parent / "shared/data", "dialogsum")
    if not shared.exists():
        print(f"{shared} is not there (ESPL_SHARED_DATA): left out")
        return
    yield "DialogSum", ["data.source_field=prompt", "data.target_field=response", f"data.train={shared / 'dev.jsonl'}", f"data.valid={shared / 'test.jsonl'}",
                        "data.valid_fraction=0", "train.steps=60", "train.eval_batches=1", "eval.generate_texts=48",
                        "generate.max_new_tokens=50"]


def write_summaries(args, folder, settings, stemmer):
    """(scores, lines) of `espalier eval` of a model that is trained here where it is not there yet."""
    sets = [f"run.dir={folder / 'run'}", f"model.config={ROOT / 'configs/models/t5-quickstart/config.json'}", f"data.tokenizer={ROOT / 'configs/data/bpe2048'}",
            "run.threads=1", "train.eval_every=0", "eval.best=loss", *settings]
    words = [word for text in sets for word in ("--set", text)]
    if not (folder / "run").exists():
        espalier(args, "train", RECIPE, *words, seconds=300)
    out = folder / f"stemmer-{stemmer}"
    scores = json.loads(espalier(args, "eval", RECIPE, *words, "--set", f"eval.stemmer={stemmer}", "--json", "--output", out, seconds=300))
    return scores, [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


def reference_scores(lines, stemmer):
    """Of each line, and of the whole."""
    scorer = rouge_scorer.RougeScorer(ROUGE, use_stemmer=stemmer == "true")
    each = [{name: score.fmeasure for name, score in scorer.score(line["reference"], line["prediction"]).items()} for line in lines]
    whole = {name: sum(row[name] for row in each) / len(each) for name in ROUGE}
    predictions, references = [[line[key] for line in lines] for key in ("prediction", "reference")]
    whole["exact_match"] = sum(a == b for a, b in zip(predictions, references)) / len(lines)
    whole["bleu"] = sacrebleu.corpus_bleu(predictions, [references]).score
    whole["chrf"] = sacrebleu.corpus_chrf(predictions, [references]).score
    return each, whole


def distances(found, expected):
    return {name: abs(found[name] - value) / (100 if name in ("bleu", "chrf") else 1) for name, value in expected.items()}


def compare(name, stemmer, scores, lines):
    each, whole = reference_scores(lines, stemmer)
    worst = max(max(distances(line, row).values()) for line, row in zip(lines, each))
    far = distances(scores, whole)
    print(f"    {name}, stemmer {stemmer}, {len(lines)} summaries: " + ", ".join(f"{key} {scores[key]:.4f}" for key in whole))
    check(len(lines) > 40 and len({line["prediction"] for line in lines}) > 5, f"{name}: {len(lines)} summaries, not all the same")
    check(worst <= BOUND and max(far.values()) <= BOUND, f"{name}, stemmer {stemmer}: a line is off by {worst:.1e} at most, the whole by {max(far.values()):.1e}")
    best = max(range(len(lines)), key=lambda i: each[i]["rouge1"])
    changed = [{**line, "prediction": line["prediction"].split(" ", 1)[-1]} if i == best else line for i, line in enumerate(lines)]
    off = distances(scores, reference_scores(changed, stemmer)[1])
    check(all(off[key] > BOUND for key in ("rouge1", "rougeL", "bleu", "chrf")), f"{name}: a word less in one summary is seen ({off['rouge1']:.1e})")


def main():
    args = arguments(__doc__)
    for name, settings in jobs():
        with tempfile.TemporaryDirectory() as folder:
            for stemmer in ("false", "true"):
                compare(name, stemmer, *write_summaries(args, pathlib.Path(folder), settings, stemmer))
    return finish()


if __name__ == "__main__":
    sys.exit(main())
