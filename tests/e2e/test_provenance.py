# test: tier=default timeout=120
"""Where a model comes from: in the checkpoint, in the exported folder with its model card, and in the report."""

import json
import os
import shutil
import subprocess

from job import DATA, OK, Job, check, main


def base_of(case):
    """A model folder with a licence, made by a run."""
    case.train(0, "base", train__steps=1, checkpoint__export=True)
    folder = case.folder / "base" / "model"
    (folder / "README.md").write_text('---\ntags: [x]\nlicense: "cc-by-4.0"\n---\n# Base\nlicense: none of ours\n', encoding="utf-8")
    (folder / "LICENSE").write_text("Attribution.\n", encoding="utf-8")
    return folder


def trained(case, **keys):
    os.environ.update(SLURM_JOB_ID="4711", SLURM_JOB_PARTITION="short")
    try:
        case.train(0, "run", model__config=None, model__path=base_of(case), train__steps=2, checkpoint__export=True, run__seed=7,
                   data__probe=[f"same={case.text}", f"other={DATA / 'shakespeare_valid.txt'}"], **keys)
    finally:
        del os.environ["SLURM_JOB_ID"], os.environ["SLURM_JOB_PARTITION"]
    return case.folder / "run"


def stands_in_checkpoint_export_and_report(case):
    run = trained(case)
    about = json.loads((run / "model" / "espalier.json").read_text(encoding="utf-8"))["provenance"]
    files = {name: part["files"][0] for name, part in about["data"].items()}
    check(files["train"]["bytes"] == 60000 and files["train"] == files["probe same"], f"data: {files}")
    check(len(files["train"]["xxh3"]) == 16 and files["train"]["xxh3"] != files["probe other"]["xxh3"], f"hashes: {files}")
    check(about["base"]["licence"] == {"license": "cc-by-4.0", "file": "LICENSE"}, f"base: {about['base']}")
    check(about["job"]["SLURM_JOB_ID"] == "4711" and about["seeds"]["run"] == 7 and len(about["hosts"]) == 1, f"job, seeds, hosts: {about}")
    check({"espalier", "MPI", "HDF5", "kernels", "compiler"} <= set(about["libraries"]), f"libraries: {about['libraries']}")
    check("train" in about["command_line"] and about["started"].endswith("Z"), f"command, start: {about}")
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    head = card.split("---\n")[1]
    check('license: "cc-by-4.0"\n' in head and "pipeline_tag: text-generation\n" in head, f"front matter: {head}")
    for text in (files["train"]["xxh3"], "4711", "cc-by-4.0, file LICENSE", "probe other", "seed: 7"):
        check(text in card, f"the model card does not say {text!r}")
    job = Job(case.folder, 0, "report", "--format", "md", run)
    job.expect(OK)
    check(files["train"]["xxh3"] in open(job.stdout.strip(), encoding="utf-8").read(), "the report does not say what the data were")
    if shutil.which("h5dump"):
        index = next((run / "checkpoints").glob("step-*")) / "index.h5"
        text = subprocess.run(["h5dump", "-a", "/record.provenance", str(index)], capture_output=True, text=True, check=True).stdout
        check(files["train"]["xxh3"] in text and "4711" in text, f"h5dump: {text}")


def keeps_what_the_user_wrote(case):
    run, folder = trained(case), case.folder / "out"
    folder.mkdir()
    (folder / "README.md").write_text("mine\n", encoding="utf-8")
    job = Job(case.folder, 0, "export", run, folder)
    check("it stays as it is" in job.expect(OK), "not told", job)
    check((folder / "README.md").read_text(encoding="utf-8") == "mine\n", "the user's README.md was written over")
    (folder / "README.md").unlink()
    Job(case.folder, 0, "export", run, folder).expect(OK)
    first = (folder / "README.md").read_text(encoding="utf-8")
    job = Job(case.folder, 0, "export", run, folder)
    check("stays" not in job.expect(OK) and (folder / "README.md").read_text(encoding="utf-8") == first, "not the same card again", job)
    (folder / "README.md").write_text(first.replace("trained with", "made with"), encoding="utf-8")
    Job(case.folder, 0, "export", run, folder).expect(OK)
    check("made with" in (folder / "README.md").read_text(encoding="utf-8"), "a changed README.md was written over")


if __name__ == "__main__":
    raise SystemExit(main([stands_in_checkpoint_export_and_report, keeps_what_the_user_wrote]))
