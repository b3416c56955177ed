# test: tier=default timeout=240
"""The report of a run: what it says is what the run's files say, and a browser shows it, on a desk and on a phone, without a complaint."""

import html.parser
import json
import re
import shutil
import struct
import subprocess
import zlib

from job import IN_DATA, OK, USAGE, Job, Skipped, check, main

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EVALUATION = {
    "task": "classification", "step": 4, "examples": 1000, "scores": {"loss": 0.34512, "accuracy": 0.87}, "labels": ["bad", "good <b>"],
    "classes": [{"label": "bad", "precision": 0.8627, "recall": 0.88, "f1": 0.8713, "support": 500},
                {"label": "good <b>", "precision": 0.8776, "recall": 0.86, "f1": 0.8687, "support": 500}],
    "confusion": [[440, 60], [70, 430]], "calibration": [{"n": 1000, "confidence": 0.91, "accuracy": 0.87}],
    "threshold": {"label": "good <b>", "threshold": 0.37, "precision": 0.9, "recall": 0.81, "f1": 0.85, "reached": True},
    "mistakes": [{"text": "<script>alert(1)</script> & \"quoted\" | bar\nsecond line " + "unbreakable" * 30, "gold": "bad", "predicted": "good <b>",
                  "probability": 0.9971, "loss": 5.843}],
    "samples": [{"input": "Hello.", "reference": "Greets.", "prediction": "A greeting."}]}


class Page(html.parser.HTMLParser):
    """Cells of all tables, the points of all curves, and whatever would be fetched or run."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.curves, self.foreign, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.foreign += [f"{tag} {key}={value}" for key, value in attrs.items() if key in ("src", "href", "action") and value != "data:,"]
        self.foreign += [tag] if tag in ("script", "iframe", "object", "img") else []
        if tag == "polyline":
            self.curves.append([tuple(map(float, p.split(","))) for p in attrs["points"].split()])
        if tag in ("td", "th"):
            self.cells.append("")
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and tag == self.open[-1]:
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.cells[-1] += data


def run_of(case, name="run", **keys):
    case.train(0, name, train__steps=6, train__eval_every=2, data__valid=[str(case.text)], train__eval_batches=2, **keys)
    return case.folder / name


def evaluated(case, name="run"):
    folder = run_of(case, name)
    (folder / "evaluations" / "step-00000004").mkdir(parents=True)
    (folder / "evaluations" / "step-00000004" / "evaluation.json").write_text(json.dumps(EVALUATION), encoding="utf-8")
    return folder


def report(case, *arguments):
    job = Job(case.folder, 0, "report", *arguments)
    job.expect(OK)
    return open(job.stdout.strip(), encoding="utf-8").read()


def says_what_the_files_say(case):
    page = Page(report(case, evaluated(case)))
    check(not page.foreign, f"the page would fetch or run {page.foreign}")
    row = page.cells[page.cells.index("validation loss") + 1]
    expected = case.metrics("run", "eval")[-1]["valid_loss"]
    check(abs(float(row) - expected) <= 5e-4, f"validation loss {row}, in metrics.jsonl {expected}")
    check(page.cells[page.cells.index("state") + 1] == "done", "the state is not 'done'")
    for text in ("440", "60", "70", "430", "good <b>", "0.8776", "5.843", "A greeting."):
        check(text in page.cells, f"no cell says {text!r}")
    check(EVALUATION["mistakes"][0]["text"] in page.cells, "the worst mistake's text is not as it was")
    check(len(page.curves) >= 5, f"{len(page.curves)} curves")
    losses = [row["loss"] for row in case.metrics("run", "step")]
    heights = [y for _, y in page.curves[0]]
    check(len(heights) == len(losses), "the first curve is not the loss of each step")
    order = sorted(range(len(losses)), key=lambda i: losses[i])
    check(order == sorted(range(len(losses)), key=lambda i: -heights[i]), "the curve does not rise and fall with the loss")


def of_running_jobs_and_of_several(case):
    first, second = run_of(case, "first"), run_of(case, "second", optim__lr=1e-2)
    (first / "done").unlink()
    lines = (first / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (first / "metrics.jsonl").write_bytes(b"".join(lines[:-3]) + lines[-3][:20])  # as it stands while the next line is being written
    text = report(case, first, second, "--output", case.folder / "both.html")
    page = Page(text)
    check("running, or ended without a word" in page.cells and "done" in page.cells, "states of both runs")
    check("first, training" in text and "second, validation" in text, "the legend lacks a run")
    markdown = report(case, second, "--format", "md")
    check(re.search(r"^\| validation loss \| [\d.]+ \|$", markdown, re.M), "the Markdown has no row of the validation loss")


def refuses_what_is_no_run(case):
    (case.folder / "empty").mkdir()
    Job(case.folder, 0, "report", case.folder / "empty").expect_failure(IN_DATA, "empty", "run.dir")
    Job(case.folder, 0, "report", case.folder / "absent").expect_failure(IN_DATA, "absent")
    Job(case.folder, 0, "report", run_of(case), "--format", "pdf").expect_failure(USAGE, "pdf", "html or md")


# ---- In a browser.


def browse(case, page, width, *arguments):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise Skipped("no chromium is installed")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", "--user-data-dir=" + str(case.folder / "browser"),
               f"--window-size={width},1200", *arguments, f"file://{page}"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=90, errors="replace")
    check(out.returncode == 0, f"{browser} ended with {out.returncode}: {out.stderr[-500:]}")
    return out


def complaints(out):
    return [line for line in out.stderr.splitlines() if "CONSOLE" in line]


def pixels(path):
    """Width, height and rows of an RGB or RGBA PNG of 8 bits, filters undone."""
    data, at, stream = path.read_bytes(), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", body[:10])
        stream += body if kind == b"IDAT" else b""
        at += 12 + size
    raw, step, rows, above = zlib.decompress(stream), 4 if colour == 6 else 3, [], bytes(4 * width)
    for y in range(height):
        begin = y * (1 + step * width)
        row = unfiltered(raw[begin], bytearray(raw[begin + 1:begin + 1 + step * width]), above, step)
        rows.append(row)
        above = row
    return width, height, rows, step


def unfiltered(kind, row, above, step):
    for i in range(len(row)):
        left, up, corner = (row[i - step], above[i - step]) if i >= step else (0, 0), above[i], 0
        left, corner = left
        nearest = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
        row[i] = (row[i] + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return row


def stands_in_a_browser(case):
    evaluated(case)
    page = case.folder / "run" / "report.html"
    text = report(case, case.folder / "run")
    broken = case.folder / "broken.html"  # the checks below must see what they look for
    broken.write_text(text.replace("</body>", "<p style='width:2000px'>wide</p><script>console.error('planted')</script></body>"), encoding="utf-8")
    measured = "<script>document.title = 'wide ' + document.documentElement.scrollWidth</script></body>"
    for path in (page, broken):
        path.with_suffix(".measured.html").write_text(path.read_text(encoding="utf-8").replace("</body>", measured), encoding="utf-8")
    for width in (390, 1100):
        out = browse(case, page.with_suffix(".measured.html"), width, "--dump-dom")
        found = int(re.search(r"<title>wide (\d+)</title>", out.stdout).group(1))
        check(found <= max(width, 500) and not complaints(out), f"at {width} pixels: {found} wide, {complaints(out)}")
    out = browse(case, broken.with_suffix(".measured.html"), 390, "--dump-dom")
    check(complaints(out) and int(re.search(r"<title>wide (\d+)</title>", out.stdout).group(1)) > 1500, "planted faults were not seen")


def draws_its_curves(case):
    evaluated(case)
    report(case, case.folder / "run")
    browse(case, case.folder / "run" / "report.html", 800, "--screenshot=" + str(case.folder / "page.png"))
    width, _, rows, step = pixels(case.folder / "page.png")
    blue = sum(1 for row in rows for x in range(width) if row[step * x + 2] > 180 and row[step * x] < 90)
    check(width == 800 and blue > 500, f"{blue} pixels of the first curve's colour on a page {width} wide")


if __name__ == "__main__":
    raise SystemExit(main([says_what_the_files_say, of_running_jobs_and_of_several, refuses_what_is_no_run, stands_in_a_browser, draws_its_curves]))
