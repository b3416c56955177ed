# test: tier=default timeout=240 sanitized=no
"""The scripts of slurm/ in a real Slurm of two nodes on this machine: a chain of requeued jobs under srun, mpirun, an array, ranks that are
late or lost, and what is refused. test_slurm.py ESPALIER"""

import json
import os
import pathlib
import re
import signal
import subprocess

import job
from job import OK, ROOT, Job, check, main
from slurm_cluster import Cluster
from surroundings import members

STEPS = 100  # with an evaluation behind each more than half a minute, also where nothing else runs
OPTIONS = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1"]
LATE_FENCE = pathlib.Path(__file__).with_name("late_fence.c")


def submit(cluster, case, script, config, run, *options, **environment):
    """A script of slurm/, its settings given by the environment as its first lines have them."""
    settings = {"CONFIG": str(config), "RUN_DIR": str(case.folder / run), "ESPALIER": str(job.espalier), **environment}
    return cluster.submit(ROOT, f"slurm/{script}.sbatch", *OPTIONS, f"--output={case.folder}/%j.out", *options, **settings)


def output(case, number):
    return (case.folder / f"{number}.out").read_text(encoding="utf-8", errors="replace")


def expect(cluster, case, number, state, code, *words, seconds=60):
    """The job's end, and what its output must hold, which is returned."""
    found = cluster.finish(number, seconds)
    text = output(case, number)
    tail = "\n".join("    | " + line for line in text.splitlines()[-30:])
    check(found[:2] == (state, code), f"job {number}: expected {state} {code}, got {found}\n{tail}")
    for word in words:
        check(word in text, f"job {number}: expected '{word}' in its output\n{tail}")
    return text


def in_front(case, name, line):
    """A program, NAME.sh, that does `line` first."""
    path = case.folder / f"{name}.sh"
    path.write_text(f'#!/bin/sh\n{line}\nexec {job.espalier} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def start_chain(cluster, case, config):
    """A job that Slurm warns before its limit. Its first life is slowed down by evaluations, which change no bits, so that it cannot end
    before; Slurm's clock for that ticks every 30 seconds, so the warning comes 5 to 35 seconds after the start, and a minute is the shortest
    limit it has."""
    texts = case.folder / "valid.txt"
    texts.write_bytes(case.text.read_bytes() * 6)
    first_life = f'[ "${{SLURM_RESTART_COUNT:-0}}" = 0 ] && set -- "$@" --set train.eval_every=1 --set data.valid={texts}'
    return submit(cluster, case, "continued_pretraining", config, "chain", "--time=1", "--signal=B:USR1@25",
                  ESPALIER=in_front(case, "slow", first_life))


def finish_chain(cluster, case, number):
    text = expect(cluster, case, number, "COMPLETED", "0:0", "until_done: SIGUSR1: the run is asked to save and leave", "stopped by SIGUSR1",
                  "stopped with a checkpoint; back into the queue, restart 1 of at most 30", "resumed from", "chain is done", seconds=150)
    check("2 ranks on 2 nodes" in text, "the chain did not run on two nodes")
    check(re.search(r"the job ends at .* \((squeue|SLURM_JOB_END_TIME)\)", text), "the job's end was not read from Slurm")
    check(cluster.state(number)[2] >= 1, "Slurm counts no restart")
    case.train(1, "whole", train__steps=STEPS)
    for run in ("chain", "place"):
        check(case.digest(run) == case.digest("whole"), f"{run} ends in other weights than the run that nothing interrupted")


def by_mpirun(cluster, case, config):
    number = submit(cluster, case, "full_finetuning", config, "mpirun", LAUNCH="mpirun --bind-to none --mca mpi_yield_when_idle 1")
    expect(cluster, case, number, "COMPLETED", "0:0", "2 ranks on 2 nodes", "mpirun is done")


def on_one_gpu(cluster, case):
    """This Slurm has no GPU to give away, so the script is asked to do without."""
    config = case.config("unused", train__steps=4, tune__method="lora")
    number = submit(cluster, case, "lora_one_gpu", config, "lora", "--nodes=1", "--gpus=0", DEVICE="cpu")
    expect(cluster, case, number, "COMPLETED", "0:0", "1 rank on 1 node", "others are frozen", "lora is done")


def what_is_refused(cluster, case, config):
    """Neither is put back into the queue: tasks that do not find each other, and a launcher that lies, without restarts left."""
    alone = submit(cluster, case, "full_finetuning", config, "alone", LAUNCH="srun --mpi=none")
    lied = submit(cluster, case, "full_finetuning", config, "lied", LAUNCH="true", MOST_RESTARTS="0")
    expect(cluster, case, alone, "FAILED", "2:0", "srun started 2 tasks, but each is alone", "Start with srun --mpi=pmix", "the run failed with exit code 2")
    expect(cluster, case, lied, "FAILED", "1:0", "the launcher returned 0, but", "not put back, after 0 restarts of at most 0")


def a_rank_is_late(cluster, case):
    """Within MPI_Init; the other one waits for it."""
    config, library = case.config("unused", train__steps=4), case.folder / "late_fence.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, LATE_FENCE, "-ldl", "-pthread"], check=True, timeout=60)
    late = in_front(case, "late", f'[ "$SLURM_PROCID" = 0 ] && export LD_PRELOAD={library}')
    number = submit(cluster, case, "full_finetuning", config, "late", ESPALIER=late)
    expect(cluster, case, number, "COMPLETED", "0:0", "late_fence: the first fence is over, a second late", "2 ranks on 2 nodes", "late is done")


def a_rank_is_lost_early(cluster, case):
    """Before there are ranks; the other one does not outlive it for long."""
    lost = in_front(case, "lost", '[ "$SLURM_PROCID" = 0 ] && exit 9')
    number = submit(cluster, case, "full_finetuning", case.config("unused"), "lost-early", ESPALIER=lost, MOST_RESTARTS="0", SLURM_WAIT="3")
    text = expect(cluster, case, number, "FAILED", "137:0", "First task exited 3s ago", "the launcher returned 137; not put back", seconds=30)
    check("MPI has not brought" not in text, "it was not srun that ended the other rank")


def by_doctor(cluster, case):
    """The barrier is one that waits, which a rank is told, or not told."""
    script, found = case.folder / "doctor.sh", []
    words = f"{job.espalier} doctor --json --dir {case.folder} --set run.threads=1"
    script.write_text("#!/bin/sh\nexport SLURM_PMIX_FENCE=ring\n" + "".join(f"srun --mpi=pmix {front} {words} > {case.folder}/doctor-{i}.json\n" for i, front in
                                                                           enumerate(("env", "env -u SLURM_PMIX_FENCE"))), encoding="utf-8")
    number = cluster.submit(case.folder, script, *OPTIONS)
    check(cluster.finish(number, 60)[0] == "COMPLETED", f"the doctor failed:\n{output(case, number)}")
    for i in range(2):
        report = json.loads((case.folder / f"doctor-{i}.json").read_text(encoding="utf-8"))
        found.append([f for f in report["findings"] if f["level"] == "WARN" and "SLURM_PMIX_FENCE" in f["text"]])
    check(not found[0] and len(found[1]) == 1 and found[1][0]["advice"], f"expected one warning of Slurm's barrier, where it is not set: {found}")


def by_preflight(cluster, case, config):
    bad = case.folder / "bad_nodes"
    number = submit(cluster, case, "preflight", config, "preflight", EXCLUDE=str(bad), OPTIONS="--seconds 0.1 --disk 8 --share 0.001")
    text = expect(cluster, case, number, "COMPLETED", "0:0", "0 of 2 hosts marked")
    check(re.search(r"^n1 +1 .*\nn2 +1 ", text, re.M), f"the table has Slurm's names of both nodes:\n{text}")
    check(bad.read_text() == "", "nothing is to be excluded")


def a_rank(cluster, run):
    """The process of rank 1 of a run; None: there is none yet."""
    for pid in members(cluster.folder):
        try:
            program, words = os.readlink(f"/proc/{pid}/exe"), pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            surroundings = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if program == str(job.espalier) and f"/{run}\0".encode() in words and b"SLURM_PROCID=1" in surroundings:
            return pid
    return None


def in_place(cluster, case):
    """A rank is killed; the run is started again within its job, by srun on the nodes that answer one."""
    config = case.config("unused", train__steps=STEPS, checkpoint__every=2, run__watchdog=4)
    number = submit(cluster, case, "full_finetuning", config, "place", "--no-kill", IN_PLACE="1")
    cluster.wait_for("a checkpoint", lambda: case.checkpoints("place"), 60)
    victim = a_rank(cluster, "place")
    check(victim, "there is no rank to kill any more")
    os.kill(victim, signal.SIGKILL)
    expect(cluster, case, number, "COMPLETED", "0:0", "restart 1 of 1 in place: 2 ranks on n1 n2", "resumed from", "place is done", seconds=90)


def start_array(cluster, case):
    """Two runs, each of which leaves in the middle once: a task is put back alone."""
    config = case.config("sweep", train__steps=4, train__stop_after=2)
    config.write_text(config.read_text(encoding="utf-8") + "sweep:\n  optim.lr: [0.001, 0.002]\n", encoding="utf-8")
    written = Job(case.folder, 0, "sweep", config, "--slurm", "-")
    written.expect(OK)
    check("#SBATCH --array=0-1\n" in written.stdout, "the array's numbers", written)
    return submit(cluster, case, "sweep", config, "", "--nodes=1", "--array=0-1", f"--output={case.folder}/%A_%a.out", SWEEP_DIR=str(case.folder / "sweep"))


def finish_array(cluster, case, number):
    for task in range(2):
        text = expect(cluster, case, f"{number}_{task}", "COMPLETED", "0:0", "stopped by train.stop_after at step 2", "resumed from", "is done")
        check(text.count("back into the queue") == 1, f"task {task} was put back {text.count('back into the queue')} times")


def in_a_real_slurm(case):
    with Cluster(case.folder / "slurm", cpus=8) as cluster:
        config = case.config("unused", train__steps=STEPS, run__walltime_margin=3)
        chain = start_chain(cluster, case, config)
        by_mpirun(cluster, case, config)
        what_is_refused(cluster, case, config)
        a_rank_is_late(cluster, case)
        a_rank_is_lost_early(cluster, case)
        array = start_array(cluster, case)
        on_one_gpu(cluster, case)
        in_place(cluster, case)
        by_preflight(cluster, case, config)
        by_doctor(cluster, case)
        finish_array(cluster, case, array)
        finish_chain(cluster, case, chain)


if __name__ == "__main__":
    raise SystemExit(main([in_a_real_slurm]))
