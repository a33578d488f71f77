#!/usr/bin/env bash
# Kills a training run at random moments and resumes it, and compares what comes out, byte by byte, with
# a run that was never stopped.
#
#     tools/kill_test.sh [KILLS [STEPS]]
set -euo pipefail
cd "$(dirname "$0")/.."

kills=${1:-20}
steps=${2:-120}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --release --workspace --features ndarray,pytorch,train,wgpu-plain \
    --example demo_world --example train_decoder
bin=${CARGO_TARGET_DIR:-target}/release/examples
"$bin/demo_world" --count 40 --side 32 --folder "$work/data" "$work/sheet.png" >/dev/null

# A sampler of timesteps that remembers losses, so that its state has to survive as well.
train() {
    "$bin/train_decoder" --from tests/fixtures/checkpoints/unclip_variation --data "$work/data" \
        --out "$work/$1" --steps "$steps" --batch 4 --save-every 5 --loss-aware --sample-every 0 \
        --seed 3 --device flex --resume >"$work/$1.log" 2>&1
} 2>/dev/null

compare() {
    local last=step-$(printf %09d "$steps")
    diff -r "$work/whole/$last" "$work/killed/$last"
    # A kill may leave the temporary file of an export.
    diff -r -x '*.tmp' "$work/whole/model" "$work/killed/model"
    # All columns of the record but the speed.
    diff <(cut -d, -f1-4 "$work/whole/log.csv") <(cut -d, -f1-4 "$work/killed/log.csv")
}

start=$(date +%s%N)
train whole
whole=$((($(date +%s%N) - start) / 1000000))
echo "a whole run of $steps steps takes $whole ms"

killed=0
finished=0
while ((killed < kills || finished == 0)); do
    train killed &
    run=$!
    # Between nothing and a third of a run; the last one runs to its end.
    if ((killed < kills)); then
        sleep "$(awk -v r=$RANDOM -v w="$whole" 'BEGIN { printf "%.3f", r / 32768 * w / 3000 }')"
        # The program is the shell's child.
        if pkill -9 -P "$run" train_decoder; then
            killed=$((killed + 1))
        fi
    fi
    if wait "$run" 2>/dev/null; then
        compare
        finished=$((finished + 1))
        rm -rf "$work/killed"
    fi
done
echo "killed $killed times; $finished runs came to their end with the same bytes"
