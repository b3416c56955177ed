# test: tier=default timeout=240
"""A sweep: every combination of listed values is a run; stopped and started again it goes on; one table says which is best."""

import csv
import os
import shutil
import signal
import subprocess

import job as e2e
from job import DATA, LIGHT, MPIRUN, NUMERIC, OK, ROOT, STOPPED, USAGE, Job, check, main

AXES = {"optim.lr": ["1e-3", "3e-3"], "data.train": ["[text.txt]", '["text.txt", text.txt]']}


def sweep_of(case, axes, **keys):
    """A config with the section `sweep:`; values are YAML as they stand."""
    path = case.config("sweep", **{"train__steps": 3, "train__micro_batches": 2, "data__valid": [str(DATA / "shakespeare_valid.txt")],
                                   "train__eval_batches": 2, **keys})
    with path.open("a", encoding="utf-8") as out:
        out.write("sweep:\n" + "".join(f"  {key}: [{', '.join(values)}]\n" for key, values in axes.items()))
    return path


def rows_of(case):
    with (case.folder / "sweep" / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def runs_of(case):
    return sorted(path.parent.name for path in (case.folder / "sweep").glob("*/metrics.jsonl"))


def every_combination_is_a_run(case):
    path = sweep_of(case, AXES)
    job = Job(case.folder, 0, "sweep", path)
    job.expect(OK, "run 1 of 4", "run 4 of 4")
    rows = rows_of(case)
    check(len(rows) == 4 == len({row["run"] for row in rows}), f"rows {rows}")
    scores = [float(row["best_valid_loss"]) for row in rows]
    check(scores == sorted(scores) and scores[0] < scores[-1] and all(row["state"] == "done" and row["steps"] == "3" for row in rows), f"{rows}")
    for row in rows:
        lines = case.metrics("sweep/" + row["run"])
        found = [line["valid_loss"] for line in lines if line["event"] == "eval"][-1]
        check(abs(found - float(row["last_valid_loss"])) < 1e-6, f"{row['run']}: {row['last_valid_loss']}, metrics.jsonl {found}")
        resolved = (case.folder / "sweep" / row["run"] / "config.yaml").read_text(encoding="utf-8")
        check(f"lr: {float(row['optim.lr']):g}" in resolved and ("lr=" + row["optim.lr"]) in row["run"], f"{row['run']}: {resolved}")
        check(resolved.count('"text.txt"') == (2 if "," in row["data.train"] else 1), f"data.train of {row['run']}")
    check(rows[0]["run"] in job.stdout and "best valid_loss" in job.stdout, "the table is not on stdout", job)
    check("<svg" in (case.folder / "sweep" / "sweep.html").read_text(encoding="utf-8"), "no picture")
    job = Job(case.folder, 0, "sweep", path)
    check("run 1 of 4" not in job.expect(OK) and rows_of(case) == rows, "finished runs were run again", job)
    check("other settings" in Job(case.folder, 0, "sweep", path, "--set", "train.clip_norm=2").expect(OK), "other settings are not told")


def goes_on_where_it_stopped(case):
    path = sweep_of(case, {"run.seed": ["1", "2"]}, train__steps=400, checkpoint__background=False, train__eval_batches=1)
    job = Job(case.folder, 0, "sweep", path, *([] if LIGHT else ["--launch", " ".join(MPIRUN + ["-n", "2"])]))
    job.wait_for("three steps", lambda: runs_of(case) and case.last_step("sweep/" + runs_of(case)[0]) >= 3)
    os.kill(job.process.pid, signal.SIGTERM)
    job.expect(STOPPED, "goes on from here")
    first = runs_of(case)[0]
    step = case.last_step("sweep/" + first)
    check(runs_of(case) == [first] and list(case.checkpoints("sweep/" + first)) == [step], "no checkpoint of the run that was stopped", job)
    check([row["state"] for row in rows_of(case)] == ["stopped", "waiting"], f"states: {rows_of(case)}")
    fewer = ["--set", f"train.steps={step + 2}"]
    check("resumed from" in Job(case.folder, 0, "sweep", path, *fewer).expect(OK), "not resumed")
    check([row["steps"] for row in rows_of(case)] == [str(step + 2)] * 2, f"{rows_of(case)}")


def a_failed_run_does_not_end_the_others(case):
    path = sweep_of(case, {"optim.lr": ["1e30", "1e-3"]}, train__max_nonfinite_steps=0, train__steps=4)
    Job(case.folder, 0, "sweep", path).expect(NUMERIC, "failed with exit code 4")
    rows = rows_of(case)
    check([row["state"] for row in rows] == ["done", "failed (exit 4)"] or rows[-1]["state"] == "failed (exit 4)", f"{rows}")


def is_a_job_array(case):
    path = sweep_of(case, {"optim.lr": ["1e-3", "2e-3"]})
    job = Job(case.folder, 0, "sweep", path, "--slurm", "array.sh", "--launch", "env HERE=1")
    job.expect(OK)
    script = (case.folder / "array.sh").read_text(encoding="utf-8")
    check("#SBATCH --array=0-1\n" in script and not runs_of(case), f"script:\n{script}")
    tools = case.folder / "tools"
    tools.mkdir()
    (tools / "espalier").symlink_to(e2e.espalier)
    for task in (1, 1):
        done = subprocess.run(["bash", "array.sh"], cwd=case.folder, capture_output=True, text=True, timeout=60,
                              env={**os.environ, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_JOB_ID": "7", "PATH": f"{tools}:{os.environ['PATH']}"})
        check(done.returncode == 0, f"task {task}: exit {done.returncode}\n{done.stderr}")
    Job(case.folder, 0, "sweep", path, "--table").expect(OK)
    check([row["state"] for row in rows_of(case)] == ["done", "waiting"] and len(runs_of(case)) == 1, f"{rows_of(case)}")


def the_recipe_is_a_sweep(case):
    job = Job(ROOT, 0, "sweep", ROOT / "configs" / "sweeps" / "learning_rates.yaml", "--slurm", "-", "--set", f"run.dir={case.folder / 'sweep'}")
    job.expect(OK)
    check("#SBATCH --array=0-5\n" in job.stdout, f"script:\n{job.stdout}")
    for path in sorted((case.folder / "sweep" / "configs").glob("*.yaml")):
        Job(ROOT, 0, "plan", path, "--peak", "50").expect(OK)


def bad_input_is_told_in_a_line(case):
    for axes, words in (({"optim.lrr": ["1"]}, ("unknown key 'optim.lrr'", "optim.lr")), ({"optim.lr": ["fast"]}, ("optim.lr",)),
                        ({"optim.lr": []}, ("wants a list",)), ({"run.dir": ["a"]}, ("run.dir",)), ({}, ("sweep",)),
                        ({"run.seed": map(str, range(40)), "train.steps": map(str, range(40))}, ("1600 runs",))):
        path = sweep_of(case, axes)
        Job(case.folder, 0, "sweep", path).expect_failure(USAGE, *words)
        shutil.rmtree(case.folder / "sweep", ignore_errors=True)
    path = sweep_of(case, {"optim.lr": ["1e-3"]})
    Job(case.folder, 0, "sweep", path, "--set", "optim.lr=1").expect_failure(USAGE, "--set optim.lr=1")
    Job(case.folder, 0, "train", path).expect_failure(USAGE, "espalier sweep")
    Job(case.folder, 0, "sweep", case.config("one")).expect_failure(USAGE, "no section 'sweep'")


if __name__ == "__main__":
    raise SystemExit(main([every_combination_is_a_run, goes_on_where_it_stopped, a_failed_run_does_not_end_the_others, is_a_job_array,
                           the_recipe_is_a_sweep, bad_input_is_told_in_a_line]))
