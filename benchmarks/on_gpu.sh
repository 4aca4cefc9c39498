#!/usr/bin/env bash
# Everything that only a GPU can show: benchmarks/on_gpu.sh FOLDER [tests|eager|compiled ...]
# tests: what is skipped elsewhere. eager: the table without compilers (three minutes). compiled: the 35.7 M network, ours and theirs
# compiled alike, then sampling with the small one (a compiler takes minutes for each: nothing else should run). By default all three.
# Logs and bench-cuda*.json go to FOLDER as soon as they are there; wheels in .whl are installed first, if there are any.
set -u
out=$(realpath "${1:?where to}")
shift
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl || exit 1
  export PYTHONPATH=/tmp/site
fi
export PYTHONPATH=.:${PYTHONPATH:-} TQDM_DISABLE=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=4
bench="python3 benchmarks/bench.py --device cuda --threads 4 --out $out"
nvidia-smi -L
for part in "${@:-tests eager compiled}"; do for what in $part; do
  case $what in
    tests) python3 -m pytest -v --tb=short -p no:cacheprovider tests/test_any_sampler.py tests/test_runs.py tests/test_prediction.py \
             -k 'cuda or gpu' >"$out/tests.log" 2>&1; tail -n 20 "$out/tests.log" ;;
    eager) $bench --compile --tag=-eager --only 'ours bf16*' 'diffusers as shipped' 'diffusers bf16 channels_last' 'lucidrains network bf16' \
             'lucidrains Trainer' 2>&1 | grep -v it/s | tee "$out/eager.log" ;;
    compiled) $bench --networks big --measure train --compile big --tag=-compiled --only 'ours bf16 compile' 'diffusers bf16 compile' \
                'diffusers as shipped' 2>&1 | tee "$out/compiled.log"
              $bench --networks small --measure sample --compile small --tag=-sampling --only 'ours bf16' 'ours bf16 compile' \
                'diffusers as shipped' 'diffusers bf16 channels_last' 2>&1 | tee "$out/sampling.log" ;;
  esac
done; done
