# test: tier=default timeout=120
"""espalier preflight names a host with a slow disk and one with a wrong clock: test_bad_host.py ESPALIER"""

import subprocess

from job import IO, LIGHT, OK, USAGE, Job, Skipped, check, main

# Hosts of one rank each; what goes wrong on one is put in front of libc's functions there. Ranks share cores here, so other measures may well
# be marked, and only those that are made wrong are looked at.
OPTIONS = ["--seconds", "0.05", "--disk", "1", "--message", "1", "--clock", "5"]
MEASURES = ["matrix", "copy", "disk", "link", "clock"]
WRONG = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t which, struct timespec *t) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(which, t);
    if (which == CLOCK_REALTIME && getenv("WRONG_CLOCK") != NULL)
        t->tv_sec += 20;
    return code;
}
int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    usleep(100000);
    if (getenv("SLOW_DISK") != NULL)
        sleep(3);
    return real(fd);
}
"""


def hosts(case, *wrong):
    """A script in front of each rank that gives it a host of its own, n0 ..., and what is wrong there: VARIABLE per host, or None. Where
    something is, all disks take a tenth of a second: what a busy machine adds to the fraction of a millisecond that a file in memory takes may
    be ten times as much."""
    library = case.folder / "wrong.so"
    (case.folder / "wrong.c").write_text(WRONG, encoding="utf-8")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, case.folder / "wrong.c", "-ldl"], check=True, timeout=60)
    script = case.folder / "host.sh"
    lines = [f"[ $OMPI_COMM_WORLD_RANK = {rank} ] && export {name}=1\n" for rank, name in enumerate(wrong) if name]
    front = f" LD_PRELOAD={library}" if wrong else ""
    script.write_text(f"#!/bin/sh\nexport SLURMD_NODENAME=n$OMPI_COMM_WORLD_RANK{front}\n" + "".join(lines) + 'exec "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    return [str(script)]


def preflight(case, ranks, before, share="0.1"):
    """The job, a row a host of measure -> (value, marked), and the names in the file for --exclude, which are those of the rows with marks."""
    job = Job(case.folder, ranks, "preflight", *OPTIONS, "--share", share, "--dir", case.folder, "--exclude", case.folder / "bad", "--set", "run.device=cpu",
              before=before)
    job.expect(OK)
    lines = [line.split() for line in job.stdout.splitlines()[1:ranks + 1]]
    check([words[:2] for words in lines] == [[f"n{rank}", "1"] for rank in range(ranks)], f"a line a host is expected:\n{job.stdout}")
    rows = [{name: (float(word.rstrip("*")), word.endswith("*")) for name, word in zip(MEASURES, words[2:])} for words in lines]
    listed = (case.folder / "bad").read_text(encoding="utf-8").replace("\n", "").split(",")
    marked = [words[0] for words in lines if "*" in "".join(words)]
    check([name for name in listed if name] == marked, f"the list {listed} is not that of the marks:\n{job.stdout}")
    return job, rows, marked


def bad_hosts_are_named(case):
    if LIGHT:
        raise Skipped("libraries cannot be put in front of a sanitized program")
    job, rows, listed = preflight(case, 4, hosts(case, None, "WRONG_CLOCK", "SLOW_DISK", None))
    check([row["clock"][1] for row in rows] == [False, True, False, False], f"n1's clock alone:\n{job.stdout}", job)
    check([row["disk"][1] for row in rows] == [False, False, True, False], f"n2's disk alone:\n{job.stdout}", job)
    check(19900 < rows[1]["clock"][0] < 20100 and abs(rows[0]["clock"][0]) < 100, f"clocks:\n{job.stdout}", job)
    check({"n1", "n2"} <= set(listed), f"listed: {listed}")


def like_hosts_are_not(case):
    job, rows, listed = preflight(case, 3, hosts(case), share="0.001")
    check("0 of 3 hosts marked" in job.stdout and listed == [], f"expected no mark:\n{job.stdout}", job)
    check(all(value > 0 for row in rows for name, (value, _) in row.items() if name != "clock"), f"something was not measured:\n{job.stdout}")
    check(not list(case.folder.glob("preflight-*")), "the disk's files are left")


def what_cannot_be_is_told(case):
    Job(case.folder, 2, "preflight", *OPTIONS, "--dir", case.folder / "missing").expect_failure(IO, "missing/preflight-")
    Job(case.folder, 0, "preflight", "--share", "2").expect_failure(USAGE, "--share 2")


if __name__ == "__main__":
    raise SystemExit(main([bad_hosts_are_named, like_hosts_are_not, what_cannot_be_is_told]))
