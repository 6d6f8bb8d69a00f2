#!/usr/bin/env bash
# `make lock`: solve all requirements of pyproject.toml together, then write, from that solution, train.lock
# for the programs and beside it dev.lock for all else. Arguments are pip-compile's: --no-upgrade keeps the
# versions there are. .venv must be of the oldest Python, so that the versions are there for newer ones too.
set -euo pipefail
cd "$(dirname "$0")/.."
export CUSTOM_COMPILE_COMMAND="make lock"
new=$(mktemp)
trap 'rm -f "$new"' EXIT

# torch and torchvision come by range: their builds differ by machine.
compile() {
  "${VENV:-.venv}/bin/pip-compile" --quiet --strip-extras --generate-hashes \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
    --unsafe-package=torch --unsafe-package=torchvision --unsafe-package=pip --unsafe-package=setuptools \
    --output-file "$new" "$@" pyproject.toml
}

# Left out are what comes with torch where it needs it (CUDA's libraries and triton, of which there are
# none for macOS), what the file given as second argument has, and the list of packages that are not locked.
write() {
  awk -v first="$2" 'FILENAME == first { held[$1]; next }
    /^# (WARNING|The following)/ { exit }
    /^[a-z]/ { drop = /^(cuda|nvidia|triton)/ || ($1 in held) }
    !drop && NF' "$2" "$new" > "$1"
}

# pip-compile keeps the versions and hashes that its file has.
cat requirements/train.lock requirements/dev.lock > "$new"
compile --all-extras --upgrade "$@"
all=$(< "$new")
compile --extra={train,report,dashboard}
write requirements/train.lock /dev/null
echo "$all" > "$new"
write requirements/dev.lock requirements/train.lock

# What the wheel and the sdist are built and checked with; setuptools is the project's own build-system.
printf '%s\n' build 'setuptools>=77' twine | "${VENV:-.venv}/bin/pip-compile" --quiet --strip-extras --generate-hashes \
  --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --upgrade "$@" \
  --output-file requirements/release.lock -
