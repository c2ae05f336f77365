#!/usr/bin/env bash
# install.sh DIR [BINARY]: puts nix-builders, what it calls, tailscale and tailscaled into
# DIR/bin.
#
# With BINARY they are copied from there: a directory that holds them, or nix-builders
# itself. Else they come from the release that release/checksums.txt names, if it was
# built from the very source beside this script and there is one for this platform; the
# archive must have the SHA-256 that stands there. Else, and when the download fails, they
# are built from this source with the Go on PATH.
#
#   SETUP_NIX_BUILDERS_MIRROR    where releases lie: MIRROR/VERSION/ASSET
#   SETUP_NIX_BUILDERS_MAX_TIME  seconds for one try of the download (default 120)
#   RUNNER_TOOL_CACHE            where archives are kept, and looked for first
#
# It is for the bash 3.2 of macOS, and for the tools of GNU, BSD and busybox.
set -euo pipefail
export LC_ALL=C

readonly project=Misaka13514/setup-distributed-nix-builds

# on_github COMMAND TEXT: tells GitHub's runner something, in its own language.
on_github() {
  [ "${GITHUB_ACTIONS:-}" = true ] || return 0
  local cr=$'\r' lf=$'\n' text=${2//%/%25}
  text=${text//$cr/%0D}
  text=${text//$lf/%0A}
  printf '::%s::%s\n' "$1" "$text"
}

die() {
  if [ "${GITHUB_ACTIONS:-}" = true ]; then
    on_github endgroup ''
    on_github 'error title=nix-builders can not be installed' "$*"
  else
    printf 'install.sh: %s\n' "$*" >&2
  fi
  exit 1
}

# sum: the SHA-256 of what it reads.
sum() {
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

# sums: a line "SHA-256  NAME" for each file whose name it reads.
sums() {
  if command -v sha256sum >/dev/null; then
    tr '\n' '\0' | xargs -0 sha256sum
  else
    tr '\n' '\0' | xargs -0 shasum -a 256
  fi
}

# source_digest: what the programs are made of, in one number. Digest in
# internal/release/source.go computes the same.
source_digest() {
  (
    cd "$source"
    find . \( -name '.?*' -o -path ./e2e -o -name testdata -o -name node_modules \) -prune -o \
      -type f \( \( -name '*.go' ! -name '*_test.go' \) -o -path ./go.mod -o -path ./go.sum -o -path ./openapi.yaml \
      -o -path ./tools/go.mod -o -path ./tools/go.sum \) -print | sort | sums | sum
  )
}

# checksum KEY: the word beside KEY in release/checksums.txt; the key of an asset is its name.
checksum() {
  awk -v key="$1" '$1 == key { print $2 } $2 == key && length($1) == 64 { print $1 }' "$source/release/checksums.txt"
}

# platform: OS_ARCH, as in the names of assets.
platform() {
  local os arch
  case $(uname -s) in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) return 1 ;;
  esac
  case $(uname -m) in
    x86_64 | amd64) arch=amd64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) return 1 ;;
  esac
  printf '%s_%s\n' "$os" "$arch"
}

# find_release: sets version, asset, want; or why there is none.
find_release() {
  local built here system
  version=$(checksum version)
  if [ "$version" = none ]; then
    why="there is no release yet"
    return 1
  fi
  built=$(checksum source)
  here=$(source_digest)
  if [ "$built" != "$here" ]; then
    why="the source here is not that of the release $version, but of ${here:0:12}"
    return 1
  fi
  if ! system=$(platform); then
    why="there is no release for $(uname -s) on $(uname -m)"
    return 1
  fi
  asset=nix-builders_${version}_$system.tar.gz
  want=$(checksum "$asset")
  if [ -z "$want" ]; then
    why="the release $version has nothing for $system"
    return 1
  fi
}

# from_cache FILE: copies the asset from the runner's tool cache, if it is there.
from_cache() {
  if [ -z "$cache" ] || [ ! -f "$cache/$asset" ] || ! cp "$cache/$asset" "$1"; then return 1; fi
  # Others may write there: what counts is the copy.
  if [ "$(sum <"$1")" != "$want" ]; then
    echo "The copy in $cache is damaged: downloading it again."
    return 1
  fi
}

# to_cache FILE: keeps the asset for the next job on this machine, if that can be.
to_cache() {
  local part
  [ -n "$cache" ] || return 0
  if mkdir -p "$cache" 2>/dev/null && part=$(mktemp "$cache/.part.XXXXXX" 2>/dev/null); then
    # In one step: somebody else may be at it too.
    if cp "$1" "$part" && chmod 644 "$part" && mv -f "$part" "$cache/$asset"; then return 0; fi
    rm -f "$part"
  fi
  echo "The archive is not kept: $cache can't be written."
}

# download URL FILE: or says why not.
download() {
  local try status
  if ! command -v curl >/dev/null; then
    why="there is no curl"
    return 1
  fi
  for try in 1 2 3; do
    [ "$try" = 1 ] || sleep "$((try - 1))"
    if status=$(curl --fail --silent --show-error --location --proto "$protocols" --proto-redir "$protocols" \
      --connect-timeout 10 --max-time "$max_time" --speed-limit 1024 --speed-time 30 \
      --write-out '%{http_code}' --output "$2" "$1" 2>"$2.why"); then
      return 0
    fi
    why="the download of $1 failed: $(tail -n 1 "$2.why")"
    printf 'Try %s: %s.\n' "$try" "$why"
    case $status in 408 | 429) ;; 4??) break ;; esac # it won't be there a second later either
  done
  return 1
}

# from_release: puts the release's programs into $new.
from_release() {
  local file=$tmp/$asset
  cache=${RUNNER_TOOL_CACHE:+$RUNNER_TOOL_CACHE/setup-distributed-nix-builds/$version}
  if from_cache "$file"; then
    did="from $cache/$asset, with the SHA-256 of the release $version"
  else
    rm -f "$file"
    download "$mirror/$version/$asset" "$file" || return 1
    local got
    got=$(sum <"$file")
    if [ "$got" != "$want" ]; then
      die "$mirror/$version/$asset has the SHA-256 $got, and not $want, which this action was released with. Somebody has changed it on the way or at its source: nothing of it was run. Report this at https://github.com/$project/issues."
    fi
    to_cache "$file"
    did="from $mirror/$version/$asset, with the SHA-256 of the release"
  fi
  tar -xzf "$file" -C "$new" || die "$asset can't be unpacked into $new; see tar's message above: is the disk full?"
}

# from_source: builds the programs into $new, with the flags of a release.
from_source() {
  local advice="Use a released version of the action (uses: $project@vX.Y.Z), or put a step with actions/setup-go before it."
  command -v go >/dev/null || die "$why, and there is no Go here to build from source. $advice"
  echo "Building from source, for $why. This takes some minutes where Go has no cache."
  # What the job has set for its own Go programs is not for ours.
  (
    cd "$source"
    unset GOOS GOARCH GOFLAGS GOEXPERIMENT
    CGO_ENABLED=0 GOWORK=off go run ./release -programs "$new"
  ) || die "$why, and the build from source failed; its messages stand in the log above. Its Go is $(go env GOVERSION 2>/dev/null || echo broken), and it needs $(awk '$1 == "go" { print $2 }' "$source/go.mod") or newer, or the leave to fetch it (GOTOOLCHAIN=auto). $advice"
  did="built from the source in $source with $(cd "$source" && go env GOVERSION), for $why"
}

# from_binary PATH: copies programs that somebody else has built into $new.
from_binary() {
  local name
  if [ -f "$1" ]; then
    cp "$1" "$new/nix-builders"
    if ! command -v tailscale >/dev/null || ! command -v tailscaled >/dev/null; then
      die "$1 is one program, and there are no tailscale and tailscaled on PATH. Give a directory with nix-builders and tailscale."
    fi
  elif [ -d "$1" ]; then
    for name in nix-builders nix-builders-hook tailscale tailscaled; do
      [ ! -f "$1/$name" ] || cp "$1/$name" "$new/$name"
    done
    [ -f "$new/nix-builders" ] || die "the directory $1 has no nix-builders in it."
    # One program may be both, and then it is there once. The file is the daemon's: for
    # each SSH session it starts itself anew, by the name of its file.
    if [ ! -f "$new/tailscaled" ] && [ -f "$new/tailscale" ]; then
      mv "$new/tailscale" "$new/tailscaled"
    fi
    [ -f "$new/tailscaled" ] || die "the directory $1 has no tailscale in it."
    if [ ! -f "$new/tailscale" ] || cmp -s "$new/tailscale" "$new/tailscaled"; then
      ln -sf tailscaled "$new/tailscale"
    fi
  else
    die "there is no $1: the input \`binary\` names a directory with nix-builders and tailscale, or nix-builders itself."
  fi
  # Artefacts of a workflow lose these.
  for name in nix-builders nix-builders-hook tailscale tailscaled; do
    [ ! -f "$new/$name" ] || chmod 755 "$new/$name"
  done
  did="copied from $1"
}

# check: what is in $new must run here.
check() {
  local name
  runs=$("$new/nix-builders" version) || die "the nix-builders that came $did does not run here ($(uname -s) on $(uname -m))."
  for name in tailscale tailscaled; do
    [ ! -f "$new/$name" ] || "$new/$name" --version >/dev/null || die "the $name that came $did does not run here ($(uname -s) on $(uname -m))."
  done
}

# put: moves what is in $new to where it is found. Each program is there as a whole or not
# at all; nix-builders comes last, for the teardown calls it as soon as it is there.
put() {
  local name
  mkdir -p "$dir/bin"
  for name in tailscaled tailscale nix-builders-hook nix-builders; do
    # A link whose target has been moved away is still to be moved.
    if [ -f "$new/$name" ] || [ -h "$new/$name" ]; then mv -f "$new/$name" "$dir/bin/$name"; fi
  done
  rm -rf "$dir/doc"
  rmdir "$new" 2>/dev/null || mv "$new" "$dir/doc" # the licences, if it was a release
}

main() {
  local binary=${2:-}
  [ -n "${1:-}" ] || die "usage: install.sh DIR [BINARY]"
  source=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  tmp=$(mktemp -d "$dir/.install.XXXXXX") # where a move is a rename
  trap 'rm -rf "$tmp"' EXIT
  new=$tmp/new
  mkdir "$new"
  mirror=${SETUP_NIX_BUILDERS_MIRROR:-https://github.com/$project/releases/download}
  mirror=${mirror%/}
  protocols='=https'
  [ -z "${SETUP_NIX_BUILDERS_MIRROR:-}" ] || protocols='=https,http' # on a network of one's own
  max_time=${SETUP_NIX_BUILDERS_MAX_TIME:-120}

  on_github group 'Install nix-builders'
  if [ -n "$binary" ]; then
    from_binary "$binary"
  elif ! find_release; then
    from_source
  elif ! from_release; then
    on_github 'warning title=nix-builders is built from source' "$why."
    from_source
  fi
  check
  put
  on_github endgroup ''
  printf '%s, %s.\n' "${runs%% go*}" "$did"
}

main "$@"
exit
