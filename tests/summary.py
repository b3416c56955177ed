#!/usr/bin/env python3
"""Adds up what ran: summary.py TALLY prints the tally as "N passed, N failed, N skipped"; with further arguments it first adds

    summary.py TALLY ctest PREFIX JUNIT.xml        every test of a ctest run; output that has a line "SKIP: why" means skipped
    summary.py TALLY one NAME pass|fail|skip [WHY] one check

Failures are printed with the end of their output, skips with their reason. The tally is a text file, one check a line.
"""

import re
import sys
import xml.etree.ElementTree


def record(tally, name, result, why=""):
    with open(tally, "a", encoding="utf-8") as out:
        out.write(f"{result} {name}\n")
    if result != "pass":
        print(f"{result.upper()}: {name}" + (f": {why}" if why else ""))


def record_ctest(tally, prefix, path):
    for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase"):
        output = case.findtext("system-out") or ""
        skip = re.search(r"^SKIP:\s*(.*)", output, re.M)
        failed = case.get("status") != "run"
        if failed:
            print("\n".join("    " + line for line in output.splitlines()[-60:]))
        why = (case.find("failure").get("message") if case.find("failure") is not None else "") if failed else skip and skip.group(1)
        record(tally, prefix + case.get("name"), "fail" if failed else "skip" if skip else "pass", why)


def main():
    tally, how = sys.argv[1], sys.argv[2:]
    if how and how[0] == "ctest":
        record_ctest(tally, how[1], how[2])
    elif how:
        record(tally, how[1], how[2], " ".join(how[3:]))
    else:
        with open(tally, encoding="utf-8") as lines:
            results = [line.split(" ", 1)[0] for line in lines]
        print(", ".join(f"{results.count(r)} {r}{'ed' if r != 'skip' else 'ped'}" for r in ("pass", "fail", "skip")))
        return 1 if "fail" in results or not results else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
