#!/usr/bin/env bash
# usage: local.sh VERB
#
# What the module does to this machine: it starts and ends processes. Everything
# comes by variables: DIRECTORY, and what the verb needs. No secret is among them,
# nor among the arguments of a process.
#
#   open       make DIRECTORY, or refuse (PROGRAM)
#   close      end every process that is written down, remove DIRECTORY
#   program    remember what nodes are started with (PROGRAM)
#   start      start a node, made with init or join if its disk is empty
#              (NODE, CLIENT, MESH, HEALTH)
#   stop       end a node: it drains (NODE)
#   erase      remove a node's disk (NODE)
#   settle     take members out of the cluster that are not among NODES
#   balance    start HAProxy and wait until it listens (CONFIG, PORT)
#   unbalance  end it
#   gate       succeed if every one of NODES is ready and votes
#
# A process is written down as "pid start boot" before it is what it will be: a
# process id that was given to another process, or is of another boot, is never
# ended.
set -euo pipefail

# What an operator has set for the own shell is not meant for these nodes.
unset NOTIFY_SOCKET "${!MQCLUSTER_@}"
umask 077
PATH=$PATH:/usr/sbin:/sbin

: "${DIRECTORY:?}"
run=$DIRECTORY/run
logs=$DIRECTORY/log

# How long a node may take to be ready, and to send its clients away and end; in
# seconds.
ready_limit=90
stop_limit=45

fail() {
  echo "local.sh: $*" >&2
  exit 1
}

# started PID prints when a process began, in ticks since the boot; nothing if
# there is none. The name of the program, which comes before, may hold anything.
started() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) }
  # A process that has ended and is not waited for (Z, X) is none.
  case $stat in [ZX]*) return 0 ;; esac
  cut -d ' ' -f 20 <<<"$stat"
}

boot() { cat /proc/sys/kernel/random/boot_id; }

# running NAME prints the id of the process, or fails if it does not run.
running() {
  local pid start of
  read -r pid start of 2>/dev/null <"$run/$1.pid" || return 1
  [ "$of" = "$(boot)" ] && [ "$start" = "$(started "$pid")" ] || return 1
  echo "$pid"
}

# become NAME COMMAND... turns this process into COMMAND, written down first.
become() {
  local name=$1
  shift
  echo "$$ $(started $$) $(boot)" >"$run/$name.new"
  mv "$run/$name.new" "$run/$name.pid"
  exec "$@"
}

# launch NAME COMMAND... starts a process that outlives this one: in a session of
# its own, so that no Ctrl-C reaches it, and holding none of terraform's files,
# which would wait for its end.
launch() {
  local name=$1 job
  finish "$name"
  rm -f "$run/$name.pid"
  setsid "$BASH" "$0" become "$@" </dev/null >>"$logs/$name.log" 2>&1 &
  job=$!
  until running "$name" >/dev/null; do
    kill -0 "$job" 2>/dev/null || fail "$name ended at once: $(tail -n 5 "$logs/$name.log")"
    sleep 0.05
  done
}

# finish NAME ends a process, in good order if it can, and returns when it is gone.
finish() {
  local pid end=$((SECONDS + stop_limit))
  pid=$(running "$1") || { rm -f "$run/$1.pid"; return 0; }
  kill -TERM "$pid" 2>/dev/null || true
  while running "$1" >/dev/null; do
    if [ "$SECONDS" -ge "$end" ]; then
      kill -KILL "$pid" 2>/dev/null || true
    fi
    sleep 0.05
  done
  rm -f "$run/$1.pid"
}

mq() { "$(cat "$DIRECTORY/program")" "$@"; }

# serving prints the name of a node that is ready and is not NODE, or fails.
serving() {
  local file name
  for file in "$run"/n*.pid; do
    name=$(basename "$file" .pid)
    [ "$name" != "${NODE:-}" ] && running "$name" >/dev/null || continue
    mq status --check --data-dir "$DIRECTORY/$name" >/dev/null 2>&1 || continue
    echo "$name"
    return
  done
  return 1
}

members() { mq status --data-dir "$DIRECTORY/$1" | awk 'table { print } $1 == "NODE" { table = 1 }'; }

# made tells whether any disk has a node on it.
made() { compgen -G "$DIRECTORY/n*/node.json" >/dev/null; }

settings() {
  printf '%s\n' --data-dir "$DIRECTORY/$NODE" --node.id "$NODE" --server-names localhost,127.0.0.1 \
    --mesh.listen "127.0.0.1:$MESH" --mesh.advertise "127.0.0.1:$MESH" --health.listen "127.0.0.1:$HEALTH" \
    --listener "tls,address=127.0.0.1:$CLIENT,proxy_from=127.0.0.1/32"
}

# locked COMMAND runs a command while no other does that was called so.
locked() { (flock 9 && "$@") 9>"$DIRECTORY/lock"; }

# make_node makes this node: n1 makes the cluster if no disk has a node on it; else,
# and every other one, joins at a member that serves. It fails if there is none yet.
# It is called under the lock: no node looks while another one is being made.
make_node() {
  local disk=$DIRECTORY/$NODE member replace=() token
  local -a flags
  mapfile -t flags < <(settings)
  [ ! -e "$disk/node.json" ] || return 0
  if ! made; then
    [ "$NODE" = n1 ] || { echo "node n1 has not made the cluster yet"; return 1; }
    # init prints a token; nobody needs it.
    mq init "${flags[@]}" >/dev/null
    return
  fi
  member=$(serving) || { echo "no member of the cluster is ready to admit node $NODE"; return 1; }
  if members "$member" | grep -q "^$NODE "; then
    replace=(--replace "$NODE") # its disk was lost, or this is tried again
  fi
  token=$run/$NODE.token
  [ -s "$token" ] || mq token create --quiet --uses 1 --ttl 10m --data-dir "$DIRECTORY/$member" >"$token"
  mq join "$(cat "$run/$member.mesh")" --token-file "$token" "${replace[@]}" "${flags[@]}" || return 1
  rm -f "$token"
}

start() {
  : "${NODE:?}" "${CLIENT:?}" "${MESH:?}" "${HEALTH:?}"
  local end=$((SECONDS + ready_limit)) said
  rm -f "$run/$NODE.token"
  until said=$(locked make_node 2>&1); do
    [ "$SECONDS" -lt "$end" ] || fail "node $NODE was not made: $said"
    sleep 0.2
  done
  echo "127.0.0.1:$MESH" >"$run/$NODE.mesh"
  launch "$NODE" "$(cat "$DIRECTORY/program")" run --data-dir "$DIRECTORY/$NODE"
  until mq status --check --data-dir "$DIRECTORY/$NODE" >/dev/null 2>&1; do
    if ! running "$NODE" >/dev/null || [ "$SECONDS" -ge "$end" ]; then
      finish "$NODE"
      fail "node $NODE did not become ready; its last words: $(tail -n 10 "$logs/$NODE.log")"
    fi
    sleep 0.1
  done
}

settle() {
  : "${NODES:?}"
  local end=$((SECONDS + stop_limit)) member name said
  member=$(serving) || fail "no node is ready"
  for name in $(members "$member" | cut -d ' ' -f 1); do
    case " $NODES " in *" $name "*) continue ;; esac
    # One that has just ended counts as up until its lease is over.
    until said=$(mq leave "$name" --data-dir "$DIRECTORY/$member" 2>&1); do
      [ "$SECONDS" -lt "$end" ] || fail "node $name was not taken out of the cluster: $said"
      sleep 0.5
      member=$(serving) || true
    done
  done
}

open_site() {
  local tool
  for tool in setsid flock haproxy; do
    command -v "$tool" >/dev/null || fail "$tool is missing: install it (Debian: util-linux, haproxy)"
  done
  [ -x "${PROGRAM:?}" ] || fail "$PROGRAM is no program: make build makes it"
  if [ -e "$DIRECTORY" ] && [ -n "$(ls -A "$DIRECTORY")" ] && [ ! -e "$run" ]; then
    fail "$DIRECTORY has something else in it: choose another directory"
  fi
  mkdir -p "$run" "$logs"
}

close_site() {
  local file
  for file in "$run"/*.pid; do
    [ ! -e "$file" ] || finish "$(basename "$file" .pid)" &
  done
  wait
  rm -rf "$run" "$logs" "$DIRECTORY"/n[1-5] "$DIRECTORY"/{lock,program,haproxy.cfg}
  rmdir "$DIRECTORY" 2>/dev/null || true # what else was put there stays
}

balance() {
  : "${CONFIG:?}" "${PORT:?}"
  local file=$DIRECTORY/haproxy.cfg end=$((SECONDS + 10))
  printf '%s' "$CONFIG" >"$file"
  haproxy -c -q -f "$file" || fail "haproxy refuses $file"
  launch balancer haproxy -db -f "$file"
  until (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do
    if ! running balancer >/dev/null || [ "$SECONDS" -ge "$end" ]; then
      finish balancer
      fail "haproxy does not listen at 127.0.0.1:$PORT: $(tail -n 5 "$logs/balancer.log")"
    fi
    sleep 0.05
  done
}

gate() {
  : "${NODES:?}"
  local name member
  for name in $NODES; do
    mq status --check --data-dir "$DIRECTORY/$name" >/dev/null || return 1
    member=$name
  done
  for name in $NODES; do
    members "$member" | awk -v node="$name" '$1 == node && $2 != "non-voter" && $3 == "up" { good = 1 } END { exit !good }' ||
      fail "node $name waits for its vote, or is not well"
  done
}

case ${1:-} in
  become) shift && become "$@" ;;
  open) open_site ;;
  close) close_site ;;
  program) echo "${PROGRAM:?}" >"$DIRECTORY/program" ;;
  start) start ;;
  stop) finish "${NODE:?}" ;;
  erase) rm -rf "$DIRECTORY/${NODE:?}" "$run/$NODE.mesh" ;;
  settle) settle ;;
  balance) balance ;;
  unbalance) finish balancer ;;
  gate) gate ;;
  *) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
