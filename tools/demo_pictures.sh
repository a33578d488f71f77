#!/usr/bin/env bash
# Makes the pictures of docs/src/demo.md with the demo model, at the decoder's 64 × 64.
#
#     tools/demo_pictures.sh
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
images=docs/src/images
features="ndarray,pytorch,train,wgpu-plain"
cargo build --release --features "$features" --examples
bin=${CARGO_TARGET_DIR:-target}/release/examples
run() { "$bin/$1" --small --seed 7 --out "$work/$1" "${@:2}" >/dev/null; }
keep() { cp "$work/$1"/*-sheet.png "$images/demo-$2.png"; }

run text_to_image --images 2 --grid 8 "a red cube on top of a blue cube" "a large green ball" \
    "a yellow cone to the left of a purple cube" "a small orange cylinder" \
    "a blue ball in front of a yellow cube" "a shiny purple cone" \
    "a green cube, a red ball and a yellow cylinder" "a cyan ball on a white floor"
keep text_to_image text

# Two drawn scenes are the pictures that the other jobs begin with.
"$bin/demo_world" --seed 3 --count 12 --side 64 --folder "$work/scenes" "$work/scenes.png" >/dev/null
first=$work/scenes/000003.png
second=$work/scenes/000007.png
run variations --images 8 "$first"
keep variations variations
run interpolate --frames 8 "$first" "$second"
keep interpolate interpolation
run inpaint --images 8 --rectangle 0,0,32,64 "$first" "a red ball"
keep inpaint inpainting
run text_diff --frames 8 "$first" "a red cube" "a blue cube"
keep text_diff text-diff
rm -rf "$work/variations"
run variations --images 4 --eta 0,0.3,1 "$first"
keep variations inversion
