"""Text and class scores as rouge-score, sacrebleu and scikit-learn compute them, for tests/unit/test_scores.c.

    python tests/reference/scores_parity.py --golden tests/goldens/scores.json      writes the small file that is kept
    python tests/reference/scores_parity.py build/release/tests/test_scores         a larger one, checked at once by that program
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import numpy
import sacrebleu
import sklearn
import sklearn.metrics
from rouge_score import rouge_scorer

TEXT = pathlib.Path(__file__).parents[2] / "configs/data"
HOSTILE = ("", " ", "\n", "...", "a", "The the THE", "don't <skipped> stop- \nping &quot;now&quot; &amp;lt; 3.5,6 1-2 -", "naïve café \u212a\u0130 ﬁ",
           "日本語 の 文章。", "x" * 300, "a\u2003b\u00a0c\u001cd", "line one\nline two\n\nline four\n", "1,000.5% (of) [them] {all}/\\|~`^_", "🙂🙂 🙂")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def paragraphs():
    texts = "\n\n".join(path.read_text() for path in sorted(TEXT.rglob("*.txt"))[:3])
    return [p.strip() for p in texts.split("\n\n") if 60 < len(p) < 600]


def garble(rng, text):
    """What a model might have written: words dropped, doubled, moved, cut, in other cases, lines broken elsewhere."""
    words = text.replace("\n", " \n ").split(" ")
    out = []
    for word in words:
        kind = rng.random()
        if kind < 0.1:
            continue
        out.append(word + rng.choice(["ing", "ed", "ly", "s"]) if kind < 0.15 else word.upper() if kind < 0.18 else word)
        if kind > 0.97:
            out.append(word)
    if rng.random() < 0.3:
        cut = rng.randrange(1, len(out) + 1)
        out = out[cut:] + out[:cut]
    return " ".join(out[: rng.randrange(1, len(out) + 1)]).replace(" \n ", "\n")


def pairs(rng, n):
    texts = paragraphs()
    made = [(a, b) for a in HOSTILE for b in (rng.choice(HOSTILE), a)]
    return made + [(text, garble(rng, text)) for text in (rng.choice(texts) for _ in range(n))]


def text_row(reference, prediction):
    row = {"reference": reference, "prediction": prediction}
    for key, stem in (("plain", False), ("stemmed", True)):
        scores = rouge_scorer.RougeScorer(ROUGE, use_stemmer=stem).score(reference, prediction)
        row[key] = [float(value) for name in ROUGE for value in scores[name]]
    return row


def corpus_row(rows, begin, end):
    predictions, references = [[row[key] for row in rows[begin:end]] for key in ("prediction", "reference")]
    return {"begin": begin, "end": end, "bleu": sacrebleu.corpus_bleu(predictions, [references]).score,
            "chrf": sacrebleu.corpus_chrf(predictions, [references]).score}


def class_row(rng, classes, n, skill, used):
    gold = [rng.randrange(used) for _ in range(n)]
    logits = numpy.array([[rng.gauss(0, 1) + skill * (k == g) for k in range(classes)] for g in gold])
    probabilities = numpy.exp(logits) / numpy.exp(logits).sum(1, keepdims=True)
    probabilities = numpy.round(probabilities, 2 if n % 2 else 7).astype(numpy.float32)
    predicted = probabilities.argmax(1).tolist()
    row = {"classes": classes, "gold": gold, "predicted": predicted, "probabilities": [float(p) for p in probabilities.ravel()],
           "accuracy": sklearn.metrics.accuracy_score(gold, predicted), "matthews": sklearn.metrics.matthews_corrcoef(gold, predicted)}
    for mean in ("macro", "micro", "weighted"):
        scores = sklearn.metrics.precision_recall_fscore_support(gold, predicted, average=mean, zero_division=0)
        row[mean] = [float(value) for value in scores[:3]]
    scores = sklearn.metrics.precision_recall_fscore_support(gold, predicted, labels=list(range(classes)), zero_division=0)
    row["each"] = [[float(value) for value in column] for column in zip(*scores)]
    row["areas"] = [float(sklearn.metrics.roc_auc_score([g == k for g in gold], probabilities[:, k])) if len({g == k for g in gold}) == 2 else None
                    for k in range(classes)]
    return row


def goldens(seed, n_texts, n_examples):
    rng = random.Random(seed)
    texts = [text_row(*pair) for pair in pairs(rng, n_texts)]
    corpora = [corpus_row(texts, *span) for span in ((0, len(texts)), (len(HOSTILE) * 2, len(texts)), (0, 2), (8, 12), (len(texts) - 1, len(texts)))]
    classes = [class_row(rng, *shape) for shape in ((2, n_examples, 1.0, 2), (2, 11, 0.0, 2), (5, n_examples + 1, 2.0, 4), (3, 8, 9.0, 3), (2, 5, 0.0, 1))]
    return {"made_with": f"rouge-score, sacrebleu {sacrebleu.__version__}, scikit-learn {sklearn.__version__}", "texts": texts, "corpora": corpora,
            "classes": classes}


def main():
    if sys.argv[1] == "--golden":
        pathlib.Path(sys.argv[2]).write_text(json.dumps(goldens(1, 12, 40), indent=0, ensure_ascii=True) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "scores.json")
        path.write_text(json.dumps(goldens(2, 600, 5000)))
        subprocess.run([sys.argv[1], path], check=True, timeout=120)


if __name__ == "__main__":
    main()
