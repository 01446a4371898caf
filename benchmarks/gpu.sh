#!/usr/bin/env bash
# Everything that wants a GPU, in two calls of at most six minutes each, the most valuable first; under $OUT each leaves
# its text, and both their figures as JSON lines.
#
#   bash benchmarks/gpu.sh first      CUDA tests, XL's training step and its profile, attention
#   bash benchmarks/gpu.sh second     sampling, checkpoint, end to end, probe overhead, evaluation
#   bash benchmarks/gpu.sh pack       for a machine with PyTorch but without a network: collects, into .device/, what it
#                                     lacks (for Python 3.12, x86-64); carry that folder along
#   SMALL=1 bash benchmarks/gpu.sh ...   the same commands at sizes that a CPU can do: a rehearsal
set -uo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  pack)
    python3 -m pip install --quiet --target .device --no-deps --upgrade --constraint constraints.txt \
      --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
      pydantic pydantic_core annotated-types typing-inspection
    exit
    ;;
  first | second) part=$1 ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac

export PYTHONPATH="src:benchmarks:.device:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
OUT="${OUT:-benchmarks/results/$(date +%F)-gpu}"
mkdir -p "$OUT"
export FIGURES="$OUT/figures.jsonl"
PYTHON="${PYTHON:-python3}"
measure() { # NAME SECONDS COMMAND...: a failure or a limit ends this measurement alone
  local name=$1 limit=$2
  shift 2
  {
    echo "== $name: $*"
    timeout "$limit" "$PYTHON" "$@" 2>&1
    local status=$?
    [ $status -eq 0 ] || echo "$name: exit $status"
  } | tee -a "$OUT/$part.txt"
}

if [ -n "${SMALL:-}" ]; then
  step=(--size S --batch 2 --repeats 2)
  sample=(--size S --images 4 --batch 2 --grid 4 --solvers dopri5)
  length=(--steps 20 --images 20)
else
  step=(--size XL --batch 256 --precision bf16)
  sample=(--size XL --weak-size B --images 64 --batch 64 --grid 16 --bf16 --compile --solvers dopri5)
  length=(--steps 120)
fi

if [ "$part" = first ]; then
  measure tests 90 -m pytest -p no:cacheprovider tests/models tests/runtime/test_cuda.py
  measure train-xl 110 benchmarks/train_step.py "${step[@]}"
  measure profile-xl 70 benchmarks/profile_step.py "${step[@]}"
  measure attention 60 benchmarks/attention.py ${SMALL:+--batch 1 --repeats 2}
else
  measure sample-xl 100 benchmarks/sample.py "${sample[@]}"
  measure checkpoint-xl 60 benchmarks/checkpoint.py --size "${step[1]}" --batch "${step[3]}" ${SMALL:+--rounds 1}
  measure end-to-end-xl 100 benchmarks/end_to_end.py "${step[@]}" "${length[@]}"
  measure probe-overhead 60 benchmarks/probe_overhead.py "${step[@]}"
  measure evaluate 40 benchmarks/evaluate.py ${SMALL:+--images 4 --rows 400 --dim 64}
fi
"$PYTHON" benchmarks/summary.py "$FIGURES"
