"""Runs one of the Eclipse Paho interoperability suites against a list of ports.

usage: paho.py FOLDER MODULE PORT...

FOLDER is the "interoperability" folder of a copy of eclipse-paho/paho.mqtt.testing
that the caller brings, MODULE is client_test (MQTT 3.1.1) or client_test5 (MQTT 5).
With several ports each connection of a client goes to the next one, so that a
session is resumed on another node than it was left on.
"""

import importlib
import itertools
import logging
import sys
import unittest


def main():
    folder, name, ports = sys.argv[1], sys.argv[2], [int(p) for p in sys.argv[3:]]
    sys.path.insert(0, folder)
    module = importlib.import_module(name)
    prefix = "client_test5/" if name == "client_test5" else ""
    tails = ["TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"]
    wild = ["TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"]
    module.topic_prefix = prefix
    module.topics = [prefix + t for t in tails]
    module.wildtopics = [prefix + t for t in wild]
    module.nosubscribe_topics = ("test/nosubscribe",)
    module.host, module.port = "127.0.0.1", ports[0]

    turn = itertools.cycle(ports)
    client = module.mqtt_client.Client
    connect = client.connect

    def spread(self, *args, **kwargs):
        if "port" in kwargs:
            kwargs["port"] = next(turn)
        elif len(args) > 1:
            args = (args[0], next(turn)) + args[2:]
        return connect(self, *args, **kwargs)

    client.connect = spread
    logging.getLogger().setLevel(logging.ERROR)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    bad = len(result.failures) + len(result.errors)
    print("%d passed, %d failed" % (result.testsRun - bad, bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
