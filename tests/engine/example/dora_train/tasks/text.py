"""A small GPT on a text that every Python has: the source files of its standard library.

`dora run task=text`. It is measured in bits per character (bpc), and trained by steps.
"""

import math
import sysconfig
import zlib
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader


class Text:
    """The files of the standard library: a tenth is for validation, and one for the test.

    A batch is [B, context + 1] uint8: bytes in a row, and each but the first is a target.
    """

    def __init__(self, context, batch_size, num_workers):
        self.files, texts = {}, {"train": bytearray(), "valid": bytearray(), "test": bytearray()}
        for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            text, number = path.read_bytes(), zlib.crc32(path.name.encode())
            part = {0: "valid", 1: "test"}.get(number % 10, "train")
            texts[part] += text
            self.files[path.name] = [part, len(text), zlib.crc32(text)]
        for part, text in texts.items():
            pieces = torch.frombuffer(text, dtype=torch.uint8).unfold(0, context + 1, context)
            how = {"shuffle": part == "train", "num_workers": num_workers}
            setattr(self, part, DataLoader(pieces, batch_size, **how))

    def contents(self):
        """{file: [part, size, checksum]}: a resume refuses other files."""
        return self.files


class GPT(pl.LightningModule):
    """Self-attention that sees no later symbol: from [B, T] int64 to logits [B, T, 256]."""

    def __init__(self, layers, width, heads, lr, weight_decay, context):
        super().__init__()
        self.lr, self.decay, self.context = lr, weight_decay, context
        self.symbols, self.places = nn.Embedding(256, width), nn.Embedding(context, width)
        how = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, **how)
        self.blocks = nn.TransformerEncoder(block, layers, nn.LayerNorm(width), False)
        self.head = nn.Linear(width, 256)

    def forward(self, text):
        places = torch.arange(text.shape[1], device=text.device)
        mask = nn.Transformer.generate_square_subsequent_mask(len(places), device=text.device)
        return self.head(self.blocks(self.symbols(text) + self.places(places), mask))

    def losses(self, text):
        """[B] float32: of each piece, in nats per symbol."""
        logits = self(text[:, :-1].long()).transpose(1, 2)
        return nn.functional.cross_entropy(logits, text[:, 1:].long(), reduction="none").mean(1)

    def training_step(self, text, batch_idx):
        return self.losses(text).mean()

    def validation_step(self, text, batch_idx):
        loss = self.losses(text)
        return {"loss": loss, "bpc": loss / math.log(2)}

    test_step = validation_step

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.lr, weight_decay=self.decay)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def parts(cfg):
    data = Text(cfg.data.context, cfg.data.batch_size, cfg.data.num_workers)
    return GPT(**cfg.model_args, **cfg.optim, context=cfg.data.context), data


@torch.inference_mode()
def predict(module, data, words):
    """WORDS are how a text begins: it goes on for 300 symbols, the same each time."""
    text, generator = list(" ".join(words).encode()), torch.Generator().manual_seed(0)
    for _ in range(300):
        logits = module(torch.tensor([text[-module.context :]]))[0, -1]
        text.append(int(logits.softmax(0).multinomial(1, generator=generator)))
    return bytes(text).decode(errors="replace") + "\n"
