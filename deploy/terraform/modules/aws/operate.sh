#!/usr/bin/env bash
# usage: operate.sh VERB
#
# What an operator's machine asks of the nodes. NODES is a list of name=user@address;
# REMOTE is the command that runs another one there.
#
#   gate      succeed if every node is ready and VOTERS of them vote
#   balance   spread the clients evenly over the nodes
set -euo pipefail

: "${NODES:?}" "${REMOTE:?}"

# ask NODE COMMAND... runs a command on a node.
ask() {
  local target=${1#*=}
  shift
  # shellcheck disable=SC2086 # REMOTE has arguments
  $REMOTE "$target" sudo "$@" </dev/null 2>&1
}

gate() {
  local node status up
  for node in $NODES; do
    status=$(ask "$node" mqcluster status --check) || { echo "node ${node%%=*} is not ready: $status"; return 1; }
  done
  up=$(awk 'table && $2 != "non-voter" && $3 != "down" { n++ } $1 == "NODE" { table = 1 } END { print n + 0 }' <<<"$status")
  [ "$up" -ge "${VOTERS:?}" ] || { echo "$up nodes vote and are up, not $VOTERS"; return 1; }
}

case ${1:-} in
  gate) gate ;;
  balance) ask "${NODES%% *}" mqcluster balance --timeout 5m ;;
  *) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
