#!/usr/bin/env bash
# Everything that wants a GPU, in two calls of at most six minutes each, the most valuable first; under $OUT each leaves
# its text, and both their figures as JSON lines.
#
#   bash benchmarks/gpu.sh first      CUDA tests, XL's training step and its profile, attention
#   bash benchmarks/gpu.sh second     sampling, forward pass, end to end, probe overhead, checkpoint, evaluation
#   bash benchmarks/gpu.sh pack       for a machine with PyTorch but without a network: collects, into .device/, what it
#                                     lacks (for Python 3.12, x86-64); carry that folder along
#   bash benchmarks/gpu.sh study      the study's preset gpu for at most nine minutes; again: goes on (on another machine from
#                                     the rows of $OUT/study-gpu.tgz, unpacked into runs/gpu-rows). `pack study` collects
#                                     what it needs; runs/dinov2-half and runs/fashion-32-8k.safetensors are carried, too
#   SMALL=1 bash benchmarks/gpu.sh ...   the same commands at sizes that a CPU can do: a rehearsal
set -uo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  pack)
    encoders="diffusers importlib_metadata lazy_importer zipp"
    # shellcheck disable=SC2086 # several words
    python3 -m pip install --quiet --no-compile --target .device --no-deps --upgrade --constraint constraints.txt \
      --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
      pydantic pydantic_core annotated-types typing-inspection typing_extensions \
      $([ "${2:-}" = study ] || echo $encoders)
    exit
    ;;
  first | second | study) part=$1 ;;
  *)
    sed -n '2,12s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac

PYTHON="${PYTHON:-python3}"
# What `pack` collected is for Python 3.12 alone.
[ "$("$PYTHON" -c 'import sys; print(*sys.version_info[:2])')" = "3 12" ] && packed=:.device
export PYTHONPATH="src:benchmarks${packed:-}:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
OUT="${OUT:-benchmarks/results/$(date +%F)-gpu}"
mkdir -p "$OUT"
export FIGURES="$OUT/figures.jsonl"
measure() { # NAME SECONDS COMMAND...: a failure or a limit ends this measurement alone
  local name=$1 limit=$2
  shift 2
  [ -z "${SMALL:-}" ] || limit=$((10 * limit)) # not of a rehearsal
  {
    echo "== $name: $*"
    local started=$SECONDS status=0
    timeout --kill-after=5 "$limit" "$PYTHON" "$@" 2>&1 || status=$?
    [ $status -eq 0 ] || echo "$name: exit $status"
    echo "{\"benchmark\": \"gpu.sh\", \"what\": \"$name\", \"exit\": $status, \"took_s\": $((SECONDS - started)), \"limit_s\": $limit}" >>"$FIGURES"
  } | tee -a "$OUT/$part.txt"
}

if [ -n "${SMALL:-}" ]; then
  step=(--size Ti --batch 2 --repeats 1)
  sample=(--size Ti --weak-size Mini --images 4 --batch 2 --grid 4 --solvers dopri5)
  forward=(--size Ti --batches 1 2 --repeats 1)
  length=(--steps 20 --images 20)
  checkpoint=(--size Ti --batch 2 --rounds 1)
else
  step=(--size XL --batch 256 --precision bf16)
  sample=(--size XL --weak-size B --images 64 --batch 64 --grid 16 --bf16 --compile --solvers dopri5)
  forward=(--size XL --precision bf16 --batches 64) # as sample-xl, so that it is compiled already
  length=(--steps 60 --images 1000 --repeats 5)
  checkpoint=(--size XL --batch 256 --precision bf16 --rounds 2)
fi

if [ "$part" = study ]; then
  small=()
  if [ -n "${SMALL:-}" ]; then
    "$PYTHON" experiments/study/fashion.py --to runs/small --count 48 || exit
    small=(--output runs/small/study encode.dataset=runs/small/fashion-32-8k.safetensors
      encode.{encoder,judge}_steps=5 model.depth=2 model.width=48 "probe={steps: 4, burn_in: 2, batch: 4}"
      "sweep={kinetic_weights: [0.06], collapsed_below: 0.0}" train.batch=4 map.images=4 map.points=3 score.nodes=3
      "sample={num: 12, batch: 12, block: 12, solver: heun, steps: 1}" study.cells.paths.budgets=[3]
      study.hypotheses.{learned,lead,hand,label,map}.at.steps=3)
  fi
  rows=runs/${SMALL:+small/}gpu-rows
  study=("$PYTHON" experiments/study/study.py --preset gpu --results "$rows")
  status=0
  timeout --signal=TERM --kill-after=20 540 "${study[@]}" "${small[@]}" || status=$?
  # In one archive, since few files come back from a lent machine.
  if ! "${study[@]}" --only rows "${small[@]}" || ! tar -czf "$OUT/study-gpu.tgz" -C "$rows" gpu; then
    [ $status -ne 0 ] || status=1
  fi
  exit $status
fi
if [ "$part" = first ]; then
  measure tests 90 -m pytest -p no:cacheprovider -n 3 tests/runtime/test_cuda.py
  measure train-xl 130 benchmarks/train_step.py "${step[@]}"
  measure profile-xl 70 benchmarks/profile_step.py "${step[@]}"
  measure attention 60 benchmarks/attention.py ${SMALL:+--batch 1 --repeats 1}
else
  measure sample-xl 90 benchmarks/sample.py "${sample[@]}"
  measure forward-xl 45 benchmarks/forward.py "${forward[@]}"
  measure end-to-end-xl 105 benchmarks/end_to_end.py "${step[@]}" "${length[@]}"
  measure probe-overhead 45 benchmarks/probe_overhead.py "${step[@]}"
  measure checkpoint-xl 45 benchmarks/checkpoint.py "${checkpoint[@]}"
  measure evaluate 30 benchmarks/evaluate.py ${SMALL:+--images 2 --rows 400 --dim 64 --repeats 1}
fi
"$PYTHON" benchmarks/summary.py "$FIGURES"
