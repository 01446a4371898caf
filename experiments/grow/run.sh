#!/bin/sh
# sh experiments/grow/run.sh: trains, samples and prints the Fréchet distances; what is finished is found again.
set -e
config="--config experiments/grow/digits.yaml"
lwd() { python -m lwd "$@" compute.progress=false >&2; }
measure() { # run, steps, further settings
  name=$1-$2; folder=runs/grow/train/$1/step-$(printf %08d "$2"); shift 2
  lwd sample $config "sample.checkpoint=$folder" "sample.name=$name" "$@"
  lwd evaluate $config "evaluate.samples=runs/grow/samples/$name" "$@"
  python -c "import json,sys; print(sys.argv[1], json.load(open(f'runs/grow/samples/{sys.argv[1]}/evaluation.json'))['metrics']['frechet'])" "$name"
}
lwd encode $config
set -- "groups=[{name: tex, channels: 4, weight: 1}]" leader=tex
lwd train $config train.name=alone "$@" train.schedule=synchronous
lwd train $config train.name=grown train.init_from=runs/grow/train/alone/step-00001000
lwd train $config train.name=fresh
measure alone 1000 "$@" train.schedule=synchronous
for steps in 125 250 500 1000; do measure fresh $steps; measure grown $steps; done
