#!/usr/bin/env bash
# Fetches Noto's emoji of 64 × 64 pixels (Apache-2.0) and their names and keywords (emojibase, MIT, after
# CLDR), and makes data to train on of them. Needs npm, for nothing but fetching.
#
#     tools/fetch_emoji.sh emoji
#
# FEATURES are those it is built with, those of the training that follows (default: train).
set -euo pipefail

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for package in emoji-datasource-google@16.0.0 emojibase-data@17.0.0; do
    (cd "$work" && npm pack --silent "$package" >/dev/null)
done
for name in emoji-datasource-google emojibase-data; do
    mkdir "$work/$name"
    tar xzf "$work/$name"-*.tgz -C "$work/$name" --strip-components=1
done
cargo run --release --features "${FEATURES:-train}" --example emoji_data -- \
    "$work/emoji-datasource-google/img/google/64" "$work/emojibase-data/en/data.json" "$out"
