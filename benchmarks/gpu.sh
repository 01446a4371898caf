#!/usr/bin/env bash
# Everything that wants a GPU, in one go: CUDA tests, then the measurements, each into its own file under $OUT.
#
#   bash benchmarks/gpu.sh            on a machine where lwd and its dependencies are installed
#   bash benchmarks/gpu.sh pack       for a machine with PyTorch but without a network: collects, into .device/, what it
#                                     lacks (for Python 3.12, x86-64); carry that folder along
set -uo pipefail
cd "$(dirname "$0")/.."

if [ "${1:-}" = pack ]; then
  python3 -m pip install --quiet --target .device --no-deps --upgrade --constraint constraints.txt \
    --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
    pydantic pydantic_core annotated-types typing-inspection
  exit
fi

export PYTHONPATH="src:benchmarks:.device:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
OUT="${OUT:-benchmarks/results/$(date +%F)-gpu}"
mkdir -p "$OUT"
measure() { # NAME SECONDS COMMAND...: a failure or a limit ends this measurement alone
  local name=$1 limit=$2
  shift 2
  echo "== $name: $*"
  timeout "$limit" "$@" >"$OUT/$name.txt" 2>&1
  local status=$?
  tail -n 30 "$OUT/$name.txt"
  [ $status -eq 0 ] || echo "$name: exit $status"
}

measure tests 150 python3 -m pytest -p no:cacheprovider tests/models tests/runtime/test_cuda.py
measure train-xl 150 python3 benchmarks/train_step.py --size XL --batch 256 --precision bf16
measure attention 60 python3 benchmarks/attention.py
measure train-xl-eager 90 python3 benchmarks/train_step.py --size XL --batch 256 --precision bf16 --no-compile --repeats 3
measure train-b 60 python3 benchmarks/train_step.py --size B --batch 256 --precision bf16
measure checkpoint-xl 120 python3 benchmarks/checkpoint.py --size XL --batch 256 --precision bf16
measure end-to-end-xl 300 python3 benchmarks/end_to_end.py --size XL --batch 256 --steps 300 --precision bf16
measure forward-xl 120 python3 benchmarks/forward.py --size XL --precision bf16
measure sample-xl 150 python3 benchmarks/sample.py --size XL --weak-size B --images 512 --batch 128 --grid 16 --bf16 --compile
measure evaluate 120 python3 benchmarks/evaluate.py
measure probe-overhead 120 python3 benchmarks/probe_overhead.py --size XL --batch 256 --precision bf16
