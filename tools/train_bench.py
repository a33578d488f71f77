"""Times a training step of each stage of a checkpoint in PyTorch: what examples/train_bench.rs times.

    python tools/train_bench.py --from models/demo --stage decoder

Networks are diffusers' and transformers', made from the checkpoint's config files. A step is: encode
caption and picture with the frozen towers, noise, forward, loss, backward, clip the gradients to 1,
AdamW, average the weights.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
import torch.nn.functional as F


def config(folder):
    values = json.loads((folder / "config.json").read_text())
    return {k: v for k, v in values.items() if not k.startswith("_")}


def load(cls, folder):
    return cls.from_config({"_class_name": cls.__name__, **config(folder)})


def tower(cls, config_cls, folder):
    return cls(config_cls(**config(folder)))


class Stages:
    def __init__(self, root, batch):
        self.root, self.batch = root, batch
        betas = 1000
        self.alpha_bar = torch.cos((torch.arange(betas) / betas + 0.008) / 1.008 * torch.pi / 2) ** 2

    def text(self):
        from transformers import CLIPTextConfig, CLIPTextModelWithProjection

        return tower(CLIPTextModelWithProjection, CLIPTextConfig, self.root / "text_encoder")

    def vision(self):
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        return tower(CLIPVisionModelWithProjection, CLIPVisionConfig, self.root / "image_encoder")

    def ids(self, text):
        ids = torch.zeros(self.batch, text.config.max_position_embeddings, dtype=torch.long)
        ids[:, :14] = torch.randint(1, text.config.vocab_size - 2, (self.batch, 14))
        ids[:, 13] = text.config.eos_token_id
        return ids

    def noised(self, x):
        t = torch.randint(0, 1000, (self.batch,))
        noise = torch.randn_like(x)
        a = self.alpha_bar[t].reshape(-1, *[1] * (x.dim() - 1))
        return a.sqrt() * x + (1 - a).sqrt() * noise, noise, t

    def clip(self):
        text, vision = self.text(), self.vision()
        size = vision.config.image_size
        ids, pixels = self.ids(text)[:, :14], torch.randn(self.batch, 3, size, size)

        def loss():
            a = F.normalize(text(ids).text_embeds, dim=-1)
            b = F.normalize(vision(pixels).image_embeds, dim=-1)
            logits = 14.0 * a @ b.T
            own = torch.arange(self.batch)
            return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

        return [text, vision], loss

    def prior(self):
        from diffusers import PriorTransformer

        prior, text = load(PriorTransformer, self.root / "prior"), self.text().eval()
        width = prior.config.embedding_dim
        ids = self.ids(text)
        mask = (torch.arange(ids.shape[1]) < 14).expand(self.batch, -1)
        start = torch.randn(self.batch, width)

        def loss():
            with torch.no_grad():
                out = text(ids)
            x, _, t = self.noised(start)
            y = prior(x, t, out.text_embeds, out.last_hidden_state, mask).predicted_image_embedding
            return F.mse_loss(y, start)

        return [prior], loss

    def decoder(self):
        from diffusers import UNet2DConditionModel

        try:
            from diffusers.pipelines.unclip.text_proj import UnCLIPTextProjModel
        except ImportError:  # where later versions keep it
            from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

        unet = load(UNet2DConditionModel, self.root / "decoder")
        proj = load(UnCLIPTextProjModel, self.root / "text_proj")
        text, vision = self.text().eval(), self.vision().eval()
        size = unet.config.sample_size
        scheduler = json.loads((self.root / "decoder_scheduler/scheduler_config.json").read_text())
        predicts_noise = scheduler["prediction_type"] == "epsilon"
        ids, pixels = self.ids(text), torch.rand(self.batch, 3, size, size) * 2 - 1

        def loss():
            with torch.no_grad():
                out = text(ids)
                embeds = vision(pixels).image_embeds
            tokens, added = proj(
                image_embeddings=embeds,
                prompt_embeds=out.text_embeds,
                text_encoder_hidden_states=out.last_hidden_state,
                do_classifier_free_guidance=False,
            )
            x, noise, t = self.noised(pixels)
            found = unet(x, t, encoder_hidden_states=tokens, class_labels=added).sample
            target = noise if predicts_noise else pixels
            if found.shape == target.shape:
                return F.mse_loss(found, target)
            eps, v = found.chunk(2, 1)
            # The bound on the variances: a KL of normals, with the mean held.
            a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
            before = self.alpha_bar[(t - 1).clamp(min=0)].reshape(-1, 1, 1, 1)
            beta = 1 - a / before
            least = (beta * (1 - before) / (1 - a)).clamp(min=1e-20).log()
            most = beta.clamp(min=1e-20).log()
            found = (v + 1) / 2 * (most - least) + least
            apart = (noise - eps.detach()) * beta / ((1 - a).sqrt() * (1 - beta).sqrt())
            kl = 0.5 * (found - least - 1 + (least - found).exp() + apart**2 * (-found).exp())
            return F.mse_loss(eps, target) + 1e-3 * kl.mean()

        return [unet, proj], loss

    def upsampler(self):
        from diffusers import UNet2DModel

        unet = load(UNet2DModel, self.root / "super_res_first")
        # Crops of a quarter of the side.
        size = unet.config.sample_size // 4
        pixels, low = (torch.rand(self.batch, 3, size, size) * 2 - 1 for _ in range(2))

        def loss():
            x, _, t = self.noised(pixels)
            return F.mse_loss(unet(torch.cat([x, low], 1), t).sample, pixels)

        return [unet], loss


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--from", dest="root", type=Path, default=Path("models/demo"))
    parser.add_argument("--stage", default="clip,prior,decoder,upsampler")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="forward and loss under autocast")
    parser.add_argument("--tf32", action="store_true", help="what a GPU multiplies is rounded to TF32")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = args.tf32
    torch.backends.cudnn.allow_tf32 = args.tf32
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    synchronize = torch.cuda.synchronize if args.device.startswith("cuda") else lambda: None
    for name in args.stage.split(","):
        models, loss = getattr(Stages(args.root, args.batch), name)()
        parameters = [p for m in models for p in m.parameters()]
        averages = [p.detach().clone() for p in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4)
        seconds = []
        for step in range(args.steps + 2):
            start = time.perf_counter()
            optimizer.zero_grad()
            with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=args.bf16):
                value = loss()
            value.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1e-3)
            synchronize()
            if step > 1:
                seconds.append(time.perf_counter() - start)
        median = sorted(seconds)[len(seconds) // 2]
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(
            f"{name:>10}: {args.batch / median:7.2f} samples/s, {median:.3f} s a step of "
            f"{args.batch}, peak memory of the process {memory:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    main()
