#!/usr/bin/env bash
# A machine that has little, or tells the wrong time: tests/faults/machine.sh FOLDER, a new one, as root, with
# Debian's faketime and gcc. It prints the last line of each run; runs that a fault disturbs end as the others.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd) && place=$(realpath "$1") && mkdir -p "$place" && cd "$place" || exit
python=$root/.venv/bin/python
export HOME=$place OMP_NUM_THREADS=1 WANDB_MODE=offline
PYTHONPATH=$root/tests $python -c 'from data_files import *; write_images(Path("data/imagenet"), val=2)'
small="batch_size=32 model.width=4 noise.batches=2 checkpoint_seconds=0 tracking=none"
digits="$small epochs=40 dataset.samples=96"
images="$small epochs=4 dataset=imagenet dataset.classes=3 dataset.image_size=12 dataset.samples=60 dataset.workers=2"

train() { # NAME SETTINGS…: in a shell that has the fault already
  echo "$1: $($python "$root/src/train.py" "runs_dir=$place/$1" ${*:2} 2>&1 | grep -E '^(error|warning|finished|sweep)' | tail -1)"
}
same() { # NAME OTHER: the records of two runs, without times
  $python -c 'import json, pathlib, sys
a, b = ([{k: v for k, v in json.loads(line).items() if "second" not in k} for line in next(pathlib.Path(name).glob("*/metrics.jsonl")).open()] for name in sys.argv[1:])
print(*sys.argv[1:], "same" if a == b else "differ")' "$1" "$2"
}

train plain $digits
train plain-images $images
(ulimit -n 40 && train files $digits tracking=wandb) && same plain files
(ulimit -n 40 && train files-images $images) && same plain-images files-images
export -f train && export python root place digits images
unshare -m bash -c 'mount -t tmpfs -o size=1m none /dev/shm && train shm $images; train shm-large $images dataset.image_size=128' && same plain-images shm
echo 'int *__errno_location(); int flock() { *__errno_location() = 37; return -1; }' | gcc -w -shared -fPIC -xc - -o no-locks.so
(LD_PRELOAD=$place/no-locks.so train no-locks $digits)
echo +0 > time
(
  export LD_PRELOAD=libfaketimeMT.so.1 LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/faketime
  export FAKETIME_TIMESTAMP_FILE=$place/time FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
  train clock $digits tracking=wandb
  train clock-sweep -m $digits epochs=4 seed=0,1
) &
while kill -0 $! 2> /dev/null; do
  for jump in -3d +400d -20y +0; do
    echo $jump > time.new && mv time.new time && sleep 0.2
  done
done
same plain clock
train clock-sweep -m $digits epochs=4 seed=0,1
