#!/usr/bin/env bash
# fuzz.sh TIME: runs every fuzz target for TIME (such as 20s), one after the other.
set -euo pipefail
time=${1:?usage: fuzz.sh TIME}
found=0
while IFS=: read -r file target; do
  found=1
  echo "fuzz $target in $(dirname "$file")"
  go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")"
done < <(git grep -oE 'func Fuzz[A-Za-z0-9_]+' -- '*_test.go' | sed 's/func //')
[ "$found" = 1 ] || { echo "no fuzz target found" >&2; exit 1; }
