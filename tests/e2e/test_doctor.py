# test: tier=default timeout=150
"""espalier doctor: each fault is made real and must be told, with what to do; a machine without one must not be warned of."""

import json
import os
import pathlib
import subprocess
import sys

from hosts import Hosts
from job import LIGHT, OK, USAGE, Job, Skipped, check, main

# What the surroundings of a test may have set, and what the doctor rightly warns of.
CLEAN = {"OMP_NUM_THREADS": "", "OPENBLAS_CORETYPE": "", "LD_PRELOAD": "", "OMPI_MCA_btl": "", "TMPDIR": "", "ESPL_TRACE": "", "MALLOC_PERTURB_": ""}
BESIDES = ("tmpfs", "overlay", "room for", "control group")  # of the machine that tests run on, not of the test


def doctor(case, ranks, *arguments, code=OK, around=(), before=(), **environment):
    """Findings by level, as "check: text" with their advice."""
    words = ("doctor", "--json", "--dir", case.folder, *arguments)
    return read(Job(case.folder, ranks, *words, around=around, before=before, environment={**CLEAN, **environment}), code)


def read(job, code=OK):
    job.expect(code)
    if code != OK:
        check(len(job.complaints()) == 1, "expected one line that begins with 'espalier: '", job)
    report = json.loads(job.stdout)
    found = {level: [f for f in report["findings"] if f["level"] == level] for level in ("ok", "WARN", "FAIL")}
    check(report["failed"] == len(found["FAIL"]) and report["warned"] == len(found["WARN"]), "the counts are not those of the findings", job)
    check((code == USAGE) == bool(found["FAIL"]), f"exit {code} with {len(found['FAIL'])} failures", job)
    return found


def expect(found, level, name, *words):
    """A finding of this check that holds all words, and says what to do. Returns it."""
    fitting = [f for f in found[level] if f["check"] == name and all(word in f["text"] for word in words)]
    check(len(fitting) == 1, f"expected one {level} of {name} with {words}, got {found['WARN'] + found['FAIL']}")
    check(fitting[0]["advice"], f"it does not say what to do: {fitting[0]}")
    return fitting[0]


def troubles(found):
    return [f for f in found["WARN"] + found["FAIL"] if not any(word in f["text"] for word in BESIDES)]


def script(case, text):
    """A script that runs its arguments behind `text`."""
    path = case.folder / "around.sh"
    path.write_text(f"#!/bin/bash\n{text}\nexec \"$@\"\n", encoding="utf-8")
    path.chmod(0o755)
    return [str(path)]


def a_sound_machine_is_not_warned_of(case):
    cores = len(os.sched_getaffinity(0))
    for ranks in (0, 1) if cores < 2 or LIGHT else (0, 1, 2):
        found = doctor(case, ranks, "--set", "run.threads=1")
        check(not troubles(found), f"{ranks} ranks: {troubles(found)}")
        names = {f["check"] for f in found["ok"]}
        expected = {"mpi", "scheduler", "device", "cores", "numa", "memory", "limits", "shm", "environment", "files"}
        check(expected <= names, f"nothing was said of {expected - names}")
    check(not list(case.folder.glob("doctor*")), "files were left behind")
    text = Job(case.folder, 0, "doctor", "--dir", case.folder / "a" / "run" / "to" / "be", environment=CLEAN)
    text.expect(OK)
    check("file system" in text.stdout and not (case.folder / "a").exists(), "a folder that is not there yet is looked at from above", text)


def limits_are_told(case):
    soft = doctor(case, 0, around=script(case, "ulimit -n 512"))
    expect(soft, "WARN", "limits", "open files is 512")
    hard = doctor(case, 0, code=USAGE, around=script(case, "ulimit -n 64"))
    expect(hard, "FAIL", "limits", "open files is 64")
    expect(doctor(case, 0, around=script(case, "ulimit -f 4194304")), "WARN", "limits", "size of a file is 4 GiB")
    if not LIGHT:  # a sanitizer reserves more
        expect(doctor(case, 0, around=script(case, "ulimit -v 16777216")), "WARN", "limits", "address space is 16 GiB")


def variables_are_told(case):
    cores = len(os.sched_getaffinity(0))
    if cores > 1:
        expect(doctor(case, 0, OMP_NUM_THREADS="1"), "WARN", "environment", "OMP_NUM_THREADS is 1", f"{cores} cores stay idle")
    expect(doctor(case, 0, "--set", "run.threads=1", OMP_NUM_THREADS="3"), "WARN", "environment", "run.threads is 1")
    expect(doctor(case, 0, OMP_NUM_THREADS="many"), "WARN", "environment", "'many'")
    found = doctor(case, 0, OPENBLAS_CORETYPE="Haswell", OMPI_MCA_btl="tcp,self", UCX_TLS="rc,self", NCCL_P2P_DISABLE="1")
    for name in ("OPENBLAS_CORETYPE", "OMPI_MCA_btl", "UCX_TLS", "NCCL_P2P_DISABLE"):
        expect(found, "WARN", "environment", name)
    found = doctor(case, 0, OMPI_MCA_btl="self,vader", UCX_TLS="all", NCCL_P2P_DISABLE="0")
    check(not troubles(found), f"settings that are fine: {troubles(found)}")
    expect(doctor(case, 0, TMPDIR="/tmp/" + 80 * "x"), "WARN", "shm", "85 characters")


def too_many_threads_are_told(case):
    cores = len(os.sched_getaffinity(0))
    found = doctor(case, 4, "--set", f"run.threads={cores}")
    expect(found, "WARN", "cores", f"4 ranks of {cores} threads run on {cores} cores")
    if cores > 1:
        bound = script(case, "core=$(taskset -cp $$ | grep -oE '[0-9]+' | sed -n \"$((2 + OMPI_COMM_WORLD_LOCAL_RANK))p\")\n"
                             "taskset -cp $OMPI_COMM_WORLD_LOCAL_RANK $$ > /dev/null")
        if os.sched_getaffinity(0) >= {0, 1}:
            finding = expect(doctor(case, 2, "--set", "run.threads=2", before=bound), "WARN", "cores", "2 threads is bound to 1 of")
            check(finding["ranks"] == 2, f"both ranks found it: {finding}")


def launchers_that_do_not_fit_are_told(case):
    found = doctor(case, 0, code=USAGE, PMI_RANK="0", PMI_SIZE="4")
    expect(found, "FAIL", "mpi", "started 4 processes, but MPI sees 1")


def batch_systems_are_told(case):
    found = doctor(case, 0, PBS_JOBID="17.head")
    expect(found, "WARN", "scheduler", "job 17.head of PBS", "does not say when it ends")
    found = doctor(case, 0, "--set", "run.walltime='1:00:00'", PBS_JOBID="17.head")
    check(not troubles(found), f"run.walltime is set: {troubles(found)}")
    found = doctor(case, 0, PBS_JOBID="17.head", PBS_WALLTIME="7200000")
    check(not troubles(found) and any("PBS_WALLTIME" in f["text"] for f in found["ok"]), f"TORQUE says its end: {found}")


def a_device_that_is_not_there_is_told(case):
    if pathlib.Path("/dev/nvidiactl").exists():
        raise Skipped("there is an NVIDIA driver")
    expect(doctor(case, 0, "--set", "run.device=cuda", code=USAGE), "FAIL", "device", "no NVIDIA driver")


def mounted(case, options, *arguments, code):
    """The doctor in a mount namespace, looking at a tmpfs of its own."""
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", "/mnt"], check=False, capture_output=True).returncode != 0:
        raise Skipped("no mount namespaces here")
    return doctor(case, 0, "--dir", "/mnt", *arguments, code=code,
                  around=["unshare", "-rm", *script(case, f"mount -t tmpfs -o {options} x /mnt || exit 99")])


def file_systems_are_told(case):
    full = mounted(case, "size=64k", code=USAGE)
    expect(full, "FAIL", "files", "No space left on device")
    expect(full, "WARN", "files", "/mnt is on tmpfs")
    expect(full, "WARN", "files", "/mnt has room for 0.000 GiB")
    expect(mounted(case, "ro", code=USAGE), "FAIL", "files", "mounted read-only")
    expect(mounted(case, "nr_inodes=100", code=USAGE), "FAIL", "files", "more files")
    fine = mounted(case, "size=2g", code=OK)
    check([f["text"] for f in fine["WARN"] if "tmpfs" not in f["text"]] == [], f"a tmpfs of 2 GiB: {fine['WARN']}")


def little_shared_memory_is_told(case):
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "x", "/dev/shm"], check=False, capture_output=True).returncode != 0:
        raise Skipped("no mount namespaces here")
    found = doctor(case, 0, around=["unshare", "-rm", *script(case, "mount -t tmpfs -o size=4m x /dev/shm || exit 99")])
    expect(found, "WARN", "shm", "4 MiB are free in /dev/shm")


def a_control_group_is_told(case):
    root, name = pathlib.Path("/sys/fs/cgroup"), f"espl-doctor-{os.getpid()}"
    if (root / "cgroup.controllers").exists():
        limits = {root / name / "memory.max": 1 << 30, root / name / "cpu.max": "50000 100000"}
    else:  # version 1
        limits = {root / "memory" / name / "memory.limit_in_bytes": 1 << 30, root / "cpu" / name / "cpu.cfs_quota_us": 50000}
    groups, made = {path.parent for path in limits}, []
    try:
        for group in groups:
            group.mkdir()
            made.append(group)
        for path, value in limits.items():
            with open(path, "r+", encoding="utf-8") as file:
                file.write(str(value))
        enter = "\n".join(f"echo $$ > {group}/cgroup.procs || exit 99" for group in groups)
        found = doctor(case, 0, "--set", "run.threads=1", around=script(case, enter))
    except OSError as why:
        raise Skipped(f"no control group can be made: {why}") from None
    finally:
        for group in made:
            group.rmdir()
    check(any(f["check"] == "memory" and "control group gives 1.00 GiB" in f["text"] for f in found["ok"]), f"1 GiB was not seen: {found}")
    expect(found, "WARN", "cores", "the control group gives 0.5 cores to 1 threads")


WRONG_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t which, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, t);
    if (which == CLOCK_REALTIME)
        t->tv_sec += 20;
    return code;
}
"""


def hosts_are_compared(case):
    """Two hosts that are alike; one that has another file system under the same name; one whose clock is wrong."""
    shared = case.folder / "shared"
    shared.mkdir()

    def look(hosts, code=OK, before=()):
        return read(hosts.launch(1, "doctor", "--json", "--dir", shared, "--set", "run.threads=1", before=before, environment=CLEAN), code)

    with Hosts(case.folder / "hosts", 2) as hosts:
        fine = look(hosts)
        bad = [f for f in troubles(fine) if f["check"] in ("files", "clocks") and "follows no other" not in f["text"]]
        check(not bad, f"hosts that are alike: {bad}")
        check(any("2 ranks on 2 hosts" in f["text"] for f in fine["ok"]), f"two hosts are expected: {fine['ok']}")
        check(any("clocks of 2 hosts" in f["text"] for f in fine["ok"]), f"clocks were not compared: {fine['ok']}")
        if not LIGHT:  # libraries cannot be put in front of a sanitized program
            (case.folder / "clock.c").write_text(WRONG_CLOCK, encoding="utf-8")
            subprocess.run(["cc", "-shared", "-fPIC", "-o", case.folder / "clock.so", case.folder / "clock.c", "-ldl"], check=True, timeout=60)
            found = look(hosts, before=script(case, f"[ $OMPI_COMM_WORLD_RANK = 1 ] && export LD_PRELOAD={case.folder}/clock.so"))
            expect(found, "WARN", "clocks", "rank 1's host is 20.0 s ahead")
            expect(found, "WARN", "environment", "LD_PRELOAD")
        subprocess.run([*hosts.enter("n2"), "mount", "-t", "tmpfs", "other", shared], check=True, timeout=10)
        finding = expect(look(hosts, USAGE), "FAIL", "files", "what rank 0 writes to", "is not there")
        check(finding["host"] == "n2" and not list(shared.iterdir()), f"n2 alone lacks it, and nothing stays: {finding}")


if __name__ == "__main__":
    sys.exit(main([a_sound_machine_is_not_warned_of, limits_are_told, variables_are_told, too_many_threads_are_told,
                   launchers_that_do_not_fit_are_told, batch_systems_are_told, a_device_that_is_not_there_is_told, file_systems_are_told,
                   little_shared_memory_is_told, a_control_group_is_told, hosts_are_compared]))
