#!/usr/bin/env python3
"""Negative controls of tests/summary.py on a real ctest run: what fails must count as failed, whatever it prints."""

import pathlib
import subprocess
import sys
import tempfile

SUMMARY = pathlib.Path(__file__).resolve().parents[1] / "summary.py"
TESTS = {
    "good": 'sh -c "echo fine"',
    "bad": 'sh -c "echo why it broke; exit 1"',
    "skipped": 'sh -c "echo SKIP: no such data"',
    "skipped_and_bad": 'sh -c "echo SKIP: no such data; exit 1"',
    "says_skip_elsewhere": 'sh -c "echo it may SKIP: later"',
    "absent": "/no/such/program",
    "slow": "sleep 20",
}
EXPECTED = {"pass": {"good", "says_skip_elsewhere"}, "skip": {"skipped"}, "fail": {"bad", "skipped_and_bad", "absent", "slow"}}


def run(*command):
    return subprocess.run([str(c) for c in command], capture_output=True, text=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        lines = ["cmake_minimum_required(VERSION 3.25)", "project(p LANGUAGES NONE)", "enable_testing()"]
        for name, command in TESTS.items():
            lines.append(f"add_test(NAME {name} COMMAND {command})\nset_tests_properties({name} PROPERTIES TIMEOUT 1)")
        (folder / "CMakeLists.txt").write_text("\n".join(lines))
        run("cmake", "-S", folder, "-B", folder / "build")
        run("ctest", "--test-dir", folder / "build", "--output-junit", folder / "junit.xml")
        tally = folder / "tally.txt"
        empty = folder / "empty.txt"
        empty.write_text("")
        first = run(sys.executable, SUMMARY, tally, "ctest", "", folder / "junit.xml")
        last = run(sys.executable, SUMMARY, tally)
        results = {result: {line.split()[1] for line in tally.read_text().splitlines() if line.startswith(result)} for result in EXPECTED}
        problems = [
            results != EXPECTED and f"expected {EXPECTED}, got {results}",
            "why it broke" not in first.stdout and f"the output of a failure is not shown: {first.stdout}",
            "SKIP: skipped: no such data" not in first.stdout and f"the reason of a skip is not shown: {first.stdout}",
            last.stdout != "2 passed, 4 failed, 1 skipped\n" and f"closing line: {last.stdout}",
            last.returncode == 0 and "failures leave exit code 0",
            run(sys.executable, SUMMARY, empty).returncode == 0 and "nothing run counts as success",
        ]
    print("\n".join(p for p in problems if p) or "the tally is right")
    return 1 if any(problems) else 0


if __name__ == "__main__":
    sys.exit(main())
