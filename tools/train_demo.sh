#!/usr/bin/env bash
# Trains the whole demo model, from nothing, on a machine with one GPU within so many minutes: every stage
# in a process of its own, and those that do not need each other at once. DIR/model is the checkpoint.
#
#     tools/train_demo.sh [MINUTES [DEVICE [DIR]]]
#
# Default: 25 minutes on cuda into runs/demo. The build before is not counted; TRAIN_DEMO names a program
# that is built already. DIR/STAGE.log has each stage's output. On few cores it takes longer than it is given, by the
# time in which 60,000 scenes are drawn for the priors.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:-25} device=${2:-cuda} out=${3:-runs/demo}

if [ -z "${TRAIN_DEMO:-}" ]; then
    case $device in
        flex*) features=train ;;
        # The project's own kernels need no tuning, which takes longer than it gives here.
        cuda*) features=cuda-plain,train ;;
        wgpu*) features=wgpu-plain,train ;;
        *) features=${device%%[:,]*},train ;;
    esac
    cargo build --release --features "$features" --example train_demo
    TRAIN_DEMO=${CARGO_TARGET_DIR:-target}/release/examples/train_demo
fi
if [ -e "$out/model" ]; then
    echo "$out/model is there already: name another folder" >&2
    exit 1
fi
mkdir -p "$out"
# Memory that is freed is not given back to the system at each step.
export MIMALLOC_PURGE_DELAY=${MIMALLOC_PURGE_DELAY--1}
case $device in
    cuda*) precision=--tf32 ;;
    *) precision= ;;
esac
cores=$(nproc)

# Minutes that are left, times a share.
left() { awk "BEGIN { print ($minutes - 0.15 - $SECONDS / 60) * $1 }"; }
# stage NAMES MINUTES FLAGS...: trains them, each within so many minutes.
stage() {
    local names=$1 within=$2
    shift 2
    "$TRAIN_DEMO" --out "$out" --device "$device" $precision --no-sheets --save-every 1000000 \
        --stage "$names" --within "$within" "$@" >"$out/$names.log" 2>&1
}
# Ends all when one fails.
finished() {
    local name=$1 pid=$2
    if ! wait "$pid"; then
        echo "$name failed:" >&2
        tail -n 5 "$out/$name.log" >&2
        exit 1
    fi
    echo "$name: done after $SECONDS s"
}
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

SECONDS=0
# Drawing the pictures is what the cores are for, above all CLIP's.
some=$((cores / 8 + 1))
stage clip "$(left 0.22)" --batch 240 --lr 1.2e-3 --workers $((cores / 2 + 2)) & clip=$!
stage upsampler-256 "$(left 0.3)" --batch 32 --lr 7e-4 --workers $some & first=$!
stage upsampler-1024 "$(left 0.3)" --batch 16 --lr 7e-4 --workers $((some + 1)) & second=$!
finished clip $clip
stage decoder "$(left 1)" --batch 64 --lr 1e-3 --workers $((cores / 3 + 1)) & decoder=$!
stage prior,autoregressive "$(left 0.2)" --batch 256 --lr 8e-4 & priors=$!
finished upsampler-256 $first
finished upsampler-1024 $second
finished prior,autoregressive $priors
finished decoder $decoder
"$TRAIN_DEMO" --out "$out" --stage export
echo "$SECONDS s"
