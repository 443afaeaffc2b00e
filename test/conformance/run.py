"""Runs the Eclipse Paho interoperability suites in all modes and prints every result.

usage: run.py FOLDER [MODE...]

FOLDER is the "interoperability" folder of a copy of eclipse-paho/paho.mqtt.testing;
the modes are those of paho.py. The program is built, unless MQCLUSTER_BIN names
one. Python 3 and go are needed, neither root nor a network. The exit code is 0 if
everything passes.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile

SUITES = {"client_test": "3.1.1", "client_test5": "5"}
MODES = {"one": "one node", "three": "spread over three", "others": "others killed", "own": "own node killed"}
EXPECTED = 38  # tests of both suites
AT_ONCE = 4    # the suites wait most of the time


def build(here, work):
    program = os.environ.pop("MQCLUSTER_BIN", "")  # the program takes variables of this prefix for settings
    if program:
        return program
    program = os.path.join(work, "mqcluster")
    subprocess.run(["go", "build", "-o", program, "github.com/mqcluster/mqcluster/cmd/mqcluster"], cwd=here, check=True)
    return program


def run(here, program, folder, suite, mode):
    """Runs a suite in a mode and returns what its last line says."""
    done = subprocess.run([sys.executable, str(here / "paho.py"), program, str(folder), suite, mode],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    try:
        result = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        result = {"tests": {}, "run": 0, "ok": False}
    result["output"] = "" if result["ok"] else done.stdout
    return result


def cell(result, test):
    """A test in a mode: its outcome and, of nodes that were killed, how many, and how many led."""
    outcome, kills = result["tests"].get(test, ("missing", []))
    led = sum(1 for _, leader in kills if leader)
    return outcome + (" (%d killed, %d led)" % (len(kills), led) if kills else "")


def table(results, modes):
    row = "%-5s %-30s" + " %-24s" * len(modes)
    print(row % ("", "", *(MODES[m] for m in modes)))
    for suite, version in SUITES.items():
        for test in sorted({t for m in modes for t in results[suite, m]["tests"]}):
            print((row % (version, test, *(cell(results[suite, m], test) for m in modes))).rstrip())
    passed = {m: sum(o == "ok" for s in SUITES for o, _ in results[s, m]["tests"].values()) for m in modes}
    print((row % ("", "", *("%d of %d" % (passed[m], EXPECTED) for m in modes))).rstrip())
    return all(n == EXPECTED for n in passed.values())


def main():
    if len(sys.argv) < 2:
        sys.exit("usage: run.py FOLDER [MODE...], the interoperability folder of eclipse-paho/paho.mqtt.testing")
    here, folder = pathlib.Path(__file__).resolve().parent, pathlib.Path(sys.argv[1]).resolve()
    if not (folder / "client_test5.py").exists():
        sys.exit("run.py: %s has no client_test5.py: give the suite's interoperability folder" % folder)
    modes = sys.argv[2:] or list(MODES)
    unknown = [m for m in modes if m not in MODES]
    if unknown:
        sys.exit("run.py: there is no mode %s: possible are %s" % (unknown[0], ", ".join(MODES)))
    results = {}
    with tempfile.TemporaryDirectory(prefix="conformance-") as work, concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        program = build(here, work)
        # The longer suite first.
        runs = {pool.submit(run, here, program, folder, s, m): (s, m) for s in reversed(SUITES) for m in modes}
        for done in concurrent.futures.as_completed(runs):
            suite, mode = runs[done]
            results[suite, mode] = done.result()
            print("== %s, %s: %s" % (suite, MODES[mode], "ok" if done.result()["ok"] else "FAILED"), flush=True)
    for (suite, mode), result in results.items():
        if not result["ok"]:
            print("== %s, %s:\n%s" % (suite, MODES[mode], result["output"]))
    whole = table(results, modes)
    sys.exit(0 if whole and all(r["ok"] for r in results.values()) else 1)


if __name__ == "__main__":
    main()
