"""Runs one of the Eclipse Paho interoperability suites against a new cluster.

usage: paho.py PROGRAM FOLDER MODULE MODE [TEST...]

FOLDER is the "interoperability" folder of a copy of eclipse-paho/paho.mqtt.testing
that the caller brings, MODULE is client_test (MQTT 3.1.1) or client_test5 (MQTT 5).
MODE is

one     one node
three   three; each connection goes to the next, so that a session is resumed on
        another node than it was left on
others  three; the clients of a test stay at one node while the others, the leader
        first, are killed and started again in a loop
own     three; before a client connects, the node that served last is killed, if no
        other client of the test is connected to it just then: sessions, retained
        messages and wills are met by nodes that have to know of them from the log

Log time stands still while nobody leads, so that nothing expires then, and
test_will_delay allows a second: others leaves the leader alone during it.

The client of the suites gives a CONNECT 500 ms, which is less than the others need
to elect another leader. So no kill falls between a CONNECT and its CONNACK; between
all other steps it may.

The last line is a JSON object: by test its outcome and what was killed during it.
"""

import contextlib
import importlib
import itertools
import json
import logging
import sys
import tempfile
import threading
import unittest

import cluster


TIMED = {"test_will_delay"}  # tests that measure times


class Mode:
    """Chooses the node of each connection."""

    def __init__(self, c):
        self.c = c
        self.turn = itertools.cycle(c.nodes)
        self.gate = threading.Lock()  # held by a CONNECT, and by a kill until another node leads

    def begin(self, test):
        """Before a test, given by its name."""

    def node(self):
        """Where the next connection goes; called with the gate held."""
        return next(self.turn)

    def connected(self, node, client):
        """After a connection was made."""

    def close(self):
        pass


class Others(Mode):
    """Clients stay, the other nodes die, one at a time."""

    def __init__(self, c):
        super().__init__(c)
        self.stays = c.nodes[0]
        self.over = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def begin(self, test):
        if self.failure:
            raise self.failure
        with self.gate:  # held by the loop until the victim is back
            leader = cluster.wait(self.c.leader, "nobody leads")
            self.stays = leader if test in TIMED else next(n for n in self.c.nodes if n is not leader and n.ready())

    def node(self):
        return self.stays

    def loop(self):
        turn = 0
        try:
            while not self.over.wait(0.3):
                with self.gate:
                    leader, stays = self.c.leader(), self.stays
                    others = [n for n in self.c.nodes if n is not stays]
                    victim = leader if leader in others else others[turn % 2]
                    self.c.kill(victim)
                turn += 1
                self.over.wait(0.5)
                victim.start()
                cluster.wait(self.c.whole, "%s does not come back" % victim.name)
        except Exception as e:  # the next test tells
            self.failure = e

    def close(self):
        self.over.set()
        self.thread.join()
        if self.failure:
            raise self.failure


class Own(Mode):
    """The node that served last dies before the next connection."""

    def __init__(self, c):
        super().__init__(c)
        self.last, self.clients = None, {}

    def begin(self, test):
        self.clients.clear()  # those that an earlier test forgot

    def node(self):
        last, c = self.last, self.c
        here = [k for k, n in self.clients.items() if n is last and k.sock.fileno() != -1]
        if last is None or here:
            return last or c.nodes[0]
        cluster.wait(c.whole, "the last victim does not come back")
        c.kill(last)
        # The next one must be ready; the victim comes back meanwhile.
        last.start()
        i = c.nodes.index(last)
        return cluster.wait(lambda: next((n for n in c.nodes[i + 1:] + c.nodes[:i] if n.ready()), None), "no node is ready")

    def connected(self, node, client):
        self.last = node
        self.clients[client] = node


MODES = {"one": (1, Mode), "three": (3, Mode), "others": (3, Others), "own": (3, Own)}


def prepare(module, name):
    """Sets what the suites' own main programs would."""
    prefix = "client_test5/" if name == "client_test5" else ""
    module.topic_prefix = prefix
    module.topics = [prefix + t for t in ["TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"]]
    module.wildtopics = [prefix + t for t in ["TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"]]
    module.nosubscribe_topics = ("test/nosubscribe",)
    module.host, module.port = "127.0.0.1", 0
    if hasattr(module.Test, "will_message_test"):
        # Left out by unittest for its name only, since the suite was made of
        # functions: with it the two suites have 38 tests.
        module.Test.test_will_message = module.Test.will_message_test


def spread(client, mode):
    """Has every connection of a client class go where the mode says."""
    connect = client.connect

    def to_a_node(self, *args, **kwargs):
        if not kwargs.get("newsocket", True):
            return connect(self, *args, **kwargs)
        with mode.gate:
            node = mode.node()
            if "port" in kwargs:
                kwargs["port"] = node.port
            else:
                args = (args[0], node.port) + args[2:]
            with contextlib.suppress(AttributeError, OSError):
                self.sock.close()  # as the client itself does, but before somebody asks for it
            mode.connected(node, self)
            return connect(self, *args, **kwargs)

    client.connect = to_a_node


def name_of(test):
    return test.id().rsplit(".", 1)[-1]


class Result(unittest.TextTestResult):
    """Notes by test how it ended and what was killed during it."""

    outcomes, mode, before = {}, None, 0

    def startTest(self, test):
        super().startTest(test)
        self.mode.begin(name_of(test))
        self.before = len(self.mode.c.kills)

    def note(self, test, outcome):
        self.outcomes[name_of(test)] = (outcome, self.mode.c.kills[self.before:])

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note(test, "ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "FAILED")

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "FAILED")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped")


def main():
    program, folder, name, mode_name = sys.argv[1:5]
    sys.path.insert(0, folder)
    module = importlib.import_module(name)
    prepare(module, name)
    logging.getLogger().setLevel(logging.ERROR)
    count, kind = MODES[mode_name]
    with tempfile.TemporaryDirectory(prefix="paho-") as work, cluster.Cluster(program, work, count) as c:
        mode = Result.mode = kind(c)
        with contextlib.closing(mode):
            spread(module.mqtt_client.Client, mode)
            loader = unittest.defaultTestLoader
            tests = ["Test." + t for t in sys.argv[5:]]
            suite = loader.loadTestsFromNames(tests, module) if tests else loader.loadTestsFromModule(module)
            result = unittest.TextTestRunner(verbosity=2, resultclass=Result).run(suite)
        told = c.logs_tell()
        if told or not result.wasSuccessful():
            print("\n".join(told))
            for n in c.nodes:
                print("the last lines of %s:\n%s" % (n.name, "\n".join(n.log.read_text(errors="replace").splitlines()[-20:])))
    sys.stderr.flush()
    print(json.dumps({"tests": Result.outcomes, "run": result.testsRun, "ok": result.wasSuccessful() and not told}))
    sys.exit(0 if result.wasSuccessful() and not told else 1)


if __name__ == "__main__":
    main()
