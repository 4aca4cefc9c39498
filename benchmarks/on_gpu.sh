#!/usr/bin/env bash
# Everything that only a GPU can show, in about seven minutes: the tests that are skipped elsewhere, then the table of peers.
# benchmarks/on_gpu.sh FOLDER      the logs and bench-cuda.json go to FOLDER; wheels in .whl are installed first, if there are any.
set -u
out=$(realpath "${1:?where to}")
if ls .whl/*.whl >/dev/null 2>&1; then
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl || exit 1
  export PYTHONPATH=/tmp/site
fi
export PYTHONPATH=.:${PYTHONPATH:-} TQDM_DISABLE=1 HF_HUB_OFFLINE=1
nvidia-smi -L
python3 -m pytest -q -n 6 -p no:cacheprovider tests/test_any_sampler.py tests/test_runs.py tests/test_prediction.py -k 'cuda or gpu' >"$out/tests.log" 2>&1 &
timeout "${BENCH_SECONDS:-330}" python3 benchmarks/bench.py --device cuda --compile small big --out "$out" \
  --only 'ours bf16' 'as shipped' channels_last 'diffusers bf16 compile' 'lucidrains network bf16' Trainer 2>&1 | tee "$out/bench.log"
wait
tail -n 15 "$out/tests.log"
