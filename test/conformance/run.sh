#!/bin/sh
# Runs the Eclipse Paho interoperability suites against one node, and again with
# the clients' connections spread over three.
#
# usage: run.sh FOLDER
#
# FOLDER is the "interoperability" folder of a copy of eclipse-paho/paho.mqtt.testing.
# The program is built, unless MQCLUSTER_BIN names one. Python 3 and go are needed,
# neither root nor a network. The exit code is 0 if everything passes.
set -eu

folder=${1:?usage: run.sh FOLDER, the interoperability folder of eclipse-paho/paho.mqtt.testing}
[ -f "$folder/client_test5.py" ] || { echo "run.sh: $folder has no client_test5.py: give the suite's interoperability folder" >&2; exit 2; }
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$folder" && pwd)
work=$(mktemp -d)
pids=

stop() {
	for pid in $pids; do kill -9 "$pid" 2>/dev/null || true; done
	for pid in $pids; do wait "$pid" 2>/dev/null || true; done
	pids=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

program=${MQCLUSTER_BIN:-}
unset MQCLUSTER_BIN # the program takes variables of this prefix for settings
if [ -z "$program" ]; then
	program=$work/mqcluster
	(cd "$here" && go build -o "$program" github.com/mqcluster/mqcluster/cmd/mqcluster)
fi

# ports COUNT prints that many free ports, all different, and below those that the
# kernel hands out to others.
ports() {
	python3 - "$1" <<'PY'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(10000, 32000)))
        held.append(s)
    except OSError:
        s.close()
print(*(s.getsockname()[1] for s in held))
PY
}

# node NUMBER MESH HEALTH CLIENTS: the flags of a node.
flags() {
	echo "--data-dir $work/n$1 --node n$1 --mesh.listen 127.0.0.1:$2 --mesh.advertise 127.0.0.1:$2 \
--health.listen 127.0.0.1:$3 --listener tcp,allow_plaintext=true,allow_anonymous=true,address=127.0.0.1:$4 \
--limits.max-keep-alive 60s"
}

run() { # NUMBER
	"$program" run --data-dir "$work/n$1" >"$work/n$1.log" 2>&1 &
	pids="$pids $!"
}

# ready PORT...: waits until every node says that it is ready.
ready() {
	python3 - "$@" <<'PY'
import sys, time, urllib.request
end = time.time() + 60
for port in sys.argv[1:]:
    while True:
        try:
            urllib.request.urlopen("http://127.0.0.1:%s/readyz" % port, timeout=1).read()
            break
        except OSError as e:
            if time.time() > end:
                sys.exit("the node at health port %s is not ready: %s" % (port, e))
            time.sleep(0.1)
PY
}

# start COUNT: starts that many nodes and leaves their client ports in $clients.
start() {
	rm -rf "$work"/n?
	clients= health= token=
	for i in $(seq "$1"); do
		# shellcheck disable=SC2046 # words are wanted
		set -- "$1" $(ports 3)
		clients="$clients $4" health="$health $3"
		if [ "$i" = 1 ]; then
			first=$2
			# shellcheck disable=SC2046
			token=$("$program" init $(flags 1 "$2" "$3" "$4") | grep -o 'MQ1\.[^ ]*')
		else
			# shellcheck disable=SC2046
			"$program" join "127.0.0.1:$first" --token "$token" $(flags "$i" "$2" "$3" "$4") >/dev/null
		fi
		run "$i"
		# shellcheck disable=SC2086
		ready $health
	done
	"$program" acl set '*' 'deny subscribe test/nosubscribe' 'allow both #' --data-dir "$work/n1" >/dev/null
}

failed=0
# suite NAME WHAT: runs one suite against $clients and notes its count.
suite() {
	echo "== $1, $2"
	# shellcheck disable=SC2086
	if ! python3 "$here/paho.py" "$folder" "$1" $clients >"$work/out" 2>&1; then
		failed=1
		cat "$work/out"
	fi
	line=$(tail -n 1 "$work/out")
	echo "$line"
	printf '%-14s %-12s %s\n' "$1" "$2" "$line" >>"$work/summary"
}

for n in 1 3; do
	what="one node"
	[ "$n" = 1 ] || what="three nodes"
	start "$n"
	suite client_test "$what"
	suite client_test5 "$what"
	stop
done
echo
cat "$work/summary"
exit "$failed"
