"""A GAN as Lightning's documentation has it: two optimizers, manual steps, no validation, no test.

Its data are a Dataset without a loader. Copied into a project by ports.py.
"""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import Dataset


class Circle(Dataset):
    def __len__(self):
        return 150

    def __getitem__(self, index):
        angle = torch.rand(()) * 6.28  # from the global generator, anew in each epoch
        return torch.stack([angle.cos(), angle.sin()])


class Gan(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))

    def training_step(self, batch, batch_idx):
        optimizer_g, optimizer_d = self.optimizers()
        fake = self.generator(torch.randn(len(batch), 4))
        if batch_idx % 2 == 0:
            self.toggle_optimizer(optimizer_d)
            logits = torch.cat([self.critic(batch), self.critic(fake.detach())])
            wanted = torch.cat([torch.ones(len(batch), 1), torch.zeros(len(batch), 1)])
            d_loss = nn.functional.binary_cross_entropy_with_logits(logits, wanted)
            optimizer_d.zero_grad()
            self.manual_backward(d_loss)
            optimizer_d.step()
            self.untoggle_optimizer(optimizer_d)
            self.log("d_loss", d_loss, prog_bar=True)  # in every second step
        self.toggle_optimizer(optimizer_g)
        g_loss = nn.functional.softplus(-self.critic(self.generator(torch.randn(len(batch), 4))))
        g_loss = g_loss.mean()
        optimizer_g.zero_grad()
        self.manual_backward(g_loss)
        optimizer_g.step()
        self.untoggle_optimizer(optimizer_g)
        self.log_dict({"g_loss": g_loss, "weight": self.critic[0].weight.norm()})

    def configure_optimizers(self):
        g = torch.optim.Adam(self.generator.parameters(), lr=0.01, betas=(0.5, 0.9))
        d = torch.optim.Adam(self.critic.parameters(), lr=0.02, betas=(0.5, 0.9))
        return [g, d], []


class Data:
    train = Circle()


def parts(cfg):
    return Gan(), Data()
