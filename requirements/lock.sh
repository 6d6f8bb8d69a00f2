#!/usr/bin/env bash
# `make lock`: solve all requirements of pyproject.toml together (constraints.txt), then write, from that
# solution, what each purpose needs, with hashes: train.lock for the programs, and beside it dev.lock,
# bench.lock, examples.lock and docs.lock. Arguments are pip-compile's: --no-upgrade keeps the versions there are.
# --dry-run is ours: print the calls of pip-compile and the files, write nothing, use no network.
set -euo pipefail
cd "$(dirname "$0")/.."
export CUSTOM_COMPILE_COMMAND="make lock"
new=$(mktemp)
trap 'rm -f "$new"' EXIT
dry=
if [ "${1-}" = --dry-run ]; then dry=echo; shift; fi

# torch and torchvision come by range: their builds differ by machine.
compile() {
  $dry "${VENV:-.venv}/bin/pip-compile" --quiet --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
    --unsafe-package=torch --unsafe-package=torchvision --unsafe-package=pip --unsafe-package=setuptools \
    --output-file "$new" "$@" pyproject.toml
}

# Left out are what comes with torch where it needs it (CUDA's libraries and triton, of which there are
# none for macOS), what the file given as second argument has, and the list of packages that are not locked.
write() {
  if [ "$dry" ]; then echo "write $1"; return; fi
  awk -v first="$2" 'FILENAME == first { held[$1]; next }
    /^# (WARNING|The following)/ { exit }
    /^[a-z]/ { drop = /^(cuda|nvidia|triton)/ || ($1 in held) }
    !drop && NF' "$2" "$new" > "$1"
}

# What a lock has already, is there for its hashes alone.
already() { cat "$@" 2> /dev/null > "$new" || true; }

already requirements/constraints.txt
compile --all-extras --no-annotate --upgrade "$@"
write requirements/constraints.txt /dev/null

already requirements/train.lock
compile --generate-hashes --constraint requirements/constraints.txt --extra={train,report,lab,search,dashboard}
write requirements/train.lock /dev/null
for purpose in dev bench examples docs; do
  already requirements/train.lock requirements/$purpose.lock
  compile --generate-hashes --constraint requirements/constraints.txt --extra=$purpose
  write requirements/$purpose.lock requirements/train.lock
done
