"""Writes tests/data/pytorch: one small state dict in every pickled form that is read.

    python tools/make_pytorch_fixtures.py        (torch 2.5.1, safetensors 0.4.5)
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

folder = Path(__file__).resolve().parent.parent / "tests" / "data" / "pytorch"
folder.mkdir(parents=True, exist_ok=True)
generator = torch.Generator().manual_seed(0)

EMBEDDING, TIME, CONTEXT, EXTRA = 8, 12, 10, 4
shapes = {
    "learned_classifier_free_guidance_embeddings": [EMBEDDING],
    "embedding_proj.weight": [TIME, EMBEDDING],
    "embedding_proj.bias": [TIME],
    "clip_image_embeddings_project_to_time_embeddings.weight": [TIME, EMBEDDING],
    "clip_image_embeddings_project_to_time_embeddings.bias": [TIME],
    "clip_extra_context_tokens_proj.weight": [EXTRA * CONTEXT, EMBEDDING],
    "clip_extra_context_tokens_proj.bias": [EXTRA * CONTEXT],
    "encoder_hidden_states_proj.weight": [CONTEXT, EMBEDDING],
    "encoder_hidden_states_proj.bias": [CONTEXT],
    "text_encoder_hidden_states_norm.weight": [CONTEXT],
    "text_encoder_hidden_states_norm.bias": [CONTEXT],
}
state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
save_file(state, folder / "expected.safetensors")
torch.save(state, folder / "zip.bin")
torch.save(state, folder / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"state_dict": state, "epoch": 3}, folder / "nested.ckpt")
torch.save({name: tensor.half() for name, tensor in state.items()}, folder / "half.pt")
