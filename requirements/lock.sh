#!/usr/bin/env bash
# `make lock`: solve all requirements of pyproject.toml together (constraints.txt), then write, from that
# solution, what each purpose needs, with hashes: train.lock for the programs, and beside it dev.lock,
# bench.lock and examples.lock. Arguments are pip-compile's: --no-upgrade keeps the versions there are.
set -euo pipefail
cd "$(dirname "$0")/.."
export CUSTOM_COMPILE_COMMAND="make lock"
new=$(mktemp)
trap 'rm -f "$new"' EXIT

# torch and torchvision come by range: their builds differ by machine.
compile() {
  "${VENV:-.venv}/bin/pip-compile" --quiet --strip-extras --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
    --unsafe-package=torch --unsafe-package=torchvision --unsafe-package=pip --unsafe-package=setuptools \
    --output-file "$new" "$@" pyproject.toml
}

# Left out are what comes with torch where it needs it (CUDA's libraries and triton, of which there are
# none for macOS), what the file given as argument has, and the list of packages that are not locked.
without() {
  awk -v first="$1" 'FILENAME == first { held[$1]; next }
    /^# (WARNING|The following)/ { exit }
    /^[a-z]/ { drop = /^(cuda|nvidia|triton)/ || ($1 in held) }
    !drop' "$1" "$new"
}

cp requirements/constraints.txt "$new"
compile --all-extras --no-annotate --upgrade "$@"
without /dev/null > requirements/constraints.txt

# What a lock has already, is there for its hashes alone.
touch requirements/{train,dev,bench,examples}.lock
cp requirements/train.lock "$new"
compile --generate-hashes --constraint requirements/constraints.txt --extra={train,report,search,dashboard}
without /dev/null > requirements/train.lock
for purpose in dev bench examples; do
  cat requirements/train.lock requirements/$purpose.lock > "$new"
  compile --generate-hashes --constraint requirements/constraints.txt --extra=$purpose
  without requirements/train.lock > requirements/$purpose.lock
done
