#!/usr/bin/env bash
# usage: bench-compare.sh BASE BENCH COUNT PACKAGES...
#
# Runs the Go benchmarks of the commit BASE and those of the work tree in turn,
# COUNT times each, so that what the machine does meanwhile meets both, and
# compares them. BENCHTIME (200ms) is how long one benchmark runs.
set -euo pipefail

base=$1 bench=$2 count=$3
shift 3
go=${GO:-go}
benchstat=${BENCHSTAT:-bin/tools/benchstat}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

mkdir "$tmp/tree" "$tmp/base" "$tmp/work"
git archive "$base" | tar -x -C "$tmp/tree"

# build SIDE FOLDER PACKAGE makes one test binary, if the package has benchmarks.
build() {
  local side=$1 folder=$2 package=$3
  grep -qs '^func Benchmark' "$folder/$package"/*_test.go || return 0
  "$go" test -C "$folder" -c -o "$tmp/$side/${package//\//_}" "./$package"
}

root=$PWD
packages=()
while read -r dir; do
  package=${dir#"$root"}
  package=${package#/}
  build work "$root" "${package:-.}"
  build base "$tmp/tree" "${package:-.}"
  [ -x "$tmp/work/${package//\//_}" ] && packages+=("$package")
done < <("$go" list -f '{{.Dir}}' "$@")

for _ in $(seq "$count"); do
  for package in "${packages[@]}"; do
    for side in base work; do
      binary=$tmp/$side/${package//\//_}
      folder=$root/$package
      [ "$side" = base ] && folder=$tmp/tree/$package
      [ -x "$binary" ] || continue
      (cd "$folder" && "$binary" -test.run '^$' -test.bench "$bench" -test.benchmem -test.benchtime "${BENCHTIME:-200ms}") |
        sed "s,^pkg: .*,pkg: $package," >>"$tmp/$side.txt"
    done
  done
done
"$benchstat" base="$tmp/base.txt" work="$tmp/work.txt"
