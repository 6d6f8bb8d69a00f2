"""The schedule in Hugging Face's Trainer: a tiny vision transformer, from its configuration."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from digits import digits
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import igo


class WholePlan(Sampler[list[int]]):
    """All batches of all epochs: Trainer takes it that each pass of a loader has one length."""

    def __init__(self, plan: igo.Plan, data: Any, seed: int) -> None:
        self.plan, self.data, self.seed = plan, data, seed

    def __len__(self) -> int:
        return self.plan.updates

    def __iter__(self) -> Iterator[list[int]]:
        batches = igo.BatchSampler(self.plan, self.data, seed=self.seed)
        for _ in batches.epochs():
            for indices in batches:
                batches.advance()
                yield indices


class PlannedTrainer(Trainer):
    """Trainer with the batches and rates of a plan, for one process; give max_steps=plan.updates.

    After a resume Trainer skips the batches that were trained.
    """

    def __init__(self, *arguments: Any, plan: igo.Plan, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.plan = plan
        each = self.args.gradient_accumulation_steps, self.args.max_steps, self.args.world_size
        assert each == (1, plan.updates, 1), "a step is an update of the plan"

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.train_dataset,
            batch_sampler=WholePlan(self.plan, self.train_dataset, self.args.seed),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
        )

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        plan = self.plan
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer,
            lambda made: plan.at(min(made + 1, plan.updates)).learning_rate / plan.learning_rate,
        )
        return self.lr_scheduler


def main(epochs: int = 10) -> float:
    torch.manual_seed(0)
    train, test = (
        [
            {"pixel_values": image, "labels": label}
            for image, label in zip(*data.tensors, strict=True)
        ]
        for data in digits()
    )
    model = ViTForImageClassification(
        ViTConfig(
            image_size=8, patch_size=2, num_channels=1, hidden_size=32, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=64, num_labels=10,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
    )  # fmt: skip
    plan = igo.plan("graduated", n=len(train), epochs=epochs, batch_size=16, p=0.5)
    print(plan)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, learning_rate=0.003, max_steps=plan.updates, save_strategy="no",
            report_to="none", use_cpu=True, disable_tqdm=True, seed=0,
        )  # fmt: skip
        trainer = PlannedTrainer(
            model, arguments, train_dataset=train, eval_dataset=test, plan=plan,
            compute_metrics=lambda output: {
                "accuracy": float((output.predictions.argmax(1) == output.label_ids).mean())
            },
        )  # fmt: skip
        trainer.train()
        evaluated = trainer.evaluate()
    assert trainer.state.global_step == plan.updates
    print(f"{plan.updates} updates: test {evaluated['eval_accuracy']:.2%}")
    return float(evaluated["eval_accuracy"])


if __name__ == "__main__":
    main()
