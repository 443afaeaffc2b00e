#!/usr/bin/env bash
# usage: rolling-replace.sh ROOT [NODE...] [-- OPTION...]
#
# Replaces the nodes of a terraform root one after the other, all of them or those
# named, so that clients lose nothing: before each, and after the last, it waits
# until the whole cluster is well. It stops at the first that does not come back,
# with all others as they were. Run it again to go on.
#
#   rolling-replace.sh deploy/terraform/roots/local
#   rolling-replace.sh deploy/terraform/roots/aws b -- -var-file=site.tfvars
#
# What follows -- goes to terraform plan and apply: the same as at the last apply.
#
# A root says by three outputs how that is done there:
#   gate_command     a command of the shell that succeeds when one node may be taken
#                    down: all are ready, and as many vote as shall
#   balance_command  one that spreads the clients evenly again: a node comes
#                    back without any, and the last one stays so
#   replace          a line for each node: its name, then the addresses of the
#                    resources that are replaced with it
#
# GATE_LIMIT is how long the cluster may take to be well, in seconds (300).
set -euo pipefail

fail() {
  echo "rolling-replace: $*" >&2
  exit 1
}

case ${1:-} in
  '' | -*) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
root=$1
shift
wanted=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  wanted+=("$1")
  shift
done
[ $# -eq 0 ] || shift
options=(-input=false "$@")

tf() { terraform -chdir="$root" "$@"; }

# gate waits until the cluster has been well three times in a row: a node that
# comes and goes is not well.
gate() {
  local end=$((SECONDS + ${GATE_LIMIT:-300})) good=0 command said=
  command=$(tf output -raw gate_command) || fail "$root has no output gate_command: apply it first"
  while [ "$good" -lt 3 ]; do
    if said=$(bash -c "$command" 2>&1); then
      good=$((good + 1))
    else
      good=0
      [ "$SECONDS" -lt "$end" ] || fail "the cluster is not well, so no node is taken down: $said"
    fi
    sleep 1
  done
}

# settled refuses a root with changes that are not applied: they would come along
# with the first node.
settled() {
  local status=0 plan
  plan=$(tf plan -detailed-exitcode -no-color -lock-timeout=60s "${options[@]}" 2>&1) || status=$?
  case $status in
    0) ;;
    2) fail "the root has changes that are not applied: run terraform apply first, with the same options" ;;
    *) fail "terraform plan failed: $plan" ;;
  esac
}

lines=$(tf output -raw replace) || fail "$root has no output replace: apply it first"
names=()
declare -A addresses=()
while read -r name rest; do
  names+=("$name")
  addresses[$name]=$rest
done <<<"$lines"
[ "${#wanted[@]}" -gt 0 ] || wanted=("${names[@]}")
for name in "${wanted[@]}"; do
  [ -n "${addresses[$name]:-}" ] || fail "there is no node $name: the root has ${names[*]}"
done

settled
for name in "${wanted[@]}"; do
  gate
  replace=()
  for address in ${addresses[$name]}; do
    replace+=("-replace=$address")
  done
  echo "rolling-replace: node $name"
  tf apply -auto-approve -no-color -lock-timeout=60s "${replace[@]}" "${options[@]}"
done
gate
balance=$(tf output -raw balance_command) || fail "$root has no output balance_command: apply it first"
bash -c "$balance" || fail "all are replaced and well, but their clients are not spread evenly: run this again: $balance"
echo "rolling-replace: ${#wanted[@]} replaced, the cluster is well"
