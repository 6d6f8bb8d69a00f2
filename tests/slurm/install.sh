#!/usr/bin/env bash
# Debian's SLURM, for the tests marked slurm. Does nothing where it is there.
set -euo pipefail

if [ "$(id -u)" != 0 ]; then
  echo "error: SLURM's daemons need root, and so does installing them" >&2
  exit 2
fi
if command -v slurmctld > /dev/null && command -v slurmd > /dev/null &&
  command -v sbatch > /dev/null; then
  exit 0
fi
if ! command -v apt-get > /dev/null; then
  echo "error: without apt-get, slurmctld, slurmd and sbatch must be installed by hand" >&2
  exit 2
fi

# The tests start daemons of their own, in a folder of their own: the packages start none.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
packages=(slurmctld slurmd slurm-client)
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null; }; then
  echo "error: ${packages[*]} cannot be installed here" >&2
  exit 2
fi
