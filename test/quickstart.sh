#!/usr/bin/env bash
# usage: quickstart.sh PROGRAM [failures]
#
# Runs the three-machine quick start of README.md as it stands: its blocks "sh
# on=MACHINE" in their order and its HAProxy configuration; and then, on that
# cluster, those of the documents below docs that have some. With failures it breaks
# the cluster instead as docs/failures.md says, and runs what that document has for each
# case ("sh scene=NAME"). Only addresses are replaced: machine N is 127.0.1.N, the
# balancer 127.0.1.9. It needs haproxy and Mosquitto's clients, and the ports 8883, 7883
# and 9883 of those addresses.
set -euo pipefail
cd "$(dirname "$0")/.."

tmp=$(mktemp -d /tmp/mqcluster-quickstart-XXXXXX)
mkdir "$tmp/bin" "$tmp"/{1,2,3,4,5,device}
cp "$1" "$tmp/bin/mqcluster"
export PATH=$tmp/bin:$PATH:/usr/sbin
pids=()
declare -A nodes # the process of each machine's node

finish() {
  local status=$?
  [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait
  if [ "$status" -ne 0 ]; then
    echo "quickstart: failed; the logs follow" >&2
    tail -n 20 "$tmp"/*.log >&2
  fi
  rm -rf "$tmp"
  exit "$status"
}
trap finish EXIT

# addresses turns the README's addresses into those of machine $1.
addresses() {
  sed -e 's/10\.0\.0\.\([1-5]\)/127.0.1.\1/g' -e "s/0\.0\.0\.0/127.0.1.$1/g" \
    -e 's/mqtt\.example\.org/127.0.1.9/g'
}

# blocks FILE DIR: the blocks become files 01.1, 02.2, …: number and machine.
blocks() {
  awk -v dir="$2" '
    /^```sh scene=/ { sub(/.*scene=/, ""); file = dir "/" $0; next }
    /^```sh on=/ { sub(/.*on=/, ""); file = sprintf("%s/%02d.%s", dir, ++n, $0); next }
    /^```haproxy/ { file = dir "/haproxy.cfg"; next }
    /^```/ { file = ""; next }
    file { print > file }
  ' "$1"
}

blocks README.md "$tmp"

# machine N runs a command as machine N: its data directory and its mesh address
# are what a machine of its own would have by default.
machine() {
  local n=$1
  shift
  (cd "$tmp/$n" && MQCLUSTER_DATA_DIR=$tmp/$n/data MQCLUSTER_MESH_LISTEN=127.0.1.$n:7883 "$@")
}

# ready waits until the node of machine N serves.
ready() {
  for _ in $(seq 150); do
    machine "$1" mqcluster status --check >/dev/null 2>&1 && return
    sleep 0.2
  done
  echo "quickstart: the node of machine $1 is not ready" >&2
  machine "$1" mqcluster status >&2 || true
  return 1
}

# start N runs a command that goes on as the node of machine N.
start() {
  local n=$1
  shift
  (cd "$tmp/$n" && MQCLUSTER_DATA_DIR=$tmp/$n/data exec "$@") >"$tmp/$n.log" 2>&1 &
  pids+=($!)
  nodes[$n]=$!
  ready "$n"
}

# destroy N: the node of machine N is killed, and its disk is gone.
destroy() {
  pkill -9 -P "${nodes[$1]}" || true
  kill -9 "${nodes[$1]}" 2>/dev/null || true
  wait "${nodes[$1]}" 2>/dev/null || true
  rm -rf "$tmp/$1/data"
}

# block FILE N runs a block on machine N. Its last line mqcluster run goes on in
# the background.
block() {
  local file=$1 n=$2 script
  script=$(addresses "$n" <"$file" | sed "s/MQ1\.…/${token:-none}/")
  echo "== on $n"
  printf '%s\n' "$script"
  machine "$n" bash -euo pipefail -c "${script%mqcluster run}" | tee "$tmp/out" || return
  if [ "${script%mqcluster run}" != "$script" ]; then
    start "$n" mqcluster run
  fi
}

# token FILE: the first token that a command printed.
token() { grep -o 'MQ1\.[A-Za-z0-9._-]*' "$1" | head -n 1; }

token=
for file in "$tmp"/[0-9][0-9].[123]; do
  block "$file" "${file##*.}"
  [ -n "$token" ] || token=$(token "$tmp/out")
done

addresses 9 <"$tmp/haproxy.cfg" >"$tmp/balancer.cfg"
haproxy -db -f "$tmp/balancer.cfg" >"$tmp/haproxy.log" 2>&1 &
pids+=($!)
for _ in $(seq 50); do
  (exec 3<>/dev/tcp/127.0.1.9/8883) 2>/dev/null && break
  sleep 0.1
done

cp "$tmp"/1/{ca.pem,dev1.*} "$tmp/device"
for file in "$tmp"/[0-9][0-9].device; do
  block "$file" device
done
[ "$(cat "$tmp/out")" = 21.5 ] || { echo "quickstart: the device got something else than 21.5" >&2; exit 1; }

# Everything that the documents tell an operator to type, on the cluster that is there.
documents() {
  for doc in docs/*.md; do
    [ "$doc" != docs/quickstart.zh-CN.md ] || continue # it has the README's, a test says
    dir=$tmp/docs/$(basename "$doc" .md)
    mkdir -p "$dir"
    blocks "$doc" "$dir"
    for file in "$dir"/[0-9][0-9].*; do
      [ -e "$file" ] || continue
      echo "== $doc"
      block "$file" "${file##*.}"
      ready 1
    done
  done
}

scenes=$tmp/docs/scenes
mkdir -p "$scenes"
blocks docs/failures.md "$scenes"
scene() {
  echo "== docs/failures.md, $1"
  block "$scenes/$1" "$2"
}

# patiently runs a command again until the lease of a node that was killed is over:
# until then a change says that this node has not applied it.
patiently() {
  for _ in $(seq 20); do
    "$@" && return
    sleep 0.5
  done
  return 1
}

# newcomer N runs a command that goes on as the node of machine N, which has no configuration.
newcomer() {
  MQCLUSTER_MESH_LISTEN=127.0.1.$1:7883 MQCLUSTER_HEALTH_LISTEN=127.0.1.$1:9883 \
    MQCLUSTER_LISTENERS=tls,address=127.0.1.$1:8883 start "$@"
}

# failures breaks the cluster in the order in which one can go on from the other.
failures() {
  patiently scene work 2
  kill "${nodes[2]}" && wait "${nodes[2]}"
  start 2 mqcluster run

  destroy 2
  patiently scene token 1
  token "$tmp/out" >"$tmp/token"
  cat "$scenes/replace"
  # A node counts as dead when nothing was heard of it for a while.
  newcomer 4 bash -c "for _ in \$(seq 30); do $(addresses 4 <"$scenes/replace") <../token && exit; sleep 1; done"

  destroy 3
  destroy 4
  kill "${nodes[1]}" && wait "${nodes[1]}"
  scene inspect 1
  sed -n 's/^cluster .*(\(.*\))$/\1/p' "$tmp/out" >"$tmp/name"
  block "$scenes/recover" 1 <"$tmp/name"

  for joining in '2 b' '3 c'; do
    machine 1 mqcluster token create >"$tmp/made"
    token "$tmp/made" >"$tmp/token"
    newcomer "${joining% *}" mqcluster join 127.0.1.1:7883 --token-file ../token --node "${joining#* }" --run
  done
  destroy 2
  patiently scene leave 1
  patiently scene compromised 1

  scene keygen 1
  recipient=$(grep -o 'age1[a-z0-9]*' "$tmp/out" | head -n 1)
  machine 1 mqcluster backup cluster.mqb --recipient "$recipient"
  destroy 1
  # A machine of its own has port 8883 of all its addresses; here the others have it, too.
  export MQCLUSTER_HEALTH_LISTEN=127.0.1.1:9883 MQCLUSTER_LISTENERS=tls,address=127.0.1.1:8883
  scene restore 1
}

if [ "${2:-}" = failures ]; then failures; else documents; fi
echo "quickstart: done"
