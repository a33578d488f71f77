"""Writes unclip-core/tests/data/noise.json: what PyTorch's CPU generator gives for some seeds.

Needs torch 2.5.1, numpy and a processor with AVX2, without which PyTorch's normals differ by up to
3e-6. Run from the root of the repository:

    python tools/make_noise_fixtures.py

The file is a list of cases, each a seed and the draws made one after the other on one generator.
A draw has its kind, its size and its values. Of a long draw only every 97th value and the last 40
are stored; the rest is held by a checksum of the bits where they must agree exactly (uniforms,
integers), else by the sum (normals).
"""

import json
import pathlib

import numpy as np
import torch

OUT = pathlib.Path(__file__).parent.parent / "unclip-core/tests/data/noise.json"

SEEDS = [0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 0x0123_4567_89AB_CDEF, 2**64 - 1]
SIZES = [1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 48, 100, 768, 12293]

# What they probe: a normal left over by a short draw must outlive long draws, uniforms, integers
# and empty draws; the tail of a long draw takes 16 uniforms more; position is checked at the end.
SEQUENCES = [
    [("normal", n) for n in (1, 16, 1, 3, 17, 2, 0, 5, 100, 1, 15, 15, 12293, 1, 1)],
    [("normal", n) for n in (33, 7, 31, 0, 7, 48, 1, 768, 2)],
    [("uniform", 7), ("normal", 1), ("uniform", 3), ("normal", 1), ("integer", 1), ("normal", 3),
     ("integer", 5), ("normal", 32), ("uniform", 0), ("normal", 1), ("normal", 19)],
    # Across the 624 words that the generator renews at once.
    [("integer", 623), ("normal", 1), ("uniform", 620), ("normal", 17), ("normal", 3)],
]

SHORT = 128


def draw(generator: torch.Generator, kind: str, size: int) -> np.ndarray:
    if kind == "normal":
        return torch.randn(size, generator=generator, dtype=torch.float32).numpy()
    if kind == "uniform":
        return torch.rand(size, generator=generator, dtype=torch.float32).numpy()
    # Below 2^32 values PyTorch takes 32 bits modulo their number: all but the largest integer.
    values = torch.empty(size, dtype=torch.int64).random_(0, 2**32 - 1, generator=generator)
    return values.numpy().astype(np.uint32)


def fnv1a(data: bytes) -> int:
    checksum = 0xCBF29CE484222325
    for byte in data:
        checksum = (checksum ^ byte) * 0x100000001B3 % 2**64
    return checksum


def stored(kind: str, values: np.ndarray) -> dict:
    n = len(values)
    kept = [i for i in range(n) if n <= SHORT or i % 97 == 0 or i >= n - 40]
    entry = {"kind": kind, "size": n}
    # str() of a float32 is the shortest decimal that reads back as the same float32.
    entry["values"] = [json.loads(str(values[i])) for i in kept]
    if n <= SHORT:
        return entry
    entry["indices"] = kept
    if kind == "normal":
        entry["sum"] = float(values.astype(np.float64).sum())
    else:
        entry["fnv1a"] = f"{fnv1a(values.astype(values.dtype.newbyteorder('<')).tobytes()):016x}"
    return entry


def case(seed: int, draws: list) -> dict:
    generator = torch.Generator().manual_seed(seed)
    return {"seed": seed, "draws": [stored(kind, draw(generator, kind, n)) for kind, n in draws]}


def main() -> None:
    assert torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"), "needs AVX2"
    position = [("integer", 2)]
    cases = []
    for seed in SEEDS:
        cases.append(case(seed, [("integer", 6)]))
        cases.append(case(seed, [("uniform", 1300)] + position))
        cases += [case(seed, [("normal", n)] + position) for n in SIZES]
    for seed, sequence in zip((0, 42, 1, 2**32 + 5), SEQUENCES):
        cases.append(case(seed, sequence + position))
    text = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(f'{{"torch":"{torch.__version__.split("+")[0]}","cases":[\n{text}\n]}}\n')


if __name__ == "__main__":
    main()
