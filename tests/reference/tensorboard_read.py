"""Reads a run's TensorBoard events with TensorBoard's own reader and compares them with its metrics.jsonl.

    python tests/reference/tensorboard_read.py RUN_DIR

Every number that metrics.jsonl has must be there once, under the tag that src/train/log/metrics.def gives it, at its step, as the nearest
float; and nothing else, also when the run was resumed from a step before its last.
"""
import json
import pathlib
import re
import struct
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROW = re.compile(r'^(?:STEP|EVAL)_METRIC\((\w+), \w+, "([^"]+)",\s+"([^"]*)"\)$', re.M)


def as_float(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def expected(run, tags):
    rows = {tag: {} for tag, _ in tags.values()}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        for name, (tag, _) in tags.items():
            if record["event"] in ("step", "eval") and record.get(name) is not None:
                assert record["step"] not in rows[tag], f"{name}: step {record['step']} twice in metrics.jsonl"
                rows[tag][record["step"]] = as_float(record[name])
    return {tag: values for tag, values in rows.items() if values}


def main():
    run = pathlib.Path(sys.argv[1])
    table = pathlib.Path(__file__).parents[2] / "src/train/log/metrics.def"
    tags = {name: (tag, text) for name, tag, text in ROW.findall(table.read_text())}
    assert len(tags) >= 15, f"{table}: {len(tags)} rows with a tag"
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    found = {}
    for tag in events.Tags()["tensors"]:
        rows = [(e.step, e.tensor_proto.float_val[0]) for e in events.Tensors(tag)]
        assert len(rows) == len({step for step, _ in rows}), f"{tag}: a step is there twice"
        found[tag] = dict(rows)
    for tag in events.Tags()["scalars"]:
        found[tag] = {e.step: e.value for e in events.Scalars(tag)}
    want = expected(run, tags)
    assert found == want, f"tags {sorted(found)} and {sorted(want)}; differing: {[t for t in want if found.get(t) != want[t]]}"
    for tag, text in tags.values():
        if tag in events.Tags()["tensors"]:
            assert events.SummaryMetadata(tag).summary_description == text, f"{tag}: description"
    print(f"{run}: {len(found)} tags, {sum(map(len, found.values()))} values, all as in metrics.jsonl")


if __name__ == "__main__":
    main()
