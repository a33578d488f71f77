#!/usr/bin/env bash
# Makes the pictures of docs/src/demo.md again, all but the one of 1024 × 1024, with the demo model or another checkpoint:
#   tools/demo_pictures.sh [CHECKPOINT]
set -euo pipefail
cd "$(dirname "$0")/.."

checkpoint=${1:-models/demo}
images=docs/src/images
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

example() {
    local name=$1
    shift
    cargo run --quiet --release --features ndarray,pytorch,train,wgpu-plain --example "$name" -- "$@"
}
# One example that writes a sheet, and where the sheet goes.
sheet() {
    local to=$1 name=$2
    shift 2
    example "$name" --checkpoint "$checkpoint" --small --out "$work/$to" "$@"
    mv "$work/$to"/*sheet.png "$images/$to.png"
}

# Drawings to start from: 400 a yellow ball on a blue cube, 404 a cyan ball, 405 an orange cone,
# 409 a purple cube on a red one.
example demo_world --seed 400 --count 12 --side 256 --folder "$work/world" "$work/world.png"
world() { printf '%s/world/%06d.png' "$work" "$1"; }

sheet demo text_to_image --candidates 4 --seed 7 --images 2 --grid 8 \
    "a red cube on top of a blue cube" "a large green ball" \
    "a yellow cone to the left of a purple cube" "a small orange cylinder" \
    "a blue ball in front of a yellow cube" "a shiny purple cone" \
    "a green cube, a red ball and a yellow cylinder" "a cyan ball on a white floor"
sheet demo-variations variations --candidates 4 --seed 3 --images 6 "$(world 409)"
sheet demo-inversion variations --seed 3 --images 7 --eta 0,0.3,1 --steps 50 "$(world 400)"
sheet demo-interpolation interpolate --seed 4 --frames 8 "$(world 404)" "$(world 405)"
sheet demo-text-diff text_diff --seed 3 --frames 8 --theta 0.35 --guidance 4 "$(world 405)" \
    "an orange cone" "a green cone"
sheet demo-text-diff-shape text_diff --seed 3 --frames 8 --theta 0.45 --guidance 4 "$(world 405)" \
    "a matte orange cone on a grey floor" "a matte orange sphere on a grey floor"
sheet demo-inpainting inpaint --candidates 4 --seed 3 --images 6 --rectangle 100,40,110,110 "$(world 409)" \
    "a yellow sphere on top of a red cube"
