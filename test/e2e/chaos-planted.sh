#!/usr/bin/env bash
# Shows that chaos finds what it is there for: builds the program with each planted
# fault and runs plans, of those kinds of faults that matter for it, until the
# checker complains of a rule that the fault breaks; five plans at most.
#
#   test/e2e/chaos-planted.sh [TAG...]
#
# CHAOS_DURATION (40s) is how long a plan lasts, E2E_SEED (1) the first seed.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Which promise a lost message breaks is a hint only: P1, P2 or P8.
lost='P1 acknowledged|P2 nothing is lost|P8 SUBACK'
# tag | rules of which one has to be broken | kinds of faults
faults="\
plant_ack_before_commit     | $lost                                          | kill -9 of (the leader|two|all)|isolation of the leader
plant_forget_cursor         | P2 a repetition|P2 QoS 2                       | kill -9
plant_lose_epoch_fence      | P3|P2 a repetition|P2 QoS 2|P6                 | one-way|shorter than a lease|isolation of
plant_skip_pack_number      | P2 a repetition|P2 QoS 2|P6|P5                 | leader|isolation|bridge
plant_skip_qos2_record      | P2 QoS 2                                       | kill -9|orderly stop|rolling
plant_restore_without_flush | $lost|P2 session present|P2 QoS 2              | kill -9 of all|rolling restart
plant_will_twice            | P5                                             | kill -9|isolation
plant_shared_member_local   | P7                                             | kill -9|isolation"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
go test -c -o "$dir/e2e" ./test/e2e
printf '%-28s %5s  %s\n' tag plans 'found by'
missed=0
while IFS= read -r line; do
  tag=${line%% *}
  [ $# -eq 0 ] || [[ " $* " == *" $tag "* ]] || continue
  rules=$(sed -E 's/^[^|]*\| (.*[^ ]) +\| .*$/\1/' <<<"$line")
  kinds=${line##* | }
  go build -tags "$tag" -o "$dir/mqcluster" ./cmd/mqcluster
  found=
  for plan in 1 2 3 4 5; do
    (cd test/e2e && MQCLUSTER_BIN=$dir/mqcluster CHAOS_KINDS=$kinds CHAOS_PLANS=1 CHAOS_DURATION=${CHAOS_DURATION:-40s} \
      E2E_SEED=$((${E2E_SEED:-1} + plan - 1)) "$dir/e2e" -test.run '^TestChaosPlan$' -test.v >"$dir/$tag.$plan" 2>&1) || true
    [ -z "${CHAOS_HISTORY:-}" ] || cp "$dir/$tag.$plan" "$CHAOS_HISTORY/"
    found=$(grep -m1 -E "^ +($rules)[^:]*: " "$dir/$tag.$plan" | sed -E 's/^ +//' | cut -c1-150) || true
    [ -z "$found" ] || break
  done
  [ -n "$found" ] || { missed=1; plan='-'; found='NOT FOUND'; }
  printf '%-28s %5s  %s\n' "$tag" "$plan" "$found"
done <<<"$faults"
exit "$missed"
