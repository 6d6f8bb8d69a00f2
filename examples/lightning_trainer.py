"""The schedule in Lightning: a callback and its loader, stopped in mid-epoch and resumed."""

import logging
import tempfile
from typing import Any

import torch
from digits import accuracy, digits, small_network
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import igo
from igo.adapters.lightning import Graduated


class Classifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def training_step(self, batch: list[Tensor]) -> Tensor:
        images, labels = batch
        return cross_entropy(self.network(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=0.003)


def main(epochs: int = 6) -> float:
    torch.manual_seed(0)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    train, test = digits()
    plan = igo.plan("cosine", n=len(train), epochs=epochs, batch_size=16)
    print(plan)

    class Digits(LightningDataModule):
        def __init__(self, graduated: Graduated) -> None:
            super().__init__()
            self.graduated = graduated

        def train_dataloader(self) -> DataLoader[Any]:
            return self.graduated.loader(train)

    def fit(folder: str, max_steps: int, ckpt_path: str | None = None) -> Classifier:
        graduated, model = Graduated(plan, seed=0), Classifier()
        saving = ModelCheckpoint(folder, filename="newest", every_n_train_steps=max_steps)
        trainer = Trainer(
            max_epochs=plan.epochs,
            max_steps=max_steps,
            callbacks=[graduated, saving],
            accelerator="cpu",
            use_distributed_sampler=False,
            logger=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            default_root_dir=folder,
        )
        trainer.fit(model, datamodule=Digits(graduated), ckpt_path=ckpt_path)
        print(
            f"updates {trainer.global_step} of {plan.updates}, test "
            f"{accuracy(model.network, test):.2%}"
        )
        assert trainer.global_step == graduated.batches.updates == max_steps
        return model

    with tempfile.TemporaryDirectory() as folder:
        fit(folder, max_steps=plan.updates // 2)
        model = fit(folder, max_steps=plan.updates, ckpt_path=f"{folder}/newest.ckpt")
    return accuracy(model.network, test)


if __name__ == "__main__":
    main()
