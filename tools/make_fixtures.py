"""Writes tests/fixtures: small random checkpoints and what the reference computes with them.

Needs Python 3.11, torch 2.5.1, diffusers 0.31.0, transformers 4.46.3, tokenizers 0.20.3,
accelerate 1.1.1, safetensors 0.4.5, numpy 1.26.4, pillow 11.0.0, ftfy 6.3.1. Run from the root of
the repository; it takes about one minute, and again writes the same bytes on the same machine:

    python tools/make_fixtures.py --out tests/fixtures --seed 1

Nothing else is needed: OpenAI's vocabulary follows from its merges, which lie in unclip-clip.

`checkpoints/*` have the layout of diffusers and transformers. Each folder of `cases/` has a
case.json with its kind, its checkpoint and `f32_vs_f64`, the largest difference between the
reference in single and in double precision; its tensors are `in.*` and `out` in io.safetensors, or
for text_to_image one file for each stage, with every draw of noise. `clip_full_*` also hold the
gradients of the contrastive loss, of the token embedding only the rows that occur, and
clip_image_processor its pictures. `tokenizer/goldens_small.json` belongs to `tokenizer/small`: `ids` are those of
transformers' CLIPTokenizer, `fast` those of CLIPTokenizerFast where they differ. `tokenizer/openai_rows.json` has the fast ids for OpenAI's own
vocabulary, padded with its end token.

All weights are random. The U-Nets' last convolution is fitted to predict the noise in smooth
pictures, else every predicted pixel would be clipped and hide what came before. At the first step
x0 = (x - noise) / 5e-5: a pixel that is not clipped there carries 2e4 times the rounding error.
Of several seeds ("salt") each text_to_image case takes one without such a pixel.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import pathlib
import shutil
import tempfile
import unittest.mock
import zlib

os.environ["HF_HUB_OFFLINE"] = "1"

import diffusers
import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
import transformers
from diffusers import (DDPMScheduler, KandinskyV22PriorPipeline, PriorTransformer,
                       UNet2DConditionModel, UNet2DModel, UnCLIPImageVariationPipeline,
                       UnCLIPPipeline, UnCLIPScheduler)
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer)
from diffusers.pipelines.unclip.text_proj import UnCLIPTextProjModel
from safetensors.torch import load_file, save_file
from transformers import (CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig,
                          CLIPTextModelWithProjection, CLIPTokenizer, CLIPTokenizerFast,
                          CLIPVisionConfig, CLIPVisionModelWithProjection)
from transformers.models.clip.tokenization_clip import bytes_to_unicode

MERGES = pathlib.Path(__file__).parent.parent / "unclip-clip/src/vocabulary/merges.txt"
SMALL_MERGES = 1000
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

WIDTH = 24  # of CLIP's hidden states and embeddings
TEXT = dict(hidden_size=WIDTH, intermediate_size=60, projection_dim=WIDTH, num_hidden_layers=2,
            num_attention_heads=3, hidden_act="quick_gelu")
PRIOR = dict(num_attention_heads=3, attention_head_dim=10, num_layers=2, embedding_dim=WIDTH)
PRIOR_NORMS = PRIOR | dict(norm_in_type="layer", embedding_proj_norm_type="layer",
                           time_embed_act_fn="gelu", time_embed_dim=20, clip_embed_dim=WIDTH + 5)
PRIOR_NO_ENCODER = PRIOR | dict(num_embeddings=6, additional_embeddings=0, added_emb_type=None,
                                encoder_hid_proj_type=None, embedding_proj_dim=15,
                                embedding_proj_norm_type="layer", norm_in_type="layer")
TEXT_PROJ = dict(clip_embeddings_dim=WIDTH, time_embed_dim=64, cross_attention_dim=28)
DOWN, UP = "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"
CROSS_DOWN, CROSS_UP = "SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D"
SMALL, LARGE = 16, 64  # sides of the pictures before and after the upsamplers
DECODER = dict(sample_size=SMALL, in_channels=3, out_channels=6, layers_per_block=1,
               block_out_channels=(16, 16, 24, 32), norm_num_groups=8, attention_head_dim=8,
               down_block_types=(DOWN, CROSS_DOWN, CROSS_DOWN, CROSS_DOWN),
               mid_block_type="UNetMidBlock2DSimpleCrossAttn",
               up_block_types=(CROSS_UP, CROSS_UP, CROSS_UP, UP), cross_attention_dim=28,
               class_embed_type="identity", resnet_time_scale_shift="scale_shift")
UPSAMPLER = dict(in_channels=6, out_channels=3, layers_per_block=1, add_attention=False,
                 block_out_channels=(16, 16, 16, 24), norm_num_groups=8,
                 down_block_types=(DOWN,) * 4, up_block_types=(UP,) * 4)

T2I = {
    "t2i_cfg": dict(prompt=["a watercolour of two foxes, in the snow!", "An old lighthouse"],
                    prior_num_inference_steps=25, decoder_num_inference_steps=25,
                    super_res_num_inference_steps=7,
                    prior_guidance_scale=4.0, decoder_guidance_scale=8.0),
    "t2i_nocfg": dict(prompt=["", "3 señoritas' café — \"open\""],
                      prior_num_inference_steps=6, decoder_num_inference_steps=5,
                      super_res_num_inference_steps=3,
                      prior_guidance_scale=1.0, decoder_guidance_scale=1.0),
    "t2i_multi": dict(prompt="a very long road through green hills, " * 15, num_images_per_prompt=3,
                      prior_num_inference_steps=5, decoder_num_inference_steps=6,
                      super_res_num_inference_steps=3,
                      prior_guidance_scale=1.0, decoder_guidance_scale=3.0),
}

# Of variations: smaller networks, pictures to 32 x 32, of every way a call can be made one.
VARIATION_DECODER = DECODER | dict(block_out_channels=(8, 8, 8, 16))
VARIATION_UPSAMPLER = UPSAMPLER | dict(block_out_channels=(8, 8, 8, 8))
VARIATIONS = {
    "variation_cfg": dict(image=["square", "palette"], decoder_num_inference_steps=9,
                          super_res_num_inference_steps=4, decoder_guidance_scale=6.0),
    "variation_nocfg": dict(image=["wide"], num_images_per_prompt=2, decoder_num_inference_steps=5,
                            super_res_num_inference_steps=2, decoder_guidance_scale=1.0),
    "variation_embeddings": dict(image_embeddings=2, decoder_num_inference_steps=6,
                                 super_res_num_inference_steps=2, decoder_guidance_scale=3.0),
}
KANDINSKY = {
    "kandinsky_cfg": dict(prompt=["a lighthouse at noon", "three ducks!"],
                          num_inference_steps=9, guidance_scale=3.5),
    "kandinsky_nocfg": dict(prompt=["tea on a windowsill"], num_images_per_prompt=2,
                            num_inference_steps=4, guidance_scale=1.0),
    "kandinsky_negative": dict(prompt=["a quiet street"], negative_prompt=["noise, watermark"],
                               num_inference_steps=5, guidance_scale=2.5),
}

PROMPTS = {
    "plain": ["a photo of a cat", "A Red Panda eating BAMBOO in Kyoto", "x", "oil painting, 8k",
              "hyperrealistic counterrevolutionaries", "isometric low-poly room; soft light",
              "portrait of a sailor, by an unknown master", "sunset"],
    "space": ["", "  ", "\t\r\n", " both ends ", "so   much\tspace\nhere", "no\u00a0break",
              "wide\u3000and\u2003em", "zero\u200bwidth", "line\u2028para\u2029end",
              "v\x0bf\x0cn\u0085", "fs\x1cgs\x1d", "\u1680ogham\u202fnarrow\u205f"],
    "exclaim": ["!", "!!!", "stop!", "one ! two !! three", "wh!at?!", "¡olé!", "！full！", "\"!\""],
    "punctuation": ["wait... what?", "(a) [b] {c} <d>", "a/b\\c|d_e", "—dash– --", "…", "?!?",
                    "“curly” ‘single’", "me@example.org https://example.org/?a=b&c#d",
                    "#tag $5 50% ^_^ ~*~", ":-) <3", "C++ and F#"],
    "contraction": ["it's we're I've don't I'm she'll he'd", "IT'S WE'RE DON'T", "'s't're", "''s''",
                    "y'all'd've", "rock 'n' roll in the '70s", "it’s", "'ſ longſ", "l'été d'Arc"],
    "number": ["0", "1234567890", "3.14 and 2,718", "the 21st of May 2022", "x² ½ Ⅷ ④",
               "١٢٣ ०१२ 一二三", "１２ｃｍ", "0xFF 1e-5", "𝟘𝟡"],
    "accent": ["café", "cafe\u0301", "Ærøskøbing naïve Łódź", "Straße STRASSE ẞ", "İstanbul ıssız",
               "ΟΔΟΣ ΣΑΣ. Σ", "ﬁne ﬂow ﬃ", "n\u0303 a\u030a\u0302", "\u0301alone", "Å K Ω",
               "Phở Việt", "ǈ ǆ Ⱥ"],
    "script": ["猫とコーヒー", "一只 cat 狗", "ﾊﾝｶｸ カ\u3099", "한국어", "\u1112\u1161\u11ab", "𠮷野家",
               "рыжая КОШКА", "قطة حمراء", "חתול", "लाल बिल्ली", "แมวแดง", "κόκκινη γάτα", "კატა"],
    "emoji": ["🐱", "I ❤️ you", "👍🏽", "👨‍👩‍👧 🏳️‍🌈", "🇫🇷🇯🇵", "cat🐱dog", "1️⃣", "★→∞ ♠ ©™", "𝓯𝓪𝓷𝓬𝔂"],
    "repair": ["cats &amp; dogs", "&lt;b&gt; <b>&amp;</b>", "&eacute;&#233; &quot;x&quot;",
               "cafÃ©", "doesnâ€™t", "AT&T", "&nbsp;x"],
    "control": ["nul\x00in", "bell\x07 esc\x1b[0m", "soft\u00adhyphen", "rtl\u202eover", "\ufffd?",
                "private\ue000", "a\u200cb\u200dc", "bom\ufeff"],
    "special": [EOS, BOS, f"a{EOS}b", f"{BOS} hi {EOS}", EOS.upper(), "cat</w>", "<|endoftext"],
    "long": ["word " * 75, "a" * 200, "7" * 90, "! " * 80, "é" * 80, "猫" * 50, "don't " * 40],
}
ROWS = [(category, text) for category, texts in PROMPTS.items() for text in texts]


# ---- helpers

def generator(*key) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32("/".join(map(str, key)).encode()))


def normal(shape, *key) -> torch.Tensor:
    return torch.randn(shape, generator=generator(*key))


def timesteps(n: int, *key, below: int = 1000) -> torch.Tensor:
    return torch.randint(0, below, (n,), generator=generator("timesteps", *key))


def save(path: pathlib.Path, tensors: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().clone().contiguous() for name, t in tensors.items()}, path)


def save_json(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value) + "\n")


def floor(single: torch.Tensor, double: torch.Tensor) -> float:
    return float((single.double() - double.double()).abs().max())


@contextlib.contextmanager
def double_precision():
    """New tensors are float64: transformers would overflow a float32 mask with float64's least."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def twice(model, inputs: dict):
    """The model's outputs in single precision, and how far each is from double precision."""
    doubled = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
               for k, v in inputs.items()}
    as_tuple = lambda o: o if isinstance(o, tuple) else o.to_tuple()
    single = as_tuple(model(**inputs))
    with double_precision():
        double = as_tuple(copy.deepcopy(model).double()(**doubled))
    return single, [floor(s, d) for s, d in zip(single, double)]


def randomize(model, *key):
    """Random weights that keep activations near 1 and leave no tensor without effect."""
    rng = generator("weights", *key)
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=rng)
        if name.endswith("clip_std"):
            r = 0.7 + 0.4 * r.abs()
        elif name.endswith("clip_mean"):
            r = 0.3 * r
        elif name.endswith("bias"):
            r = 0.15 * r
        elif p.dim() == 1 and "norm" in name:
            r = 1 + 0.25 * r
        elif "embedding.weight" in name or p.dim() != 2 and p.dim() != 4:
            r = (0.3 if "position" in name else 0.7) * r
        else:
            keen = any(k in name for k in ("to_q", "to_k", "q_proj", "k_proj", "add_k"))
            r = (1.4 if keen else 1.0) * r / math.sqrt(p[0].numel())
        p.data.copy_(r)
    return model.eval()


def pictures(n: int, side: int, *key) -> torch.Tensor:
    """Smooth coloured waves between -1 and 1."""
    waves = 6
    f, phase, a = (normal((n, 3, waves) + s, key, i) for i, s in enumerate([(2,), (), ()]))
    y, x = torch.meshgrid(*[torch.linspace(0, 1, side)] * 2, indexing="ij")
    angle = 9 * (f[..., 0, None, None] * x + f[..., 1, None, None] * y) + 6 * phase[..., None, None]
    return torch.tanh((a[..., None, None] * angle.cos()).sum(2) * 0.6)


# ---- tokenizers

def build_tokenizer(folder: pathlib.Path, merges: int | None, pad: str) -> CLIPTokenizer:
    """OpenAI's tokenizer with only its first merges; start and end token come last."""
    lines = MERGES.read_text(encoding="utf-8").strip().split("\n")[1:][:merges]
    symbols = list(bytes_to_unicode().values())
    words = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in lines]
    words += [BOS, EOS]
    folder.mkdir(parents=True)
    vocab, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps({w: i for i, w in enumerate(words)}), encoding="utf-8")
    merges_file.write_text("#version: 0.2\n" + "\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = CLIPTokenizer(str(vocab), str(merges_file), pad_token=pad, model_max_length=77)
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_tokenizers(out: pathlib.Path) -> None:
    slow = build_tokenizer(out / "tokenizer/small", SMALL_MERGES, "!")
    fast = CLIPTokenizerFast.from_pretrained(out / "tokenizer/small")
    assert slow.fix_text is not None, "CLIPTokenizer needs ftfy"
    rows = []
    for category, text in ROWS[::2]:
        ids, fast_ids = slow(text)["input_ids"], fast(text)["input_ids"]
        differs = dict(fast=fast_ids) if fast_ids != ids else {}
        rows.append(dict(category=category, text=text, ids=ids) | differs)
    save_json(out / "tokenizer/goldens_small.json", dict(pad_token="!", rows=rows))
    with tempfile.TemporaryDirectory() as folder:
        build_tokenizer(pathlib.Path(folder) / "openai", None, EOS)
        fast = CLIPTokenizerFast.from_pretrained(pathlib.Path(folder) / "openai")
    rows = [dict(category=c, text=text, ids=fast(text)["input_ids"]) for c, text in ROWS]
    save_json(out / "tokenizer/openai_rows.json", dict(pad_token=EOS, rows=rows))


def tokenize(tokenizer, texts):
    batch = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    return batch.input_ids, batch.attention_mask


# ---- text encoders

def text_model(tokenizer, rule: str, *key, spare: int = 0, **config):
    """`rule` "legacy": eos_token_id 2, as OpenAI's files have it, pools at the largest id."""
    ids = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1) if rule == "legacy" else dict(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id)
    config = CLIPTextConfig(vocab_size=len(tokenizer) + spare, **ids, **config)
    return randomize(CLIPTextModelWithProjection(config), *key)


def make_clip_text(out: pathlib.Path, seed: int, tokenizer) -> None:
    ids, mask = tokenize(tokenizer, ["a drawing of an owl!", "", "many words " * 60])
    # An id beyond the end token, as textual inversion adds them: there the two rules part.
    short = ids[:2, :9].clone()
    short[:, 6], short[0, 2] = tokenizer.eos_token_id, tokenizer.eos_token_id + 2
    variants = dict(full=dict(input_ids=ids), masked=dict(input_ids=ids, attention_mask=mask),
                    short=dict(input_ids=short))
    models = dict(
        quick_gelu=dict(rule="legacy", hidden_size=28, intermediate_size=50, projection_dim=20,
                        num_hidden_layers=2, num_attention_heads=2),
        gelu=dict(rule="stated", hidden_size=30, intermediate_size=44, projection_dim=36,
                  num_hidden_layers=3, num_attention_heads=5))
    for act, config in models.items():
        name = f"clip_text_{act}"
        model = text_model(tokenizer, key := config.pop("rule"), seed, name, spare=3,
                           hidden_act=act, **config)
        model.save_pretrained(out / "checkpoints" / name)
        tensors, floors = {}, []
        for variant, inputs in variants.items():
            (embeds, hidden), errors = twice(model, inputs)
            floors += errors
            tensors |= {f"{variant}.in.{k}": v for k, v in inputs.items()} | {
                f"{variant}.text_embeds": embeds, f"{variant}.last_hidden_state": hidden,
                f"{variant}.pooled": model.text_model(**inputs).pooler_output}
        save(out / "cases" / name / "io.safetensors", tensors)
        save_json(out / "cases" / name / "case.json", dict(
            kind="clip_text", checkpoint=f"checkpoints/{name}", eos_rule=key,
            variants=list(variants), f32_vs_f64=max(floors)))


# ---- pictures and whole CLIPs

# 22 is not a multiple of 7: the last pixels are in no patch.
VISION = dict(
    quick_gelu=dict(hidden_size=20, intermediate_size=36, num_hidden_layers=2,
                    num_attention_heads=4, image_size=24, patch_size=6, projection_dim=28),
    gelu=dict(hidden_size=18, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2,
              image_size=22, patch_size=7, projection_dim=26))


def image_processor(side: int, **changes) -> CLIPImageProcessor:
    square = dict(height=side, width=side)
    return CLIPImageProcessor(**dict(size=dict(shortest_edge=side), crop_size=square) | changes)


def make_clip_vision(out: pathlib.Path, seed: int) -> None:
    for act, config in VISION.items():
        name = f"clip_vision_{act}"
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_act=act, **config))
        randomize(model, seed, name)
        folder = out / "checkpoints" / name
        model.save_pretrained(folder)
        # As in files older than transformers 4.31.
        path, count = folder / "model.safetensors", model.vision_model.embeddings.num_positions
        positions = {"vision_model.embeddings.position_ids": torch.arange(count)[None]}
        save_file(load_file(path) | positions, path, metadata={"format": "pt"})
        inputs = dict(pixel_values=pictures(2, config["image_size"], seed, name))
        (embeds, hidden), floors = twice(model, inputs)
        save(out / "cases" / name / "io.safetensors", inputs | dict(
            image_embeds=embeds, last_hidden_state=hidden,
            pooled=model.vision_model(**inputs).pooler_output))
        save_json(out / "cases" / name / "case.json", dict(
            kind="clip_vision", checkpoint=f"checkpoints/{name}", f32_vs_f64=max(floors)))


def compared(model: CLIPModel, inputs: dict) -> dict:
    both = model(**inputs, return_loss=True)
    fewer = {k: v for k, v in inputs.items() if k != "attention_mask"}
    rect = model(**fewer | dict(input_ids=inputs["input_ids"][:-1]))
    names = ("text_embeds", "image_embeds", "logits_per_text", "logits_per_image")
    return {name: both[name] for name in names} | {
        "loss": both.loss[None],
        "text_features": model.get_text_features(
            **{k: v for k, v in inputs.items() if k != "pixel_values"}),
        "image_features": model.get_image_features(inputs["pixel_values"]),
        "rect.text_embeds": rect.text_embeds, "rect.logits_per_image": rect.logits_per_image}


def matched(out: pathlib.Path, folder: pathlib.Path, model: CLIPModel) -> dict:
    """Captions and pictures from files to cosines, a row for each picture."""
    captions = ["a harbour in fog", "Two birds, on a wire", "it's late"]
    names = [f"cases/clip_image_processor/{name}.png" for name in ("square", "wide", "grey")]
    processor = CLIPImageProcessor.from_pretrained(folder)
    pixels = processor([PIL.Image.open(out / n) for n in names], return_tensors="pt").pixel_values
    ids, _ = tokenize(CLIPTokenizerFast.from_pretrained(folder), captions)
    output = model(input_ids=ids, pixel_values=pixels)
    return dict(captions=captions, pictures=names,
                cosines=(output.image_embeds @ output.text_embeds.T).tolist())


def make_clip_full(out: pathlib.Path, seed: int, tokenizer) -> None:
    ids, mask = tokenize(tokenizer, ["a harbour in fog", "two birds! on a wire", ""])
    for act, rule in dict(quick_gelu="legacy", gelu="stated").items():
        name = f"clip_full_{act}"
        text = text_model(tokenizer, rule, seed, name, hidden_act=act, hidden_size=24,
                          intermediate_size=44, num_hidden_layers=2, num_attention_heads=3).config
        width, vision = VISION[act]["projection_dim"], CLIPVisionConfig(hidden_act=act, **VISION[act])
        config = CLIPConfig.from_text_vision_configs(text, vision, projection_dim=width)
        model = randomize(CLIPModel(config), seed, name)
        folder = out / "checkpoints" / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        image_processor(vision.image_size).save_pretrained(folder)
        inputs = dict(input_ids=ids, attention_mask=mask,
                      pixel_values=pictures(len(ids), vision.image_size, seed, name))
        outputs = compared(model, inputs)
        doubled = inputs | dict(pixel_values=inputs["pixel_values"].double())
        with double_precision():
            double = compared(copy.deepcopy(model).double(), doubled)
        save(out / "cases" / name / "io.safetensors", inputs | outputs)
        with torch.enable_grad():
            model(**inputs, return_loss=True).loss.backward()
        gradients = {key: p.grad for key, p in model.named_parameters()}
        key, rows = "text_model.embeddings.token_embedding.weight", ids.unique()
        gradients |= {f"{key}:rows": rows, f"{key}:grad_rows": gradients.pop(key)[rows]}
        save(out / "cases" / name / "grads.safetensors", gradients)
        save_json(out / "cases" / name / "case.json", dict(
            kind="clip_model", checkpoint=f"checkpoints/{name}", matching=matched(out, folder, model),
            logit_scale_exp=float(model.logit_scale.exp()),
            f32_vs_f64=max(floor(outputs[key], double[key]) for key in outputs)))


def make_image_processor(out: pathlib.Path, seed: int) -> None:
    folder, side = out / "cases/clip_image_processor", 32

    def picture(width, height, mode="RGB"):
        x = pictures(1, 96, seed, width, height)[0, :, :height, :width]
        x = x + 0.2 * normal(x.shape, seed, "grain", width, height)
        image = PIL.Image.fromarray(
            np.ascontiguousarray(((x.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()))
        if mode == "P":
            return image.quantize(17)
        if mode.endswith("A"):
            alpha = PIL.Image.linear_gradient("L").resize(image.size)
            image.putalpha(alpha)
        return image.convert(mode)

    images = dict(square=picture(61, 61), wide=picture(96, 13), tall=picture(7, 90),
                  exact=picture(side, side), tiny=picture(5, 4), grey=picture(40, 55, "L"),
                  grey_alpha=picture(55, 40, "LA"), alpha=picture(50, 47, "RGBA"),
                  palette=picture(47, 50, "P"))
    crop = lambda height, width: dict(crop_size=dict(height=height, width=width))
    processors = dict(
        plain={}, smaller=crop(side - 5, side - 8), pads=crop(side + 3, side + 6),
        squashed=dict(size=dict(height=21, width=side)), bilinear=dict(resample=2),
        lanczos=dict(resample=1), nearest=dict(resample=0),
        unusual=dict(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.25, 0.5], rescale_factor=1 / 127.5))
    tensors, files = {}, {}
    folder.mkdir(parents=True)
    for name, image in images.items():
        image.save(folder / f"{name}.png", optimize=True)
    for config, changes in processors.items():
        processor = image_processor(side, **changes)
        processor.save_pretrained(folder / config)
        files[config] = f"{config}/preprocessor_config.json"
        bytes_only = image_processor(side, **changes | dict(do_rescale=False, do_normalize=False))
        for name in images:
            image = PIL.Image.open(folder / f"{name}.png")
            run = lambda p: torch.from_numpy(np.ascontiguousarray(p(image).pixel_values[0]))
            tensors |= {f"{config}.{name}.u8": run(bytes_only)}
            if config in ("plain", "unusual"):
                tensors |= {f"{config}.{name}.pixel_values": run(processor)}
    save(folder / "io.safetensors", tensors)
    save_json(folder / "case.json", dict(
        kind="image_processor", images={name: dict(file=f"{name}.png") for name in images},
        processors=files))


# ---- the pipeline's checkpoint

def fit_to_noise(unet, batches) -> float:
    """Least squares for the last convolution, from (inputs, noise) pairs; returns the error."""
    seen, noises = [], []
    hook = unet.conv_out.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for inputs, noise in batches:
        unet(**inputs)
        noises.append(noise)
    hook.remove()
    patches = F.unfold(torch.cat(seen), 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    x = F.pad(patches, (0, 1), value=1.0)
    y = torch.cat(noises).permute(0, 2, 3, 1).flatten(0, 2).double()
    gram = x.T @ x
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, x.T @ y)
    convolution = unet.conv_out
    convolution.weight.data[:3] = solution[:-1].T.reshape(3, *convolution.weight.shape[1:]).float()
    convolution.bias.data[:3] = solution[-1].float()
    convolution.weight.data[3:] *= 0.4  # the variances stay mostly between -1 and 1
    return float((x @ solution - y).square().mean())


def noised(side: int, n: int, *key, below: int = 1000):
    """Pictures, their timesteps, the noise, and what it makes of them."""
    t, x0 = timesteps(n, *key, below=below), pictures(n, side, *key)
    noise = normal((n, 3, side, side), key)
    return x0, t, noise, UnCLIPScheduler().add_noise(x0, noise, t)


def make_unclip(out: pathlib.Path, seed: int) -> UnCLIPPipeline:
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer/small")
    text_encoder = text_model(tokenizer, "legacy", seed, "text_encoder", **TEXT)
    text_proj = randomize(UnCLIPTextProjModel(**TEXT_PROJ), seed, "text_proj")
    prior = randomize(PriorTransformer(**PRIOR), seed, "prior")
    decoder, first, last = picture_networks(
        tokenizer, text_encoder, text_proj, DECODER, UPSAMPLER, LARGE, seed)
    pipe = UnCLIPPipeline(
        text_encoder=text_encoder, tokenizer=tokenizer, text_proj=text_proj, prior=prior,
        decoder=decoder, super_res_first=first, super_res_last=last,
        prior_scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample",
                                        clip_sample_range=5.0),
        decoder_scheduler=UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log"))
    folder = out / "checkpoints/unclip"
    pipe.save_pretrained(folder)
    # The CLIP files on the hub are older than transformers 4.31 and hold this too.
    path = folder / "text_encoder/model.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(load_file(path) | positions, path, metadata={"format": "pt"})
    pipe = UnCLIPPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_variation(out: pathlib.Path, seed: int) -> UnCLIPImageVariationPipeline:
    """As `make_unclip`, with a vision tower for a prior."""
    key = (seed, "variation")
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer/small")
    text_encoder = text_model(tokenizer, "legacy", *key, "text_encoder", **TEXT)
    width = VARIATION_DECODER["block_out_channels"][0]
    text_proj = UnCLIPTextProjModel(**TEXT_PROJ | dict(time_embed_dim=4 * width))
    randomize(text_proj, *key, "text_proj")
    vision = CLIPVisionConfig(hidden_act="quick_gelu", **VISION["quick_gelu"] | dict(
        projection_dim=WIDTH))
    decoder, first, last = picture_networks(
        tokenizer, text_encoder, text_proj, VARIATION_DECODER, VARIATION_UPSAMPLER, 2 * SMALL, *key)
    pipe = UnCLIPImageVariationPipeline(
        image_encoder=randomize(CLIPVisionModelWithProjection(vision), *key, "image_encoder"),
        feature_extractor=image_processor(vision.image_size), text_encoder=text_encoder,
        tokenizer=tokenizer, text_proj=text_proj, decoder=decoder, super_res_first=first,
        super_res_last=last, decoder_scheduler=UnCLIPScheduler(variance_type="learned_range"),
        super_res_scheduler=UnCLIPScheduler(variance_type="fixed_small_log"))
    pipe.save_pretrained(out / "checkpoints/unclip_variation")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture_networks(tokenizer, text_encoder, text_proj, decoder_config, upsampler_config,
                     large: int, *seed):
    """Decoder and both upsamplers, which predict noise about as well as random networks can."""
    decoder = randomize(UNet2DConditionModel(**decoder_config), *seed, "decoder")
    first = randomize(UNet2DModel(**upsampler_config, sample_size=large), *seed, "super_res_first")
    last = randomize(UNet2DModel(**upsampler_config), *seed, "super_res_last")
    for unet in (decoder, first, last):  # the way of the input's noise to the output
        skipped = unet.config.block_out_channels[0]
        unet.up_blocks[-1].resnets[-1].conv_shortcut.weight.data[:, -skipped:] *= 4

    ids, mask = tokenize(tokenizer, ["a green boat", "snow!", "", "", "", "the old town, at dusk"])
    text = text_encoder(ids)

    def decoder_batch(i):
        _, t, noise, sample = noised(SMALL, len(ids), *seed, "fit decoder", i)
        image = 1.5 * normal((len(ids), WIDTH), *seed, "fit image", i)
        image[2:5] = text_proj.learned_classifier_free_guidance_embeddings
        context, added = text_proj(
            image_embeddings=image, prompt_embeds=text.text_embeds,
            text_encoder_hidden_states=text.last_hidden_state, do_classifier_free_guidance=False)
        inputs = dict(sample=sample, timestep=t, encoder_hidden_states=context, class_labels=added)
        return inputs | dict(attention_mask=F.pad(mask.bool(), (4, 0), value=True)), noise

    def upsampler_batch(i, below=1000):
        x0, t, noise, sample = noised(large, 4, *seed, "fit upsampler", i, below=below)
        low = enlarged(enlarged(x0, SMALL), large)
        return dict(sample=torch.cat([sample, low], 1), timestep=t), noise

    fits = dict(decoder=fit_to_noise(decoder, map(decoder_batch, range(12))),
                super_res_first=fit_to_noise(first, map(upsampler_batch, range(4))),
                super_res_last=fit_to_noise(last, (upsampler_batch(i, below=60) for i in range(4))))
    print("mean square errors of the fits:", fits)
    return decoder, first, last


def enlarged(x: torch.Tensor, *side: int) -> torch.Tensor:
    """As the pipeline resizes, both up and down."""
    size = side * (3 - len(side))
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False, antialias=True)


# ---- single networks

def forward_case(out, name, kind, checkpoint, model, inputs, names=("out",), **arguments):
    given = inputs | arguments
    if "attention_mask" in given:
        given["attention_mask"] = given["attention_mask"].bool()
    single, floors = twice(model, given)
    outputs = dict(zip(names, single))
    tensors = {f"in.{k}": v for k, v in inputs.items()} | outputs
    save(out / "cases" / name / "io.safetensors", tensors)
    floors = {name.removeprefix("out."): f for name, f in zip(names, floors)}
    save_json(out / "cases" / name / "case.json", dict(
        kind=kind, checkpoint=f"checkpoints/{checkpoint}", f32_vs_f64=floors))
    return outputs


def without(inputs: dict, t: int) -> dict:
    """No mask, and one timestep for the whole batch."""
    kept = {k: v for k, v in inputs.items() if k != "attention_mask"}
    return kept | dict(timestep=torch.tensor([t]))


def make_forwards(out: pathlib.Path, seed: int, pipe: UnCLIPPipeline) -> None:
    ids, mask = tokenize(pipe.tokenizer, ["a bridge over the river", "", "he said: it's art!"])
    text, n = pipe.text_encoder(ids), len(ids)
    states, embeds = text.last_hidden_state, text.text_embeds
    inputs = dict(hidden_states=normal((n, WIDTH), seed, "prior"), proj_embedding=embeds,
                  timestep=timesteps(n, seed, "prior"), encoder_hidden_states=states,
                  attention_mask=mask)
    forward_case(out, "prior_forward", "prior_forward", "unclip/prior", pipe.prior, inputs)
    forward_case(out, "prior_forward_nomask_scalar_t", "prior_forward", "unclip/prior", pipe.prior,
                 without(inputs, 999))
    latents = normal((n, WIDTH), seed, "latents")
    save(out / "cases/prior_forward/post_process.safetensors",
         {"in": latents, "out": pipe.prior.post_process_latents(latents)})
    sequence = dict(hidden_states=normal((n, 6, WIDTH), seed, "sequence"),
                    timestep=inputs["timestep"], proj_embedding=normal((n, 15), seed, "projected"))
    for name, config, given in [("prior_variant_norms", PRIOR_NORMS, inputs),
                                ("prior_variant_no_encoder", PRIOR_NO_ENCODER, sequence)]:
        model = randomize(PriorTransformer(**config), seed, name)
        model.save_pretrained(out / "checkpoints" / name)
        forward_case(out, name, "prior_forward", name, model, given)

    projected = dict(image_embeddings=normal((2, WIDTH), seed, "image"), prompt_embeds=embeds[1:],
                     text_encoder_hidden_states=states[1:])
    names = ("out.encoder_hidden_states", "out.additive_clip_time_embeddings")
    project = lambda name, inputs, guided: forward_case(
        out, name, "text_proj", "unclip/text_proj", pipe.text_proj, inputs, names,
        do_classifier_free_guidance=guided)
    one = dict(image_embeddings=projected["image_embeddings"][:1])
    project("text_proj_cfg", projected | one, True)
    context, added = project("text_proj_nocfg", projected, False).values()

    inputs = dict(sample=normal((2, 3, SMALL, SMALL), seed, "sample"),
                  timestep=timesteps(2, seed, "decoder"), encoder_hidden_states=context,
                  class_labels=added, attention_mask=F.pad(mask[1:], (4, 0), value=1))
    rect = inputs | dict(sample=normal((2, 3, SMALL, 2 * SMALL), seed, "rect"))
    for name, given in [("decoder_forward", inputs), ("decoder_forward_rect", rect),
                        ("decoder_forward_nomask_scalar_t", without(inputs, 0))]:
        forward_case(out, name, "decoder_forward", "unclip/decoder", pipe.decoder, given)
    for name in ("super_res_first", "super_res_last"):
        low = enlarged(pictures(2, SMALL, seed, name), 32)
        inputs = dict(sample=torch.cat([normal((2, 3, 32, 32), seed, name), low], 1),
                      timestep=torch.tensor([832, 0]))
        forward_case(out, f"{name}_forward", "super_res_forward", f"unclip/{name}",
                     getattr(pipe, name), inputs)

    tensors = {}
    for height, width, *to in [(16, 16, 64), (5, 5, 13), (20, 20, 20), (64, 64, 24), (7, 7, 60),
                               (31, 31, 18), (9, 14, 22, 30), (12, 6, 7, 40)]:
        pair = f"{height}x{width}to{'x'.join(map(str, to))}"
        x = normal((1, 2, height, width), seed, pair).clamp(-1, 1)
        tensors |= {f"{pair}.in": x, f"{pair}.out": enlarged(x, *to)}
    save(out / "cases/bicubic_antialias/io.safetensors", tensors)
    save_json(out / "cases/bicubic_antialias/case.json", dict(
        kind="bicubic_antialias", pairs=[k[:-3] for k in tensors if k.endswith(".in")]))


# ---- schedulers

SCHEDULERS = [(dict(prediction_type=p, variance_type=v, clip_sample_range=r), steps, {})
              for p, v, r in [("sample", "fixed_small_log", 5.0), ("epsilon", "learned_range", 1.0),
                              ("epsilon", "fixed_small_log", 1.0), ("sample", "learned_range", 2.0)]
              for steps in (2, 7, 25)] + [
    (dict(variance_type="learned_range", clip_sample=False), 6, {}),
    (dict(variance_type="fixed_small_log", num_train_timesteps=40), 40, {}),
    (dict(variance_type="learned_range", num_train_timesteps=70), 12, dict(no_prev=True))]

SCALED = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
COSINE = dict(beta_schedule="squaredcos_cap_v2")
ZERO_SNR = SCALED | dict(rescale_betas_zero_snr=True, timestep_spacing="trailing",
                         prediction_type="v_prediction")
OTHER_SCHEDULERS = [
    ("DDIM", {}, 6, dict(eta=0.0)), ("DDIM", COSINE | dict(prediction_type="sample"), 5, dict(eta=1.0)),
    ("DDIM", SCALED | dict(steps_offset=1, set_alpha_to_one=False, clip_sample=False), 7,
     dict(eta=0.4)),
    ("DDIM", COSINE | dict(timestep_spacing="linspace", prediction_type="v_prediction"), 4, {}),
    ("DDIM", ZERO_SNR | dict(clip_sample=False), 5, {}),
    ("DDIM", COSINE | dict(thresholding=True, clip_sample=False, sample_max_value=1.4), 6, {}),
    ("DDPM", COSINE, 6, {}), ("DDPM", SCALED | dict(variance_type="fixed_large"), 5, {}),
    ("DDPM", COSINE | dict(variance_type="learned_range"), 6, {}),
    ("DDPM", dict(timestep_spacing="trailing", prediction_type="sample"), 4, {}),
    ("DDPM", dict(num_train_timesteps=12, beta_schedule="sigmoid"), 12, {}),
    ("DPMSolverMultistep", SCALED, 7, {}), ("DPMSolverMultistep", COSINE | dict(solver_order=1), 4, {}),
    ("DPMSolverMultistep", SCALED | dict(solver_order=3, prediction_type="sample"), 8, {}),
    ("DPMSolverMultistep", SCALED | dict(solver_type="heun", euler_at_final=True), 6, {}),
    ("DPMSolverMultistep", SCALED | dict(use_karras_sigmas=True), 6, {}),
    ("DPMSolverMultistep", SCALED | dict(algorithm_type="sde-dpmsolver++"), 5, {}),
    ("DPMSolverMultistep", SCALED | dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
     6, {}),
    ("EulerDiscrete", SCALED, 6, {}), ("EulerDiscrete", SCALED | dict(use_karras_sigmas=True), 5, {}),
    # Not ZERO_SNR: its first sigma, 4096, is a tie of two float32 and differs between machines.
    ("EulerDiscrete", COSINE | dict(prediction_type="v_prediction"), 5, {}),
    ("EulerDiscrete", SCALED | dict(timestep_spacing="leading", steps_offset=1), 5,
     dict(s_churn=2.0, s_tmin=0.2, s_tmax=4.0, s_noise=1.02))]


def other_schedulers(seed: int, first: int):
    """As the trajectories of unCLIP's scheduler, each sampler with its own arguments."""
    tensors, cases = {}, []
    for i, (family, config, steps, args) in enumerate(OTHER_SCHEDULERS, first):
        scheduler = getattr(diffusers, f"{family}Scheduler")(**config)
        scheduler.set_timesteps(steps)
        start = normal((2, 3, 2, 2), seed, "scheduler", i) * scheduler.init_noise_sigma
        channels = 6 if str(config.get("variance_type")).startswith("learned") else 3
        model_out = normal((steps, 2, channels, 2, 2), seed, "model_out", i).clamp(-2, 2)
        model_out[:, :, 3:] *= 0.5
        tape, path, given = Tape(seed, "trajectory", i), [start], []
        with tape.playing():
            for j, t in enumerate(scheduler.timesteps):
                given.append(scheduler.scale_model_input(path[-1], t))
                path.append(scheduler.step(model_out[j], t, path[-1], **args).prev_sample)
        recorded = dict(init=start, model_out=model_out, model_in=torch.stack(given),
                        prev_sample=torch.stack(path[1:]))
        if tape.draws:
            recorded |= dict(noise=torch.stack(tape.draws))
        tensors |= {f"{i:02}.{name}": tensor for name, tensor in recorded.items()}
        cases.append(dict(id=f"{i:02}", cls=f"{family}Scheduler", config=config, steps=steps,
                          args=args, init_noise_sigma=float(scheduler.init_noise_sigma),
                          timesteps=scheduler.timesteps.tolist()))
    return tensors, cases


def make_schedulers(out: pathlib.Path, seed: int) -> None:
    """Trajectories with random model outputs; the tables; the timesteps of many step counts."""
    tensors, cases = {}, []
    for i, (config, steps, args) in enumerate(SCHEDULERS):
        scheduler = UnCLIPScheduler(**config)
        scheduler.set_timesteps(steps)
        times = scheduler.timesteps.tolist()
        x = normal((2, 3, 2, 2), seed, "scheduler", i)
        out_shape = (steps, 2, 6 if config["variance_type"] == "learned_range" else 3, 2, 2)
        model_out = normal(out_shape, seed, "model_out", i).clamp(-2, 2)
        model_out[:, :, 3:] *= 0.5
        tape, path = Tape(seed, "trajectory", i), [x]
        with tape.playing():
            for j, t in enumerate(times):
                prev = None if args.get("no_prev") else (times + [None])[j + 1]
                result = scheduler.step(model_out[j], t, path[-1], prev_timestep=prev)
                path.append(result.prev_sample)
        recorded = dict(init=x, model_out=model_out, noise=torch.stack(tape.draws),
                        prev_sample=torch.stack(path[1:]))
        tensors |= {f"{i:02}.{name}": tensor for name, tensor in recorded.items()}
        cases.append(dict(id=f"{i:02}", cls="UnCLIPScheduler", config=config, steps=steps,
                          args=args, timesteps=times))
    others, other_cases = other_schedulers(seed, len(cases))
    folder = out / "cases/schedulers"
    save(folder / "trajectories.safetensors", tensors | others)
    save_json(folder / "case.json", dict(kind="schedulers", cases=cases + other_cases))

    linear, cosine = DDPMScheduler(), UnCLIPScheduler()
    scaled = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.001, beta_end=0.015)
    shorter = DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=600)
    tables = {}
    for name, s in [("linear", linear), ("scaled_linear", scaled), ("squaredcos_cap_v2", cosine),
                    ("squaredcos_cap_v2_600", shorter)]:
        tables |= {f"{name}.betas": s.betas, f"{name}.alphas_cumprod": s.alphas_cumprod}
    given = (normal((5, 3, 2, 2), seed, "x0"), normal((5, 3, 2, 2), seed, "noise"),
             torch.tensor([0, 2, 333, 990, 999]))
    tables |= dict(zip(("add_noise.x0", "add_noise.noise", "add_noise.timesteps"), given))
    tables |= {"add_noise.linear.out": linear.add_noise(*given),
               "add_noise.squaredcos.out": cosine.add_noise(*given),
               "get_velocity.linear.out": linear.get_velocity(*given)}
    save(folder / "tables.safetensors", tables)
    lists = {}
    for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 25, 26, 50, 64, 100, 250, 1000):
        cosine.set_timesteps(n)
        lists[n] = cosine.timesteps.tolist()
    save_json(folder / "unclip_timesteps.json", lists)


# ---- whole pipelines

DRAWING = ["pipelines.unclip.pipeline_unclip", "pipelines.unclip.pipeline_unclip_image_variation",
           "pipelines.kandinsky2_2.pipeline_kandinsky2_2_prior"] + [
    f"schedulers.scheduling_{name}"
    for name in ("unclip", "ddim", "ddpm", "dpmsolver_multistep", "euler_discrete")]


class Tape:
    """Stands for diffusers' `randn_tensor`: draws and keeps noise, or plays it back."""

    def __init__(self, *key, draws=None):
        self.key, self.draws, self.replay = key, draws or [], iter(draws) if draws else None

    def __call__(self, shape, generator=None, device=None, dtype=None, layout=None):
        if self.replay is None:
            self.draws.append(normal(tuple(shape), *self.key, len(self.draws)))
            return self.draws[-1].to(dtype)
        return next(self.replay).to(dtype)

    @contextlib.contextmanager
    def playing(self):
        with contextlib.ExitStack() as stack:
            for module in DRAWING:
                stack.enter_context(unittest.mock.patch(f"diffusers.{module}.randn_tensor", self))
            yield


def run(pipe, args: dict, tape: Tape) -> dict:
    """Runs the pipeline; the latents after each step, the image embeddings, the images."""
    steps = {name.removesuffix("_scheduler"): [] for name in pipe.components if "_sched" in name}
    seen = {}

    def recording(step, log):
        def inner(*a, **k):
            result = step(*a, **k)
            log.append(result.prev_sample)
            return result
        return inner

    with contextlib.ExitStack() as stack:
        stack.enter_context(tape.playing())
        for stage, log in steps.items():
            scheduler = getattr(pipe, f"{stage}_scheduler")
            step = recording(scheduler.step, log)
            stack.enter_context(unittest.mock.patch.object(scheduler, "step", step))
        hook = pipe.text_proj.register_forward_pre_hook(
            lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
        stack.callback(hook.remove)
        image = pipe(**args, output_type="np").images
    return dict(path={stage: torch.stack(log) for stage, log in steps.items()},
                image_embeddings=seen["image_embeddings"],
                image_small=steps["decoder"][-1].clamp(-1, 1), image=torch.from_numpy(image))


def best_run(pipe, args: dict, *key):
    """The run of the first good salt, else of the best; its draws; its distances from doubles."""
    twin = copy.deepcopy(pipe).to(torch.float64)
    doubled = {k: v.double() if torch.is_tensor(v) else v for k, v in args.items()}
    best = None
    for salt in range(16):
        tape = Tape(*key, salt)
        result = run(pipe, args, tape)
        with double_precision():
            double = run(twin, doubled, Tape(draws=tape.draws))
        floors = {key: floor(result[key], double[key]) for key in result if key != "path"}
        score = floors["image"] + floors["image_small"]
        if best is None or score < best[0]:
            best = (score, salt, floors, tape.draws, result)
        if score < 1e-4:
            break
    return best[1:]


def save_run(folder: pathlib.Path, pipe, result: dict, draws: list, salt: int, floors: dict, case):
    """One file for each stage, the pictures, and case.json."""
    draws = iter(draws)
    for stage, path in result["path"].items():
        times = getattr(pipe, f"{stage}_scheduler").timesteps
        tensors = dict(timesteps=times, latents_in=next(draws),
                       noise=torch.stack([next(draws) for _ in times[1:]]))
        if case["kind"] == "text_to_image":  # where the steps are compared one by one
            tensors |= dict(prev_sample=path)
        if stage != "super_res":
            key = dict(prior="image_embeddings", decoder="image_small")[stage]
            tensors[key] = result[key]
        save(folder / f"{stage}.safetensors", tensors)
    save(folder / "output.safetensors", dict(image_nhwc=result["image"]))
    for i, picture in enumerate(pipe.numpy_to_pil(result["image"].numpy())):
        picture.save(folder / f"output_{i}.png")
    clipped = dict(decoder=float((result["image_small"].abs() > 0.999).float().mean()),
                   image=float(((result["image"] - 0.5).abs() > 0.4995).float().mean()))
    print(folder.name, "salt", salt, "clipped", clipped, floors)
    save_json(folder / "case.json", case | dict(salt=salt, clipped=clipped, f32_vs_f64=floors))


def make_text_to_image(out: pathlib.Path, seed: int, pipe, name: str, args: dict) -> None:
    salt, floors, draws, result = best_run(pipe, args, seed, name)
    ids, mask = tokenize(pipe.tokenizer, args["prompt"])
    outputs, errors = twice(pipe.text_encoder, dict(input_ids=ids))
    names = ("text_embeds", "last_hidden_state")
    floors |= zip(names, errors)
    folder = out / "cases" / name
    save(folder / "text.safetensors",
         dict(zip(names, outputs)) | dict(input_ids=ids, attention_mask=mask))
    case = dict(kind="text_to_image", checkpoint="checkpoints/unclip", args=args)
    save_run(folder, pipe, result, draws, salt, floors, case)


def make_variations(out: pathlib.Path, seed: int, pipe, name: str, args: dict) -> None:
    folder, case = out / "cases" / name, dict(kind="image_variation", args=dict(args),
                                              checkpoint="checkpoints/unclip_variation")
    if "image" in args:
        files = [f"../clip_image_processor/{image}.png" for image in args["image"]]
        # The pipeline itself does not turn a palette's pictures into colours.
        pictures = [PIL.Image.open(folder / file).convert("RGB") for file in files]
        given = args | dict(image=pictures)
        case |= dict(images=files)
    else:
        embeddings = normal((args["image_embeddings"], WIDTH), seed, name)
        given = args | dict(image_embeddings=embeddings)
    salt, floors, draws, result = best_run(pipe, given, seed, name)
    if "image" in args:
        pixels = pipe.feature_extractor(pictures, return_tensors="pt").pixel_values
        (embeds, _), (floors["image_embeds"], _) = twice(pipe.image_encoder,
                                                         dict(pixel_values=pixels))
        embeds = embeds.repeat_interleave(args.get("num_images_per_prompt", 1), 0)
        save(folder / "image_encoder.safetensors", dict(pixel_values=pixels, image_embeds=embeds))
    else:
        save(folder / "inputs.safetensors", dict(image_embeddings=embeddings))
    save_run(folder, pipe, result, draws, salt, floors, case)


# ---- the second family

def make_kandinsky(out: pathlib.Path, seed: int) -> None:
    key = (seed, "kandinsky")
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer/small")
    vision = CLIPVisionConfig(hidden_act="gelu", **VISION["gelu"] | dict(projection_dim=WIDTH))
    folder = out / "checkpoints/kandinsky_prior"
    pipe = KandinskyV22PriorPipeline(
        prior=randomize(PriorTransformer(**PRIOR), *key, "prior"),
        image_encoder=randomize(CLIPVisionModelWithProjection(vision), *key, "image_encoder"),
        text_encoder=text_model(tokenizer, "stated", *key, "text_encoder",
                                **TEXT | dict(hidden_act="gelu")),
        tokenizer=tokenizer, image_processor=image_processor(vision.image_size),
        scheduler=UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample",
                                  clip_sample_range=10.0))
    pipe.save_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    twin = copy.deepcopy(pipe).to(torch.float64)
    for name, args in KANDINSKY.items():
        tape = Tape(*key, name)
        with tape.playing():
            single = pipe(**args).to_tuple()
        with double_precision(), Tape(draws=tape.draws).playing():
            double = twin(**args).to_tuple()
        case, names = out / "cases" / name, ("image_embeds", "negative_image_embeds")
        save(case / "io.safetensors", dict(zip(names, single)) | dict(
            timesteps=pipe.scheduler.timesteps, latents_in=tape.draws[0],
            noise=torch.stack(tape.draws[1:])))
        save_json(case / "case.json", dict(
            kind="kandinsky_prior", checkpoint="checkpoints/kandinsky_prior", args=args,
            f32_vs_f64=max(map(floor, single, double))))


def make_noise_augmentation(out: pathlib.Path, seed: int) -> None:
    """What Stable unCLIP makes of an image embedding: scaled, noised, scaled back, its level."""
    name, width = "stable_unclip_normalizer", 18
    normalizer = randomize(StableUnCLIPImageNormalizer(width), seed, name)
    normalizer.std.data.abs_().add_(0.3)
    normalizer.save_pretrained(out / "checkpoints" / name)
    embeds, noise = normal((2, width), seed, name), normal((2, width), seed, name, "noise")
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    tensors = dict(image_embeds=embeds, noise=noise, scale=normalizer.scale(embeds),
                   unscale=normalizer.unscale(embeds))
    for level in (0, 3, 400, 999):
        levels = torch.full((2,), level)
        noised = normalizer.unscale(
            scheduler.add_noise(normalizer.scale(embeds), noise, timesteps=levels))
        encoded = get_timestep_embedding(levels, width, flip_sin_to_cos=True,
                                         downscale_freq_shift=0)
        tensors[f"noised.{level}"] = torch.cat([noised, encoded], 1)
    folder = out / "cases/noise_augmentation"
    save(folder / "io.safetensors", tensors)
    save_json(folder / "case.json", dict(kind="stable_unclip_noise", checkpoint=f"checkpoints/{name}"))


# ---- training

STEP = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-2, weight_decay=0.1)


def marks(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Of each tensor its length and its product with cosines: what differs shows in one of them."""
    def pair(x):
        x = x.detach().double().flatten()
        return torch.stack([x.norm(), x @ torch.cos(torch.arange(1, len(x) + 1).double())])
    return torch.stack([pair(x) for x in tensors])


def trained(modules: dict, losses, scale: float) -> tuple[dict, list[str]]:
    """Gradients of the mean loss, and what one step of AdamW with these times `scale` changes."""
    named = [(f"{k}.{n}", p) for k, m in modules.items() for n, p in m.named_parameters()
             if n not in ("clip_mean", "clip_std")]  # statistics
    parameters = [p.requires_grad_() for _, p in named]
    with torch.enable_grad():
        loss = losses()
        gradients = torch.autograd.grad(loss.mean(), parameters, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters)]
    before = [p.detach().clone() for p in parameters]
    for p, g in zip(parameters, gradients):
        p.grad = g * scale
    matrices = [p for p in parameters if p.dim() > 1]
    others = [p for p in parameters if p.dim() <= 1]
    torch.optim.AdamW([dict(params=matrices), dict(params=others, weight_decay=0)], **STEP).step()
    changes = [p - b for p, b in zip(parameters, before)]
    return dict(losses=loss, gradients=marks(gradients), changes=marks(changes)), [n for n, _ in named]


def make_train_steps(out: pathlib.Path, seed: int, pipe: UnCLIPPipeline) -> None:
    """A step of each recipe, from samples, uniforms of generator 0 and given normals. In f64."""
    t = torch.arange(1000, dtype=torch.float64)
    cosine = lambda t: torch.cos((t / 1000 + 0.008) / 1.008 * torch.pi / 2) ** 2  # noqa: E731
    betas = (1 - cosine(t + 1) / cosine(t)).clamp(max=0.999)
    bars = (1 - betas).cumprod(0)
    n, key = 3, (seed, "train step")

    def at(values, t, like):
        return values[t].reshape(-1, *[1] * (like.dim() - 1))

    def save_step(name, modules, inputs, losses):
        copies = {k: copy.deepcopy(m).double() for k, m in modules.items()}
        found, names = trained(copies, lambda: losses(copies), scale=0.5)
        folder = out / "cases" / f"train_step_{name}"
        save(folder / "io.safetensors", {
            k: v.float() if v.is_floating_point() else v.long() if v.dtype == torch.bool else v
            for k, v in (inputs | found).items()})
        save_json(folder / "case.json", dict(
            kind="train_step", stage=name, checkpoint="checkpoints/unclip", parameters=names,
            gradient_scale=0.5, **STEP))

    ids, mask = tokenize(pipe.tokenizer, ["a bridge", "he said: it's art!", "", ""])
    text = pipe.text_encoder(ids)
    captions = dict(text_embeds=text.text_embeds, tokens=text.last_hidden_state, mask=mask.bool())

    # Decoder: three uniforms drop embeddings, three captions, and one each is the time.
    draws = torch.Generator().manual_seed(0)
    has_image, has_caption = (torch.rand(n, generator=draws) >= share for share in (0.1, 0.5))
    times = torch.cat([torch.rand(1, generator=draws) for _ in range(n)]).mul(1000).long()
    side = pipe.decoder.config.sample_size
    bytes_ = torch.randint(0, 256, (n, 3, side, side), generator=generator(*key)).to(torch.uint8)
    image = normal((n, WIDTH), *key, "image")
    noise = normal((n, 3, side, side), *key, "noise")

    def decoder_losses(modules):
        rows = torch.where(has_caption, torch.arange(n), n)
        projection, x0, eps = modules["text_proj"], bytes_.double() / 127.5 - 1, noise.double()
        null = projection.learned_classifier_free_guidance_embeddings
        given = torch.where(has_image[:, None], image.double(), null)
        context, added = projection(
            image_embeddings=given, prompt_embeds=captions["text_embeds"][rows].double(),
            text_encoder_hidden_states=captions["tokens"][rows].double(),
            do_classifier_free_guidance=False)
        bar = at(bars, times, x0)
        x = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
        found, v = modules["decoder"](
            x, times, encoder_hidden_states=context, class_labels=added,
            attention_mask=F.pad(captions["mask"][rows], (4, 0), value=True)).sample.chunk(2, 1)
        mse = (found - eps).square().flatten(1).mean(1)
        # The bound, with the mean held; none of the times is 0.
        assert times.min() > 0
        beta, before = at(betas, times, x0), at(bars, times - 1, x0)
        small = (beta * (1 - before) / (1 - bar)).log()
        log_variance = (v + 1) / 2 * beta.log() + (1 - v) / 2 * small
        mean_of = lambda x0: (before.sqrt() * beta * x0  # noqa: E731
                              + (1 - beta).sqrt() * (1 - before) * x) / (1 - bar)
        start = (x - (1 - bar).sqrt() * found.detach()) / bar.sqrt()
        kl = torch.distributions.kl_divergence(
            torch.distributions.Normal(mean_of(x0), (small / 2).exp()),
            torch.distributions.Normal(mean_of(start), (log_variance / 2).exp()))
        return mse + kl.flatten(1).mean(1) / math.log(2)

    save_step("decoder", dict(text_proj=pipe.text_proj, decoder=pipe.decoder),
              dict(pictures=bytes_, image_embeds=image, noise=noise, **captions), decoder_losses)

    # Prior: three uniforms drop captions, and one each is the time.
    draws = torch.Generator().manual_seed(0)
    prior_kept = torch.rand(n, generator=draws) >= 0.1
    prior_times = torch.cat([torch.rand(1, generator=draws) for _ in range(n)]).mul(1000).long()
    prior_noise = normal((n, WIDTH), *key, "prior noise")

    def prior_losses(modules):
        rows = torch.where(prior_kept, torch.arange(n), n)
        prior = modules["prior"]
        x0 = (image.double() - prior.clip_mean) / prior.clip_std
        bar = at(bars, prior_times, x0)
        x = bar.sqrt() * x0 + (1 - bar).sqrt() * prior_noise.double()
        found = prior(
            x, prior_times, captions["text_embeds"][rows].double(),
            captions["tokens"][rows].double(), captions["mask"][rows]).predicted_image_embedding
        return (found - x0).square().mean(1)

    save_step("prior", dict(prior=pipe.prior),
              dict(image_embeds=image, noise=prior_noise, **captions), prior_losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="its folders are replaced")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    out, seed = arguments.out, arguments.seed
    torch.set_num_threads(1)  # another number changes last bits
    torch.set_grad_enabled(False)
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in ("tokenizer", "checkpoints", "cases"):
        shutil.rmtree(out / name, ignore_errors=True)
    make_tokenizers(out)
    pipe = make_unclip(out, seed)
    make_clip_text(out, seed, pipe.tokenizer)
    make_clip_vision(out, seed)
    make_image_processor(out, seed)
    make_clip_full(out, seed, pipe.tokenizer)
    make_forwards(out, seed, pipe)
    make_schedulers(out, seed)
    for name, args in T2I.items():
        make_text_to_image(out, seed, pipe, name, args)
    variation = make_variation(out, seed)
    for name, args in VARIATIONS.items():
        make_variations(out, seed, variation, name, args)
    make_kandinsky(out, seed)
    make_noise_augmentation(out, seed)
    make_train_steps(out, seed, pipe)
    save_json(out / "meta.json", dict(script="tools/make_fixtures.py", seed=seed, versions=dict(
        torch=torch.__version__, diffusers=diffusers.__version__,
        transformers=transformers.__version__)))


if __name__ == "__main__":
    main()
