"""Clusters of real mqcluster processes on 127.0.0.1, for the suites of Eclipse Paho."""

import json
import pathlib
import random
import re
import socket
import subprocess
import time
import urllib.request

PATIENCE = 60  # seconds; no bar


def wait(condition, what):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError("after %d s: %s" % (PATIENCE, what))
        time.sleep(0.05)


TAKEN = []  # sockets


def free_ports(count):
    """That many free ports, below those that the kernel hands out. An abstract Unix
    socket of a port's name says to other runs that it is taken, also while a node is
    down."""
    ports = []
    while len(ports) < count:
        port = random.randrange(10000, 32000)
        mark, probe = socket.socket(socket.AF_UNIX), socket.socket()
        try:
            mark.bind("\0mqcluster-test-port-%d" % port)
            probe.bind(("127.0.0.1", port))
            TAKEN.append(mark)
            ports.append(port)
        except OSError:
            mark.close()
        finally:
            probe.close()
    return ports


class Node:
    def __init__(self, program, folder, name):
        self.program, self.name = program, name
        self.data = folder / name
        self.log = folder / (name + ".log")
        self.mesh, self.health, self.port = free_ports(3)
        self.process = None

    def flags(self):
        mesh = "127.0.0.1:%d" % self.mesh
        return ["--data-dir", str(self.data), "--node", self.name, "--mesh.listen", mesh, "--mesh.advertise", mesh,
                "--health.listen", "127.0.0.1:%d" % self.health, "--limits.max-keep-alive", "60s",
                "--listener", "tcp,allow_plaintext=true,allow_anonymous=true,address=127.0.0.1:%d" % self.port]

    def cli(self, *args):
        """Runs a verb and returns what it printed; raises if it fails."""
        done = subprocess.run([self.program, *args], capture_output=True, text=True, timeout=PATIENCE, check=False)
        if done.returncode != 0:
            raise RuntimeError("mqcluster %s: %s" % (args[0], done.stderr.strip()))
        return done.stdout

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([self.program, "run", "--data-dir", str(self.data)], stdout=log, stderr=log)

    def kill(self):
        """kill -9; returns when the process is gone."""
        if self.process:
            self.process.kill()
            self.process.wait()
        self.process = None

    def up(self):
        return self.process is not None and self.process.poll() is None

    def ready(self):
        try:
            with urllib.request.urlopen("http://127.0.0.1:%d/readyz" % self.health, timeout=1):
                return True
        except OSError:
            return False

    def serves(self):
        """Whether a client gets its CONNACK: the cluster has taken it."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as s:
                s.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe")
                accepted = s.recv(4) == b"\x20\x02\x00\x00"
                s.sendall(b"\xe0\x00")
                return accepted
        except OSError:
            return False

    def status(self):
        try:
            return json.loads(self.cli("status", "-o", "json", "--data-dir", str(self.data)))
        except (RuntimeError, ValueError):
            return {}


class Cluster:
    """Nodes that joined each other. Anonymous clients may do everything but
    subscribe to test/nosubscribe."""

    def __init__(self, program, folder, count):
        self.folder = pathlib.Path(folder)
        self.nodes = [Node(program, self.folder, "n%d" % (i + 1)) for i in range(count)]
        self.kills = []  # (name, whether it led)

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for n in self.nodes:
            n.kill()

    def start(self):
        first = self.nodes[0]
        token = re.search(r"MQ1\.\S+", first.cli("init", *first.flags())).group()
        for n in self.nodes:
            if n is not first:
                n.cli("join", "127.0.0.1:%d" % first.mesh, "--token", token, *n.flags())
            n.start()
            wait(n.ready, "%s is not ready" % n.name)
        wait(self.whole, "the cluster is not whole")
        first.cli("acl", "set", "*", "deny subscribe test/nosubscribe", "allow both #", "--data-dir", str(first.data))

    def leader(self):
        """The leader by the word of all that run, or None."""
        names = {n.status().get("leader") for n in self.nodes if n.up()}
        return next((n for n in self.nodes if names == {n.name} and n.up()), None)

    def whole(self):
        """Whether all run, are ready, agree on the leader and vote."""
        if not all(n.up() and n.ready() for n in self.nodes):
            return False
        leader = self.leader()
        if leader is None:
            return False
        voting = [m for m in leader.status().get("members", []) if m["role"] in ("leader", "voter") and m["up"]]
        return len(voting) == len(self.nodes)

    def kill(self, victim):
        """Kills a node and returns when the others have a leader and take clients."""
        led = self.leader() is victim
        victim.kill()
        self.kills.append((victim.name, led))
        wait(self.leader, "no leader after the death of " + victim.name)
        for n in self.nodes:
            if n.up():
                wait(n.serves, "%s takes no client after the death of %s" % (n.name, victim.name))

    def logs_tell(self):
        """What no log may tell, in any of them."""
        bad = []
        for n in self.nodes:
            text = n.log.read_text(errors="replace")
            bad += ["%s: %s" % (n.name, w) for w in ("panic:", "fatal error:", "a panic ended") if w in text]
        return bad
